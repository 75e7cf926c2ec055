//! One line of text for whoever watches, and the end of the machine when there is no SVSM to be.
//!
//! Nothing is known yet of the machine but what kind it is, so ports are the layout's. A protected machine has no ports before
//! there is memory to share with its host: stage2 is silent there.

#![expect(unsafe_code, reason = "reaches the ports of the machine")]

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use svsm_platform::console::Uart16550;
use svsm_platform::native::{Host, Power, SleepControl};
use svsm_platform::seam::{Reason, Terminate};
use svsm_platform::snp::{self, Terminator};
use svsm_stage2::handoff::WirePlatform;
use svsm_stage2::layout::{CONSOLE_PORT, POWER_PORT};

/// Whether the machine is protected by SEV-SNP: it has no ports then.
static SNP: AtomicBool = AtomicBool::new(false);

/// Takes note of the kind of machine.
pub(crate) fn know(platform: WirePlatform) {
    SNP.store(platform == WirePlatform::SEV_SNP, Ordering::Relaxed);
}

fn ports() -> Host<'static> {
    // SAFETY: stage2 runs in ring 0, and writes to the ports of the console and of power control
    // only, which change no memory.
    unsafe { Host::assume_harmless(&[]) }
}

/// Writes a line.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    if SNP.load(Ordering::Relaxed) {
        return;
    }
    let mut console = Uart16550::new(ports(), CONSOLE_PORT);
    // The SVSM sets the device up again; a device that is not there is no reason to stop.
    if console.init() == Ok(true) {
        let _ = writeln!(console, "{text}");
    }
}

/// Ends the machine, out of order.
pub(crate) fn fatal(reason: Reason) -> ! {
    if SNP.load(Ordering::Relaxed) {
        Terminator::new(snp::insn::Processor).fatal(reason)
    }
    Power::new(
        ports(),
        SleepControl {
            port: POWER_PORT,
            soft_off: 0,
        },
    )
    .fatal(reason)
}

/// A panic's message may quote data; its place in the source is public.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => say(format_args!("stage2: panic at {}:{}", at.file(), at.line())),
        None => say(format_args!("stage2: panic")),
    }
    fatal(Reason::General)
}

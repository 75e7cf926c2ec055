//! The platform below us: an unprotected PC so far. What differs between platforms is chosen here and nowhere else.

use core::sync::atomic::{AtomicU16, Ordering};

use svsm_log::Sink;
use svsm_platform::console::Uart16550;
use svsm_platform::native::{Host, Power, SleepControl};
use svsm_stage2::handoff::Handoff;

/// The port of the power-management register, from the hand-off. Read by a panic on any CPU, so it is an atomic.
static POWER_PORT: AtomicU16 = AtomicU16::new(0);
/// The port of the console, from the hand-off, for the same reason; 0 if there is none.
static CONSOLE_PORT: AtomicU16 = AtomicU16::new(0);
/// SLP_TYP of S5 on QEMU's PC, as its firmware tables say.
const SOFT_OFF: u8 = 0;

/// Takes from the hand-off what speaking and ending need.
pub(crate) fn know_ports(handoff: &Handoff) {
    POWER_PORT.store(handoff.power_port.unwrap_or(0), Ordering::Relaxed);
    CONSOLE_PORT.store(handoff.console_port.unwrap_or(0), Ordering::Relaxed);
}

/// The way to ports and registers.
pub(crate) const fn host() -> Host<'static> {
    // SAFETY: this is ring 0. The firmware reaches the serial port, the power-management register, the reset port, the timer
    // that calibrates another, and the local APIC: none of them changes memory.
    #[expect(
        unsafe_code,
        reason = "vouches for the ports and registers that this firmware uses"
    )]
    unsafe {
        Host::assume_harmless(&[])
    }
}

/// What ends the machine.
pub(crate) fn terminator() -> Power<Host<'static>> {
    let port = POWER_PORT.load(Ordering::Relaxed);
    Power::new(
        host(),
        SleepControl {
            port,
            soft_off: SOFT_OFF,
        },
    )
}

/// The serial port, if there is one.
#[derive(Debug)]
pub(crate) struct Console(Option<Uart16550<Host<'static>>>);

impl Console {
    /// What is written vanishes.
    pub(crate) const NONE: Self = Self(None);

    /// The serial port, set up; none where nothing answers.
    pub(crate) fn open() -> Self {
        let port = CONSOLE_PORT.load(Ordering::Relaxed);
        let mut uart = Uart16550::new(host(), port);
        let present = port != 0 && uart.init() == Ok(true);
        Self(present.then_some(uart))
    }
}

/// The other end takes too little, too late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped;

impl Sink for Console {
    type Error = Dropped;

    fn write(&mut self, bytes: &[u8]) -> Result<(), Dropped> {
        let Some(uart) = &mut self.0 else {
            return Ok(());
        };
        let before = uart.dropped();
        uart.send(bytes);
        if uart.dropped() == before {
            Ok(())
        } else {
            Err(Dropped)
        }
    }
}

//! The guests, by name.

mod cpu; // what a CPU shows of SVM, EFER and the APIC's mode
mod edu; // what devices reach
mod ending; // the ways to end
mod memory; // what is where
mod smp; // other CPUs, interrupts and sleep
mod snp; // SEV-SNP

use core::fmt;

/// Why a guest is not content.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    what: &'static str,
    got: u64,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (got {:#x})", self.what, self.got)
    }
}

type Result = core::result::Result<(), Failed>;

/// Runs a guest.
///
/// # Errors
/// What it found wrong.
pub fn run(name: &str) -> Result {
    match name {
        "power-off" => Ok(()),
        "triple-fault" => ending::triple_fault(),
        "triple-fault-ap" => ending::triple_fault_ap(),
        "reset-chipset" => ending::reset(0xcf9, 6),
        "reset-keyboard" => ending::reset(0x64, 0xfe),
        "reset-a20" => ending::reset(0x92, 1),
        "halted" => ending::halted(),
        "halted-all" => ending::halted_all(),
        "spin" => ending::spin(),
        "bad-access" => ending::bad_access(),
        "report-ports" => ending::report_ports(),
        "svm-hidden" => cpu::svm_hidden(),
        "efer" => cpu::efer(),
        "x2apic" => cpu::x2apic(),
        "count" => cpu::count(),
        "parameters" => memory::parameters(),
        "ram" => memory::ram(),
        "far-memory" => memory::far(),
        "start" => smp::start(),
        "restart" => smp::restart(),
        "nmi" => smp::nmi(),
        "nmi-halted" => smp::nmi_halted(),
        "nmi-stop" => smp::nmi_stop(),
        "interrupt" => smp::interrupt(),
        "sleep" => smp::sleep(),
        "dma" => edu::native(),
        "snp" => snp::all(),
        "snp-in-use" => snp::in_use(),
        "snp-bells" => snp::bells(),
        "snp-storm" => snp::storm(),
        "snp-storm-ring3" => snp::storm_in_ring3(),
        "snp-equal-features" => snp::equal_features(),
        "snp-levels" => snp::another_level(),
        "snp-cpus" => snp::other_cpus(),
        "snp-door" => snp::door(),
        "snp-dma" => snp::devices(),
        "snp-figures" => snp::figures(),
        "snp-door-others" => snp::door_of_others(),
        "snp-private-access-to-shared" => snp::private_access_to_shared(),
        "snp-shared-access-to-private" => snp::shared_access_to_private(),
        "snp-lower-level-writes" => snp::lower_level_writes(),
        "snp-terminate" => snp::terminate(),
        _ => match name.strip_prefix("snp-lie-") {
            Some(fault) => snp::lie(fault),
            None => Err(Failed {
                what: "there is no such guest",
                got: 0,
            }),
        },
    }
}

/// An expectation.
fn check(what: &'static str, got: u64, expected: u64) -> Result {
    if got == expected {
        Ok(())
    } else {
        Err(Failed { what, got })
    }
}

/// Waits until a condition holds, for a few seconds at most.
fn wait(what: &'static str, condition: impl Fn() -> bool) -> Result {
    let start = crate::bare::insn::rdtsc();
    while !condition() {
        if crate::bare::insn::rdtsc().wrapping_sub(start) > 20_000_000_000 {
            return Err(Failed { what, got: 0 });
        }
        core::hint::spin_loop();
    }
    Ok(())
}

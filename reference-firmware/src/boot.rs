//! From the first instruction to user mode, in order.

use svsm_log::Verdict;
use svsm_platform::addr::GpaRange;
use svsm_platform::encryption::Encryption;
use svsm_platform::percpu::CpuIndex;
use svsm_platform::seam::{Reason, Terminate};
use svsm_stage2::handoff::Handoff;
use svsm_stage2::staged::Refused;
use svsm_syscall::abi::SysError;

use crate::machine::Console;
use crate::{
    areas, clock, cpu, guest, interrupt, log, machine, memory, selftest, smp, staged, user,
};

/// The verdict's code when the SVSM itself cannot start.
const CANNOT_START: u32 = 0xfffe_0000;

/// Called by the entry code with the address of the hand-off block.
pub(crate) extern "sysv64" fn boot(handoff: *const u8) -> ! {
    cpu::begin();
    // SAFETY: the entry code passes on what stage2 put into RDI.
    #[expect(unsafe_code, reason = "trusts the register that stage2 set")]
    let handoff = unsafe { areas::handoff(handoff) };
    let Ok(handoff) = handoff else {
        // Without a hand-off there is neither a log nor a way to switch off.
        machine::terminator().fatal(Reason::BadImage)
    };
    machine::know(&handoff);
    let free = match machine::begin(&handoff) {
        Ok(free) => free,
        Err(failure) => machine::terminator().fatal(failure.reason()),
    };
    log::open(Console::open(), handoff.debug);
    info!(public, "the SVSM starts");
    match bring_up(&handoff, free) {
        Ok(()) => user::work(),
        Err(error) => {
            error!(public, "the SVSM cannot start: {}", error);
            log::verdict(Verdict::Failed(CANNOT_START));
            machine::terminator().power_off()
        }
    }
}

fn bring_up(handoff: &Handoff, free: GpaRange) -> Result<(), Failure> {
    let encryption = handoff
        .run_time
        .map_or(Encryption::None, |run_time| run_time.encryption);
    memory::take_over(handoff, free, encryption).map_err(Failure::Memory)?;
    log::remember(Console::open(), handoff.debug);
    let (free, total) = memory::memory().map_err(Failure::Memory)?.free_and_total();
    info!(public, "{} of {} KiB are free", free >> 10, total >> 10);
    if let Some(run_time) = handoff.run_time {
        info!(
            public,
            "measure: stage2 at tick: {=u64}", run_time.tsc_at_entry
        );
    }
    let pages = staged::receive(handoff, encryption).map_err(Failure::Archive)?;
    if pages > 0 {
        info!(
            public,
            "{=u64} pages of programs came through the host, and are what the image says", pages
        );
    }
    cpu::settle(CpuIndex::BOOT).map_err(Failure::Memory)?;
    let rate = clock::set_up().map_err(Failure::Platform)?;
    info!(
        public,
        "protections are on: {}; the clock runs at {} MHz",
        cpu::features(),
        rate.as_u64() / 1_000_000
    );
    user::begin(handoff).map_err(Failure::User)?;
    machine::expect_guest(guest::is_in_image());
    machine::hang_doorbell().map_err(Failure::Doorbell)?;
    if machine::takes_bells() {
        info!(
            public,
            "the host may raise nothing but #HV; interrupts are taken: {=bool}",
            machine::takes_interrupts()
        );
    }
    let own = interrupt::set_up().map_err(Failure::Apic)?;
    interrupt::measure_timer().map_err(|_| Failure::Timer)?;
    let count = smp::survey(handoff, own).map_err(Failure::Others)?;
    guest::survey(handoff).map_err(Failure::Guest)?;
    let missing = smp::start_others(handoff).map_err(Failure::Others)?;
    info!(public, "{} of {} CPUs run", smp::online(), count);
    if missing > 0 {
        return Err(Failure::Missing(missing));
    }
    selftest::run(handoff);
    user::start_first().map_err(Failure::User)
}

/// Why the SVSM cannot start.
#[derive(Clone, Copy, Debug, defmt::Format)]
enum Failure {
    /// The image's memory cannot be taken over, or there is too little.
    Memory(svsm_mm::Error),
    /// The programs did not arrive as they were sent.
    Archive(Refused<staged::Failure>),
    /// The platform does not do what it must.
    Platform(svsm_platform::Error),
    /// The host does not take the page with which it would ring.
    Doorbell(machine::snp::Unshared),
    /// There is no x2APIC, or the host does not say which.
    Apic(interrupt::NoApic),
    /// The timer does not run.
    Timer,
    /// The other CPUs cannot be started.
    Others(smp::Failure),
    /// There is a guest, and not what it takes.
    Guest(guest::Failure),
    /// There is no user mode to enter.
    User(SysError),
    /// So many CPUs did not come.
    Missing(usize),
}

//! The local APIC of each CPU, and the vectors this firmware uses.

use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU64, Ordering};

use svsm_irq::Vector;
use svsm_irq::apic::{Apic, ApicId, Command, Divide, LocalApic, Target, TimerMode, X2Apic};
use svsm_irq::entry::TrapFrame;
use svsm_platform::cpu::insn;
use svsm_platform::once::OnceCell;

use crate::machine::{self, Host, HostError};
use crate::{clock, doorbell, user};

/// Wakes a CPU that has something to run.
pub(crate) const WAKE: u8 = 0xe0;
/// The timer.
pub(crate) const TIMER: u8 = 0xe1;
/// What the APIC raises instead of an interrupt that vanished.
pub(crate) const SPURIOUS: u8 = 0xff;

/// Interrupts that were dropped because nobody asked for them.
static UNASKED: AtomicU64 = AtomicU64::new(0);
/// Counts of the timer in a slice of a task's time.
static SLICE: OnceCell<NonZeroU32> = OnceCell::new();
/// How long a task runs before another one may.
const SLICE_US: u32 = 10_000;

/// Why the APIC was not reached.
pub(crate) type Error = <X2Apic<Host> as LocalApic>::Error;

/// The APIC of this CPU, which [`set_up`] has put into x2APIC mode.
pub(crate) const fn apic() -> Apic<X2Apic<Host>> {
    Apic::new(X2Apic::new(Host))
}

/// Why there is no APIC to use.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum NoApic {
    /// It does not go into the mode that all of this relies on.
    Mode,
    /// The host does not say which it is.
    Host(HostError),
}

/// Makes the APIC of this CPU take interrupts where those come, and answers with its identity.
///
/// # Errors
/// There is none to use.
pub(crate) fn set_up() -> Result<ApicId, NoApic> {
    if !machine::takes_interrupts() {
        let id = machine::snp::apic_id();
        return id
            .map(ApicId::new)
            .map_err(|error| NoApic::Host(HostError::Snp(error)));
    }
    let mut apic = Apic::new(X2Apic::enable(Host).map_err(|_| NoApic::Mode)?);
    apic.enable(vector(SPURIOUS)).map_err(NoApic::Host)?;
    apic.id().map_err(NoApic::Host)
}

/// Measures the timer against the clock, once: all CPUs' timers run alike.
///
/// # Errors
/// Which access did not happen.
pub(crate) fn measure_timer() -> Result<(), Error> {
    if !machine::takes_interrupts() {
        return Ok(());
    }
    let mut apic = apic();
    apic.start_counting(Divide::By16)?;
    clock::spin_us(SLICE_US);
    let counted = apic.counted()?;
    apic.stop_timer()?;
    let _ = SLICE.set(NonZeroU32::new(counted).unwrap_or(NonZeroU32::MIN));
    Ok(())
}

/// Starts the ticks by which tasks share this CPU.
///
/// # Errors
/// Which access did not happen.
pub(crate) fn start_ticks() -> Result<(), Error> {
    if !machine::takes_interrupts() {
        return Ok(());
    }
    let slice = SLICE.value().copied().unwrap_or(NonZeroU32::MAX);
    apic().start_timer(vector(TIMER), TimerMode::Periodic(slice), Divide::By16)
}

/// Wakes the CPU with that identity.
pub(crate) fn wake(cpu: ApicId) {
    // A CPU that cannot be reached looks for work at its next tick.
    let _ = send(Command::fixed(Target::One(cpu), vector(WAKE)));
}

/// Handles an interrupt that has arrived.
pub(crate) fn handle(vector: Vector, frame: &TrapFrame) {
    // Under restricted injection they come by the doorbell, and what comes in another way was made by a program, which
    // cannot, or by a processor that is not what it says.
    if machine::is_snp() {
        return count_unasked();
    }
    // What has vanished was never in service.
    if vector.as_u8() != SPURIOUS {
        end();
        take(vector, frame);
    }
}

/// Does what an interrupt is for.
pub(crate) fn take(vector: Vector, frame: &TrapFrame) {
    match vector.as_u8() {
        WAKE | SPURIOUS => {}
        TIMER => user::tick(frame),
        _ => count_unasked(),
    }
}

/// A host that injects what nobody asked for is no reason to stop, nor to fill the log.
pub(crate) fn count_unasked() {
    UNASKED.fetch_add(1, Ordering::Relaxed);
}

/// How many interrupts were dropped because nobody asked for them.
pub(crate) fn unasked() -> u64 {
    UNASKED.load(Ordering::Relaxed)
}

/// Ends an interrupt at the APIC.
pub(crate) fn end() {
    let _ = apic().eoi();
}

/// Sleeps until an interrupt has come, with interrupts masked before.
pub(crate) fn sleep() {
    if machine::takes_bells() {
        doorbell::sleep();
    } else {
        insn::sti_hlt();
    }
}

/// Stops all other CPUs for good.
pub(crate) fn stop_others() {
    let _ = send(Command::nmi(Target::Others));
}

/// Sends an interrupt.
///
/// # Errors
/// Why it was not sent.
pub(crate) fn send(command: Command) -> Result<(), Error> {
    apic().access().send(command)
}

/// The numbers above are all beyond the processor's own.
fn vector(number: u8) -> Vector {
    Vector::new(number).unwrap_or(Vector::SYSCALL)
}

//! Exceptions and interrupts, once the entry code has saved what they interrupted.

use core::fmt::Write as _;

use svsm_irq::entry::{GsBase, TrapFrame, TrapHandler};
use svsm_irq::{Cause, Exception, Vector, fault};
use svsm_log::PanicLocation;
use svsm_platform::cpu::insn;
use svsm_platform::seam::{Reason, Terminate};

use crate::{areas, cpu, doorbell, intercept, interrupt, machine, panic, user};

/// What the firmware does with vectors on an unprotected machine.
pub(crate) enum Handler {}

/// What it does with them where the host must not see registers: reading one that the host intercepts would be #VC.
pub(crate) enum ProtectedHandler {}

impl TrapHandler for ProtectedHandler {
    const GS_BASE: GsBase = GsBase::Instruction;

    fn handle(frame: &mut TrapFrame) {
        Handler::handle(frame);
    }

    fn lost(frame: &TrapFrame) -> ! {
        Handler::lost(frame)
    }
}

impl TrapHandler for Handler {
    const GS_BASE: GsBase = GsBase::Msr;

    fn handle(frame: &mut TrapFrame) {
        if fault::land(frame, &areas::faults()) {
            return;
        }
        // Whoever came here by an ordinary vector looks at the doorbell before the program goes on.
        let looks = frame.from_user() && machine::takes_bells() && is_ordinary(frame.vector);
        if looks {
            cpu::set_leaves(false);
        }
        match Cause::of(frame.vector) {
            Some(Cause::Exception(Exception::NMI)) if panic::is_ending() => cpu::halt(),
            // A host may send NMIs whenever it likes; nobody here has asked for one.
            Some(Cause::Exception(Exception::NMI)) => interrupt::count_unasked(),
            Some(Cause::Exception(Exception::HV)) if doorbell::rung(frame) => {}
            Some(Cause::Exception(Exception::PF)) if user::comes_back(frame) => {}
            // These stacks are the CPU's: the program's end must wait until it is on its own.
            Some(Cause::Exception(Exception::DB)) if frame.from_user() => {
                user::doom(Exception::DB, frame)
            }
            Some(Cause::Exception(Exception::VC)) if intercept::emulate(frame) => {}
            Some(Cause::Exception(Exception::VC)) if frame.from_user() => {
                user::doom(Exception::VC, frame)
            }
            Some(Cause::Exception(Exception::VC)) => intercept::fatal(frame),
            Some(Cause::Exception(Exception::UD)) if user::is_call(frame) => user::serve(frame),
            Some(Cause::Exception(exception)) if exception.at_any_instruction() => {
                fatal(exception, frame)
            }
            Some(Cause::Exception(exception)) if frame.from_user() => user::kill(exception, frame),
            Some(Cause::Exception(exception)) => fatal(exception, frame),
            Some(Cause::Interrupt(Vector::SYSCALL)) => user::serve(frame),
            Some(Cause::Interrupt(vector)) => interrupt::handle(vector, frame),
            None => {}
        }
        if looks {
            doorbell::look(frame);
        }
    }

    fn lost(frame: &TrapFrame) -> ! {
        // GS may be anyone's, so nothing that logs can be used.
        let _ = frame;
        machine::terminator().fatal(Reason::HostViolation)
    }
}

/// Whether a vector's handler runs on the stack of a task.
fn is_ordinary(vector: u64) -> bool {
    !matches!(Cause::of(vector), Some(Cause::Exception(exception)) if exception.at_any_instruction())
}

/// An exception of the kernel's that nobody expected.
pub(crate) fn fatal(exception: Exception, frame: &TrapFrame) -> ! {
    let mut message = panic::Text::new();
    let _ = write!(
        message,
        "{exception} with error code {:#x} at {:#x}, address {:#x}",
        frame.error_code,
        frame.rip,
        insn::read_cr2().map_or(0, |at| at.as_u64()),
    );
    panic::end(
        PanicLocation {
            file: exception.mnemonic(),
            line: 0,
            column: 0,
        },
        message.as_str(),
        Some(frame.rip),
        panic::Backtrace::from(frame.rbp),
    )
}

//! User mode: processes of the archive's programs, and what they may ask of the kernel.

mod call; // system calls
pub(crate) mod endpoint; // programs that serve the guest
mod object; // what processes have open
mod process; // one process
mod space; // its memory
mod task; // who runs where
mod verdict; // how it all went

use core::sync::atomic::Ordering;

use svsm_irq::Exception;
use svsm_irq::entry::TrapFrame;

use svsm_platform::cpu::cr::RFlags;
use svsm_platform::once::OnceCell;
use svsm_stage2::handoff::Handoff;
use svsm_syscall::abi::SysError;
use svsm_syscall::archive::Archive;
use svsm_syscall::memory::{self, UserSlice};
use svsm_syscall::task::TaskId;

use crate::{areas, machine};
use process::{Process, Role};

pub(crate) use call::{Handler, serve};
pub(crate) use task::{tick, work};

/// The exit code of a process that the kernel ended, plus the vector of the exception.
const KILLED: u16 = 0x100;

static ARCHIVE: OnceCell<&'static [u8]> = OnceCell::new();

/// Makes room for processes.
///
/// # Errors
/// The image has no archive.
pub(crate) fn begin(handoff: &Handoff) -> Result<(), SysError> {
    let archive = handoff.archive.ok_or(SysError::NOT_FOUND)?;
    // SAFETY: the area is one of the checked hand-off, and the builder maps the archive read-only.
    #[expect(unsafe_code, reason = "reads an area of the image")]
    let _ = ARCHIVE.set(unsafe { areas::bytes(archive) });
    task::set_up()
}

/// Starts the first process.
///
/// # Errors
/// There is none, or it cannot run.
pub(crate) fn start_first() -> Result<(), SysError> {
    start(find("init")?, Role::First, None).map(drop)
}

/// Ends the process that raised an exception; called on the stack of its own task.
pub(crate) fn kill(exception: Exception, frame: &TrapFrame) {
    task::with_current(|task| {
        let (exception, at) = task.doom().get().unwrap_or((exception, frame.rip));
        warn!(
            public,
            "a process is ended: {} with error code {=u64:#x} at {=u64:#x}",
            exception,
            frame.error_code,
            at
        );
        call::exit(task, KILLED | u16::from(exception.as_u8()))
    });
}

/// Sees to the end of the process that raised an exception which is handled on a stack that no task may leave: the program goes
/// on where nothing is ever mapped, and the fault of that ends it.
pub(crate) fn doom(exception: Exception, frame: &mut TrapFrame) {
    task::with_current(|task| task.doom().set(exception, frame.rip));
    frame.rip = 0;
    frame.rflags &= !RFlags::TF.bits();
}

/// Has a program that was interrupted on a stack which no task may leave enter the kernel on its own: it goes on where nothing is
/// ever mapped, and after the fault of that where it was.
pub(crate) fn detour(frame: &mut TrapFrame) {
    // Who is at that address anyway enters the kernel anyway.
    if frame.rip != 0 {
        task::with_current(|task| task.detour().store(frame.rip, Ordering::Relaxed));
        frame.rip = 0;
    }
}

/// Whether the fault is the one of a detour; the program then goes on where it was.
pub(crate) fn comes_back(frame: &mut TrapFrame) -> bool {
    if !frame.from_user() || frame.rip != 0 {
        return false;
    }
    if task::with_current(|task| task.doom().get().is_some()) == Some(true) {
        // An exception there ends it all the same.
        return false;
    }
    let rip = task::with_current(|task| task.detour().swap(0, Ordering::Relaxed)).unwrap_or(0);
    if rip != 0 {
        frame.rip = rip;
    }
    rip != 0
}

/// `SYSCALL`, where it is no instruction: between it and the kernel's stack there are instructions at which a host could raise an
/// exception, and an exception of its own kind leads to the same place without such a gap.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Whether the program that raised #UD meant to call the kernel; the frame then says so.
pub(crate) fn is_call(frame: &mut TrapFrame) -> bool {
    if !machine::is_snp() || instruction(frame) != Some(SYSCALL) {
        return false;
    }
    // What the instruction leaves in registers.
    frame.rip = frame.rip.wrapping_add(SYSCALL.len() as u64);
    (frame.rcx, frame.r11) = (frame.rip, frame.rflags);
    frame.vector = TrapFrame::SYSCALL_INSTRUCTION;
    true
}

/// The first two bytes of the instruction at which a program was interrupted.
pub(crate) fn instruction(frame: &TrapFrame) -> Option<[u8; 2]> {
    let mut bytes = [0; 2];
    let at = UserSlice::new(frame.rip, bytes.len() as u64).ok()?;
    memory::read_exact(&call::caller().memory, at, &mut bytes).ok()?;
    frame.from_user().then_some(bytes)
}

/// The programs that came with the image.
fn archive() -> &'static [u8] {
    ARCHIVE.value().copied().unwrap_or_default()
}

/// A file of the archive.
pub(crate) fn file(name: &str) -> Option<&'static [u8]> {
    find(name).ok()
}

/// A program of the archive.
fn find(name: &str) -> Result<&'static [u8], SysError> {
    match Archive::new(archive()).find(name) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(SysError::NOT_FOUND),
        Err(error) => {
            warn!("the archive is damaged: {}", error);
            Err(SysError::NOT_FOUND)
        }
    }
}

/// Starts the program in `file` as a process.
fn start(file: &[u8], role: Role, parent: Option<TaskId>) -> Result<TaskId, SysError> {
    let (process, start) = Process::load(file, role).map_err(|error| {
        warn!("a program does not start: {}", error);
        SysError::from(error)
    })?;
    task::spawn(process, start, parent)
}

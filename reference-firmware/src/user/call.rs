//! System calls, from the registers to their answers.

use alloc::sync::Arc;

use svsm_irq::entry::TrapFrame;
use svsm_log::Class;
use svsm_platform::cpu::cpuid::Features;
use svsm_platform::seam::Ticks;
use svsm_syscall::abi::{FileFlags, FileModes, NAME_BYTES, SysError};
use svsm_syscall::entry::SyscallHandler;
use svsm_syscall::frame::SyscallFrame;
use svsm_syscall::memory::{self, CurrentProcess, UserSlice, UserStr};
use svsm_syscall::quota::Resource;
use svsm_syscall::request::{Operation, Request};
use svsm_syscall::task::Leave;

use super::object::{Caller, Child, Directory, File};
use super::process::Role;
use super::task::{self, Task};
use super::{endpoint, find, start, verdict};
use crate::{clock, cpu, log};

/// The longest binary record that a process can log.
const RECORD_BYTES: usize = 512;

/// What `SYSCALL` leads to; `int 0x80` leads to [`serve`] as well.
pub(crate) enum Handler {}

impl SyscallHandler for Handler {
    const KERNEL_STACK: usize = cpu::KERNEL_STACK;
    const SCRATCH: usize = cpu::SCRATCH;

    fn handle(frame: &mut TrapFrame) {
        serve(frame);
    }
}

/// Answers the call in a frame.
pub(crate) fn serve(frame: &mut TrapFrame) {
    let Some(call) = SyscallFrame::new(frame) else {
        return;
    };
    let request = Request::decode(call.number(), call.arguments());
    let result = request.and_then(|request| {
        task::with_current(|task| answer(task, request)).unwrap_or(Err(SysError::NO_CALL))
    });
    call.finish(result);
}

fn answer(task: &Task, request: Request) -> Result<u64, SysError> {
    let process = task.process();
    let mut caller = caller();
    match request {
        Request::Exit { code } => exit(task, code),
        Request::Yield => {
            task::give_way();
            Ok(0)
        }
        Request::Sleep { ns } => {
            let deadline = Ticks::new(clock::now_ns().saturating_add(ns));
            while clock::now_ns() < deadline.as_u64() {
                task::leave(Leave::Sleep {
                    deadline: Some(deadline),
                });
            }
            Ok(0)
        }
        Request::Now => Ok(clock::now_ns()),
        // A task's identity may be 0 to the scheduler; to programs it never is.
        Request::Identity => task::current_id()
            .map(|id| u64::from(id.as_u32()) + 1)
            .ok_or(SysError::NO_CALL),
        Request::Cpu => Ok(cpu::index().as_u32().into()),
        Request::Map { bytes, rights } => process.map(bytes, rights),
        Request::Unmap(memory) => process.unmap(memory).map(|()| 0),
        Request::LogRecord { public, record } => log_record(task, public, record, &caller),
        Request::Verdict { code } if process.is_first() => {
            verdict::set(code);
            Ok(0)
        }
        Request::Verdict { .. } => Err(SysError::NOT_ALLOWED),
        Request::Serve { protocol } => process
            .open(Arc::new(
                process
                    .serves()
                    .ok_or(SysError::NOT_ALLOWED)?
                    .serve(protocol)?,
            ))
            .map(|handle| handle.as_u32().into()),
        Request::Close(handle) => {
            if let Some(object) = process.close(handle) {
                object.close(&mut caller);
            }
            Ok(0)
        }
        Request::Object(handle, operation) => {
            let object = process.opened(handle)?;
            let answer = object.call(operation, &mut caller)?;
            if operation == Operation::Wait {
                process.close(handle);
            }
            Ok(answer)
        }
        Request::Spawn { path } => {
            let mut buffer = [0; 256];
            let bytes = buffer
                .get_mut(..path.len_bytes())
                .ok_or(SysError::INVALID)?;
            memory::read_exact(&caller.memory, path, bytes)?;
            let name = core::str::from_utf8(bytes).map_err(|_| SysError::INVALID)?;
            spawn(task, name)
        }
        // Whoever starts programs decides who runs: that is the first process.
        Request::Exec { .. } if !process.is_first() => Err(SysError::NOT_ALLOWED),
        Request::Exec { path, root } => {
            // The archive has one directory.
            with_path(&caller, root, |root| match root.trim_matches('/') {
                "" => Ok(()),
                _ => Err(SysError::NOT_FOUND),
            })?;
            let file = with_path(&caller, path, find)?;
            start(file, Role::Plain, None).map(|id| u64::from(id.as_u32()) + 1)
        }
        Request::Open { path, modes, flags } => {
            if modes != FileModes::READ || flags.contains(FileFlags::CREATE) {
                return Err(SysError::READ_ONLY);
            }
            let contents = with_path(&caller, path, find)?;
            process
                .open(Arc::new(File::new(contents)))
                .map(|handle| handle.as_u32().into())
        }
        Request::OpenDirectory(path) => {
            with_path(&caller, path, |path| {
                if path.trim_matches('/').is_empty() {
                    Ok(())
                } else {
                    Err(SysError::NOT_FOUND)
                }
            })?;
            process
                .open(Arc::new(Directory::new()))
                .map(|handle| handle.as_u32().into())
        }
        Request::Unlink(_) | Request::MakeDirectory(_) | Request::RemoveDirectory(_) => {
            Err(SysError::READ_ONLY)
        }
        // There are no facts to tell so far.
        Request::Capability { index: 0 } => Ok(0),
        _ => Err(SysError::NOT_SUPPORTED),
    }
}

/// Ends the current process.
pub(crate) fn exit(task: &Task, code: u16) -> ! {
    if let Some(endpoint) = task.process().serves() {
        endpoint.end();
    }
    if task.process().is_first() {
        verdict::end(code);
    }
    task::leave(Leave::Exit { code });
    // The scheduler takes a task that has ended off its CPU for good.
    cpu::halt()
}

fn spawn(task: &Task, name: &str) -> Result<u64, SysError> {
    let process = task.process();
    let file = find(name)?;
    process.charge(Resource::Tasks, 1)?;
    // The handle first: a child without one could not be waited for.
    let child = Arc::new(Child::default());
    let handle = process
        .open(child.clone())
        .inspect_err(|_| process.refund(Resource::Tasks, 1))?;
    let endpoint = endpoint::reserve(name);
    let role = endpoint.map_or(Role::Plain, Role::Serves);
    match start(file, role, task::current_id()) {
        Ok(id) => {
            let _ = child.0.set(id);
            Ok(handle.as_u32().into())
        }
        Err(error) => {
            if let Some(endpoint) = endpoint {
                endpoint.end();
            }
            process.close(handle);
            process.refund(Resource::Tasks, 1);
            Err(error)
        }
    }
}

fn log_record(
    task: &Task,
    public: bool,
    record: UserSlice,
    caller: &Caller,
) -> Result<u64, SysError> {
    let mut buffer = [0; RECORD_BYTES];
    let bytes = buffer
        .get_mut(..record.len_bytes())
        .ok_or(SysError::INVALID)?;
    memory::read_exact(&caller.memory, record, bytes)?;
    let class = if public { Class::Public } else { Class::Local };
    log::process_frame(task.process().image(), class, bytes);
    Ok(0)
}

fn with_path<R>(
    caller: &Caller,
    path: UserStr,
    then: impl FnOnce(&str) -> Result<R, SysError>,
) -> Result<R, SysError> {
    let mut buffer = [0; NAME_BYTES];
    then(memory::read_str(&caller.memory, path, &mut buffer)?)
}

pub(super) fn caller() -> Caller {
    // SAFETY: the lower half of a process's address space maps memory of its program and nothing else, to which the kernel has no
    // references, and the trap handler looks faults up in the exception table. The process stays on its address space for the
    // whole call: a switch away from it ends with one back to it.
    #[expect(unsafe_code, reason = "reaches the memory of the program that calls")]
    let memory = unsafe { CurrentProcess::new(cpu::features().contains(Features::SMAP)) };
    Caller { memory }
}

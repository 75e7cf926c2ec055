//! QEMU ends with the runner even if that is killed and cannot clean up.
#![expect(unsafe_code, reason = "code between fork and exec is unsafe to write")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the kernel kill what `command` starts when the thread that starts it has ended.
pub(super) fn ends(command: &mut Command) {
    let parent = getpid();
    let in_child = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was asked for.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
    };
    // SAFETY: the closure makes two system calls and touches no memory but its own copy of `parent`; it
    // neither allocates nor locks, so it may run in the child of a process with threads.
    unsafe { command.pre_exec(in_child) };
}

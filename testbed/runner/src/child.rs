//! The QEMU process, which never outlives a run.

#[cfg(target_os = "linux")]
mod parent_death;
mod stream;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};

pub(crate) use stream::Stream;
use stream::{Closing, pipe, socket};

use crate::run::Machine;
use crate::session::Plan;
use crate::{Error, Result};

/// A running QEMU. Dropping it ends it, and with it the streams.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    closing: Closing,
}

/// Our ends of its streams.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The firmware's serial port.
    pub(crate) firmware: Stream,
    /// The machine's report, or QEMU's control protocol.
    pub(crate) report: Stream,
    /// QEMU's standard error.
    pub(crate) stderr: Stream,
}

impl Qemu {
    pub(crate) fn spawn(plan: &Plan) -> Result<(Self, Streams)> {
        let closing = Closing::default();
        let (firmware, its_firmware) = pipe(&closing).map_err(Error::System)?;
        let (stderr, its_stderr) = pipe(&closing).map_err(Error::System)?;
        let (report, its_report) = match plan.machine {
            Machine::L0 => pipe(&closing),
            Machine::Bare => socket(&closing),
        }
        .map_err(Error::System)?;
        let child = {
            // It holds QEMU's ends, and goes: from then on the streams end when QEMU does.
            let mut command = command(plan, [its_report, its_firmware, its_stderr]);
            command.spawn().map_err(|cause| Error::QemuMissing {
                program: plan.program.clone(),
                cause,
            })?
        };
        let streams = Streams {
            firmware,
            report,
            stderr,
        };
        Ok((Self { child, closing }, streams))
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it. What it has written can still be read; then the streams end, even if something that it
    /// started holds on to them.
    pub(crate) fn end(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.closing.close();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

fn command(plan: &Plan, [stdin, stdout, stderr]: [OwnedFd; 3]) -> Command {
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.arguments)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        // A group of its own: Ctrl-C at the terminal is for us, who then end it.
        .process_group(0);
    #[cfg(target_os = "linux")]
    parent_death::ends(&mut command);
    command
}

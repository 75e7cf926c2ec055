//! The QEMU process, which never outlives a run.

#[cfg(target_os = "linux")]
mod parent_death;

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};

use crate::session::Plan;
use crate::{Error, Result};

/// A running QEMU and our ends of its three streams. Dropping it ends all of them.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    streams: [UnixStream; 3],
}

/// Our ends, for the threads that read them.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The firmware's serial port.
    pub(crate) firmware: UnixStream,
    /// The machine's report.
    pub(crate) report: UnixStream,
    /// QEMU's standard error.
    pub(crate) stderr: UnixStream,
}

impl Qemu {
    pub(crate) fn spawn(plan: &Plan) -> Result<(Self, Streams)> {
        let pair = || UnixStream::pair().map_err(Error::System);
        let (firmware, its_firmware) = pair()?;
        let (report, its_report) = pair()?;
        let (stderr, its_stderr) = pair()?;
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.arguments)
            .stdin(OwnedFd::from(its_report))
            .stdout(OwnedFd::from(its_firmware))
            .stderr(OwnedFd::from(its_stderr))
            // A group of its own: Ctrl-C at the terminal is for us, who then end it.
            .process_group(0);
        #[cfg(target_os = "linux")]
        parent_death::ends(&mut command);
        let cloned = |stream: &UnixStream| stream.try_clone().map_err(Error::System);
        let streams = [cloned(&firmware)?, cloned(&report)?, cloned(&stderr)?];
        let child = command.spawn().map_err(|cause| Error::QemuMissing {
            program: plan.program.clone(),
            cause,
        })?;
        // `command` holds QEMU's ends, and goes: from here on the streams end when QEMU does.
        Ok((
            Self { child, streams },
            Streams {
                firmware,
                report,
                stderr,
            },
        ))
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// The report's stream, for what must be said to QEMU.
    pub(crate) const fn report(&mut self) -> &mut UnixStream {
        let [_, report, _] = &mut self.streams;
        report
    }

    /// Ends it, and then the streams, even if something that it started holds on to them.
    pub(crate) fn end(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.close();
    }

    /// Ends the streams: what was sent is still read, what comes later is not.
    pub(crate) fn close(&self) {
        for stream in &self.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

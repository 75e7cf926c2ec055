//! Somebody who answers commands.

use std::{
    io::{Read, Write},
    process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result};

/// A TPM that is made anew at each reset.
pub(crate) trait Peer {
    fn reset(&mut self) -> Result<()>;
    /// Takes the power away and gives it back.
    fn power_cycle(&mut self) -> Result<()>;
    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>>;
}

/// A TPM in another process, which takes commands by length and content; length 0 is a reset.
pub(crate) struct Child {
    process: Process,
    input: ChildStdin,
    output: ChildStdout,
}

impl Child {
    pub(crate) fn start(library: &str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--peer", "--library", library])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = process.stdin.take().context("no input")?;
        let output = process.stdout.take().context("no output")?;
        Ok(Self {
            process,
            input,
            output,
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer for Child {
    fn reset(&mut self) -> Result<()> {
        self.execute(&[]).map(|_| ())
    }

    fn power_cycle(&mut self) -> Result<()> {
        anyhow::bail!("the power of a TPM in another process is its own")
    }

    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        send(&mut self.input, command)?;
        receive(&mut self.output)?.context("the other TPM has died")
    }
}

pub(crate) fn send(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let mut all = u32::try_from(bytes.len())?.to_be_bytes().to_vec();
    all.extend(bytes);
    to.write_all(&all)?;
    Ok(to.flush()?)
}

/// The next message; `None` at the end.
pub(crate) fn receive(from: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    if from.read_exact(&mut len).is_err() {
        return Ok(None);
    }
    let mut bytes = vec![0; u32::from_be_bytes(len) as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

//! A guest that is moved while it runs: QEMU writes it and its TPM's state to a file, and others go on from there.

use super::Simulator;
use anyhow::{Context, Result, bail, ensure};
use core::time::Duration;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

/// What the first process says when it wants to be moved. Then it waits for a line.
const SUSPEND: &str = "guest: suspend me";
/// How long QEMU may take for an answer, for writing a guest into a file, and for its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a guest, moves it when it says so, and gives all that it said until it ended. `command` starts QEMU with a TPM behind a socket.
pub(super) fn run(
    sim: &Path,
    base: &Path,
    command: &dyn Fn(&Path) -> Command,
    mut console: Console,
) -> Result<String> {
    let path = |ending: &str| base.with_extension(ending);
    let [here, there, monitor, file] = ["here", "there", "qmp", "state"].map(path);
    let before = Simulator::start(sim, &here)?;
    let mut first = command(&here);
    first.arg("-qmp");
    first.arg(format!("unix:{},server=on,wait=off", monitor.display()));
    let mut guest = Guest::start(first)?;
    console.listen(&guest, |line| line.contains(SUSPEND), || ())?;
    if !console.said.contains(SUSPEND) {
        return Ok(console.said);
    }
    save(&monitor, &file)?;
    // It shuts its TPM down, which ends the simulator.
    guest.end(PATIENCE)?;
    drop(before);

    let _after = Simulator::start(sim, &there)?;
    let mut second = command(&there);
    second.arg("-incoming");
    second.arg(format!("file:{}", file.display()));
    let mut guest = Guest::start(second)?;
    // A line that comes before the guest is there is lost.
    let mut input = guest.input.take().context("QEMU has no input")?;
    let nudge = || drop(input.write_all(b"\n").and_then(|()| input.flush()));
    console.listen(&guest, |_| false, nudge)?;
    guest.end(PATIENCE)?;
    Ok(console.said)
}

/// Has QEMU stop the guest and write everything into a file, and ends QEMU.
fn save(monitor: &Path, file: &Path) -> Result<()> {
    let stream = UnixStream::connect(monitor).context("QEMU's monitor is not there")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let end = Instant::now() + PATIENCE;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut ask = |request: Value| -> Result<Value> {
        writeln!(stream, "{request}")?;
        loop {
            ensure!(
                Instant::now() < end,
                "QEMU takes too long to save the guest"
            );
            let mut line = String::new();
            ensure!(answers.read_line(&mut line)? > 0, "QEMU hung up");
            let mut answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {request}: {error}");
            }
            if let Some(given) = answer.get_mut("return") {
                return Ok(given.take());
            }
        }
    };
    ask(json!({"execute": "qmp_capabilities"}))?;
    let uri = format!("file:{}", file.display());
    ask(json!({"execute": "migrate", "arguments": {"uri": uri}}))?;
    loop {
        let state = ask(json!({"execute": "query-migrate"}))?;
        match state.get("status").and_then(Value::as_str) {
            Some("completed") => break,
            Some("failed" | "cancelled") => bail!("QEMU cannot save the guest: {state}"),
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
    ask(json!({"execute": "quit"})).map(drop)
}

/// What guests said, and how long they may go on.
pub(super) struct Console {
    said: String,
    quiet: bool,
    end: Instant,
}

impl Console {
    /// Of guests that may take so long, all together; `quiet` if only what the first process says is shown.
    pub(super) fn new(limit: Duration, quiet: bool) -> Self {
        Self {
            said: String::new(),
            quiet,
            end: Instant::now() + limit,
        }
    }

    /// Keeps what the guest says until a line is the one, or it is at its end. While it is silent, `nudge` is called now and then.
    fn listen(
        &mut self,
        guest: &Guest,
        is_last: impl Fn(&str) -> bool,
        mut nudge: impl FnMut(),
    ) -> Result<()> {
        loop {
            ensure!(Instant::now() < self.end, "the guest takes too long");
            match guest.lines.recv_timeout(Duration::from_millis(500)) {
                Ok(line) => {
                    if !self.quiet || line.contains("guest: ") {
                        println!("{line}");
                    }
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if is_last(&line) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => nudge(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// QEMU, and what it prints.
struct Guest {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Guest {
    fn start(mut command: Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start QEMU")?;
        let output = process.stdout.take().context("QEMU has no output")?;
        Ok(Self {
            input: process.stdin.take(),
            process,
            lines: lines_of(output),
        })
    }

    /// Waits for the end of QEMU, and sees whether it was a good one. Who does not end is ended when this is dropped.
    fn end(&mut self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "QEMU ended with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < end, "QEMU does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines of an output as they come. What is no text is replaced.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(script: &str) -> Guest {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Guest::start(command).unwrap()
    }

    #[test]
    fn who_does_not_end_is_not_waited_for_longer_than_that() {
        let began = Instant::now();
        let mut forever = guest("exec sleep 600");
        let error = forever.end(Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "QEMU does not end");
        drop(forever);
        assert!(began.elapsed() < PATIENCE);
        guest("exit 0").end(PATIENCE).unwrap();
        assert!(guest("exit 3").end(PATIENCE).is_err());
    }
}

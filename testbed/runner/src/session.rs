//! One run, from spawn to verdict.

use core::time::Duration;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use crate::child::{Qemu, Streams};
use crate::log::{Facts, Interpreter, LineKind, printable};
use crate::machine::{Counters, End, EndKind, Event};
use crate::qemu::Version;
use crate::run::Machine;
use crate::trace::Pages;
use crate::verdict::{self, Evidence, Stop};
use crate::{Cancel, Error, FaultEvent, LogLine, Outcome, Progress, Result};

/// A run that has been checked and can begin.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) version: Version,
    pub(crate) machine: Machine,
    pub(crate) timeout: Option<Duration>,
    pub(crate) expected: Vec<String>,
    pub(crate) stop_when_expected: bool,
    pub(crate) cancel: Cancel,
}

/// How often cancellation, the deadline and QEMU's end are looked at when nothing comes.
const TICK: Duration = Duration::from_millis(20);
/// How long the streams may stay open after QEMU has ended: something it started may hold on to them.
const HELD: Duration = Duration::from_secs(1);
/// How long it may take to interpret what QEMU had written when it ended.
const DRAIN: Duration = Duration::from_secs(30);
/// The same for a user who does not want to know.
const DRAIN_INTERRUPTED: Duration = Duration::from_secs(1);
/// How long QEMU may go on after the machine has given its verdict.
const LINGER: Duration = Duration::from_secs(5);
/// The decoder of frames is recursive, and it reads what a dying firmware wrote.
const INTERPRETER_STACK: usize = 256 << 20;
/// How many pieces may wait for the interpreter, of 64 KiB each.
const UNINTERPRETED: usize = 64;
/// How much of QEMU's standard error is kept.
const STDERR_KEPT: usize = 16 << 10;
/// The longest line of the machine's report.
const REPORT_LINE: usize = 256 << 10;
/// How much is shown of a line that is no report.
const UNREADABLE_SHOWN: usize = 256;

/// What the reading threads say.
enum Heard {
    Bytes(Vec<u8>),
    Line(LogLine),
    Report(String),
    Stderr(Vec<u8>),
}

pub(crate) fn run(
    plan: Plan,
    interpreter: Interpreter,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Outcome> {
    thread::scope(|scope| {
        let began = Instant::now();
        // `qemu` and `heard` are dropped before the scope ends, on every way out: then the streams end
        // and nobody listens, so the threads end and the scope does not wait for ever.
        let (mut qemu, streams) = Qemu::spawn(&plan)?;
        let (say, heard) = sync_channel(256);
        let Streams {
            firmware,
            mut report,
            stderr,
        } = streams;
        if plan.machine == Machine::Bare {
            // QEMU tells the reason of a shutdown only to those who have greeted it. If it has ended
            // already, that shows elsewhere.
            let _ = report.write(b"{\"execute\":\"qmp_capabilities\"}\n");
        }
        let (give, pieces) = sync_channel(UNINTERPRETED);
        let interpreting = {
            let say = say.clone();
            let body = move || interpret(interpreter, &pieces, &say);
            let thread = thread::Builder::new().stack_size(INTERPRETER_STACK);
            thread.spawn_scoped(scope, body).map_err(Error::System)?
        };
        let spawn = |body: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().spawn_scoped(scope, body);
            spawned.map(drop).map_err(Error::System)
        };
        spawn(Box::new(move || {
            firmware.read_pieces(|piece| give.send((began.elapsed(), piece.to_vec())).is_ok());
        }))?;
        let to_say = say.clone();
        spawn(Box::new(move || {
            report.read_lines(REPORT_LINE, |line| to_say.send(Heard::Report(line)).is_ok());
        }))?;
        spawn(Box::new(move || {
            stderr.read_pieces(|piece| say.send(Heard::Stderr(piece.to_vec())).is_ok());
        }))?;

        let mut watch = Watch::new(&plan, began);
        progress(Progress::Started(&watch.command_line));
        let stop = watch.until_stopped(&mut qemu, &heard, progress);
        let wall_time = began.elapsed();
        qemu.end();
        watch.drain(&stop, &heard, progress);
        drop(heard);
        let interpreter = interpreting.join().ok();
        Ok(watch.into_outcome(stop, wall_time, interpreter.as_ref()))
    })
}

/// What has been seen so far.
struct Watch<'a> {
    plan: &'a Plan,
    began: Instant,
    command_line: Vec<String>,
    log: VecDeque<LogLine>,
    earlier_log_lines: u64,
    missing: Vec<String>,
    faults: Vec<FaultEvent>,
    pages: Pages,
    events: VecDeque<Event>,
    counters: Counters,
    machine_spoke: bool,
    complaint: Option<String>,
    end: Option<(End, Instant)>,
    stderr: VecDeque<u8>,
}

impl<'a> Watch<'a> {
    fn new(plan: &'a Plan, began: Instant) -> Self {
        let words =
            core::iter::once(plan.program.as_os_str()).chain(plan.arguments.iter().map(|a| &**a));
        Self {
            plan,
            began,
            command_line: words
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            log: VecDeque::new(),
            earlier_log_lines: 0,
            missing: plan.expected.clone(),
            faults: Vec::new(),
            pages: Pages::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            complaint: None,
            machine_spoke: false,
            end: None,
            stderr: VecDeque::new(),
        }
    }

    /// Listens until there is a reason to stop.
    fn until_stopped(
        &mut self,
        qemu: &mut Qemu,
        heard: &Receiver<Heard>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Stop {
        let mut exited: Option<(ExitStatus, Instant)> = None;
        let mut looked = Instant::now();
        loop {
            let mut all_closed = false;
            match heard.recv_timeout(TICK) {
                Ok(message) => self.take(message, progress),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    all_closed = true;
                    thread::sleep(TICK);
                }
            }
            let now = Instant::now();
            if self.plan.stop_when_expected && self.missing.is_empty() {
                return Stop::Satisfied;
            }
            if !all_closed && now.duration_since(looked) < TICK {
                continue;
            }
            looked = now;
            if self.plan.cancel.is_cancelled() {
                return Stop::Interrupted;
            }
            if exited.is_none() {
                exited = qemu.try_wait().ok().flatten().map(|status| (status, now));
            }
            if let Some((status, at)) = &exited
                && (all_closed || now.duration_since(*at) > HELD)
            {
                self.end = self
                    .end
                    .take()
                    .or_else(|| self.end_by_status(*status).map(|end| (end, now)));
                let killed = status.signal().is_some();
                return Stop::Exited {
                    status: status.to_string(),
                    killed,
                };
            }
            if self
                .end
                .as_ref()
                .is_some_and(|(_, at)| now.duration_since(*at) > LINGER)
            {
                return Stop::Lingered;
            }
            if self
                .plan
                .timeout
                .is_some_and(|timeout| now.duration_since(self.began) > timeout)
            {
                return Stop::TimedOut;
            }
        }
    }

    /// The machine's verdict, if its line was lost but it reached QEMU's exit device.
    fn end_by_status(&self, status: ExitStatus) -> Option<End> {
        let code = status.code().filter(|_| self.plan.machine == Machine::L0)?;
        EndKind::from_exit_status(code).map(End::new)
    }

    /// Listens to what was on its way when QEMU ended: the verdict may be in it.
    fn drain(
        &mut self,
        stop: &Stop,
        heard: &Receiver<Heard>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) {
        let patience = if *stop == Stop::Interrupted {
            DRAIN_INTERRUPTED
        } else {
            DRAIN
        };
        let until = Instant::now() + patience;
        while let Ok(message) = heard.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.take(message, progress);
        }
    }

    fn take(&mut self, message: Heard, progress: &mut dyn FnMut(Progress<'_>)) {
        match message {
            Heard::Bytes(bytes) => progress(Progress::Bytes(&bytes)),
            Heard::Line(line) => self.take_line(line, progress),
            Heard::Report(text) => self.take_report(&text, progress),
            Heard::Stderr(bytes) => {
                self.stderr.extend(bytes);
                let excess = self.stderr.len().saturating_sub(STDERR_KEPT);
                self.stderr.drain(..excess);
            }
        }
    }

    fn take_line(&mut self, line: LogLine, progress: &mut dyn FnMut(Progress<'_>)) {
        progress(Progress::Line(&line));
        self.missing
            .retain(|text| !line.message.contains(text.as_str()));
        if self.log.len() >= Outcome::MAX_LOG_LINES {
            self.log.pop_front();
            self.earlier_log_lines = self.earlier_log_lines.saturating_add(1);
        }
        self.log.push_back(line);
    }

    fn take_report(&mut self, text: &str, progress: &mut dyn FnMut(Progress<'_>)) {
        let event = match self.plan.machine {
            Machine::Bare => match Event::parse_qmp(text) {
                Some(event) => event,
                None => return,
            },
            Machine::L0 => match Event::parse(text) {
                Ok(event) => event,
                Err(_) => {
                    // Half a line, or something else on the port. It is shown, not believed.
                    let shown: String = text.chars().take(UNREADABLE_SHOWN).collect();
                    let message = format!("unreadable report: {}", printable(&shown));
                    let line = LogLine::plain(self.began.elapsed(), LineKind::Machine, message);
                    return self.take_line(line, progress);
                }
            },
        };
        progress(Progress::Machine(&event));
        self.machine_spoke = true;
        self.complaint = self.complaint.take().or_else(|| event.complaint());
        match event {
            // The first verdict counts: whatever comes after it is about the machine's own end.
            Event::Verdict(end) => self.end = self.end.take().or(Some((*end, Instant::now()))),
            Event::Counters { counters } => self.counters = counters,
            Event::Fault(fault) => {
                if self.faults.len() < Outcome::MAX_EVENTS {
                    self.faults.push(*fault);
                }
            }
            Event::Pages(event) => self.pages.take(event),
            // There are too many of them to keep.
            Event::Exit(_) => {}
            other @ (Event::RefusedDma(_) | Event::Other(_)) => {
                if self.events.len() >= Outcome::MAX_EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(other);
            }
        }
    }

    fn into_outcome(
        self,
        stop: Stop,
        wall_time: Duration,
        interpreter: Option<&Interpreter>,
    ) -> Outcome {
        let stderr: Vec<u8> = self.stderr.into();
        let stderr = printable(&String::from_utf8_lossy(&stderr));
        let end = self.end.map(|(end, _)| end);
        let rip = end.as_ref().and_then(|end| end.registers.value("rip"));
        let at = rip.zip(interpreter).and_then(|(rip, interpreter)| {
            interpreter
                .images()
                .resolve(None, rip, false)
                .into_iter()
                .next()
        });
        let facts = interpreter.map_or_else(Facts::default, |known| known.facts().clone());
        let verdict = verdict::judge(Evidence {
            stop,
            own: facts.own,
            panic: facts.panic,
            end: end.clone(),
            complaint: self.complaint,
            machine_spoke: self.machine_spoke,
            expected: !self.plan.expected.is_empty(),
            missing: self.missing,
            stderr: stderr.clone(),
            at,
        });
        Outcome {
            verdict,
            own_verdict: facts.own,
            log: self.log.into(),
            earlier_log_lines: self.earlier_log_lines,
            dropped_records: facts.dropped,
            end,
            counters: self.counters,
            faults: self.faults,
            pages: self.pages,
            events: self.events.into(),
            qemu_stderr: stderr,
            wall_time,
            qemu_version: self.plan.version,
            command_line: self.command_line,
        }
    }
}

/// Interprets what the firmware's serial port said, and gives the interpreter back. It may take its time (the
/// first frame of an image has its debug information read), so it does not read the port itself.
fn interpret(
    mut interpreter: Interpreter,
    pieces: &Receiver<(Duration, Vec<u8>)>,
    say: &SyncSender<Heard>,
) -> Interpreter {
    let mut last = Duration::ZERO;
    for (time, piece) in pieces {
        last = time;
        let mut lines = Vec::new();
        interpreter.feed(time, &piece, &mut |line| lines.push(line));
        let mut heard =
            core::iter::once(Heard::Bytes(piece)).chain(lines.into_iter().map(Heard::Line));
        if !heard.all(|one| say.send(one).is_ok()) {
            return interpreter;
        }
    }
    interpreter.finish(last, &mut |line| {
        // Nobody may be listening any more.
        let _ = say.send(Heard::Line(line));
    });
    interpreter
}

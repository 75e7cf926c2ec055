//! Lines for people, for programs, or as they came.

use core::fmt::Write as _;
use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::log::{Level, LineKind};
use crate::trace::ExitEvent;
use crate::{FaultEvent, LogLine, MachineEvent, Outcome, Progress, Verdict};

/// In which form a run is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// Columns: time, CPU, image, level, message.
    #[default]
    Text,
    /// One JSON object per line, with a member `type`: `log`, `machine` or, at the end, `outcome`.
    Json,
    /// The bytes of the firmware's serial port.
    Raw,
}

/// Shows runs on `W`.
#[derive(Clone, Debug)]
pub struct Printer<W> {
    out: W,
    format: Format,
    coloured: bool,
}

impl<W: Write> Printer<W> {
    /// `coloured` is for terminals; it makes no difference but to [`Format::Text`].
    pub const fn new(out: W, format: Format, coloured: bool) -> Self {
        Self {
            out,
            format,
            coloured,
        }
    }

    /// Shows what happens.
    ///
    /// # Errors
    /// When `W` fails.
    pub fn progress(&mut self, progress: &Progress<'_>) -> io::Result<()> {
        match (self.format, progress) {
            (Format::Raw, Progress::Bytes(bytes)) => self.out.write_all(bytes)?,
            (Format::Text, Progress::Line(line)) => {
                let text = text_line(line, self.coloured);
                self.out.write_all(text.as_bytes())?;
            }
            (Format::Text, Progress::Machine(MachineEvent::Fault(fault))) => {
                let text = text_fault(fault, self.coloured);
                self.out.write_all(text.as_bytes())?;
            }
            (Format::Text, Progress::Machine(MachineEvent::Exit(exit))) => {
                let text = text_exit(exit, self.coloured);
                self.out.write_all(text.as_bytes())?;
            }
            (Format::Text, Progress::Machine(MachineEvent::RefusedDma(refused))) => {
                let word = paint("DMA  ", YELLOW, self.coloured);
                writeln!(self.out, "{:25}{word} {refused}", "")?;
            }
            (Format::Json, Progress::Line(line)) => self.json("log", line)?,
            (Format::Json, Progress::Machine(event)) => self.json("machine", event)?,
            _ => return Ok(()),
        }
        self.out.flush()
    }

    /// Shows how it ended.
    ///
    /// # Errors
    /// When `W` fails.
    pub fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        match self.format {
            Format::Json => {
                // The lines have all been shown.
                let bare = Outcome {
                    log: Vec::new(),
                    events: Vec::new(),
                    ..outcome.clone()
                };
                self.json("outcome", &bare)?;
            }
            Format::Text | Format::Raw => {
                let text = text_outcome(outcome, self.format, self.coloured);
                self.out.write_all(text.as_bytes())?;
            }
        }
        self.out.flush()
    }

    fn json(&mut self, kind: &'static str, content: &impl Serialize) -> io::Result<()> {
        #[derive(Serialize)]
        struct Tagged<'a, T> {
            r#type: &'static str,
            #[serde(flatten)]
            content: &'a T,
        }
        serde_json::to_writer(
            &mut self.out,
            &Tagged {
                r#type: kind,
                content,
            },
        )?;
        self.out.write_all(b"\n")
    }
}

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const BOLD_RED: &str = "\x1b[1;31m";
const BOLD_GREEN: &str = "\x1b[1;32m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BLUE: &str = "\x1b[34m";

/// One line of the log, with its end.
/// A message for people: of a very long one (firmware that prints reports or certificates) the start, and how much more there is.
fn cut(message: &str) -> Cow<'_, str> {
    /// Letters of a message that are shown.
    const MOST: usize = 400;
    match message.char_indices().nth(MOST) {
        Some((end, _)) => {
            let (shown, rest) = message.split_at(end);
            format!("{shown}... ({} bytes more)", rest.len()).into()
        }
        None => message.into(),
    }
}

fn text_line(line: &LogLine, coloured: bool) -> String {
    let (level, colour) = match (line.kind, line.level) {
        (_, Some(Level::Error)) => ("ERROR", RED),
        (_, Some(Level::Warn)) => ("WARN", YELLOW),
        (_, Some(Level::Info)) => ("INFO", GREEN),
        (_, Some(Level::Debug)) => ("DEBUG", BLUE),
        (_, Some(Level::Trace)) => ("TRACE", DIM),
        (LineKind::Undecoded | LineKind::Machine, None) => ("?", YELLOW),
        (_, None) => ("", ""),
    };
    let paint = |text: &str, colour| paint(text, colour, coloured);
    let cpu = line
        .cpu
        .map_or_else(|| "-".to_owned(), |cpu| cpu.to_string());
    let image = line.image.as_deref().unwrap_or("-");
    let time = format!("{:>9.3}", line.time.as_secs_f64());
    let mut shown = format!(
        "{} {cpu:>3} {} {} {}",
        paint(&time, DIM),
        paint(&format!("{image:<10}"), DIM),
        paint(&format!("{level:<5}"), colour),
        indent(&cut(&line.message)),
    );
    if line.local {
        shown.push_str(&paint(" (local)", DIM));
    }
    if let Some(place) = &line.place
        && line.level >= Some(Level::Warn)
        && line.kind == LineKind::Message
    {
        shown.push_str(&paint(&format!(" ({place})"), DIM));
    }
    shown.push('\n');
    for entry in &line.trace {
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "{:INDENT$}{entry}", "");
    }
    shown
}

/// A lie of the host, as a line among those of the log.
fn text_fault(fault: &FaultEvent, coloured: bool) -> String {
    let expected = fault.expected().map_or("?", |expected| expected.name());
    let level = fault
        .vmpl
        .map_or_else(String::new, |level| format!(" VMPL{level}"));
    format!(
        "{:9} {:>3} {:10} {} {} at {}{level}: {} (must be {expected})\n",
        "",
        fault.cpu,
        "",
        paint("LIE  ", YELLOW, coloured),
        fault.script,
        fault.rip,
        fault.effect,
    )
}

/// An exit, as a line among those of the log.
fn text_exit(exit: &ExitEvent, coloured: bool) -> String {
    let text = format!("{:9} {:>3} {:10} EXIT  {exit}", "", exit.cpu, "");
    paint(&text, DIM, coloured) + "\n"
}

/// Where messages begin.
const INDENT: usize = 31;

/// Further lines of a message begin where its first does.
fn indent(message: &str) -> String {
    message.replace('\n', &format!("\n{:INDENT$}", ""))
}

/// How a run ended: details first, the verdict as the last line.
fn text_outcome(outcome: &Outcome, format: Format, coloured: bool) -> String {
    let mut shown = String::new();
    match &outcome.verdict {
        Verdict::Crashed { registers, at, .. } => {
            if !registers.is_empty() {
                let _ = writeln!(shown, "{registers}");
            }
            if let Some(at) = at {
                let _ = writeln!(shown, "at {at}");
            }
        }
        // Elsewhere the log has shown it.
        Verdict::Panicked(panic) if format == Format::Raw => {
            for entry in &panic.trace {
                let _ = writeln!(shown, "  {entry}");
            }
        }
        Verdict::QemuFailed { .. } | Verdict::MachineError { .. } => {
            let _ = write!(shown, "{}", command_lines(outcome));
        }
        _ => {}
    }
    if let (Verdict::QemuFailed { stderr, .. }, false) =
        (&outcome.verdict, outcome.qemu_stderr.is_empty())
    {
        let _ = writeln!(shown, "{}", stderr.trim_end());
    }
    if outcome.dropped_records > 0 {
        let _ = writeln!(
            shown,
            "the firmware dropped {} records of its log",
            outcome.dropped_records
        );
    }
    if let (Some(own), false) = (
        outcome.own_verdict,
        matches!(outcome.verdict, Verdict::Passed | Verdict::Failed { .. }),
    ) {
        let _ = writeln!(shown, "the firmware's own verdict was: {own}");
    }
    let colour = if outcome.verdict.is_passed() {
        BOLD_GREEN
    } else {
        BOLD_RED
    };
    let verdict = paint(&outcome.verdict.to_string(), colour, coloured);
    let _ = writeln!(
        shown,
        "{verdict} ({:.1} s)",
        outcome.wall_time.as_secs_f64()
    );
    shown
}

/// What to type to start QEMU by hand.
fn command_lines(outcome: &Outcome) -> String {
    let quoted = outcome.command_line.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:+".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    format!(
        "QEMU was started as:\n  {}\n",
        quoted.collect::<Vec<_>>().join(" ")
    )
}

fn paint(text: &str, colour: &str, coloured: bool) -> String {
    if coloured && !colour.is_empty() {
        format!("{colour}{text}{RESET}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::images::SourcePlace;

    fn line(message: &str) -> LogLine {
        LogLine {
            level: Some(Level::Warn),
            cpu: Some(1),
            ticks: Some(7),
            image: Some("svsm".into()),
            ..LogLine::plain(
                Duration::from_millis(1500),
                LineKind::Message,
                message.into(),
            )
        }
    }

    #[test]
    fn long_messages_are_cut_between_letters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(500);
        assert_eq!(
            cut(&long),
            format!("{}... (200 bytes more)", "ä".repeat(400))
        );
    }

    #[test]
    fn columns_are_time_cpu_image_level_message() {
        assert_eq!(
            text_line(&line("odd\nvery"), false),
            concat!(
                "    1.500   1 svsm       WARN  odd\n",
                "                               very\n",
            )
        );
        let placed = LogLine {
            local: true,
            place: Some(SourcePlace {
                file: "a.rs".into(),
                line: 3,
            }),
            ..line("odd")
        };
        assert_eq!(
            text_line(&placed, false),
            "    1.500   1 svsm       WARN  odd (local) (a.rs:3)\n"
        );
        assert!(text_line(&placed, true).contains("\x1b[33mWARN \x1b[0m"));
        let text = LogLine::plain(Duration::ZERO, LineKind::Text, "SeaBIOS".into());
        assert_eq!(
            text_line(&text, false),
            "    0.000   - -                SeaBIOS\n"
        );
    }

    #[test]
    fn json_has_one_object_per_line() {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Format::Json, true);
        printer
            .progress(&Progress::Line(&line("odd\nvery")))
            .unwrap();
        printer.progress(&Progress::Bytes(b"ignored")).unwrap();
        let expected = concat!(
            r#"{"type":"log","seconds":1.5,"kind":"message","level":"warn","cpu":1,"#,
            r#""ticks":7,"image":"svsm","message":"odd\nvery"}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

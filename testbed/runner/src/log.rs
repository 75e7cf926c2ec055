//! A byte stream of the firmware, into lines.

mod line; // what a line is made of
mod text; // what is not in records

pub use line::{Level, LineKind, LogLine};

use core::fmt;
use core::time::Duration;

use svsm_log::{
    Class, Decoder, Dropped, ImageId, Item, Kind, PanicLocation, Record, StackTrace,
    Verdict as OwnVerdict,
};

use crate::Images;
use crate::images::{SourcePlace, TraceEntry};
use crate::verdict::Panic;

use text::LineSplitter;
pub(crate) use text::printable;

/// Which clock the lines show.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TimeSource {
    /// The host's, when a line arrives.
    #[default]
    Arrival,
    /// The guest's time-stamp counter at one tick a nanosecond, as under `icount`.
    Ticks,
}

/// Turns the bytes of the firmware's serial port into lines.
#[derive(Debug)]
pub struct Interpreter {
    images: Images,
    clock: TimeSource,
    decoder: Decoder,
    text: LineSplitter,
    facts: Facts,
}

/// What the log says about how the run goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The last verdict of the firmware on itself.
    pub(crate) own: Option<OwnVerdict>,
    /// The first panic since then.
    pub(crate) panic: Option<Panic>,
    panic_cpu: u16,
    pub(crate) dropped: u64,
}

impl Interpreter {
    /// For a firmware that consists of `images`.
    #[must_use]
    pub fn new(images: Images, clock: TimeSource) -> Self {
        Self {
            images,
            clock,
            decoder: Decoder::new(),
            text: LineSplitter::default(),
            facts: Facts::default(),
        }
    }

    /// Takes bytes that came `now`, and hands out the lines that are complete.
    pub fn feed(&mut self, now: Duration, bytes: &[u8], each: &mut dyn FnMut(LogLine)) {
        let Self {
            images,
            clock,
            decoder,
            text,
            facts,
        } = self;
        decoder.feed(bytes, |item| {
            interpret(images, *clock, text, facts, now, item, each)
        });
    }

    /// Hands out what is incomplete, because nothing more will come.
    pub fn finish(&mut self, now: Duration, each: &mut dyn FnMut(LogLine)) {
        let Self {
            images,
            clock,
            decoder,
            text,
            facts,
        } = self;
        decoder.flush(|item| interpret(images, *clock, text, facts, now, item, each));
        text.finish(|line| each(LogLine::plain(now, LineKind::Text, line)));
    }

    pub(crate) const fn images(&self) -> &Images {
        &self.images
    }

    pub(crate) const fn facts(&self) -> &Facts {
        &self.facts
    }
}

fn interpret(
    images: &Images,
    clock: TimeSource,
    text: &mut LineSplitter,
    facts: &mut Facts,
    now: Duration,
    item: Item<'_>,
    each: &mut dyn FnMut(LogLine),
) {
    match item {
        Item::Text(bytes) => {
            text.feed(bytes, |line| {
                each(LogLine::plain(now, LineKind::Text, line))
            });
        }
        Item::Record(record) => {
            text.finish(|line| each(LogLine::plain(now, LineKind::Text, line)));
            let time = match clock {
                TimeSource::Arrival => now,
                TimeSource::Ticks => Duration::from_nanos(record.stamp.time),
            };
            let content = read(images, facts, &record);
            each(LogLine {
                time,
                kind: content.kind,
                level: content.level,
                local: record.class == Class::Local,
                cpu: Some(record.stamp.cpu),
                ticks: Some(record.stamp.time),
                image: Some(images.name(record.stamp.image)),
                message: content.message,
                place: content.place,
                trace: content.trace,
            });
        }
    }
}

/// The part of a line that depends on the kind of its record.
struct Content {
    kind: LineKind,
    level: Option<Level>,
    message: String,
    place: Option<SourcePlace>,
    trace: Vec<TraceEntry>,
}

impl Content {
    fn new(kind: LineKind, level: Option<Level>, message: impl fmt::Display) -> Self {
        Self {
            kind,
            level,
            message: message.to_string(),
            place: None,
            trace: Vec::new(),
        }
    }
}

fn read(images: &Images, facts: &mut Facts, record: &Record<'_>) -> Content {
    let payload = record.payload;
    let understood = match record.kind {
        Kind::FRAME => images
            .find(record.stamp.image)
            .and_then(|image| image.decode(payload))
            .map(|message| Content {
                place: message.place,
                ..Content::new(LineKind::Message, message.level, printable(&message.text))
            }),
        Kind::TEXT => Some(Content::new(
            LineKind::Message,
            None,
            printable(String::from_utf8_lossy(payload).trim_end_matches(['\r', '\n'])),
        )),
        Kind::VERDICT => OwnVerdict::from_payload(payload).map(|verdict| {
            facts.own = Some(verdict);
            facts.panic = None;
            let level = if verdict == OwnVerdict::Passed {
                Level::Info
            } else {
                Level::Error
            };
            Content::new(
                LineKind::Verdict,
                Some(level),
                format_args!("verdict: {verdict}"),
            )
        }),
        Kind::PANIC => {
            PanicLocation::from_payload(payload).map(|at| read_panic(images, facts, record, at))
        }
        Kind::PANIC_MESSAGE => {
            let message = printable(&String::from_utf8_lossy(payload));
            if let Some(panic) = facts.panic_of(record) {
                panic.message.get_or_insert_default().push_str(&message);
            }
            Some(Content::new(LineKind::Panic, Some(Level::Error), message))
        }
        Kind::STACK_TRACE => {
            StackTrace::from_payload(payload).map(|trace| read_trace(images, facts, record, &trace))
        }
        Kind::DROPPED => Dropped::from_payload(payload).map(|Dropped(count)| {
            facts.dropped = facts.dropped.saturating_add(count);
            Content::new(
                LineKind::Dropped,
                Some(Level::Warn),
                format_args!("{count} records were dropped here"),
            )
        }),
        _ => None,
    };
    understood.unwrap_or_else(|| undecoded(images, record))
}

fn read_panic(
    images: &Images,
    facts: &mut Facts,
    record: &Record<'_>,
    at: PanicLocation<'_>,
) -> Content {
    let location = printable(&at.to_string());
    // The first panic is the cause, those after it are its consequences.
    if facts.panic.is_none() {
        facts.panic_cpu = record.stamp.cpu;
        facts.panic = Some(Panic {
            image: images.name(record.stamp.image),
            location: location.clone(),
            ..Panic::default()
        });
    }
    let place = SourcePlace {
        file: printable(at.file),
        line: at.line,
    };
    Content {
        place: Some(place),
        ..Content::new(
            LineKind::Panic,
            Some(Level::Error),
            format_args!("panicked at {location}"),
        )
    }
}

fn read_trace(
    images: &Images,
    facts: &mut Facts,
    record: &Record<'_>,
    trace: &StackTrace<'_>,
) -> Content {
    let within = Some(record.stamp.image);
    let at = trace
        .at()
        .into_iter()
        .flat_map(|at| images.resolve(within, at, false));
    let callers = trace
        .callers()
        .flat_map(|caller| images.resolve(within, caller, true));
    let trace: Vec<_> = at.chain(callers).collect();
    if let Some(panic) = facts.panic_of(record)
        && panic.trace.is_empty()
    {
        panic.trace.clone_from(&trace);
    }
    Content {
        trace,
        ..Content::new(
            LineKind::StackTrace,
            Some(Level::Error),
            "stack, innermost first:",
        )
    }
}

impl Facts {
    /// The panic that a record belongs to: the message and the stack follow on the same CPU.
    fn panic_of(&mut self, record: &Record<'_>) -> Option<&mut Panic> {
        self.panic
            .as_mut()
            .filter(|_| self.panic_cpu == record.stamp.cpu)
    }
}

/// A record that says nothing to us, as its bytes.
fn undecoded(images: &Images, record: &Record<'_>) -> Content {
    const SHOWN: usize = 32;
    let why = match (record.kind, images.find(record.stamp.image)) {
        (Kind::FRAME, None) if record.stamp.image == ImageId::UNKNOWN => "frame of no image",
        (Kind::FRAME, None) => "no ELF file has this build id",
        (Kind::FRAME, Some(_)) => "damaged frame",
        _ => "unknown record",
    };
    let mut message = format!(
        "({why}; kind {}, {} bytes:",
        record.kind.0,
        record.payload.len()
    );
    for byte in record.payload.iter().take(SHOWN) {
        message.push_str(&format!(" {byte:02x}"));
    }
    message.push_str(if record.payload.len() > SHOWN {
        " …)"
    } else {
        ")"
    });
    Content::new(LineKind::Undecoded, None, message)
}

#[cfg(test)]
mod tests;

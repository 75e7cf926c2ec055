//! What is inside of the payloads that have a structure. Numbers are little-endian.

use core::fmt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The firmware's verdict on itself.
///
/// A run has passed only if the last verdict is [`Passed`](Self::Passed) *and* the machine was
/// switched off in an orderly way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Verdict {
    /// Everything that was to be shown was shown.
    Passed,
    /// Something was not; the code says what, in the firmware's own numbering.
    Failed(u32),
}

impl Verdict {
    const PASSED: u32 = 0;
    const FAILED: u32 = 1;

    /// The payload: two words, the outcome and the code.
    #[must_use]
    pub fn to_payload(self) -> [u8; 8] {
        let words = match self {
            Self::Passed => [Self::PASSED, 0],
            Self::Failed(code) => [Self::FAILED, code],
        };
        zerocopy::transmute!(words.map(U32::new))
    }

    /// Reads a payload; `None` if it is not a verdict.
    #[must_use]
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        let words = <[U32; 2]>::read_from_bytes(payload).ok()?;
        match words.map(U32::get) {
            [Self::PASSED, 0] => Some(Self::Passed),
            [Self::FAILED, code] => Some(Self::Failed(code)),
            _ => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(code) => write!(f, "failed with code {code:#x}"),
        }
    }
}

/// How many records were dropped, because a ring was full, a frame too long or a sink failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Dropped(pub u64);

impl Dropped {
    /// The payload: the number.
    #[must_use]
    pub const fn to_payload(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// Reads a payload; `None` if it is not a dropped count.
    #[must_use]
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(payload.try_into().ok()?)))
    }
}

/// Where code was, and who had called it.
///
/// The payload is a list of words: the address of the instruction itself (0 if the trace begins with a call),
/// then return addresses, innermost first. A reader must know which is which: a return address lies behind
/// its call, possibly in the next function.
#[derive(Clone, Copy, Debug)]
pub struct StackTrace<'a> {
    at: U64,
    callers: &'a [U64],
}

impl<'a> StackTrace<'a> {
    /// How many return addresses a trace can have; the outermost are cut off.
    pub const MAX_ADDRESSES: usize = 64;

    /// Reads a payload; `None` if it is not a stack trace.
    #[must_use]
    pub fn from_payload(payload: &'a [u8]) -> Option<Self> {
        let (at, callers) = <[U64]>::ref_from_bytes(payload).ok()?.split_first()?;
        Some(Self { at: *at, callers })
    }

    /// The instruction where it happened, such as the one that faulted.
    #[must_use]
    pub fn at(&self) -> Option<u64> {
        Some(self.at.get()).filter(|at| *at != 0)
    }

    /// Return addresses, innermost first.
    pub fn callers(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.callers.iter().map(|address| address.get())
    }
}

/// A stack trace's payload, being gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackTraceBuf {
    words: [U64; 1 + StackTrace::MAX_ADDRESSES],
    len: usize,
}

impl StackTraceBuf {
    pub(crate) fn gather(at: Option<u64>, callers: impl IntoIterator<Item = u64>) -> Self {
        let mut buf = Self {
            words: [U64::ZERO; 1 + StackTrace::MAX_ADDRESSES],
            len: 0,
        };
        let words = core::iter::once(at.unwrap_or(0)).chain(callers);
        for (slot, word) in buf.words.iter_mut().zip(words) {
            slot.set(word);
            buf.len = buf.len.saturating_add(1);
        }
        buf
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.words.get(..self.len).unwrap_or_default().as_bytes()
    }
}

/// Where a panic happened. It is known from the source, so it is public.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PanicLocation<'a> {
    /// The source file, as the compiler names it.
    pub file: &'a str,
    /// Counted from 1; 0 if unknown.
    pub line: u32,
    /// Counted from 1; 0 if unknown.
    pub column: u32,
}

impl<'a> PanicLocation<'a> {
    /// The longest file name, in bytes; of a longer one the end is kept.
    pub const MAX_FILE_LEN: usize = 240;

    /// Reads a payload; `None` if it is not a panic's location.
    #[must_use]
    pub fn from_payload(payload: &'a [u8]) -> Option<Self> {
        let (fixed, file) = PanicFixed::read_from_prefix(payload).ok()?;
        let file = core::str::from_utf8(file).ok()?;
        Some(Self {
            file,
            line: fixed.line.get(),
            column: fixed.column.get(),
        })
    }

    /// Runs `write` with the payload.
    pub(crate) fn with_payload<R>(&self, write: impl FnOnce(&[u8]) -> R) -> R {
        const FIXED: usize = size_of::<PanicFixed>();
        let mut payload = [0; FIXED + PanicLocation::MAX_FILE_LEN];
        let fixed = PanicFixed {
            line: U32::new(self.line),
            column: U32::new(self.column),
        };
        let file = tail(self.file, Self::MAX_FILE_LEN);
        let bytes = fixed.as_bytes().iter().chain(file.as_bytes());
        for (slot, byte) in payload.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        write(
            payload
                .get(..FIXED.saturating_add(file.len()))
                .unwrap_or_default(),
        )
    }
}

impl fmt::Display for PanicLocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// The longest end of `text` that has at most `max` bytes.
fn tail(text: &str, max: usize) -> &str {
    let from = text.len().saturating_sub(max);
    (from..=text.len())
        .find_map(|at| text.get(at..))
        .unwrap_or_default()
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct PanicFixed {
    line: U32,
    column: U32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back() {
        for verdict in [
            Verdict::Passed,
            Verdict::Failed(0),
            Verdict::Failed(u32::MAX),
        ] {
            assert_eq!(Verdict::from_payload(&verdict.to_payload()), Some(verdict));
        }
        assert_eq!(Verdict::from_payload(&[0, 0, 0, 0, 1, 0, 0, 0]), None);
        assert_eq!(Verdict::from_payload(&[0; 7]), None);
        assert_eq!(
            Dropped::from_payload(&Dropped(7).to_payload()),
            Some(Dropped(7))
        );
        for at in [None, Some(u64::MAX)] {
            let trace = StackTraceBuf::gather(at, [2, 3]);
            let trace = StackTrace::from_payload(trace.payload()).unwrap();
            assert_eq!(trace.at(), at);
            assert!(trace.callers().eq([2, 3]));
        }
        assert!(StackTrace::from_payload(&[0; 9]).is_none());
        assert!(StackTrace::from_payload(&[]).is_none());
    }

    #[test]
    fn long_traces_keep_the_innermost_addresses() {
        let trace = StackTraceBuf::gather(None, 1..1000);
        let trace = StackTrace::from_payload(trace.payload()).unwrap();
        assert!(trace.callers().eq(1..=64));
    }

    #[test]
    fn long_file_names_keep_their_end() {
        let long = "ä".repeat(200) + "/lib.rs";
        let location = PanicLocation {
            file: &long,
            line: 1,
            column: 2,
        };
        location.with_payload(|payload| {
            let back = PanicLocation::from_payload(payload).unwrap();
            assert!(back.file.ends_with("ä/lib.rs") && back.file.len() <= 240);
            assert_eq!((back.line, back.column), (1, 2));
        });
        assert_eq!(
            PanicLocation::from_payload(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff]),
            None
        );
    }

    use alloc::string::ToString as _;

    #[test]
    fn shown_as_a_compiler_would() {
        let location = PanicLocation {
            file: "src/main.rs",
            line: 3,
            column: 9,
        };
        assert_eq!(location.to_string(), "src/main.rs:3:9");
        let location = PanicLocation {
            line: 0,
            ..location
        };
        assert_eq!(location.to_string(), "src/main.rs");
    }
}

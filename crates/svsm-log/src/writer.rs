//! Records into a sink.

use crate::payload::StackTraceBuf;
use crate::{Class, Dropped, Error, Kind, MAX_PAYLOAD, PanicLocation, Record, Result};
use crate::{Stamp, Verdict};

/// Where bytes go: a serial port, a shared page, a buffer.
pub trait Sink {
    /// Why bytes could not go there.
    type Error;

    /// Takes all of `bytes`.
    ///
    /// # Errors
    /// When it cannot; part of them may have gone out.
    fn write(&mut self, bytes: &[u8]) -> core::result::Result<(), Self::Error>;
}

impl<S: Sink + ?Sized> Sink for &mut S {
    type Error = S::Error;

    fn write(&mut self, bytes: &[u8]) -> core::result::Result<(), Self::Error> {
        (**self).write(bytes)
    }
}

#[cfg(any(test, feature = "alloc"))]
impl Sink for alloc::vec::Vec<u8> {
    type Error = alloc::collections::TryReserveError;

    fn write(&mut self, bytes: &[u8]) -> core::result::Result<(), Self::Error> {
        self.try_reserve(bytes.len())?;
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Frames records and hands them to a sink.
///
/// It has no state of its own: a panic handler may make a second one over the same port.
#[derive(Clone, Copy, Debug)]
pub struct Writer<S>(S);

impl<S: Sink> Writer<S> {
    /// Writes to `sink`.
    pub const fn new(sink: S) -> Self {
        Self(sink)
    }

    /// Gives the sink back.
    pub fn into_inner(self) -> S {
        self.0
    }

    /// Writes one record.
    ///
    /// # Errors
    /// When the payload is too long (nothing is written then), or the sink refuses.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), S::Error> {
        let len_bytes = record.payload.len();
        let header = record.header().ok_or(Error::TooLong { len_bytes })?;
        self.0.write(&header).map_err(Error::Sink)?;
        self.0.write(record.payload).map_err(Error::Sink)
    }

    /// Writes text, as more than one record if it is long.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn text(&mut self, stamp: Stamp, class: Class, text: &str) -> Result<(), S::Error> {
        self.split(stamp, class, Kind::TEXT, text)
    }

    /// Writes the firmware's verdict on itself.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn verdict(&mut self, stamp: Stamp, verdict: Verdict) -> Result<(), S::Error> {
        self.public(stamp, Kind::VERDICT, &verdict.to_payload())
    }

    /// Writes where a panic happened: the part of it that anyone may see.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn panic(&mut self, stamp: Stamp, at: PanicLocation<'_>) -> Result<(), S::Error> {
        at.with_payload(|payload| self.public(stamp, Kind::PANIC, payload))
    }

    /// Writes a panic's message. It may quote secrets: only an image that is marked for debugging
    /// gives it to a sink outside of the guest, as [`Class::Public`].
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn panic_message(
        &mut self,
        stamp: Stamp,
        class: Class,
        message: &str,
    ) -> Result<(), S::Error> {
        self.split(stamp, class, Kind::PANIC_MESSAGE, message)
    }

    /// Writes return addresses, innermost first; past [`StackTrace::MAX_ADDRESSES`] they are cut off.
    ///
    /// [`StackTrace::MAX_ADDRESSES`]: crate::StackTrace::MAX_ADDRESSES
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn stack_trace(
        &mut self,
        stamp: Stamp,
        callers: impl IntoIterator<Item = u64>,
    ) -> Result<(), S::Error> {
        self.trace(stamp, None, callers)
    }

    /// Writes the address of an interrupted instruction, then return addresses as
    /// [`stack_trace`](Self::stack_trace) does.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn stack_trace_at(
        &mut self,
        stamp: Stamp,
        at: u64,
        callers: impl IntoIterator<Item = u64>,
    ) -> Result<(), S::Error> {
        self.trace(stamp, Some(at), callers)
    }

    /// Writes that records are missing here.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn dropped(&mut self, stamp: Stamp, dropped: Dropped) -> Result<(), S::Error> {
        self.public(stamp, Kind::DROPPED, &dropped.to_payload())
    }

    fn trace(
        &mut self,
        stamp: Stamp,
        at: Option<u64>,
        callers: impl IntoIterator<Item = u64>,
    ) -> Result<(), S::Error> {
        let trace = StackTraceBuf::gather(at, callers);
        self.public(stamp, Kind::STACK_TRACE, trace.payload())
    }

    fn public(&mut self, stamp: Stamp, kind: Kind, payload: &[u8]) -> Result<(), S::Error> {
        self.record(&Record {
            stamp,
            class: Class::Public,
            kind,
            payload,
        })
    }

    fn split(
        &mut self,
        stamp: Stamp,
        class: Class,
        kind: Kind,
        text: &str,
    ) -> Result<(), S::Error> {
        parts(text).try_for_each(|part| {
            self.record(&Record {
                stamp,
                class,
                kind,
                payload: part.as_bytes(),
            })
        })
    }
}

/// `text` in parts that fit into one record each; at least one.
pub(crate) fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let (now, later) = head(rest?);
        rest = (!later.is_empty()).then_some(later);
        Some(now)
    })
}

/// Cuts off what fits into one record.
fn head(text: &str) -> (&str, &str) {
    // A character has at most four bytes, so a cut is found within the last four positions.
    (0..4)
        .filter_map(|back| MAX_PAYLOAD.min(text.len()).checked_sub(back))
        .find_map(|at| text.split_at_checked(at))
        .unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;
    use crate::{Decoder, Item};

    #[test]
    fn long_text_is_split_between_characters() {
        for shift in 0..4 {
            let text: String = "x".repeat(shift) + &"🦀".repeat(3000);
            let mut writer = Writer::new(Vec::new());
            writer.text(Stamp::default(), Class::Public, &text).unwrap();
            let mut back = String::new();
            Decoder::new().feed(&writer.into_inner(), |item| match item {
                Item::Record(record) => back += core::str::from_utf8(record.payload).unwrap(),
                Item::Text(text) => panic!("{text:?}"),
            });
            assert_eq!(back, text);
        }
    }

    #[test]
    fn too_long_a_record_writes_nothing() {
        let payload = [0; MAX_PAYLOAD + 1];
        let mut writer = Writer::new(Vec::new());
        let record = Record {
            stamp: Stamp::default(),
            class: Class::Public,
            kind: Kind::FRAME,
            payload: &payload,
        };
        assert_eq!(
            writer.record(&record),
            Err(Error::TooLong {
                len_bytes: MAX_PAYLOAD + 1
            })
        );
        assert!(writer.into_inner().is_empty());
    }
}

//! Where a finished record goes: out of the guest, or into the ring.

use crate::writer::parts;
use crate::{Class, Dropped, Kind, Record, Result, Ring, Sink, Stamp, Writer};

/// What a channel does with local records besides keeping them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LocalRecords {
    /// They stay inside of the guest.
    #[default]
    Kept,
    /// They leave it too: for an image that is marked for debugging, which changes its digest.
    Shown,
}

/// One way out of the guest and one ring inside, shared by all CPUs of a firmware behind a lock.
///
/// Only [`Class::Public`] records reach the sink, unless [`LocalRecords::Shown`] is set; local ones are
/// kept in the ring. Logging never fails for the one who logs: what cannot be written is counted, and
/// the count goes out before the next record.
#[derive(Clone, Debug)]
pub struct Channel<S, R> {
    writer: Writer<S>,
    ring: Ring<R>,
    local: LocalRecords,
    lost: u64,
}

impl<S: Sink, R: AsRef<[u8]> + AsMut<[u8]>> Channel<S, R> {
    /// A channel with an empty ring in `storage`.
    pub const fn new(sink: S, storage: R, local: LocalRecords) -> Self {
        Self {
            writer: Writer::new(sink),
            ring: Ring::new(storage),
            local,
            lost: 0,
        }
    }

    /// Changes what happens with local records from now on. A firmware calls it once it knows from its
    /// measured parameters what kind of image it is.
    pub const fn set_local(&mut self, local: LocalRecords) {
        self.local = local;
    }

    /// Takes a record.
    pub fn submit(&mut self, record: &Record<'_>) {
        if record.class == Class::Local {
            self.ring.push(record);
        }
        if record.class == Class::Public || self.local == LocalRecords::Shown {
            self.send(record.stamp, |writer| writer.record(record));
        }
    }

    /// Takes text, at any length.
    pub fn text(&mut self, stamp: Stamp, class: Class, text: &str) {
        for part in parts(text) {
            self.submit(&Record {
                stamp,
                class,
                kind: Kind::TEXT,
                payload: part.as_bytes(),
            });
        }
    }

    /// Sends records that are public by nature: a verdict, a panic's place, a stack trace.
    pub fn send(
        &mut self,
        stamp: Stamp,
        write: impl FnOnce(&mut Writer<S>) -> Result<(), S::Error>,
    ) {
        if self.lost > 0 && self.writer.dropped(stamp, Dropped(self.lost)).is_ok() {
            self.lost = 0;
        }
        if write(&mut self.writer).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Counts a record that never became one, because its frame was too long.
    pub const fn count_lost(&mut self, class: Class) {
        match class {
            Class::Local => self.ring.count_dropped(1),
            Class::Public => self.lost = self.lost.saturating_add(1),
        }
    }

    /// The local records, for a reader inside of the guest.
    pub const fn ring(&mut self) -> &mut Ring<R> {
        &mut self.ring
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::{Decoder, Item};

    type Seen = Vec<(Kind, Vec<u8>)>;

    fn records(bytes: &[u8]) -> Seen {
        let mut records = Vec::new();
        Decoder::new().feed(bytes, |item| match item {
            Item::Record(record) => records.push((record.kind, record.payload.to_vec())),
            Item::Text(text) => panic!("{text:?}"),
        });
        records
    }

    fn submit_both(local: LocalRecords) -> (Seen, usize) {
        let mut out = Vec::new();
        let mut channel = Channel::new(&mut out, [0; 256], local);
        for class in [Class::Local, Class::Public] {
            channel.text(Stamp::default(), class, "text");
        }
        let kept = channel.ring().len();
        (records(&out), kept)
    }

    #[test]
    fn only_public_records_leave_the_guest() {
        let public = (Kind::TEXT, b"text".to_vec());
        assert_eq!(
            submit_both(LocalRecords::Kept),
            ([public.clone()].to_vec(), 1)
        );
        assert_eq!(
            submit_both(LocalRecords::Shown),
            ([public.clone(), public].to_vec(), 1)
        );
    }

    #[test]
    fn lost_records_are_reported_before_the_next() {
        /// Refuses until told otherwise.
        struct Flaky<'a>(&'a mut Vec<u8>, &'a core::cell::Cell<bool>);
        impl Sink for Flaky<'_> {
            type Error = ();
            fn write(&mut self, bytes: &[u8]) -> core::result::Result<(), ()> {
                if self.1.get() {
                    Err(())
                } else {
                    self.0.write(bytes).map_err(|_| ())
                }
            }
        }
        let (mut out, broken) = (Vec::new(), core::cell::Cell::new(true));
        let mut channel = Channel::new(Flaky(&mut out, &broken), [0; 64], LocalRecords::Kept);
        channel.text(Stamp::default(), Class::Public, "lost");
        channel.count_lost(Class::Public);
        broken.set(false);
        channel.text(Stamp::default(), Class::Public, "seen");
        let expected = [
            (Kind::DROPPED, Dropped(2).to_payload().to_vec()),
            (Kind::TEXT, b"seen".to_vec()),
        ];
        assert_eq!(records(&out), expected);
    }
}

//! Local records, bounded: a guest that provokes warnings in a loop pushes out old ones, nothing else.

use crate::record::{HEADER_LEN, Header};
use crate::{Dropped, Error, MAX_PAYLOAD, Record, Result, Sink, Stamp, Writer};

/// Keeps the newest records that fit into lent storage (an array, a slice, a page).
///
/// ```
/// use svsm_log::{Class, Kind, Record, Ring, Stamp};
///
/// static_ring(&mut Ring::new([0; 4096]));
///
/// fn static_ring(ring: &mut Ring<[u8; 4096]>) {
///     let payload = b"only for us";
///     let stamp = Stamp::default();
///     ring.push(&Record { stamp, class: Class::Local, kind: Kind::TEXT, payload });
///     assert_eq!((ring.len(), ring.dropped()), (1, 0));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Ring<S> {
    storage: S,
    /// Where the oldest record begins.
    head: usize,
    /// How many bytes of records there are, from `head` on and wrapping.
    used: usize,
    records: usize,
    dropped: u64,
}

impl<S> Ring<S> {
    /// An empty ring. Storage shorter than a header keeps nothing.
    pub const fn new(storage: S) -> Self {
        Self {
            storage,
            head: 0,
            used: 0,
            records: 0,
            dropped: 0,
        }
    }

    /// How many records it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How many records were dropped since the last [`drain`](Self::drain).
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts a record that was lost elsewhere.
    pub(crate) const fn count_dropped(&mut self, more: u64) {
        self.dropped = self.dropped.saturating_add(more);
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Ring<S> {
    /// Adds a record, dropping as many of the oldest as it takes. One that cannot fit is dropped itself.
    pub fn push(&mut self, record: &Record<'_>) {
        let capacity = self.storage.as_ref().len();
        let needed = record.encoded_len();
        let Some(header) = record.header().filter(|_| needed <= capacity) else {
            self.count_dropped(1);
            return;
        };
        while capacity.saturating_sub(self.used) < needed {
            self.drop_oldest();
            self.count_dropped(1);
        }
        self.append(&header);
        self.append(record.payload);
        self.records = self.records.saturating_add(1);
    }

    /// Writes out and removes all records, oldest first, after the count of the dropped ones.
    ///
    /// `stamp` is for that count. Who drains gets *local* records: the sink must be inside of the guest.
    ///
    /// # Errors
    /// When the sink refuses; the record it refused and later ones stay.
    pub fn drain<T: Sink>(&mut self, stamp: Stamp, sink: &mut T) -> Result<(), T::Error> {
        if self.dropped > 0 {
            Writer::new(&mut *sink).dropped(stamp, Dropped(self.dropped))?;
            self.dropped = 0;
        }
        while self.records > 0 {
            let (first, second) = self.parts(self.oldest_len());
            sink.write(first).map_err(Error::Sink)?;
            sink.write(second).map_err(Error::Sink)?;
            self.drop_oldest();
        }
        Ok(())
    }

    /// The next `len` bytes, which may wrap.
    fn parts(&self, len: usize) -> (&[u8], &[u8]) {
        let storage = self.storage.as_ref();
        let until_end = storage.len().saturating_sub(self.head).min(len);
        let first = storage.get(self.head..).unwrap_or_default();
        (
            first.get(..until_end).unwrap_or_default(),
            storage
                .get(..len.saturating_sub(until_end))
                .unwrap_or_default(),
        )
    }

    /// Length of the oldest record, header included. All that is there, should it be damaged.
    fn oldest_len(&self) -> usize {
        let mut header = [0; HEADER_LEN];
        let (first, second) = self.parts(HEADER_LEN);
        for (slot, byte) in header.iter_mut().zip(first.iter().chain(second)) {
            *slot = *byte;
        }
        Header::parse(&header)
            .map_or(self.used, |header| {
                header.payload_len().saturating_add(HEADER_LEN)
            })
            .min(self.used)
    }

    fn drop_oldest(&mut self) {
        let len = self.oldest_len();
        let capacity = self.storage.as_ref().len();
        self.used = self.used.saturating_sub(len);
        self.records = if self.used == 0 {
            0
        } else {
            self.records.saturating_sub(1)
        };
        self.head = wrap(self.head.saturating_add(len), capacity);
    }

    fn append(&mut self, bytes: &[u8]) {
        let storage = self.storage.as_mut();
        let tail = wrap(self.head.saturating_add(self.used), storage.len());
        let (before, after) = storage.split_at_mut_checked(tail).unwrap_or_default();
        for (slot, byte) in after.iter_mut().chain(before).zip(bytes) {
            *slot = *byte;
        }
        self.used = self.used.saturating_add(bytes.len());
    }
}

/// `at` below twice `capacity`, brought below `capacity`.
const fn wrap(at: usize, capacity: usize) -> usize {
    if at >= capacity {
        at.saturating_sub(capacity)
    } else {
        at
    }
}

const _: () = assert!(
    MAX_PAYLOAD < usize::MAX / 4,
    "sums of two positions cannot saturate"
);

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{Class, Decoder, Item, Kind};

    fn record(payload: &[u8]) -> Record<'_> {
        Record {
            stamp: Stamp::default(),
            class: Class::Local,
            kind: Kind::TEXT,
            payload,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Drain,
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue_of_records(
            capacity in 0..300_usize,
            steps in prop::collection::vec(
                prop_oneof![9 => (0..120_usize).prop_map(Step::Push), 1 => Just(Step::Drain)],
                1..200,
            ),
        ) {
            let mut ring = Ring::new(alloc::vec![0; capacity]);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut dropped = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(len) => {
                        let payload = alloc::vec![number.to_le_bytes()[0]; len];
                        ring.push(&record(&payload));
                        if len + HEADER_LEN > capacity {
                            dropped += 1;
                        } else {
                            model.push_back(payload);
                            while model.iter().map(|kept| kept.len() + HEADER_LEN).sum::<usize>() > capacity {
                                model.pop_front();
                                dropped += 1;
                            }
                        }
                    }
                    Step::Drain => {
                        let mut out = Vec::new();
                        ring.drain(Stamp::default(), &mut out).unwrap();
                        let mut seen = Vec::new();
                        Decoder::new().feed(&out, |item| match item {
                            Item::Record(record) if record.kind == Kind::DROPPED => {
                                assert_eq!(Dropped::from_payload(record.payload), Some(Dropped(dropped)));
                                dropped = 0;
                            }
                            Item::Record(record) => seen.push(record.payload.to_vec()),
                            Item::Text(text) => panic!("{text:?}"),
                        });
                        prop_assert_eq!(seen, Vec::from(core::mem::take(&mut model)));
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.dropped(), dropped);
            }
        }
    }

    #[test]
    fn a_failing_sink_loses_nothing() {
        struct Failing;
        impl Sink for Failing {
            type Error = ();
            fn write(&mut self, _: &[u8]) -> core::result::Result<(), ()> {
                Err(())
            }
        }
        let mut ring = Ring::new([0; 100]);
        ring.push(&record(b"first"));
        assert_eq!(
            ring.drain(Stamp::default(), &mut Failing),
            Err(Error::Sink(()))
        );
        assert_eq!(ring.len(), 1);
    }
}

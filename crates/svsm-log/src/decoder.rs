//! A byte stream, back into records.

use core::fmt;

use crate::record::{HEADER_LEN, Header, SYNC};
use crate::{MAX_PAYLOAD, Record};

/// What a stream consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Item<'a> {
    /// A whole, undamaged record.
    Record(Record<'a>),
    /// Bytes outside of any record: text of a boot loader, or what is left of a damaged record.
    /// One stretch of them may come in several pieces.
    Text(&'a [u8]),
}

/// Finds the records in a stream that arrives in pieces.
///
/// It resynchronises after junk, and when a record was written into the middle of another it finds
/// the inner one. Memory is bounded, and every byte that went in comes out again exactly once: as part
/// of a record or as text.
///
/// ```
/// use svsm_log::{Class, Decoder, Item, Kind, Record, Stamp};
///
/// let record = Record {
///     stamp: Stamp::default(),
///     class: Class::Public,
///     kind: Kind::TEXT,
///     payload: b"hello",
/// };
/// let mut decoder = Decoder::new();
/// decoder.feed(b"booting\n", |item| assert_eq!(item, Item::Text(b"booting\n")));
/// decoder.feed(&record.header().unwrap(), |_| unreachable!("not complete yet"));
/// decoder.feed(b"hello", |item| assert_eq!(item, Item::Record(record)));
/// ```
pub struct Decoder {
    buffer: [u8; HEADER_LEN + MAX_PAYLOAD],
    filled: usize,
}

impl Decoder {
    /// A decoder before the first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: [0; HEADER_LEN + MAX_PAYLOAD],
            filled: 0,
        }
    }

    /// Takes the next piece of the stream and hands out what is complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Item<'_>)) {
        while !bytes.is_empty() {
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let taken = room.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
            for (slot, byte) in room.iter_mut().zip(now) {
                *slot = *byte;
            }
            self.filled = self.filled.saturating_add(taken);
            bytes = later;
            self.hand_out(false, &mut each);
        }
    }

    /// Hands out as text what is still waiting for the rest of a record, for example before a
    /// prompt or when the stream has ended.
    pub fn flush(&mut self, mut each: impl FnMut(Item<'_>)) {
        self.hand_out(true, &mut each);
    }

    /// How many bytes are waiting for the rest of a record.
    #[must_use]
    pub const fn pending_len(&self) -> usize {
        self.filled
    }

    fn hand_out(&mut self, ended: bool, each: &mut impl FnMut(Item<'_>)) {
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
        while !rest.is_empty() {
            match next(rest) {
                Step::Item(item, after) => {
                    each(item);
                    rest = after;
                }
                Step::Incomplete if ended => {
                    // Not a record: its first byte is text, and a record may begin behind it.
                    let (text, after) = split_text(rest);
                    each(Item::Text(text));
                    rest = after;
                }
                Step::Incomplete => break,
            }
        }
        // A record fits into the buffer, so an incomplete one leaves room for at least one more byte.
        let from = self.filled.saturating_sub(rest.len());
        if from > 0 {
            self.buffer.copy_within(from..self.filled, 0);
            self.filled = self.filled.saturating_sub(from);
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("pending_len", &self.filled)
            .finish_non_exhaustive()
    }
}

enum Step<'a> {
    Item(Item<'a>, &'a [u8]),
    Incomplete,
}

/// The first item of `bytes`, which are not empty.
fn next(bytes: &[u8]) -> Step<'_> {
    let not_a_record = || {
        let (text, after) = split_text(bytes);
        Step::Item(Item::Text(text), after)
    };
    if !bytes.iter().zip(&SYNC).all(|(byte, sync)| byte == sync) {
        return not_a_record();
    }
    let Some((header, after)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Step::Incomplete;
    };
    let Some(header) = Header::parse(header) else {
        return not_a_record();
    };
    let Some((payload, after)) = after.split_at_checked(header.payload_len()) else {
        return Step::Incomplete;
    };
    match header.with_payload(payload) {
        Some(record) => Step::Item(Item::Record(record), after),
        None => not_a_record(),
    }
}

/// Splits off the first byte and all that follow until one that may begin a record.
fn split_text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .enumerate()
        .skip(1)
        .find_map(|(at, &byte)| (byte == SYNC[0]).then_some(at))
        .unwrap_or(bytes.len());
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{Class, ImageId, Kind, Stamp, Writer};

    /// An item that owns its bytes; neighbouring text is one.
    #[derive(Clone, Debug, PartialEq)]
    enum Owned {
        Record(Stamp, Class, Kind, Vec<u8>),
        Text(Vec<u8>),
    }

    impl Owned {
        fn encode(&self) -> Vec<u8> {
            match self {
                Self::Text(bytes) => bytes.clone(),
                Self::Record(stamp, class, kind, payload) => {
                    let mut writer = Writer::new(Vec::new());
                    let record = Record {
                        stamp: *stamp,
                        class: *class,
                        kind: *kind,
                        payload,
                    };
                    writer.record(&record).unwrap();
                    writer.into_inner()
                }
            }
        }
    }

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Owned> {
        let mut items = Vec::new();
        let mut decoder = Decoder::new();
        let mut each = |item: Item<'_>| match item {
            Item::Record(r) => {
                items.push(Owned::Record(r.stamp, r.class, r.kind, r.payload.to_vec()));
            }
            Item::Text(text) => match items.last_mut() {
                Some(Owned::Text(before)) => before.extend_from_slice(text),
                _ => items.push(Owned::Text(text.to_vec())),
            },
        };
        for piece in pieces {
            decoder.feed(piece, &mut each);
        }
        decoder.flush(&mut each);
        assert_eq!(decoder.pending_len(), 0);
        items
    }

    fn any_record() -> impl Strategy<Value = Owned> {
        let payload = prop_oneof![
            9 => prop::collection::vec(any::<u8>(), 0..64),
            1 => any::<(u8, bool)>().prop_map(|(byte, most)| {
                alloc::vec![byte; MAX_PAYLOAD - usize::from(!most)]
            }),
        ];
        (any::<(u16, u32, u64, bool, u8)>(), payload).prop_map(
            |((cpu, image, time, public, kind), payload)| {
                let image = ImageId::from(image.to_be_bytes());
                let class = if public { Class::Public } else { Class::Local };
                Owned::Record(Stamp { cpu, image, time }, class, Kind(kind), payload)
            },
        )
    }

    fn any_stream() -> impl Strategy<Value = Vec<Owned>> {
        let text = prop::collection::vec(0..=0xfe_u8, 1..40).prop_map(Owned::Text);
        prop::collection::vec(prop_oneof![any_record(), text], 0..12).prop_map(|mut items| {
            items.dedup_by(|b, a| match (a, b) {
                (Owned::Text(a), Owned::Text(b)) => {
                    a.append(b);
                    true
                }
                _ => false,
            });
            items
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_whatever_the_pieces(
            items in any_stream(),
            piece_len in 1..200_usize,
        ) {
            let bytes: Vec<u8> = items.iter().flat_map(Owned::encode).collect();
            prop_assert_eq!(decode(bytes.chunks(piece_len)), items);
        }

        #[test]
        fn no_byte_is_lost_or_invented(
            bytes in prop::collection::vec(
                prop_oneof![4 => prop::sample::select(&SYNC[..]), 2 => any::<u8>(), 1 => 0..3_u8],
                0..1000,
            ),
            piece_len in 1..1000_usize,
        ) {
            let back: Vec<u8> = decode(bytes.chunks(piece_len)).iter().flat_map(Owned::encode).collect();
            prop_assert_eq!(back, bytes);
        }

        #[test]
        fn damage_costs_only_the_record_it_hits(
            before in any_record(),
            hit in any_record(),
            after in any_record(),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let mut damaged = hit.encode();
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
            let bytes = [before.encode(), damaged.clone(), after.encode()].concat();
            prop_assert_eq!(decode([&bytes[..]]), [before, Owned::Text(damaged), after]);
        }

        #[test]
        fn a_record_inside_of_another_is_found(
            outer in any_record(),
            inner in any_record(),
            at in any::<prop::sample::Index>(),
        ) {
            let outer = outer.encode();
            let at = at.index(outer.len());
            let bytes = [&outer[..at], &inner.encode(), &outer[at..]].concat();
            let items = decode([&bytes[..]]);
            prop_assert!(items.contains(&inner));
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_record_gives_its_bytes_as_text() {
        let whole = Owned::Record(
            Stamp::default(),
            Class::Public,
            Kind::TEXT,
            b"never arrives whole".to_vec(),
        );
        let part = whole.encode()[..HEADER_LEN + 5].to_vec();
        assert_eq!(decode([&part[..]]), [Owned::Text(part.clone())]);
    }
}

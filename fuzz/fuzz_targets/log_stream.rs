//! Log streams: every byte comes out exactly once, whatever pieces the stream
//! arrives in, and no payload makes its reader panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_log::{Decoder, Dropped, ImageId, Item, PanicLocation, StackTrace, Verdict, Writer};

fuzz_target!(|bytes: &[u8]| {
    let _ = ImageId::from_notes(bytes);
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(encode(&whole), bytes);
    // Text may come in other pieces, records may not.
    let piece_len = bytes
        .first()
        .map_or(1, |&first| usize::from(first % 61) + 1);
    let pieces = decode(bytes, piece_len);
    assert_eq!(encode(&pieces), bytes);
    assert!(records(&whole).eq(records(&pieces)));
});

enum Owned {
    Record(Vec<u8>),
    Text(Vec<u8>),
}

fn decode(bytes: &[u8], piece_len: usize) -> Vec<Owned> {
    let mut items = Vec::new();
    let mut each = |item: Item<'_>| match item {
        Item::Text(text) => items.push(Owned::Text(text.to_vec())),
        Item::Record(record) => {
            let payload = record.payload;
            let _ = Verdict::from_payload(payload);
            let _ = Dropped::from_payload(payload);
            let _ = PanicLocation::from_payload(payload).map(|at| at.to_string());
            let _ = StackTrace::from_payload(payload).map(|trace| trace.callers().count());
            let mut writer = Writer::new(Vec::new());
            writer
                .record(&record)
                .expect("what was read can be written");
            items.push(Owned::Record(writer.into_inner()));
        }
    };
    let mut decoder = Decoder::new();
    for piece in bytes.chunks(piece_len) {
        decoder.feed(piece, &mut each);
    }
    decoder.flush(&mut each);
    items
}

fn encode(items: &[Owned]) -> Vec<u8> {
    let bytes = items
        .iter()
        .map(|(Owned::Record(bytes) | Owned::Text(bytes))| bytes.as_slice());
    bytes.collect::<Vec<_>>().concat()
}

fn records(items: &[Owned]) -> impl Iterator<Item = &[u8]> {
    items.iter().filter_map(|item| match item {
        Owned::Record(bytes) => Some(bytes.as_slice()),
        Owned::Text(_) => None,
    })
}

use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::{Archive, ArchiveError, ArchiveErrorKind};

/// Writes the format as its description says; only tests need that here.
fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, mode, data) in entries.iter().copied().chain([("TRAILER!!!", 0, &[][..])]) {
        let fields = [
            1,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(data.len()).unwrap(),
            0,
            0,
            0,
            0,
            u32::try_from(name.len()).unwrap() + 1,
            0,
        ];
        bytes.extend(b"070701");
        bytes.extend(
            fields
                .iter()
                .flat_map(|field| format!("{field:08x}").into_bytes()),
        );
        bytes.extend(name.bytes().chain([0]));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn first_error(bytes: &[u8]) -> Option<ArchiveError> {
    Archive::new(bytes).entries().find_map(Result::err)
}

#[test]
fn files_are_found_by_their_paths() {
    let bytes = archive(&[
        (".", 0o040_755, b""),
        ("./init", 0o100_755, b"ELF!!"),
        ("/lib", 0o040_755, b""),
        ("lib/one", 0o100_644, b"1"),
    ]);
    let archive = Archive::new(&bytes);
    assert_eq!(archive.find("/init"), Ok(Some(&b"ELF!!"[..])));
    assert_eq!(archive.find("lib/one"), Ok(Some(&b"1"[..])));
    assert_eq!(archive.find("lib"), Ok(None));
    assert_eq!(archive.find("TRAILER!!!"), Ok(None));
    let names: Vec<&str> = archive
        .entries()
        .map(|entry| entry.unwrap().name())
        .collect();
    assert_eq!(names, ["", "init", "lib", "lib/one"]);
    assert!(archive.entries().next().unwrap().unwrap().is_directory());
}

#[test]
fn the_first_of_two_files_counts() {
    let bytes = archive(&[("a", 0o100_644, b"first"), ("a", 0o100_644, b"second")]);
    assert_eq!(Archive::new(&bytes).find("a"), Ok(Some(&b"first"[..])));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let good = archive(&[("a", 0o100_644, b"data")]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        first_error(&bytes).map(|error| (error.offset, error.kind))
    };
    assert_eq!(first_error(&good), None);
    assert_eq!(with(5, b'2'), Some((0, ArchiveErrorKind::Magic)));
    assert_eq!(with(6 + 8, b'+'), Some((14, ArchiveErrorKind::Digit)));
    assert_eq!(
        with(6 + 6 * 8, b'f'),
        Some((112, ArchiveErrorKind::Truncated))
    );
    assert_eq!(with(111, b'x'), Some((110, ArchiveErrorKind::Name)));
    assert_eq!(with(110, 0), Some((110, ArchiveErrorKind::Name)));
    assert_eq!(with(110, 0xff), Some((110, ArchiveErrorKind::Name)));
    let climbing = archive(&[("a/../../b", 0o100_644, b"")]);
    assert_eq!(first_error(&climbing).unwrap().kind, ArchiveErrorKind::Path);
    assert_eq!(first_error(b"").unwrap().kind, ArchiveErrorKind::Truncated);
    assert_eq!(
        first_error(b"0707").unwrap().kind,
        ArchiveErrorKind::Truncated
    );
    assert_eq!(
        first_error(b"\x7fELF").unwrap().kind,
        ArchiveErrorKind::Magic
    );
}

#[test]
fn an_archive_without_its_end_is_none() {
    let bytes = archive(&[("a", 0o100_644, b"data")]);
    // Three bytes of padding behind the last name don't matter.
    let (short, enough) = (0..bytes.len() - 3, bytes.len() - 3..=bytes.len());
    assert!(
        short
            .into_iter()
            .all(|end| first_error(&bytes[..end]).is_some())
    );
    assert!(
        enough
            .into_iter()
            .all(|end| first_error(&bytes[..end]).is_none())
    );
}

#[test]
fn entries_are_counted() {
    let entries = vec![("a", 0o100_644, &b""[..]); Archive::MAX_ENTRIES];
    assert_eq!(
        first_error(&archive(&entries)).unwrap().kind,
        ArchiveErrorKind::TooMany
    );
    assert_eq!(first_error(&archive(&entries[1..])), None);
}

proptest! {
    #[test]
    fn what_was_written_is_read(files in proptest::collection::vec(("[a-z]{1,20}", any::<Vec<u8>>()), 0..20)) {
        let entries: Vec<_> = files.iter().map(|(name, data)| (&**name, 0o100_644, &**data)).collect();
        let bytes = archive(&entries);
        let read: Result<Vec<(String, Vec<u8>)>, _> = Archive::new(&bytes)
            .entries()
            .map(|entry| entry.map(|entry| (entry.name().into(), entry.data().into())))
            .collect();
        prop_assert_eq!(read, Ok(files));
    }

    #[test]
    fn nothing_makes_the_parser_panic(mut bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), byte: u8) {
        let _ = Archive::new(&bytes).find("a");
        bytes = archive(&[("a", 0o100_644, &bytes), ("b", 0o040_755, b"")]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Archive::new(&bytes).find("a");
    }
}

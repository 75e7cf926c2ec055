//! Which IGVM files are read, and how the others are refused.
#![cfg(test)]

#[path = "support/igvm.rs"]
mod igvm;

use igvm::Raw;
use proptest::prelude::*;
use svsm_igvm::file::{FileFault, HeaderType, ImageFile};
use svsm_igvm::{diff, inspect};

fn refused(bytes: &[u8]) -> (usize, FileFault) {
    let error = ImageFile::read(bytes).expect_err("should be refused");
    (error.offset, error.fault)
}

/// A file with one page, whose headers are for a native platform.
fn native() -> Raw {
    Raw::new(2).platform(1, 0)
}

/// Refuses the last header of `raw` for `fault`.
#[track_caller]
fn refuses_last(raw: &Raw, fault: FileFault) {
    let error = ImageFile::read(&raw.bytes()).expect_err("should be refused");
    assert_eq!(error.fault, fault);
    let (index, kind) = error.header.expect("should name the header");
    assert_eq!(index, raw.headers.len() - 1);
    assert_eq!(kind, HeaderType::split(raw.headers.last().unwrap().0).0);
}

#[test]
fn both_versions_are_read() {
    for version in [1, 2] {
        let bytes = Raw::new(version)
            .platform(1, 0)
            .page(0x1000, 1, 0, 0, 0)
            .bytes();
        let file = ImageFile::read(&bytes).unwrap();
        assert_eq!(file.fixed().version, version);
        assert_eq!(file.headers().len(), 2);
    }
}

#[test]
fn a_damaged_fixed_header_is_refused_at_its_field() {
    let good = igvm::sample(2).bytes();
    let field = |offset: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        refused(&bytes)
    };
    let size = good.len();
    assert_eq!(
        refused(b"IGVM"),
        (0, FileFault::NoFixedHeader { file_bytes: 4 })
    );
    assert_eq!(field(0, 0), (0, FileFault::Magic { found: 0 }));
    assert_eq!(field(4, 3), (4, FileFault::Version { found: 3 }));
    assert_eq!(field(8, 24), (8, FileFault::VariableOffset { found: 24 }));
    assert_eq!(field(8, 36), (8, FileFault::VariableOffset { found: 36 }));
    assert!(matches!(
        field(8, u32::MAX - 7),
        (12, FileFault::VariableOutside { .. })
    ));
    assert!(matches!(
        field(12, u32::MAX),
        (12, FileFault::VariableOutside { .. })
    ));
    assert_eq!(
        field(16, 7),
        (
            16,
            FileFault::FileSize {
                stated: 7,
                file_bytes: size
            }
        )
    );
    assert!(matches!(
        field(20, 7),
        (20, FileFault::Checksum { stated: 7, .. })
    ));
    assert_eq!(field(24, 2), (24, FileFault::Architecture { found: 2 }));
    assert_eq!(field(28, 65536), (28, FileFault::PageSize { found: 65536 }));
}

#[test]
fn truncated_files_say_so() {
    let good = igvm::sample(2).bytes();
    for bytes in [32, 100, good.len() - 1] {
        let error = ImageFile::read(&good[..bytes]).unwrap_err();
        assert!(
            error.to_string().starts_with("at offset 0x10: truncated: "),
            "{error}"
        );
    }
}

#[test]
fn framing_is_checked() {
    let mut bytes = native().bytes();
    bytes[36] = 17; // the length of the only header
    igvm::seal(&mut bytes);
    assert!(matches!(
        refused(&bytes),
        (32, FileFault::HeaderTruncated { index: 0, .. })
    ));

    let mut bytes = native().header(0x107, &[b"abc"]).bytes();
    *bytes.last_mut().unwrap() = 1;
    igvm::seal(&mut bytes);
    assert_eq!(refused(&bytes), (56, FileFault::PaddingNotZero));

    let fault = FileFault::BodySize {
        found: 23,
        expected: 24,
    };
    refuses_last(&native().header(0x302, &[&[0; 23]]), fault);
}

#[test]
fn sections_keep_their_order() {
    refuses_last(
        &native().page(0, 1, 0, 0, 0).platform(2, 2),
        FileFault::SectionOrder,
    );
    refuses_last(
        &native().page(0, 1, 0, 0, 0).header(0x107, &[]),
        FileFault::SectionOrder,
    );
    refuses_last(&native().header(0x2ff, &[]), FileFault::NoSection);
    refuses_last(&native().header(0, &[]), FileFault::NoSection);
}

#[test]
fn platforms_are_told_apart() {
    refuses_last(
        &Raw::new(2).platform(3, 0),
        FileFault::PlatformMask { mask: 3 },
    );
    refuses_last(
        &Raw::new(2).platform(0, 0),
        FileFault::PlatformMask { mask: 0 },
    );
    refuses_last(&native().platform(1, 2), FileFault::PlatformTwice);
    refuses_last(&native().platform(2, 0), FileFault::PlatformTwice);
    assert_eq!(refused(&Raw::new(2).bytes()), (32, FileFault::NoPlatform));
}

#[test]
fn pages_are_checked() {
    let page = |gpa, offset, flags, kind| native().page(gpa, 1, offset, flags, kind);
    refuses_last(
        &page(0x1001, 0, 0, 0),
        FileFault::Unaligned { address: 0x1001 },
    );
    refuses_last(
        &page(0x1000, 0, 1, 0),
        FileFault::Unaligned { address: 0x1000 },
    );
    refuses_last(&page(0x1000, 0, 8, 0), FileFault::ReservedNotZero);
    refuses_last(&page(0x1000, 0, 0, 4), FileFault::PageType { found: 4 });
    let wraps = FileFault::Wraps {
        address: !0xfff,
        bytes: 0x1000,
    };
    refuses_last(&page(!0xfff, 0, 0, 0), wraps);
    // Data may neither overlap the headers nor leave the file.
    let mut headers = page(0x1000, 8, 0, 0);
    headers.data = vec![0; 0x2000];
    refuses_last(
        &headers,
        FileFault::DataOutside {
            offset: 8,
            bytes: 0x1000,
        },
    );
    let mut short = page(0x1000, 0x58, 0, 0);
    short.data = vec![0; 0xfff];
    refuses_last(
        &short,
        FileFault::DataOutside {
            offset: 0x58,
            bytes: 0x1000,
        },
    );
    short.data.push(0);
    ImageFile::read(&short.bytes()).unwrap();
}

#[test]
fn parameter_areas_live_from_declaration_to_insertion() {
    let area = || native().area(5, 0x1000, 0);
    refuses_last(
        &native().parameter(0x307, 5, 0),
        FileFault::AreaUnknown { area: 5 },
    );
    refuses_last(
        &native().insert(0, 1, 5),
        FileFault::AreaUnknown { area: 5 },
    );
    refuses_last(&area().area(5, 0x1000, 0), FileFault::AreaTwice { area: 5 });
    refuses_last(
        &area().insert(0, 1, 5).insert(0, 1, 5),
        FileFault::AreaUnknown { area: 5 },
    );
    refuses_last(
        &area().insert(0, 1, 5).parameter(0x30c, 5, 0),
        FileFault::AreaUnknown { area: 5 },
    );
    refuses_last(
        &area().insert(0, 1, 5).area(5, 0x1000, 0),
        FileFault::AreaTwice { area: 5 },
    );
    refuses_last(
        &area().parameter(0x307, 5, 0x1000),
        FileFault::OutsideArea {
            area: 5,
            offset: 0x1000,
            bytes: 0x1000,
        },
    );
    refuses_last(
        &native().area(5, 0x800, 0),
        FileFault::NotPages { bytes: 0x800 },
    );
    refuses_last(
        &native().area(5, !0xfff, 0).insert(0x1000, 1, 5),
        FileFault::Wraps {
            address: 0x1000,
            bytes: !0xfff,
        },
    );
    let data = FileFault::DataOutside {
        offset: 0x50,
        bytes: !0xfff,
    };
    refuses_last(&native().area(5, !0xfff, 0x50), data);
}

#[test]
fn contexts_belong_to_one_platform_that_has_them() {
    refuses_last(
        &native().context(2, 8),
        FileFault::ContextPlatform { mask: 2 },
    );
    refuses_last(
        &native().platform(2, 2).context(3, 8),
        FileFault::ContextPlatform { mask: 3 },
    );
    refuses_last(
        &Raw::new(1).platform(1, 3).context(1, 8),
        FileFault::ContextPlatform { mask: 1 },
    );
    refuses_last(&native().context(1, 0), FileFault::ContextEmpty);
    // The count of registers cannot ask for more than the file has.
    let vsm = |data: &[u8]| {
        let mut raw = Raw::new(1).platform(1, 1).context(1, 0x50);
        assert_eq!(raw.data_offset(), 0x50);
        raw.data = data.to_vec();
        raw
    };
    let bytes = 32 * u64::from(u32::MAX) + 4;
    refuses_last(
        &vsm(&[0xff; 36]),
        FileFault::DataOutside {
            offset: 0x50,
            bytes,
        },
    );
    ImageFile::read(&vsm(&[&[1u8, 0, 0, 0][..], &[0; 32]].concat()).bytes()).unwrap();
}

#[test]
fn version_strings_are_one_and_text() {
    refuses_last(
        &native().header(0x107, &[&[0xff]]),
        FileFault::VersionString,
    );
    let twice = native().header(0x107, &[b"1"]).header(0x107, &[b"1"]);
    refuses_last(&twice, FileFault::VersionString);
}

#[test]
fn unknown_headers_are_remarked() {
    let file = native()
        .header(0x8000_0350, &[b"extra"])
        .header(0x351, &[])
        .bytes();
    let remarks = inspect(&file).unwrap().remarks;
    assert_eq!(remarks.len(), 2);
    assert!(remarks[0].contains("unknown type 0x350") && remarks[0].ends_with("may pass over it"));
    assert!(remarks[1].contains("unknown type 0x351") && remarks[1].ends_with("refuse the file"));
}

#[test]
fn overlapping_memory_is_remarked() {
    let raw = native()
        .platform(2, 2)
        .page(0x1000, 1, 0, 0, 0)
        .page(0x1000, 3, 0, 0, 0);
    let remarks = inspect(&raw.bytes()).unwrap().remarks;
    assert_eq!(
        remarks,
        [
            "on native, header 3 (PAGE_DATA) at offset 0x70 puts memory where header 2 (PAGE_DATA) \
          at offset 0x50 did"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((0usize..700, any::<u8>()), 1..8),
        cut in prop::option::of(0usize..20_000),
        sealed: bool,
    ) {
        let good = igvm::sample(2).bytes();
        let mut bytes = good.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
            if bytes.len() >= 32 {
                let size = u32::try_from(bytes.len()).unwrap();
                bytes[16..20].copy_from_slice(&size.to_le_bytes());
            }
        }
        if sealed && bytes.len() >= 32 {
            igvm::seal(&mut bytes);
        }
        if let Ok(inspection) = inspect(&bytes) {
            let _ = inspection.to_string();
            let left = ImageFile::read(&good).unwrap();
            let right = ImageFile::read(&bytes).unwrap();
            let _ = diff(&left, &right);
            prop_assert_eq!(diff(&right, &right), []);
        }
    }
}

extern crate std;

use super::*;
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;
use svsm_platform::encryption::BitPosition;
use zerocopy::IntoBytes;

const GOLDEN: &[u8] = include_bytes!("../../tests/data/handoff-v2.bin");

fn gpa(value: u64) -> Gpa {
    Gpa::new(value).unwrap()
}

fn gva(value: u64) -> Gva {
    Gva::new(value).unwrap()
}

fn area(gpa_value: u64, gva_value: u64, len_bytes: u64) -> Area {
    Area::new(Region::Archive, gpa(gpa_value), gva(gva_value), len_bytes).unwrap()
}

/// A hand-off in which every field has a value of its own.
pub(crate) fn sample() -> Handoff {
    const BASE: u64 = 0x80_0000_0000;
    const IMAGE: u64 = 0xffff_ffff_8000_0000;
    const AREAS: u64 = 0xffff_ffff_c020_0000;
    const LINEAR: u64 = 0xffff_ff00_0000_0000;
    let mut segments = Segments::new();
    for (page, rights) in [Rights::ReadExecute, Rights::Read, Rights::ReadWrite]
        .iter()
        .enumerate()
    {
        let offset = page as u64 * 0x2000;
        let area = area(BASE + offset, IMAGE + offset, 0x2000);
        segments
            .push(Segment {
                area,
                rights: *rights,
            })
            .unwrap();
    }
    let deposit = |n: u64, len| Some(area(BASE + n * 0x1000, AREAS + n * 0x2000, len));
    Handoff {
        platform: Platform::Native,
        encryption: EncryptionKind::None,
        debug: true,
        run_time: Some(RunTime {
            encryption: Encryption::None,
            tsc_at_entry: 0x1234_5678,
        }),
        svsm: GpaRange::new(gpa(BASE), 16 << 20).unwrap(),
        stage2: GpaRange::new(gpa(0x1_0000), 0x8_0000).unwrap(),
        stage2_tables: GpaRange::new(gpa(0x2_0000), 0x7000).unwrap(),
        stage2_window_table: gpa(0x2_3000),
        trampoline: gpa(0x8000),
        entry: gva(IMAGE + 0x40),
        handoff: area(0x2_8000, AREAS, u64::from(HANDOFF_BYTES)),
        mailbox: area(0x9000, AREAS + 0x2000, 0x1000),
        tables: area(BASE + 0x10_0000, LINEAR + 0x10_0000, 0xc000),
        heap: area(BASE + 0x10_c000, LINEAR + 0x10_c000, 0xe0_0000),
        boot_stack: area(BASE + 0x2_0000, AREAS + 0x10_0000, 0x4000),
        window: WindowArea {
            gva: gva(0xffff_ffff_c000_0000),
            table: gva(0xffff_ffff_c01f_f000),
            switch: gva(0xffff_ffff_c01f_e000),
            slots: 510,
        },
        parameters: [
            deposit(0x10, 0x1000),
            deposit(0x11, 0x1000),
            deposit(0x12, 0x1000),
            deposit(0x13, 0x1000),
            deposit(0x14, 0x800),
        ],
        archive: Some(area(BASE + 0x4_0000, AREAS + 0x20_0000, 0x1_2345)),
        staged: None,
        staged_svsm: None,
        guest_level: Some(Vmpl::Vmpl2),
        cpuid: Some(area(0x2_9000, AREAS + 0x4_0000, 0x1000)),
        secrets: Some(area(BASE + 0x15000, AREAS + 0x4_2000, 0x1000)),
        console_port: Some(0x3f8),
        power_port: Some(0x604),
        segments,
        manifest_digest: core::array::from_fn(|index| u8::try_from(index).unwrap()),
    }
}

fn bytes_of(handoff: &Handoff) -> Vec<u8> {
    handoff.encode().as_bytes().to_vec()
}

#[test]
fn version_2_stays_as_it_is() {
    assert_eq!(Handoff::parse(GOLDEN), Ok(sample()));
    assert_eq!(
        bytes_of(&sample()),
        GOLDEN,
        "a changed layout needs a new version number"
    );
}

#[test]
fn what_follows_the_block_does_not_matter() {
    let mut page = bytes_of(&sample());
    page.resize(4096, 0xee);
    assert_eq!(Handoff::parse(&page), Ok(sample()));
}

#[test]
fn truncated_blocks_are_refused() {
    let bytes = bytes_of(&sample());
    for len in 0..bytes.len() {
        let expected = Err(Error::Handoff {
            offset: len,
            flaw: Flaw::Truncated,
        });
        assert_eq!(Handoff::parse(&bytes[..len]), expected);
    }
}

#[test]
fn unknown_numbers_are_refused() {
    let good = sample().encode();
    let offset_of = |wire: &WireHandoff| match Handoff::parse(wire.as_bytes()) {
        Err(Error::Handoff { offset, flaw }) => (offset, flaw),
        other => panic!("{other:?}"),
    };
    let mut wire = good;
    wire.magic = 0.into();
    assert_eq!(offset_of(&wire), (0, Flaw::Magic));
    let mut wire = good;
    wire.version = 1.into();
    assert_eq!(offset_of(&wire), (8, Flaw::Version));
    let mut wire = good;
    wire.total_bytes = 905.into();
    assert_eq!(offset_of(&wire), (12, Flaw::Length));
    let mut wire = good;
    wire.platform.0 = 9.into();
    assert_eq!(offset_of(&wire), (16, Flaw::Unknown));
    let mut wire = good;
    wire.encryption.0 = 9.into();
    assert_eq!(offset_of(&wire), (20, Flaw::Unknown));
    let mut wire = good;
    wire.flags = 4.into();
    assert_eq!(offset_of(&wire), (32, Flaw::Unknown));
    let mut wire = good;
    wire.segments[0].rights.0 = 3.into();
    assert_eq!(offset_of(&wire).1, Flaw::Unknown);
    let mut wire = good;
    wire.segment_count = 9.into();
    assert_eq!(offset_of(&wire).1, Flaw::TooMany);
    let mut wire = good;
    wire.segment_count = 2.into();
    assert_eq!(offset_of(&wire).1, Flaw::Reserved);
    let mut wire = good;
    wire.window.reserved = 1.into();
    assert_eq!(offset_of(&wire).1, Flaw::Reserved);
    let mut wire = good;
    wire.svsm_root_gpa = 0x1000.into();
    assert_eq!(offset_of(&wire).1, Flaw::Address);
}

#[test]
fn run_time_is_there_after_stage2_and_not_before() {
    let mut handoff = sample();
    handoff.run_time = None;
    assert_eq!(Handoff::parse(&bytes_of(&handoff)), Ok(handoff));

    let mut wire = handoff.encode();
    wire.tsc_at_entry = 1.into();
    let order = |offset| {
        Err(Error::Handoff {
            offset,
            flaw: Flaw::Order,
        })
    };
    assert_eq!(Handoff::parse(wire.as_bytes()), order(40));
    let mut wire = handoff.encode();
    wire.encryption_value = 51.into();
    assert_eq!(Handoff::parse(wire.as_bytes()), order(24));
}

#[test]
fn encryption_suits_machine_and_memory() {
    let c_bit = |bit| Encryption::CBit(BitPosition::new(bit).unwrap());
    let snp = |rule| {
        let run_time = Some(RunTime {
            encryption: rule,
            tsc_at_entry: 1,
        });
        let encryption = EncryptionKind::of(rule);
        let handoff = Handoff {
            platform: Platform::Snp,
            encryption,
            run_time,
            ..sample()
        };
        Handoff::parse(&bytes_of(&handoff))
    };
    assert!(snp(c_bit(51)).is_ok());
    assert!(snp(Encryption::Vtom(gpa(1 << 46))).is_ok());
    let refused = Err(Error::Region {
        region: Region::Svsm,
        fault: Fault::WrongEncryption,
    });
    assert_eq!(snp(Encryption::None), refused);
    // The SVSM's region has this bit in its addresses.
    assert_eq!(snp(c_bit(39)), refused);
    assert_eq!(snp(Encryption::Vtom(gpa(0x80_0000_0000))), refused);
    assert_eq!(
        snp(Encryption::SharedBit(BitPosition::new(51).unwrap())),
        refused
    );
}

#[test]
fn parts_that_do_not_fit_are_named() {
    type Change = fn(&mut Handoff);
    let cases: &[(Change, Region, Fault)] = &[
        (
            |h| h.archive = Some(area(0x80_0004_0000, 0xffff_ffff_c020_0000, 1)),
            Region::Archive,
            Fault::Overlaps(Region::Handoff),
        ),
        (
            |h| h.archive = Some(area(0x80_0010_0000, 0xffff_ffff_d000_0000, 1)),
            Region::Archive,
            Fault::Overlaps(Region::Tables),
        ),
        (
            // The page below the stack has to stay free.
            |h| h.archive = Some(area(0x80_0004_0000, 0xffff_ffff_c02f_f000, 1)),
            Region::Archive,
            Fault::Overlaps(Region::BootStack),
        ),
        (
            |h| h.archive = Some(area(0x80_0004_0000, 0xffff_ffff_c01f_e000, 1)),
            Region::Archive,
            Fault::Overlaps(Region::Window),
        ),
        (
            |h| h.archive = Some(area(0x7f_ffff_f000, 0xffff_ffff_d000_0000, 0x2000)),
            Region::Archive,
            Fault::Outside(Region::Svsm),
        ),
        (
            |h| {
                h.handoff = area(
                    0x80_0005_0000,
                    0xffff_ffff_c020_0000,
                    u64::from(HANDOFF_BYTES),
                )
            },
            Region::Handoff,
            Fault::Outside(Region::Stage2),
        ),
        (
            |h| h.handoff = area(0x2_8000, 0xffff_ffff_c020_0000, 0x1000),
            Region::Handoff,
            Fault::WrongLength {
                expected: u64::from(HANDOFF_BYTES),
            },
        ),
        (
            |h| h.stage2 = GpaRange::new(gpa(0x9000), 0x8_0000).unwrap(),
            Region::Stage2,
            Fault::Overlaps(Region::Mailbox),
        ),
        (
            |h| h.trampoline = gpa(0x7000),
            Region::Mailbox,
            Fault::Outside(Region::Trampoline),
        ),
        (
            |h| h.trampoline = gpa(0x8010),
            Region::Trampoline,
            Fault::Unaligned { address: 0x8010 },
        ),
        (
            |h| h.trampoline = gpa(0x10_0000),
            Region::Trampoline,
            Fault::NoAddress { value: 0x10_0000 },
        ),
        (
            |h| h.stage2 = GpaRange::new(gpa(0xffff_f000), 0x2000).unwrap(),
            Region::Stage2,
            Fault::NoAddress { value: 1 << 32 },
        ),
        (
            |h| h.heap = area(0x80_0010_d000, 0xffff_ff00_0010_d000, 0x1000),
            Region::Heap,
            Fault::Outside(Region::Linear),
        ),
        (
            |h| h.boot_stack = area(0x80_0002_0000, 0xffff_ffff_c030_0000, 0x1001),
            Region::BootStack,
            Fault::Unaligned {
                address: 0x80_0002_1001,
            },
        ),
        (
            |h| h.entry = gva(0xffff_ffff_8000_2000),
            Region::Entry,
            Fault::WrongRights,
        ),
        (
            |h| h.entry = gva(0xffff_ffff_9000_0000),
            Region::Entry,
            Fault::Outside(Region::Image),
        ),
        (|h| h.window.slots = 511, Region::Window, Fault::TooMany),
        (
            |h| h.window.switch = gva(0xffff_ffff_c01f_d000),
            Region::Window,
            Fault::NoAddress {
                value: 0xffff_ffff_c01f_d000,
            },
        ),
        (
            |h| h.stage2_window_table = gpa(0x2_7000),
            Region::Window,
            Fault::Outside(Region::Stage2Tables),
        ),
    ];
    for (change, region, fault) in cases {
        let mut handoff = sample();
        change(&mut handoff);
        let error = Error::Region {
            region: *region,
            fault: *fault,
        };
        assert_eq!(Handoff::parse(&bytes_of(&handoff)), Err(error), "{error}");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn a_ninth_segment_is_refused() {
    let mut segments = sample().segments;
    let any = *segments.iter().next().unwrap();
    for _ in 3..MAX_SEGMENTS {
        segments.push(any).unwrap();
    }
    let region = Region::SvsmSegment(8);
    assert_eq!(
        segments.push(any),
        Err(Error::Region {
            region,
            fault: Fault::TooMany
        })
    );
}

proptest! {
    /// Whatever is accepted is understood completely: nothing in the block was ignored.
    #[test]
    fn what_is_accepted_is_what_is_written(
        changes in prop::collection::vec((0..HANDOFF_BYTES as usize, any::<u8>()), 0..4)
    ) {
        let mut bytes = bytes_of(&sample());
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(handoff) = Handoff::parse(&bytes) {
            prop_assert_eq!(bytes_of(&handoff), bytes);
        }
    }

    #[test]
    fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2 * HANDOFF_BYTES as usize)) {
        let mut bytes = bytes;
        prop_assert!(Handoff::parse(&bytes).is_err());
        let good = bytes_of(&sample());
        let header = bytes.len().min(16);
        bytes[..header].copy_from_slice(&good[..header]);
        let _ = Handoff::parse(&bytes);
    }
}

/// The sample with an archive that arrives at `start`.
fn staged(start: u64) -> Handoff {
    Handoff {
        staged: Some(Staged {
            source: GpaRange::new(gpa(start), 0x1_3000).unwrap(),
            digest: core::array::from_fn(|index| 0x80 | u8::try_from(index).unwrap()),
        }),
        ..sample()
    }
}

#[test]
fn a_staged_archive_is_told_behind_the_manifest() {
    let handoff = staged(0x90_0000_0000);
    let bytes = bytes_of(&handoff);
    assert_eq!(Handoff::parse(&bytes), Ok(handoff));
    assert_eq!(bytes[..0x300], GOLDEN[..0x300]);
    assert_eq!(bytes[0x300..0x308], 0x90_0000_0000_u64.to_le_bytes());
    assert_eq!(bytes[0x308..0x310], 0x1_2345_u64.to_le_bytes());
    assert_eq!((bytes[0x310], bytes[0x33f]), (0x80, 0xaf));
    assert_eq!(bytes[0x340..0x380], [0; 0x40]);
}

/// The sample with an SVSM that arrives at `start`.
fn staged_svsm(start: u64) -> Handoff {
    let handoff = sample();
    Handoff {
        staged_svsm: Some(Staged {
            source: GpaRange::new(gpa(start), handoff.svsm_bytes()).unwrap(),
            digest: core::array::from_fn(|index| 0x40 | u8::try_from(index).unwrap()),
        }),
        ..handoff
    }
}

#[test]
fn a_guest_is_below_the_svsm() {
    assert_eq!(bytes_of(&sample())[0x380..], [2, 0, 0, 0, 0, 0, 0, 0]);
    for (level, read) in [(0, None), (1, Vmpl::new(1)), (3, Vmpl::new(3))] {
        let mut wire = sample().encode();
        wire.guest_level = level.into();
        let handoff = Handoff::parse(wire.as_bytes()).unwrap();
        assert_eq!(handoff.guest_level, read);
        assert_eq!(bytes_of(&handoff), wire.as_bytes());
    }
    let mut wire = sample().encode();
    wire.guest_level = 4.into();
    let flaw = Flaw::Unknown;
    let refused = Handoff::parse(wire.as_bytes()).map(drop);
    assert_eq!(
        refused,
        Err(Error::Handoff {
            offset: 0x380,
            flaw
        })
    );
    let own = Handoff {
        guest_level: Some(Vmpl::Vmpl0),
        ..sample()
    };
    assert_eq!(
        own.check(),
        Err(Error::Handoff {
            offset: 0x380,
            flaw
        })
    );
}

#[test]
fn a_staged_svsm_is_its_segments_and_its_tables() {
    let handoff = staged_svsm(0x90_0000_0000);
    let bytes = bytes_of(&handoff);
    assert_eq!(Handoff::parse(&bytes), Ok(handoff));
    assert_eq!(bytes[..0x340], GOLDEN[..0x340]);
    assert_eq!(bytes[0x340..0x348], 0x90_0000_0000_u64.to_le_bytes());
    assert_eq!((bytes[0x350], bytes[0x37f]), (0x40, 0x6f));
    let pages: Vec<_> = handoff.svsm_pages().collect();
    assert_eq!(pages.len() as u64 * 4096, handoff.svsm_bytes());
    let first = handoff.segments.iter().next().unwrap().area;
    assert_eq!(pages.first(), Some(&first.gpa()));
    let last = handoff.tables.gpa_range().end().checked_sub(4096);
    assert_eq!(pages.last().copied(), last);
}

#[test]
fn a_staged_svsm_comes_from_elsewhere_and_fits() {
    let refuse = |region, fault| Err(Error::Region { region, fault });
    for (start, region) in [
        (0x80_0000_0000, Region::Svsm),
        (0x8_0000, Region::Stage2),
        (0, Region::Trampoline),
    ] {
        let refused = refuse(Region::SvsmStaging, Fault::Overlaps(region));
        assert_eq!(staged_svsm(start).check(), refused, "{start:#x}");
    }
    let mut both = staged_svsm(0x90_0000_0000);
    both.staged = staged(0x90_0000_0000).staged;
    let refused = both.check();
    let overlaps = |a, b| refused == refuse(a, Fault::Overlaps(b));
    assert!(
        overlaps(Region::SvsmStaging, Region::Staging)
            || overlaps(Region::Staging, Region::SvsmStaging),
        "{refused:?}"
    );
    let handoff = staged_svsm(0x90_0000_0000);
    let mut longer = handoff.encode();
    let expected = handoff.svsm_bytes();
    longer.staged_svsm.len_bytes = (expected + 1).into();
    let refused = Handoff::parse(longer.as_bytes()).map(drop);
    let wrong = Fault::WrongLength { expected };
    assert_eq!(refused, refuse(Region::SvsmStaging, wrong));
}

#[test]
fn a_staged_archive_comes_from_elsewhere_and_fits() {
    let refuse = |region, fault| Err(Error::Region { region, fault });
    for (start, region) in [
        (0x80_0000_0000, Region::Svsm),
        (0x80_00ff_f000, Region::Svsm),
        (0x8_0000, Region::Stage2),
        (0, Region::Trampoline),
    ] {
        let refused = refuse(Region::Staging, Fault::Overlaps(region));
        assert_eq!(staged(start).check(), refused, "{start:#x}");
    }
    let mut longer = staged(0x90_0000_0000).encode();
    longer.staged.len_bytes = 0x1_2346.into();
    let expected = Fault::WrongLength { expected: 0x1_2345 };
    let refused = Handoff::parse(longer.as_bytes()).map(drop);
    assert_eq!(refused, refuse(Region::Staging, expected));
    let mut odd = staged(0x90_0000_0000).encode();
    odd.staged.gpa = 0x90_0000_0800.into();
    assert!(Handoff::parse(odd.as_bytes()).is_err());
    let mut nowhere = staged(0x90_0000_0000);
    nowhere.archive = None;
    let missing = refuse(Region::Archive, Fault::Missing);
    assert_eq!(nowhere.check(), missing);
}

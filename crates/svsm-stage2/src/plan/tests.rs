extern crate std;

use super::*;
use crate::error::{Error, Fault};
use crate::params::MemoryKind;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec;

const PAGE: u64 = 4096;
const IMAGE: u64 = 0xffff_ffff_8000_0000;

fn gpa(value: u64) -> Gpa {
    Gpa::new(value).unwrap()
}

const fn segment(address: u64, mem_bytes: u64, flags: &str) -> SegmentFacts {
    let [_, w, x] = flags.as_bytes() else {
        panic!("three letters")
    };
    let file_bytes = if *w == b'w' { mem_bytes / 2 } else { mem_bytes };
    SegmentFacts {
        address,
        mem_bytes,
        file_bytes,
        writable: *w == b'w',
        executable: *x == b'x',
    }
}

const STAGE2: [SegmentFacts; 4] = [
    segment(0x8000, 0x200, "r-x"),
    segment(0x1_0000, 0x3456, "r-x"),
    segment(0x1_4000, 0x1800, "r--"),
    segment(0x1_6000, 0x2000, "rw-"),
];

const SVSM: [SegmentFacts; 3] = [
    segment(IMAGE, 0x4_2000, "r-x"),
    segment(IMAGE + 0x4_2000, 0x1_0800, "r--"),
    segment(IMAGE + 0x5_4000, 0x3_0000, "rw-"),
];

fn request() -> Request<'static> {
    let mut request = Request::new(
        ProgramFacts {
            segments: &STAGE2,
            entry: 0x1_0100,
        },
        ProgramFacts {
            segments: &SVSM,
            entry: IMAGE + 0x10,
        },
    );
    request.parameter_bytes = [PAGE, PAGE, 2 * PAGE, 0, PAGE];
    request.archive_bytes = 0x3_4567;
    request
}

fn refusal(change: impl FnOnce(&mut Request<'static>)) -> (Region, Fault) {
    let mut request = request();
    change(&mut request);
    match Plan::new(&request) {
        Err(Error::Region { region, fault }) => (region, fault),
        other => panic!("{other:?}"),
    }
}

/// Every page that a space maps: where to, and with which rights.
fn pages_of(space: &AddressSpace) -> BTreeMap<u64, (u64, Rights)> {
    let mut pages = BTreeMap::new();
    for mapping in &space.mappings {
        assert!(mapping.gva.is_aligned(mapping.size) && mapping.gpa.is_aligned(mapping.size));
        for page in 0..mapping.pages.as_u64() * mapping.size.bytes() / PAGE {
            let target = (mapping.gpa.as_u64() + page * PAGE, mapping.rights);
            let earlier = pages.insert(mapping.gva.as_u64() + page * PAGE, target);
            assert_eq!(earlier, None, "{mapping:?}");
        }
    }
    pages
}

/// Makes the tables as the builder is told to, and gives back how many pages that took and where
/// the window's table is.
fn make_tables(space: &AddressSpace) -> (u64, u64) {
    let mut taken = 1;
    let mut tables = BTreeMap::new();
    for mapping in &space.mappings {
        for page in 0..mapping.pages.as_u64() {
            let gva = mapping.gva.as_u64() + page * mapping.size.bytes();
            for shift in [39, 30, 21] {
                if shift > mapping.size.shift() {
                    tables.entry((shift, gva >> shift)).or_insert_with(|| {
                        taken += 1;
                        space.tables.start().as_u64() + (taken - 1) * PAGE
                    });
                }
            }
        }
    }
    (taken, tables[&(21, layout::WINDOW.as_u64() >> 21)])
}

fn assert_sound(plan: &Plan) {
    for pair in plan.placements.windows(2) {
        assert!(pair[0].gpa.end() <= pair[1].gpa.start(), "{pair:?}");
    }
    for placement in &plan.placements {
        let home = if plan.handoff.svsm.contains_range(&placement.gpa) {
            true
        } else {
            plan.handoff.stage2.contains_range(&placement.gpa)
                || matches!(placement.region, Region::Trampoline | Region::Mailbox)
        };
        assert!(home, "{placement:?}");
    }
    plan.handoff.check().unwrap();

    for space in [&plan.stage2, &plan.svsm] {
        let (taken, window_table) = make_tables(space);
        assert_eq!(space.tables.len_bytes(), taken * PAGE);
        assert_eq!(space.window_table.as_u64(), window_table);
        let pages = pages_of(space);
        let window = (window_table, Rights::ReadWrite);
        assert_eq!(pages[&layout::WINDOW_TABLE.as_u64()], window);
        let switch = (plan.handoff.trampoline.as_u64(), Rights::ReadExecute);
        assert_eq!(pages[&layout::SWITCH.as_u64()], switch);
        for slot in 0..u64::from(layout::WINDOW_SLOTS) {
            assert!(!pages.contains_key(&(layout::WINDOW.as_u64() + slot * PAGE)));
        }
    }

    // What is executable somewhere is writable nowhere, and the other way round.
    let both = |executable: bool| {
        [&plan.stage2, &plan.svsm]
            .into_iter()
            .flat_map(pages_of)
            .filter(move |(_, (_, rights))| {
                if executable {
                    rights.is_executable()
                } else {
                    rights.is_writable()
                }
            })
            .map(|(_, (gpa, _))| gpa)
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert!(both(true).is_disjoint(&both(false)));

    let pages = pages_of(&plan.svsm);
    for placement in &plan.placements {
        let Some(gva) = placement.gva else { continue };
        for (gva, gpa) in gva
            .pages(PageSize::Size4K)
            .unwrap()
            .zip(placement.gpa.pages(PageSize::Size4K).unwrap())
        {
            assert_eq!(
                pages[&gva.as_u64()],
                (gpa.as_u64(), placement.rights),
                "{placement:?}"
            );
        }
    }
    let stack = plan.handoff.boot_stack.gva_range();
    assert_guarded(&pages, stack.start().as_u64(), stack.end().as_u64());
    let stack = plan.placement(Region::Stage2Stack).unwrap().gpa;
    assert_eq!(stack.end().as_u64(), plan.start.stack_top.as_u64());
    assert_guarded(
        &pages_of(&plan.stage2),
        stack.start().as_u64(),
        stack.end().as_u64(),
    );
}

fn assert_guarded(pages: &BTreeMap<u64, (u64, Rights)>, bottom: u64, top: u64) {
    assert!(!pages.contains_key(&(bottom - PAGE)));
    assert!(!pages.contains_key(&top));
    assert!(
        (bottom..top)
            .step_by(4096)
            .all(|page| pages[&page].1 == Rights::ReadWrite)
    );
}

#[test]
fn an_ordinary_image_is_laid_out() {
    let plan = Plan::new(&request()).unwrap();
    assert_sound(&plan);
    let place = |region| plan.placement(region).unwrap().gpa.start().as_u64();
    assert_eq!(place(Region::Stage2Segment(1)), 0x1_0000);
    assert_eq!(place(Region::SvsmSegment(0)), 0x80_0000_0000);
    assert_eq!(plan.start.entry32, gpa(0x1_0000));
    assert_eq!(plan.start.entry64.as_u64(), 0x1_0100);
    assert_eq!(plan.start.root, plan.handoff.stage2_tables.start());
    assert_eq!(plan.handoff.parameter(Parameter::DeviceTree), None);
    assert_eq!(plan.handoff.archive.unwrap().len_bytes(), 0x3_4567);
    // Root, three for areas and window (which share two), linear: three; image: two more.
    assert_eq!(plan.stage2.tables.len_bytes(), 7 * PAGE);
    assert!(plan.svsm.tables.len_bytes() <= 10 * PAGE);
}

#[test]
fn snp_images_have_their_pages() {
    let mut request = request();
    request.platform = Platform::Snp;
    request.encryption = EncryptionKind::CBit;
    request.cpuid = true;
    request.secrets = true;
    let plan = Plan::new(&request).unwrap();
    assert_sound(&plan);
    // The 32-bit entry reads the CPUID page with paging off.
    assert!(plan.handoff.cpuid.unwrap().gpa() < layout::STAGE2_END);
    assert_eq!(
        plan.placement(Region::Secrets).unwrap().content,
        Content::Platform
    );
}

#[test]
fn a_staged_archive_has_two_places() {
    let mut request = request();
    let start = gpa(0x90_0000_0000);
    request.staged = Some(Arrival {
        start,
        digest: [7; 48],
    });
    let plan = Plan::new(&request).unwrap();
    let loaded = plan.placement(Region::Staging).unwrap();
    assert_eq!((loaded.gpa.start(), loaded.gva), (start, None));
    let file_bytes = request.archive_bytes;
    assert_eq!(loaded.content, Content::Staged { file_bytes });
    let home = plan.placement(Region::Archive).unwrap();
    assert_eq!((home.content, home.rights), (Content::Free, Rights::Read));
    assert_eq!(home.gpa.len_bytes(), loaded.gpa.len_bytes());
    let staged = plan.handoff.staged.unwrap();
    assert_eq!((staged.source, staged.digest), (loaded.gpa, [7; 48]));
    // The rest is as it would be without.
    request.staged = None;
    let plain = Plan::new(&request).unwrap();
    assert_eq!((plain.stage2, plain.svsm), (plan.stage2, plan.svsm));

    let inside = |request: &mut Request<'_>| {
        let start = gpa(0x80_0080_0000);
        let digest = [7; 48];
        request.staged = Some(Arrival { start, digest });
    };
    let overlaps = Fault::Overlaps(Region::Heap);
    assert_eq!(refusal(inside), (Region::Staging, overlaps));
    request.archive_bytes = 0;
    inside(&mut request);
    assert_eq!(Plan::new(&request).unwrap().handoff.staged, None);
}

#[test]
fn a_staged_svsm_has_two_places() {
    let mut request = request();
    let plain = Plan::new(&request).unwrap();
    let start = gpa(0x90_0000_0000);
    request.staged_svsm = Some(start);
    let mut plan = Plan::new(&request).unwrap();
    let loaded = plan.placement(Region::SvsmStaging).unwrap();
    assert_eq!((loaded.gpa.start(), loaded.gva), (start, None));
    assert_eq!(loaded.content, Content::StagedSvsm);
    assert_eq!(loaded.gpa.len_bytes(), plan.handoff.svsm_bytes());
    for placement in &plan.placements {
        let is_staged = matches!(
            placement.region,
            Region::SvsmSegment(_) | Region::Tables | Region::Heap
        );
        assert_eq!(
            placement.content == Content::Free,
            is_staged,
            "{}",
            placement.region
        );
    }
    assert_eq!(plan.handoff.staged_svsm.unwrap().source, loaded.gpa);
    plan.set_staged_svsm_digest([9; 48]);
    assert_eq!(plan.handoff.staged_svsm.unwrap().digest, [9; 48]);
    // The rest is as it would be without.
    assert_eq!((&plain.stage2, &plain.svsm), (&plan.stage2, &plan.svsm));
    assert_eq!(plain.handoff.staged_svsm, None);

    let inside = |request: &mut Request<'_>| {
        request.staged_svsm = Some(gpa(0x80_0080_0000));
    };
    let overlaps = Fault::Overlaps(Region::Heap);
    assert_eq!(refusal(inside), (Region::SvsmStaging, overlaps));
}

#[test]
fn bad_images_name_the_culprit() {
    const RWX: [SegmentFacts; 1] = [SegmentFacts {
        writable: true,
        executable: true,
        ..SVSM[0]
    }];
    const LONG: [SegmentFacts; 1] = [SegmentFacts {
        file_bytes: 0x4_2001,
        ..SVSM[0]
    }];
    const TWICE: [SegmentFacts; 2] = [SVSM[0], segment(IMAGE + 0x4_1000, 0x1000, "r--")];
    const EMPTY: [SegmentFacts; 2] = [SVSM[0], segment(IMAGE + 0x10_0000, 0, "r--")];
    const ODD: [SegmentFacts; 1] = [segment(IMAGE + 8, 0x1000, "r-x")];
    const LOW: [SegmentFacts; 1] = [segment(0x40_0000, 0x1000, "r-x")];
    const NINE: [SegmentFacts; 9] = [SVSM[0]; 9];
    const HOLE: [SegmentFacts; 1] = [segment(0x8000_0000_0000, 0x1000, "r-x")];
    let svsm = |segments: &'static [SegmentFacts]| refusal(|r| r.svsm.segments = segments);
    let first = Region::SvsmSegment(0);
    let second = Region::SvsmSegment(1);
    assert_eq!(svsm(&[]), (first, Fault::Missing));
    assert_eq!(svsm(&RWX), (first, Fault::WriteExecute));
    assert_eq!(svsm(&LONG), (first, Fault::FileTooLong));
    assert_eq!(svsm(&TWICE), (second, Fault::Overlaps(first)));
    assert_eq!(svsm(&EMPTY), (second, Fault::Empty));
    assert_eq!(svsm(&ODD), (first, Fault::Unaligned { address: IMAGE + 8 }));
    assert_eq!(svsm(&LOW), (first, Fault::Outside(Region::Image)));
    assert_eq!(svsm(&NINE), (Region::SvsmSegment(8), Fault::TooMany));
    assert_eq!(
        svsm(&HOLE),
        (
            first,
            Fault::NoAddress {
                value: 0x8000_0000_0000
            }
        )
    );

    const BARE: [SegmentFacts; 1] = [STAGE2[1]];
    const HIGH: [SegmentFacts; 2] = [STAGE2[0], segment(0xa_0000, 0x1000, "r-x")];
    const DATA: [SegmentFacts; 2] = [segment(0x8000, 0x1000, "rw-"), STAGE2[1]];
    let stage2 = |segments: &'static [SegmentFacts]| refusal(|r| r.stage2.segments = segments);
    assert_eq!(stage2(&BARE), (Region::Trampoline, Fault::Missing));
    assert_eq!(
        stage2(&HIGH),
        (Region::Stage2Segment(1), Fault::Outside(Region::Stage2))
    );
    assert_eq!(stage2(&DATA), (Region::Trampoline, Fault::WrongRights));
    assert_eq!(
        refusal(|r| r.stage2.entry = 0x1_4000),
        (Region::Stage2Entry, Fault::WrongRights)
    );
    assert_eq!(
        refusal(|r| r.stage2.entry = 0x2000),
        (Region::Stage2Entry, Fault::Missing)
    );

    assert_eq!(
        refusal(|r| r.svsm.entry = IMAGE + 0x5_4000),
        (Region::Entry, Fault::WrongRights)
    );
    assert_eq!(
        refusal(|r| r.archive_bytes = 16 << 20).0,
        Region::Archive,
        "an archive as large as the region"
    );
    assert_eq!(
        refusal(|r| r.svsm_base = gpa(0x1000_1000)),
        (
            Region::Svsm,
            Fault::Unaligned {
                address: 0x1100_1000
            }
        )
    );
    assert_eq!(refusal(|r| r.svsm_bytes = 0), (Region::Svsm, Fault::Empty));
    assert_eq!(
        refusal(|r| r.svsm_bytes = 1 << 52),
        (
            Region::Svsm,
            Fault::Wraps {
                address: 0x80_0000_0000
            }
        )
    );
    assert_eq!(
        refusal(|r| r.svsm_bytes = 1 << 40),
        (Region::Svsm, Fault::Outside(Region::Linear))
    );
    assert_eq!(
        refusal(|r| r.svsm_base = gpa(0)),
        (Region::Trampoline, Fault::Overlaps(Region::SvsmSegment(0))),
    );
    assert_eq!(
        refusal(|r| r.boot_stack_bytes = 0),
        (Region::BootStack, Fault::Empty)
    );
    assert_eq!(
        refusal(|r| r.boot_stack_bytes = 0x1001).0,
        Region::BootStack,
    );
    assert_eq!(
        refusal(|r| r.stage2_end = gpa(0x2_2000)),
        (
            Region::Stage2Tables,
            Fault::NoRoom {
                region: Region::Stage2,
                missing_bytes: 0x6000
            }
        )
    );
}

#[test]
fn stage2_with_too_many_segments_is_refused() {
    let segments = vec![STAGE2[1]; 300];
    let mut request = request();
    request.stage2.segments = &segments;
    let region = Region::Stage2Segment(u8::MAX);
    let fault = Fault::TooMany;
    assert_eq!(Plan::new(&request), Err(Error::Region { region, fault }));
}

#[test]
fn memory_that_nobody_claims_is_not_used() {
    let region = |start, end| MemoryRegion {
        range: GpaRange::from_bounds(gpa(start), gpa(end)).unwrap(),
        kind: MemoryKind::Memory,
    };
    let memory = [region(0, 0xa_0000), region(1 << 39, (1 << 39) + (16 << 20))];
    let plan = |memory| {
        let mut request = request();
        request.memory = Some(memory);
        Plan::new(&request)
    };
    assert_sound(&plan(&memory).unwrap());
    let fault = Fault::NoMemory;
    let region = Region::SvsmSegment(0);
    assert_eq!(plan(&memory[..1]), Err(Error::Region { region, fault }));
    let region = Region::Trampoline;
    assert_eq!(plan(&memory[1..]), Err(Error::Region { region, fault }));
}

prop_compose! {
    fn programs()(
        stage2 in prop::collection::vec((1..0x8000_u64, 0..3_u64), 1..5),
        svsm in prop::collection::vec((1..0x20_0000_u64, 0..4_u64, 0..3_u64), 1..8),
    ) -> (Vec<SegmentFacts>, Vec<SegmentFacts>) {
        let facts = |address, mem_bytes, kind| {
            let kind = ["r--", "rw-", "r-x"][usize::try_from(kind).unwrap()];
            segment(address, mem_bytes, kind)
        };
        let mut low = vec![facts(0x8000, 100, 2)];
        let mut at = 0x1_0000;
        for (index, (mem_bytes, kind)) in stage2.into_iter().enumerate() {
            low.push(facts(at, mem_bytes, if index == 0 { 2 } else { kind }));
            at += mem_bytes.next_multiple_of(PAGE);
        }
        let mut high = Vec::new();
        let mut at = IMAGE;
        for (index, (mem_bytes, gap, kind)) in svsm.into_iter().enumerate() {
            at += gap * PAGE;
            high.push(facts(at, mem_bytes, if index == 0 { 2 } else { kind }));
            at += mem_bytes.next_multiple_of(PAGE);
        }
        (low, high)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_planned_is_sound(
        (low, high) in programs(),
        base in 1..0x4000_u64,
        svsm_pages in 0x10_u64..0x1800,
        stack_pages in 1..32_u64,
        parameters in prop::array::uniform5(0..0x5000_u64),
        archive_bytes in 0..0x10_0000_u64,
        snp in any::<bool>(),
    ) {
        let mut request = Request::new(
            ProgramFacts { segments: &low, entry: 0x1_0000 },
            ProgramFacts { segments: &high, entry: high[0].address },
        );
        request.svsm_base = gpa(base << 21);
        request.svsm_bytes = svsm_pages * PAGE;
        request.boot_stack_bytes = stack_pages * PAGE;
        request.parameter_bytes = parameters;
        request.archive_bytes = archive_bytes;
        if snp {
            request.platform = Platform::Snp;
            request.encryption = EncryptionKind::CBit;
            request.cpuid = true;
            request.secrets = true;
        }
        if let Ok(plan) = Plan::new(&request) {
            assert_sound(&plan);
            prop_assert_eq!(plan.handoff.run_time, None);
            prop_assert_eq!(plan.handoff.parameters.map(|area| area.map_or(0, |area| area.len_bytes())), parameters);
        }
    }

    #[test]
    fn hostile_facts_never_panic(
        facts in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>(), any::<bool>()), 0..6),
        entry in any::<u64>(),
        base in 0..1_u64 << 52,
        bytes in any::<u64>(),
    ) {
        let segments: Vec<_> = facts
            .iter()
            .map(|(address, mem_bytes, file_bytes, writable, executable)| SegmentFacts {
                address: *address, mem_bytes: *mem_bytes, file_bytes: *file_bytes, writable: *writable, executable: *executable,
            })
            .collect();
        let mut request = request();
        request.svsm = ProgramFacts { segments: &segments, entry };
        prop_assert!(Plan::new(&request).is_err());
        request.stage2 = ProgramFacts { segments: &segments, entry };
        prop_assert!(Plan::new(&request).is_err());
        let mut request = self::request();
        request.svsm_base = gpa(base);
        request.svsm_bytes = bytes;
        let _ = Plan::new(&request);
        request.svsm_base = layout::SVSM_BASE;
        request.boot_stack_bytes = bytes;
        request.archive_bytes = bytes;
        let _ = Plan::new(&request);
    }
}

extern crate std;

use super::*;
use crate::error::TableFault;
use crate::handoff::{EncryptionKind, HANDOFF_BYTES, Platform, Staged};
use crate::plan::{AddressSpace, Plan, ProgramFacts, Request, SegmentFacts};
use crate::region::{Parameter, Rights};
use crate::staged;
use proptest::prelude::*;
use sha2::Digest;
use std::vec::Vec;
use svsm_mm::frame::{FrameSource, Order};
use svsm_mm::table::{Attributes, Levels, PageTable};
use svsm_mm::window::{HostMemory, WordIndex};
use svsm_platform::addr::{Gpa, GpaRange, GvaRange};
use svsm_platform::encryption::{BitPosition, Encryption};

const STAGE2: [SegmentFacts; 2] = [
    segment(0x8000, 0x1000, false, true),
    segment(0x1_0000, 0x4000, false, true),
];

const SVSM: [SegmentFacts; 3] = [
    segment(0xffff_ffff_8000_0000, 0x4_0000, false, true),
    segment(0xffff_ffff_8004_0000, 0x1_0000, false, false),
    segment(0xffff_ffff_8005_0000, 0x2_0000, true, false),
];

const fn segment(address: u64, mem_bytes: u64, writable: bool, executable: bool) -> SegmentFacts {
    SegmentFacts {
        address,
        mem_bytes,
        file_bytes: mem_bytes,
        writable,
        executable,
    }
}

fn plan(encryption: EncryptionKind) -> Plan {
    let mut request = Request::new(
        ProgramFacts {
            segments: &STAGE2,
            entry: 0x1_0000,
        },
        ProgramFacts {
            segments: &SVSM,
            entry: 0xffff_ffff_8000_0000,
        },
    );
    request.parameter_bytes = [0x1000; Parameter::ALL.len()];
    request.archive_bytes = 0x1_0000;
    if encryption != EncryptionKind::None {
        request.platform = Platform::Snp;
        request.encryption = encryption;
        request.cpuid = true;
        request.secrets = true;
    }
    Plan::new(&request).unwrap()
}

/// Makes a plan's tables as a builder does.
fn build(space: &AddressSpace) -> HostMemory {
    let memory = HostMemory::new(space.tables);
    let mut frames = memory.frames().unwrap();
    let root = frames.take(Order::SINGLE).unwrap();
    let mut table = PageTable::new(root, Encryption::None, Levels::Four, &memory).unwrap();
    let mut editor = table.editor(&mut frames, &memory);
    for mapping in &space.mappings {
        let rights = match mapping.rights {
            Rights::Read => svsm_mm::table::Rights::READ,
            Rights::ReadWrite => svsm_mm::table::Rights::READ_WRITE,
            Rights::ReadExecute => svsm_mm::table::Rights::READ_EXECUTE,
        };
        let len_bytes = mapping.pages.len_bytes(mapping.size).unwrap();
        let range = GvaRange::new(mapping.gva, len_bytes).unwrap();
        editor
            .map_up_to(
                range,
                mapping.gpa,
                Attributes::private(rights),
                mapping.size,
            )
            .unwrap();
    }
    assert_eq!(
        frames.remaining_bytes(),
        0,
        "the plan counts tables as they are made"
    );
    memory
}

fn block(plan: &Plan) -> [u8; HANDOFF_BYTES as usize] {
    plan.handoff.encode().as_bytes().try_into().unwrap()
}

/// Runs on an SVSM that the image loads.
fn run<W: Window>(block: &mut [u8], run_time: RunTime, window: &W) -> Result<Jump> {
    let in_place = InPlace::loaded(&plan(EncryptionKind::None).handoff)?;
    super::run(block, run_time, &in_place, window)
}

fn native() -> RunTime {
    RunTime {
        encryption: Encryption::None,
        tsc_at_entry: 0x77,
    }
}

fn c_bit() -> Encryption {
    Encryption::CBit(BitPosition::new(51).unwrap())
}

fn contents(memory: &mut HostMemory) -> Vec<u64> {
    let pages = memory.pages().flat_map(|(_, page)| page.as_chunks::<8>().0);
    pages.map(|word| u64::from_le_bytes(*word)).collect()
}

/// Reads or writes an entry of a table by the table's number.
fn entry(memory: &HostMemory, table: u64, index: u16, value: Option<u64>) -> u64 {
    let at = memory.range().start().checked_add(table * 4096).unwrap();
    #[expect(unsafe_code, reason = "the window demands it")]
    // SAFETY: the memory is the test's own.
    let page = unsafe { memory.map(at, Visibility::Private) }.unwrap();
    let index = WordIndex::new(index).unwrap();
    if let Some(value) = value {
        page.store(index, value);
    }
    page.load(index)
}

#[test]
fn native_tables_are_checked_and_stay() {
    let plan = plan(EncryptionKind::None);
    let mut memory = build(&plan.svsm);
    let before = contents(&mut memory);
    let mut block = block(&plan);
    let jump = run(&mut block, native(), &memory).unwrap();
    assert_eq!(contents(&mut memory), before);
    let handoff = Handoff::parse(&block).unwrap();
    assert_eq!(
        handoff,
        Handoff {
            run_time: Some(native()),
            ..plan.handoff
        }
    );
    let expected = Jump {
        cr3: plan.svsm.root().as_u64(),
        stack_top: plan.handoff.boot_stack.gva_range().end(),
        entry: Gva::new(0xffff_ffff_8000_0000).unwrap(),
        argument: plan.handoff.handoff.gva(),
    };
    assert_eq!(jump, expected);
}

#[test]
fn c_bit_goes_into_every_entry() {
    let plan = plan(EncryptionKind::CBit);
    let mut memory = build(&plan.svsm);
    let before = contents(&mut memory);
    let run_time = RunTime {
        encryption: c_bit(),
        tsc_at_entry: 1,
    };
    let jump = run(&mut block(&plan), run_time, &memory).unwrap();
    let expected = before
        .iter()
        .map(|entry| if *entry == 0 { 0 } else { entry | 1 << 51 });
    assert!(contents(&mut memory).into_iter().eq(expected));
    assert_eq!(jump.cr3, plan.svsm.root().as_u64() | 1 << 51);
}

/// Memory of the host that holds what a plan stages, and the private pages to which it goes.
struct Arriving<'m> {
    shared: Vec<[u8; 4096]>,
    source: Gpa,
    target: &'m HostMemory,
}

impl staged::Memory for Arriving<'_> {
    type Error = svsm_mm::Error;

    fn fetch(&mut self, page: Gpa, into: &mut [u8; 4096]) -> svsm_mm::Result<()> {
        let offset = page.checked_offset_from(self.source).unwrap();
        *into = self.shared[usize::try_from(offset / 4096).unwrap()];
        Ok(())
    }

    fn accept(&mut self, _: Gpa) -> svsm_mm::Result<()> {
        Ok(())
    }

    fn write(&mut self, page: Gpa, contents: &[u8; 4096]) -> svsm_mm::Result<()> {
        #[expect(unsafe_code, reason = "the window demands it")]
        // SAFETY: the memory is the test's own.
        let page = unsafe { self.target.map(page, Visibility::Private) }?;
        page.write(0, contents)
    }

    fn read(&mut self, page: Gpa, into: &mut [u8; 4096]) -> svsm_mm::Result<()> {
        #[expect(unsafe_code, reason = "the window demands it")]
        // SAFETY: as above.
        let page = unsafe { self.target.map(page, Visibility::Private) }?;
        page.read(0, into)
    }
}

#[test]
fn a_staged_svsm_runs_once_it_is_in_place() {
    let loaded = plan(EncryptionKind::None);
    let mut plan = loaded.clone();
    let mut built = build(&plan.svsm);
    let segments = plan.handoff.segments.iter();
    let text = segments
        .map(|segment| segment.area.pages().as_u64())
        .sum::<u64>();
    let text = usize::try_from(text).unwrap();
    let mut shared = std::vec![[0x90; 4096]; text];
    shared.extend(built.pages().map(|(_, page)| *page));
    let source = Gpa::new(0x90_0000_0000).unwrap();
    let digest = sha2::Sha384::digest(shared.as_flattened()).into();
    let len_bytes = shared.len() as u64 * 4096;
    plan.handoff.staged_svsm = Some(Staged {
        source: GpaRange::new(source, len_bytes).unwrap(),
        digest,
    });
    plan.handoff.check().unwrap();

    let memory = HostMemory::new(plan.handoff.svsm);
    let mut arriving = Arriving {
        shared,
        source,
        target: &memory,
    };
    let hash = sha2::Sha384::new();
    let in_place = staged::receive_svsm(&plan.handoff, &mut arriving, hash).unwrap();
    let jump = super::run(&mut block(&plan), native(), &in_place, &memory).unwrap();
    assert_eq!(jump.cr3, plan.svsm.root().as_u64());

    // Nobody's word for another image.
    let missing = Err(Error::Region {
        region: Region::SvsmStaging,
        fault: Fault::Missing,
    });
    let other = InPlace::loaded(&loaded.handoff).unwrap();
    let refused = super::run(&mut block(&plan), native(), &other, &memory);
    assert_eq!(refused, missing);
    let refused = super::run(&mut block(&loaded), native(), &in_place, &memory);
    assert_eq!(refused, missing);
}

#[test]
fn stage2_runs_once() {
    let plan = plan(EncryptionKind::None);
    let memory = build(&plan.svsm);
    let mut block = block(&plan);
    run(&mut block, native(), &memory).unwrap();
    let order = Err(Error::Handoff {
        offset: 32,
        flaw: Flaw::Order,
    });
    assert_eq!(run(&mut block, native(), &memory), order);
}

#[test]
fn machine_and_image_have_to_agree() {
    let plan = plan(EncryptionKind::None);
    let run_time = RunTime {
        encryption: c_bit(),
        tsc_at_entry: 1,
    };
    let memory = build(&plan.svsm);
    let refused = Err(Error::Region {
        region: Region::Svsm,
        fault: Fault::WrongEncryption,
    });
    assert_eq!(run(&mut block(&plan), run_time, &memory), refused);
}

#[test]
fn entries_that_no_plan_asks_for_are_found() {
    let plan = plan(EncryptionKind::None);
    let tables = plan.svsm.tables.start().as_u64();
    let text = 0x80_0000_0000;
    let nx = 1_u64 << 63;
    // Table 3 is the window's, whose first slots are empty.
    let cases = [
        (3, 0, 0x80_0100_0000 | nx | 3, TableFault::Foreign),
        (3, 0, 0x8000 | nx | 3, TableFault::Rights),
        (3, 1, 0x1_0000 | 1, TableFault::Foreign),
        (3, 0, text | 3, TableFault::WriteExecute),
        (3, 0, text | nx | 3, TableFault::Rights),
        (3, 0, (text + 0x4_0000) | nx | 3, TableFault::Rights),
        (3, 0, (text + 0x5_0000) | 1, TableFault::Rights),
        (3, 0, tables | 1, TableFault::Rights),
        (3, 0, text | nx | 5, TableFault::User),
        (3, 0, text | nx | 0x11, TableFault::Bits),
        (3, 0, text | nx | 0x81, TableFault::Bits),
        (3, 0, text | 1 << 52 | nx | 1, TableFault::Bits),
        (3, 0, text | 2, TableFault::Bits),
        (3, 0, 1 << 51 | nx | 1, TableFault::Foreign),
        (2, 5, 0x80_0020_1000 | nx | 0x83, TableFault::Bits),
        (2, 5, 0x80_0000_0000 | nx | 0x83, TableFault::Rights),
        (1, 5, 0x80_0000_0000 | nx | 0x83, TableFault::Foreign),
        (0, 5, 0x80_0000_0000 | nx | 0x83, TableFault::Bits),
        (0, 5, 0x80_0000_0000 | 3, TableFault::Outside),
        (1, 5, tables | 3, TableFault::Outside),
        (1, 5, (tables + 4096) | 3, TableFault::Outside),
        (0, 5, (tables + 8192) | 7, TableFault::User),
        (0, 5, (tables + 8192) | nx | 3, TableFault::Bits),
        (
            0,
            5,
            plan.svsm.tables.end().as_u64() | 3,
            TableFault::Outside,
        ),
    ];
    for (table, index, value, fault) in cases {
        let memory = build(&plan.svsm);
        entry(&memory, table, index, Some(value));
        let at = plan.svsm.tables.start().checked_add(table * 4096).unwrap();
        let expected = Err(Error::Table {
            table: at,
            index,
            fault,
        });
        assert_eq!(
            run(&mut block(&plan), native(), &memory),
            expected,
            "{value:#x}"
        );
    }
}

#[test]
fn tables_with_two_parents_are_found() {
    let plan = plan(EncryptionKind::None);
    let memory = build(&plan.svsm);
    let below = entry(&memory, 0, 511, None);
    entry(&memory, 0, 5, Some(below));
    let shared = Error::Table {
        table: plan.svsm.root(),
        index: 511,
        fault: TableFault::Shared,
    };
    assert_eq!(run(&mut block(&plan), native(), &memory), Err(shared));
}

#[test]
fn unused_tables_are_found() {
    let plan = plan(EncryptionKind::None);
    let memory = build(&plan.svsm);
    let root_entry = (0..512)
        .find(|index| entry(&memory, 0, *index, None) != 0)
        .unwrap();
    entry(&memory, 0, root_entry, Some(0));
    let Err(Error::Table { fault, .. }) = run(&mut block(&plan), native(), &memory) else {
        panic!("accepted");
    };
    assert_eq!(fault, TableFault::Orphan);
}

#[test]
fn tables_out_of_reach_are_named() {
    let plan = plan(EncryptionKind::None);
    let elsewhere = HostMemory::new(plan.stage2.tables);
    let expected = Error::Table {
        table: plan.svsm.root(),
        index: 0,
        fault: TableFault::Unreachable,
    };
    assert_eq!(run(&mut block(&plan), native(), &elsewhere), Err(expected));
}

proptest! {
    /// Whatever is in the tables: no panic, an end, and no page that is not the SVSM's.
    #[test]
    fn junk_in_tables_is_refused_or_harmless(
        junk in prop::collection::vec((0..10_u64, 0..512_u16, any::<u64>(), any::<bool>()), 1..8)
    ) {
        let plan = plan(EncryptionKind::None);
        let memory = build(&plan.svsm);
        let tables = plan.svsm.tables;
        for (table, index, value, near) in junk {
            let value = if near { tables.start().as_u64() + (value & 0xf067) } else { value };
            if table * 4096 < tables.len_bytes() {
                entry(&memory, table, index, Some(value));
            }
        }
        if run(&mut block(&plan), native(), &memory).is_ok() {
            for table in 0..tables.len_bytes() / 4096 {
                for index in 0..512 {
                    let entry = entry(&memory, table, index, None);
                    let target = Gpa::new(entry & 0x000f_ffff_ffff_f000).unwrap();
                    prop_assert!(
                        entry == 0
                            || plan.handoff.svsm.contains(target)
                            || target.as_u64() < layout::STAGE2_END.as_u64()
                    );
                }
            }
        }
    }
}

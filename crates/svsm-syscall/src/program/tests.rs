use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    let (start, end) = (Gva::new(0x1_0000).unwrap(), Gva::new(USER_END).unwrap());
    Limits {
        space: GvaRange::from_bounds(start, end).unwrap(),
        pages: PageCount::new(64),
    }
}

#[derive(Clone, Copy, Debug)]
struct Load {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
}

const CODE: Load = Load {
    kind: 1,
    flags: 5,
    offset: 0x200,
    vaddr: 0x40_0200,
    filesz: 0x100,
    memsz: 0x100,
};
const DATA: Load = Load {
    kind: 1,
    flags: 6,
    offset: 0x300,
    vaddr: 0x40_1300,
    filesz: 0x10,
    memsz: 0x2000,
};

/// Writes a file as the ELF specification says: headers, then numbered bytes.
fn file(entry: u64, loads: &[Load]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(2_u16.to_le_bytes()); // executable
    file.extend(62_u16.to_le_bytes()); // x86-64
    file.extend(1_u32.to_le_bytes());
    file.extend(entry.to_le_bytes());
    file.extend(64_u64.to_le_bytes()); // program headers
    file.extend(0_u64.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for field in [64, 56, u16::try_from(loads.len()).unwrap(), 0, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    for load in loads {
        file.extend(load.kind.to_le_bytes());
        file.extend(load.flags.to_le_bytes());
        for field in [
            load.offset,
            load.vaddr,
            load.vaddr,
            load.filesz,
            load.memsz,
            0x1000,
        ] {
            file.extend(field.to_le_bytes());
        }
    }
    for byte in file.len()..0x600.max(file.len()) {
        file.push(u8::try_from(byte % 251).unwrap());
    }
    file
}

fn refusal(loads: &[Load]) -> ProgramError {
    Program::plan(&file(0x40_0200, loads), &limits()).unwrap_err()
}

#[test]
fn a_program_may_ask_for_stack() {
    let stack = Load {
        kind: 0x6474_e551,
        flags: 6,
        offset: 0,
        vaddr: 0,
        filesz: 0,
        memsz: 0x4_0000,
    };
    let asked = |loads: &[Load]| {
        let file = file(0x40_0200, loads);
        Program::plan(&file, &limits()).unwrap().stack_bytes()
    };
    assert_eq!(asked(&[CODE, stack]), Some(0x4_0000));
    assert_eq!(asked(&[CODE, Load { memsz: 0, ..stack }]), None);
    assert_eq!(asked(&[CODE]), None);
}

#[test]
fn a_program_is_pages_with_rights_and_contents() {
    let file = file(0x40_0210, &[CODE, DATA]);
    let program = Program::plan(&file, &limits()).unwrap();
    assert_eq!(
        (program.entry().as_u64(), program.pages()),
        (0x40_0210, PageCount::new(4))
    );
    let [code, data] = program.segments().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(
        (code.rights(), data.rights()),
        (Rights::Execute, Rights::Write)
    );
    let page = |at: u64| Gva::new(at).unwrap();
    assert_eq!(code.contents(page(0x40_0000)), (0x200, &file[0x200..0x300]));
    assert_eq!(data.contents(page(0x40_1000)), (0x300, &file[0x300..0x310]));
    assert_eq!(data.contents(page(0x40_2000)).1, []);
    assert_eq!(data.pages().len_bytes(), 0x3000);
}

#[test]
fn every_byte_of_a_segment_lands_once() {
    let long = Load {
        offset: 0x201,
        vaddr: 0x40_0ffe,
        filesz: 0x1ff,
        memsz: 0x1ff,
        ..CODE
    };
    let file = file(0x40_0ffe, &[long]);
    let segment = Program::plan(&file, &limits())
        .unwrap()
        .segments()
        .next()
        .unwrap();
    let mut memory = Vec::new();
    for page in segment.pages().pages(PageSize::Size4K).unwrap() {
        let (lead, data) = segment.contents(page);
        let mut bytes = vec![0; 4096];
        bytes[lead..lead + data.len()].copy_from_slice(data);
        memory.extend(bytes);
    }
    assert_eq!(memory[0xffe..0xffe + 0x1ff], file[0x201..0x400]);
    assert!(
        memory[..0xffe]
            .iter()
            .chain(&memory[0x11fd..])
            .all(|byte| *byte == 0)
    );
}

#[test]
fn segments_are_refused_for_what_is_wrong_with_them() {
    let one = ProgramError::Outside { segment: 0 };
    for vaddr in [
        0,
        0xf000,
        USER_END - 0x80,
        USER_END,
        1 << 47,
        u64::MAX - 0x80,
        1 << 63,
    ] {
        assert_eq!(refusal(&[Load { vaddr, ..CODE }]), one, "{vaddr:#x}");
    }
    assert_eq!(
        refusal(&[Load {
            memsz: u64::MAX,
            ..CODE
        }]),
        one
    );
    let data = ProgramError::Data { segment: 0 };
    assert_eq!(
        refusal(&[Load {
            memsz: 0xff,
            ..CODE
        }]),
        data
    );
    assert_eq!(
        refusal(&[Load {
            offset: 0x501,
            ..CODE
        }]),
        data
    );
    assert_eq!(
        refusal(&[Load {
            offset: u64::MAX,
            ..CODE
        }]),
        data
    );
    assert_eq!(
        refusal(&[CODE, Load { flags: 7, ..DATA }]),
        ProgramError::WritableCode { segment: 1 }
    );
    assert_eq!(
        refusal(&[
            CODE,
            Load {
                vaddr: 0x40_0fff,
                ..DATA
            }
        ]),
        ProgramError::Overlap { segment: 1 }
    );
    assert_eq!(
        refusal(&[
            CODE,
            Load {
                memsz: 0x4_0000,
                ..DATA
            }
        ]),
        ProgramError::TooBig { segment: 1 }
    );
    for kind in [2, 3, 7] {
        assert_eq!(
            refusal(&[CODE, Load { kind, ..DATA }]),
            ProgramError::NotStatic { segment: 1 }
        );
    }
}

#[test]
fn programs_start_in_their_code() {
    for entry in [0, 0x40_1000, 0x40_1300, 1 << 63] {
        let plan = Program::plan(&file(entry, &[CODE, DATA]), &limits()).map(drop);
        assert_eq!(plan, Err(ProgramError::Entry(entry)));
    }
}

#[test]
fn other_files_are_no_programs() {
    let good = file(0x40_0200, &[CODE]);
    let with = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] = byte;
        Program::plan(&file, &limits()).unwrap_err()
    };
    assert_eq!(with(0, 0), ProgramError::Format);
    assert_eq!(with(5, 2), ProgramError::Format);
    assert_eq!(
        with(16, 3),
        ProgramError::Kind {
            machine: 62,
            kind: 3
        }
    );
    assert_eq!(
        with(18, 3),
        ProgramError::Kind {
            machine: 3,
            kind: 2
        }
    );
    assert_eq!(with(56, 40), ProgramError::Format);
    assert_eq!(refusal(&[]), ProgramError::NoSegments);
    let many: Vec<Load> = (0..17)
        .map(|n| Load {
            vaddr: 0x40_0200 + n * 0x1000,
            ..CODE
        })
        .collect();
    assert_eq!(refusal(&many), ProgramError::TooManySegments);
    assert!(Program::plan(&file(0x40_0200, &many[1..]), &limits()).is_err());
    assert!(Program::plan(&file(0x40_0200, &many[..16]), &limits()).is_ok());
}

proptest! {
    #[test]
    fn nothing_makes_the_plan_panic(
        changes in proptest::collection::vec((0..0x600_usize, any::<u8>()), 0..12),
        cut in 0..=0x600_usize,
    ) {
        let mut file = file(0x40_0200, &[CODE, DATA]);
        for (at, byte) in changes {
            file[at] = byte;
        }
        if let Ok(program) = Program::plan(&file[..cut], &limits()) {
            let mut before: Vec<GvaRange> = Vec::new();
            for segment in program.segments() {
                prop_assert!(segment.pages().end().as_u64() <= USER_END);
                prop_assert!(!before.iter().any(|pages| pages.overlaps(&segment.pages())));
                before.push(segment.pages());
            }
        }
    }
}

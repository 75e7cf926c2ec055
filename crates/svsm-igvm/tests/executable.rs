//! Which ELF files may go into an image.
#![cfg(test)]

#[path = "support/elf.rs"]
mod elf;

use elf::{EXECUTE, Header, READ, WRITE, load};
use proptest::prelude::*;
use svsm_igvm::executable::{ElfFault, Executable, Malformed, Rights};

const BASE: u64 = 0xffff_ffff_8000_0000;

fn refused(file: &[u8]) -> ElfFault {
    Executable::read(file).expect_err("should be refused")
}

fn with(extra: Header) -> Vec<u8> {
    elf::file(BASE, &[load(READ | EXECUTE, BASE, &[0xf4], 0x100), extra])
}

#[test]
fn a_program_is_read_as_it_was_linked() {
    let file = elf::program(BASE);
    let program = Executable::read(&file).unwrap();
    assert_eq!(program.entry(), BASE + 0x10);
    assert_eq!(program.build_id(), Some(&[0xab; 20][..]));
    assert_eq!(program.pages(), BASE..BASE + 0x4000);
    let rights: Vec<_> = program
        .segments()
        .iter()
        .map(|segment| segment.rights())
        .collect();
    assert_eq!(rights, [Rights::Execute, Rights::Read, Rights::Write]);
    let variables = program.segments()[2];
    assert_eq!(variables.pages(), BASE + 0x2000..BASE + 0x4000);
    assert_eq!(&variables.page(BASE + 0x2000)[..10], b"variables\0");
    assert_eq!(variables.page(BASE + 0x3000), [0; 4096]);
}

#[test]
fn a_segment_may_start_inside_a_page() {
    let data: Vec<u8> = (0..=255).cycle().take(0x1800).collect();
    let file = with(load(READ, BASE + 0x1ff0, &data, 0x1900));
    let program = Executable::read(&file).unwrap();
    let segment = program.segments()[1];
    assert_eq!(segment.pages(), BASE + 0x1000..BASE + 0x4000);
    let pages: Vec<u8> = [0x1000, 0x2000, 0x3000]
        .into_iter()
        .flat_map(|at| segment.page(BASE + at))
        .collect();
    assert_eq!(&pages[0xff0..0xff0 + 0x1800], data);
    assert!(
        pages[..0xff0]
            .iter()
            .chain(&pages[0xff0 + 0x1800..])
            .all(|byte| *byte == 0)
    );
}

#[test]
fn stripping_keeps_what_is_loaded() {
    let mut file = elf::program(BASE);
    let used = file.len();
    file.extend([7; 1000]);
    file[40..48].copy_from_slice(&(used as u64).to_le_bytes());
    file[58..64].copy_from_slice(&[64, 0, 1, 0, 0, 0]);
    let stripped = Executable::read(&file).unwrap().stripped();
    assert_eq!(
        stripped,
        elf::program(BASE)[..40]
            .iter()
            .chain(&[0; 8])
            .chain(&elf::program(BASE)[48..58])
            .chain(&[0; 6])
            .chain(&elf::program(BASE)[64..])
            .copied()
            .collect::<Vec<_>>()
    );
    assert_eq!(
        Executable::read(&stripped).unwrap().build_id(),
        Some(&[0xab; 20][..])
    );
}

#[test]
fn stripping_keeps_the_place_of_segments_without_bytes() {
    let mut file = with(load(READ | WRITE, BASE + 0x1000, b"", 0x1000));
    file.extend([7; 1000]);
    // The last header's p_offset: behind the first segment, among what is cut off.
    let offset = file.len() as u64 - 500;
    file[64 + 56 + 8..][..8].copy_from_slice(&offset.to_le_bytes());
    let stripped = Executable::read(&file).unwrap().stripped();
    assert_eq!(stripped.len() as u64, offset);
    Executable::read(&stripped).unwrap();
}

#[test]
fn what_is_no_elf_file_is_refused() {
    assert_eq!(
        refused(b""),
        ElfFault::Malformed {
            what: Malformed::Truncated { start: 0, end: 16 }
        }
    );
    assert_eq!(refused(&[0; 64]), ElfFault::NotElf);
    let mut other = elf::program(BASE);
    other[18] = 0x28;
    assert_eq!(refused(&other), ElfFault::NotX86_64 { machine: 0x28 });
}

#[test]
fn programs_that_need_a_linker_are_refused() {
    let mut pie = elf::program(BASE);
    pie[16] = 3;
    assert_eq!(refused(&pie), ElfFault::NotStatic { file_type: 3 });
    for kind in [2, 3] {
        let header = Header {
            kind,
            ..load(READ, 0, b"x", 1)
        };
        assert_eq!(refused(&with(header)), ElfFault::NeedsLinker { index: 1 });
    }
    let tls = Header {
        kind: 7,
        ..load(READ, 0, b"", 8)
    };
    assert_eq!(refused(&with(tls)), ElfFault::ThreadLocal { index: 1 });
}

#[test]
fn nothing_is_writable_and_executable() {
    let file = with(load(READ | WRITE | EXECUTE, BASE + 0x1000, b"x", 1));
    let fault = refused(&file);
    assert_eq!(
        fault,
        ElfFault::WritableAndExecutable {
            index: 1,
            start: BASE + 0x1000
        }
    );
    assert_eq!(
        fault.to_string(),
        "program header 1 (at 0xffffffff80001000) is both writable and executable"
    );
}

#[test]
fn segments_that_share_a_page_are_refused() {
    let file = with(load(READ, BASE + 0x200, b"x", 1));
    assert_eq!(
        refused(&file),
        ElfFault::Overlap {
            first: 0,
            second: 1,
            page: BASE
        }
    );
    let file = with(load(READ, BASE - 0x1000, b"x", 0x1001));
    assert_eq!(
        refused(&file),
        ElfFault::Overlap {
            first: 1,
            second: 0,
            page: BASE
        }
    );
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let fault = refused(&with(load(READ, BASE + 0x1000, b"xyz", 2)));
    assert_eq!(
        fault,
        ElfFault::MoreFileThanMemory {
            index: 1,
            file_bytes: 3,
            memory_bytes: 2
        }
    );
    let fault = refused(&with(load(READ, BASE + 0x1000, b"", u64::MAX)));
    assert_eq!(
        fault,
        ElfFault::Wraps {
            index: 1,
            start: BASE + 0x1000,
            bytes: u64::MAX
        }
    );
    let fault = refused(&with(load(READ, u64::MAX - 0x10, b"", 1)));
    assert!(matches!(fault, ElfFault::Wraps { index: 1, .. }));
    let mut cut = elf::program(BASE);
    cut.pop();
    assert!(matches!(
        refused(&cut),
        ElfFault::OutsideFile { index: 3, .. }
    ));
}

#[test]
fn the_entry_point_must_be_code() {
    for entry in [0, BASE - 1, BASE + 0x20, BASE + 0x1000] {
        let mut file = elf::program(BASE);
        file[24..32].copy_from_slice(&entry.to_le_bytes());
        assert_eq!(refused(&file), ElfFault::EntryNotExecutable { entry });
    }
}

#[test]
fn nothing_to_load_is_refused() {
    assert_eq!(
        refused(&elf::file(BASE, &[elf::build_id(&[1; 20])])),
        ElfFault::NoSegments
    );
    let many = vec![load(READ, BASE, b"", 0); 65];
    assert_eq!(
        refused(&elf::file(BASE, &many)),
        ElfFault::TooManyHeaders { count: 65 }
    );
}

#[test]
fn a_program_linked_elsewhere_is_refused() {
    let file = elf::program(BASE);
    let program = Executable::read(&file).unwrap();
    assert_eq!(program.within(BASE..BASE + 0x4000), Ok(()));
    for region in [BASE + 0x1000..BASE + 0x4000, BASE..BASE + 0x3000] {
        assert!(matches!(
            program.within(region),
            Err(ElfFault::OutsideRegion { .. })
        ));
    }
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 1..8),
        cut in 0usize..400,
    ) {
        let mut file = elf::program(BASE);
        for (at, value) in changes {
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
        }
        file.truncate(file.len() - cut.min(file.len()));
        if let Ok(program) = Executable::read(&file) {
            for segment in program.segments() {
                let _ = segment.page(segment.pages().start);
                let _ = segment.page(segment.pages().end - 1);
            }
            let _ = Executable::read(&program.stripped());
        }
    }
}

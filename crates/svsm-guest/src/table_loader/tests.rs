use super::*;
use crate::fw_cfg::made::Device;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const AT: u64 = 0x7ff0_0000;

fn name(name: &str) -> [u8; Name::BYTES] {
    let mut bytes = [0; Name::BYTES];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn line(kind: u32, fill: impl FnOnce(&mut [u8])) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    fill(&mut bytes);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn allocate(file: &str, align: u32) -> [u8; ENTRY] {
    line(1, |bytes| {
        bytes[4..60].copy_from_slice(&name(file));
        put(bytes, 60, align);
    })
}

fn point(target: &str, source: &str, offset: u32, size: u8) -> [u8; ENTRY] {
    line(2, |bytes| {
        bytes[4..60].copy_from_slice(&name(target));
        bytes[60..116].copy_from_slice(&name(source));
        put(bytes, 116, offset);
        bytes[120] = size;
    })
}

fn sum(file: &str, at: u32, start: u32, len: u32) -> [u8; ENTRY] {
    line(3, |bytes| {
        bytes[4..60].copy_from_slice(&name(file));
        put(bytes, 60, at);
        put(bytes, 64, start);
        put(bytes, 68, len);
    })
}

const TABLES: &str = "etc/acpi/tables";

/// A DSDT of 40 bytes, then an RSDT that points to it, and the root pointer in a file of its own: as QEMU has them.
fn files() -> (Vec<u8>, Vec<u8>) {
    let mut tables = vec![0; 80];
    tables[..4].copy_from_slice(b"DSDT");
    tables[40..44].copy_from_slice(b"RSDT");
    tables[44] = 40;
    let mut root = vec![0; 20];
    root[..8].copy_from_slice(b"RSD PTR ");
    root[16] = 40;
    (tables, root)
}

fn script() -> Vec<[u8; ENTRY]> {
    vec![
        allocate(ROOT, 16),
        allocate(TABLES, 64),
        point(TABLES, TABLES, 76, 4),
        sum(TABLES, 49, 40, 40),
        point(ROOT, TABLES, 16, 4),
        sum(ROOT, 8, 0, 20),
        line(4, |_| ()),
        [0; ENTRY],
    ]
}

fn device(script: &[[u8; ENTRY]]) -> Device {
    let (tables, root) = files();
    Device::default()
        .with(SCRIPT, script.as_flattened())
        .with(ROOT, &root)
        .with(TABLES, &tables)
}

/// What comes of a script: the tables, and where their root is.
fn run(device: Device) -> Result<Option<(Vec<u8>, u64)>> {
    let mut device = FwCfg::find(device).unwrap().unwrap();
    let mut room = vec![0; MAX_SCRIPT_BYTES];
    let Some(tables) = HostTables::survey(&mut device, &mut room)? else {
        return Ok(None);
    };
    let mut out = vec![0xee; tables.bytes() + 7];
    let root = tables.load(&mut device, &mut out, AT)?;
    assert_eq!(out[tables.bytes()..], [0xee; 7]);
    out.truncate(tables.bytes());
    Ok(Some((out, root)))
}

#[test]
fn tables_point_to_where_they_will_lie() {
    let (out, root) = run(device(&script())).unwrap().unwrap();
    assert_eq!((out.len(), root), (64 + 80, 0));
    let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap());
    // The root is behind nothing; the tables start at a multiple of 64.
    let tables = u32::try_from(AT).unwrap() + 64;
    assert_eq!((word(16), word(64 + 76)), (tables + 40, tables));
    let zero = |part: &[u8]| part.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!((zero(&out[..20]), zero(&out[64 + 40..])), (0, 0));
}

#[test]
fn no_script_means_no_tables() {
    assert_eq!(run(Device::default().with("etc/e820", b"")), Ok(None));
    assert_eq!(run(Device::default().with(SCRIPT, b"")), Ok(None));
    let nothing = Device::default().with(SCRIPT, &[0; ENTRY]);
    assert_eq!(run(nothing), Ok(None));
}

#[test]
fn a_script_does_not_reach_beyond_its_files() {
    let bad = [
        (point(TABLES, TABLES, 77, 4), TableFault::Reach),
        (point(TABLES, TABLES, u32::MAX, 8), TableFault::Reach),
        (point(TABLES, TABLES, 0, 3), TableFault::Pointer),
        (point(TABLES, "etc/else", 76, 4), TableFault::Reach),
        (point("etc/else", TABLES, 76, 4), TableFault::Reach),
        // What is there says an offset beyond the file, the sum has no room, or nothing is there to point to.
        (point(TABLES, TABLES, 40, 4), TableFault::Pointer),
        (point(TABLES, TABLES, 70, 2), TableFault::Pointer),
        (sum(TABLES, 80, 0, 80), TableFault::Reach),
        (sum(TABLES, 0, 0, 81), TableFault::Reach),
        (sum(TABLES, 0, u32::MAX, u32::MAX), TableFault::Reach),
        (sum("", 0, 0, 1), TableFault::Reach),
        (allocate(TABLES, 64), TableFault::File),
        (allocate("etc/else", 64), TableFault::File),
        (allocate("etc/acpi/other", 3), TableFault::File),
        (allocate("etc/acpi/other", 8192), TableFault::File),
    ];
    for (line, fault) in bad {
        let mut script = script();
        script.insert(2, line);
        let device = device(&script).with("etc/acpi/other", b"");
        assert_eq!(run(device), Err(Error::HostTables(fault)), "{line:?}");
    }
}

#[test]
fn scripts_and_files_have_limits() {
    let long = vec![[0; ENTRY]; MAX_SCRIPT_BYTES / ENTRY + 1];
    let refused = |fault| Err(Error::HostTables(fault));
    assert_eq!(run(device(&long)), refused(TableFault::Script));
    let odd = Device::default().with(SCRIPT, &[0; ENTRY + 1]);
    assert_eq!(run(odd), refused(TableFault::Script));
    let huge = Device::default()
        .with(SCRIPT, &allocate("huge", 1))
        .with("huge", &vec![0; MAX_BYTES + 1]);
    assert_eq!(run(huge), refused(TableFault::Size));
    let many: Vec<_> = (0..=MAX_FILES)
        .map(|n| allocate(&std::format!("f{n}"), 1))
        .collect();
    let mut device = Device::default().with(SCRIPT, many.as_flattened());
    for n in 0..=MAX_FILES {
        device = device.with(&std::format!("f{n}"), b"x");
    }
    assert_eq!(run(device), refused(TableFault::Size));
}

#[test]
fn what_is_left_has_a_root() {
    // Without the sums, without the pointer, and without a root at all.
    for cut in [5, 4, 0] {
        let mut script = script();
        script.remove(cut);
        let fault = if cut == 0 {
            TableFault::Reach
        } else {
            TableFault::Root
        };
        assert_eq!(run(device(&script)), Err(Error::HostTables(fault)), "{cut}");
    }
}

#[test]
fn a_later_root_points_to_an_xsdt() {
    let (mut tables, mut root) = files();
    tables[40..44].copy_from_slice(b"XSDT");
    root.resize(36, 0);
    (root[15], root[16], root[24]) = (2, 0, 40);
    let script = [
        allocate(ROOT, 16),
        allocate(TABLES, 64),
        point(ROOT, TABLES, 24, 8),
        sum(ROOT, 8, 0, 20),
        sum(ROOT, 32, 0, 36),
    ];
    let device = |root: &[u8]| {
        Device::default()
            .with(SCRIPT, script.as_flattened())
            .with(ROOT, root)
            .with(TABLES, &tables)
    };
    assert!(run(device(&root)).unwrap().is_some());
    root[24] = 0;
    let refused = Err(Error::HostTables(TableFault::Root));
    assert_eq!(run(device(&root)), refused);
}

proptest! {
    /// Whatever the script says: no panic, and nothing outside of the tables.
    #[test]
    fn junk_is_refused_or_harmless(
        lines in prop::collection::vec(
            (0..6_u32, 0..3_usize, 0..3_usize, any::<u32>(), 0..200_u32, 0..10_u8),
            0..12,
        )
    ) {
        const NAMES: [&str; 3] = [TABLES, ROOT, ""];
        let mut script = script();
        for (kind, a, b, wild, near, size) in lines {
            let value = if wild & 1 == 0 { near } else { wild };
            script.push(match kind {
                1 => allocate(NAMES[a], value),
                2 => point(NAMES[a], NAMES[b], value, size),
                3 => sum(NAMES[a], near, value, wild >> 20),
                kind => line(kind, |_| ()),
            });
        }
        let _ = run(device(&script));
    }
}

use super::*;
use crate::addr::GpaRange;

/// A device with these files, by their keys.
struct Qemu {
    files: Vec<(u16, &'static str, Vec<u8>)>,
    selected: u16,
    at: usize,
}

impl Qemu {
    fn new(files: &[(u16, &'static str, &[u8])]) -> Self {
        let files = files
            .iter()
            .map(|(key, name, data)| (*key, *name, data.to_vec()));
        Self {
            files: files.collect(),
            selected: 0,
            at: 0,
        }
    }

    fn item(&self) -> Vec<u8> {
        if self.selected == key::DIRECTORY {
            let mut bytes = u32::try_from(self.files.len())
                .unwrap()
                .to_be_bytes()
                .to_vec();
            for (key, name, data) in &self.files {
                bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
                bytes.extend(key.to_be_bytes());
                bytes.extend([0; 2]);
                let mut field = [0; 56];
                field[..name.len()].copy_from_slice(name.as_bytes());
                bytes.extend(field);
            }
            return bytes;
        }
        let file = self.files.iter().find(|(key, ..)| *key == self.selected);
        file.map(|(.., data)| data.clone()).unwrap_or_default()
    }
}

impl Ports for Qemu {
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        assert_eq!((port, size), (DATA, 1));
        let byte = self.item().get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte.into()
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        assert_eq!((port, size), (SELECTOR, 2));
        (self.selected, self.at) = (value.try_into().unwrap(), 0);
    }
}

const MAP: u16 = 0x22;
const TABLES: u16 = 0x23;

fn kernel() -> Vec<u8> {
    let mut file: Vec<u8> = (0..4096_u32).map(|n| (n % 251) as u8).collect();
    file[0x1f1] = 1;
    file
}

fn device(qemu: &mut Qemu) -> FwCfg {
    let mut ram = GuestRam::new();
    for (start, end) in [
        (0, 0xa_0000),
        (MIB, 512 * MIB),
        (FOUR_GIB, FOUR_GIB + 64 * MIB),
    ] {
        ram.insert(GpaRange::from_u64(start, end).unwrap()).unwrap();
    }
    FwCfg::new(&ram, 2, qemu)
}

fn qemu() -> Qemu {
    Qemu::new(&[
        (0x20, "bootorder", b"/rom@genroms/pvh.bin"),
        (0x21, "genroms/pvh.bin", &[7; 100]),
        (MAP, "etc/e820", &[9; 60]),
        (TABLES, "etc/acpi/tables", b"DSDT"),
        (0x24, "opt/svsm/kernel", &kernel()),
        (0x25, "opt/svsm/cmdline", b"quiet"),
        (key::KERNEL_SIZE, "", &[1, 2, 3, 4]),
    ])
}

fn read<const N: usize>(device: &mut FwCfg, qemu: &mut Qemu, key: u16) -> [u8; N] {
    assert_eq!(device.output(SELECTOR, 2, key.into(), qemu), Written::Done);
    core::array::from_fn(|_| device.input(DATA, 1, qemu).unwrap().try_into().unwrap())
}

#[test]
fn the_directory_has_what_is_the_guests() {
    let mut qemu = qemu();
    let mut device = device(&mut qemu);
    let bytes: [u8; 4 + 3 * RECORD] = read(&mut device, &mut qemu, key::DIRECTORY);
    assert_eq!(bytes[..4], 3_u32.to_be_bytes());
    let record = |n: usize| &bytes[4 + n * RECORD..][..RECORD];
    assert_eq!(record(0)[..8], [0, 0, 0, 40, 0, 0x22, 0, 0]);
    assert!(record(0)[NAME..].starts_with(b"etc/e820\0"));
    assert_eq!(record(1)[..8], [0, 0, 0, 4, 0, 0x23, 0, 0]);
    assert!(record(1)[NAME..].starts_with(b"etc/acpi/tables\0"));
    let tables: [u8; 6] = read(&mut device, &mut qemu, TABLES);
    assert_eq!(&tables, b"DSDT\0\0");
}

#[test]
fn memory_is_the_guests_in_all_descriptions() {
    let mut qemu = qemu();
    let mut device = device(&mut qemu);
    let map: [u8; 40] = read(&mut device, &mut qemu, MAP);
    let word = |at: usize| u64::from_le_bytes(map[at..at + 8].try_into().unwrap());
    assert_eq!((word(0), word(8), map[16]), (0, 512 * MIB, 1));
    assert_eq!((word(20), word(28), map[36]), (FOUR_GIB, 64 * MIB, 1));
    let size: [u8; 8] = read(&mut device, &mut qemu, key::RAM_SIZE);
    assert_eq!(u64::from_le_bytes(size), 576 * MIB);
    let mut cmos = |index: u32| {
        assert_eq!(
            device.output(CMOS_INDEX, 1, index, &mut qemu),
            Written::NotOurs
        );
        device.input(CMOS_DATA, 1, &mut qemu)
    };
    let above_16 = (512 - 16) * 16;
    assert_eq!(cmos(0x34), Some(above_16 & 0xff));
    assert_eq!(cmos(0x35), Some(above_16 >> 8));
    assert_eq!(cmos(0x5c), Some(4));
    assert_eq!(cmos(0x5f), Some(1));
    // The time is the device's.
    assert_eq!(cmos(0x00), None);
}

#[test]
fn the_kernel_is_what_the_host_has_for_the_guest() {
    let mut qemu = qemu();
    let mut device = device(&mut qemu);
    let kernel = kernel();
    let mut word = |key| u32::from_le_bytes(read(&mut device, &mut qemu, key));
    assert_eq!(word(key::SETUP_SIZE), 1024);
    assert_eq!(word(key::KERNEL_SIZE), 3072);
    assert_eq!(word(key::COMMAND_LINE_SIZE), 6);
    assert_eq!(word(key::INITRD_SIZE), 0);
    let setup: [u8; 1030] = read(&mut device, &mut qemu, key::SETUP_DATA);
    assert_eq!(
        (&setup[..1024], &setup[1024..]),
        (&kernel[..1024], &[0; 6][..])
    );
    let rest: [u8; 3072] = read(&mut device, &mut qemu, key::KERNEL_DATA);
    assert_eq!(rest, kernel[1024..]);
    let line: [u8; 7] = read(&mut device, &mut qemu, key::COMMAND_LINE_DATA);
    assert_eq!(&line, b"quiet\0\0");
    let disk: [u8; 2] = read(&mut device, &mut qemu, key::INITRD_DATA);
    assert_eq!(disk, [0; 2]);
}

#[test]
fn the_unit_that_keeps_devices_from_memory_is_not_in_the_tables() {
    let mut file = b"FACS\x30\0\0\0DMAR\x30\0\0\0".to_vec();
    file.resize(0x30, 1);
    file.resize(0x40, 0);
    file.extend(b"DMAR\x30\0\0\0\x01\0BOCHS BXPC    ");
    file.resize(0x70, 2);
    file.extend(b"WAET\x28\0\0\0");
    let mut qemu = Qemu::new(&[(0x2a, "etc/acpi/tables", &file)]);
    let mut device = device(&mut qemu);
    let got: [u8; 0x78] = read(&mut device, &mut qemu, 0x2a);
    assert_eq!(got[..0x40], file[..0x40]);
    assert_eq!(got[0x40..0x44], acpi::NOBODYS);
    assert_eq!(got[0x44..0x64], file[0x44..0x64]);
    assert_eq!(got[0x64..0x70], [0; 12]);
    assert_eq!(got[0x70..], file[0x70..]);
    // Without such a table, all is as it is.
    file[0x40] = b'X';
    qemu = Qemu::new(&[(0x2a, "etc/acpi/tables", &file)]);
    device = self::device(&mut qemu);
    let got: [u8; 0x78] = read(&mut device, &mut qemu, 0x2a);
    assert_eq!(got[..], file[..]);
}

#[test]
fn tables_of_any_length_may_come_before_that_one() {
    let mut file = b"DSDT".to_vec();
    file.extend(70_000_u32.to_le_bytes());
    file.resize(70_000, b'x');
    file.extend(b"DMAR\x30\0\0\0");
    file.resize(70_048, 2);
    let mut qemu = Qemu::new(&[(0x2a, "etc/acpi/tables", &file)]);
    assert_eq!(device(&mut qemu).hidden, (70_000, 70_048));
    // Lengths that lead nowhere end it.
    for wrong in [0_u32, 7, 70_049, u32::MAX] {
        file[4..8].copy_from_slice(&wrong.to_le_bytes());
        qemu = Qemu::new(&[(0x2a, "etc/acpi/tables", &file)]);
        assert_eq!(device(&mut qemu).hidden, (0, 0));
    }
}

#[test]
fn transfers_are_described_in_big_endian() {
    let mut qemu = qemu();
    let mut device = device(&mut qemu);
    assert_eq!(
        device.input(0x514, 4, &mut qemu),
        Some(u32::from_le_bytes(*b"QEMU"))
    );
    assert_eq!(
        device.input(0x518, 4, &mut qemu),
        Some(u32::from_le_bytes(*b" CFG"))
    );
    let mut write = |port, value: u32| device.output(port, 4, value.swap_bytes(), &mut qemu);
    assert_eq!(write(TRANSFER_HIGH, 1), Written::Done);
    let at = 1 << 32 | 0x5000;
    assert_eq!(
        write(TRANSFER_LOW, 0x5000),
        Written::Transfer(Transfer { at })
    );
    // The upper half is used up.
    let at = 0x6000;
    assert_eq!(
        write(TRANSFER_LOW, 0x6000),
        Written::Transfer(Transfer { at })
    );

    let bytes = [0, 0x23, 0, 0x0a, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0x70, 0];
    let order = Order::parse(&bytes);
    assert_eq!(order.selects(), Some(TABLES));
    assert!(order.reads() && !order.skips() && !order.writes());
    assert_eq!((order.bytes, order.address), (3, 0x7000));
    assert!(device.begin(&order, &mut qemu));
    device.skip(1, &mut qemu);
    let mut rest = [0; 3];
    device.read(&mut rest, &mut qemu);
    assert_eq!(&rest, b"SDT");
    let write = Order::parse(&[0, 0, 0, 0x10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0x70, 0]);
    assert!(write.writes() && write.selects().is_none());
    assert!(!device.begin(&write, &mut qemu));
}

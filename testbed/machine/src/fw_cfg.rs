//! QEMU's firmware configuration, as the guest may see it.
//!
//! The device describes QEMU's machine: all of its memory, L0's among it, and L0 itself as the kernel to start. A guest gets
//! its own memory and processors instead, the kernel that the host has for it (files `opt/svsm/kernel`, `initrd` and
//! `cmdline`), and everything else as it is. What it would read by DMA is carried to shared memory by L0.

use crate::layout::GuestRam;
use crate::personality::Hardware;

/// The ports of the machine below.
pub trait Ports {
    /// Reads 1, 2 or 4 bytes from a port.
    fn port_in(&mut self, port: u16, size: u8) -> u32;

    /// Writes 1, 2 or 4 bytes to a port.
    fn port_out(&mut self, port: u16, size: u8, value: u32);
}

impl<H: Hardware> Ports for H {
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        Hardware::port_in(self, port, size)
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        Hardware::port_out(self, port, size, value);
    }
}

/// The selector, written; and the data behind it, read byte by byte.
const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
/// The address of a transfer, in big endian: the upper half, and the lower one, which starts it.
const TRANSFER_HIGH: u16 = 0x514;
const TRANSFER_LOW: u16 = 0x518;
/// What reading there says of a device that knows transfers.
const SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Old descriptions of memory: extended memory in KiB, twice, and memory above 16 MiB and 4 GiB in 64 KiB.
const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;

const FOUR_GIB: u64 = 1 << 32;
const MIB: u64 = 1 << 20;

/// Keys of the device (QEMU, "QEMU Firmware Configuration (fw_cfg) Device").
mod key {
    pub(super) const ID: u16 = 0x01;
    pub(super) const RAM_SIZE: u16 = 0x03;
    pub(super) const PROCESSORS: u16 = 0x05;
    pub(super) const MOST_PROCESSORS: u16 = 0x0f;
    pub(super) const KERNEL_SIZE: u16 = 0x08;
    pub(super) const KERNEL_DATA: u16 = 0x11;
    pub(super) const INITRD_SIZE: u16 = 0x0b;
    pub(super) const INITRD_DATA: u16 = 0x12;
    pub(super) const COMMAND_LINE_SIZE: u16 = 0x14;
    pub(super) const COMMAND_LINE_DATA: u16 = 0x15;
    pub(super) const SETUP_SIZE: u16 = 0x17;
    pub(super) const SETUP_DATA: u16 = 0x18;
    pub(super) const DIRECTORY: u16 = 0x19;
    /// Addresses and entry of a kernel that QEMU would place itself.
    pub(super) const PLACES: [u16; 6] = [0x07, 0x09, 0x0a, 0x10, 0x13, 0x16];
    /// The memory map under its old key.
    pub(super) const OLD_MAP: u16 = 0x8003;
}

const MAX_FILES: usize = 64;
const RECORD: usize = 64;
const NAME: usize = 8;

/// A file of the directory as the device has it: size, key, nothing, name.
type Record = [u8; RECORD];

/// A file of QEMU's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct File {
    key: u16,
    bytes: u32,
}

/// What the selector points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// Nothing: reads as zeros.
    Nothing,
    /// QEMU's, as it is.
    Through,
    /// A part of a file of QEMU's, from an offset on.
    Part(File, u32),
    /// A few bytes.
    Word([u8; 8]),
    /// The directory.
    Directory,
    /// The guest's memory map.
    Map,
}

/// The device as a guest sees it. One for all CPUs.
#[derive(Debug)]
pub struct FwCfg {
    /// Where the guest's memory ends, below 4 GiB and above.
    low_end: u64,
    high_end: u64,
    processors: u16,
    files: [Record; MAX_FILES],
    count: usize,
    map_key: Option<u16>,
    kernel: File,
    initrd: File,
    command_line: File,
    /// How much of the kernel's file is its setup part, which has a key of its own.
    setup: u32,
    item: Item,
    at: u32,
    transfer_high: u32,
    cmos: u8,
}

/// A transfer that a guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Where the guest describes it, in shared memory.
    pub at: u64,
}

/// What a guest says of a transfer: control word, length and address, in big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    control: u32,
    /// How many bytes.
    pub bytes: u32,
    /// Where they go.
    pub address: u64,
}

impl Order {
    const READ: u32 = 1 << 1;
    const SKIP: u32 = 1 << 2;
    const SELECT: u32 = 1 << 3;
    const WRITE: u32 = 1 << 4;
    /// How long it is.
    pub const BYTES: usize = 16;
    /// The most bytes of one: more than any kernel has.
    pub const MOST: u32 = 256 << 20;
    /// The control word of one that failed.
    pub const FAILED: [u8; 4] = 1_u32.to_be_bytes();
    /// The control word of one that is done.
    pub const DONE: [u8; 4] = [0; 4];

    /// Reads one.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, address @ ..] = *bytes;
        Self {
            control: u32::from_be_bytes([a, b, c, d]),
            bytes: u32::from_be_bytes([e, f, g, h]),
            address: u64::from_be_bytes(address),
        }
    }

    /// The item that it selects first.
    #[must_use]
    pub const fn selects(&self) -> Option<u16> {
        if self.control & Self::SELECT != 0 {
            Some((self.control >> 16) as u16)
        } else {
            None
        }
    }

    /// Whether it reads.
    #[must_use]
    pub const fn reads(&self) -> bool {
        self.control & Self::READ != 0
    }

    /// Whether it skips.
    #[must_use]
    pub const fn skips(&self) -> bool {
        self.control & Self::SKIP != 0
    }

    /// Whether it writes, which no guest may.
    #[must_use]
    pub const fn writes(&self) -> bool {
        self.control & Self::WRITE != 0
    }
}

/// What became of an access to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The port is none of this device's.
    NotOurs,
    /// It is done.
    Done,
    /// The guest asks for a transfer.
    Transfer(Transfer),
}

impl FwCfg {
    /// Reads QEMU's directory, for a guest with this memory and so many processors.
    pub fn new(ram: &GuestRam, processors: usize, hardware: &mut impl Ports) -> Self {
        let ends = || ram.iter().map(|range| range.end().as_u64());
        let mut device = Self {
            low_end: ends().filter(|end| *end <= FOUR_GIB).max().unwrap_or(0),
            high_end: ends().max().unwrap_or(0).max(FOUR_GIB),
            processors: u16::try_from(processors).unwrap_or(u16::MAX),
            files: [[0; RECORD]; MAX_FILES],
            count: 0,
            map_key: None,
            kernel: File::default(),
            initrd: File::default(),
            command_line: File::default(),
            setup: 0,
            item: Item::Nothing,
            at: 0,
            transfer_high: 0,
            cmos: 0,
        };
        device.learn(hardware);
        device
    }

    fn learn(&mut self, hardware: &mut impl Ports) {
        hardware.port_out(SELECTOR, 2, key::DIRECTORY.into());
        let mut count = [0; 4];
        fill(&mut count, hardware);
        for _ in 0..u32::from_be_bytes(count).min(1 << 10) {
            let mut record = [0; RECORD];
            fill(&mut record, hardware);
            self.note(record);
        }
        if self.kernel.bytes > 0x1f1 {
            // Of a kernel for PCs, so many sectors and the first one are its setup part; four, if it says none.
            let sectors = self.byte_of(self.kernel, 0x1f1, hardware);
            let sectors = if sectors == 0 { 4 } else { sectors };
            self.setup = ((u32::from(sectors) + 1) * 512).min(self.kernel.bytes);
        }
        self.select(0, hardware);
    }

    /// Takes a file into the guest's directory, or keeps it from the guest.
    fn note(&mut self, mut record: Record) {
        let word = |at: usize| record.get(at..).and_then(<[u8]>::first_chunk);
        let (Some(bytes), Some(key)) = (word(0).copied(), word(4)) else {
            return;
        };
        let key: &[u8; 4] = key;
        let file = File {
            key: u16::from_be_bytes([key[0], key[1]]),
            bytes: u32::from_be_bytes(bytes),
        };
        let name = record.get(NAME..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        match name {
            b"etc/e820" => {
                self.map_key = Some(file.key);
                let size = u32::from(self.ranges()) * 20;
                for (to, from) in record.iter_mut().zip(size.to_be_bytes()) {
                    *to = from;
                }
            }
            b"opt/svsm/kernel" => return self.kernel = file,
            b"opt/svsm/initrd" => return self.initrd = file,
            b"opt/svsm/cmdline" => return self.command_line = file,
            // What starts L0.
            b"bootorder" => return,
            _ if name.starts_with(b"genroms/") || name.starts_with(b"opt/svsm/") => return,
            _ => {}
        }
        if let Some(slot) = self.files.get_mut(self.count) {
            *slot = record;
            self.count += 1;
        }
    }

    const fn ranges(&self) -> u8 {
        if self.high_end > FOUR_GIB { 2 } else { 1 }
    }

    fn select(&mut self, key: u16, hardware: &mut impl Ports) {
        self.at = 0;
        let word = |value: u64| Item::Word(value.to_le_bytes());
        let setup = self.setup;
        let rest = self.kernel.bytes.saturating_sub(setup);
        self.item = match key {
            // The old interface, and transfers.
            key::ID => word(3),
            key::RAM_SIZE => word(self.low_end + (self.high_end - FOUR_GIB)),
            key::PROCESSORS | key::MOST_PROCESSORS => word(self.processors.into()),
            key::SETUP_SIZE => word(setup.into()),
            key::SETUP_DATA => Item::Part(
                File {
                    bytes: setup,
                    ..self.kernel
                },
                0,
            ),
            key::KERNEL_SIZE => word(rest.into()),
            key::KERNEL_DATA => Item::Part(self.kernel, setup),
            key::INITRD_SIZE => word(self.initrd.bytes.into()),
            key::INITRD_DATA => Item::Part(self.initrd, 0),
            // With a zero byte at its end, which QEMU's file does not have.
            key::COMMAND_LINE_SIZE => word(match self.command_line.bytes {
                0 => 0,
                bytes => u64::from(bytes) + 1,
            }),
            key::COMMAND_LINE_DATA => Item::Part(self.command_line, 0),
            key::DIRECTORY => Item::Directory,
            key::OLD_MAP => Item::Nothing,
            _ if key::PLACES.contains(&key) => Item::Nothing,
            _ if Some(key) == self.map_key => Item::Map,
            _ => Item::Through,
        };
        match self.item {
            Item::Through => hardware.port_out(SELECTOR, 2, key.into()),
            Item::Part(file, from) => skip_to(file, from, hardware),
            _ => {}
        }
    }

    /// Reads on.
    pub fn read(&mut self, into: &mut [u8], hardware: &mut impl Ports) {
        for byte in into {
            *byte = self.next(hardware);
        }
    }

    /// Skips.
    pub fn skip(&mut self, bytes: u32, hardware: &mut impl Ports) {
        match self.item {
            // QEMU's position is its own. Nothing that it has is longer.
            Item::Through | Item::Part(..) => {
                for _ in 0..bytes.min(Order::MOST) {
                    self.next(hardware);
                }
            }
            _ => self.at = self.at.saturating_add(bytes),
        }
    }

    fn next(&mut self, hardware: &mut impl Ports) -> u8 {
        let at = self.at;
        self.at = at.saturating_add(1);
        let index = at as usize;
        match self.item {
            Item::Nothing => 0,
            Item::Through => data(hardware),
            Item::Part(file, from) if from.saturating_add(at) < file.bytes => data(hardware),
            Item::Part(..) => 0,
            Item::Word(bytes) => bytes.get(index).copied().unwrap_or(0),
            Item::Directory => self.directory_byte(index),
            Item::Map => self.map_byte(index),
        }
    }

    fn directory_byte(&self, index: usize) -> u8 {
        let count = u32::try_from(self.count).unwrap_or_default().to_be_bytes();
        if let Some(byte) = count.get(index) {
            return *byte;
        }
        let index = index - count.len();
        let file = self.files.get(index / RECORD);
        file.and_then(|file| file.get(index % RECORD))
            .copied()
            .unwrap_or(0)
    }

    /// Entries of start, length and type: RAM.
    fn map_byte(&self, index: usize) -> u8 {
        let (start, bytes) = match index / 20 {
            0 => (0, self.low_end),
            1 if self.ranges() == 2 => (FOUR_GIB, self.high_end - FOUR_GIB),
            _ => return 0,
        };
        let entry = [start, bytes, 1].map(u64::to_le_bytes);
        let entry = entry.as_flattened();
        entry.get(index % 20).copied().unwrap_or(0)
    }

    fn byte_of(&self, file: File, at: u32, hardware: &mut impl Ports) -> u8 {
        skip_to(file, at, hardware);
        data(hardware)
    }

    /// Reads a port of the device, or one that tells the same in an old way.
    pub fn input(&mut self, port: u16, size: u8, hardware: &mut impl Ports) -> Option<u32> {
        match port {
            DATA => Some(self.next(hardware).into()),
            SELECTOR if size == 2 => Some(u32::from(self.next(hardware)) << 8),
            SELECTOR => Some(0),
            TRANSFER_HIGH..=0x51b => {
                let from = usize::from(port - TRANSFER_HIGH);
                let mut value = [0; 4];
                let bytes = SIGNATURE.iter().skip(from).take(size.into());
                for (to, from) in value.iter_mut().zip(bytes) {
                    *to = *from;
                }
                Some(u32::from_le_bytes(value))
            }
            CMOS_DATA => self.cmos_byte().map(u32::from),
            _ => None,
        }
    }

    /// What old descriptions of memory say, if one is selected.
    fn cmos_byte(&self) -> Option<u8> {
        let [low, high] = {
            let above = |start: u64, unit: u64, end: u64| end.saturating_sub(start) / unit;
            let value = match self.cmos & 0x7f {
                0x17 | 0x18 | 0x30 | 0x31 => above(MIB, 1 << 10, self.low_end).min(0xffff),
                0x34 | 0x35 => above(16 * MIB, 1 << 16, self.low_end).min(0xffff),
                0x5b | 0x5c => above(FOUR_GIB, 1 << 16, self.high_end) & 0xffff,
                0x5d => above(FOUR_GIB, 1 << 16, self.high_end) >> 16,
                0x5f => u64::from(self.processors.saturating_sub(1)),
                _ => return None,
            };
            [value & 0xff, value >> 8 & 0xff]
        };
        let is_high = matches!(self.cmos & 0x7f, 0x18 | 0x31 | 0x35 | 0x5c);
        u8::try_from(if is_high { high } else { low }).ok()
    }

    /// Writes a port of the device. What selects an old description goes through to the device that has it.
    pub fn output(
        &mut self,
        port: u16,
        size: u8,
        value: u32,
        hardware: &mut impl Ports,
    ) -> Written {
        match port {
            SELECTOR => {
                if size == 2 {
                    self.select((value & 0xffff) as u16, hardware);
                }
                Written::Done
            }
            // Items cannot be written.
            DATA => Written::Done,
            TRANSFER_HIGH if size == 4 => {
                self.transfer_high = value.swap_bytes();
                Written::Done
            }
            TRANSFER_LOW if size == 4 => {
                let high = core::mem::take(&mut self.transfer_high);
                let at = u64::from(high) << 32 | u64::from(value.swap_bytes());
                Written::Transfer(Transfer { at })
            }
            TRANSFER_HIGH..=0x51b => Written::Done,
            CMOS_INDEX => {
                self.cmos = (value & 0xff) as u8;
                Written::NotOurs
            }
            _ => Written::NotOurs,
        }
    }

    /// Begins a transfer: selects what it names. Says whether it can be done at all.
    pub fn begin(&mut self, order: &Order, hardware: &mut impl Ports) -> bool {
        if let Some(key) = order.selects() {
            self.select(key, hardware);
        }
        !order.writes()
    }
}

/// The next byte of what QEMU has selected.
fn data(hardware: &mut impl Ports) -> u8 {
    (hardware.port_in(DATA, 1) & 0xff) as u8
}

fn fill(into: &mut [u8], hardware: &mut impl Ports) {
    for byte in into {
        *byte = data(hardware);
    }
}

fn skip_to(file: File, at: u32, hardware: &mut impl Ports) {
    hardware.port_out(SELECTOR, 2, file.key.into());
    for _ in 0..at.min(file.bytes) {
        data(hardware);
    }
}

#[cfg(test)]
mod tests {
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
        let write = Order {
            control: 1 << 4,
            ..order
        };
        assert!(!device.begin(&write, &mut qemu));
    }
}

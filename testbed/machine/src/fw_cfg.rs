//! QEMU's firmware configuration, as the guest may see it.
//!
//! The device describes QEMU's machine: all of its memory, L0's among it, and L0 itself as the kernel to start. A guest gets
//! its own memory and processors instead, the kernel that the host has for it (files `opt/svsm/kernel`, `initrd` and
//! `cmdline`), and everything else as it is. What it would read by DMA is carried to shared memory by L0.

mod transfer; // what the device would write by itself

use crate::acpi;
use crate::layout::GuestRam;
use crate::personality::Hardware;

pub use transfer::{Order, Transfer};

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
pub const SELECTOR: u16 = 0x510;
/// See [`SELECTOR`].
pub const DATA: u16 = 0x511;
/// The ports with which transfers are asked for.
pub const TRANSFER: core::ops::RangeInclusive<u16> = TRANSFER_HIGH..=TRANSFER_LOW + 3;
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

/// A table further behind in its file is not found. QEMU's file has 128 KiB, and more if the tables need it.
const MOST_TABLES: u32 = 2 << 20;
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
    /// QEMU's ACPI tables.
    Tables,
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
    tables: File,
    /// The first byte of a table that is not for the guest, and the one behind its last.
    hidden: (u32, u32),
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
            tables: File::default(),
            hidden: (0, 0),
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
        self.hidden = self.remapping(hardware);
        self.select(0, hardware);
    }

    /// Where the ACPI tables describe the unit that keeps devices from memory: that is L0's. Tables lie one behind the other, with
    /// zeros between some of them.
    fn remapping(&self, hardware: &mut impl Ports) -> (u32, u32) {
        let end = self.tables.bytes.min(MOST_TABLES);
        let mut at = 0;
        skip_to(self.tables, 0, hardware);
        while at < end {
            let mut signature = [data(hardware), 0, 0, 0];
            if signature == [0; 4] {
                at += 1;
                continue;
            }
            let [_, rest @ ..] = &mut signature;
            fill(rest, hardware);
            let mut bytes = [0; 4];
            fill(&mut bytes, hardware);
            let bytes = u32::from_le_bytes(bytes);
            if bytes < 8 || bytes > end - at {
                break;
            }
            if signature == acpi::REMAPPING {
                return (at, at + bytes);
            }
            for _ in 8..bytes {
                data(hardware);
            }
            at += bytes;
        }
        (0, 0)
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
            b"etc/acpi/tables" => self.tables = file,
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
            _ if key == self.tables.key && self.tables.bytes > 0 => Item::Tables,
            _ => Item::Through,
        };
        match self.item {
            Item::Through => hardware.port_out(SELECTOR, 2, key.into()),
            Item::Part(file, from) => skip_to(file, from, hardware),
            Item::Tables => skip_to(self.tables, 0, hardware),
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
            Item::Through | Item::Part(..) | Item::Tables => {
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
            Item::Tables => self.table_byte(at, data(hardware)),
        }
    }

    /// A byte of QEMU's ACPI tables. One of them has another name for the guest, and says nothing; its sum is made by who
    /// reads it.
    fn table_byte(&self, at: u32, byte: u8) -> u8 {
        let (start, end) = self.hidden;
        if !(start..end).contains(&at) {
            return byte;
        }
        match (at - start) as usize {
            36.. => 0,
            offset => acpi::NOBODYS.get(offset).copied().unwrap_or(byte),
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
            port if TRANSFER.contains(&port) => {
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
            port if TRANSFER.contains(&port) => Written::Done,
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
mod tests;

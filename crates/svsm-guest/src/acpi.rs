//! The ACPI tables that a kernel needs where no firmware made any (ACPI 6.5): which processors there are, where interrupts
//! go, on which bus devices are, and how to switch the machine off. The machine is a PC: an I/O APIC, and the power management
//! ports and PCI bus of QEMU's q35.

use crate::dsdt;
use crate::error::{Error, Result};

/// Bytes that the tables may take.
pub const BYTES: usize = 0x4000;

/// The most processors.
pub const MAX_PROCESSORS: usize = 255;

const IO_APIC: u32 = 0xfec0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;
/// The ports of the power management registers.
const PM_EVENT: u32 = 0x600;
const PM_CONTROL: u32 = 0x604;
const PM_TIMER: u32 = 0x608;
/// The interrupt that ACPI events have.
const SCI: u8 = 9;

/// Fills `out` with tables that will lie at `at`, the root pointer first. Says how many bytes they take.
///
/// # Errors
/// [`Error::Processors`]: none, or too many for the tables.
pub fn build(out: &mut [u8], at: u64, apic_ids: &[u32]) -> Result<usize> {
    if apic_ids.is_empty() || apic_ids.len() > MAX_PROCESSORS {
        return Err(Error::Processors(apic_ids.len()));
    }
    let mut writer = Writer {
        out,
        end: 36,
        full: false,
    };
    let dsdt = at + writer.end as u64;
    writer.table(b"DSDT", 2, |table| {
        dsdt::write(&mut |bytes| table.bytes(bytes));
    });
    let fadt = at + writer.align();
    writer.table(b"FACP", 6, |table| describe_power(table, dsdt));
    let madt = at + writer.align();
    writer.table(b"APIC", 5, |table| describe_processors(table, apic_ids));
    let xsdt = at + writer.align();
    writer.table(b"XSDT", 1, |table| {
        table.bytes(&fadt.to_le_bytes());
        table.bytes(&madt.to_le_bytes());
    });
    let (end, full) = (writer.end, writer.full);
    root(out, xsdt);
    if full {
        return Err(Error::Processors(apic_ids.len()));
    }
    Ok(end)
}

struct Writer<'a> {
    out: &'a mut [u8],
    end: usize,
    full: bool,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.end..self.end + bytes.len()) {
            Some(to) => to.copy_from_slice(bytes),
            None => self.full = true,
        }
        self.end += bytes.len();
    }

    fn zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.bytes(&[0]);
        }
    }

    /// Goes on at a multiple of 16, which comes back.
    fn align(&mut self) -> u64 {
        self.zeros(self.end.next_multiple_of(16) - self.end);
        self.end as u64
    }

    fn table(&mut self, signature: &[u8; 4], revision: u8, body: impl FnOnce(&mut Self)) {
        let start = self.end;
        self.bytes(signature);
        self.bytes(&[0; 4]); // the length, below
        self.bytes(&[revision, 0]);
        self.bytes(b"SVSM  ");
        self.bytes(b"GUEST   ");
        self.bytes(&1_u32.to_le_bytes());
        self.bytes(b"SVSM");
        self.bytes(&1_u32.to_le_bytes());
        body(self);
        let length = u32::try_from(self.end - start).unwrap_or(u32::MAX);
        if let Some(table) = self.out.get_mut(start..self.end) {
            if let Some(to) = table.get_mut(4..8) {
                to.copy_from_slice(&length.to_le_bytes());
            }
            let sum = sum(table);
            if let Some(to) = table.get_mut(9) {
                *to = sum.wrapping_neg();
            }
        }
    }
}

/// All bytes of a table with its checksum make zero.
fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The root pointer, 36 bytes.
fn root(out: &mut [u8], xsdt: u64) {
    let Some(root) = out.get_mut(..36) else {
        return;
    };
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = root.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    put(0, b"RSD PTR \0SVSM  \x02");
    put(16, &[0; 4]);
    put(20, &36_u32.to_le_bytes());
    put(24, &xsdt.to_le_bytes());
    put(32, &[0; 4]);
    // The first checksum is over the part that version 1 had, the second over all of it.
    for (bytes, place) in [(20, 8), (36, 32)] {
        let sum = sum(root.get(..bytes).unwrap_or_default());
        if let Some(to) = root.get_mut(place) {
            *to = sum.wrapping_neg();
        }
    }
}

fn describe_power(table: &mut Writer<'_>, dsdt: u64) {
    let start = table.end - 36;
    let until = |table: &mut Writer<'_>, offset: usize| table.zeros(start + offset - table.end);
    until(table, 40);
    table.bytes(&u32::try_from(dsdt).unwrap_or_default().to_le_bytes());
    until(table, 46);
    table.bytes(&u16::from(SCI).to_le_bytes());
    until(table, 56);
    table.bytes(&PM_EVENT.to_le_bytes());
    until(table, 64);
    table.bytes(&PM_CONTROL.to_le_bytes());
    until(table, 76);
    table.bytes(&PM_TIMER.to_le_bytes());
    until(table, 88);
    table.bytes(&[4, 2]); // lengths of event and control registers
    until(table, 91);
    table.bytes(&[4]); // and of the timer
    until(table, 96);
    // No C2 and C3 states.
    table.bytes(&0x65_u16.to_le_bytes());
    table.bytes(&0x3e9_u16.to_le_bytes());
    until(table, 109);
    // Devices at the old ports; no keyboard controller, no video.
    table.bytes(&0x0005_u16.to_le_bytes());
    until(table, 112);
    // WBINVD works; C1 works; neither power nor sleep button; the timer has 32 bits.
    let flags: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8;
    table.bytes(&flags.to_le_bytes());
    until(table, 140);
    table.bytes(&dsdt.to_le_bytes());
    until(table, 148);
    for (port, bits, size) in [(PM_EVENT, 32, 2), (0, 0, 0), (PM_CONTROL, 16, 2)] {
        generic(table, port, bits, size);
    }
    until(table, 208);
    generic(table, PM_TIMER, 32, 3);
    until(table, 276);
}

/// A generic address: a port.
fn generic(table: &mut Writer<'_>, port: u32, bits: u8, size: u8) {
    let space = u8::from(port != 0);
    table.bytes(&[space, bits, 0, size]);
    table.bytes(&u64::from(port).to_le_bytes());
}

fn describe_processors(table: &mut Writer<'_>, apic_ids: &[u32]) {
    table.bytes(&LOCAL_APIC.to_le_bytes());
    table.bytes(&1_u32.to_le_bytes()); // the old interrupt controllers are there too
    for (number, id) in (0_u32..).zip(apic_ids) {
        match u8::try_from(*id) {
            Ok(id) if id < 255 => {
                let [number, ..] = number.to_le_bytes();
                table.bytes(&[0, 8, number, id]);
                table.bytes(&1_u32.to_le_bytes());
            }
            _ => {
                table.bytes(&[9, 16, 0, 0]);
                table.bytes(&id.to_le_bytes());
                table.bytes(&1_u32.to_le_bytes());
                table.bytes(&number.to_le_bytes());
            }
        }
    }
    table.bytes(&[1, 12, 0, 0]);
    table.bytes(&IO_APIC.to_le_bytes());
    table.bytes(&0_u32.to_le_bytes());
    // The timer is at input 2; ACPI's interrupt is level-triggered, active high as QEMU has it.
    table.bytes(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    table.bytes(&[2, 10, 0, SCI, SCI, 0, 0, 0, 0x0d, 0]);
    // Non-maskable interrupts come at the second local input of all.
    table.bytes(&[4, 6, 0xff, 0, 0, 1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const AT: u64 = 0x2_0000;

    fn long(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    #[test]
    fn tables_point_to_each_other_and_add_up() {
        let mut out = vec![0xff; BYTES];
        let end = build(&mut out, AT, &[0, 1, 300]).unwrap();
        assert!(out[..8] == *b"RSD PTR " && sum(&out[..20]) == 0 && sum(&out[..36]) == 0);
        let table = |address: usize| {
            let start = address - usize::try_from(AT).unwrap();
            let bytes = &out[start..start + long(&out, start + 4)];
            assert_eq!(sum(bytes), 0);
            assert!(start + bytes.len() <= end);
            bytes
        };
        let xsdt = table(long(&out, 24));
        assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 52));
        let fadt = table(long(xsdt, 36));
        assert_eq!((&fadt[..4], fadt.len()), (&b"FACP"[..], 276));
        assert_eq!(
            (long(fadt, 56), long(fadt, 64), long(fadt, 76)),
            (0x600, 0x604, 0x608)
        );
        let dsdt = table(long(fadt, 40));
        assert_eq!(dsdt[36..46], *b"\x08_S5_\x12\x06\x04\0\0");
        let madt = table(long(xsdt, 44));
        // Two processors with small ids, one with a large one, and what every PC has.
        assert_eq!(madt.len(), 44 + 8 + 8 + 16 + 12 + 10 + 10 + 6);
        assert_eq!(&madt[52..56], [0, 8, 1, 1]);
    }

    #[test]
    fn there_are_processors_and_not_too_many() {
        let mut out = vec![0; BYTES];
        assert_eq!(build(&mut out, AT, &[]), Err(Error::Processors(0)));
        assert_eq!(build(&mut out, AT, &[0; 256]), Err(Error::Processors(256)));
        assert!(build(&mut out, AT, &[999; 255]).is_ok());
        assert_eq!(build(&mut [0; 100], AT, &[0]), Err(Error::Processors(1)));
    }
}

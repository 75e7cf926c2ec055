//! A walk through the guest's own page tables, as its CPU would do it.
//!
//! Only for looking: no rights are checked and no bits are set.

use crate::addr::{Address, Gpa};
use crate::phys::GuestMemory;
use crate::vmcb::Save;

const PG: u64 = 1 << 31;
const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;
const LMA: u64 = 1 << 10;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where a linear address of the guest lies in its physical memory, if it is mapped.
pub fn translate(save: &Save, linear: u64, memory: &impl GuestMemory) -> Option<Gpa> {
    if save.cr0 & PG == 0 {
        return Gpa::new(linear & 0xffff_ffff);
    }
    let levels = match (save.efer & LMA != 0, save.cr4 & PAE != 0) {
        (true, _) if save.cr4 & LA57 != 0 => 5,
        (true, _) => 4,
        (false, true) => return translate_pae(save, linear, memory),
        (false, false) => return translate_32(save, linear, memory),
    };
    tree(Gpa::new(save.cr3 & ADDRESS)?, levels, linear, memory)
}

/// A tree of tables with 64-bit entries.
fn tree(root: Gpa, levels: u32, linear: u64, memory: &impl GuestMemory) -> Option<Gpa> {
    let mut table = root;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let index = linear >> shift & 511;
        let entry = memory.read_u64(table.checked_add(index * 8)?).ok()?;
        if entry & 1 == 0 {
            return None;
        }
        let target = entry & ADDRESS;
        if level == 0 || (level < 3 && entry & 1 << 7 != 0) {
            let offset = (1 << shift) - 1;
            return Gpa::new(target & !offset | linear & offset);
        }
        table = Gpa::new(target)?;
    }
    None
}

fn translate_pae(save: &Save, linear: u64, memory: &impl GuestMemory) -> Option<Gpa> {
    let linear = linear & 0xffff_ffff;
    let pointers = Gpa::new(save.cr3 & 0xffff_ffe0)?;
    let entry = memory
        .read_u64(pointers.checked_add((linear >> 30) * 8)?)
        .ok()?;
    if entry & 1 == 0 {
        return None;
    }
    tree(Gpa::new(entry & ADDRESS)?, 2, linear & 0x3fff_ffff, memory)
}

fn translate_32(save: &Save, linear: u64, memory: &impl GuestMemory) -> Option<Gpa> {
    let entry_at = |table: u64, index: u64| -> Option<u64> {
        let mut word = [0; 4];
        memory.read(Gpa::new(table + index * 4)?, &mut word).ok()?;
        let entry = u64::from(u32::from_le_bytes(word));
        (entry & 1 != 0).then_some(entry)
    };
    let directory = entry_at(save.cr3 & 0xffff_f000, linear >> 22 & 1023)?;
    if directory & 1 << 7 != 0 && save.cr4 & PSE != 0 {
        let high = (directory >> 13 & 0xff) << 32;
        return Gpa::new(high | directory & 0xffc0_0000 | linear & 0x3f_ffff);
    }
    let page = entry_at(directory & 0xffff_f000, linear >> 12 & 1023)?;
    Gpa::new(page & 0xffff_f000 | linear & 0xfff)
}

/// The bytes at the guest's next instruction, as many as are mapped.
pub fn code<'a>(save: &Save, memory: &impl GuestMemory, into: &'a mut [u8]) -> &'a [u8] {
    // Outside 64-bit mode the base of CS counts, and addresses wrap at 4 GiB.
    let long = save.efer & LMA != 0 && save.cs.attributes & crate::vmcb::Segment::LONG != 0;
    let start = if long {
        save.rip
    } else {
        save.cs.base.wrapping_add(save.rip) & 0xffff_ffff
    };
    let mut got = 0;
    for (offset, byte) in (0..).zip(into.iter_mut()) {
        let at = translate(save, start.wrapping_add(offset), memory);
        let mut one = [0];
        if at.is_none_or(|at| memory.read(at, &mut one).is_err()) {
            break;
        }
        [*byte] = one;
        got += 1;
    }
    into.get(..got).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phys::{Memory, fake::Ram};
    use crate::vmcb::Vmcb;

    fn put(ram: &mut Ram, at: u64, entry: u64) {
        ram.write(Gpa::new(at).unwrap(), &entry.to_le_bytes())
            .unwrap();
    }

    #[test]
    fn four_levels_and_large_pages() {
        let mut ram = Ram::new(0x8000);
        ram.0.fill(0);
        put(&mut ram, 0x1000 + 511 * 8, 0x2003);
        put(&mut ram, 0x2000 + 510 * 8, 0x3003);
        put(&mut ram, 0x3000, 0x4003);
        put(&mut ram, 0x3000 + 8, 0x20_0083);
        put(&mut ram, 0x4000 + 8, 0x8000_0000_0000_5003);
        let mut save = Vmcb::zeroed().save;
        (save.cr0, save.cr3, save.cr4, save.efer) = (PG, 0x1018, PAE, LMA);
        let base = 0xffff_ffff_8000_0000_u64;
        let at = |offset| translate(&save, base + offset, &ram).map(Gpa::as_u64);
        assert_eq!(at(0x1234), Some(0x5234));
        assert_eq!(at(0x20_1234), Some(0x20_1234));
        assert_eq!(at(0x2000), None);

        ram.0[0x5ffe..0x6000].copy_from_slice(&[0x0f, 0x0b]);
        save.rip = base + 0x1ffe;
        save.cs.attributes = crate::vmcb::Segment::LONG;
        assert_eq!(code(&save, &ram, &mut [0; 8]), [0x0f, 0x0b]);
    }

    #[test]
    fn thirty_two_bits() {
        let mut ram = Ram::new(0x4000);
        ram.0.fill(0);
        put(&mut ram, 0x1000, 0x2003 | 0x0040_0083 << 32);
        put(&mut ram, 0x2000 + 4 * 3, 0x3003);
        let mut save = Vmcb::zeroed().save;
        (save.cr0, save.cr3, save.cr4) = (PG, 0x1000, PSE);
        let at = |linear| translate(&save, linear, &ram).map(Gpa::as_u64);
        assert_eq!(at(0x3abc), Some(0x3abc));
        assert_eq!(at(0x40_0123), Some(0x40_0123));
        assert_eq!(at(0x80_0000), None);
    }

    #[test]
    fn real_mode_counts_from_the_segment() {
        let mut ram = Ram::new(0x9000);
        ram.0[0x8010] = 0xf4;
        let mut save = Vmcb::zeroed().save;
        (save.cs.base, save.rip) = (0x8000, 0x10);
        assert_eq!(code(&save, &ram, &mut [0; 1]), [0xf4]);
    }
}

//! A walk through the guest's own page tables, as its CPU would do it.
//!
//! Only for looking: no bits are set, and rights are reported, not checked.

use crate::addr::{Address, Gpa};
use crate::phys::GuestMemory;
use crate::vmcb::Save;

const PG: u64 = 1 << 31;
const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;
const LMA: u64 = 1 << 10;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where a linear address ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The guest physical address, without the encryption bit.
    pub gpa: Gpa,
    /// Whether the mapping has the encryption bit; always, without paging.
    pub private: bool,
    /// Whether every entry on the way allows writes.
    pub writable: bool,
    /// Whether every entry on the way is open to CPL 3.
    pub user: bool,
}

/// Where a linear address of the guest lies in its physical memory, if it is mapped.
pub fn translate(save: &Save, linear: u64, memory: &impl GuestMemory) -> Option<Gpa> {
    leaf(save, linear, 0, memory).map(|leaf| leaf.gpa)
}

/// The mapping of a linear address, if there is one. `c_bit` is the encryption bit, or zero; only tables with
/// 64-bit entries can hold it.
pub fn leaf(save: &Save, linear: u64, c_bit: u64, memory: &impl GuestMemory) -> Option<Leaf> {
    if save.cr0 & PG == 0 {
        return Leaf::unpaged(linear & 0xffff_ffff);
    }
    let levels = match (save.efer & LMA != 0, save.cr4 & PAE != 0) {
        (true, _) if save.cr4 & LA57 != 0 => 5,
        (true, _) => 4,
        (false, true) => return leaf_pae(save, linear, c_bit, memory),
        (false, false) => return translate_32(save, linear, memory).and_then(Leaf::plain),
    };
    tree(
        Gpa::new(save.cr3 & ADDRESS & !c_bit)?,
        levels,
        linear,
        c_bit,
        memory,
    )
}

impl Leaf {
    const fn unpaged(linear: u64) -> Option<Self> {
        match Gpa::new(linear) {
            Some(gpa) => Some(Self {
                gpa,
                private: true,
                writable: true,
                user: true,
            }),
            None => None,
        }
    }

    /// A mapping by 32-bit entries, in which no encryption bit fits.
    const fn plain(gpa: Gpa) -> Option<Self> {
        Some(Self {
            gpa,
            private: false,
            writable: true,
            user: true,
        })
    }
}

/// A tree of tables with 64-bit entries.
fn tree(
    root: Gpa,
    levels: u32,
    linear: u64,
    c_bit: u64,
    memory: &impl GuestMemory,
) -> Option<Leaf> {
    let mut table = root;
    let mut rights = u64::MAX;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let index = linear >> shift & 511;
        let entry = memory.read_u64(table.checked_add(index * 8)?).ok()?;
        if entry & 1 == 0 {
            return None;
        }
        rights &= entry;
        let target = entry & ADDRESS & !c_bit;
        if level == 0 || (level < 3 && entry & 1 << 7 != 0) {
            let offset = (1 << shift) - 1;
            return Some(Leaf {
                gpa: Gpa::new(target & !offset | linear & offset)?,
                private: entry & c_bit != 0,
                writable: rights & 2 != 0,
                user: rights & 4 != 0,
            });
        }
        table = Gpa::new(target)?;
    }
    None
}

fn leaf_pae(save: &Save, linear: u64, c_bit: u64, memory: &impl GuestMemory) -> Option<Leaf> {
    let linear = linear & 0xffff_ffff;
    let pointers = Gpa::new(save.cr3 & 0xffff_ffe0)?;
    let entry = memory
        .read_u64(pointers.checked_add((linear >> 30) * 8)?)
        .ok()?;
    if entry & 1 == 0 {
        return None;
    }
    let root = Gpa::new(entry & ADDRESS & !c_bit)?;
    // The pointers have no rights of their own.
    tree(root, 2, linear & 0x3fff_ffff, c_bit, memory)
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
pub fn code<'a>(
    save: &Save,
    c_bit: u64,
    memory: &impl GuestMemory,
    into: &'a mut [u8],
) -> &'a [u8] {
    // Outside 64-bit mode the base of CS counts, and addresses wrap at 4 GiB.
    let long = save.efer & LMA != 0 && save.cs.attributes & crate::vmcb::Segment::LONG != 0;
    let start = if long {
        save.rip
    } else {
        save.cs.base.wrapping_add(save.rip) & 0xffff_ffff
    };
    let mut got = 0;
    // One walk for each page that the bytes lie in.
    while got < into.len() {
        let linear = start.wrapping_add(got as u64);
        let in_page = usize::try_from(4096 - (linear & 0xfff)).unwrap_or(1);
        let count = in_page.min(into.len() - got);
        let there = leaf(save, linear, c_bit, memory).is_some_and(|leaf| {
            into.get_mut(got..got + count)
                .is_some_and(|piece| memory.read(leaf.gpa, piece).is_ok())
        });
        if !there {
            break;
        }
        got += count;
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
        assert_eq!(code(&save, 0, &ram, &mut [0; 8]), [0x0f, 0x0b]);
    }

    #[test]
    fn the_encryption_bit_is_no_part_of_an_address() {
        const C: u64 = 1 << 51;
        let mut ram = Ram::new(0x6000);
        ram.0.fill(0);
        put(&mut ram, 0x1000, 0x2007 | C);
        put(&mut ram, 0x2000, 0x3007);
        put(&mut ram, 0x3000, 0x4005 | C);
        put(&mut ram, 0x4000, 0x5007 | C);
        put(&mut ram, 0x4000 + 8, 0x5003);
        let mut save = Vmcb::zeroed().save;
        (save.cr0, save.cr3, save.cr4, save.efer) = (PG, 0x1000 | C, PAE, LMA);
        let gpa = Gpa::new(0x5008).unwrap();
        let first = leaf(&save, 8, C, &ram).unwrap();
        assert_eq!((first.gpa, first.private), (gpa, true));
        assert!(!first.writable && first.user);
        let second = leaf(&save, 0x1008, C, &ram).unwrap();
        assert!(!second.private && !second.user);
        save.cr0 = 0;
        assert!(leaf(&save, 8, C, &ram).unwrap().private);
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
        assert_eq!(code(&save, 0, &ram, &mut [0; 1]), [0xf4]);
    }
}

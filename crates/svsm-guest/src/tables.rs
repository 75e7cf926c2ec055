//! The page tables with which a kernel starts: the first 4 GiB, each address at itself.

/// Bytes of the tables: a root, one table of pointers, and one directory for each GiB.
pub const BYTES: u64 = 6 * 4096;

const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;
const ENTRIES: u64 = 512;
const GIB: u64 = 1 << 30;

/// Entry `index` of the tables that begin at `at`, seen as one array of words: what is below `private_end` has `bit` in
/// its entry, and so do the tables themselves.
#[must_use]
pub const fn entry(at: u64, index: u64, private_end: u64, bit: u64) -> u64 {
    let (table, slot) = (index / ENTRIES, index % ENTRIES);
    match table {
        0 if slot == 0 => (at + 4096) | bit | PRESENT_WRITABLE,
        1 if slot < 4 => (at + (2 + slot) * 4096) | bit | PRESENT_WRITABLE,
        0 | 1 => 0,
        _ => {
            let address = (table - 2) * GIB + (slot << 21);
            let bit = if address < private_end { bit } else { 0 };
            address | bit | LARGE | PRESENT_WRITABLE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_at_itself() {
        const C: u64 = 1 << 51;
        let at = 0x9000;
        let word = |address: u64| entry(at, (address - at) / 8, 64 << 20, C);
        for address in [0, 0x20_0000, 63 << 20, 64 << 20, 0xfee0_0000_u64] {
            let strip = |entry: u64| entry & !C & !0xfff;
            let pointers = strip(word(at + (address >> 39 & 511) * 8));
            let directory = strip(word(pointers + (address >> 30 & 511) * 8));
            let leaf = word(directory + (address >> 21 & 511) * 8);
            assert_eq!(leaf & !C, address & !0x1f_ffff | 0x83);
            assert_eq!(leaf & C != 0, address < 64 << 20);
        }
        assert_eq!(word(at + 8), 0);
    }
}

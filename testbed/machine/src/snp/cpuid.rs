//! What CPUID says to an SNP guest: in the page that firmware checks, and in the host's own answers.

use crate::native::{HYPERVISOR, KVM};
use crate::personality::Hardware;

/// The most leaves that the page holds.
const ENTRIES: usize = 64;

/// Leaves that are in the page, with the subleaves that are. What is not there reads as zero.
const LEAVES: [(u32, u32); 20] = [
    (0, 1),
    (1, 1),
    (2, 1),
    (4, 4),
    (5, 1),
    (6, 1),
    (7, 2),
    (0x4000_0000, 1),
    (0x4000_0001, 1),
    (0x8000_0000, 1),
    (0x8000_0001, 1),
    (0x8000_0002, 1),
    (0x8000_0003, 1),
    (0x8000_0004, 1),
    (0x8000_0005, 1),
    (0x8000_0006, 1),
    (0x8000_0007, 1),
    (0x8000_0008, 1),
    (0x8000_001f, 1),
    (0x8000_0021, 1),
];

const HIGHEST: u32 = 7;
const HIGHEST_EXTENDED: u32 = 0x8000_0021;

/// The encryption leaf: SEV, SEV-ES, SEV-SNP, VMPLs, `RMPQUERY`; Secure TSC, restricted and alternate injection, swapped
/// debug registers, protected registers at rest.
const SEV: u32 = 1 << 1 | 7 << 3 | 1 << 6 | 1 << 8 | 7 << 12 | 1 << 24;

/// CPUID as this guest sees it.
///
/// QEMU's CPU has no compacted XSAVE, without which guests of SEV-SNP refuse to use XSAVE at all: the family and all
/// that hangs on it (AVX and what follows) is hidden. So are nested virtualization, five-level paging and MWAIT. The
/// hypervisor leaf is KVM's without any of its features: with it, kernels use x2APIC mode without remapped interrupts.
#[must_use]
pub fn answer(leaf: u32, subleaf: u32, c_bit: u8, hardware: &mut impl Hardware) -> [u32; 4] {
    let [mut eax, mut ebx, mut ecx, mut edx] = match leaf {
        0..=HIGHEST | 0x8000_0000..=0x8000_0008 => hardware.cpuid(leaf, subleaf),
        _ => [0; 4],
    };
    match (leaf, subleaf) {
        (0, _) => eax = HIGHEST,
        (1, _) => {
            // MONITOR, FMA, XSAVE, OSXSAVE, AVX, F16C; and a hypervisor is there.
            ecx &= !(1 << 3 | 1 << 12 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29);
            ecx |= 1 << 31;
        }
        (5, _) => [eax, ebx, ecx, edx] = [0; 4],
        (7, 0) => {
            eax = eax.min(1);
            // AVX2, MPX, the AVX-512 family.
            ebx &= !(1 << 5 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 21 | 0xd << 26 | 3 << 30);
            // Protection keys, VAES, VPCLMULQDQ, more of AVX-512, five-level paging.
            ecx &= !(1 << 1 | 3 << 3 | 1 << 6 | 3 << 9 | 3 << 11 | 1 << 14 | 1 << 16);
            edx &= !(3 << 2 | 1 << 8 | 1 << 22 | 1 << 23 | 3 << 24);
        }
        (7, _) => [eax, ebx, ecx, edx] = [0; 4],
        (HYPERVISOR, _) => [eax, ebx, ecx, edx] = [HYPERVISOR + 1, KVM[0], KVM[1], KVM[2]],
        (0x8000_0000, _) => eax = HIGHEST_EXTENDED,
        // SVM, XOP, SKINIT, FMA4, TBM.
        (0x8000_0001, _) => ecx &= !(1 << 2 | 1 << 11 | 1 << 12 | 1 << 16 | 1 << 21),
        (0x8000_0008, _) => {
            // 48 bits of linear addresses; INVLPGB and TLBSYNC, one page at a time.
            eax = eax & !0xff00 | 48 << 8;
            (ebx, edx) = (ebx | 1 << 3, 0);
        }
        (0x8000_001f, _) => {
            [eax, ebx, ecx, edx] = [SEV, u32::from(c_bit) | 1 << 6 | 4 << 12, 16, 0]
        }
        _ => {}
    }
    [eax, ebx, ecx, edx]
}

/// Fills a CPUID page as a host proposes it (56860, "CPUID page").
pub fn fill(page: &mut [u8; 4096], c_bit: u8, hardware: &mut impl Hardware) {
    page.fill(0);
    let mut count = 0_u32;
    let (head, entries) = page.split_at_mut(16);
    let mut free = entries.chunks_exact_mut(48).take(ENTRIES);
    for (leaf, subleaves) in LEAVES {
        for subleaf in 0..subleaves {
            let values = answer(leaf, subleaf, c_bit, hardware);
            if values == [0; 4] {
                continue;
            }
            let Some(entry) = free.next() else {
                continue;
            };
            let words = [leaf, subleaf, 0, 0, 0, 0].into_iter().chain(values);
            for (place, word) in entry.chunks_exact_mut(4).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            count += 1;
        }
    }
    if let Some(place) = head.get_mut(..4) {
        place.copy_from_slice(&count.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personality::fake::Fake;

    #[test]
    fn the_page_says_what_the_answers_say() {
        let mut page = [0xff; 4096];
        let mut fake = Fake::default();
        fill(&mut page, 51, &mut fake);
        let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        let count = word(0) as usize;
        assert!(count > 10 && count <= ENTRIES);
        for entry in 0..count {
            let at = 16 + 48 * entry;
            let values = [24, 28, 32, 36].map(|offset| word(at + offset));
            assert_eq!(values, answer(word(at), word(at + 4), 51, &mut fake));
        }
        let sev = (0..count).find(|entry| word(16 + 48 * entry) == 0x8000_001f);
        let at = 16 + 48 * sev.unwrap();
        assert_eq!(word(at + 28) & 0x3f, 51);
        assert_eq!(word(at + 28) >> 12 & 0xf, 4);
    }

    #[test]
    fn what_the_machine_cannot_do_is_hidden() {
        let mut fake = Fake::default();
        let [_, _, ecx, _] = answer(1, 0, 51, &mut fake);
        assert_eq!(ecx & (1 << 26 | 1 << 28), 0);
        assert_eq!(answer(0xd, 0, 51, &mut fake), [0; 4]);
        assert_eq!(answer(0x8000_000a, 0, 51, &mut fake), [0; 4]);
        let [highest, ..] = answer(0, 0, 51, &mut fake);
        assert_eq!(highest, HIGHEST);
    }
}

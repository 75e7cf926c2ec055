//! Register protection: registers at rest are XORed with a nonce, so that equal values do not look equal.

use super::{SevFeatures, Vmsa};
use core::mem::{offset_of, size_of};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Which quadwords of a save area are blinded, one bit each from the first quadword on: the field of the secrets page
/// (56860, "VMSA_TWEAK_BITMAP").
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct TweakBitmap(pub [u8; 64]);

impl TweakBitmap {
    /// Nothing is blinded.
    pub const NONE: Self = Self([0; 64]);

    /// The choice of processors of family 19h: general-purpose registers, the instruction pointer, and all registers of the
    /// x87 and vector units.
    pub const REGISTERS: Self = {
        let mut map = [0; 64];
        let ranges = [
            (offset_of!(Vmsa, rip), 8),
            (offset_of!(Vmsa, rsp), 8),
            (offset_of!(Vmsa, rax), 8),
            (offset_of!(Vmsa, rcx), 3 * 8),
            (offset_of!(Vmsa, rbp), 3 * 8),
            (offset_of!(Vmsa, r8_15), 8 * 8),
            (offset_of!(Vmsa, fpreg_x87), 80 + 256 + 256),
            (offset_of!(Vmsa, fpreg_k), 64 + 512 + 1024),
        ];
        let mut index = 0;
        while index < ranges.len() {
            // Evaluated by the compiler, which refuses an index that is too large.
            #[expect(
                clippy::indexing_slicing,
                reason = "there are no iterators in constants"
            )]
            let (start, len) = ranges[index];
            let mut quadword = start / 8;
            while quadword < (start + len) / 8 {
                #[expect(
                    clippy::indexing_slicing,
                    reason = "there are no iterators in constants"
                )]
                {
                    map[quadword / 8] |= 1 << (quadword % 8);
                }
                quadword += 1;
            }
            index += 1;
        }
        Self(map)
    };

    /// Whether the quadword at `offset` bytes is blinded.
    #[must_use]
    pub fn covers(&self, offset: usize) -> bool {
        let quadword = offset / 8;
        self.0
            .get(quadword / 8)
            .is_some_and(|byte| byte >> (quadword % 8) & 1 == 1)
    }
}

impl Vmsa {
    /// XORs the registers that `bitmap` names with the nonce in the page, where the page asks for protection. Twice is not
    /// at all: the same step blinds and reveals.
    pub fn tweak(&mut self, bitmap: &TweakBitmap) {
        if !self.features().contains(SevFeatures::VMSA_REG_PROT) {
            return;
        }
        let nonce = self.reg_prot_nonce.get().to_le_bytes();
        let quadwords = self.as_mut_bytes().chunks_exact_mut(size_of::<U64>());
        for (offset, quadword) in (0..).step_by(size_of::<U64>()).zip(quadwords) {
            if bitmap.covers(offset) {
                for (byte, mask) in quadword.iter_mut().zip(nonce) {
                    *byte ^= mask;
                }
            }
        }
    }

    /// What hardware does at each exit of a protected processor: a new nonce, with which it blinds the registers. They must
    /// be in the clear.
    pub fn protect(&mut self, bitmap: &TweakBitmap, nonce: u64) {
        if self.features().contains(SevFeatures::VMSA_REG_PROT) {
            self.reg_prot_nonce = U64::new(nonce);
            self.tweak(bitmap);
        }
    }
}

//! CMAC (SP 800-38B) over the block cipher of the provider.

use super::{Ciphering, Mode};

/// A CMAC in progress: the chaining value and what does not yet fill a block.
#[derive(Clone, Debug)]
pub(crate) struct Cmac {
    pub(crate) chain: [u8; 16],
    pub(crate) pending: [u8; 16],
    pub(crate) len: u8,
}

impl Cmac {
    pub(crate) const fn new() -> Self {
        Self {
            chain: [0; 16],
            pending: [0; 16],
            len: 0,
        }
    }

    pub(crate) fn update(&mut self, crypto: &(impl Ciphering + ?Sized), key: &[u8], data: &[u8]) {
        for byte in data {
            // The last block is treated differently, so a full one waits for its successor.
            if self.len == 16 {
                crypto.encrypt(Mode::Cbc, key, &mut self.chain, &mut self.pending);
                self.len = 0;
            }
            if let Some(place) = self.pending.get_mut(usize::from(self.len)) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    pub(crate) fn finish(mut self, crypto: &(impl Ciphering + ?Sized), key: &[u8]) -> [u8; 16] {
        let mut subkey = [0; 16];
        crypto.encrypt(Mode::Ecb, key, &mut [0; 16], &mut subkey);
        subkey = double(subkey);
        if self.len < 16 {
            subkey = double(subkey);
            for (byte, at) in self.pending.iter_mut().zip(0u8..) {
                if at >= self.len {
                    *byte = if at == self.len { 0x80 } else { 0 };
                }
            }
        }
        let mut last = u128::from_be_bytes(self.pending) ^ u128::from_be_bytes(subkey);
        last ^= u128::from_be_bytes(self.chain);
        let mut block = last.to_be_bytes();
        crypto.encrypt(Mode::Ecb, key, &mut [0; 16], &mut block);
        block
    }
}

/// Multiplication by x in GF(2^128).
fn double(block: [u8; 16]) -> [u8; 16] {
    let n = u128::from_be_bytes(block);
    ((n << 1) ^ (0x87 * (n >> 127))).to_be_bytes()
}

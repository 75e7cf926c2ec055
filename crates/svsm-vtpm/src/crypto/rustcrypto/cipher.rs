use aes::{
    Aes128, Aes192, Aes256, Block,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};

use super::RustCrypto;
use crate::crypto::{Ciphering, Mode};

/// Calls `$f` with the cipher that the key's length asks for; a key of another length encrypts nothing.
macro_rules! with {
    ($key:expr, $f:ident($($arg:expr),*)) => {
        match $key.len() {
            16 => if let Ok(aes) = Aes128::new_from_slice($key) { $f(&aes, $($arg),*) },
            24 => if let Ok(aes) = Aes192::new_from_slice($key) { $f(&aes, $($arg),*) },
            _ => if let Ok(aes) = Aes256::new_from_slice($key) { $f(&aes, $($arg),*) },
        }
    };
}

impl Ciphering for RustCrypto {
    fn encrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]) {
        with!(key, encrypt(mode, iv, data));
    }

    fn decrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]) {
        with!(key, decrypt(mode, iv, data));
    }
}

fn xor(to: &mut [u8], with: &[u8]) {
    for (to, with) in to.iter_mut().zip(with) {
        *to ^= with;
    }
}

/// Blocks that are encrypted at once where the mode allows it: what AES-NI and the bit-sliced code both like.
const BATCH: usize = 8;

fn encrypt<A: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>>(
    aes: &A,
    mode: Mode,
    iv: &mut [u8; 16],
    data: &mut [u8],
) {
    match mode {
        Mode::Ecb => {
            for block in data.as_chunks_mut::<16>().0 {
                aes.encrypt_block(block.into());
            }
        }
        Mode::Cbc => {
            for block in data.as_chunks_mut::<16>().0 {
                xor(block, iv);
                aes.encrypt_block((&mut *block).into());
                *iv = *block;
            }
        }
        Mode::Cfb => {
            for block in data.chunks_mut(16) {
                aes.encrypt_block((&mut *iv).into());
                xor(block, iv);
                iv.iter_mut()
                    .zip(&*block)
                    .for_each(|(iv, byte)| *iv = *byte);
            }
        }
        Mode::Ofb => {
            for block in data.chunks_mut(16) {
                aes.encrypt_block((&mut *iv).into());
                xor(block, iv);
            }
        }
        Mode::Ctr => {
            let mut counter = u128::from_be_bytes(*iv);
            for batch in data.chunks_mut(16 * BATCH) {
                let mut blocks = [Block::default(); BATCH];
                let used = batch.len().div_ceil(16);
                let blocks = blocks.get_mut(..used).unwrap_or_default();
                for block in &mut *blocks {
                    *block = counter.to_be_bytes().into();
                    counter = counter.wrapping_add(1);
                }
                aes.encrypt_blocks(blocks);
                for (bytes, block) in batch.chunks_mut(16).zip(blocks) {
                    xor(bytes, block);
                }
            }
            *iv = counter.to_be_bytes();
        }
    }
}

fn decrypt<A>(aes: &A, mode: Mode, iv: &mut [u8; 16], data: &mut [u8])
where
    A: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16> + BlockCipherDecrypt,
{
    match mode {
        Mode::Ecb => {
            for block in data.as_chunks_mut::<16>().0 {
                aes.decrypt_block(block.into());
            }
        }
        Mode::Cbc => {
            for block in data.as_chunks_mut::<16>().0 {
                let next = *block;
                aes.decrypt_block((&mut *block).into());
                xor(block, iv);
                *iv = next;
            }
        }
        Mode::Cfb => {
            for batch in data.chunks_mut(16 * BATCH) {
                // The key stream is the encryption of the ciphertext, shifted by a block.
                let mut blocks = [Block::default(); BATCH];
                let used = batch.len().div_ceil(16);
                let blocks = blocks.get_mut(..used).unwrap_or_default();
                for (block, bytes) in blocks.iter_mut().zip(batch.chunks(16)) {
                    *block = (*iv).into();
                    iv.iter_mut().zip(bytes).for_each(|(iv, byte)| *iv = *byte);
                }
                aes.encrypt_blocks(blocks);
                for (bytes, block) in batch.chunks_mut(16).zip(blocks) {
                    xor(bytes, block);
                }
            }
        }
        Mode::Ofb | Mode::Ctr => encrypt(aes, mode, iv, data),
    }
}

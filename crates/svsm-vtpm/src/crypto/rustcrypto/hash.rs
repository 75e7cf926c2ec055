use sha1::Sha1;
use sha2::{
    Sha256, Sha384, Sha512,
    digest::{block_api::BlockSizeUser, common::hazmat::SerializableState},
};
use zeroize::Zeroize;

use super::RustCrypto;
use crate::crypto::{Digest, HashAlg, HashState, Hashing};

/// Calls a function that is generic over the hash with the type that `$alg` stands for.
macro_rules! with {
    ($alg:expr, $f:ident($($arg:expr),*)) => {
        match $alg {
            HashAlg::Sha1 => $f::<Sha1>($($arg),*),
            HashAlg::Sha256 => $f::<Sha256>($($arg),*),
            HashAlg::Sha384 => $f::<Sha384>($($arg),*),
            HashAlg::Sha512 => $f::<Sha512>($($arg),*),
        }
    };
}

impl Hashing for RustCrypto {
    fn hash(&self, alg: HashAlg, parts: &[&[u8]]) -> Digest {
        with!(alg, hash(parts))
    }

    fn hmac(&self, alg: HashAlg, key: &[u8], parts: &[&[u8]]) -> Digest {
        with!(alg, hmac(key, parts))
    }

    fn start(&self, alg: HashAlg) -> HashState {
        HashState {
            alg,
            state: with!(alg, start()),
        }
    }

    fn update(&self, state: &mut HashState, data: &[u8]) {
        with!(state.alg, update(state, data));
    }

    fn finish(&self, state: &HashState) -> Digest {
        with!(state.alg, finish(state))
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::new(bytes).unwrap_or_default()
}

fn hash<H: sha2::Digest>(parts: &[&[u8]]) -> Digest {
    let mut h = H::new();
    for part in parts {
        h.update(part);
    }
    digest(&h.finalize())
}

/// HMAC (FIPS 198-1).
fn hmac<H: sha2::Digest + BlockSizeUser>(key: &[u8], parts: &[&[u8]]) -> Digest {
    let mut pad = [0u8; 128];
    let block = H::block_size();
    if key.len() > block {
        let short = H::digest(key);
        pad.iter_mut()
            .zip(short.iter())
            .for_each(|(to, from)| *to = *from);
    } else {
        pad.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    }
    let pad_of = |value: u8, pad: &mut [u8; 128]| pad.iter_mut().for_each(|b| *b ^= value);
    pad_of(0x36, &mut pad);
    let mut inner = H::new();
    inner.update(pad.get(..block).unwrap_or_default());
    for part in parts {
        inner.update(part);
    }
    pad_of(0x36 ^ 0x5C, &mut pad);
    let mut outer = H::new();
    outer.update(pad.get(..block).unwrap_or_default());
    outer.update(inner.finalize());
    pad.zeroize();
    digest(&outer.finalize())
}

fn start<H: sha2::Digest + SerializableState>() -> super::super::Bytes<232> {
    super::super::Bytes::new(&H::new().serialize()).unwrap_or_default()
}

fn load<H: sha2::Digest + SerializableState>(state: &HashState) -> H {
    // A state of another provider or a damaged one gets here only if who has the key to contexts made it: it is answered, and not as
    // a hash of anything.
    let bytes = state.state.as_slice();
    bytes
        .try_into()
        .ok()
        .filter(|_| bytes.get(count_high(state.alg)) == Some(&[0, 0]))
        .and_then(|s| H::deserialize(s).ok())
        .unwrap_or_else(H::new)
}

/// Where the two highest bytes of the number of blocks are, behind the words of the state. Nobody hashes so many blocks that they are not
/// zero, and the length in bits must not overflow.
const fn count_high(alg: HashAlg) -> core::ops::Range<usize> {
    let end = match alg {
        HashAlg::Sha1 => 20 + 8,
        HashAlg::Sha256 => 32 + 8,
        HashAlg::Sha384 | HashAlg::Sha512 => 64 + 16,
    };
    end - 2..end
}

fn update<H: sha2::Digest + SerializableState>(state: &mut HashState, data: &[u8]) {
    let mut h: H = load(state);
    h.update(data);
    state.state.as_mut_slice().copy_from_slice(&h.serialize());
}

fn finish<H: sha2::Digest + SerializableState>(state: &HashState) -> Digest {
    digest(&load::<H>(state).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_blocks_that_cannot_be_is_no_hash_of_anything() {
        for alg in HashAlg::ALL {
            let empty = RustCrypto.start(alg);
            let mut state = empty.clone();
            RustCrypto.update(&mut state, &[0; 3 * 128]);
            let (high, blocks) = (count_high(alg), 3 * 128 / alg.block_len());
            let low = match alg {
                HashAlg::Sha1 | HashAlg::Sha256 => high.end - 8,
                HashAlg::Sha384 | HashAlg::Sha512 => high.end - 16,
            };
            // The number is where it is looked for.
            assert_eq!(usize::from(state.state.as_slice()[low]), blocks, "{alg:?}");
            assert_ne!(RustCrypto.finish(&state), RustCrypto.finish(&empty));
            for byte in [high.start, high.end - 1] {
                let mut state = state.clone();
                state.state.as_mut_slice()[byte] = 0xFF;
                assert_eq!(RustCrypto.finish(&state), RustCrypto.finish(&empty));
                RustCrypto.update(&mut state, &[0; 256]);
            }
        }
    }
}

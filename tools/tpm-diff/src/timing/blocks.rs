//! Blocks that decryption gives, with a padding that is wrong.

use svsm_vtpm::crypto::{HashAlg, Hashing, RustCrypto};

use crate::rng::Rng;

/// Bytes of a block.
const LEN: usize = 256;
/// Bytes of a digest of SHA-256.
const HASH: usize = 32;

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The first byte, which shall be zero.
    First,
    /// The second byte of version 1.5.
    Kind,
    /// The hash of the label.
    Label,
    /// A byte of the zeros before the message.
    Filler,
    /// Nothing says where the message begins.
    NoMark,
    /// The message begins before eight bytes of filler.
    EarlyMark,
    /// All of it is random.
    Everything,
}

impl Flaw {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::First => "wrong first byte",
            Self::Kind => "wrong second byte",
            Self::Label => "wrong label",
            Self::Filler => "wrong filler",
            Self::NoMark => "no separator",
            Self::EarlyMark => "early separator",
            Self::Everything => "random",
        }
    }
}

fn random(len: usize, rng: &mut Rng) -> Vec<u8> {
    // Without zeros, which mean something in version 1.5.
    (0..len)
        .map(|_| u8::try_from(1 + rng.below(255)).unwrap_or(1))
        .collect()
}

/// A block of OAEP with SHA-256 and no label.
pub(super) fn oaep(flaw: Flaw, rng: &mut Rng) -> Vec<u8> {
    if flaw == Flaw::Everything {
        return random(LEN, rng);
    }
    let mut seed = random(HASH, rng);
    let mut label = RustCrypto.hash(HashAlg::Sha256, &[]).as_slice().to_vec();
    let mut filler = vec![0; LEN - 1 - 3 * HASH - 1];
    let mut mark = 1;
    match flaw {
        Flaw::Label => flip(&mut label, rng),
        Flaw::Filler => flip(&mut filler, rng),
        Flaw::NoMark => mark = 0,
        _ => {}
    }
    // Without a mark, all that follows is zero.
    let message = if mark == 0 {
        vec![0; HASH]
    } else {
        random(HASH, rng)
    };
    let mut data = [label, filler, vec![mark], message].concat();
    mask(&mut data, &seed);
    mask(&mut seed, &data);
    let first = u8::from(flaw == Flaw::First);
    [vec![first], seed, data].concat()
}

/// A block of version 1.5.
pub(super) fn pkcs1(flaw: Flaw, rng: &mut Rng) -> Vec<u8> {
    if flaw == Flaw::Everything {
        return random(LEN, rng);
    }
    let mut block = random(LEN, rng);
    let set = |at: usize, value: u8, block: &mut Vec<u8>| {
        if let Some(byte) = block.get_mut(at) {
            *byte = value;
        }
    };
    set(0, u8::from(flaw == Flaw::First), &mut block);
    set(1, if flaw == Flaw::Kind { 1 } else { 2 }, &mut block);
    match flaw {
        Flaw::NoMark => {}
        Flaw::EarlyMark => set(2 + rng.below(8), 0, &mut block),
        _ => set(LEN - HASH - 1, 0, &mut block),
    }
    block
}

fn flip(bytes: &mut [u8], rng: &mut Rng) {
    let (at, bit) = (rng.below(bytes.len()), rng.below(8));
    if let Some(byte) = bytes.get_mut(at) {
        // A mark would be no flaw of the filler's.
        *byte ^= if *byte == 0 && bit == 0 { 2 } else { 1 << bit };
    }
}

/// MGF1 with SHA-256.
fn mask(data: &mut [u8], seed: &[u8]) {
    for (block, n) in data.chunks_mut(HASH).zip(0u32..) {
        let bytes = RustCrypto.hash(HashAlg::Sha256, &[seed, &n.to_be_bytes()]);
        for (byte, with) in block.iter_mut().zip(bytes.as_slice()) {
            *byte ^= with;
        }
    }
}

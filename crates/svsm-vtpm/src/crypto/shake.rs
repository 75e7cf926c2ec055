//! SHAKE256 over messages that come in pieces, in a form that can be kept and moved (FIPS 202), and the representative μ of a message
//! that ML-DSA signs (FIPS 204, algorithms 2, 4 and 7).

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::lattice::{Lattices, MU_LEN};
use crate::{
    alg::HashAlg,
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// Bytes that are absorbed between two permutations.
const RATE: usize = 136;

/// A sponge that absorbs.
#[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Shake {
    lanes: [u64; 25],
    /// Where the next byte goes, below [`RATE`].
    at: u8,
}

impl Shake {
    pub(crate) const fn new() -> Self {
        Self {
            lanes: [0; 25],
            at: 0,
        }
    }

    /// The sponge after what precedes a message: the hash of the public key, whether the message is a hash, and the context.
    pub(crate) fn of_message(
        lattices: &dyn Lattices,
        public: &[u8],
        hashed: Option<HashAlg>,
        context: &[u8],
    ) -> Self {
        let mut sponge = Self::new();
        sponge.absorb(lattices, public);
        let key_hash = sponge.finish(lattices);
        let mut sponge = Self::new();
        sponge.absorb(lattices, &key_hash);
        let context_len = u8::try_from(context.len()).unwrap_or(u8::MAX);
        sponge.absorb(lattices, &[u8::from(hashed.is_some()), context_len]);
        sponge.absorb(lattices, context);
        if let Some(hash) = hashed {
            sponge.absorb(lattices, oid(hash));
        }
        sponge
    }

    pub(crate) fn absorb(&mut self, lattices: &dyn Lattices, data: &[u8]) {
        for byte in data {
            self.mix(usize::from(self.at), *byte);
            self.at += 1;
            if usize::from(self.at) == RATE {
                lattices.keccak(&mut self.lanes);
                self.at = 0;
            }
        }
    }

    fn mix(&mut self, at: usize, byte: u8) {
        if let Some(lane) = self.lanes.get_mut(at / 8) {
            *lane ^= u64::from(byte) << (8 * (at % 8));
        }
    }

    /// 64 bytes of output: μ, or the hash of a public key.
    pub(crate) fn finish(mut self, lattices: &dyn Lattices) -> [u8; MU_LEN] {
        self.mix(usize::from(self.at), 0x1F);
        self.mix(RATE - 1, 0x80);
        lattices.keccak(&mut self.lanes);
        let mut out = [0; MU_LEN];
        let (words, _) = out.as_chunks_mut::<8>();
        for (to, lane) in words.iter_mut().zip(&self.lanes) {
            *to = lane.to_le_bytes();
        }
        out
    }
}

/// The object identifier that stands before a hash that is signed, in DER.
const fn oid(hash: HashAlg) -> &'static [u8] {
    match hash {
        HashAlg::Sha1 => b"\x06\x05\x2B\x0E\x03\x02\x1A",
        HashAlg::Sha256 => b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01",
        HashAlg::Sha384 => b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02",
        HashAlg::Sha512 => b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03",
    }
}

impl Marshal for Shake {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        self.lanes.iter().try_for_each(|lane| w.put(lane))?;
        w.put(&self.at)
    }
}

impl Unmarshal for Shake {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let mut it = Self::new();
        for lane in &mut it.lanes {
            *lane = r.read()?;
        }
        it.at = r.read()?;
        ensure(usize::from(it.at) < RATE, Rc::VALUE)?;
        Ok(it)
    }
}

#[cfg(all(test, feature = "rustcrypto"))]
mod tests {
    use std::vec;

    use super::*;
    use crate::{
        crypto::RustCrypto,
        wire::{Reader, marshal},
    };

    #[test]
    fn nothing_hashes_to_the_published_value() {
        let out = Shake::new().finish(&RustCrypto);
        let start = b"\x46\xb9\xdd\x2b\x0b\xa8\x8d\x13\x23\x3b\x3f\xeb\x74\x3e\xeb\x24";
        assert_eq!(out[..16], *start);
    }

    #[test]
    fn pieces_make_the_same_hash_also_across_a_move() {
        let data: vec::Vec<u8> = (0..500u16).map(|n| n.to_le_bytes()[0]).collect();
        let mut whole = Shake::new();
        whole.absorb(&RustCrypto, &data);
        let whole = whole.finish(&RustCrypto);
        for cut in [0, 1, 135, 136, 137, 272, 499] {
            let (a, b) = data.split_at(cut);
            let mut first = Shake::new();
            first.absorb(&RustCrypto, a);
            let mut buffer = [0; 256];
            let bytes = marshal(&first, &mut buffer).unwrap();
            let mut second: Shake = Reader::new(bytes).read().unwrap();
            second.absorb(&RustCrypto, b);
            assert_eq!(second.finish(&RustCrypto), whole, "{cut}");
        }
    }
}

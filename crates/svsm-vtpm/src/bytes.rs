//! Byte strings of bounded length, kept in place: what the wire calls TPM2B.

use core::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::{
    rc::Rc,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// Up to `N` bytes, stored inline; on the wire, a 16-bit size and the bytes.
#[derive(Clone)]
pub struct Bytes<const N: usize> {
    len: u16,
    /// The bytes, and zeros.
    data: [u8; N],
}

impl<const N: usize> Bytes<N> {
    /// No bytes.
    pub const EMPTY: Self = Self {
        len: 0,
        data: [0; N],
    };

    /// The bytes of `from`; `None` if there are more than `N`.
    pub fn new(from: &[u8]) -> Option<Self> {
        let mut it = Self::EMPTY;
        it.extend(from).ok()?;
        Some(it)
    }

    /// `len` zero bytes, at most `N`.
    pub fn zeroed(len: usize) -> Self {
        let mut it = Self::EMPTY;
        it.resize(len);
        it
    }

    /// Appends `more`.
    ///
    /// # Errors
    ///
    /// [`Rc::SIZE`] if there is no room for all of it; then nothing is appended.
    pub fn extend(&mut self, more: &[u8]) -> Result<(), Rc> {
        let start = self.len();
        let room = self
            .data
            .get_mut(start..start + more.len())
            .ok_or(Rc::SIZE)?;
        room.copy_from_slice(more);
        self.len = u16::try_from(start + more.len()).map_err(|_| Rc::SIZE)?;
        Ok(())
    }

    /// Cuts the string to `len` bytes, or lengthens it (at most to `N`) with zeros.
    pub fn resize(&mut self, len: usize) {
        let len = len.min(N);
        let old = self.len();
        // What is beyond the end is zero already.
        self.data
            .get_mut(len.min(old)..old)
            .unwrap_or_default()
            .zeroize();
        self.len = u16::try_from(len).unwrap_or(u16::MAX);
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.data.get(..self.len()).unwrap_or_default()
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len();
        self.data.get_mut(..len).unwrap_or_default()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops zero bytes at the end, as authorization values are compared without them.
    pub(crate) fn trim_end(&mut self) {
        let kept = self
            .as_slice()
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |at| at + 1);
        self.resize(kept);
    }

    /// Puts zeros before the bytes until there are `len` of them.
    pub(crate) fn pad_front(&mut self, len: usize) {
        let old = self.len();
        if len > old && len <= N {
            self.resize(len);
            self.data.copy_within(0..old, len - old);
            self.data.get_mut(..len - old).unwrap_or_default().fill(0);
        }
    }

    /// The same bytes in a string of another capacity, cut if they do not fit.
    pub(crate) fn resized<const M: usize>(&self) -> Bytes<M> {
        let mut it = Bytes::EMPTY;
        let len = self.len().min(M);
        it.resize(len);
        it.as_mut_slice()
            .copy_from_slice(self.as_slice().get(..len).unwrap_or_default());
        it
    }
}

impl<const N: usize> PartialEq for Bytes<N> {
    /// In constant time for strings of one length: eight bytes at once, and the rest.
    fn eq(&self, other: &Self) -> bool {
        let (a, a_rest) = self.as_slice().as_chunks::<8>();
        let (b, b_rest) = other.as_slice().as_chunks::<8>();
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        let same = a.iter().zip(b).fold(a_rest.ct_eq(b_rest), |same, (a, b)| {
            same & word(a).ct_eq(&word(b))
        });
        a.len() == b.len() && bool::from(same)
    }
}

impl<const N: usize> Eq for Bytes<N> {}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> Zeroize for Bytes<N> {
    fn zeroize(&mut self) {
        self.data.zeroize();
        self.len = 0;
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    /// The length alone: the bytes may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes<{N}>({} bytes)", self.len)
    }
}

impl<const N: usize> Unmarshal for Bytes<N> {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let mut it = Self::EMPTY;
        it.extend(r.sized(N)?)?;
        Ok(it)
    }
}

impl<const N: usize> Marshal for Bytes<N> {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.sized(self.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_equal_if_lengths_and_all_bytes_are() {
        let mut bytes: Bytes<20> = Bytes::zeroed(20);
        bytes
            .as_mut_slice()
            .iter_mut()
            .zip(1..)
            .for_each(|(b, n)| *b = n);
        for len in 0..=20 {
            bytes.resize(len);
            assert_eq!(bytes, bytes.clone());
            for shorter in 0..len {
                let mut other = bytes.clone();
                other.resize(shorter);
                assert_ne!(bytes, other);
                let mut other = bytes.clone();
                other.as_mut_slice()[shorter] ^= 0x80;
                assert_ne!(bytes, other);
            }
            bytes.resize(0);
            bytes = Bytes::zeroed(20);
            bytes
                .as_mut_slice()
                .iter_mut()
                .zip(1..)
                .for_each(|(b, n)| *b = n);
        }
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut bytes: Bytes<8> = Bytes::new(&[1, 2, 3, 4]).unwrap();
        bytes.resize(2);
        bytes.resize(8);
        assert_eq!(bytes.as_slice(), [1, 2, 0, 0, 0, 0, 0, 0]);
        bytes.trim_end();
        bytes.pad_front(4);
        bytes.resize(6);
        assert_eq!(bytes.as_slice(), [0, 0, 1, 2, 0, 0]);
    }
}

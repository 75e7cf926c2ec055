//! DER, as much of it as certificates need: definite lengths below 64 KiB, one-octet tags.

use crate::{
    alg::{Curve, HashAlg},
    rc::{Rc, ensure},
};

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The tag of an explicit `[n]`.
pub(crate) const fn explicit(n: u8) -> u8 {
    0xA0 | n
}

const NULL: &[u8] = &[0x05, 0];

/// Object identifiers with tag and length.
pub(crate) mod oid {
    pub(crate) const KEY_USAGE: &[u8] = b"\x06\x03\x55\x1D\x0F";
    /// The attributes of a TPM object.
    pub(crate) const TPMA_OBJECT: &[u8] = b"\x06\x07\x67\x81\x05\x0A\x01\x01\x01";
    pub(crate) const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x01";
    pub(crate) const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2A\x86\x48\xCE\x3D\x02\x01";
    pub(crate) const MGF1: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x08";
    pub(crate) const RSA_PSS: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0A";
}

/// The identifier of a hash algorithm.
pub(crate) const fn hash_oid(hash: HashAlg) -> &'static [u8] {
    match hash {
        HashAlg::Sha1 => b"\x06\x05\x2B\x0E\x03\x02\x1A",
        HashAlg::Sha256 => b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01",
        HashAlg::Sha384 => b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02",
        HashAlg::Sha512 => b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03",
    }
}

/// The identifier of PKCS #1 v1.5 signatures with a hash algorithm.
pub(crate) const fn rsassa_oid(hash: HashAlg) -> &'static [u8] {
    match hash {
        HashAlg::Sha1 => b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x05",
        HashAlg::Sha256 => b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0B",
        HashAlg::Sha384 => b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0C",
        HashAlg::Sha512 => b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0D",
    }
}

/// The identifier of ECDSA with a hash algorithm.
pub(crate) const fn ecdsa_oid(hash: HashAlg) -> &'static [u8] {
    match hash {
        HashAlg::Sha1 => b"\x06\x07\x2A\x86\x48\xCE\x3D\x04\x01",
        HashAlg::Sha256 => b"\x06\x08\x2A\x86\x48\xCE\x3D\x04\x03\x02",
        HashAlg::Sha384 => b"\x06\x08\x2A\x86\x48\xCE\x3D\x04\x03\x03",
        HashAlg::Sha512 => b"\x06\x08\x2A\x86\x48\xCE\x3D\x04\x03\x04",
    }
}

/// The identifier of a curve, if it has one.
pub(crate) const fn curve_oid(curve: Curve) -> Option<&'static [u8]> {
    match curve {
        Curve::P256 => Some(b"\x06\x08\x2A\x86\x48\xCE\x3D\x03\x01\x07"),
        Curve::P384 => Some(b"\x06\x05\x2B\x81\x04\x00\x22"),
        Curve::P521 => Some(b"\x06\x05\x2B\x81\x04\x00\x23"),
        Curve::BnP256 => None,
    }
}

/// An element: its tag, its contents, and all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) contents: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Takes the next element off `rest`; [`Rc::VALUE`] if there is no whole one.
pub(crate) fn next<'a>(rest: &mut &'a [u8]) -> Result<Element<'a>, Rc> {
    let all = *rest;
    let [tag, first, after @ ..] = all else {
        return Err(Rc::VALUE);
    };
    ensure(tag & 0x1F != 0x1F, Rc::VALUE)?;
    let (len, after) = match (first, after) {
        (0..=0x7F, _) => (usize::from(*first), after),
        (0x81, [len, after @ ..]) => (usize::from(*len), after),
        (0x82, [high, low, after @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), after),
        _ => return Err(Rc::VALUE),
    };
    let (contents, after) = after.split_at_checked(len).ok_or(Rc::VALUE)?;
    let (whole, _) = all
        .split_at_checked(all.len() - after.len())
        .ok_or(Rc::VALUE)?;
    *rest = after;
    Ok(Element {
        tag: *tag,
        contents,
        whole,
    })
}

/// A bit string of up to 32 bits; its first bit is the result's highest.
pub(crate) fn bits(element: &Element<'_>) -> Result<u32, Rc> {
    let [unused, octets @ ..] = element.contents else {
        return Err(Rc::VALUE);
    };
    let shape = element.tag == BIT_STRING && octets.len() <= 4 && *unused < 8;
    ensure(shape && (*unused == 0 || !octets.is_empty()), Rc::VALUE)?;
    let value = octets
        .iter()
        .zip([24, 16, 8, 0])
        .fold(0, |sum, (octet, shift)| sum | u32::from(*octet) << shift);
    let used = 8 * octets.len() - usize::from(*unused);
    // Bits that are not used must be zero.
    ensure(used >= 32 || value << used == 0, Rc::VALUE)?;
    Ok(value)
}

/// Builds DER from its end to its beginning, so that each length is known when it is written.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl<'a> Builder<'a> {
    pub(crate) const fn new(room: &'a mut [u8]) -> Self {
        let at = room.len();
        Self { room, at }
    }

    /// Where what is built begins; an end for [`Builder::wrap`].
    pub(crate) const fn mark(&self) -> usize {
        self.at
    }

    /// What was built from `mark` on backwards.
    pub(crate) fn since(&self, mark: usize) -> &[u8] {
        self.room.get(self.at..mark).unwrap_or_default()
    }

    /// Puts `bytes` in front.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Rc> {
        let at = self.at.checked_sub(bytes.len()).ok_or(Rc::SIZE)?;
        self.room
            .get_mut(at..self.at)
            .ok_or(Rc::SIZE)?
            .copy_from_slice(bytes);
        self.at = at;
        Ok(())
    }

    /// Puts tag and length in front of contents of `len` bytes.
    pub(crate) fn head(&mut self, tag: u8, len: usize) -> Result<(), Rc> {
        let [high, low] = u16::try_from(len).map_err(|_| Rc::SIZE)?.to_be_bytes();
        match len {
            0..=0x7F => self.push(&[tag, low]),
            0x80..=0xFF => self.push(&[tag, 0x81, low]),
            _ => self.push(&[tag, 0x82, high, low]),
        }
    }

    /// Makes everything since `mark` the contents of an element.
    pub(crate) fn wrap(&mut self, tag: u8, mark: usize) -> Result<(), Rc> {
        self.head(tag, mark - self.at)
    }

    /// A positive integer from big-endian bytes.
    pub(crate) fn integer(&mut self, bytes: &[u8]) -> Result<(), Rc> {
        let mark = self.mark();
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        let digits = bytes.get(start..).unwrap_or_default();
        self.push(digits)?;
        if digits.first().is_none_or(|b| *b >= 0x80) {
            self.push(&[0])?;
        }
        self.wrap(INTEGER, mark)
    }

    /// An algorithm identifier without parameters, or with the NULL that some of them have.
    pub(crate) fn algorithm(&mut self, oid: &[u8], null: bool) -> Result<(), Rc> {
        let mark = self.mark();
        if null {
            self.push(NULL)?;
        }
        self.push(oid)?;
        self.wrap(SEQUENCE, mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        let mut room = [0; 400];
        let mut it = Builder::new(&mut room);
        let end = it.mark();
        it.push(&[7; 200]).unwrap();
        it.wrap(OCTET_STRING, end).unwrap();
        it.integer(&[0, 0, 0x80]).unwrap();
        it.wrap(SEQUENCE, end).unwrap();
        let mut rest = it.since(end);
        let outer = next(&mut rest).unwrap();
        assert!(rest.is_empty() && outer.tag == SEQUENCE);
        let mut rest = outer.contents;
        assert_eq!(next(&mut rest).unwrap().whole, [2, 2, 0, 0x80]);
        assert_eq!(next(&mut rest).unwrap().contents, [7; 200]);
        assert!(next(&mut rest).is_err());
    }

    #[test]
    fn bit_strings_are_read_from_their_first_bit() {
        let read = |bytes: &[u8]| bits(&next(&mut &*bytes).unwrap());
        assert_eq!(read(&[3, 2, 7, 0x80]), Ok(0x8000_0000));
        assert_eq!(read(&[3, 3, 7, 0, 0x80]), Ok(0x0080_0000));
        assert_eq!(read(&[3, 5, 0, 1, 2, 3, 4]), Ok(0x0102_0304));
        assert_eq!(read(&[3, 2, 7, 0xC0]), Err(Rc::VALUE));
        assert_eq!(read(&[3, 1, 3]), Err(Rc::VALUE));
        assert_eq!(read(&[3, 6, 0, 1, 2, 3, 4, 5]), Err(Rc::VALUE));
    }
}

//! The paddings of PKCS #1: OAEP, PSS and both of version 1.5. What undoes an encryption runs in constant time.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroize;

use super::{HashAlg, Hashing, RsaNumber, Stream, kdf::mgf1_xor};
use crate::rc::{Rc, ensure};

/// EME-OAEP: the padded block of `len` bytes.
pub(crate) fn oaep_encode(
    crypto: &(impl Hashing + ?Sized),
    hash: HashAlg,
    label: &[u8],
    message: &[u8],
    random: &mut dyn Stream,
    len: usize,
) -> Result<RsaNumber, Rc> {
    let h = hash.digest_len();
    ensure(message.len() + 2 * h + 2 <= len, Rc::VALUE)?;
    let mut block = RsaNumber::zeroed(len);
    let (_, rest) = block
        .as_mut_slice()
        .split_at_mut_checked(1)
        .ok_or(Rc::VALUE)?;
    let (seed, data) = rest.split_at_mut_checked(h).ok_or(Rc::VALUE)?;
    let at = data.len() - message.len();
    data.get_mut(..h)
        .ok_or(Rc::VALUE)?
        .copy_from_slice(crypto.hash(hash, &[label]).as_slice());
    data.get_mut(at..)
        .ok_or(Rc::VALUE)?
        .copy_from_slice(message);
    *data.get_mut(at - 1).ok_or(Rc::VALUE)? = 1;
    random.fill(seed);
    mgf1_xor(crypto, hash, seed, data);
    mgf1_xor(crypto, hash, data, seed);
    Ok(block)
}

/// The reverse. Whatever is wrong gives one error after the same time.
pub(crate) fn oaep_decode(
    crypto: &(impl Hashing + ?Sized),
    hash: HashAlg,
    label: &[u8],
    mut block: RsaNumber,
) -> Result<RsaNumber, Rc> {
    let h = hash.digest_len();
    ensure(block.len() >= 2 * h + 2, Rc::VALUE)?;
    let (first, rest) = block.as_mut_slice().split_first_mut().ok_or(Rc::VALUE)?;
    let (seed, data) = rest.split_at_mut_checked(h).ok_or(Rc::VALUE)?;
    mgf1_xor(crypto, hash, data, seed);
    mgf1_xor(crypto, hash, seed, data);
    let (label_hash, padded) = data.split_at_checked(h).ok_or(Rc::VALUE)?;
    let mut good = first.ct_eq(&0) & label_hash.ct_eq(crypto.hash(hash, &[label]).as_slice());
    let (start, found) = separator(padded, 1);
    good &= found;
    let result = finish(good, padded, start);
    block.zeroize();
    result
}

/// EME-PKCS1-v1_5.
pub(crate) fn pkcs1_encode(
    message: &[u8],
    random: &mut dyn Stream,
    len: usize,
) -> Result<RsaNumber, Rc> {
    ensure(message.len() + 11 <= len, Rc::VALUE)?;
    let mut block = RsaNumber::zeroed(len);
    let (head, tail) = block
        .as_mut_slice()
        .split_at_mut_checked(len - message.len())
        .ok_or(Rc::VALUE)?;
    tail.copy_from_slice(message);
    if let [_, kind, filler @ .., _] = head {
        *kind = 2;
        for byte in filler {
            while *byte == 0 {
                random.fill(core::slice::from_mut(byte));
            }
        }
    }
    Ok(block)
}

/// The reverse.
pub(crate) fn pkcs1_decode(mut block: RsaNumber) -> Result<RsaNumber, Rc> {
    let [zero, kind, padded @ ..] = block.as_slice() else {
        return Err(Rc::VALUE);
    };
    let mut good = zero.ct_eq(&0) & kind.ct_eq(&2);
    // The separator is the first zero; eight bytes of filler come before it.
    let mut start = 0u32;
    let mut found = Choice::from(0);
    for (byte, at) in padded.iter().zip(1u32..) {
        let here = byte.ct_eq(&0) & !found;
        start.conditional_assign(&at, here);
        found |= here;
    }
    good &= found;
    let long_enough = start.wrapping_sub(9) >> 31;
    good &= !Choice::from(u8::from(long_enough == 1));
    let result = finish(good, padded, start);
    block.zeroize();
    result
}

/// Where the message begins after zeros and one byte `mark`, and whether that is the form of `padded`.
fn separator(padded: &[u8], mark: u8) -> (u32, Choice) {
    let mut start = 0u32;
    let mut found = Choice::from(0);
    let mut good = Choice::from(1);
    for (byte, at) in padded.iter().zip(1u32..) {
        let is_mark = byte.ct_eq(&mark);
        let here = is_mark & !found;
        good &= found | is_mark | byte.ct_eq(&0);
        start.conditional_assign(&at, here);
        found |= here;
    }
    (start, good & found)
}

fn finish(good: Choice, padded: &[u8], start: u32) -> Result<RsaNumber, Rc> {
    if bool::from(good) {
        RsaNumber::new(padded.get(start as usize..).unwrap_or_default()).ok_or(Rc::VALUE)
    } else {
        Err(Rc::VALUE)
    }
}

/// What `DigestInfo` puts before a digest.
const fn digest_info(hash: HashAlg) -> &'static [u8] {
    match hash {
        HashAlg::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
        HashAlg::Sha256 => {
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
        }
        HashAlg::Sha384 => {
            b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
        }
        HashAlg::Sha512 => {
            b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
        }
    }
}

/// EMSA-PKCS1-v1_5.
pub(crate) fn pkcs1_sign(hash: HashAlg, digest: &[u8], len: usize) -> Result<RsaNumber, Rc> {
    let info = digest_info(hash);
    let tail = info.len() + digest.len();
    ensure(digest.len() == hash.digest_len(), Rc::SIZE)?;
    ensure(tail + 11 <= len, Rc::SIZE)?;
    let mut block = RsaNumber::EMPTY;
    block.extend(&[0, 1])?;
    while block.len() + 1 + tail < len {
        block.extend(&[0xFF])?;
    }
    block.extend(&[0])?;
    block.extend(info)?;
    block.extend(digest)?;
    Ok(block)
}

/// EMSA-PSS with a salt as long as the digest, or as long as there is room for. The modulus has a multiple of 8 bits.
pub(crate) fn pss_encode(
    crypto: &(impl Hashing + ?Sized),
    hash: HashAlg,
    digest: &[u8],
    random: &mut dyn Stream,
    len: usize,
) -> Result<RsaNumber, Rc> {
    let h = hash.digest_len();
    ensure(digest.len() == h, Rc::SIZE)?;
    let room = len.checked_sub(h + 2).ok_or(Rc::SIZE)?;
    let mut salt = super::Digest::zeroed(h.min(room));
    random.fill(salt.as_mut_slice());
    let mark = crypto.hash(hash, &[&[0; 8], digest, salt.as_slice()]);
    let mut block = RsaNumber::zeroed(len - h - 1 - salt.len() - 1);
    block.extend(&[1])?;
    block.extend(salt.as_slice())?;
    mgf1_xor(crypto, hash, mark.as_slice(), block.as_mut_slice());
    if let Some(first) = block.as_mut_slice().first_mut() {
        *first &= 0x7F;
    }
    block.extend(mark.as_slice())?;
    block.extend(&[0xBC])?;
    Ok(block)
}

/// Whether `block` is an EMSA-PSS encoding of `digest`, with a salt of any length.
pub(crate) fn pss_verify(
    crypto: &(impl Hashing + ?Sized),
    hash: HashAlg,
    digest: &[u8],
    mut block: RsaNumber,
) -> bool {
    let h = hash.digest_len();
    let Some(at) = block.len().checked_sub(h + 1) else {
        return false;
    };
    let Some((masked, tail)) = block.as_mut_slice().split_at_mut_checked(at) else {
        return false;
    };
    let Some((0xBC, mark)) = tail.split_last() else {
        return false;
    };
    if masked.first().is_none_or(|b| b & 0x80 != 0) {
        return false;
    }
    mgf1_xor(crypto, hash, mark, masked);
    if let Some(first) = masked.first_mut() {
        *first &= 0x7F;
    }
    let Some(one) = masked.iter().position(|b| *b != 0) else {
        return false;
    };
    let Some(([1], salt)) = masked
        .split_at_checked(one)
        .and_then(|(_, m)| m.split_at_checked(1))
    else {
        return false;
    };
    crypto.hash(hash, &[&[0; 8], digest, salt]).as_slice() == mark
}

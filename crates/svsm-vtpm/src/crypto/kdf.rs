//! Key derivation (Part 1, clause 11.4.10) and the mask generation function of PKCS #1.

use zeroize::Zeroize;

use super::{HashAlg, Hashing};

/// KDFa: SP 800-108 in counter mode with HMAC. Fills `out`, of which the first `bits % 8` bits are masked, if that is not 0.
pub(crate) fn kdfa(
    crypto: &(impl Hashing + ?Sized),
    alg: HashAlg,
    key: &[u8],
    label: &str,
    context: [&[u8]; 2],
    bits: u32,
    out: &mut [u8],
) {
    for (chunk, counter) in out.chunks_mut(alg.digest_len()).zip(1u32..) {
        let mut block = crypto.hmac(
            alg,
            key,
            &[
                &counter.to_be_bytes(),
                label.as_bytes(),
                &[0],
                context[0],
                context[1],
                &bits.to_be_bytes(),
            ],
        );
        copy_front(chunk, block.as_slice());
        block.zeroize();
    }
    mask(bits, out);
}

/// KDFe: the concatenation KDF of SP 800-56A over a shared secret.
pub(crate) fn kdfe(
    crypto: &(impl Hashing + ?Sized),
    alg: HashAlg,
    z: &[u8],
    label: &str,
    party: [&[u8]; 2],
    bits: u32,
    out: &mut [u8],
) {
    for (chunk, counter) in out.chunks_mut(alg.digest_len()).zip(1u32..) {
        let mut block = crypto.hash(
            alg,
            &[
                &counter.to_be_bytes(),
                z,
                label.as_bytes(),
                &[0],
                party[0],
                party[1],
            ],
        );
        copy_front(chunk, block.as_slice());
        block.zeroize();
    }
    mask(bits, out);
}

/// MGF1, exclusive-or'ed into `data`.
pub(crate) fn mgf1_xor(
    crypto: &(impl Hashing + ?Sized),
    alg: HashAlg,
    seed: &[u8],
    data: &mut [u8],
) {
    for (chunk, counter) in data.chunks_mut(alg.digest_len()).zip(0u32..) {
        let mut block = crypto.hash(alg, &[seed, &counter.to_be_bytes()]);
        for (byte, mask) in chunk.iter_mut().zip(block.as_slice()) {
            *byte ^= mask;
        }
        block.zeroize();
    }
}

/// The XOR obfuscation of session parameters: KDFa with label "XOR" and both nonces, exclusive-or'ed into `data`.
pub(crate) fn xor_obfuscate(
    crypto: &(impl Hashing + ?Sized),
    alg: HashAlg,
    key: &[u8],
    nonces: [&[u8]; 2],
    data: &mut [u8],
) {
    let bits = u32::try_from(data.len() * 8).unwrap_or(u32::MAX);
    for (chunk, counter) in data.chunks_mut(alg.digest_len()).zip(1u32..) {
        let block = crypto.hmac(
            alg,
            key,
            &[
                &counter.to_be_bytes(),
                b"XOR",
                &[0],
                nonces[0],
                nonces[1],
                &bits.to_be_bytes(),
            ],
        );
        for (byte, mask) in chunk.iter_mut().zip(block.as_slice()) {
            *byte ^= mask;
        }
    }
}

fn copy_front(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

fn mask(bits: u32, out: &mut [u8]) {
    if let (Some(first), extra @ 1..) = (out.first_mut(), bits % 8) {
        *first &= (1 << extra) - 1;
    }
}

//! Makes a quote and verifies it outside the TPM: what a verifier of a machine's boot does.
//!
//! `cargo run -p svsm-vtpm --example quote`

use std::time::Instant;

use p256::elliptic_curve::{
    ops::{Invert, MulByGeneratorVartime, Reduce},
    point::AffineCoordinates,
};
use sha2::{Digest, Sha256};
use svsm_vtpm::{
    Clock, Ephemeral, ObjectSlot, Random, SeamError, Seams, SessionSlot, Storage, Tpm,
    crypto::RustCrypto,
};

/// Not random at all: an example needs none.
struct Example(u8);

impl Random for Example {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        for byte in out {
            self.0 = self.0.wrapping_mul(37).wrapping_add(11);
            *byte = self.0;
        }
        Ok(())
    }
}

struct Uptime(Instant);

impl Clock for Uptime {
    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A command with one empty password, or without any authorization.
fn command(code: u16, handles: &[u32], auth: bool, params: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    if auth {
        body.extend(b"\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0");
    }
    body.extend(params);
    let mut out = vec![0x80, if auth { 2 } else { 1 }];
    out.extend(u32::try_from(body.len() + 10).unwrap_or(0).to_be_bytes());
    out.extend(u32::from(code).to_be_bytes());
    out.extend(body);
    out
}

/// Splits off what a 16-bit size precedes.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

type Scalar = p256::Scalar;

fn scalar(bytes: &[u8]) -> Option<Scalar> {
    let bytes: p256::FieldBytes = bytes.try_into().ok()?;
    Some(<Scalar as Reduce<p256::FieldBytes>>::reduce(&bytes))
}

/// ECDSA over P-256 with SHA-256.
fn verify(x: &[u8], y: &[u8], message: &[u8], r: &[u8], s: &[u8]) -> Option<bool> {
    let key: Option<p256::AffinePoint> =
        p256::AffinePoint::from_coordinates(x.try_into().ok()?, y.try_into().ok()?).into();
    let key = p256::ProjectivePoint::from(key?);
    let (z, r, s) = (scalar(&Sha256::digest(message))?, scalar(r)?, scalar(s)?);
    let w: Option<Scalar> = Invert::invert(&s).into();
    let w = w?;
    let point =
        p256::ProjectivePoint::mul_by_generator_and_mul_add_vartime(&(z * w), &(r * w), &key);
    Some(scalar(&point.to_affine().x())? == r)
}

fn run() -> Option<bool> {
    let (mut random, mut clock, mut store) = (Example(1), Uptime(Instant::now()), Ephemeral);
    let (mut input, mut output) = ([0; 4096], [0; 4096]);
    let mut objects = [const { ObjectSlot::EMPTY }; 3 + Storage::EXTRA_OBJECTS];
    let mut sessions = [const { SessionSlot::EMPTY }; 3];
    let mut nv = [0; Storage::NV_HEAD + 4096];
    let mut tpm = Tpm::new(
        Seams {
            crypto: &RustCrypto,
            random: &mut random,
            clock: &mut clock,
            store: &mut store,
        },
        Storage {
            command: &mut input,
            response: &mut output,
            objects: &mut objects,
            sessions: &mut sessions,
            nv: &mut nv,
        },
    )
    .ok()?;
    tpm.power_on().ok()?;
    tpm.execute(0, &command(0x144, &[], false, &[0, 0])).ok()?;

    // PCR_Extend(4, SHA-256 of what was loaded)
    let mut extend = vec![0, 0, 0, 1, 0, 0x0B];
    extend.extend(Sha256::digest(b"boot loader"));
    tpm.execute(0, &command(0x182, &[4], true, &extend)).ok()?;

    // CreatePrimary: a restricted ECDSA key below the owner.
    let template = b"\0\x23\0\x0B\0\x05\0\x72\0\0\0\x10\0\x18\0\x0B\0\x03\0\x10\0\0\0\0";
    let mut create = vec![0, 4, 0, 0, 0, 0];
    create.extend(u16::try_from(template.len()).ok()?.to_be_bytes());
    create.extend(template);
    create.extend([0; 6]);
    let response = tpm
        .execute(0, &command(0x131, &[0x4000_0001], true, &create))
        .ok()?;
    let key = u32::from_be_bytes(*response.get(10..)?.first_chunk()?);
    let (public, _) = sized(response.get(18..)?)?;
    let (x, rest) = sized(public.get(template.len() - 4..)?)?;
    let (y, _) = sized(rest)?;
    let (x, y) = (x.to_vec(), y.to_vec());

    // Quote of PCR 4 with the verifier's nonce.
    let quote = b"\0\x05nonce\0\x10\0\0\0\x01\0\x0B\x03\x10\0\0";
    let response = tpm.execute(0, &command(0x158, &[key], true, quote)).ok()?;
    let (attest, signature) = sized(response.get(14..)?)?;
    let (r, rest) = sized(signature.get(4..)?)?;
    let (s, _) = sized(rest)?;

    let expected = Sha256::digest(Sha256::digest(
        [&[0; 32][..], &Sha256::digest(b"boot loader")].concat(),
    ));
    let genuine = verify(&x, &y, attest, r, s)?;
    println!(
        "signature of the quote: {}",
        if genuine { "good" } else { "bad" }
    );
    println!("PCR 4 is what was booted: {}", attest.ends_with(&expected));
    Some(genuine && attest.ends_with(&expected))
}

fn main() {
    assert_eq!(run(), Some(true), "the quote does not verify");
}

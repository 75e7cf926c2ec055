//! Post-quantum keys, by their commands.

mod attestation; // what ML-DSA keys attest
mod hostile; // commands that were cut and changed
mod kem; // encapsulation, and secrets sent to a key
mod keys; // keys made, loaded, kept and moved
mod offer; // what a TPM says that it has
mod signing; // messages and digests
mod vectors; // known answers

use std::{vec, vec::Vec};

use super::bench::{Bench, Shelf};
use crate::{
    HashAlg, Rc,
    crypto::{DsaMath as _, DsaSet, Hashing as _, RustCrypto, kdf, shake::Shake},
};

const NULL: u32 = 0x4000_0007;
const FIRST: u32 = 0x8000_0000;
const DECRYPT: u8 = 2;
const SIGN: u8 = 4;
const RESTRICTED: u8 = 1;
/// Buffers that everything fits into.
const LARGE: usize = 8192;

fn started() -> Bench {
    started_with(&Shelf::default(), LARGE)
}

fn started_with(shelf: &Shelf, buffers: usize) -> Bench {
    let mut bench = Bench::with_lattices(shelf, buffers);
    bench.ok(0x144, &[], &[0, 0]);
    bench
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// Takes a sized field off the front.
fn field<'r>(response: &mut &'r [u8]) -> &'r [u8] {
    let (len, rest) = response.split_at(2);
    let (field, rest) = rest.split_at(usize::from(u16::from_be_bytes(len.try_into().unwrap())));
    *response = rest;
    field
}

/// A template of a fixed key that the owner of its value uses, with this `unique`.
fn template(alg: u8, use_for: u8, params: &[u8], unique: &[u8]) -> Vec<u8> {
    let head = [0, alg, 0, 0x0B, 0, use_for, 0, 0x72, 0, 0];
    [&head, params, &sized(unique)[..]].concat()
}

fn kem(set: u8) -> Vec<u8> {
    template(0xA0, DECRYPT, &[0, 0x10, 0, set], &[])
}

fn kem_storage(set: u8) -> Vec<u8> {
    let params = [0, 6, 0, 128, 0, 0x43, 0, set];
    template(0xA0, DECRYPT | RESTRICTED, &params, &[])
}

fn dsa(set: u8, external_mu: u8) -> Vec<u8> {
    template(0xA1, SIGN, &[0, set, external_mu], &[])
}

fn hash_dsa(set: u8, hash: u8) -> Vec<u8> {
    template(0xA2, SIGN, &[0, set, 0, hash], &[])
}

/// The parameters of Create or CreatePrimary.
fn creation(public: &[u8]) -> Vec<u8> {
    [&[0, 4, 0, 0, 0, 0], &sized(public)[..], &[0; 6]].concat()
}

/// The public key at the end of a public area.
fn unique_of(public: &[u8], len: usize) -> &[u8] {
    let (head, key) = public.split_at(public.len() - len);
    assert!(head.ends_with(&u16::try_from(len).unwrap().to_be_bytes()));
    key
}

/// The public area in the response to CreatePrimary.
fn public_of(mut response: &[u8]) -> &[u8] {
    field(&mut response)
}

fn name_of(public: &[u8]) -> Vec<u8> {
    let hash = RustCrypto.hash(HashAlg::Sha256, &[public]);
    [&[0, 0x0B], hash.as_slice()].concat()
}

/// Whether a signature holds, as somebody outside finds out.
fn holds(
    set: DsaSet,
    hash: Option<HashAlg>,
    key: &[u8],
    context: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let mut sponge = Shake::of_message(&RustCrypto, key, hash, context);
    match hash {
        None => sponge.absorb(&RustCrypto, message),
        Some(hash) => sponge.absorb(&RustCrypto, RustCrypto.hash(hash, &[message]).as_slice()),
    }
    RustCrypto.dsa_verify(set, key, &sponge.finish(&RustCrypto), signature)
}

/// A session whose HMACs are computed here.
struct HmacSession {
    handle: u32,
    nonce: Vec<u8>,
    key: Vec<u8>,
}

impl HmacSession {
    /// Starts an unbound session with the salt that `encrypted` is for `key_handle`.
    fn start(bench: &mut Bench, key_handle: u32, encrypted: &[u8], salt: &[u8]) -> Self {
        let caller = [7; 16];
        let params = [
            &sized(&caller)[..],
            &sized(encrypted),
            &[0, 0, 0x10, 0, 0x0B],
        ]
        .concat();
        let response = bench.ok(0x176, &[key_handle, NULL], &params);
        let nonce = response[6..].to_vec();
        let mut key = vec![];
        if !salt.is_empty() {
            key = vec![0; 32];
            let context: [&[u8]; 2] = [&nonce, &caller];
            kdf::kdfa(
                &RustCrypto,
                HashAlg::Sha256,
                salt,
                "ATH",
                context,
                256,
                &mut key,
            );
        }
        Self {
            handle: u32::from_be_bytes(response[..4].try_into().unwrap()),
            nonce,
            key,
        }
    }

    /// A command that this session authorizes for the first handle, which has the value `auth`; passwords do it for the others.
    fn run(
        &mut self,
        bench: &mut Bench,
        code: u16,
        handles: &[(u32, &[u8])],
        auths: usize,
        auth: &[u8],
        params: &[u8],
    ) -> (Rc, Vec<u8>) {
        let code = u32::from(code).to_be_bytes();
        let names: Vec<u8> = handles.iter().flat_map(|h| h.1.iter().copied()).collect();
        let hash = RustCrypto.hash(HashAlg::Sha256, &[&code, &names, params]);
        let key = [&self.key[..], auth].concat();
        let caller = [9; 16];
        let parts = [hash.as_slice(), &caller, &self.nonce, &[1]];
        let hmac = RustCrypto.hmac(HashAlg::Sha256, &key, &parts);
        let mut area = self.handle.to_be_bytes().to_vec();
        area.extend(sized(&caller));
        area.push(1);
        area.extend(sized(hmac.as_slice()));
        for _ in 1..auths {
            area.extend([0x40, 0, 0, 9, 0, 0, 1, 0, 0]);
        }
        let mut body = code.to_vec();
        handles.iter().for_each(|h| body.extend(h.0.to_be_bytes()));
        body.extend(u32::try_from(area.len()).unwrap().to_be_bytes());
        body.extend(area);
        body.extend(params);
        let mut command = vec![0x80, 2];
        command.extend(u32::try_from(6 + body.len()).unwrap().to_be_bytes());
        command.extend(body);
        let (rc, response) = bench.raw(0, &command);
        if rc != Rc::SUCCESS {
            return (rc, response);
        }
        // The session's nonce is the first one after the parameters.
        let len = u32::from_be_bytes(response[..4].try_into().unwrap());
        let (params, mut rest) = response[4..].split_at(usize::try_from(len).unwrap());
        self.nonce = field(&mut rest).to_vec();
        (rc, params.to_vec())
    }
}

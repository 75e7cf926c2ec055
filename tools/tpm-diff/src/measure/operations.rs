//! The operations that are timed.

use anyhow::{Context, Result};

use super::Bench;
use crate::generate::{external, plain, sized};

/// What is timed.
pub(crate) struct Operation {
    pub(super) name: &'static str,
    /// By how much fewer runs it gets.
    pub(super) costs: usize,
    pub(super) run: fn(&mut Bench<'_>, usize) -> Result<()>,
}

const fn operation(
    name: &'static str,
    costs: usize,
    run: fn(&mut Bench<'_>, usize) -> Result<()>,
) -> Operation {
    Operation { name, costs, run }
}

/// Startup(CLEAR).
pub(crate) const STARTUP: [u8; 12] = *b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";

const OWNER: u32 = 0x4000_0001;
const NULL: u32 = 0x4000_0007;
const FIRST: u32 = 0x8000_0000;
const POLICY: u32 = 0x0300_0000;
const INDEX: u32 = 0x0150_0000;
const SHA256: [u8; 2] = [0, 0x0B];
const SHA384: [u8; 2] = [0, 0x0C];

const ECC_STORAGE: &[u8] =
    b"\0\x23\0\x0B\0\x03\0\x72\0\0\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10\0\0\0\0";
const RSA_STORAGE: &[u8] =
    b"\0\x01\0\x0B\0\x03\0\x72\0\0\0\x06\0\x80\0\x43\0\x10\x08\0\0\0\0\0\0\0";
const ECC_SIGNING: &[u8] = b"\0\x23\0\x0B\0\x04\0\x72\0\0\0\x10\0\x18\0\x0B\0\x03\0\x10\0\0\0\0";
const RSA_SIGNING: &[u8] = b"\0\x01\0\x0B\0\x04\0\x72\0\0\0\x10\0\x14\0\x0B\x08\0\0\0\0\0\0\0";
const ECC_DECRYPT: &[u8] = b"\0\x23\0\x0B\0\x02\0\x72\0\0\0\x10\0\x19\0\x0B\0\x03\0\x10\0\0\0\0";

pub(super) const OPERATIONS: &[Operation] = &[
    operation("first power on (manufacture)", 1, |tpm, _| tpm.reset()),
    operation("power cycle", 1, |tpm, _| tpm.power_cycle()),
    operation("Startup(CLEAR)", 1, |tpm, _| {
        tpm.peer.power_cycle()?;
        tpm.timed(&STARTUP).map(drop)
    }),
    operation("GetRandom(32)", 1, |tpm, _| {
        tpm.repeated(&plain(0x17B, &[], 0, &[0, 32]))
    }),
    operation("GetCapability, 64 properties", 1, |tpm, _| {
        tpm.repeated(&plain(0x17A, &[], 0, b"\0\0\0\x06\0\0\x01\0\0\0\0\x40"))
    }),
    operation("SelfTest(full)", 4, |tpm, _| {
        tpm.timed(&plain(0x143, &[], 0, &[1])).map(drop)
    }),
    operation("PCR_Read sha256:0-7", 1, |tpm, _| {
        tpm.repeated(&plain(0x17E, &[], 0, b"\0\0\0\x01\0\x0B\x03\xFF\0\0"))
    }),
    operation("PCR_Extend sha256", 1, |tpm, _| {
        let digest = [&b"\0\0\0\x01\0\x0B"[..], &[7; 32]].concat();
        tpm.repeated(&plain(0x182, &[16], 1, &digest))
    }),
    operation("PCR_Event 1 KiB, all banks", 1, |tpm, _| {
        tpm.repeated(&plain(0x13C, &[16], 1, &sized(&[7; 1024])))
    }),
    operation("Hash sha256 1 KiB", 1, |tpm, _| hash(tpm, SHA256)),
    operation("Hash sha384 1 KiB", 1, |tpm, _| hash(tpm, SHA384)),
    operation("HMAC sha256 1 KiB", 1, |tpm, run| {
        if run == 0 {
            load_external(tpm, 8, b"\0\x05\0\x0B", &[5; 32])?;
        }
        let params = [&sized(&[7; 1024])[..], &SHA256].concat();
        tpm.repeated(&plain(0x155, &[FIRST], 1, &params))
    }),
    operation("EncryptDecrypt2 AES-128-CFB 1 KiB", 1, |tpm, run| {
        if run == 0 {
            load_external(tpm, 0x25, b"\0\x06\0\x80\0\x43", &[5; 16])?;
        }
        let params = [&sized(&[7; 1024])[..], &[0, 0, 0x43], &sized(&[1; 16])].concat();
        tpm.repeated(&plain(0x193, &[FIRST], 1, &params))
    }),
    operation("ReadPublic", 1, |tpm, run| {
        if run == 0 {
            primary(tpm, ECC_STORAGE, 0)?;
        }
        tpm.repeated(&plain(0x173, &[FIRST], 0, &[]))
    }),
    operation("CreatePrimary ECC P-256", 1, |tpm, run| {
        let handle = handle(&tpm.timed(&create_primary(ECC_STORAGE, 4, run))?)?;
        flush(tpm, handle)
    }),
    operation("CreatePrimary RSA-2048", 4, |tpm, run| {
        let handle = handle(&tpm.timed(&create_primary(RSA_STORAGE, 2, run))?)?;
        flush(tpm, handle)
    }),
    operation("Create ECC P-256 signing key", 1, |tpm, run| {
        create(tpm, ECC_SIGNING, run)
    }),
    operation("Create RSA-2048 signing key", 6, |tpm, run| {
        create(tpm, RSA_SIGNING, run)
    }),
    operation("Load ECC P-256", 1, |tpm, _| {
        primary(tpm, ECC_STORAGE, 0)?;
        let made = tpm.plain(&plain(0x153, &[FIRST], 1, &creation(ECC_SIGNING)))?;
        // Private and public areas follow the size of the parameters.
        let private = field(&made, 14)?;
        let public = field(&made, 14 + private.len())?;
        let areas = [private, public].concat();
        let loaded = handle(&tpm.timed(&plain(0x157, &[FIRST], 1, &areas))?)?;
        flush(tpm, loaded)?;
        flush(tpm, FIRST)
    }),
    operation("Sign ECDSA P-256", 1, |tpm, run| {
        sign(tpm, ECC_SIGNING, run)
    }),
    operation("Sign RSASSA-2048", 1, |tpm, run| {
        sign(tpm, RSA_SIGNING, run)
    }),
    operation("VerifySignature ECDSA P-256", 1, |tpm, run| {
        verify(tpm, ECC_SIGNING, run)
    }),
    operation("VerifySignature RSASSA-2048", 1, |tpm, run| {
        verify(tpm, RSA_SIGNING, run)
    }),
    operation("Quote ECDSA P-256, 24 PCRs", 1, |tpm, run| {
        quote(tpm, ECC_SIGNING, run)
    }),
    operation("Quote RSASSA-2048, 24 PCRs", 1, |tpm, run| {
        quote(tpm, RSA_SIGNING, run)
    }),
    operation("RSA_Encrypt OAEP 2048", 1, |tpm, run| {
        if run == 0 {
            rsa_external(tpm)?;
        }
        tpm.timed(&rsa_encrypt()).map(drop)
    }),
    operation("RSA_Decrypt OAEP 2048", 1, |tpm, run| {
        if run == 0 {
            rsa_external(tpm)?;
        }
        let secret = tpm.plain(&rsa_encrypt())?;
        let secret = field(&secret, 10)?;
        let params = [secret, b"\0\x17\0\x0B\0\0"].concat();
        tpm.timed(&plain(0x159, &[FIRST], 1, &params)).map(drop)
    }),
    operation("ECDH_KeyGen P-256", 1, |tpm, run| {
        if run == 0 {
            primary(tpm, ECC_DECRYPT, 0)?;
        }
        tpm.timed(&plain(0x163, &[FIRST], 0, &[])).map(drop)
    }),
    operation("MakeCredential, ECC", 1, |tpm, run| {
        let command = make_credential(tpm, run)?;
        tpm.timed(&command).map(drop)
    }),
    operation("ActivateCredential, ECC", 1, |tpm, run| {
        let command = make_credential(tpm, run)?;
        let made = tpm.plain(&command)?;
        let blob = field(&made, 10)?;
        let secret = field(&made, 10 + blob.len())?;
        let params = [blob, secret].concat();
        tpm.timed(&plain(0x147, &[FIRST, FIRST], 2, &params))
            .map(drop)
    }),
    operation("ContextSave, Load, Flush, ECC key", 1, |tpm, run| {
        if run == 0 {
            primary(tpm, ECC_STORAGE, 0)?;
        }
        let saved = tpm.timed(&plain(0x162, &[FIRST], 0, &[]))?;
        let context = saved.get(10..).context("no context")?;
        let loaded = handle(&tpm.timed(&plain(0x161, &[], 0, context))?)?;
        tpm.timed(&plain(0x165, &[], 0, &loaded.to_be_bytes()))
            .map(drop)
    }),
    operation("policy session: start, flush", 1, |tpm, _| {
        tpm.timed(&start_session())?;
        tpm.timed(&plain(0x165, &[], 0, &POLICY.to_be_bytes()))
            .map(drop)
    }),
    operation("PolicyPCR session, 4 commands", 1, |tpm, _| {
        tpm.timed(&start_session())?;
        tpm.timed(&plain(
            0x17F,
            &[POLICY],
            0,
            b"\0\0\0\0\0\x01\0\x0B\x03\xFF\0\0",
        ))?;
        tpm.timed(&plain(0x189, &[POLICY], 0, &[]))?;
        tpm.timed(&plain(0x165, &[], 0, &POLICY.to_be_bytes()))
            .map(drop)
    }),
    operation("NV_Write 64 B", 1, |tpm, run| {
        if run == 0 {
            define(tpm)?;
        }
        let value = [u8::try_from(run % 251)?; 64];
        let params = [&sized(&value)[..], &[0, 0]].concat();
        tpm.timed(&plain(0x137, &[OWNER, INDEX], 1, &params))
            .map(drop)
    }),
    operation("NV_Read 64 B", 1, |tpm, run| {
        if run == 0 {
            define(tpm)?;
            let params = [&sized(&[1; 64])[..], &[0, 0]].concat();
            tpm.plain(&plain(0x137, &[OWNER, INDEX], 1, &params))?;
        }
        tpm.repeated(&plain(0x14E, &[OWNER, INDEX], 1, &[0, 64, 0, 0]))
    }),
];

fn hash(tpm: &mut Bench<'_>, alg: [u8; 2]) -> Result<()> {
    let params = [&sized(&[7; 1024])[..], &alg, &NULL.to_be_bytes()].concat();
    tpm.repeated(&plain(0x17D, &[], 0, &params))
}

/// The handle that begins what a response says.
fn handle(response: &[u8]) -> Result<u32> {
    let bytes = response.get(10..14).context("no handle")?;
    Ok(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

/// The sized field at `at`, with its size.
fn field(response: &[u8], at: usize) -> Result<&[u8]> {
    let size = response.get(at..at + 2).context("no field")?;
    let len = size.iter().fold(0, |n, b| n << 8 | usize::from(*b));
    response.get(at..at + 2 + len).context("a short field")
}

fn flush(tpm: &mut Bench<'_>, handle: u32) -> Result<()> {
    tpm.plain(&plain(0x165, &[], 0, &handle.to_be_bytes()))
        .map(drop)
}

fn creation(template: &[u8]) -> Vec<u8> {
    [&[0, 4, 0, 0, 0, 0], &sized(template)[..], &[0; 6]].concat()
}

/// Runs differ in the unique field, which ends the template: one primary key is found sooner than another.
fn create_primary(template: &[u8], unique_len: usize, run: usize) -> Vec<u8> {
    let run = u16::try_from(run % 65_536)
        .unwrap_or_default()
        .to_be_bytes();
    let mut template = template.to_vec();
    template.truncate(template.len() - unique_len);
    template.extend([0, 2]);
    template.extend(run);
    if unique_len == 4 {
        template.extend([0, 0]);
    }
    plain(0x131, &[OWNER], 1, &creation(&template))
}

fn primary(tpm: &mut Bench<'_>, template: &[u8], _: usize) -> Result<()> {
    tpm.plain(&plain(0x131, &[OWNER], 1, &creation(template)))
        .map(drop)
}

fn create(tpm: &mut Bench<'_>, template: &[u8], run: usize) -> Result<()> {
    if run == 0 {
        primary(tpm, ECC_STORAGE, 0)?;
    }
    tpm.timed(&plain(0x153, &[FIRST], 1, &creation(template)))
        .map(drop)
}

fn load_external(tpm: &mut Bench<'_>, kind: u8, parameters: &[u8], secret: &[u8]) -> Result<()> {
    let key = external::symmetric(kind, parameters, secret);
    let params = [&key[..], &NULL.to_be_bytes()].concat();
    tpm.plain(&plain(0x167, &[], 0, &params)).map(drop)
}

fn rsa_external(tpm: &mut Bench<'_>) -> Result<()> {
    let params = [&external::rsa_decrypt()[..], &NULL.to_be_bytes()].concat();
    tpm.plain(&plain(0x167, &[], 0, &params)).map(drop)
}

fn rsa_encrypt() -> Vec<u8> {
    let params = [&sized(&[7; 32])[..], b"\0\x17\0\x0B\0\0"].concat();
    plain(0x174, &[FIRST], 0, &params)
}

fn signature(tpm: &mut Bench<'_>, template: &[u8], run: usize) -> Result<Vec<u8>> {
    if run == 0 {
        primary(tpm, template, 0)?;
    }
    // No scheme but the key's, and no ticket.
    let params = [&sized(&[9; 32])[..], b"\0\x10\x80\x24\x40\0\0\x07\0\0"].concat();
    Ok(plain(0x15D, &[FIRST], 1, &params))
}

fn sign(tpm: &mut Bench<'_>, template: &[u8], run: usize) -> Result<()> {
    let command = signature(tpm, template, run)?;
    tpm.timed(&command).map(drop)
}

fn verify(tpm: &mut Bench<'_>, template: &[u8], run: usize) -> Result<()> {
    let command = signature(tpm, template, run)?;
    let signed = tpm.plain(&command)?;
    // The signature stands between the size of the parameters and the sessions, of which an empty password leaves five bytes.
    let end = signed.len().saturating_sub(5);
    let signature = signed.get(14..end).context("no signature")?;
    let params = [&sized(&[9; 32])[..], signature].concat();
    tpm.timed(&plain(0x177, &[FIRST], 0, &params)).map(drop)
}

fn quote(tpm: &mut Bench<'_>, template: &[u8], run: usize) -> Result<()> {
    if run == 0 {
        primary(tpm, template, 0)?;
    }
    let params = b"\0\x04once\0\x10\0\0\0\x01\0\x0B\x03\xFF\xFF\xFF";
    tpm.timed(&plain(0x158, &[FIRST], 1, params)).map(drop)
}

/// A command that wraps a secret for the storage key, to be opened by whoever has that key too.
fn make_credential(tpm: &mut Bench<'_>, run: usize) -> Result<Vec<u8>> {
    if run == 0 {
        primary(tpm, ECC_STORAGE, 0)?;
    }
    let read = tpm.plain(&plain(0x173, &[FIRST], 0, &[]))?;
    let public = field(&read, 10)?;
    let name = field(&read, 10 + public.len())?;
    let params = [&sized(&[3; 16])[..], name].concat();
    Ok(plain(0x168, &[FIRST], 0, &params))
}

fn start_session() -> Vec<u8> {
    let params = [&sized(&[1; 16])[..], b"\0\0\x01\0\x10\0\x0B"].concat();
    plain(0x176, &[NULL, NULL], 0, &params)
}

/// An ordinary index that the owner reads and writes.
fn define(tpm: &mut Bench<'_>) -> Result<()> {
    let public = [&INDEX.to_be_bytes()[..], b"\0\x0B\0\x02\0\x02\0\0\0\x40"].concat();
    let params = [&[0, 0], &sized(&public)[..]].concat();
    tpm.plain(&plain(0x12A, &[OWNER], 1, &params)).map(drop)
}

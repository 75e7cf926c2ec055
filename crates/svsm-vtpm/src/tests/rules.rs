//! Single rules of Part 3 that a comparison with another TPM showed to be missed, or checked in another order than there.

use std::{vec, vec::Vec};

use super::bench::{Bench, ECC_SIGNING, ECC_STORAGE, OWNER};
use crate::{
    Rc,
    crypto::{Hashing as _, RustCrypto},
};

const NULL: u32 = 0x4000_0007;
const LOCKOUT: u32 = 0x4000_000A;
const FIRST: u32 = 0x8000_0000;

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// The parameters of Create and CreatePrimary, with data for the new object.
fn creation(template: &[u8], data: &[u8]) -> Vec<u8> {
    let sensitive = [&[0, 0], &sized(data)[..]].concat();
    [&sized(&sensitive), &sized(template)[..], &[0; 6]].concat()
}

/// StartAuthSession without a key: bound or not, of a type, with parameters encrypted by AES-128 in a mode or not at all.
fn session(bench: &mut Bench, bind: u32, kind: u8, cipher: &[u8]) -> (Rc, Vec<u8>) {
    let params = [&[0, 16][..], &[1; 16], &[0, 0, kind], cipher, &[0, 0x0B]].concat();
    bench.run(0x176, &[NULL, bind], &[], &params)
}

/// A command with these sessions, each with its attributes and without an HMAC.
fn with_sessions(
    bench: &mut Bench,
    code: u16,
    handles: &[u32],
    used: &[(u32, u8)],
    params: &[u8],
) -> Rc {
    let mut area = Vec::new();
    for (handle, attributes) in used {
        area.extend(handle.to_be_bytes());
        area.extend([0, 0, *attributes, 0, 0]);
    }
    let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    body.extend(u32::try_from(area.len()).unwrap().to_be_bytes());
    body.extend(area);
    body.extend(params);
    let mut command = vec![0x80, 2];
    command.extend(u32::try_from(10 + body.len()).unwrap().to_be_bytes());
    command.extend(u32::from(code).to_be_bytes());
    command.extend(body);
    bench.raw(0, &command).0
}

#[test]
fn clear_brings_back_the_protection_and_ends_pcr_values() {
    let mut bench = Bench::started();
    // Two tries, and a value for PCR 20.
    let mut params = vec![];
    for n in [2u32, 10, 10] {
        params.extend(n.to_be_bytes());
    }
    bench.ok_auth(0x13A, &[LOCKOUT], &params);
    bench.ok_auth(0x183, &[20], b"\0\x01x");
    assert_eq!(
        bench.run(0x183, &[20], &[b""], b"\0\0").0,
        Rc::BAD_AUTH.session(1)
    );
    bench.ok_auth(0x126, &[LOCKOUT], &[]);
    // TPM_PT_MAX_AUTH_FAIL, LOCKOUT_INTERVAL, LOCKOUT_RECOVERY.
    let said = bench.ok(0x17A, &[], b"\0\0\0\x06\0\0\x02\x0F\0\0\0\x03");
    let values: Vec<u32> = said[9..]
        .chunks(8)
        .map(|pair| u32::from_be_bytes(pair[4..].try_into().unwrap()))
        .collect();
    assert_eq!(values, [32, 7200, 86400]);
    bench.ok_auth(0x183, &[20], b"\0\0");
}

#[test]
fn a_session_stands_in_a_command_once() {
    let mut bench = Bench::started();
    assert_eq!(session(&mut bench, NULL, 0, &[0, 0x10]).0, Rc::SUCCESS);
    let twice = [(0x0200_0000, 1), (0x0200_0000, 0x81)];
    let rc = with_sessions(&mut bench, 0x126, &[LOCKOUT], &twice, &[]);
    assert_eq!(rc, Rc::HANDLE.session(2));
}

#[test]
fn a_trial_session_does_not_even_encrypt() {
    let mut bench = Bench::started();
    let (rc, _) = session(&mut bench, NULL, 3, b"\0\x06\0\x80\0\x43");
    assert_eq!(rc, Rc::SUCCESS);
    // GetRandom, with its response encrypted.
    let rc = with_sessions(&mut bench, 0x17B, &[], &[(0x0300_0000, 0x41)], &[0, 8]);
    assert_eq!(rc, Rc::ATTRIBUTES.session(1));
}

#[test]
fn no_session_is_bound_to_a_pin() {
    let mut bench = Bench::started();
    // An index for a PIN of eight bytes, which counts failures.
    let public = b"\x01\x80\0\0\0\x0B\x02\x04\0\x82\0\0\0\x08";
    let params = [&[0, 0], &sized(public)[..]].concat();
    bench.ok_auth(0x12A, &[OWNER], &params);
    let (rc, _) = session(&mut bench, 0x0180_0000, 0, &[0, 0x10]);
    assert_eq!(rc, Rc::HANDLE.handle(2));
}

#[test]
fn a_session_is_bound_to_a_sequence() {
    let mut bench = Bench::started();
    bench.ok(0x186, &[], b"\0\x01x\0\x0B");
    assert_eq!(session(&mut bench, FIRST, 0, &[0, 0x10]).0, Rc::SUCCESS);
}

#[test]
fn attributes_of_an_index_are_looked_at_before_who_defines_it() {
    let mut bench = Bench::started();
    // Cleared at a restart and locked for ever, both; and the owner's, but defined by the platform.
    let public = b"\x01\x50\0\0\0\x0B\x0C\x06\x20\x06\0\0\0\x08";
    let params = [&[0, 0], &sized(public)[..]].concat();
    let (rc, _) = bench.run(0x12A, &[0x4000_000C], &[b""], &params);
    assert_eq!(rc, Rc::ATTRIBUTES.param(2));
}

#[test]
fn a_lock_is_looked_at_before_who_may_write() {
    let mut bench = Bench::started();
    // An index of the owner's that the platform may not write, and that all locks lock.
    let public = b"\x01\x50\0\0\0\x0B\0\x02\x80\x02\0\0\0\x08";
    let params = [&[0, 0], &sized(public)[..]].concat();
    bench.ok_auth(0x12A, &[OWNER], &params);
    let index = 0x0150_0000;
    let write = |bench: &mut Bench| {
        bench
            .run(0x137, &[0x4000_000C, index], &[b""], &[0, 1, 9, 0, 0])
            .0
    };
    assert_eq!(write(&mut bench), Rc::NV_AUTHORIZATION);
    bench.ok_auth(0x132, &[0x4000_000C], &[]);
    assert_eq!(write(&mut bench), Rc::NV_LOCKED);
    bench.ok_auth(0x138, &[0x4000_000C, index], &[]);
}

#[test]
fn a_policy_that_is_empty_fails() {
    let mut bench = Bench::started();
    bench.create_primary(OWNER, ECC_SIGNING);
    assert_eq!(session(&mut bench, NULL, 1, &[0, 0x10]).0, Rc::SUCCESS);
    // Unseal, which is refused before anybody asks whether the object has data.
    let rc = with_sessions(&mut bench, 0x15E, &[FIRST], &[(0x0300_0000, 1)], &[]);
    assert_eq!(rc, Rc::POLICY_FAIL.session(1));
    // PCR 20 has a policy, which nobody has set; PCR 16 has none.
    for (pcr, code) in [(20, Rc::POLICY_FAIL.session(1)), (16, Rc::AUTH_UNAVAILABLE)] {
        let rc = with_sessions(&mut bench, 0x13C, &[pcr], &[(0x0300_0000, 1)], &[0, 0]);
        assert_eq!(rc, code, "{pcr}");
    }
}

#[test]
fn a_key_that_takes_no_credentials_is_of_the_wrong_type() {
    let mut bench = Bench::started();
    bench.create_primary(OWNER, ECC_SIGNING);
    let (rc, _) = bench.run(0x147, &[FIRST, FIRST], &[b"", b""], &[0, 0, 0, 0]);
    assert_eq!(rc, Rc::TYPE.handle(2));
}

#[test]
fn what_a_session_is_bound_to_is_looked_at_before_its_cipher() {
    let mut bench = Bench::started();
    let (key, made) = bench.create_primary(OWNER, ECC_SIGNING);
    let public = made[..2 + usize::from(u16::from_be_bytes([made[0], made[1]]))].to_vec();
    bench.ok(0x165, &[], &key.to_be_bytes());
    let params = [&[0, 0], &public[..], &OWNER.to_be_bytes()].concat();
    bench.ok(0x167, &[], &params);
    let cbc = b"\0\x06\0\x80\0\x42";
    let (rc, _) = session(&mut bench, FIRST, 0, cbc);
    assert_eq!(rc, Rc::HANDLE.handle(2));
    assert_eq!(session(&mut bench, NULL, 0, cbc).0, Rc::MODE.param(4));
}

#[test]
fn data_for_what_the_tpm_makes_are_refused_below_a_parent_only() {
    let mut bench = Bench::started();
    bench.ok_auth(0x131, &[OWNER], &creation(ECC_STORAGE, &[1; 8]));
    let (rc, _) = bench.run(0x153, &[FIRST], &[b""], &creation(ECC_SIGNING, &[1; 8]));
    assert_eq!(rc, Rc::ATTRIBUTES.param(2));
    bench.ok_auth(0x153, &[FIRST], &creation(ECC_SIGNING, &[]));
}

#[test]
fn x509sign_means_nothing_in_a_key_that_does_not_sign() {
    let mut bench = Bench::started();
    let mut template = ECC_STORAGE.to_vec();
    template[5] |= 0x08;
    bench.ok_auth(0x131, &[OWNER], &creation(&template, &[]));
}

#[test]
fn an_object_of_no_hierarchy_has_the_wrong_attributes_to_stay() {
    let mut bench = Bench::started();
    bench.create_primary(NULL, ECC_STORAGE);
    let persistent = 0x8100_0000u32.to_be_bytes();
    let (rc, _) = bench.run(0x120, &[OWNER, FIRST], &[b""], &persistent);
    assert_eq!(rc, Rc::ATTRIBUTES.handle(2));
}

#[test]
fn a_session_that_is_not_there_is_missed_before_the_sessions() {
    let mut bench = Bench::started();
    let password = [(0x4000_0009, 1)];
    let rc = with_sessions(&mut bench, 0x162, &[0x0300_0001], &password, &[]);
    assert_eq!(rc, Rc::REFERENCE_H0);
}

#[test]
fn a_timeout_has_eight_bytes() {
    let mut bench = Bench::started();
    let (_, started) = session(&mut bench, NULL, 1, &[0, 0x10]);
    let nonce = &started[4..22];
    // PolicySecret of the owner, for a ticket: ten seconds from now.
    let params = [nonce, &[0; 4], &(-10i32).to_be_bytes()].concat();
    let said = bench.ok_auth(0x151, &[OWNER, 0x0300_0000], &params);
    let timeout = &said[4..14];
    assert_eq!(timeout[..2], [0, 8]);
    let ticket = &said[14..said.len() - 5];
    assert_eq!(ticket[..2], [0x80, 0x23]);
    // The ticket, in a session that began anew.
    bench.ok(0x180, &[0x0300_0000], &[]);
    let owner = [&[0, 4], &OWNER.to_be_bytes()[..]].concat();
    let by_ticket = |timeout: &[u8]| [timeout, &[0; 4], &owner, ticket].concat();
    let mut later = timeout.to_vec();
    later[9] ^= 1;
    let (rc, _) = bench.run(0x172, &[0x0300_0000], &[], &by_ticket(&later));
    assert_eq!(rc, Rc::TICKET.param(5));
    bench.ok(0x172, &[0x0300_0000], &by_ticket(timeout));
}

#[test]
fn a_trial_session_takes_a_parameter_hash_of_any_length() {
    let mut bench = Bench::started();
    session(&mut bench, NULL, 3, &[0, 0x10]);
    let params = [&[0, 0], &sized(&[1; 20])[..], &[0; 6]].concat();
    bench.ok_auth(0x151, &[OWNER, 0x0300_0000], &params);
    let mut bench = Bench::started();
    session(&mut bench, NULL, 1, &[0, 0x10]);
    let (rc, _) = bench.run(0x151, &[OWNER, 0x0300_0000], &[b""], &params);
    assert_eq!(rc, Rc::SIZE.param(2));
}

#[test]
fn whether_a_command_is_there_is_asked_once_all_is_read() {
    let mut bench = Bench::started();
    session(&mut bench, NULL, 1, &[0, 0x10]);
    let ask = |bench: &mut Bench, params: &[u8]| bench.run(0x16C, &[0x0300_0000], &[], params).0;
    assert_eq!(ask(&mut bench, &[0, 0, 1, 0x2F, 0]), Rc::SIZE);
    assert_eq!(ask(&mut bench, &[0, 0, 1, 0x2F]), Rc::POLICY_CC.param(1));
}

#[test]
fn a_key_for_codes_is_one_by_its_mode() {
    let mut bench = Bench::started();
    let template = |attributes: u8, mode: u8| {
        let head = [0, 0x25, 0, 0x0B, 0, attributes, 0, 0x72, 0, 0];
        [&head[..], &[0, 6, 0, 0x80, 0, mode, 0, 0]].concat()
    };
    const SIGN: u8 = 4;
    const DECRYPT: u8 = 2;
    const CMAC: u8 = 0x3F;
    let refused = creation(&template(DECRYPT, CMAC), &[]);
    let (rc, _) = bench.run(0x131, &[OWNER], &[b""], &refused);
    assert_eq!(rc, Rc::SCHEME.param(2));
    bench.ok_auth(0x131, &[OWNER], &creation(&template(SIGN, CMAC), &[]));
    bench.ok_auth(0x131, &[OWNER], &creation(&template(SIGN, 0x43), &[]));
    let data = sized(b"message");
    let by = |alg: u8| [&data[..], &[0, alg]].concat();
    let codes = [0x10, CMAC].map(|alg| bench.ok_auth(0x155, &[FIRST], &by(alg)));
    assert_eq!(codes[0], codes[1]);
    // A hash is no code of a cipher's, and a key for CFB is none for codes.
    let (rc, _) = bench.run(0x155, &[FIRST], &[b""], &by(0x0B));
    assert_eq!(rc, Rc::VALUE.param(2));
    let (rc, _) = bench.run(0x155, &[FIRST + 1], &[b""], &by(0x10));
    assert_eq!(rc, Rc::SCHEME.param(2));
    // Nor does a key for codes encrypt.
    let encrypt = [&data[..], &[0, 0, 0x10], &sized(&[0; 16])].concat();
    let (rc, _) = bench.run(0x193, &[FIRST], &[b""], &encrypt);
    assert_eq!(rc, Rc::MODE.handle(1));
}

#[test]
fn an_identity_is_no_longer_than_two_digests() {
    let mut bench = Bench::started();
    bench.create_primary(OWNER, ECC_SIGNING);
    let params = [&sized(&[0; 133])[..], &[0, 0]].concat();
    let (rc, _) = bench.run(0x147, &[FIRST, FIRST], &[b"", b""], &params);
    assert_eq!(rc, Rc::SIZE.param(1));
}

#[test]
fn a_key_without_a_name_gets_no_ticket() {
    let mut bench = Bench::started();
    let (key, response) = bench.create_primary(OWNER, ECC_SIGNING);
    let digest = sized(&[7; 32]);
    let ticket = [0x80, 0x24, 0x40, 0, 0, 7, 0, 0];
    let signature = bench.ok_auth(0x15D, &[key], &[&digest[..], &[0, 0x10], &ticket].concat());
    let params = [&digest[..], &signature[4..signature.len() - 5]].concat();
    assert_eq!(bench.ok(0x177, &[key], &params)[2..6], OWNER.to_be_bytes());

    let len = usize::from(u16::from_be_bytes([response[0], response[1]]));
    let mut public = response[2..2 + len].to_vec();
    public[3] = 0x10;
    public[7] = 0x40;
    let load = [&[0, 0], &sized(&public)[..], &OWNER.to_be_bytes()].concat();
    bench.ok(0x167, &[], &load);
    let verified = bench.ok(0x177, &[0x8000_0001], &params);
    assert_eq!(verified, b"\x80\x22\x40\0\0\x07\0\0");
}

/// When this fails, contexts have another layout, and those that are about must not be read as it: raise the layout's number.
#[test]
fn the_layout_of_contexts_is_frozen() {
    let mut bench = Bench::started();
    let nonce = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[0x4000_0007, 0x4000_0007], &nonce);
    bench.ok(0x186, &[], &[0, 0, 0, 0x0B]);
    let (key, _) = bench.create_primary(OWNER, ECC_SIGNING);
    let saved = [0x0300_0000, 0x8000_0000, key].map(|handle| bench.ok(0x162, &[handle], &[]));
    for handle in [0x8000_0000, key] {
        bench.ok(0x165, &[], &handle.to_be_bytes());
    }
    for context in &saved {
        bench.ok(0x161, &[], context);
    }
    let hash = RustCrypto.hash(crate::HashAlg::Sha256, &[&saved.concat()]);
    assert_eq!(
        (saved.map(|context| context.len()), &hash.as_slice()[..8]),
        ([154, 166, 223], &[172, 52, 28, 96, 119, 186, 73, 154][..])
    );
}

use std::{vec, vec::Vec};

use super::{
    super::bench::{Bench, ECC_SIGNING, OWNER, RSA_SIGNING, Shelf},
    FIRST, HmacSession, LARGE, NULL, RESTRICTED, SIGN, dsa, field, hash_dsa, holds, name_of,
    public_of, sized, started, started_with, template, unique_of,
};
use crate::{
    HashAlg, Rc, Resume,
    crypto::{DsaSet, Hashing as _, RustCrypto, shake::Shake},
};

const GENERATED: &[u8] = b"\xFFTCG";
/// An HMAC key, and a restricted one.
const HMAC: &[u8] = b"\0\x08\0\x0B\0\x04\0\x72\0\0\0\x05\0\x0B\0\0";
const RESTRICTED_HMAC: &[u8] = b"\0\x08\0\x0B\0\x05\0\x72\0\0\0\x05\0\x0B\0\0";
const ECC_NO_SCHEME: &[u8] = b"\0\x23\0\x0B\0\x04\0\x72\0\0\0\x10\0\x10\0\x03\0\x10\0\0\0\0";
const ECDAA: &[u8] = b"\0\x23\0\x0B\0\x04\0\x72\0\0\0\x10\0\x1A\0\x0B\0\0\0\x10\0\x10\0\0\0\0";

fn handle(response: &[u8]) -> u32 {
    u32::from_be_bytes(response[..4].try_into().unwrap())
}

fn start_signing(bench: &mut Bench, key: u32, context: &[u8]) -> u32 {
    let params = [sized(b""), sized(context)].concat();
    handle(&bench.ok(0x1AA, &[key], &params))
}

fn start_verifying(bench: &mut Bench, key: u32, context: &[u8]) -> u32 {
    let params = [sized(b""), sized(b""), sized(context)].concat();
    handle(&bench.ok(0x1A9, &[key], &params))
}

fn update(bench: &mut Bench, sequence: u32, data: &[u8]) {
    bench.ok_auth(0x15C, &[sequence], &sized(data));
}

fn complete(bench: &mut Bench, sequence: u32, key: u32, data: &[u8]) -> (Rc, Vec<u8>) {
    let (rc, response) = bench.run(0x1A4, &[sequence, key], &[b"", b""], &sized(data));
    // Between the length of the parameters and the two sessions.
    let end = response.len().saturating_sub(10);
    (rc, response.get(4..end).unwrap_or_default().to_vec())
}

fn sign(bench: &mut Bench, key: u32, context: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let sequence = start_signing(bench, key, context);
    let (last, others) = parts.split_last().unwrap();
    others.iter().for_each(|part| update(bench, sequence, part));
    let (rc, signature) = complete(bench, sequence, key, last);
    assert_eq!(rc, Rc::SUCCESS);
    signature
}

/// The ticket, or why there is none.
fn verify(
    bench: &mut Bench,
    key: u32,
    context: &[u8],
    parts: &[&[u8]],
    signature: &[u8],
) -> Result<Vec<u8>, Rc> {
    let sequence = start_verifying(bench, key, context);
    for piece in parts.iter().flat_map(|part| part.chunks(1000)) {
        update(bench, sequence, piece);
    }
    let (rc, response) = bench.run(0x1A3, &[sequence, key], &[b""], signature);
    if rc == Rc::SUCCESS {
        return Ok(response[4..response.len() - 5].to_vec());
    }
    // A sequence that was not completed is still there.
    bench.ok(0x165, &[], &sequence.to_be_bytes());
    Err(rc)
}

#[test]
fn messages_in_pieces_are_signed_and_verified() {
    let long = [0x33; 1024];
    for (public, set, hash) in [
        (dsa(1, 0), DsaSet::MlDsa44, None),
        (dsa(2, 1), DsaSet::MlDsa65, None),
        (dsa(3, 0), DsaSet::MlDsa87, None),
        (hash_dsa(1, 0x0B), DsaSet::MlDsa44, Some(HashAlg::Sha256)),
        (hash_dsa(2, 0x0D), DsaSet::MlDsa65, Some(HashAlg::Sha512)),
    ] {
        let mut bench = started();
        let (key, response) = bench.create_primary(OWNER, &public);
        let own = unique_of(public_of(&response), set.public_len()).to_vec();
        for (context, parts) in [
            (&b""[..], &[&b"one"[..]][..]),
            (b"context", &[b"a", b"", &long, &long, b"tail"]),
            (&[7; 255], &[b""]),
        ] {
            let signature = sign(&mut bench, key, context, parts);
            let head = 2 + if hash.is_some() { 2 } else { 0 };
            assert_eq!(signature[..2], public[..2]);
            let value = field(&mut &signature[head..]).to_vec();
            let message = parts.concat();
            assert!(holds(set, hash, &own, context, &message, &value));
            let ticket = verify(&mut bench, key, context, &[&message[..]], &signature);
            let ticket = ticket.map(|ticket| (ticket[..6].to_vec(), ticket.len()));
            assert_eq!(ticket, Ok((b"\x80\x26\x40\0\0\x01".to_vec(), 72)));
            let wrong = verify(&mut bench, key, b"other", &[&message[..]], &signature);
            assert_eq!(wrong, Err(Rc::SIGNATURE.param(1)));
            let wrong = verify(&mut bench, key, context, &[&message[..], b"x"], &signature);
            assert_eq!(wrong, Err(Rc::SIGNATURE.param(1)));
            let mut wrong = signature.clone();
            *wrong.last_mut().unwrap() ^= 1;
            let wrong = verify(&mut bench, key, context, &[&message[..]], &wrong);
            assert_eq!(wrong, Err(Rc::SIGNATURE.param(1)));
        }
        let long = [sized(b""), sized(&[7; 256])].concat();
        assert_eq!(bench.run(0x1AA, &[key], &[], &long).0, Rc::SIZE.param(2));
    }
}

#[test]
fn other_keys_sign_messages_too() {
    let mut bench = started();
    for (public, alg) in [(ECC_SIGNING, 0x18), (RSA_SIGNING, 0x14), (HMAC, 5)] {
        let (key, _) = bench.create_primary(OWNER, public);
        let signature = sign(&mut bench, key, b"", &[b"a mess", b"age"]);
        assert_eq!(signature[..4], [0, alg, 0, 0x0B]);
        assert!(verify(&mut bench, key, b"", &[b"a message"], &signature).is_ok());
        let wrong = verify(&mut bench, key, b"", &[b"another"], &signature);
        assert_eq!(wrong, Err(Rc::SIGNATURE.param(1)));
        // No other scheme than the key's.
        let mut other = signature.clone();
        other[3] = 0x0C;
        if alg != 5 {
            let wrong = verify(&mut bench, key, b"", &[b"a message"], &other);
            assert_eq!(wrong, Err(Rc::SCHEME.param(1)));
        }
        let context = [sized(b""), sized(b"c")].concat();
        assert_eq!(
            bench.run(0x1AA, &[key], &[], &context).0,
            Rc::VALUE.param(2)
        );
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
    // An HMAC of the message, as TPM2_HMAC makes it.
    let (key, _) = bench.create_primary(OWNER, HMAC);
    let signature = sign(&mut bench, key, b"", &[b"a mess", b"age"]);
    let params = [&sized(b"a message")[..], &[0, 0x10]].concat();
    let code = bench.ok_auth(0x155, &[key], &params);
    assert_eq!(field(&mut &code[4..]), &signature[4..]);
}

#[test]
fn sequences_are_for_keys_that_sign() {
    let mut bench = started();
    let empty = [0; 4];
    for (public, code) in [
        (super::kem(1), Rc::KEY.handle(1)),
        (super::super::bench::ECC_STORAGE.to_vec(), Rc::KEY.handle(1)),
        (ECC_NO_SCHEME.to_vec(), Rc::SCHEME.handle(1)),
    ] {
        let (key, _) = bench.create_primary(OWNER, &public);
        assert_eq!(bench.run(0x1AA, &[key], &[], &empty).0, code);
        let (rc, _) = bench.run(0x1A9, &[key], &[], &[0; 6]);
        assert_eq!(rc, code);
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
    let (key, _) = bench.create_primary(OWNER, &dsa(1, 0));
    let (rc, _) = bench.run(0x1A9, &[key], &[], &[0, 0, 0, 1, 9, 0, 0]);
    assert_eq!(rc, Rc::VALUE.param(2));
    // ECDAA is signed with a counter, and never verified.
    let (anonymous, _) = bench.create_primary(OWNER, ECDAA);
    let (rc, _) = bench.run(0x1A9, &[anonymous], &[], &[0; 6]);
    assert_eq!(rc, Rc::SCHEME.handle(1));
    assert_eq!(
        bench.run(0x1AA, &[anonymous], &[], &empty).0,
        Rc::SIZE.param(2)
    );
}

#[test]
fn a_sequence_is_completed_by_its_command_with_its_key() {
    let mut bench = started();
    let (key, _) = bench.create_primary(OWNER, &dsa(1, 0));
    let (other, _) = bench.create_primary(OWNER, &hash_dsa(1, 0x0B));
    let sequence = start_signing(&mut bench, key, b"");
    update(&mut bench, sequence, b"mess");
    let (rc, _) = complete(&mut bench, sequence, other, b"xx");
    assert_eq!(rc, Rc::SIGN_CONTEXT_KEY.handle(2));
    let signature = [&[0, 0xA1][..], &sized(&[0; 2420])].concat();
    let (rc, _) = bench.run(0x1A3, &[sequence, key], &[b""], &signature);
    assert_eq!(rc, Rc::MODE.handle(1));
    let data = [&sized(b"")[..], &NULL.to_be_bytes()].concat();
    let (rc, _) = bench.run(0x13E, &[sequence], &[b""], &data);
    assert_eq!(rc, Rc::MODE.handle(1));
    // Nor is a hash signed, or a key a sequence.
    bench.ok(0x165, &[], &other.to_be_bytes());
    let hash = handle(&bench.ok(0x186, &[], &[0, 0, 0, 0x0B]));
    let (rc, _) = complete(&mut bench, hash, key, b"");
    assert_eq!(rc, Rc::MODE.handle(1));
    bench.ok(0x165, &[], &hash.to_be_bytes());
    let (rc, _) = complete(&mut bench, key, key, b"");
    assert_eq!(rc, Rc::MODE.handle(1));
    // After all of that the sequence is as it was, and then it is gone.
    let (rc, signature) = complete(&mut bench, sequence, key, b"age");
    assert_eq!(rc, Rc::SUCCESS);
    assert!(verify(&mut bench, key, b"", &[b"message"], &signature).is_ok());
    let (rc, _) = complete(&mut bench, sequence, key, b"");
    assert_eq!(rc, Rc::REFERENCE_H0);
    // Another algorithm's signature is none of this key.
    let (other, _) = bench.create_primary(OWNER, &hash_dsa(1, 0x0B));
    let wrong = verify(&mut bench, other, b"", &[b"message"], &signature);
    assert_eq!(wrong, Err(Rc::SCHEME.param(1)));
}

#[test]
fn restricted_keys_sign_nothing_that_looks_like_the_tpms_own() {
    let mut bench = started();
    for public in [
        template(0xA1, SIGN | RESTRICTED, &[0, 1, 0], &[]),
        template(0xA2, SIGN | RESTRICTED, &[0, 1, 0, 0x0B], &[]),
    ] {
        let (key, _) = bench.create_primary(OWNER, &public);
        for (parts, code) in [
            (&[GENERATED][..], Rc::VALUE.param(1)),
            (&[b"\xFF", b"TCG", b"rest"], Rc::VALUE.param(1)),
            (&[b"\xFFT", b"", b"CGx"], Rc::VALUE.param(1)),
            (&[b"\xFFTC", b"H"], Rc::SUCCESS),
            (&[b"\xFFTC"], Rc::SUCCESS),
        ] {
            let sequence = start_signing(&mut bench, key, b"");
            let (last, others) = parts.split_last().unwrap();
            for part in others {
                update(&mut bench, sequence, part);
            }
            let (rc, _) = complete(&mut bench, sequence, key, last);
            assert_eq!(rc, code);
            if rc != Rc::SUCCESS {
                bench.ok(0x165, &[], &sequence.to_be_bytes());
            }
        }
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
    let (key, _) = bench.create_primary(OWNER, RESTRICTED_HMAC);
    let sequence = start_signing(&mut bench, key, b"");
    let (rc, _) = complete(&mut bench, sequence, key, b"message");
    assert_eq!(rc, Rc::ATTRIBUTES.handle(2));
}

#[test]
fn a_sequence_has_a_value_of_its_own() {
    let mut bench = started();
    let (key, response) = bench.create_primary(OWNER, &dsa(1, 0));
    let name = name_of(public_of(&response));
    let params = [sized(b"secret"), sized(b"")].concat();
    let sequence = handle(&bench.ok(0x1AA, &[key], &params));
    let (rc, _) = bench.run(0x15C, &[sequence], &[b""], &sized(b"a"));
    assert_eq!(rc, Rc::BAD_AUTH.session(1));
    // A sequence has no name.
    let mut session = HmacSession::start(&mut bench, NULL, b"", b"");
    let handles = [(sequence, &b""[..])];
    for data in [b"mess", b"age."] {
        let (rc, _) = session.run(&mut bench, 0x15C, &handles, 1, b"secret", &sized(data));
        assert_eq!(rc, Rc::SUCCESS);
    }
    let handles = [(sequence, &b""[..]), (key, &name)];
    let (rc, _) = session.run(&mut bench, 0x1A4, &handles, 2, b"wrong", &sized(b""));
    assert_eq!(rc.base(), Rc::BAD_AUTH.base());
    let mut session = HmacSession::start(&mut bench, NULL, b"", b"");
    let (rc, signature) = session.run(&mut bench, 0x1A4, &handles, 2, b"secret", &sized(b""));
    assert_eq!(rc, Rc::SUCCESS);
    assert!(verify(&mut bench, key, b"", &[b"message."], &signature).is_ok());
    // Without the key's authorization nothing is signed.
    let sequence = start_signing(&mut bench, key, b"");
    let (rc, _) = bench.run(0x1A4, &[sequence, key], &[b""], &sized(b""));
    assert_eq!(rc, Rc::AUTH_MISSING);
}

#[test]
fn sequences_outlive_contexts_and_a_suspended_tpm() {
    const KEY: [u8; 32] = [0x5A; 32];
    for public in [
        dsa(1, 0),
        hash_dsa(1, 0x0D),
        ECC_SIGNING.to_vec(),
        HMAC.to_vec(),
    ] {
        let shelf = Shelf::default();
        let mut bench = started_with(&shelf, LARGE);
        let (key, _) = bench.create_primary(OWNER, &public);
        let signature = sign(&mut bench, key, b"", &[b"a message"]);
        let sequence = start_verifying(&mut bench, key, b"");
        update(&mut bench, sequence, b"a mes");
        let context = bench.ok(0x162, &[sequence], &[]);
        bench.ok(0x165, &[], &sequence.to_be_bytes());
        let sequence = handle(&bench.ok(0x161, &[], &context));
        let mut blob = vec![0; bench.tpm.volatile_max()];
        let len = bench.tpm.save_volatile(&KEY, &mut blob).unwrap();
        let mut resumed = Bench::with_lattices(&shelf, LARGE);
        resumed
            .tpm
            .restore_volatile(&KEY, &mut blob[..len], Resume::Exactly)
            .unwrap();
        let mut tickets = [&mut bench, &mut resumed].map(|bench| {
            update(bench, sequence, b"sage");
            let (rc, response) = bench.run(0x1A3, &[sequence, key], &[b""], &signature);
            assert_eq!(rc, Rc::SUCCESS);
            response
        });
        // The same one, and the one that the whole message gets.
        assert_eq!(tickets[0], tickets[1]);
        let ticket = tickets[0].split_off(4);
        let whole = verify(&mut bench, key, b"", &[b"a message"], &signature).unwrap();
        assert!(ticket.starts_with(&whole));
    }
}

/// SignDigest.
fn sign_digest(bench: &mut Bench, key: u32, context: &[u8], digest: &[u8]) -> (Rc, Vec<u8>) {
    sign_digest_with(
        bench,
        key,
        context,
        digest,
        &[0x80, 0x24, 0x40, 0, 0, 7, 0, 0],
    )
}

fn sign_digest_with(
    bench: &mut Bench,
    key: u32,
    context: &[u8],
    digest: &[u8],
    ticket: &[u8],
) -> (Rc, Vec<u8>) {
    let params = [&sized(context)[..], &sized(digest), ticket].concat();
    let (rc, response) = bench.run(0x1A6, &[key], &[b""], &params);
    let end = response.len().saturating_sub(5);
    (rc, response.get(4..end).unwrap_or_default().to_vec())
}

fn verify_digest(
    bench: &mut Bench,
    key: u32,
    context: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> (Rc, Vec<u8>) {
    let params = [&sized(context)[..], &sized(digest), signature].concat();
    bench.run(0x1A5, &[key], &[], &params)
}

#[test]
fn hashes_are_signed_by_ml_dsa_of_hashes() {
    let mut bench = started();
    let (key, response) = bench.create_primary(OWNER, &hash_dsa(2, 0x0C));
    let own = unique_of(public_of(&response), 1952).to_vec();
    let digest = RustCrypto.hash(HashAlg::Sha384, &[b"a message"]);
    let digest = digest.as_slice();
    let (rc, signature) = sign_digest(&mut bench, key, b"ctx", digest);
    assert_eq!(rc, Rc::SUCCESS);
    assert_eq!(signature[..4], [0, 0xA2, 0, 0x0C]);
    let value = field(&mut &signature[4..]).to_vec();
    let hash = Some(HashAlg::Sha384);
    assert!(holds(
        DsaSet::MlDsa65,
        hash,
        &own,
        b"ctx",
        b"a message",
        &value
    ));
    // One way or the other.
    assert!(verify(&mut bench, key, b"ctx", &[b"a message"], &signature).is_ok());
    let (rc, ticket) = verify_digest(&mut bench, key, b"ctx", digest, &signature);
    assert_eq!((rc, ticket.len()), (Rc::SUCCESS, 74));
    assert_eq!(ticket[..10], *b"\x80\x27\x40\0\0\x01\0\x0C\0\x40");
    let mut other = signature.clone();
    other[3] = 0x0B;
    for (context, digest, signature, code) in [
        (&b""[..], digest, &signature, Rc::SIGNATURE.param(3)),
        (b"ctx", &[0; 48], &signature, Rc::SIGNATURE.param(3)),
        (b"ctx", &digest[1..], &signature, Rc::SIZE.param(2)),
        (b"ctx", digest, &other, Rc::SCHEME.param(3)),
    ] {
        let (rc, _) = verify_digest(&mut bench, key, context, digest, signature);
        assert_eq!(rc, code);
    }
    let (rc, _) = sign_digest(&mut bench, key, b"", &digest[1..]);
    assert_eq!(rc, Rc::SIZE.param(2));
    // A ticket that is there must be right, also if none is needed.
    let wrong = [&[0x80, 0x24, 0x40, 0, 0, 1][..], &sized(&[0; 64])].concat();
    let (rc, _) = sign_digest_with(&mut bench, key, b"", digest, &wrong);
    assert_eq!(rc, Rc::TICKET.param(3));
}

#[test]
fn the_representative_of_a_message_comes_from_outside_if_the_key_allows_it() {
    let mut bench = started();
    let (key, response) = bench.create_primary(OWNER, &dsa(3, 1));
    let own = unique_of(public_of(&response), 2592).to_vec();
    let mut sponge = Shake::of_message(&RustCrypto, &own, None, b"ctx");
    sponge.absorb(&RustCrypto, b"a message");
    let mu = sponge.finish(&RustCrypto);
    let (rc, signature) = sign_digest(&mut bench, key, b"", &mu);
    assert_eq!((rc, signature.len()), (Rc::SUCCESS, 4 + 4627));
    assert!(verify(&mut bench, key, b"ctx", &[b"a message"], &signature).is_ok());
    let (rc, ticket) = verify_digest(&mut bench, key, b"", &mu, &signature);
    assert_eq!((rc, &ticket[6..8]), (Rc::SUCCESS, &[0, 0x2B][..]));
    let (rc, _) = verify_digest(&mut bench, key, b"ctx", &mu, &signature);
    assert_eq!(rc, Rc::VALUE.param(1));
    let (rc, _) = sign_digest(&mut bench, key, b"ctx", &mu);
    assert_eq!(rc, Rc::VALUE.param(1));
    let (rc, _) = sign_digest(&mut bench, key, b"", &mu[..32]);
    assert_eq!(rc, Rc::SIZE.param(2));

    let (strict, _) = bench.create_primary(OWNER, &dsa(3, 0));
    let (rc, _) = sign_digest(&mut bench, strict, b"", &mu);
    assert_eq!(rc, Rc::ATTRIBUTES.handle(1));
    let (rc, _) = verify_digest(&mut bench, strict, b"", &mu, &signature);
    assert_eq!(rc, Rc::ATTRIBUTES.handle(1));
}

#[test]
fn other_keys_sign_digests_by_their_own_scheme() {
    let mut bench = started();
    let digest = RustCrypto.hash(HashAlg::Sha256, &[b"a message"]);
    let digest = digest.as_slice();
    for public in [ECC_SIGNING, RSA_SIGNING] {
        let (key, _) = bench.create_primary(OWNER, public);
        let (rc, signature) = sign_digest(&mut bench, key, b"", digest);
        assert_eq!(rc, Rc::SUCCESS);
        assert_eq!(
            verify_digest(&mut bench, key, b"", digest, &signature).0,
            rc
        );
        let (rc, _) = verify_digest(&mut bench, key, b"c", digest, &signature);
        assert_eq!(rc, Rc::VALUE.param(1));
        let (rc, _) = sign_digest(&mut bench, key, b"c", digest);
        assert_eq!(rc, Rc::VALUE.param(1));
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
    for (public, code) in [
        (HMAC, Rc::SCHEME.handle(1)),
        (ECC_NO_SCHEME, Rc::SCHEME.handle(1)),
        (super::super::bench::ECC_STORAGE, Rc::KEY.handle(1)),
    ] {
        let (key, _) = bench.create_primary(OWNER, public);
        assert_eq!(sign_digest(&mut bench, key, b"", digest).0, code);
        let signature = [&[0, 0x18, 0, 0x0B][..], &sized(&[1]), &sized(&[1])].concat();
        let (rc, _) = verify_digest(&mut bench, key, b"", digest, &signature);
        assert_eq!(rc, code);
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
}

#[test]
fn restricted_keys_sign_what_the_tpm_hashed() {
    let mut bench = started();
    let public = template(0xA2, SIGN | RESTRICTED, &[0, 1, 0, 0x0B], &[]);
    let (key, _) = bench.create_primary(OWNER, &public);
    let hash = |bench: &mut Bench, data: &[u8]| {
        let params = [&sized(data)[..], &[0, 0x0B], &OWNER.to_be_bytes()].concat();
        let response = bench.ok(0x17D, &[], &params);
        let mut rest = &response[..];
        (field(&mut rest).to_vec(), rest.to_vec())
    };
    let (digest, ticket) = hash(&mut bench, b"a message");
    let (rc, signature) = sign_digest_with(&mut bench, key, b"", &digest, &ticket);
    assert_eq!(rc, Rc::SUCCESS);
    assert!(verify(&mut bench, key, b"", &[b"a message"], &signature).is_ok());
    let (rc, _) = sign_digest(&mut bench, key, b"", &digest);
    assert_eq!(rc, Rc::TICKET.param(3));
    let (digest, ticket) = hash(&mut bench, b"\xFFTCG and more");
    let (rc, _) = sign_digest_with(&mut bench, key, b"", &digest, &ticket);
    assert_eq!(rc, Rc::TICKET.param(3));
    // Nobody hashes to a representative.
    let (key, _) = bench.create_primary(OWNER, &template(0xA1, 5, &[0, 1, 1], &[]));
    let (rc, _) = sign_digest(&mut bench, key, b"", &[7; 64]);
    assert_eq!(rc, Rc::TICKET.param(3));
}

/// A policy session, and PolicyAuthorize in it.
fn authorize(
    bench: &mut Bench,
    approved: &[u8],
    reference: &[u8],
    name: &[u8],
    ticket: &[u8],
) -> Rc {
    let start = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    let session = handle(&bench.ok(0x176, &[NULL, NULL], &start));
    let params = [
        &sized(approved)[..],
        &sized(reference),
        &sized(name),
        ticket,
    ]
    .concat();
    let (rc, _) = bench.run(0x16A, &[session], &[], &params);
    bench.ok(0x165, &[], &session.to_be_bytes());
    rc
}

#[test]
fn a_policy_is_authorized_by_any_ticket_about_a_signature() {
    let mut bench = started();
    // The policy of a session in which nothing was asserted.
    let approved = [0; 32];
    let message = [&approved[..], b"ref"].concat();
    for public in [dsa(1, 0), hash_dsa(1, 0x0C), ECC_SIGNING.to_vec()] {
        let (key, response) = bench.create_primary(OWNER, &public);
        let name = name_of(public_of(&response));
        let signature = sign(&mut bench, key, b"", &[&message]);
        let ticket = verify(&mut bench, key, b"", &[&message], &signature).unwrap();
        assert_eq!(
            authorize(&mut bench, &approved, b"ref", &name, &ticket),
            Rc::SUCCESS
        );
        let rc = authorize(&mut bench, &approved, b"fer", &name, &ticket);
        assert_eq!(rc, Rc::VALUE.param(4));
        // The tag is part of what is proven.
        let mut other = ticket.clone();
        other[1] = 0x22;
        let rc = authorize(&mut bench, &approved, b"ref", &name, &other);
        assert_eq!(rc, Rc::VALUE.param(4));
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
    // A digest by another hash than the name's.
    let (key, response) = bench.create_primary(OWNER, &hash_dsa(1, 0x0C));
    let name = name_of(public_of(&response));
    let digest = RustCrypto.hash(HashAlg::Sha384, &[&message]);
    let (_, signature) = sign_digest(&mut bench, key, b"", digest.as_slice());
    let (rc, ticket) = verify_digest(&mut bench, key, b"", digest.as_slice(), &signature);
    assert_eq!(rc, Rc::SUCCESS);
    assert_eq!(
        authorize(&mut bench, &approved, b"ref", &name, &ticket),
        Rc::SUCCESS
    );
    let mut other = ticket.clone();
    other[7] = 0x0B;
    let rc = authorize(&mut bench, &approved, b"ref", &name, &other);
    assert_eq!(rc, Rc::VALUE.param(4));
    other[7] = 0x12;
    let rc = authorize(&mut bench, &approved, b"ref", &name, &other);
    assert_eq!(rc, Rc::HASH.param(4));
    other[1] = 0x25;
    let rc = authorize(&mut bench, &approved, b"ref", &name, &other);
    assert_eq!(rc, Rc::TAG.param(4));
}

#[test]
fn nothing_is_proven_about_keys_without_hierarchy_or_name() {
    let mut bench = started();
    let (key, response) = bench.create_primary(OWNER, &dsa(1, 1));
    let mut public = public_of(&response).to_vec();
    public[7] = 0x40;
    let signature = sign(&mut bench, key, b"", &[b"a message"]);
    let (_, digest_signature) = sign_digest(&mut bench, key, b"", &[7; 64]);
    for (name_alg, hierarchy) in [(0x0B, NULL), (0x10, OWNER)] {
        public[3] = name_alg;
        let params = [&[0, 0], &sized(&public)[..], &hierarchy.to_be_bytes()].concat();
        let outside = handle(&bench.ok(0x167, &[], &params));
        assert_eq!(outside, FIRST + 1);
        let ticket = verify(&mut bench, outside, b"", &[b"a message"], &signature);
        assert_eq!(ticket.unwrap(), b"\x80\x26\x40\0\0\x07\0\0");
        let (rc, ticket) = verify_digest(&mut bench, outside, b"", &[7; 64], &digest_signature);
        assert_eq!(rc, Rc::SUCCESS);
        assert_eq!(ticket, b"\x80\x27\x40\0\0\x07\0\x2B\0\0");
        bench.ok(0x165, &[], &outside.to_be_bytes());
    }
}

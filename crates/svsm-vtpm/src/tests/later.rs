//! Commands that version 1.83 of the specification added.

use std::{vec, vec::Vec};

use super::bench::{Bench, OWNER};
use crate::{
    HashAlg, Rc,
    crypto::{Curve, Curves, EccNumber, Hashing, Point, RustCrypto},
};

const NULL: u32 = 0x4000_0007;
const FIRST: u32 = 0x8000_0000;
const POLICY: u32 = 0x0300_0000;
/// KDF2 with SHA-256.
const KDF2: [u8; 4] = [0, 0x21, 0, 0x0B];

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// The sized fields that a response begins with.
fn fields<const N: usize>(mut response: &[u8]) -> [Vec<u8>; N] {
    [(); N].map(|()| {
        let len = usize::from(u16::from_be_bytes(response[..2].try_into().unwrap()));
        let field = response[2..2 + len].to_vec();
        response = &response[2 + len..];
        field
    })
}

/// Loads an ECC key of the scalar that repeats a byte, for decryption.
fn load(bench: &mut Bench, curve: Curve) -> EccNumber {
    let mut d = EccNumber::new(&vec![0x11; curve.bytes()]).unwrap();
    d.as_mut_slice()[0] = 0;
    let point = RustCrypto.mul(curve, &d, None).unwrap();
    let sensitive = [&[0, 0x23, 0, 0, 0, 0], &sized(d.as_slice())[..]].concat();
    let public = [
        &b"\0\x23\0\x0B\0\x02\0\x40\0\0\0\x10\0\x10"[..],
        &curve.id().to_be_bytes(),
        &[0, 0x10],
        &sized(point.x.as_slice()),
        &sized(point.y.as_slice()),
    ]
    .concat();
    let params = [&sized(&sensitive), &sized(&public)[..], &NULL.to_be_bytes()].concat();
    bench.ok(0x167, &[], &params);
    d
}

#[test]
fn what_is_encrypted_for_a_key_is_masked_as_specified_and_comes_back() {
    for curve in Curve::ALL {
        let mut bench = Bench::started();
        let d = load(&mut bench, curve);
        // Longer than a digest, so that the mask has two blocks.
        let message = [7; 40];
        let encrypted = bench.ok(0x199, &[FIRST], &[&sized(&message)[..], &KDF2].concat());
        let [c1, c2, c3] = fields(&encrypted);
        let [x, y] = fields(&c1);
        let ephemeral = Point {
            x: EccNumber::new(&x).unwrap(),
            y: EccNumber::new(&y).unwrap(),
        };
        let shared = RustCrypto.mul(curve, &d, Some(&ephemeral)).unwrap();
        let (x, y) = (shared.x.as_slice(), shared.y.as_slice());
        let sha256 = |parts: &[&[u8]]| RustCrypto.hash(HashAlg::Sha256, parts).as_slice().to_vec();
        let stream = [1u32, 2]
            .map(|n| sha256(&[x, y, &n.to_be_bytes()]))
            .concat();
        let plain: Vec<u8> = c2.iter().zip(&stream).map(|(a, b)| a ^ b).collect();
        assert_eq!(plain, message, "{curve:?}");
        assert_eq!(c3, sha256(&[x, &message, y]));

        let decrypt = |parts: [&[u8]; 3]| [&parts.map(sized).concat()[..], &KDF2].concat();
        let back = bench.ok_auth(0x19A, &[FIRST], &decrypt([&c1, &c2, &c3]));
        assert_eq!(fields::<1>(&back[4..]), [message]);
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        for (wrong, code) in [
            (decrypt([&c1, &flipped(&c2, 39), &c3]), Rc::VALUE.param(3)),
            (decrypt([&c1, &c2, &flipped(&c3, 0)]), Rc::VALUE.param(3)),
            (
                decrypt([&flipped(&c1, 8), &c2, &c3]),
                Rc::ECC_POINT.param(1),
            ),
        ] {
            let (rc, said) = bench.run(0x19A, &[FIRST], &[b""], &wrong);
            assert_eq!((rc, said), (code, vec![]));
        }
    }
}

#[test]
fn encryption_needs_a_derivation_and_a_key_that_decrypts() {
    let mut bench = Bench::started();
    load(&mut bench, Curve::P256);
    for scheme in [&[0, 0x10][..], &[0, 7, 0, 0x0B]] {
        let params = [&sized(b"m")[..], scheme].concat();
        let (rc, _) = bench.run(0x199, &[FIRST], &[], &params);
        assert_eq!(rc, Rc::SCHEME.param(2));
    }
    let (storage, _) = bench.create_primary(OWNER, super::bench::ECC_STORAGE);
    let point = sized(&[sized(&[1]), sized(&[1])].concat());
    let params = [&point[..], &[0, 0, 0, 0], &KDF2].concat();
    let (rc, _) = bench.run(0x19A, &[storage], &[b""], &params);
    assert_eq!(rc, Rc::ATTRIBUTES.handle(1));
}

fn start_policy(bench: &mut Bench) {
    let params = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[NULL, NULL], &params);
}

fn policy_digest(bench: &mut Bench) -> Vec<u8> {
    let [digest] = fields(&bench.ok(0x189, &[POLICY], &[]));
    digest
}

/// ClockRateAdjust of the owner, who is there by the policy session.
fn adjust(bench: &mut Bench, by: u8) -> Rc {
    let command = b"\x80\x02\0\0\0\x1C\0\0\x01\x30\x40\0\0\x01\0\0\0\x09\x03\0\0\0\0\0\x01\0\0";
    bench.raw(0, &[&command[..], &[by]].concat()).0
}

#[test]
fn a_policy_is_limited_to_parameters_alone() {
    let mut bench = Bench::started();
    let hash = |parts: &[&[u8]]| RustCrypto.hash(HashAlg::Sha256, parts).as_slice().to_vec();
    let parameters = hash(&[b"\0\0\x01\x30", &[0]]);
    start_policy(&mut bench);
    let limit = sized(&parameters);
    let (rc, _) = bench.run(0x19C, &[POLICY], &[], &[0, 1, 0]);
    assert_eq!(rc, Rc::SIZE.param(1));
    bench.ok(0x19C, &[POLICY], &limit);
    let digest = policy_digest(&mut bench);
    assert_eq!(digest, hash(&[&[0; 32], b"\0\0\x01\x9C", &parameters]));
    assert_eq!(bench.run(0x19C, &[POLICY], &[], &limit).0, Rc::CPHASH);
    let policy = [&sized(&digest)[..], &[0, 0x0B]].concat();
    bench.ok_auth(0x12E, &[OWNER], &policy);
    assert_eq!(adjust(&mut bench, 1), Rc::POLICY_FAIL.session(1));
    assert_eq!(adjust(&mut bench, 0), Rc::SUCCESS);
}

/// The parameters of PolicyCapability.
fn asks(operand: &[u8], offset: u16, operation: u8, capability: u8, property: u32) -> Vec<u8> {
    [
        &sized(operand)[..],
        &offset.to_be_bytes(),
        &[0, operation],
        &[0, 0, 0, capability],
        &property.to_be_bytes(),
    ]
    .concat()
}

#[test]
fn a_policy_asks_for_a_capability() {
    let mut bench = Bench::started();
    start_policy(&mut bench);
    let asked = asks(b"SVSM", 4, 0, 6, 0x105);
    bench.ok(0x19B, &[POLICY], &asked);
    let hash = |parts: &[&[u8]]| RustCrypto.hash(HashAlg::Sha256, parts).as_slice().to_vec();
    // The operand without its size.
    let arguments = hash(&[&asked[2..]]);
    let expected = hash(&[&[0; 32], b"\0\0\x01\x9B", &arguments]);
    assert_eq!(policy_digest(&mut bench), expected);

    for (asked, code) in [
        (asks(b"IBM ", 4, 0, 6, 0x105), Rc::POLICY),
        (asks(b"IBM ", 4, 1, 6, 0x105), Rc::SUCCESS),
        // SHA-256 is there, and is a hash; SM3 is not, which is all that can be said of it.
        (asks(&[0, 0, 0, 4], 2, 0xA, 0, 0x0B), Rc::SUCCESS),
        (asks(&[0, 0x12], 0, 0, 0, 0x12), Rc::POLICY),
        (asks(&[0, 0x12], 0, 1, 0, 0x12), Rc::SUCCESS),
        // A handle, a command, a curve, the owner's policy.
        (asks(&OWNER.to_be_bytes(), 0, 0, 1, OWNER), Rc::SUCCESS),
        (asks(&[1, 0x44], 2, 0, 2, 0x144), Rc::SUCCESS),
        (asks(&[1, 0x44], 2, 0, 2, 0x123), Rc::POLICY),
        (asks(&[0, 3], 0, 0, 8, 3), Rc::SUCCESS),
        (asks(&[0, 0x10], 4, 0, 9, OWNER), Rc::SUCCESS),
        // PCRs have no property of their own; nor are there countdown timers.
        (asks(&[0], 0, 0, 5, 0), Rc::VALUE.param(4)),
        (asks(&[0], 0, 0, 0xA, 0x4000_0110), Rc::VALUE.param(4)),
        (asks(&[0], 0, 0, 1, 0x7700_0000), Rc::HANDLE.param(5)),
        (asks(&[0], 0, 0, 9, 0), Rc::VALUE.param(5)),
        (asks(&[0], 9, 0, 6, 0x105), Rc::VALUE.param(2)),
        (asks(&[0; 9], 0, 0, 6, 0x105), Rc::SIZE.param(1)),
        (asks(&[0], 0, 0xC, 6, 0x105), Rc::VALUE.param(3)),
    ] {
        let (rc, _) = bench.run(0x19B, &[POLICY], &[], &asked);
        assert_eq!(rc, code, "{asked:02x?}");
    }
}

#[test]
fn an_index_is_defined_and_read_with_the_type_of_its_handle() {
    let mut bench = Bench::started();
    let public = b"\x01\x50\0\0\0\x0B\0\x02\0\x02\0\0\0\x08";
    let typed = |kind: u8| sized(&[&[kind], &public[..]].concat());
    let define = |kind: u8| [&[0, 0], &typed(kind)[..]].concat();
    let (rc, _) = bench.run(0x19D, &[OWNER], &[b""], &define(0x11));
    assert_eq!(rc, Rc::SELECTOR.param(2));
    bench.ok_auth(0x19D, &[OWNER], &define(1));
    let index = 0x0150_0000;
    let old = bench.ok(0x169, &[index], &[]);
    assert_eq!(old[..16], sized(public));
    let new = bench.ok(0x19E, &[index], &[]);
    assert_eq!(new, [&typed(1)[..], &old[16..]].concat());
}

#[test]
fn a_policy_asks_for_a_channel_that_is_not_to_be_had() {
    let mut bench = Bench::started();
    let hash = |parts: &[&[u8]]| RustCrypto.hash(HashAlg::Sha256, parts).as_slice().to_vec();
    let name = sized(&[&[0, 0x0B][..], &[7; 32]].concat());
    let names = [&name[..], &[0, 0]].concat();
    for (asked, parts) in [(&[0; 4][..], &[][..]), (&names[..], &hash(&[&names])[..])] {
        start_policy(&mut bench);
        for (wrong, code) in [
            (&[0, 1, 0, 0, 0][..], Rc::SIZE.param(1)),
            (&[0, 2, 0, 0x12, 0, 0], Rc::HASH.param(1)),
            (&[0, 3, 0, 0x0B, 1, 0, 0], Rc::SIZE.param(1)),
            (&[0, 0, 0, 2, 0, 0x0B], Rc::SIZE.param(2)),
        ] {
            assert_eq!(bench.run(0x1A1, &[POLICY], &[], wrong).0, code);
        }
        bench.ok(0x1A1, &[POLICY], asked);
        assert_eq!(bench.run(0x1A1, &[POLICY], &[], asked).0, Rc::VALUE);
        let digest = policy_digest(&mut bench);
        assert_eq!(digest, hash(&[&[0; 32], b"\0\0\x01\xA1", parts]));
        let policy = [&sized(&digest)[..], &[0, 0x0B]].concat();
        bench.ok_auth(0x12E, &[OWNER], &policy);
        assert_eq!(adjust(&mut bench, 0), Rc::CHANNEL.session(1));
        // Saved and loaded, it still asks.
        let context = bench.ok(0x162, &[POLICY], &[]);
        bench.ok(0x161, &[], &context);
        assert_eq!(adjust(&mut bench, 0), Rc::CHANNEL.session(1));
        bench.ok(0x165, &[], &POLICY.to_be_bytes());
    }
    let none = bench.ok(0x17A, &[], b"\0\0\0\x0C\0\0\0\0\0\0\0\x01");
    assert_eq!(none, b"\0\0\0\0\x0C\0\0\0\0");
    let (rc, _) = bench.run(0x17A, &[], &[], b"\0\0\0\x0B\0\0\0\0\0\0\0\x01");
    assert_eq!(rc, Rc::VALUE.param(1));
}

#[test]
fn a_policy_selects_what_is_sent_to_an_attached_component() {
    let mut bench = Bench::started();
    let hash = |parts: &[&[u8]]| RustCrypto.hash(HashAlg::Sha256, parts).as_slice().to_vec();
    let names: [&[u8]; 3] = [b"object", b"owner", b"component"];
    for include in [0u8, 1] {
        start_policy(&mut bench);
        let asked = [&names.map(sized).concat()[..], &[include]].concat();
        bench.ok(0x196, &[POLICY], &asked);
        let object = if include == 1 { names[0] } else { &[] };
        let expected = hash(&[
            &[0; 32],
            b"\0\0\x01\x96",
            object,
            names[1],
            names[2],
            &[include],
        ]);
        assert_eq!(policy_digest(&mut bench), expected);
        assert_eq!(bench.run(0x196, &[POLICY], &[], &asked).0, Rc::CPHASH);
        bench.ok(0x165, &[], &POLICY.to_be_bytes());
    }
    start_policy(&mut bench);
    bench.ok(0x16C, &[POLICY], &[0, 0, 1, 0x30]);
    let asked = [&names.map(sized).concat()[..], &[0]].concat();
    assert_eq!(bench.run(0x196, &[POLICY], &[], &asked).0, Rc::COMMAND_CODE);
}

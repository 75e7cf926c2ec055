//! Attached components.

use std::{
    boxed::Box,
    sync::{Arc, Mutex},
    vec,
    vec::Vec,
};

use super::bench::{Bench, ECC_STORAGE, OWNER, Shelf};
use crate::{
    AttachedComponent, HashAlg, Rc, SentObject,
    crypto::{Hashing, RustCrypto},
};

const POLICY: u32 = 0x0300_0000;
const FIRST: u32 = 0x9000_0000;
const ALIAS: u32 = 0x01C9_0000;
const PROPERTIES: [(u32, u32); 3] = [(2, 0x0123_4567), (0x8000_0001, 8), (0x8000_0002, 9)];

/// What a component got: public area, secret part, data.
type Taken = Arc<Mutex<Vec<[Vec<u8>; 3]>>>;

struct Vault(Taken);

impl AttachedComponent for Vault {
    fn properties(&self) -> &[(u32, u32)] {
        &PROPERTIES
    }

    fn take(&mut self, object: SentObject<'_>) -> (u32, u32) {
        let parts = [object.public, object.sensitive, object.data].map(<[u8]>::to_vec);
        self.0.lock().unwrap().push(parts);
        (1, 0)
    }
}

/// A TPM with two components, of which the first shows what it got.
fn attached() -> (Bench, Taken) {
    let taken = Taken::default();
    let (first, second) = (Vault(taken.clone()), Vault(Taken::default()));
    let both: [&mut dyn AttachedComponent; 2] =
        [Box::leak(Box::new(first)), Box::leak(Box::new(second))];
    let mut bench = Bench::prepared(&Shelf::default(), |tpm| {
        tpm.attach(Box::leak(Box::new(both)));
    });
    bench.ok(0x144, &[], &[0, 0]);
    (bench, taken)
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn hash(parts: &[&[u8]]) -> Vec<u8> {
    RustCrypto.hash(HashAlg::Sha256, parts).as_slice().to_vec()
}

/// Creates and loads an object that holds a secret; gives its public area.
fn seal(bench: &mut Bench, attributes: u32, policy: &[u8]) -> Vec<u8> {
    let (parent, _) = bench.create_primary(OWNER, ECC_STORAGE);
    let public = [
        &[0, 8, 0, 0x0B][..],
        &attributes.to_be_bytes(),
        &sized(policy),
        &[0, 0x10, 0, 0],
    ]
    .concat();
    let sensitive = [&[0, 0], &sized(b"secret")[..]].concat();
    let params = [&sized(&sensitive), &sized(&public)[..], &[0; 6]].concat();
    let made = bench.ok_auth(0x153, &[parent], &params);
    let private = 2 + usize::from(u16::from_be_bytes([made[4], made[5]]));
    let at = 4 + private;
    let len = 2 + usize::from(u16::from_be_bytes([made[at], made[at + 1]]));
    bench.ok_auth(0x157, &[parent], &made[4..at + len]);
    made[at + 2..at + len].to_vec()
}

/// Starts a policy session, and says one command to it.
fn start_policy(bench: &mut Bench, command: u16, params: &[u8]) {
    let nonce = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[0x4000_0007, 0x4000_0007], &nonce);
    bench.ok(command, &[POLICY], params);
}

/// AC_Send of the second object, with a policy for it and an empty password for `authority`.
fn send(bench: &mut Bench, authority: u32, component: u32) -> (Rc, Vec<u8>) {
    let mut body = Vec::new();
    for handle in [0x8000_0001, authority, component] {
        body.extend(handle.to_be_bytes());
    }
    body.extend(b"\0\0\0\x12\x03\0\0\0\0\0\x01\0\0\x40\0\0\x09\0\0\x01\0\0");
    body.extend(sized(b"data"));
    let mut command = vec![0x80, 2];
    command.extend(u32::try_from(10 + body.len()).unwrap().to_be_bytes());
    command.extend(b"\0\0\x01\x95");
    command.extend(body);
    bench.raw(0, &command)
}

const COMMAND_CODE: u16 = 0x16C;
const AC_SEND: &[u8] = &[0, 0, 1, 0x95];

fn command_policy() -> Vec<u8> {
    hash(&[&[0; 32], b"\0\0\x01\x6C", AC_SEND])
}

#[test]
fn a_secret_gets_to_the_component_and_to_nobody_else() {
    let (mut bench, taken) = attached();
    let public = seal(&mut bench, 0x40, &command_policy());
    start_policy(&mut bench, COMMAND_CODE, AC_SEND);
    let (rc, said) = send(&mut bench, OWNER, FIRST);
    assert_eq!(rc, Rc::SUCCESS, "{rc}");
    assert_eq!(said[..12], *b"\0\0\0\x08\0\0\0\x01\0\0\0\0");
    let got = taken.lock().unwrap().pop().unwrap();
    assert_eq!(got[0], public);
    assert!(got[1].starts_with(&[0, 8, 0, 0]) && got[1].ends_with(b"\0\x06secret"));
    assert_eq!(got[2], b"data");
    // The value that authorizes its use does not authorize this.
    let handles = [0x8000_0001, OWNER, FIRST];
    let (rc, _) = bench.run(0x195, &handles, &[b"", b""], &sized(b"data"));
    assert_eq!(rc, Rc::AUTH_TYPE.session(1));
    assert!(taken.lock().unwrap().is_empty());
}

#[test]
fn a_policy_that_selects_a_component_fits_no_other() {
    let (mut bench, taken) = attached();
    let (owner, first) = (OWNER.to_be_bytes(), FIRST.to_be_bytes());
    let policy = hash(&[&[0; 32], b"\0\0\x01\x96", &owner, &first, &[0]]);
    let public = seal(&mut bench, 0x40, &policy);
    let name = [&[0, 0x0B][..], &hash(&[&public])].concat();
    let selected = [&sized(&name), &sized(&owner)[..], &sized(&first), &[0]].concat();
    start_policy(&mut bench, 0x196, &selected);
    assert_eq!(
        send(&mut bench, OWNER, FIRST + 1).0,
        Rc::POLICY_FAIL.session(1)
    );
    assert_eq!(send(&mut bench, OWNER, FIRST).0, Rc::SUCCESS);
    assert_eq!(taken.lock().unwrap().len(), 1);
}

#[test]
fn what_is_bound_to_the_tpm_stays_there() {
    // FIXED_TPM with FIXED_PARENT; ENCRYPTED_DUPLICATION.
    for attributes in [0x52, 0x840] {
        let (mut bench, taken) = attached();
        seal(&mut bench, attributes, &command_policy());
        start_policy(&mut bench, COMMAND_CODE, AC_SEND);
        let (rc, _) = send(&mut bench, OWNER, FIRST);
        assert_eq!(rc, Rc::ATTRIBUTES.handle(1), "{attributes:#x}");
        assert!(taken.lock().unwrap().is_empty());
    }
}

#[test]
fn an_index_says_who_may_send() {
    let (mut bench, taken) = attached();
    let define = |bench: &mut Bench, index: u32| {
        // AUTHWRITE, AUTHREAD.
        let public = [&index.to_be_bytes()[..], b"\0\x0B\0\x04\0\x04\0\0\0\x01"].concat();
        bench.ok_auth(0x12A, &[OWNER], &[&[0, 0], &sized(&public)[..]].concat());
    };
    define(&mut bench, 0x0150_0000);
    seal(&mut bench, 0x40, &command_policy());
    start_policy(&mut bench, COMMAND_CODE, AC_SEND);
    // Another index has no say.
    assert_eq!(send(&mut bench, 0x0150_0000, FIRST).0, Rc::HANDLE.handle(2));
    define(&mut bench, ALIAS);
    assert_eq!(send(&mut bench, OWNER, FIRST).0, Rc::NV_AUTHORIZATION);
    assert!(taken.lock().unwrap().is_empty());
    assert_eq!(send(&mut bench, ALIAS, FIRST).0, Rc::SUCCESS);
}

#[test]
fn a_component_says_what_it_is() {
    let (mut bench, _) = attached();
    let ask = |from: u32, count: u8| [&from.to_be_bytes()[..], &[0, 0, 0, count]].concat();
    let all = bench.ok(0x194, &[FIRST + 1], &ask(0, 9));
    assert_eq!(all[..13], *b"\0\0\0\0\x03\0\0\0\x02\x01\x23\x45\x67");
    assert_eq!(all.len(), 5 + 3 * 8);
    let one = bench.ok(0x194, &[FIRST], &ask(0x8000_0000, 1));
    assert_eq!(one, b"\x01\0\0\0\x01\x80\0\0\x01\0\0\0\x08");
    for (handle, params, code) in [
        (FIRST + 2, ask(0, 1), Rc::VALUE.handle(1)),
        (0x9001_0000, ask(0, 1), Rc::VALUE.handle(1)),
        (FIRST, ask(3, 1), Rc::VALUE.param(1)),
        (FIRST, vec![0; 9], Rc::SIZE),
    ] {
        assert_eq!(bench.run(0x194, &[handle], &[], &params).0, code);
    }
}

#[test]
fn where_nothing_is_attached_there_is_nothing_to_send_to() {
    let mut bench = Bench::started();
    let (rc, _) = bench.run(0x194, &[FIRST], &[], &[0; 8]);
    assert_eq!(rc, Rc::COMMAND_CODE);
    let (rc, _) = bench.run(0x195, &[0x8000_0000, OWNER, FIRST], &[b"", b""], &[0, 0]);
    assert_eq!(rc, Rc::COMMAND_CODE);
    let listed = bench.ok(0x17A, &[], b"\0\0\0\x02\0\0\x01\x94\0\0\0\x01");
    assert_eq!(listed[12], 0x96);
}

#[test]
fn nothing_is_attached_once_the_power_came() {
    let mut bench = Bench::started();
    let late: [&mut dyn AttachedComponent; 1] = [Box::leak(Box::new(Vault(Taken::default())))];
    bench.tpm.attach(Box::leak(Box::new(late)));
    let (rc, _) = bench.run(0x194, &[0x9000_0000], &[], &[0; 8]);
    assert_eq!(rc, Rc::COMMAND_CODE);
}

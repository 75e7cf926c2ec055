//! Endorsement keys and their certificates, as the embedder and as a guest see them.

use std::{vec, vec::Vec};

use super::bench::{Bench, OWNER, Shelf};
use crate::{
    Error, Rc,
    endorsement::{Credential, EndorsementKey, PUBLIC_MAX},
};

const ENDORSEMENT: u32 = 0x4000_000B;
const PLATFORM: u32 = 0x4000_000C;

fn key(bench: &mut Bench, key: EndorsementKey) -> Vec<u8> {
    let mut public = [0; PUBLIC_MAX];
    let template = key.template();
    let made = bench
        .tpm
        .endorsement_key(template.as_slice(), &mut public, || ());
    public[..made.unwrap()].to_vec()
}

/// What a guest gets of the key's template.
fn created(bench: &mut Bench, key: EndorsementKey) -> Vec<u8> {
    let (handle, rest) = bench.create_primary(ENDORSEMENT, key.template().as_slice());
    bench.ok(0x165, &[], &handle.to_be_bytes());
    let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    rest[2..2 + len].to_vec()
}

#[test]
fn a_guest_makes_the_same_key() {
    let mut bench = Bench::started();
    for which in [
        EndorsementKey::Rsa2048,
        EndorsementKey::P256,
        EndorsementKey::HighP256,
        EndorsementKey::HighP384,
        EndorsementKey::HighP521,
    ] {
        assert_eq!(
            key(&mut bench, which),
            created(&mut bench, which),
            "{which:?}"
        );
    }
}

#[test]
fn the_key_is_there_before_startup_and_changes_no_answer() {
    let [mut asked, mut other] = [0; 2].map(|_| Bench::powered(&Shelf::default()));
    let public = key(&mut asked, EndorsementKey::P256);
    for bench in [&mut asked, &mut other] {
        bench.ok(0x144, &[], &[0, 0]);
    }
    assert_eq!(created(&mut asked, EndorsementKey::P256), public);
    assert_eq!(created(&mut other, EndorsementKey::P256), public);
    assert_eq!(
        asked.ok(0x17B, &[], &[0, 32]),
        other.ok(0x17B, &[], &[0, 32])
    );
}

#[test]
fn the_mark_changes_with_the_endorsement_seed_alone() {
    let shelf = Shelf::default();
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    let (mark, public) = (
        bench.tpm.endorsement_mark().unwrap(),
        key(&mut bench, EndorsementKey::P256),
    );
    bench.ok_auth(0x126, &[PLATFORM], &[]);
    bench.ok_auth(0x125, &[PLATFORM], &[]);
    assert_eq!(bench.tpm.endorsement_mark(), Ok(mark));
    assert_eq!(key(&mut bench, EndorsementKey::P256), public);
    bench.ok_auth(0x124, &[PLATFORM], &[]);
    let changed = bench.tpm.endorsement_mark().unwrap();
    assert_ne!(changed, mark);
    let public = key(&mut bench, EndorsementKey::P256);
    assert_eq!(created(&mut bench, EndorsementKey::P256), public);
    bench.tpm.power_on().unwrap();
    assert_eq!(bench.tpm.endorsement_mark(), Ok(changed));
    assert_eq!(
        Bench::powered(&shelf).tpm.endorsement_mark(),
        Ok(changed),
        "from the store"
    );
}

#[test]
fn templates_that_make_no_key_are_refused() {
    let mut bench = Bench::powered(&Shelf::default());
    let template = EndorsementKey::P256.template();
    let mut room = [0; PUBLIC_MAX];
    let mut make =
        |template: &[u8], room: &mut [u8]| bench.tpm.endorsement_key(template, room, || ());
    let cut = &template.as_slice()[..40];
    assert_eq!(make(cut, &mut room), Err(Error::Response(Rc::INSUFFICIENT)));
    let long = [template.as_slice(), &[0]].concat();
    assert_eq!(make(&long, &mut room), Err(Error::Response(Rc::SIZE)));
    assert_eq!(
        make(template.as_slice(), &mut room[..50]),
        Err(Error::BufferTooSmall)
    );
    assert!(make(template.as_slice(), &mut room).is_ok());
}

#[test]
fn a_guest_reads_certificates_and_changes_none() {
    let shelf = Shelf::default();
    let mut bench = Bench::powered(&shelf);
    let certificate = vec![0x30; 1000];
    for which in EndorsementKey::ALL {
        bench
            .tpm
            .provision(which, Credential::Certificate, &certificate)
            .unwrap();
    }
    // Provisioned again, it takes the old one's place.
    bench
        .tpm
        .provision(EndorsementKey::P256, Credential::Certificate, &[0x31; 900])
        .unwrap();
    // Over a power cycle, a restart and a clear.
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    bench.ok_auth(0x126, &[PLATFORM], &[]);
    for which in EndorsementKey::ALL {
        let index = which.index(Credential::Certificate).unwrap().0;
        let public = bench.ok(0x169, &[index], &[]);
        assert_eq!(public[8..12], 0x6207_2801_u32.to_be_bytes());
        for reader in [index, OWNER, PLATFORM] {
            let data = bench.ok_auth(0x14E, &[reader, index], &[2, 0, 0, 0]);
            assert_eq!(data[6..][..512], vec![data[6]; 512]);
            let written = if which == EndorsementKey::P256 {
                0x31
            } else {
                0x30
            };
            assert_eq!(data[6], written);
        }
        let write = bench.run(0x137, &[PLATFORM, index], &[&[]], &[0, 1, 0, 0, 0]);
        assert_eq!(write.0, Rc::NV_LOCKED);
        let undefine = bench.run(0x122, &[OWNER, index], &[&[]], &[]);
        assert_eq!(undefine.0, Rc::NV_AUTHORIZATION);
    }
    let which = EndorsementKey::HighP384;
    bench.tpm.withdraw(which, Credential::Certificate).unwrap();
    let index = which.index(Credential::Certificate).unwrap().0;
    assert_ne!(bench.run(0x169, &[index], &[], &[]).0, Rc::SUCCESS);
    bench.tpm.withdraw(which, Credential::Certificate).unwrap();
}

#[test]
fn what_has_no_place_is_not_provisioned() {
    let mut bench = Bench::powered(&Shelf::default());
    let mut provision = |key, credential, data: &[u8]| bench.tpm.provision(key, credential, data);
    let (low, high) = (EndorsementKey::P256, EndorsementKey::HighP256);
    assert_eq!(provision(low, Credential::Nonce, &[1; 32]), Ok(()));
    assert_eq!(
        provision(high, Credential::Nonce, &[1; 32]),
        Err(Error::Response(Rc::HANDLE))
    );
    for data in [&[][..], &[0; 4097]] {
        assert_eq!(
            provision(low, Credential::Certificate, data),
            Err(Error::Response(Rc::SIZE))
        );
    }
    // Until the memory is full; what is there then stays.
    let full = EndorsementKey::ALL
        .iter()
        .flat_map(|key| {
            [
                (*key, Credential::Certificate),
                (*key, Credential::Template),
            ]
        })
        .map(|(key, credential)| provision(key, credential, &[7; 4096]))
        .find(Result::is_err);
    assert_eq!(full, Some(Err(Error::Response(Rc::NV_SPACE))));
    assert_eq!(
        provision(low, Credential::Certificate, &[8; 4096]),
        Ok(()),
        "replaced"
    );
}

#[test]
fn without_power_there_is_nothing() {
    let mut bench = Bench::powered(&Shelf::default());
    bench
        .tpm
        .submit(0, b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0")
        .unwrap();
    let busy = bench
        .tpm
        .provision(EndorsementKey::P256, Credential::Nonce, &[1]);
    assert_eq!(busy, Err(Error::Busy));
}

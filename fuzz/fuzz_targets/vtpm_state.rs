//! The state of a TPM, from where others can change it: each is taken over or refused, and the TPM answers then.
//!
//! The first byte says what follows: a permanent state, a sealed volatile one, or changes to a volatile state that are sealed rightly, so that
//! they get past the code.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use svsm_vtpm::{
    Clock, HashAlg, NvStore, ObjectSlot, Random, Resume, SeamError, Seams, SessionSlot, Storage,
    Tpm,
    crypto::{Ciphering as _, Hashing as _, Mode, RustCrypto},
};

const KEY: [u8; 32] = [9; 32];
/// Magic, format, profile, length; then a code of 32 bytes.
const PREFIX: usize = 16;
const HEAD: usize = PREFIX + 32;
const NV: usize = Storage::NV_HEAD + 4096;
const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";

struct Ones;

impl Random for Ones {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        out.fill(1);
        Ok(())
    }
}

struct Ticks(u64);

impl Clock for Ticks {
    fn now_ms(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

#[derive(Default)]
struct Shelf(Option<Vec<u8>>);

impl NvStore for Shelf {
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, SeamError> {
        let Some(image) = &self.0 else {
            return Ok(None);
        };
        into.get_mut(..image.len())
            .ok_or(SeamError::StoreSize)?
            .copy_from_slice(image);
        Ok(Some(image.len()))
    }

    fn commit(&mut self, _: u64, image: &[u8]) -> Result<(), SeamError> {
        self.0 = Some(image.to_vec());
        Ok(())
    }
}

/// Lends a TPM with this store what it needs.
fn with_tpm<T>(shelf: &mut Shelf, run: impl FnOnce(&mut Tpm<'_>) -> T) -> T {
    let (mut command, mut response) = ([0; 4096], [0; 4096]);
    let mut objects = [const { ObjectSlot::EMPTY }; 3 + Storage::EXTRA_OBJECTS];
    let mut sessions = [const { SessionSlot::EMPTY }; 3];
    let mut nv = [0; NV];
    let (mut random, mut clock) = (Ones, Ticks(0));
    let mut tpm = Tpm::new(
        Seams {
            crypto: &RustCrypto,
            random: &mut random,
            clock: &mut clock,
            store: shelf,
        },
        Storage {
            command: &mut command,
            response: &mut response,
            objects: &mut objects,
            sessions: &mut sessions,
            nv: &mut nv,
        },
    )
    .expect("enough");
    run(&mut tpm)
}

fn key_of(label: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 4] = [&[0, 0, 0, 1], label, &[0], &[0, 0, 1, 0]];
    RustCrypto
        .hmac(HashAlg::Sha256, &KEY, &parts)
        .as_slice()
        .to_vec()
}

fn crypt(blob: &mut [u8]) {
    let (head, body) = blob.split_at_mut(HEAD);
    let mut counter = [0; 16];
    counter.copy_from_slice(&head[PREFIX..PREFIX + 16]);
    RustCrypto.encrypt(Mode::Ctr, &key_of(b"VOLATILE-CIPHER"), &mut counter, body);
}

/// Seals a plain body rightly.
fn seal(front: &[u8], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("short");
    let mut blob = [&front[..PREFIX - 4], &len.to_be_bytes()].concat();
    let code = RustCrypto.hmac(HashAlg::Sha256, &key_of(b"VOLATILE-CODE"), &[&blob, body]);
    blob.extend(code.as_slice());
    blob.extend(body);
    crypt(&mut blob);
    blob
}

/// The permanent and the volatile state of a TPM with a session, a sequence, an orderly index and a key.
fn genuine() -> &'static (Vec<u8>, Vec<u8>) {
    static STATES: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    STATES.get_or_init(|| {
        let mut shelf = Shelf::default();
        let blob = with_tpm(&mut shelf, |tpm| {
            tpm.power_on().expect("an empty store");
            let commands: [&[u8]; 5] = [
                STARTUP,
                b"\x80\x01\0\0\0\x2B\0\0\x01\x76\x40\0\0\x07\x40\0\0\x07\0\x10AAAAAAAAAAAAAAAA\0\0\x01\0\x10\0\x0B",
                b"\x80\x01\0\0\0\x0E\0\0\x01\x86\0\0\0\x0B",
                b"\x80\x02\0\0\0\x2D\0\0\x01\x2A\x40\0\0\x01\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\0\0\0\x0E\x01\x80\0\0\0\x0B\x06\x04\0\x14\0\0\0\x08",
                b"\x80\x02\0\0\0\x41\0\0\x01\x31\x40\0\0\x01\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\0\x04\0\0\0\0\0\x18\0\x23\0\x0B\0\x04\0\x72\0\0\0\x10\0\x18\0\x0B\0\x03\0\x10\0\0\0\0\0\0\0\0\0\0",
            ];
            for command in commands {
                let response = tpm.execute(0, command).expect("not busy");
                assert_eq!(response.get(6..10), Some(&[0; 4][..]), "{command:x?}");
            }
            let mut blob = vec![0; tpm.volatile_max()];
            let len = tpm.save_volatile(&KEY, &mut blob).expect("room");
            blob.truncate(len);
            blob
        });
        (shelf.0.expect("committed"), blob)
    })
}

/// What must be answered, whatever the state is.
fn use_it(tpm: &mut Tpm<'_>) {
    let commands: [&[u8]; 6] = [
        STARTUP,
        b"\x80\x01\0\0\0\x0C\0\0\x01\x7B\0\x08",
        b"\x80\x01\0\0\0\x14\0\0\x01\x7E\0\0\0\x01\0\x0B\x03\xFF\0\0",
        b"\x80\x01\0\0\0\x0E\0\0\x01\x62\x80\0\0\0",
        b"\x80\x01\0\0\0\x0E\0\0\x01\x62\x03\0\0\0",
        b"\x80\x02\0\0\0\x21\0\0\x01\x3E\x80\0\0\0\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\0\0\x40\0\0\x07",
    ];
    for command in commands {
        let response = tpm.execute(0, command).expect("not busy");
        assert!(response.len() >= 10, "an answer");
    }
    let mut room = vec![0; tpm.volatile_max()];
    let _ = tpm.save_volatile(&KEY, &mut room);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let (permanent, volatile) = genuine();
    let mut shelf = Shelf(Some(permanent.clone()));
    let mut blob = volatile.clone();
    match kind % 4 {
        0 => shelf.0 = Some(bytes.to_vec()),
        1 => blob = bytes.to_vec(),
        2 => {
            // Changes: place, and what is there then.
            crypt(&mut blob);
            for change in bytes.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
                if let Some(place) = blob.get_mut(HEAD + at) {
                    *place = change[2];
                }
            }
            blob = seal(&blob[..PREFIX], &blob[HEAD..]);
        }
        _ => {
            // The genuine beginning, and another end.
            crypt(&mut blob);
            let (at, end) = bytes.split_at_checked(2).unwrap_or((&[0, 0], bytes));
            let at = usize::from(u16::from_be_bytes([at[0], at[1]])).min(blob.len() - HEAD);
            let body = [&blob[HEAD..HEAD + at], end].concat();
            blob = seal(&blob[..PREFIX], &body);
        }
    }
    with_tpm(&mut shelf, |tpm| {
        if tpm.power_on().is_err() {
            return;
        }
        let before = blob.clone();
        let _ = tpm.restore_volatile(&KEY, &mut blob, Resume::Exactly);
        assert_eq!(blob, before, "the bytes are as they were");
        use_it(tpm);
    });
});

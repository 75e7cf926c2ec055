//! Suspended and resumed: a TPM that was answers as one that was not.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::bench::{Bench, ECC_SIGNING, ECC_STORAGE, OWNER, RSA_SIGNING, Shelf};
use crate::{
    Error, Progress, Rc, Refusal, Resume, SessionSlot, Storage,
    crypto::{Hashing as _, RustCrypto},
};

const KEY: [u8; 32] = [0x5A; 32];
const PLATFORM: u32 = 0x4000_000C;
const NULL: u32 = 0x4000_0007;
const COUNTER: u32 = 0x0180_0000;
const PIN: u32 = 0x0180_0001;

fn save(bench: &mut Bench) -> Vec<u8> {
    let mut blob = vec![0; bench.tpm.volatile_max()];
    let len = bench.tpm.save_volatile(&KEY, &mut blob).unwrap();
    blob.truncate(len);
    blob
}

/// A store with what another has now.
fn copy(shelf: &Shelf) -> Shelf {
    let copy = Shelf::default();
    let image = shelf.0.lock().unwrap().clone();
    *copy.0.lock().unwrap() = image;
    copy
}

/// A TPM with two countdown timers that was just powered on.
fn powered(shelf: &Shelf) -> Bench {
    Bench::prepared(shelf, |tpm| tpm.set_timers(2))
}

/// Another process, with another clock, that resumes from the store and the blob.
fn resumed(shelf: &Shelf, blob: &[u8]) -> Bench {
    let mut bench = powered(shelf);
    *bench.clock.0.lock().unwrap() = 77_000_000;
    let mut sealed = blob.to_vec();
    bench
        .tpm
        .restore_volatile(&KEY, &mut sealed, Resume::Exactly)
        .unwrap();
    assert_eq!(sealed, blob);
    bench
}

fn started(shelf: &Shelf) -> Bench {
    let mut bench = powered(shelf);
    bench.ok(0x144, &[], &[0, 0]);
    bench
}

/// A TPM with something of each kind.
fn busy(shelf: &Shelf) -> Bench {
    let mut bench = started(shelf);
    for step in [(2, 3), (3, 0), (7, 1), (12, 2), (15, 0), (16, 0), (20, 9)] {
        play(&mut bench, step, &mut Vec::new());
    }
    bench
}

/// Does one of many things with a TPM, and gives all that it answers. `saved` is the last context.
fn play(bench: &mut Bench, (what, n): (u8, u8), saved: &mut Vec<u8>) -> (Rc, Vec<u8>) {
    let n32 = u32::from(n);
    let transient = 0x8000_0000 + n32 % 3;
    let session = [0x0200_0000, 0x0300_0000][usize::from(n & 1)] + n32 / 2 % 4;
    let selection = b"\0\0\0\x01\0\x0B\x03\xFF\xFF\xFF";
    match what {
        0 => bench.run(0x17B, &[], &[], &[0, n]),
        1 => bench.run(0x17E, &[], &[], selection),
        2 => {
            let extend = [&b"\0\0\0\x01\0\x0B"[..], &[n; 32]].concat();
            bench.run(0x182, &[n32 % 24], &[b""], &extend)
        }
        3 | 4 => {
            let public = [ECC_STORAGE, ECC_SIGNING, RSA_SIGNING][usize::from(n % 8).min(2)];
            // Only a first RSA key: the search takes long.
            let public = if what == 4 { ECC_SIGNING } else { public };
            let len = u16::try_from(public.len()).unwrap().to_be_bytes();
            let params = [&[0, 4, 0, 0, 0, 0], &len[..], public, &[0; 6]].concat();
            bench.run(0x131, &[[OWNER, NULL][usize::from(n & 1)]], &[b""], &params)
        }
        5 => {
            let params = [
                &[0, 32][..],
                &[n; 32],
                &[0, 0x10, 0x80, 0x24, 0x40, 0, 0, 7, 0, 0],
            ]
            .concat();
            bench.run(0x15D, &[transient], &[b""], &params)
        }
        6 => bench.run(0x173, &[transient], &[], &[]),
        7 => {
            let params = [&[0, 16][..], &[n; 16], &[0, 0, n % 4, 0, 0x10, 0, 0x0B]].concat();
            bench.run(0x176, &[NULL, NULL], &[], &params)
        }
        8 => bench.run(0x16C, &[session], &[], &[0, 0, 1, 0x37 + (n & 1)]),
        9 => bench.run(0x17F, &[session], &[], &[&[0, 0], &selection[..]].concat()),
        10 => bench.run(0x189, &[session], &[], &[]),
        11 => {
            let handle = if n & 4 == 0 { transient } else { session };
            let (rc, context) = bench.run(0x162, &[handle], &[], &[]);
            if rc == Rc::SUCCESS {
                saved.clone_from(&context);
            }
            (rc, context)
        }
        12 => match n % 3 {
            0 => bench.run(0x186, &[], &[], &[0, 0, 0, 0x0B]),
            1 => bench.run(0x186, &[], &[], &[0, 0, 0, 0x10]),
            _ => bench.run(0x186, &[], &[], &[0, 0, 0, 0x0D]),
        },
        13 => bench.run(0x15C, &[transient], &[b""], &[0, 3, n, 1, n]),
        14 => bench.run(0x13E, &[transient], &[b""], &[0, 1, n, 0x40, 0, 0, 1]),
        15 => {
            // An orderly counter, and a protected index.
            let counter = b"\0\0\0\x0E\x01\x80\0\0\0\x0B\x06\x04\0\x14\0\0\0\x08";
            let pin = b"\0\x01p\0\x0E\x01\x80\0\x01\0\x0B\0\x04\0\x04\0\0\0\x08";
            bench.run(0x12A, &[OWNER], &[b""], pin);
            bench.run(0x12A, &[OWNER], &[b""], counter)
        }
        16 => bench.run(0x134, &[COUNTER, COUNTER], &[b""], &[]),
        17 => bench.run(0x14E, &[COUNTER, COUNTER], &[b""], &[0, 8, 0, 0]),
        18 => bench.run(0x137, &[PIN, PIN], &[b"x"], &[0, 1, 9, 0, 0]),
        19 => bench.run(0x181, &[], &[], &[]),
        20 => {
            *bench.clock.0.lock().unwrap() += 700 * u64::from(n);
            bench.run(0x17C, &[], &[], &[])
        }
        21 => bench.run(0x17A, &[], &[], &[0, 0, 0, 6, 0, 0, 2, 0, 0, 0, 0, 64]),
        22 => {
            let kinds = [0x80, 0x02, 0x03, 0x01][usize::from(n % 4)];
            let params = [0, 0, 0, 1, kinds, 0, 0, 0, 0, 0, 0, 64];
            bench.run(0x17A, &[], &[], &params)
        }
        23 => bench.run(0x165, &[], &[], &transient.to_be_bytes()),
        24 => bench.run(0x165, &[], &[], &session.to_be_bytes()),
        25 => {
            let context = saved.clone();
            bench.run(0x161, &[], &[], &context)
        }
        26 => bench.run(0x145, &[], &[], &[0, n & 1]),
        27 => bench.run(
            0x121,
            &[PLATFORM],
            &[b""],
            &[0x40, 0, 0, [1, 0xB][usize::from(n & 1)], n >> 1 & 1],
        ),
        28 => {
            bench.tpm.hash_start();
            bench.tpm.hash_data(&[n]);
            (Rc::SUCCESS, vec![])
        }
        29 => {
            bench.tpm.hash_data(&[n, n]);
            bench.tpm.hash_end();
            bench.run(0x17E, &[], &[], selection)
        }
        30 => {
            bench.tpm.set_physical_presence(n & 1 == 1);
            bench.tpm.power_on().unwrap();
            bench.run(0x144, &[], &[], &[0, n & 1])
        }
        31 => bench.run(0x146, &[], &[], &[0, 1, n]),
        32 => {
            // An HMAC key as an external object, and a code that goes on.
            let start = bench.run(0x15B, &[transient], &[b""], &[0, 0, 0, 0x0B]);
            bench.run(0x142, &[], &[], &[0, 0, 0, 0]);
            start
        }
        33 => {
            // LoadExternal of an HMAC key without a hierarchy.
            let params = b"\0\x29\0\x08\0\0\0\x20\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C\x0D\x0E\x0F\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1A\x1B\x1C\x1D\x1E\x1F\x20\0\0\0\x0E\0\x08\0\x0B\0\x04\0\x40\0\0\0\x10\0\0\x40\0\0\x07";
            bench.run(0x167, &[], &[], params)
        }
        34 => {
            // GetRandom, audited by an HMAC session without a key.
            let mut command = b"\x80\x02\0\0\0\x1B\0\0\x01\x7B\0\0\0\x09\x02\0\0".to_vec();
            command.extend([n % 4, 0, 0, 0x81, 0, 0, 0, 4]);
            let len = u32::try_from(command.len()).unwrap().to_be_bytes();
            command[2..6].copy_from_slice(&len);
            bench.raw(0, &command)
        }
        35 => {
            let seconds = [0, 1, 20, u32::MAX][usize::from(n % 4)].to_be_bytes();
            let set = bench.run(0x198, &[0x4000_0110 + n32 / 4 % 3], &[b""], &seconds);
            let timers = bench.run(0x17A, &[], &[], b"\0\0\0\x0A\x40\0\x01\x10\0\0\0\x02");
            let signaled = u8::try_from(bench.tpm.timers().signaled).unwrap();
            (set.0, [&timers.1[..], &[signaled]].concat())
        }
        36 => bench.run(0x1A0, &[PLATFORM], &[b""], &[n & 1]),
        37 => {
            bench.tpm.reset().unwrap();
            bench.run(0x144, &[], &[], &[0, n & 1])
        }
        _ => {
            let change = [&[0, 1, n][..]].concat();
            let (rc, rest) = bench.run(0x129, &[PLATFORM], &[b""], &change);
            bench.run(0x129, &[PLATFORM], &[&[n]], &[0, 0]);
            (rc, rest)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_resumed_tpm_answers_as_one_that_was_never_suspended(
        steps in proptest::collection::vec((0u8..39, any::<u8>()), 1..40),
        at in any::<prop::sample::Index>(),
    ) {
        let (shelf, twin) = (Shelf::default(), Shelf::default());
        let (mut a, mut b) = (started(&shelf), started(&twin));
        let (mut saved_a, mut saved_b) = (Vec::new(), Vec::new());
        let at = at.index(steps.len());
        for (n, step) in steps.into_iter().enumerate() {
            if n == at {
                // Time that passed after the last command counts.
                *a.clock.0.lock().unwrap() += 1234;
                *b.clock.0.lock().unwrap() += 1234;
                // And a second time, without a command between.
                for _ in 0..2 {
                    let blob = save(&mut b);
                    b = resumed(&twin, &blob);
                }
                // A later power cycle asks both for the same entropy.
                *b.entropy.0.lock().unwrap() = *a.entropy.0.lock().unwrap();
            }
            let answers = play(&mut a, step, &mut saved_a);
            prop_assert_eq!(play(&mut b, step, &mut saved_b), answers, "step {} {:?}", n, step);
        }
    }
}

#[test]
fn every_changed_byte_and_every_cut_is_refused_and_changes_nothing() {
    let shelf = Shelf::default();
    let blob = save(&mut busy(&shelf));
    let mut bench = powered(&shelf);
    let mut try_one = |mut bytes: Vec<u8>| {
        let before = bytes.clone();
        let result = bench
            .tpm
            .restore_volatile(&KEY, &mut bytes, Resume::Reseeded);
        assert!(matches!(result, Err(Error::Refused(_))), "{result:?}");
        assert_eq!(bytes, before);
    };
    for at in 0..blob.len() {
        let mut flipped = blob.clone();
        flipped[at] ^= 1 << (at % 8);
        try_one(flipped);
        try_one(blob[..at].to_vec());
    }
    try_one([&blob[..], &[0]].concat());
    // After all that it goes on as if nothing had been tried.
    let mut again = blob.clone();
    bench
        .tpm
        .restore_volatile(&KEY, &mut again, Resume::Exactly)
        .unwrap();
    assert_eq!(bench.run(0x144, &[], &[], &[0, 0]).0, Rc::INITIALIZE);
}

#[test]
fn a_refusal_says_why() {
    let shelf = Shelf::default();
    let mut bench = busy(&shelf);
    let blob = save(&mut bench);
    let refusal = |bench: &mut Bench, key: &[u8; 32], blob: &[u8]| {
        let mut blob = blob.to_vec();
        match bench.tpm.restore_volatile(key, &mut blob, Resume::Exactly) {
            Err(Error::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = blob.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    assert_eq!(refusal(&mut bench, &KEY, &blob), Refusal::Started);
    let mut fresh = powered(&copy(&shelf));
    assert_eq!(refusal(&mut fresh, &[1; 32], &blob), Refusal::Damaged);
    assert_eq!(refusal(&mut fresh, &KEY, &with(0, b"x")), Refusal::Foreign);
    let newer = refusal(&mut fresh, &KEY, &with(8, &[0, 3]));
    assert_eq!(newer, Refusal::Newer { format: 3 });
    let older = refusal(&mut fresh, &KEY, &with(8, &[0, 1]));
    assert_eq!(older, Refusal::Older { format: 1 });
    let other = refusal(&mut fresh, &KEY, &with(10, &[0, 9]));
    assert_eq!(other, Refusal::Profile { profile: 9 });
    assert_eq!(
        refusal(&mut fresh, &KEY, &with(100, b"xyz")),
        Refusal::Damaged
    );
    // The permanent state of another TPM, and its own after it went on.
    let mut stranger = powered(&Shelf::default());
    assert_eq!(refusal(&mut stranger, &KEY, &blob), Refusal::OtherPermanent);
    play(&mut bench, (15, 0), &mut Vec::new());
    bench.ok_auth(0x122, &[OWNER, PIN], &[]);
    let mut later = powered(&shelf);
    assert_eq!(refusal(&mut later, &KEY, &blob), Refusal::OtherPermanent);
}

#[test]
fn a_state_is_resumed_from_once() {
    let shelf = Shelf::default();
    let blob = save(&mut busy(&shelf));
    resumed(&shelf, &blob);
    let mut bench = powered(&shelf);
    let result = bench
        .tpm
        .restore_volatile(&KEY, &mut blob.clone(), Resume::Exactly);
    assert_eq!(result, Err(Error::Refused(Refusal::OtherPermanent)));
}

#[test]
fn a_snapshot_draws_other_numbers_if_it_is_asked_to() {
    let shelf = Shelf::default();
    let mut a = busy(&shelf);
    let blob = save(&mut a);
    let mut b = powered(&copy(&shelf));
    b.tpm
        .restore_volatile(&KEY, &mut blob.clone(), Resume::Reseeded)
        .unwrap();
    assert_ne!(a.ok(0x17B, &[], &[0, 32]), b.ok(0x17B, &[], &[0, 32]));
    assert_eq!(
        play(&mut a, (1, 0), &mut Vec::new()),
        play(&mut b, (1, 0), &mut Vec::new())
    );
}

#[test]
fn nothing_is_saved_while_a_command_is_under_way() {
    let mut bench = Bench::started();
    let command = b"\x80\x01\0\0\0\x0B\0\0\x01\x43\x01";
    bench.tpm.submit(0, command).unwrap();
    let mut room = vec![0; bench.tpm.volatile_max()];
    for _ in 0..2 {
        assert_eq!(bench.tpm.save_volatile(&KEY, &mut room), Err(Error::Busy));
        let result = bench.tpm.restore_volatile(&KEY, &mut room, Resume::Exactly);
        assert_eq!(result, Err(Error::Busy));
        assert_eq!(bench.tpm.step(), Progress::Pending);
    }
    while bench.tpm.step() == Progress::Pending {}
    assert!(bench.tpm.save_volatile(&KEY, &mut room).is_ok());
}

#[test]
fn a_buffer_that_is_too_small_is_refused_and_keeps_no_secret() {
    let mut bench = busy(&Shelf::default());
    let len = save(&mut bench).len();
    for short in [0, 10, 48, 100, len - 1] {
        let mut room = vec![0; short];
        let result = bench.tpm.save_volatile(&KEY, &mut room);
        assert_eq!(result, Err(Error::BufferTooSmall));
        assert!(room.iter().all(|byte| *byte == 0));
    }
    assert_eq!(bench.tpm.save_volatile(&KEY, &mut vec![0; len]), Ok(len));
}

#[test]
fn the_greatest_size_is_known_beforehand() {
    let bench = Bench::started();
    let nv = Storage::NV_HEAD + 64 * 1024;
    assert_eq!(bench.tpm.volatile_max(), Storage::volatile_max(6, 3, nv));
    assert!(size_of::<SessionSlot>() < 1024, "its bytes are fewer");
}

/// When this fails, the bytes have another layout or speak of something new: raise the format or the profile.
#[test]
fn the_layout_is_frozen() {
    let blob = save(&mut busy(&Shelf::default()));
    let hash = RustCrypto.hash(crate::HashAlg::Sha256, &[&blob]);
    let start: Vec<u8> = hash.as_slice()[..8].to_vec();
    assert_eq!(
        (blob.len(), start),
        (5081, vec![109, 148, 227, 53, 165, 189, 89, 233])
    );
}

//! The engine as OpenHCL drives its own.

use core::time::Duration;
use std::{
    boxed::Box,
    sync::{Arc, Mutex},
    vec,
    vec::Vec,
};

use crate::{
    Error, ObjectSlot, Refusal, SeamError, SessionSlot, Storage,
    callbacks::{Engine, Platform, PlatformCallbacks},
    crypto::RustCrypto,
    endorsement::EndorsementKey,
};

#[derive(Clone, Default)]
struct Host {
    nv: Arc<Mutex<Vec<u8>>>,
    drawn: Arc<Mutex<u8>>,
    dry: bool,
}

impl PlatformCallbacks for Host {
    fn commit_nv_state(&mut self, state: &[u8]) -> Result<(), SeamError> {
        *self.nv.lock().unwrap() = state.to_vec();
        Ok(())
    }

    /// A few bytes at a time.
    fn get_crypt_random(&mut self, buf: &mut [u8]) -> Result<usize, SeamError> {
        let mut next = self.drawn.lock().unwrap();
        let len = if self.dry { 0 } else { buf.len().min(7) };
        for byte in &mut buf[..len] {
            *next = next.wrapping_mul(37).wrapping_add(11);
            *byte = *next;
        }
        Ok(len)
    }

    fn monotonic_timer(&mut self) -> Duration {
        Duration::from_millis(5)
    }

    fn get_unique_value(&self) -> &'static [u8] {
        b"a test"
    }
}

fn engine(host: &Host) -> Result<Engine<'static>, Error> {
    let slots = |n| (0..n).map(|_| ObjectSlot::EMPTY).collect::<Vec<_>>();
    Engine::new(
        &RustCrypto,
        Box::leak(Box::new(Platform::new(host.clone()))),
        Storage {
            command: vec![0; 4096].leak(),
            response: vec![0; 4096].leak(),
            objects: slots(3 + Storage::EXTRA_OBJECTS).leak(),
            sessions: Box::leak(Box::new([const { SessionSlot::EMPTY }; 3])),
            nv: vec![0; Storage::NV_HEAD + 16 * 1024].leak(),
        },
    )
}

const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";
const SHUTDOWN: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x45\0\0";
const RANDOM: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x7B\0\x20";

/// In pages, as OpenHCL has them.
fn run(engine: &mut Engine<'_>, command: &[u8]) -> Vec<u8> {
    let (mut page, mut response) = ([0xEE; 4096], [0; 4096]);
    page[..command.len()].copy_from_slice(command);
    let len = engine.execute_command(&mut page, &mut response).unwrap();
    response[..len].to_vec()
}

fn mark(engine: &mut Engine<'_>) -> crate::EndorsementMark {
    engine.tpm().endorsement_mark().unwrap()
}

#[test]
fn commands_are_as_long_as_they_say() {
    let mut engine = engine(&Host::default()).unwrap();
    assert_eq!(run(&mut engine, STARTUP), b"\x80\x01\0\0\0\x0A\0\0\0\0");
    assert_eq!(run(&mut engine, RANDOM).len(), 10 + 2 + 32);
    // A size beyond the page: TPM_RC_COMMAND_SIZE.
    let long = b"\x80\x01\0\0\x20\0\0\0\x01\x44\0\0";
    assert_eq!(run(&mut engine, long)[6..], [0, 0, 1, 0x42]);
    let mut command = RANDOM.to_vec();
    let short = engine.execute_command(&mut command, &mut [0; 20]);
    assert_eq!(short, Err(Error::BufferTooSmall));
    let nothing = engine.execute_command(&mut [], &mut [0; 20]);
    assert_eq!(nothing, Ok(10));
}

#[test]
fn a_reset_keeps_the_permanent_state_or_takes_another() {
    let host = Host::default();
    let mut first = engine(&host).unwrap();
    run(&mut first, STARTUP);
    let identity = mark(&mut first);
    let image = host.nv.lock().unwrap().clone();
    first.reset(None).unwrap();
    assert_eq!(mark(&mut first), identity);
    run(&mut first, STARTUP);

    // A new machine begins with another TPM, and then gets the state of the old one.
    let host = Host {
        drawn: Arc::new(Mutex::new(77)),
        ..Host::default()
    };
    let mut second = engine(&host).unwrap();
    assert!(host.nv.lock().unwrap().is_empty());
    assert_ne!(mark(&mut second), identity);
    second.reset(Some(&image)).unwrap();
    assert_eq!(mark(&mut second), identity);
    assert_eq!(run(&mut second, STARTUP)[6..10], [0; 4]);

    let foreign = second.reset(Some(&[7; 6000]));
    assert_eq!(foreign, Err(Error::ForeignState));
    assert_eq!(second.tpm().endorsement_mark(), Err(Error::Off));
    let long = second.reset(Some(&vec![0; 64 * 1024]));
    assert_eq!(long, Err(Error::Seam(SeamError::StoreSize)));
    second.reset(Some(&image)).unwrap();
    assert_eq!(mark(&mut second), identity);
}

#[test]
fn a_saved_engine_goes_on_elsewhere() {
    let mut first = engine(&Host::default()).unwrap();
    run(&mut first, STARTUP);
    run(&mut first, RANDOM);
    let mut public = [0; 640];
    let template = EndorsementKey::P256.template();
    let identity = mark(&mut first);
    let made = first
        .tpm()
        .endorsement_key(template.as_slice(), &mut public, || ());
    assert!(made.is_ok());
    let key = [9; 32];
    let mut blob = vec![0; first.state_max()];
    let len = first.save_state(&key, &mut blob).unwrap();
    blob.truncate(len);
    assert_eq!(
        first.save_state(&key, &mut blob.clone()[..len - 1]),
        Err(Error::BufferTooSmall)
    );

    let host = Host::default();
    let mut second = engine(&host).unwrap();
    let before = mark(&mut second);
    let mut damaged = blob.clone();
    damaged[100] ^= 1;
    let kept = damaged.clone();
    for (key, blob) in [(&key, &mut damaged), (&[8; 32], &mut blob.clone())] {
        let refused = second.restore_state(key, blob);
        assert_eq!(refused, Err(Error::Refused(Refusal::Damaged)));
    }
    assert_eq!(damaged, kept);
    for cut in [0, 7, 43, 44, 60] {
        assert!(
            second
                .restore_state(&key, &mut blob.clone()[..cut])
                .is_err()
        );
    }
    assert_eq!(mark(&mut second), before);
    second.restore_state(&key, &mut blob).unwrap();
    assert_eq!(mark(&mut second), identity);
    assert!(!host.nv.lock().unwrap().is_empty());
    // Started already, with the same random numbers to come.
    assert_eq!(run(&mut second, STARTUP)[6..10], [0, 0, 1, 0]);
    assert_eq!(run(&mut second, RANDOM), run(&mut first, RANDOM));
    assert_eq!(run(&mut second, SHUTDOWN)[6..10], [0; 4]);
}

#[test]
fn without_entropy_there_is_no_engine() {
    let host = Host {
        dry: true,
        ..Host::default()
    };
    let none = engine(&host).map(drop);
    assert_eq!(none, Err(Error::Seam(SeamError::NoEntropy)));
}

//! The TPM in the place of OpenHCL's engine: four callbacks of the platform, four calls to the engine, and a state that survives the process.
//!
//! `cargo run -p svsm-vtpm --features callbacks --example callbacks`

use core::{error::Error, time::Duration};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use svsm_vtpm::{
    ObjectSlot, SeamError, SessionSlot, Storage,
    callbacks::{Engine, Platform, PlatformCallbacks},
    crypto::RustCrypto,
};

/// What the virtual machine monitor gives its engine.
struct Callbacks {
    /// The newest image, until somebody writes it to the machine's file.
    pending: Arc<Mutex<Vec<u8>>>,
    since: Instant,
    drawn: u8,
}

impl PlatformCallbacks for Callbacks {
    fn commit_nv_state(&mut self, state: &[u8]) -> Result<(), SeamError> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = state.to_vec();
        Ok(())
    }

    fn get_crypt_random(&mut self, buf: &mut [u8]) -> Result<usize, SeamError> {
        // For an example only: a monitor asks its processor.
        for byte in &mut *buf {
            self.drawn = self.drawn.wrapping_mul(37).wrapping_add(11);
            *byte = self.drawn;
        }
        Ok(buf.len())
    }

    fn monotonic_timer(&mut self) -> Duration {
        self.since.elapsed()
    }

    fn get_unique_value(&self) -> &'static [u8] {
        b"an example"
    }
}

/// The seam: what a device model asks of any engine.
trait TpmEngine: Send {
    fn execute_command(
        &mut self,
        command: &mut [u8],
        response: &mut [u8],
    ) -> Result<(), Box<dyn Error>>;
}

struct Ours(Engine<'static>);

impl TpmEngine for Ours {
    fn execute_command(
        &mut self,
        command: &mut [u8],
        response: &mut [u8],
    ) -> Result<(), Box<dyn Error>> {
        self.0.execute_command(command, response)?;
        Ok(())
    }
}

/// An engine for as long as the process lives.
fn engine(pending: &Arc<Mutex<Vec<u8>>>) -> Result<Ours, svsm_vtpm::Error> {
    let platform = Platform::new(Callbacks {
        pending: Arc::clone(pending),
        since: Instant::now(),
        drawn: 1,
    });
    let buffer = |bytes| vec![0; bytes].leak();
    let objects = [const { ObjectSlot::EMPTY }; 5 + Storage::EXTRA_OBJECTS];
    let sessions = [const { SessionSlot::EMPTY }; 5];
    let storage = Storage {
        command: buffer(4096),
        response: buffer(4096),
        objects: Box::leak(Box::new(objects)),
        sessions: Box::leak(Box::new(sessions)),
        nv: buffer(Storage::NV_HEAD + 64 * 1024),
    };
    Engine::new(&RustCrypto, Box::leak(Box::new(platform)), storage).map(Ours)
}

/// The first bytes of PCR 16's SHA-256 bank.
fn pcr(engine: &mut impl TpmEngine) -> Result<[u8; 4], Box<dyn Error>> {
    let response = run(
        engine,
        b"\x80\x01\0\0\0\x14\0\0\x01\x7E\0\0\0\x01\0\x0B\x03\0\0\x01",
    )?;
    let digest = response.get(30..).and_then(|rest| rest.first_chunk());
    Ok(digest.copied().ok_or("a response that is too short")?)
}

fn run(engine: &mut impl TpmEngine, command: &[u8]) -> Result<[u8; 4096], Box<dyn Error>> {
    let (mut page, mut response) = ([0; 4096], [0; 4096]);
    page.get_mut(..command.len())
        .ok_or("a command longer than a page")?
        .copy_from_slice(command);
    engine.execute_command(&mut page, &mut response)?;
    match response.get(6..10) {
        Some([0, 0, 0, 0]) => Ok(response),
        code => Err(format!("the TPM answers {code:02x?}").into()),
    }
}

const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";

fn main() -> Result<(), Box<dyn Error>> {
    let pending = Arc::default();
    let mut first = engine(&pending)?;
    run(&mut first, STARTUP)?;
    let identity = first.0.tpm().endorsement_mark()?;
    let mut extend =
        b"\x80\x02\0\0\0\x41\0\0\x01\x82\0\0\0\x10\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\0\0\0\x01\0\x0B"
            .to_vec();
    extend.extend([0xA5; 32]);
    run(&mut first, &extend)?;
    println!("PCR 16 is {:02x?}", pcr(&mut first)?);

    // The monitor is replaced while the guest runs: everything goes over, and nothing is started anew.
    let key = [7; 32];
    let mut state = vec![0; first.0.state_max()];
    let len = first.0.save_state(&key, &mut state)?;
    state.truncate(len);
    drop(first);
    let mut second = engine(&pending)?;
    second.0.restore_state(&key, &mut state)?;
    println!("PCR 16 is {:02x?} in the next monitor", pcr(&mut second)?);

    // The machine is started again, with what its file has.
    let image = pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let mut third = engine(&pending)?;
    third.0.reset(Some(&image))?;
    run(&mut third, STARTUP)?;
    println!("PCR 16 is {:02x?} after a restart", pcr(&mut third)?);
    let same = third.0.tpm().endorsement_mark()? == identity;
    println!("the TPM is the same one: {same}");
    Ok(())
}

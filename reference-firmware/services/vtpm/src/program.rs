//! The guest's TPM. It lives as long as the machine: its seeds are drawn at the start, and nothing of it is kept.

mod endorsement;
mod seams;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use endorsement::Manifest;
use svsm_user::service::{MESSAGE_BYTES, Service};
use svsm_user::{entry, error, info, process};
use svsm_vtpm::crypto::RustCrypto;
use svsm_vtpm::{ObjectSlot, Progress, Seams, SessionSlot, Storage, Tpm};

entry!(main);

/// The protocol that this program serves (58019, "vTPM Protocol").
const PROTOCOL: u32 = 2;

/// Objects that a guest can have loaded. It swaps them by contexts; software expects three at least.
const OBJECTS: usize = 5;
/// Sessions, likewise.
const SESSIONS: usize = 5;
/// Bytes of NV memory.
const NV_BYTES: usize = 64 << 10;

fn main() -> u16 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            error!(public, "the TPM has ended: {}", error);
            1
        }
    }
}

/// Why there is no TPM.
#[derive(Clone, Copy, Debug, defmt::Format)]
enum Failure {
    /// It cannot be set up.
    Tpm,
    /// It makes no endorsement key.
    Endorsement,
    /// The kernel refuses.
    Kernel(svsm_user::abi::SysError),
}

impl From<svsm_user::abi::SysError> for Failure {
    fn from(error: svsm_user::abi::SysError) -> Self {
        Self::Kernel(error)
    }
}

fn serve() -> Result<(), Failure> {
    let service = Service::new(PROTOCOL)?;
    let (mut random, mut clock) = (seams::Processor::new(), seams::Uptime);
    let mut store = seams::Kept::default();
    let (mut command, mut response) = (buffer(MESSAGE_BYTES), buffer(MESSAGE_BYTES));
    let mut objects: Vec<_> = (0..OBJECTS + Storage::EXTRA_OBJECTS)
        .map(|_| ObjectSlot::EMPTY)
        .collect();
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| SessionSlot::EMPTY).collect();
    let mut nv = buffer(Storage::NV_HEAD + NV_BYTES);
    let seams = Seams {
        crypto: &RustCrypto,
        random: &mut random,
        clock: &mut clock,
        store: &mut store,
    };
    let storage = Storage {
        command: &mut command,
        response: &mut response,
        objects: &mut objects,
        sessions: &mut sessions,
        nv: &mut nv,
    };
    let mut tpm = Tpm::new(seams, storage).map_err(|_| Failure::Tpm)?;
    tpm.power_on().map_err(|_| Failure::Tpm)?;
    // The guest finds a TPM that has just got its power, and was told nothing yet.
    let mut manifest = Manifest::publish(&mut tpm, &service)?;
    info!(public, "the TPM is ready");
    let mut request = Box::new([0; MESSAGE_BYTES]);
    loop {
        let Some((locality, command)) = service.next(&mut request)?.split_first() else {
            continue;
        };
        let taken = run(&mut tpm, *locality, command);
        manifest.follow(&mut tpm, &service)?;
        let response = tpm.response().filter(|_| taken);
        service.answer(response.unwrap_or(&FAILURE))?;
    }
}

/// Runs a command, a step at a time: between steps others run, and the guest is told that it is not done yet. Says whether the TPM took
/// it.
fn run(tpm: &mut Tpm<'_>, locality: u8, command: &[u8]) -> bool {
    let taken = tpm.submit(locality, command).is_ok();
    while taken && tpm.step() == Progress::Pending {
        process::yield_now();
    }
    taken
}

/// What is answered to a command that the TPM does not take.
const FAILURE: [u8; 10] = Tpm::failure();

fn buffer(bytes: usize) -> Vec<u8> {
    vec![0; bytes]
}

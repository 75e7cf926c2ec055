//! A TPM with a store of one's own: sectors in memory here, a disk or flash elsewhere, and a witness that remembers the generation.
//!
//! The TPM is powered off and on again, and an old copy of the sectors is put back, which does not go unnoticed.

use core::error::Error;

use svsm_vtpm::{
    Clock, ObjectSlot, Random, SeamError, Seams, SessionSlot, Storage, Tpm,
    crypto::RustCrypto,
    slots::{Freshness, Sectors, Slots},
};

const SECTOR: usize = 512;

/// Sectors in memory.
#[derive(Clone)]
struct Disk(Vec<[u8; SECTOR]>);

impl Sectors for Disk {
    fn sector_len(&self) -> usize {
        SECTOR
    }
    fn count(&self) -> usize {
        self.0.len()
    }
    fn read(&mut self, sector: usize, into: &mut [u8]) -> Result<(), SeamError> {
        let from = self.0.get(sector).ok_or(SeamError::StoreUnavailable)?;
        into.copy_from_slice(from);
        Ok(())
    }
    fn write(&mut self, sector: usize, from: &[u8]) -> Result<(), SeamError> {
        let to = self.0.get_mut(sector).ok_or(SeamError::StoreUnavailable)?;
        to.copy_from_slice(from);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), SeamError> {
        Ok(())
    }
}

/// Where the host cannot reach: a counter of another TPM, a key broker.
#[derive(Default)]
struct Witness(u64);

impl Freshness for Witness {
    fn newest(&mut self) -> Result<Option<u64>, SeamError> {
        Ok(Some(self.0))
    }
    fn confirm(&mut self, generation: u64) -> Result<(), SeamError> {
        self.0 = generation;
        Ok(())
    }
}

struct Entropy(u64);

impl Random for Entropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        // For an example only: an embedder asks its hardware.
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = self.0.to_be_bytes()[0];
        }
        Ok(())
    }
}

struct Ticks;

impl Clock for Ticks {
    fn now_ms(&mut self) -> u64 {
        0
    }
}

/// Powers a TPM on, starts it, runs a command, and shuts it down.
fn boot(
    disk: &mut Disk,
    witness: &mut Witness,
    command: &[u8],
) -> Result<Vec<u8>, svsm_vtpm::Error> {
    let mut scratch = [0; SECTOR];
    // The key is sealed to the platform, or comes from a broker after attestation.
    let mut store = Slots::new(&RustCrypto, disk, witness, &[0x42; 32], &mut scratch)
        .map_err(svsm_vtpm::Error::Seam)?;
    let (mut random, mut clock) = (Entropy(1), Ticks);
    let (mut to, mut from) = ([0; 4096], [0; 4096]);
    let mut objects = [const { ObjectSlot::EMPTY }; 3 + Storage::EXTRA_OBJECTS];
    let mut sessions = [const { SessionSlot::EMPTY }; 3];
    let mut nv = vec![0; Storage::NV_HEAD + 16 * 1024];
    let mut tpm = Tpm::new(
        Seams {
            crypto: &RustCrypto,
            random: &mut random,
            clock: &mut clock,
            store: &mut store,
        },
        Storage {
            command: &mut to,
            response: &mut from,
            objects: &mut objects,
            sessions: &mut sessions,
            nv: &mut nv,
        },
    )?;
    tpm.power_on()?;
    tpm.execute(0, b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0")?;
    let response = tpm.execute(0, command)?.to_vec();
    tpm.execute(0, b"\x80\x01\0\0\0\x0C\0\0\x01\x45\0\0")?;
    Ok(response)
}

/// The response code among a response's bytes.
fn code(response: &[u8]) -> &[u8] {
    response.get(6..10).unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut disk = Disk(vec![[0; SECTOR]; 80]);
    let mut witness = Witness::default();

    // NV_DefineSpace: an ordinary index of 8 bytes, in the owner's hierarchy
    let define = b"\x80\x02\0\0\0\x2D\0\0\x01\x2A\x40\0\0\x01\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\
                   \0\0\0\x0E\x01\x80\0\0\0\x0B\x02\x04\0\x04\0\0\0\x08";
    let response = boot(&mut disk, &mut witness, define)?;
    println!("index defined: response code {:02x?}", code(&response));
    let old = disk.clone();

    // NV_ReadPublic
    let read_public = b"\x80\x01\0\0\0\x0E\0\0\x01\x69\x01\x80\0\0";
    let response = boot(&mut disk, &mut witness, read_public)?;
    println!(
        "after a power cycle: response code {:02x?}",
        code(&response)
    );
    println!("generation {} confirmed", witness.0);

    match boot(&mut old.clone(), &mut witness, read_public) {
        Err(error) => println!("old sectors put back: {error}"),
        Ok(_) => return Err("a rollback went unnoticed".into()),
    }
    Ok(())
}

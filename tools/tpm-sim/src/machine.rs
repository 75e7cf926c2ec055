//! The TPM with the memory it lives in, its power, and its store.

use core::sync::atomic::{AtomicBool, Ordering};
use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result};
use svsm_vtpm::{
    Clock, ObjectSlot, Progress, Random, SeamError, Seams, SessionSlot, Storage, Tpm,
    crypto::RustCrypto,
};

use crate::{store::FileStore, trace};

/// Longest command and response.
const BUFFER: usize = 4096;
/// NV for indices and persistent objects.
const NV: usize = 128 * 1024;

/// Entropy of the operating system.
struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        getrandom::fill(out).map_err(|_| SeamError::NoEntropy)
    }
}

/// The operating system's monotonic clock.
struct OsClock(Instant);

impl Clock for OsClock {
    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A TPM that several connections use.
pub(crate) struct Machine {
    tpm: Mutex<State>,
    cancel: AtomicBool,
    trace: bool,
}

struct State {
    tpm: Tpm<'static>,
    powered: bool,
}

impl Machine {
    pub(crate) fn new(
        state: Option<PathBuf>,
        objects: usize,
        sessions: usize,
        trace: bool,
    ) -> Result<Self> {
        // The TPM lives as long as the process: its memory is never given back.
        let slots = |n| (0..n).map(|_| ObjectSlot::EMPTY).collect::<Vec<_>>().leak();
        let tpm = Tpm::new(
            Seams {
                crypto: &RustCrypto,
                random: Box::leak(Box::new(OsRandom)),
                clock: Box::leak(Box::new(OsClock(Instant::now()))),
                store: Box::leak(Box::new(FileStore::new(state))),
            },
            Storage {
                command: vec![0; BUFFER].leak(),
                response: vec![0; BUFFER].leak(),
                objects: slots(objects + Storage::EXTRA_OBJECTS),
                sessions: (0..sessions)
                    .map(|_| SessionSlot::EMPTY)
                    .collect::<Vec<_>>()
                    .leak(),
                nv: vec![0; Storage::NV_HEAD + NV].leak(),
            },
        )?;
        let machine = Self {
            tpm: Mutex::new(State {
                tpm,
                powered: false,
            }),
            cancel: AtomicBool::new(false),
            trace,
        };
        machine.set_power(true)?;
        Ok(machine)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.tpm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches the power; switching it on when it is on changes nothing.
    pub(crate) fn set_power(&self, on: bool) -> Result<()> {
        let mut state = self.state();
        if on && !state.powered {
            state.tpm.power_on().context("the TPM does not come up")?;
        }
        state.powered = on;
        Ok(())
    }

    /// Takes the power away and gives it back.
    pub(crate) fn reset(&self) -> Result<()> {
        self.set_power(false)?;
        self.set_power(true)
    }

    pub(crate) fn set_physical_presence(&self, asserted: bool) {
        self.state().tpm.set_physical_presence(asserted);
    }

    /// Cancels the command in progress, and those to come, until it is switched off.
    pub(crate) fn set_cancel(&self, on: bool) {
        self.cancel.store(on, Ordering::SeqCst);
    }

    pub(crate) fn hash_start(&self) {
        self.state().tpm.hash_start();
    }

    pub(crate) fn hash_data(&self, data: &[u8]) {
        self.state().tpm.hash_data(data);
    }

    pub(crate) fn hash_end(&self) {
        self.state().tpm.hash_end();
    }

    /// Runs a command; the answer of a TPM without power is empty.
    pub(crate) fn execute(&self, locality: u8, command: &[u8]) -> Vec<u8> {
        let mut state = self.state();
        if !state.powered {
            return Vec::new();
        }
        let start = Instant::now();
        let response = match state.tpm.submit(locality, command) {
            Ok(()) => {
                while state.tpm.step() == Progress::Pending {
                    if self.cancel.load(Ordering::SeqCst) {
                        state.tpm.cancel();
                    }
                }
                state.tpm.response().unwrap_or_default().to_vec()
            }
            Err(_) => Tpm::failure().to_vec(),
        };
        if self.trace {
            trace::print(locality, command, &response, start.elapsed());
        }
        response
    }
}

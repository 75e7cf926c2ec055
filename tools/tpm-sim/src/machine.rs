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

mod state; // the state as bytes, for a migration or a snapshot

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

/// How large a TPM is, where it keeps its state, and whether it prints what it does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file of the permanent state; without, the state ends with the TPM.
    pub state: Option<PathBuf>,
    /// Objects that can be loaded at a time: 3 at least.
    pub objects: usize,
    /// Sessions that can be loaded at a time: 3 at least.
    pub sessions: usize,
    /// Authenticated countdown timers: 8 at most.
    pub timers: u8,
    /// Whether each command and its response go to the standard error output.
    pub trace: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state: None,
            objects: 4,
            sessions: 4,
            timers: 2,
            trace: false,
        }
    }
}

/// A TPM that several connections use.
pub struct Machine {
    tpm: Mutex<State>,
    /// Cancels commands until it is switched off.
    cancel: AtomicBool,
    /// Cancels the command in progress and no other.
    cancel_once: AtomicBool,
    /// Whether a dynamic launch was measured.
    established: AtomicBool,
    /// What the TPM's own store is, too.
    store: FileStore,
    trace: bool,
}

impl core::fmt::Debug for Machine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Its state is secret.
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

struct State {
    tpm: Tpm<'static>,
    powered: bool,
    /// The volatile state with which the power comes back.
    pending: Option<Vec<u8>>,
}

impl Machine {
    /// A TPM with power. Its memory is never given back.
    ///
    /// # Errors
    ///
    /// The state cannot be read, or is of another kind; it is left as it is.
    pub fn new(settings: Settings) -> Result<Self> {
        // The TPM lives as long as the process: its memory is never given back.
        let slots = |n| (0..n).map(|_| ObjectSlot::EMPTY).collect::<Vec<_>>().leak();
        let store = FileStore::new(settings.state);
        let mut tpm = Tpm::new(
            Seams {
                crypto: &RustCrypto,
                random: Box::leak(Box::new(OsRandom)),
                clock: Box::leak(Box::new(OsClock(Instant::now()))),
                store: Box::leak(Box::new(store.clone())),
            },
            Storage {
                command: vec![0; BUFFER].leak(),
                response: vec![0; BUFFER].leak(),
                objects: slots(settings.objects + Storage::EXTRA_OBJECTS),
                sessions: (0..settings.sessions)
                    .map(|_| SessionSlot::EMPTY)
                    .collect::<Vec<_>>()
                    .leak(),
                nv: vec![0; Storage::NV_HEAD + NV].leak(),
            },
        )?;
        tpm.set_timers(settings.timers);
        let machine = Self {
            tpm: Mutex::new(State {
                tpm,
                powered: false,
                pending: None,
            }),
            cancel: AtomicBool::new(false),
            cancel_once: AtomicBool::new(false),
            established: AtomicBool::new(false),
            store,
            trace: settings.trace,
        };
        machine.set_power(true)?;
        Ok(machine)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.tpm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches the power; switching it on when it is on changes nothing.
    ///
    /// # Errors
    ///
    /// The TPM does not come up, for what [`Machine::new`] says.
    pub fn set_power(&self, on: bool) -> Result<()> {
        let mut state = self.state();
        if on && !state.powered {
            state.tpm.power_on().context("the TPM does not come up")?;
            self.resume(&mut state)?;
        }
        state.powered = on;
        Ok(())
    }

    /// Whether the TPM has power.
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    /// Resets the platform; without power, gives the power.
    ///
    /// # Errors
    ///
    /// As for [`Machine::set_power`].
    pub fn reset(&self) -> Result<()> {
        let mut state = self.state();
        if !state.powered {
            drop(state);
            return self.set_power(true);
        }
        // Until it is back up.
        state.powered = false;
        state.tpm.reset().context("the TPM does not come up")?;
        self.resume(&mut state)?;
        state.powered = true;
        Ok(())
    }

    /// Which countdown timers have signaled, one bit each.
    pub fn signaled_timers(&self) -> u16 {
        self.state().tpm.timers().signaled
    }

    /// Asserts physical presence, or withdraws it.
    pub fn set_physical_presence(&self, asserted: bool) {
        self.state().tpm.set_physical_presence(asserted);
    }

    /// Cancels the command in progress, and those to come, until it is switched off.
    pub fn set_cancel(&self, on: bool) {
        self.cancel.store(on, Ordering::SeqCst);
    }

    /// Cancels the command in progress.
    pub fn cancel(&self) {
        self.cancel_once.store(true, Ordering::SeqCst);
    }

    /// Whether a dynamic launch was measured since this was last forgotten.
    pub fn is_established(&self) -> bool {
        self.established.load(Ordering::SeqCst)
    }

    /// Forgets that a dynamic launch was measured.
    pub fn reset_established(&self) {
        self.established.store(false, Ordering::SeqCst);
    }

    /// `_TPM_Hash_Start`.
    pub fn hash_start(&self) {
        self.established.store(true, Ordering::SeqCst);
        self.state().tpm.hash_start();
    }

    /// `_TPM_Hash_Data`.
    pub fn hash_data(&self, data: &[u8]) {
        self.state().tpm.hash_data(data);
    }

    /// `_TPM_Hash_End`.
    pub fn hash_end(&self) {
        self.state().tpm.hash_end();
    }

    /// Runs a command; the answer of a TPM without power is empty.
    pub fn execute(&self, locality: u8, command: &[u8]) -> Vec<u8> {
        let mut state = self.state();
        if !state.powered {
            return Vec::new();
        }
        // A state that was stored before this command is none to go back to.
        state.pending = None;
        self.cancel_once.store(false, Ordering::SeqCst);
        let start = Instant::now();
        let response = match state.tpm.submit(locality, command) {
            Ok(()) => {
                while state.tpm.step() == Progress::Pending {
                    if self.cancel.load(Ordering::SeqCst)
                        || self.cancel_once.swap(false, Ordering::SeqCst)
                    {
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

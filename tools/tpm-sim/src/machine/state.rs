//! The state as bytes, for a migration or a snapshot.

use core::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use svsm_vtpm::{NvStore as _, Resume, Storage};

use super::{Machine, NV, State};

/// Under which the volatile state is sealed. It is no secret, as the file of the permanent state is none: whoever reaches the simulator
/// gets both.
const KEY: [u8; 32] = *b"tpm-sim protects nothing, really";

impl Machine {
    /// The longest state, permanent or volatile, with as many slots as the simulator can have.
    pub const STATE_MAX: usize =
        1 + Storage::volatile_max(64 + Storage::EXTRA_OBJECTS, 64, Storage::NV_HEAD + NV);

    /// The permanent state, committed.
    ///
    /// # Errors
    ///
    /// It cannot be committed, or there is none yet.
    pub fn permanent(&self) -> Result<Vec<u8>> {
        let mut state = self.state();
        if state.powered {
            // It commits what is not yet committed.
            self.save(&mut state)?;
        }
        self.store.image().context("no permanent state yet")
    }

    /// The volatile state: of a TPM without power, the one with which the power will come back, or nothing.
    ///
    /// # Errors
    ///
    /// The permanent state, to which it belongs, cannot be committed.
    pub fn volatile(&self) -> Result<Vec<u8>> {
        let mut state = self.state();
        if state.powered {
            self.save(&mut state)
        } else {
            Ok(state.pending.clone().unwrap_or_default())
        }
    }

    /// Keeps the volatile state of now for the next time that the power comes, unless a command is run before. It ends with the process.
    ///
    /// # Errors
    ///
    /// As for [`Machine::volatile`].
    pub fn store_volatile(&self) -> Result<()> {
        let mut state = self.state();
        let blob = self.save(&mut state)?;
        state.pending = Some(blob);
        Ok(())
    }

    /// Forgets the volatile state with which the power would come back.
    pub fn drop_pending(&self) {
        self.state().pending = None;
    }

    /// The volatile state with which the power comes back. It is judged then.
    pub fn set_volatile(&self, blob: &[u8]) {
        self.state().pending = Some(blob.to_vec());
    }

    /// Replaces the permanent state of a TPM without power.
    ///
    /// # Errors
    ///
    /// The TPM has power, or cannot read that state; it then keeps the one that it had.
    pub fn set_permanent(&self, image: &[u8]) -> Result<()> {
        let mut state = self.state();
        ensure!(!state.powered, "the TPM has power");
        let before = self.store.image();
        let mut store = self.store.clone();
        store.commit(0, image)?;
        let result = state.tpm.power_on_anew();
        if result.is_err()
            && let Some(before) = before
        {
            store.commit(0, &before)?;
            state.tpm.power_on_anew()?;
        }
        result.context("not a permanent state of this TPM")
    }

    fn save(&self, state: &mut State) -> Result<Vec<u8>> {
        let mut blob = vec![0; 1 + state.tpm.volatile_max()];
        let (first, room) = blob.split_first_mut().context("no room")?;
        *first = u8::from(self.is_established());
        let len = state.tpm.save_volatile(&KEY, room)?;
        blob.truncate(1 + len);
        Ok(blob)
    }

    /// Goes on with the volatile state that was kept, if there is one.
    pub(super) fn resume(&self, state: &mut State) -> Result<()> {
        let Some(mut blob) = state.pending.take() else {
            return Ok(());
        };
        let (established, sealed) = blob.split_first_mut().context("no volatile state")?;
        // Whoever keeps a snapshot can resume from it again.
        state.tpm.restore_volatile(&KEY, sealed, Resume::Reseeded)?;
        self.established.store(*established != 0, Ordering::SeqCst);
        Ok(())
    }
}

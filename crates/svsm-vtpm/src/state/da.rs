//! Protection against dictionary attacks (Part 1, clause 19.11).

use super::Core;
use crate::{
    handle::Handle,
    rc::{Rc, ensure},
};

/// How a new TPM protects its values; Clear brings that back (Part 3, clause 24.6).
pub(crate) const DA_DEFAULT: DaParameters = DaParameters {
    max_tries: 32,
    recovery_time: 7200,
    lockout_recovery: 86400,
};

/// What DictionaryAttackParameters sets. Times are seconds.
pub(crate) struct DaParameters {
    pub(crate) max_tries: u32,
    pub(crate) recovery_time: u32,
    pub(crate) lockout_recovery: u32,
}

impl Core<'_> {
    /// Whether protected values may be used: not while locked out.
    pub(crate) fn check_lockout(&self, lockout: bool) -> Result<(), Rc> {
        let open = if lockout {
            self.permanent.lockout_auth_enabled
        } else {
            self.permanent.failed_tries < self.permanent.max_tries
        };
        ensure(open, Rc::LOCKOUT)
    }

    /// Remembers that a protected value is about to be used, so that cutting the power does not hide a failed try.
    pub(crate) fn note_protected_use(&mut self) {
        if !self.permanent.da_used {
            self.permanent.da_used = true;
            self.dirty = true;
        }
    }

    /// Counts a failed try to use the value of this entity.
    pub(crate) fn register_failure(&mut self, handle: Handle) {
        if handle == Handle::LOCKOUT {
            self.permanent.lockout_auth_enabled = false;
            self.time.lockout = self.time.time;
        } else if self.permanent.recovery_time != 0 {
            self.permanent.failed_tries = self.permanent.failed_tries.saturating_add(1);
            self.time.self_heal = self.time.time;
        }
        self.dirty = true;
    }

    /// The parameters of a new TPM, and no failed tries.
    pub(crate) fn restore_da_defaults(&mut self) {
        self.permanent.max_tries = DA_DEFAULT.max_tries;
        self.permanent.recovery_time = DA_DEFAULT.recovery_time;
        self.permanent.lockout_recovery = DA_DEFAULT.lockout_recovery;
        self.permanent.failed_tries = 0;
        self.permanent.lockout_auth_enabled = true;
        self.dirty = true;
    }

    /// What time alone heals.
    pub(crate) fn heal(&mut self) {
        let now = self.time.time;
        let recovery = u64::from(self.permanent.recovery_time) * 1000;
        if self.permanent.failed_tries > 0 && recovery > 0 {
            let steps = now.saturating_sub(self.time.self_heal) / recovery;
            if steps > 0 {
                let steps_taken = u32::try_from(steps).unwrap_or(u32::MAX);
                self.permanent.failed_tries =
                    self.permanent.failed_tries.saturating_sub(steps_taken);
                self.time.self_heal += steps * recovery;
                self.dirty = true;
            }
        }
        let lockout = u64::from(self.permanent.lockout_recovery) * 1000;
        if !self.permanent.lockout_auth_enabled
            && lockout > 0
            && now.saturating_sub(self.time.lockout) >= lockout
        {
            self.permanent.lockout_auth_enabled = true;
            self.dirty = true;
        }
    }

    /// What a reset means for the counters.
    pub(crate) fn start_da(&mut self, orderly: bool) {
        if self.permanent.da_used {
            let tries = self.permanent.failed_tries;
            if !orderly && self.permanent.recovery_time != 0 && tries < self.permanent.max_tries {
                self.permanent.failed_tries = tries + 1;
            }
            self.permanent.da_used = false;
        }
        if self.permanent.lockout_recovery == 0 {
            self.permanent.lockout_auth_enabled = true;
        }
    }
}

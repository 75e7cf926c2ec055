//! Power, startup, shutdown, manufacture (Part 1, clause 12; Part 3, clause 9).

use super::{
    Core,
    image::LoadError,
    object::SequenceKind,
    pcr::rule_of,
    permanent::{ClearState, NO_COMMANDS, Orderly, Permanent, ResetState, set_command},
    selftest::Tests,
    work::Work,
};
use crate::{
    alg::HashAlg,
    crypto::drbg::Drbg,
    handle::HandleKind,
    rc::{Rc, ensure},
    structures::{attributes::NvAttributes as A, nv::NvKind, pcr::PCR_COUNT},
    table,
};

/// What a startup is, after the shutdown before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reset,
    Restart,
    Resume,
}

impl Core<'_> {
    /// `_TPM_Init`: the power came (back).
    pub(crate) fn power_on(&mut self) -> Result<(), LoadError> {
        self.timers.lose_power();
        self.init()
    }

    /// `_TPM_Init` without a loss of power.
    pub(crate) fn reset(&mut self) -> Result<(), LoadError> {
        if self.started {
            // A timer that nobody looked at has signaled all the same.
            self.tick();
        }
        self.timers.warm = true;
        self.init()
    }

    /// What an earlier Shutdown saved is no longer the state.
    pub(crate) fn end_orderly(&mut self) {
        if Orderly::from_u8(self.permanent.orderly) != Orderly::None {
            self.permanent.orderly = Orderly::None.to_u8();
            self.dirty = true;
        }
    }

    fn init(&mut self) -> Result<(), LoadError> {
        self.started = false;
        self.failed = false;
        self.tested = Tests::empty();
        self.testing_all = false;
        self.work = Work::Idle;
        self.objects.clear();
        self.sessions.clear(false);
        self.exclusive_audit = None;
        self.physical_presence = false;
        self.pcr_reconfigured = false;
        self.startup_locality3 = false;
        self.early_launch = false;
        self.launch = None;
        self.drbg = Drbg::default();
        self.seeded = false;
        if !self.loaded {
            if !self.load()? {
                self.manufacture()
                    .map_err(|_| LoadError::Store(crate::SeamError::NoEntropy))?;
            }
            self.loaded = true;
        }
        Ok(())
    }

    /// Forgets the permanent state, so that the next power-on takes it from the store.
    pub(crate) const fn unload(&mut self) {
        self.loaded = false;
        self.dirty = false;
    }

    /// The permanent state is that of the NV memory.
    #[cfg(feature = "callbacks")]
    pub(super) const fn set_loaded(&mut self) {
        self.loaded = true;
    }

    /// Makes the TPM anew: new seeds, empty NV, everything at its default.
    pub(crate) fn manufacture(&mut self) -> Result<(), Rc> {
        self.permanent = Permanent::new();
        self.reset = ResetState::new();
        self.clear = ClearState::new();
        self.read_only = false;
        self.timers.forget();
        self.nv.clear();
        self.objects.clear();
        self.sessions.clear(true);
        let mut seeds = [[0; super::permanent::SEED_LEN]; 6];
        for seed in &mut seeds {
            self.random(seed)?;
        }
        let permanent = &mut self.permanent;
        [
            permanent.ep_seed,
            permanent.sp_seed,
            permanent.pp_seed,
            permanent.eh_proof,
            permanent.sh_proof,
            permanent.ph_proof,
        ] = seeds;
        permanent.pp_commands = NO_COMMANDS;
        set_command(&mut permanent.pp_commands, table::PP_COMMANDS, true);
        permanent.audit_commands = NO_COMMANDS;
        set_command(&mut permanent.audit_commands, table::SET_AUDIT_STATUS, true);
        self.dirty = true;
        Ok(())
    }

    /// TPM2_Startup.
    pub(crate) fn startup(&mut self, state: bool, locality: u8) -> Result<(), Rc> {
        ensure(!self.started, Rc::INITIALIZE)?;
        ensure(matches!(locality, 0 | 3), Rc::LOCALITY)?;
        let locality3 = locality == 3;
        let previous = Orderly::from_u8(self.permanent.orderly);
        let kind = match previous {
            Orderly::State { locality3: then } if state => {
                ensure(then == locality3, Rc::LOCALITY)?;
                Kind::Resume
            }
            _ if state => return Err(Rc::VALUE.param(1)),
            Orderly::State { .. } => Kind::Restart,
            _ => Kind::Reset,
        };
        self.startup_locality3 = locality3;
        match kind {
            Kind::Reset => self.start_reset()?,
            Kind::Restart => {
                self.reset.restart_count = self.reset.restart_count.wrapping_add(1);
                self.reset.clear_count = self.reset.clear_count.wrapping_add(1);
            }
            Kind::Resume => self.reset.restart_count = self.reset.restart_count.wrapping_add(1),
        }
        if kind != Kind::Resume {
            self.clear = ClearState::new();
            self.read_only = false;
        }
        self.timers.start(kind == Kind::Resume);
        self.ph_enable = true;
        self.start_clock(previous);
        self.start_da(previous != Orderly::None);
        self.start_nv(kind, previous != Orderly::None);
        self.start_pcrs(kind);
        self.permanent.orderly = Orderly::None.to_u8();
        self.dirty = true;
        self.started = true;
        Ok(())
    }

    fn start_reset(&mut self) -> Result<(), Rc> {
        let mut fresh = ResetState::new();
        self.random(&mut fresh.null_seed)?;
        self.random(&mut fresh.null_proof)?;
        fresh.commit_nonce = self.random_bytes(64)?;
        self.reset = fresh;
        let permanent = &mut self.permanent;
        permanent.reset_count = permanent.reset_count.wrapping_add(1);
        permanent.total_reset_count = permanent.total_reset_count.wrapping_add(1);
        permanent.pcr_allocated = permanent.pcr_next_allocated;
        self.sessions.clear(true);
        Ok(())
    }

    fn start_pcrs(&mut self, kind: Kind) {
        for pcr in 0..PCR_COUNT {
            let rule = rule_of(pcr);
            let early = pcr == 0 && self.early_launch;
            if early || kind == Kind::Resume && rule.saved {
                continue;
            }
            self.pcrs.fill(pcr, if rule.dynamic { 0xFF } else { 0 });
            if pcr == 0 && self.startup_locality3 {
                self.mark_startup_locality(3);
            }
        }
    }

    /// PCR 0 begins with the locality of what started the TPM.
    fn mark_startup_locality(&mut self, locality: u8) {
        self.pcrs.fill(0, 0);
        for bank in HashAlg::ALL {
            if let Some(last) = self.pcrs.value_mut(bank, 0).last_mut() {
                *last = locality;
            }
        }
    }

    fn start_nv(&mut self, kind: Kind, orderly: bool) {
        let mut next = self.nv.next_handle(HandleKind::Nv, crate::Handle(0));
        while let Some(handle) = next {
            next = self
                .nv
                .next_handle(HandleKind::Nv, crate::Handle(handle.0 + 1));
            let Some(mut index) = self.index(handle) else {
                continue;
            };
            let old = index.public.attributes;
            let mut new = old;
            if kind != Kind::Resume {
                new.remove(A::READ_LOCKED);
                if !old.contains(A::WRITE_DEFINE | A::WRITTEN) {
                    new.remove(A::WRITE_LOCKED);
                }
                if old.contains(A::CLEAR_ST_CLEAR) {
                    new.remove(A::WRITTEN);
                }
            }
            if old.contains(A::ORDERLY) && !orderly {
                if index.public.kind() == NvKind::Counter {
                    // What was counted since the last commit is lost: go on where it cannot have been.
                    let high = self.index_u64(&index) | 0xFF;
                    let _ = self.write_index(&mut index, 0, &high.to_be_bytes());
                } else {
                    new.remove(A::WRITTEN);
                }
            }
            if new != old {
                self.set_index_attributes(&mut index, new);
            }
        }
    }

    /// TPM2_Shutdown.
    pub(crate) fn shutdown(&mut self, state: bool) -> Result<(), Rc> {
        // A change of the PCR allocation must not be resumed into.
        ensure(!(state && self.pcr_reconfigured), Rc::TYPE.param(1))?;
        self.permanent.clock = self.time.clock;
        if state {
            self.timers.save(self.time.time);
        }
        self.permanent.orderly = if state {
            Orderly::State {
                locality3: self.startup_locality3,
            }
            .to_u8()
        } else {
            Orderly::Clear.to_u8()
        };
        self.dirty = true;
        Ok(())
    }

    /// `_TPM_Hash_Start`: a dynamic launch begins, or, before startup, the early event.
    pub(crate) fn hash_start(&mut self) {
        self.launch = Some(SequenceKind::Event(
            HashAlg::ALL.map(|alg| self.crypto.start(alg)),
        ));
    }

    /// `_TPM_Hash_Data`.
    pub(crate) fn hash_data(&mut self, data: &[u8]) {
        if let Some(SequenceKind::Event(states)) = &mut self.launch {
            for state in states {
                self.crypto.update(state, data);
            }
        }
    }

    /// `_TPM_Hash_End`: the digest goes into PCR 17, after a reset of the dynamic PCRs; or into PCR 0.
    pub(crate) fn hash_end(&mut self) {
        let Some(SequenceKind::Event(states)) = self.launch.take() else {
            return;
        };
        let pcr = if self.started {
            for pcr in (0..PCR_COUNT).filter(|p| rule_of(*p).dynamic) {
                self.pcrs.fill(pcr, 0);
            }
            17
        } else {
            self.early_launch = true;
            self.mark_startup_locality(4);
            0
        };
        for state in &states {
            let digest = self.crypto.finish(state);
            self.pcrs
                .extend(self.crypto, state.alg, pcr, digest.as_slice());
        }
    }
}

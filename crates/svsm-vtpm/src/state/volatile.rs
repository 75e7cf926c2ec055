//! The volatile state as bytes: all that decides later answers and is not in the permanent state.
//!
//! It belongs to one permanent state: a hash over that, but for the data of orderly indices, which change without a commit and are
//! here. What is read is read twice, first to judge it and then to take it over, so that a state that is refused changes nothing
//! and nothing has to be kept between.
//!
//! Whether a loaded key's private part belongs to its public part is not looked at: who can seal such bytes has the private parts, too, and
//! a key of two halves gives signatures that nobody accepts.

use super::{
    Core,
    clock::Time,
    object::{Content, Objects, SequenceKind},
    pcr::PcrValues,
    permanent::{ClearState, ResetState},
    selftest::Tests,
    session::{ACTIVE_MAX, Active, Session},
    work::Work,
};
use crate::{
    alg::HashAlg,
    bytes::Bytes,
    crypto::{
        HashState,
        drbg::{Drbg, SEED_LEN},
    },
    handle::{Handle, HandleKind},
    object::store::{CONTENT_MAX, read_content, write_content},
    rc::Rc,
    seam::SeamError,
    structures::{attributes::NvAttributes as A, pcr::PCR_COUNT},
    wire::{Marshal, Reader, Unmarshal, Writer},
};
use zeroize::Zeroize;

/// Room for a marshalled session: kind, algorithms, nonce, key, times, policy, bind and audit.
const SESSION_MAX: usize = 1024;
/// Room for everything but objects, sessions, and orderly data.
const FIXED_MAX: usize = 10 * 1024;
/// What hashes in progress are compared by.
const PROBE: &[u8] = b"what a provider makes of this";

/// The most bytes that the state of a TPM with these capacities has.
pub(crate) const fn body_max(objects: usize, sessions: usize, nv: usize) -> usize {
    // The data of an orderly index take two bytes more than in the NV memory, less what its public area and the like take there.
    FIXED_MAX + objects * (1 + CONTENT_MAX) + sessions * (1 + SESSION_MAX) + nv
}

/// Why a state is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    Capacity,
    Provider,
    Permanent,
    Content,
    SelfTest,
    Seam(SeamError),
}

impl From<Rc> for Misfit {
    /// What cannot be read does not hold together.
    fn from(_: Rc) -> Self {
        Self::Content
    }
}

fn hold(it: bool, otherwise: Misfit) -> Result<(), Misfit> {
    if it { Ok(()) } else { Err(otherwise) }
}

impl Core<'_> {
    /// Whether the permanent state is here, and nothing was done with it since the power came.
    pub(crate) const fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Writes the volatile state.
    pub(crate) fn write_volatile(&mut self, w: &mut Writer<'_>) -> Result<(), Rc> {
        let owed = self.time_owed();
        self.capacities().iter().try_for_each(|n| w.put(n))?;
        w.bytes(&self.provider_print())?;
        w.bytes(&self.permanent_print())?;

        w.put(&self.seeded)?;
        w.put(&self.drbg)?;
        w.put(&self.reset)?;
        w.put(&self.clear)?;
        self.pcrs.write_all(w)?;
        w.put(&self.tested.bits())?;
        w.put(&self.flags())?;
        w.put(&self.exclusive_audit.unwrap_or(Handle(0)))?;
        self.time.write_owing(owed, w)?;
        self.timers.write(w)?;
        self.write_launch(w)?;
        self.write_orderly(w)?;
        self.sessions.write(w)?;
        self.objects.write(w)
    }

    /// Takes over a volatile state, or changes nothing. With `reseed`, fresh entropy goes into the generator.
    pub(crate) fn restore_volatile(&mut self, body: &[u8], reseed: bool) -> Result<(), Misfit> {
        let tested = self.walk(body, false)?;
        // What the other TPM found in its processor need not be true in this one.
        if !self.pass_anew(tested) {
            self.failed = true;
            return Err(Misfit::SelfTest);
        }
        let mut seed = [0; SEED_LEN];
        if reseed {
            self.outside
                .entropy()
                .fill(&mut seed)
                .map_err(Misfit::Seam)?;
        }
        // A new generation: the permanent state is not the one of these bytes any more, and they are used up.
        self.dirty = true;
        if self.commit().is_err() {
            self.dirty = false;
            // It is the committed head that says to which permanent state this TPM belongs.
            let _ = self.put_head(self.generation);
            seed.zeroize();
            return Err(Misfit::Seam(SeamError::StoreUnavailable));
        }
        let walked = self.walk(body, true);
        if reseed {
            self.drbg.reseed(self.crypto, &seed);
            self.seeded = true;
        }
        seed.zeroize();
        walked.map(|_| ())
    }

    /// Reads a state from end to end, and takes it over if `apply`. Gives the self-tests that were passed.
    fn walk(&mut self, body: &[u8], apply: bool) -> Result<Tests, Misfit> {
        let mut r = Reader::new(body);
        for own in self.capacities() {
            hold(r.read::<u32>()? == own, Misfit::Capacity)?;
        }
        hold(r.array()? == self.provider_print(), Misfit::Provider)?;
        let print: [u8; 32] = r.array()?;
        // With the second reading, the permanent state has got a new generation.
        hold(apply || print == self.permanent_print(), Misfit::Permanent)?;

        let seeded = r.read()?;
        let drbg = Drbg::read(&mut r)?;
        let reset: ResetState = r.read()?;
        let clear: ClearState = r.read()?;
        if apply {
            self.seeded = seeded;
            self.drbg = drbg;
            self.reset = reset;
            self.clear = clear;
        }
        let pcrs = PcrValues::read_all(&mut r)?;
        if apply {
            self.pcrs = pcrs;
        }
        let tested = Tests::from_bits(r.read()?).ok_or(Misfit::Content)?;
        let flags = r.read()?;
        hold(flags < 1 << FLAGS, Misfit::Content)?;
        let exclusive = Some(r.read::<Handle>()?).filter(|handle| handle.0 != 0);
        let time = Time::read_at(self.outside.clock().now_ms(), &mut r)?;
        let timers = self.timers.read(&mut r)?;
        if apply {
            self.tested = tested;
            self.set_flags(flags);
            self.exclusive_audit = exclusive;
            self.time = time;
            self.timers = timers;
            self.work = Work::Idle;
        }
        let launch = self.read_launch(&mut r)?;
        if apply {
            self.launch = launch;
        }
        self.read_orderly(&mut r, apply)?;
        self.sessions.read(&mut r, apply)?;
        self.read_objects(&mut r, apply)?;
        hold(r.is_empty(), Misfit::Content)?;
        Ok(tested)
    }

    fn capacities(&self) -> [u32; 5] {
        [
            usize::from(self.timers.count),
            self.objects.capacity(),
            self.sessions.capacity(),
            self.command_max,
            self.response_max,
        ]
        .map(|n| u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// A hash over what the provider makes of hashes in progress, which only it understands.
    fn provider_print(&self) -> [u8; 32] {
        let states = HashAlg::ALL.map(|alg| {
            let mut state = self.crypto.start(alg);
            self.crypto.update(&mut state, PROBE);
            state
        });
        let [a, b, c, d] = &states;
        let parts = [a, b, c, d].map(|s| s.state.as_slice());
        first_32(self.crypto.hash(HashAlg::Sha256, &parts).as_slice())
    }

    /// A hash over the permanent state as it was committed: its head, and its entries without the data of orderly indices.
    fn permanent_print(&self) -> [u8; 32] {
        let mut state = self.crypto.start(HashAlg::Sha256);
        self.crypto.update(&mut state, self.nv.committed_head());
        for handle in self.nv.handles() {
            let content = self.nv.content(handle).unwrap_or_default();
            let kept = match self.orderly_index(handle) {
                Some(index) => content.len() - self.index_data(&index).len(),
                None => content.len(),
            };
            let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
            self.crypto.update(&mut state, &handle.0.to_be_bytes());
            self.crypto.update(&mut state, &len.to_be_bytes());
            let kept = content.get(..kept).unwrap_or_default();
            self.crypto.update(&mut state, kept);
        }
        let print = first_32(self.crypto.finish(&state).as_slice());
        state.state.zeroize();
        print
    }

    fn orderly_index(&self, handle: Handle) -> Option<super::index::Index> {
        if handle.kind() != HandleKind::Nv {
            return None;
        }
        self.index(handle).filter(|i| i.public.has(A::ORDERLY))
    }

    fn flags(&self) -> u16 {
        [
            self.started,
            self.failed,
            self.testing_all,
            self.physical_presence,
            self.ph_enable,
            self.pcr_reconfigured,
            self.startup_locality3,
            self.early_launch,
            self.read_only,
        ]
        .iter()
        .rev()
        .fold(0, |all, flag| all << 1 | u16::from(*flag))
    }

    fn set_flags(&mut self, flags: u16) {
        let has = |bit: u16| flags >> bit & 1 == 1;
        self.started = has(0);
        self.failed = has(1);
        self.testing_all = has(2);
        self.physical_presence = has(3);
        self.ph_enable = has(4);
        self.pcr_reconfigured = has(5);
        self.startup_locality3 = has(6);
        self.early_launch = has(7);
        self.read_only = has(8);
    }

    fn write_launch(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match &self.launch {
            Some(SequenceKind::Event(states)) => {
                w.put(&true)?;
                states.iter().try_for_each(|state| w.put(state))
            }
            _ => w.put(&false),
        }
    }

    fn read_launch(&self, r: &mut Reader<'_>) -> Result<Option<SequenceKind>, Misfit> {
        if !r.read()? {
            return Ok(None);
        }
        let kind = SequenceKind::Event([r.read()?, r.read()?, r.read()?, r.read()?]);
        hold(self.is_sound(&kind), Misfit::Content)?;
        Ok(Some(kind))
    }

    fn write_orderly(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        self.nv
            .handles()
            .filter_map(|handle| self.orderly_index(handle))
            .try_for_each(|index| w.sized(self.index_data(&index)))
    }

    /// The data of the orderly indices that the permanent state has, in its order.
    fn read_orderly(&mut self, r: &mut Reader<'_>, apply: bool) -> Result<(), Misfit> {
        let mut left = self.nv.count(HandleKind::Nv);
        let mut at = 0;
        while left > 0 {
            // The list cannot be borrowed while data are written.
            let Some(handle) = self.nv.handles().nth(at) else {
                break;
            };
            at += 1;
            if handle.kind() != HandleKind::Nv {
                continue;
            }
            left -= 1;
            let Some(index) = self.orderly_index(handle) else {
                continue;
            };
            let len = self.index_data(&index).len();
            let data = r.sized(len)?;
            hold(data.len() == len, Misfit::Content)?;
            if apply {
                self.set_index_data(&index, data);
            }
        }
        Ok(())
    }

    fn read_objects(&mut self, r: &mut Reader<'_>, apply: bool) -> Result<(), Misfit> {
        for slot in 0..self.objects.capacity() {
            let content = if r.read()? {
                read_content(self, r)?
            } else {
                Content::Free
            };
            if let Content::Sequence(sequence) = &content {
                hold(self.is_sound(&sequence.kind), Misfit::Content)?;
            }
            if apply {
                self.objects.put(slot, content);
            }
        }
        Ok(())
    }

    /// Whether hashes in progress are such as the provider makes, and keys such as it takes.
    fn is_sound(&self, kind: &SequenceKind) -> bool {
        let sound =
            |state: &HashState| state.state.len() == self.crypto.start(state.alg).state.len();
        match kind {
            SequenceKind::Hash(state) => sound(state),
            SequenceKind::Event(states) => {
                states.iter().all(sound)
                    && states
                        .iter()
                        .zip(HashAlg::ALL)
                        .all(|(state, alg)| state.alg == alg)
            }
            SequenceKind::Hmac(state, key) => sound(state) && key.len() == state.alg.block_len(),
            SequenceKind::Message(message) => message.is_sound(sound),
            SequenceKind::Cmac(state, key) => state.len <= 16 && matches!(key.len(), 16 | 24 | 32),
        }
    }
}

/// How many flags there are.
const FLAGS: u16 = 9;

fn first_32(bytes: &[u8]) -> [u8; 32] {
    bytes.first_chunk().copied().unwrap_or_default()
}

impl PcrValues {
    fn write_all(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        for bank in HashAlg::ALL {
            for pcr in 0..PCR_COUNT {
                w.bytes(self.value(bank, pcr))?;
            }
        }
        Ok(())
    }

    fn read_all(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let mut it = Self::new();
        for bank in HashAlg::ALL {
            for pcr in 0..PCR_COUNT {
                let value = r.take(bank.digest_len())?;
                it.value_mut(bank, pcr).copy_from_slice(value);
            }
        }
        Ok(it)
    }
}

impl Objects<'_> {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        for slot in 0..self.capacity() {
            match self.content(slot) {
                Content::Free => w.put(&false)?,
                content => {
                    w.put(&true)?;
                    write_content(content, w)?;
                }
            }
        }
        Ok(())
    }
}

impl super::session::Sessions<'_> {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.policy_set())?;
        for active in &self.active {
            match active {
                Active::Free => w.put(&0u8)?,
                Active::Loaded(slot) => {
                    w.put(&1u8)?;
                    w.put(slot)?;
                }
                Active::Saved(number) => {
                    w.put(&2u8)?;
                    w.put(number)?;
                }
            }
        }
        for slot in 0..self.capacity() {
            let session = self.in_slot(slot);
            w.put(&session.is_some())?;
            session.map_or(Ok(()), |session| w.put(session))?;
        }
        Ok(())
    }

    fn read(&mut self, r: &mut Reader<'_>, apply: bool) -> Result<(), Misfit> {
        let policy: u64 = r.read()?;
        let mut active = [Active::Free; ACTIVE_MAX];
        for place in &mut active {
            *place = match r.read::<u8>()? {
                0 => Active::Free,
                1 => Active::Loaded(r.read()?),
                2 => Active::Saved(r.read()?),
                _ => return Err(Misfit::Content),
            };
        }
        let in_range = active.iter().all(|a| match a {
            Active::Loaded(slot) => usize::from(*slot) < self.capacity(),
            _ => true,
        });
        hold(in_range, Misfit::Content)?;
        for slot in 0..self.capacity() {
            let session = if r.read()? {
                Some(r.read::<Session>()?)
            } else {
                None
            };
            // Each loaded session has one number, which says rightly of which kind it is.
            let mut users = active
                .iter()
                .enumerate()
                .filter(|(_, a)| matches!(a, Active::Loaded(used) if usize::from(*used) == slot));
            let user = users.next().map(|(n, _)| policy >> n & 1 == 1);
            let is_policy = session.as_ref().map(Session::is_policy);
            let sound = session.as_ref().is_none_or(Session::is_sound);
            hold(
                user == is_policy && users.next().is_none() && sound,
                Misfit::Content,
            )?;
            if apply {
                self.set_slot(slot, session);
            }
        }
        if apply {
            self.active = active;
            self.set_policy_set(policy);
        }
        Ok(())
    }
}

impl Session {
    /// Whether its digests have the length of its hash.
    fn is_sound(&self) -> bool {
        let len = self.auth_hash.digest_len();
        let fits = |digest: &Bytes<64>| digest.is_empty() || digest.len() == len;
        fits(&self.policy_digest) && fits(&self.key) && self.audit.as_ref().is_none_or(fits)
    }
}

impl Marshal for Drbg {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        let (key, v, requests) = self.parts();
        w.bytes(key)?;
        w.bytes(v)?;
        w.put(&requests)
    }
}

impl Unmarshal for Drbg {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self::from_parts(r.array()?, r.array()?, r.read()?))
    }
}

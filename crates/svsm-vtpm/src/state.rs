//! The state of a TPM: what it remembers for ever, until the next reset, or as long as it has power.

pub(crate) mod clock; // time and clock
pub(crate) mod da; // protection against dictionary attacks
pub(crate) mod entity; // names, authorization values and policies of whatever a handle names
pub(crate) mod image; // the permanent state as bytes
pub(crate) mod index; // NV indices
#[cfg_attr(not(feature = "pqc"), path = "state/no_message.rs")]
pub(crate) mod message; // messages that are signed or verified in pieces
pub(crate) mod nv; // the NV memory
pub(crate) mod object; // loaded objects and sequences
pub(crate) mod pcr; // platform configuration registers
pub(crate) mod permanent; // seeds, proofs, counters, settings
pub(crate) mod selftest; // known answers
pub(crate) mod session; // sessions
pub(crate) mod startup; // power, startup, shutdown, manufacture
pub(crate) mod timer; // authenticated countdown timers
pub(crate) mod volatile; // what a suspended TPM goes on with
pub(crate) mod work; // what takes longer than a step

use crate::{
    crypto::{
        Crypto, Digest, Stream,
        drbg::{Drbg, Generator, SEED_LEN},
    },
    handle::Handle,
    rc::Rc,
    seam::{AttachedComponent, Clock, NvStore, Random},
    table,
};
use clock::Time;
use nv::Entries;
use object::Objects;
use pcr::PcrValues;
use permanent::{ClearState, Permanent, ResetState};
use session::Sessions;
use timer::Timers;
use work::Work;
use zeroize::Zeroize;

/// Everything but the buffers of commands.
pub(crate) struct Core<'a> {
    pub(crate) crypto: &'a dyn Crypto,
    #[cfg(feature = "pqc")]
    pub(crate) lattices: Option<&'a dyn crate::crypto::Lattices>,
    outside: Outside<'a>,
    pub(crate) components: &'a mut [&'a mut dyn AttachedComponent],
    drbg: Drbg,
    seeded: bool,

    pub(crate) permanent: Permanent,
    pub(crate) reset: ResetState,
    pub(crate) clear: ClearState,
    pub(crate) pcrs: PcrValues,
    pub(crate) nv: Entries<'a>,
    pub(crate) objects: Objects<'a>,
    pub(crate) sessions: Sessions<'a>,
    pub(crate) time: Time,
    pub(crate) work: Work,
    pub(crate) timers: Timers,

    /// Startup was done since the power came.
    pub(crate) started: bool,
    /// The permanent state was loaded since the power came.
    loaded: bool,
    /// The permanent state differs from what the store has.
    pub(crate) dirty: bool,
    generation: u64,
    pub(crate) physical_presence: bool,
    pub(crate) ph_enable: bool,
    /// Nothing may be changed that outlives the next reset.
    pub(crate) read_only: bool,
    /// PCR_Allocate asks for a reset before anything else.
    pub(crate) pcr_reconfigured: bool,
    /// The session that audits exclusively.
    pub(crate) exclusive_audit: Option<Handle>,
    /// Locality 3 or 4 spoke before startup, and what the early event was.
    pub(crate) startup_locality3: bool,
    pub(crate) early_launch: bool,
    /// The hash of a dynamic launch, or of the early event, in progress.
    pub(crate) launch: Option<object::SequenceKind>,
    /// A self-test failed: nothing works any more until the power comes anew.
    pub(crate) failed: bool,
    /// The self-tests that were passed since the power came.
    pub(crate) tested: selftest::Tests,
    /// A full self-test is in progress.
    pub(crate) testing_all: bool,
    /// Buffers' length, for the properties that tell it.
    pub(crate) command_max: usize,
    pub(crate) response_max: usize,
    /// Which slot of a commitment was used last.
    pub(crate) identity: crate::engine::Identity,
}

impl core::fmt::Debug for Core<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Core")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

/// The embedder's seams, lent one by one or as one thing.
pub(crate) enum Outside<'a> {
    Apart {
        entropy: &'a mut dyn Random,
        clock: &'a mut dyn Clock,
        store: &'a mut dyn NvStore,
    },
    #[cfg(feature = "callbacks")]
    Bundle(&'a mut dyn Bundle),
}

/// All seams in one.
#[cfg(feature = "callbacks")]
pub(crate) trait Bundle: Random + Clock + NvStore {}

#[cfg(feature = "callbacks")]
impl<T: Random + Clock + NvStore> Bundle for T {}

impl Outside<'_> {
    fn entropy(&mut self) -> &mut dyn Random {
        match self {
            Self::Apart { entropy, .. } => *entropy,
            #[cfg(feature = "callbacks")]
            Self::Bundle(all) => *all,
        }
    }

    fn clock(&mut self) -> &mut dyn Clock {
        match self {
            Self::Apart { clock, .. } => *clock,
            #[cfg(feature = "callbacks")]
            Self::Bundle(all) => *all,
        }
    }

    fn store(&mut self) -> &mut dyn NvStore {
        match self {
            Self::Apart { store, .. } => *store,
            #[cfg(feature = "callbacks")]
            Self::Bundle(all) => *all,
        }
    }
}

/// What a TPM is made of: the embedder's seams and its memory.
pub(crate) struct Parts<'a> {
    pub(crate) crypto: &'a dyn Crypto,
    pub(crate) outside: Outside<'a>,
    pub(crate) objects: &'a mut [object::ObjectSlot],
    pub(crate) sessions: &'a mut [session::SessionSlot],
    pub(crate) nv: &'a mut [u8],
}

impl<'a> Core<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Self {
        Self {
            crypto: parts.crypto,
            #[cfg(feature = "pqc")]
            lattices: None,
            outside: parts.outside,
            components: &mut [],
            drbg: Drbg::default(),
            seeded: false,
            permanent: Permanent::new(),
            reset: ResetState::new(),
            clear: ClearState::new(),
            pcrs: PcrValues::new(),
            nv: Entries::new(parts.nv),
            objects: Objects::new(parts.objects),
            sessions: Sessions::new(parts.sessions),
            time: Time::default(),
            work: Work::Idle,
            timers: Timers::new(),
            started: false,
            loaded: false,
            dirty: false,
            generation: 0,
            physical_presence: false,
            ph_enable: true,
            read_only: false,
            pcr_reconfigured: false,
            exclusive_audit: None,
            startup_locality3: false,
            early_launch: false,
            launch: None,
            failed: false,
            tested: selftest::Tests::empty(),
            testing_all: false,
            command_max: 0,
            response_max: 0,
            identity: crate::engine::Identity::default(),
        }
    }

    /// Makes sure that the generator has the entropy it needs.
    fn seed(&mut self) -> Result<(), Rc> {
        if self.seeded && !self.drbg.wants_seed() {
            return Ok(());
        }
        let mut seed = [0; SEED_LEN];
        self.outside
            .entropy()
            .fill(&mut seed)
            .map_err(|_| Rc::FAILURE)?;
        self.drbg.reseed(self.crypto, &seed);
        seed.zeroize();
        self.seeded = true;
        Ok(())
    }

    /// Mixes something into the generator (StirRandom).
    pub(crate) fn stir(&mut self, data: &[u8]) -> Result<(), Rc> {
        self.seed()?;
        let hash = self.crypto.hash(crate::HashAlg::Sha512, &[data]);
        let mut seed = [0; SEED_LEN];
        seed.iter_mut()
            .zip(hash.as_slice())
            .for_each(|(to, from)| *to = *from);
        // What anybody says is no entropy: it does not put off the next seeding.
        self.drbg.mix(self.crypto, &seed);
        Ok(())
    }

    /// Fresh random bytes.
    pub(crate) fn random(&mut self, out: &mut [u8]) -> Result<(), Rc> {
        self.seed()?;
        self.drbg.generate(self.crypto, out);
        Ok(())
    }

    /// A fresh random string.
    pub(crate) fn random_bytes<const N: usize>(
        &mut self,
        len: usize,
    ) -> Result<crate::Bytes<N>, Rc> {
        let mut it = crate::Bytes::zeroed(len);
        self.random(it.as_mut_slice())?;
        Ok(it)
    }

    /// Random numbers for an operation that draws as many as it needs.
    pub(crate) fn generator(&mut self) -> Result<impl Stream + use<'_, 'a>, Rc> {
        self.seed()?;
        Ok(Generator {
            drbg: &mut self.drbg,
            crypto: self.crypto,
        })
    }

    /// A hash over everything that makes two seeds or proofs of hierarchies differ.
    pub(crate) fn proof(&self, hierarchy: Handle) -> &[u8] {
        match hierarchy {
            Handle::PLATFORM => &self.permanent.ph_proof,
            Handle::ENDORSEMENT => &self.permanent.eh_proof,
            Handle::OWNER => &self.permanent.sh_proof,
            _ => &self.reset.null_proof,
        }
    }

    /// The primary seed of a hierarchy.
    pub(crate) fn primary_seed(&self, hierarchy: Handle) -> &[u8] {
        match hierarchy {
            Handle::PLATFORM => &self.permanent.pp_seed,
            Handle::ENDORSEMENT => &self.permanent.ep_seed,
            Handle::OWNER => &self.permanent.sp_seed,
            _ => &self.reset.null_seed,
        }
    }

    /// Whether a hierarchy is enabled.
    pub(crate) const fn enabled(&self, hierarchy: Handle) -> bool {
        match hierarchy {
            Handle::PLATFORM => self.ph_enable,
            Handle::OWNER => self.clear.sh_enable,
            Handle::ENDORSEMENT => self.clear.eh_enable,
            _ => true,
        }
    }

    /// Whether a command of the table is there: not without what it is for.
    pub(crate) const fn offers(&self, code: u16) -> bool {
        match code {
            table::ACT_SET_TIMEOUT => self.timers.count > 0,
            table::AC_GET_CAPABILITY | table::AC_SEND => !self.components.is_empty(),
            table::VERIFY_SEQUENCE_COMPLETE..=table::SIGN_SEQUENCE_START => self.has_lattices(),
            _ => true,
        }
    }

    /// HMAC with SHA-512, by which the TPM recognizes what it made itself: tickets.
    pub(crate) fn seal_of(&self, hierarchy: Handle, parts: &[&[u8]]) -> Digest {
        self.crypto
            .hmac(crate::HashAlg::Sha512, self.proof(hierarchy), parts)
    }
}

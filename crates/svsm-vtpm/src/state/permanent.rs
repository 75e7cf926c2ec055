//! What the TPM remembers without power, and what it keeps over a resume or a restart (Part 4's persistent, "state
//! clear" and "state reset" data).

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::da::DA_DEFAULT;
use crate::{
    alg::HashAlg,
    bytes::Bytes,
    rc::Rc,
    structures::{pcr::SELECT_LEN, public::Digest},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// Bytes of a primary seed and of a proof.
pub(crate) const SEED_LEN: usize = 64;

/// A primary seed or a hierarchy's proof.
pub(crate) type Seed = [u8; SEED_LEN];

/// One bit for each command that the TPM implements, by its place in the table.
pub(crate) type CommandSet = [u8; 18];

/// None of them.
pub(crate) const NO_COMMANDS: CommandSet = [0; 18];

/// The code that the first bit stands for: bits are counted by code and not by place, so that a set means the same when commands are added.
const FIRST_CODE: u16 = 0x11F;

/// A policy that authorizes the use of a hierarchy or of PCRs.
#[derive(Clone, Debug, Default, Zeroize)]
pub(crate) struct Policy {
    #[zeroize(skip)]
    pub(crate) alg: Option<HashAlg>,
    pub(crate) digest: Digest,
}

/// Implements both directions of the wire for a structure of which all fields are of wire types.
macro_rules! persistent {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$doc:meta])* $field:ident: $t:ty,)* }) => {
        $(#[$meta])*
        pub(crate) struct $name { $($(#[$doc])* pub(crate) $field: $t,)* }
        impl Marshal for $name {
            fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
                $(w.put(&self.$field)?;)*
                Ok(())
            }
        }
        impl Unmarshal for $name {
            fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
                Ok(Self { $($field: r.read()?,)* })
            }
        }
    };
}

impl<const N: usize> Unmarshal for [u8; N] {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        r.array()
    }
}

impl<const N: usize> Marshal for [u8; N] {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.bytes(self)
    }
}

impl Unmarshal for Policy {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self {
            alg: HashAlg::read_or_null(r)?,
            digest: r.read()?,
        })
    }
}

impl Marshal for Policy {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.alg)?;
        w.put(&self.digest)
    }
}

persistent! {
    /// Data that only manufacture, Clear and the like reset.
    #[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
    struct Permanent {
        ep_seed: Seed,
        sp_seed: Seed,
        pp_seed: Seed,
        eh_proof: Seed,
        sh_proof: Seed,
        ph_proof: Seed,
        owner_auth: Digest,
        endorsement_auth: Digest,
        lockout_auth: Digest,
        owner_policy: Policy,
        endorsement_policy: Policy,
        lockout_policy: Policy,
        disable_clear: bool,
        max_tries: u32,
        recovery_time: u32,
        lockout_recovery: u32,
        failed_tries: u32,
        lockout_auth_enabled: bool,
        /// A DA-protected value was used since the last start.
        da_used: bool,
        reset_count: u32,
        total_reset_count: u64,
        /// The clock, as it was last saved.
        clock: u64,
        /// How the TPM was shut down: see `Orderly`.
        orderly: u8,
        /// The highest value that any counter of a deleted index had.
        max_counter: u64,
        /// PCRs of each bank, by the index of the hash; in force now and from the next reset on.
        pcr_allocated: [u8; SELECT_LEN * HashAlg::ALL.len()],
        pcr_next_allocated: [u8; SELECT_LEN * HashAlg::ALL.len()],
        pcr_policy: Policy,
        pp_commands: CommandSet,
        audit_commands: CommandSet,
        #[zeroize(skip)]
        audit_alg: HashAlg,
        audit_counter: u64,
        algorithm_set: u32,
        /// Changes whenever the endorsement seed does.
        ek_epoch: u32,
    }
}

persistent! {
    /// Data that a TPM Reset starts afresh, and that Restart and Resume keep.
    #[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
    struct ResetState {
        null_seed: Seed,
        null_proof: Seed,
        restart_count: u32,
        clear_count: u32,
        object_context: u64,
        session_context: u64,
        pcr_counter: u32,
        audit_digest: Digest,
        commit_counter: u64,
        commit_nonce: Bytes<64>,
        commit_used: [u8; 8],
    }
}

persistent! {
    /// Data that Reset and Restart start afresh, and that Resume keeps.
    #[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
    struct ClearState {
        sh_enable: bool,
        eh_enable: bool,
        ph_enable_nv: bool,
        platform_auth: Digest,
        platform_policy: Policy,
        pcr_auth: Digest,
    }
}

/// `orderly`: the last shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orderly {
    /// There was none: the power just went.
    None,
    /// Shutdown(CLEAR).
    Clear,
    /// Shutdown(STATE), and the locality of its startup.
    State { locality3: bool },
}

impl Orderly {
    pub(crate) const fn to_u8(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Clear => 1,
            Self::State { locality3: false } => 2,
            Self::State { locality3: true } => 3,
        }
    }

    pub(crate) const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Clear,
            2 => Self::State { locality3: false },
            3 => Self::State { locality3: true },
            _ => Self::None,
        }
    }
}

impl Permanent {
    /// As manufactured, with empty seeds and proofs.
    pub(crate) fn new() -> Self {
        let mut all = [0; SELECT_LEN * HashAlg::ALL.len()];
        all.fill(0xFF);
        Self {
            ep_seed: [0; SEED_LEN],
            sp_seed: [0; SEED_LEN],
            pp_seed: [0; SEED_LEN],
            eh_proof: [0; SEED_LEN],
            sh_proof: [0; SEED_LEN],
            ph_proof: [0; SEED_LEN],
            owner_auth: Digest::EMPTY,
            endorsement_auth: Digest::EMPTY,
            lockout_auth: Digest::EMPTY,
            owner_policy: Policy::default(),
            endorsement_policy: Policy::default(),
            lockout_policy: Policy::default(),
            disable_clear: false,
            max_tries: DA_DEFAULT.max_tries,
            recovery_time: DA_DEFAULT.recovery_time,
            lockout_recovery: DA_DEFAULT.lockout_recovery,
            failed_tries: 0,
            lockout_auth_enabled: true,
            da_used: false,
            reset_count: 0,
            total_reset_count: 0,
            clock: 0,
            orderly: Orderly::Clear.to_u8(),
            max_counter: 0,
            pcr_allocated: all,
            pcr_next_allocated: all,
            pcr_policy: Policy::default(),
            pp_commands: NO_COMMANDS,
            audit_commands: NO_COMMANDS,
            audit_alg: HashAlg::Sha512,
            audit_counter: 0,
            algorithm_set: 0,
            ek_epoch: 0,
        }
    }
}

impl ResetState {
    pub(crate) const fn new() -> Self {
        Self {
            null_seed: [0; SEED_LEN],
            null_proof: [0; SEED_LEN],
            restart_count: 0,
            clear_count: 0,
            object_context: 0,
            session_context: 0,
            pcr_counter: 0,
            audit_digest: Digest::EMPTY,
            commit_counter: 0,
            commit_nonce: Bytes::EMPTY,
            commit_used: [0; 8],
        }
    }
}

impl ClearState {
    pub(crate) const fn new() -> Self {
        Self {
            sh_enable: true,
            eh_enable: true,
            ph_enable_nv: true,
            platform_auth: Digest::EMPTY,
            platform_policy: Policy {
                alg: None,
                digest: Digest::EMPTY,
            },
            pcr_auth: Digest::EMPTY,
        }
    }
}

/// Octet and mask of a command.
fn bit_of(code: u16) -> (usize, u8) {
    // A code below the first is far behind the last.
    let bit = usize::from(code.wrapping_sub(FIRST_CODE));
    (bit / 8, 1 << (bit % 8))
}

/// Whether a set has the command of a code.
pub(crate) fn has_command(set: &CommandSet, code: u16) -> bool {
    let (at, mask) = bit_of(code);
    set.get(at).is_some_and(|octet| octet & mask != 0)
}

/// Puts the command of a code into a set or takes it out.
pub(crate) fn set_command(set: &mut CommandSet, code: u16, on: bool) {
    let (at, mask) = bit_of(code);
    if let Some(octet) = set.get_mut(at) {
        *octet = *octet & !mask | if on { mask } else { 0 };
    }
}

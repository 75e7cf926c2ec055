//! The command table: what each command takes, who must authorize it, and who runs it. Everything that asks about
//! commands (dispatch, authorization, capabilities, audit, traces) reads it.

use bitflags::bitflags;

use crate::{
    command::{self, Call},
    handle::{Handle, HandleKind},
    rc::{Rc, Stop, ensure},
    state::Core,
};

/// Runs a command of which handles and sessions are checked. It reads all parameters first, then checks them, and
/// changes something only when nothing can fail any more.
pub(crate) type Run = fn(&mut Core<'_>, &mut Call<'_>) -> Result<(), Stop>;

/// Who must authorize the use of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    None,
    User,
    Admin,
    Duplicate,
}

/// What a command does with an NV index, for the attributes that allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Other,
}

/// What a handle of a command may be (`TPMI_*` of handle types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `TPMI_DH_OBJECT`
    Object,
    /// `TPMI_DH_OBJECT+`
    ObjectOrNull,
    /// `TPMI_DH_PARENT`
    Parent,
    /// `TPMI_DH_ENTITY`
    Entity,
    /// `TPMI_DH_ENTITY+`
    EntityOrNull,
    /// `TPMI_DH_PCR`
    Pcr,
    /// `TPMI_DH_PCR+`
    PcrOrNull,
    /// `TPMI_RH_HIERARCHY+`
    Hierarchy,
    /// `TPMI_RH_HIERARCHY_AUTH`
    HierarchyAuth,
    /// `TPMI_RH_HIERARCHY_POLICY`
    HierarchyPolicy,
    /// `TPMI_RH_ACT`
    Timer,
    /// `TPMI_RH_AC`
    Component,
    /// `TPMI_RH_BASE_HIERARCHY`
    BaseHierarchy,
    /// `TPMI_RH_PROVISION`
    Provision,
    /// `TPMI_RH_CLEAR`
    Clear,
    /// `TPMI_RH_PLATFORM`
    Platform,
    /// `TPMI_RH_LOCKOUT`
    Lockout,
    /// `TPMI_RH_ENDORSEMENT`
    Endorsement,
    /// `TPMI_RH_NV_AUTH`
    NvAuth,
    /// `TPMI_RH_NV_INDEX`
    NvIndex,
    /// `TPMI_SH_HMAC`
    HmacSession,
    /// `TPMI_SH_POLICY`
    PolicySession,
    /// `TPMI_DH_CONTEXT`
    Context,
}

impl Kind {
    /// Whether a handle is of this kind; [`Rc::VALUE`] if not.
    pub(crate) fn check(self, handle: Handle) -> Result<(), Rc> {
        use Handle as H;
        use HandleKind as K;
        let kind = handle.kind();
        let object = matches!(kind, K::Transient | K::Persistent);
        let pcr = kind == K::Pcr && handle.index() < crate::structures::pcr::PCR_COUNT;
        let permanent_entity =
            matches!(handle, H::OWNER | H::ENDORSEMENT | H::PLATFORM | H::LOCKOUT);
        ensure(
            match self {
                Self::Object => object,
                Self::ObjectOrNull => object || handle == H::NULL,
                Self::Parent => object || handle.is_hierarchy(),
                Self::Entity => object || pcr || kind == K::Nv || permanent_entity,
                Self::EntityOrNull => {
                    object || pcr || kind == K::Nv || permanent_entity || handle == H::NULL
                }
                Self::Pcr => pcr,
                Self::PcrOrNull => pcr || handle == H::NULL,
                Self::Hierarchy => handle.is_hierarchy(),
                Self::HierarchyAuth => permanent_entity,
                Self::HierarchyPolicy => permanent_entity || handle.timer().is_some(),
                Self::Timer => handle.timer().is_some(),
                Self::Component => kind == K::Component && handle.index() < 1 << 16,
                Self::BaseHierarchy => handle.is_hierarchy() && handle != H::NULL,
                Self::Provision => matches!(handle, H::OWNER | H::PLATFORM),
                Self::Clear => matches!(handle, H::LOCKOUT | H::PLATFORM),
                Self::Platform => handle == H::PLATFORM,
                Self::Lockout => handle == H::LOCKOUT,
                Self::Endorsement => handle == H::ENDORSEMENT,
                Self::NvAuth => kind == K::Nv || matches!(handle, H::OWNER | H::PLATFORM),
                Self::NvIndex => kind == K::Nv,
                Self::HmacSession => kind == K::HmacSession,
                Self::PolicySession => kind == K::PolicySession,
                Self::Context => kind == K::Transient || handle.is_session(),
            },
            Rc::VALUE,
        )
    }
}

bitflags! {
    /// What is special about a command.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Flags: u16 {
        /// `TPMA_CC.nv`: it may change the permanent state.
        const NV = 1 << 0;
        /// `TPMA_CC.extensive`: it may flush many contexts.
        const EXTENSIVE = 1 << 1;
        /// `TPMA_CC.flushed`: it flushes what its handle names.
        const FLUSHED = 1 << 2;
        /// The response has a handle.
        const HANDLE = 1 << 3;
        /// The first parameter of the command has a size, and can be encrypted.
        const DECRYPT = 1 << 4;
        /// The same of the response.
        const ENCRYPT = 1 << 5;
        /// No sessions are allowed.
        const NO_SESSIONS = 1 << 6;
        /// Physical presence can be demanded for it.
        const PRESENCE = 1 << 7;
        /// It reads a NV index.
        const READS = 1 << 8;
        /// It writes a NV index.
        const WRITES = 1 << 9;
        /// It changes nothing that an earlier Shutdown saved.
        const CALM = 1 << 10;
        /// It runs before Startup.
        const EARLY = 1 << 11;
    }
}

/// A command.
pub(crate) struct Command {
    pub(crate) code: u16,
    pub(crate) name: &'static str,
    pub(crate) handles: &'static [(Kind, Role)],
    pub(crate) flags: Flags,
    pub(crate) run: Run,
}

impl core::fmt::Debug for Command {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

impl Command {
    pub(crate) const fn has(&self, flag: Flags) -> bool {
        self.flags.contains(flag)
    }

    /// How many handles need an authorization; they come first.
    pub(crate) fn auth_handles(&self) -> usize {
        self.handles
            .iter()
            .take_while(|(_, role)| *role != Role::None)
            .count()
    }

    pub(crate) const fn access(&self) -> Access {
        if self.has(Flags::WRITES) {
            Access::Write
        } else if self.has(Flags::READS) {
            Access::Read
        } else {
            Access::Other
        }
    }

    /// `TPMA_CC`.
    pub(crate) fn attributes(&self) -> u32 {
        let bit = |flag, at: u32| u32::from(self.has(flag)) << at;
        let handles = u32::try_from(self.handles.len()).unwrap_or(0);
        u32::from(self.code)
            | bit(Flags::NV, 22)
            | bit(Flags::EXTENSIVE, 23)
            | bit(Flags::FLUSHED, 24)
            | handles << 25
            | bit(Flags::HANDLE, 28)
    }
}

/// The place of a command in the table.
pub(crate) fn index_of(code: u32) -> Option<usize> {
    let code = u16::try_from(code).ok()?;
    COMMANDS.binary_search_by_key(&code, |c| c.code).ok()
}

/// A command by its place in the table.
pub(crate) fn command(index: usize) -> Option<&'static Command> {
    COMMANDS.get(index)
}

/// The name of a command code, for people.
pub fn command_name(code: u32) -> Option<&'static str> {
    index_of(code).and_then(command).map(|c| c.name)
}

/// How many handles a command has.
pub fn command_handles(code: u32) -> Option<usize> {
    index_of(code).and_then(command).map(|c| c.handles.len())
}

pub(crate) const PP_COMMANDS: u16 = 0x12D;
pub(crate) const SET_AUDIT_STATUS: u16 = 0x140;
pub(crate) const AC_GET_CAPABILITY: u16 = 0x194;
pub(crate) const AC_SEND: u16 = 0x195;
pub(crate) const ACT_SET_TIMEOUT: u16 = 0x198;
/// Commands that came with post-quantum keys: the first and the last code.
pub(crate) const VERIFY_SEQUENCE_COMPLETE: u16 = 0x1A3;
pub(crate) const SIGN_SEQUENCE_START: u16 = 0x1AA;

/// Commands that a TPM in read-only mode does not run, in ascending order (version 1.83: Part 3, clause 24.9).
const CHANGING: [u16; 28] = [
    0x11F, 0x120, 0x121, 0x122, 0x124, 0x125, 0x126, 0x127, 0x128, 0x129, 0x12A, 0x12B, 0x12C,
    0x12D, 0x12E, 0x130, 0x131, 0x132, 0x134, 0x13A, 0x13B, 0x13F, 0x140, 0x150, 0x153, 0x183,
    0x191, 0x19D,
];

/// Whether read-only mode forbids a command, whatever its parameters say.
pub(crate) fn changes(code: u16) -> bool {
    CHANGING.binary_search(&code).is_ok()
}

macro_rules! commands {
    ($($(#[$only:meta])* $code:literal $name:ident $module:ident::$run:ident
        [$($kind:ident $role:ident),*] $($flag:ident)*;)*) => {
        /// All commands of this TPM, by their codes.
        pub(crate) static COMMANDS: [Command; [$($(#[$only])* $code),*].len()] = [$($(#[$only])* Command {
            code: $code,
            name: stringify!($name),
            handles: &[$((Kind::$kind, Role::$role)),*],
            flags: Flags::empty()$(.union(Flags::$flag))*,
            run: command::$module::$run,
        }),*];
    };
}

commands! {
    0x11F NV_UndefineSpaceSpecial nv::undefine_space_special [NvIndex Admin, Platform User] NV PRESENCE;
    0x120 EvictControl context::evict_control [Provision User, Object None] NV PRESENCE;
    0x121 HierarchyControl hierarchy::control [BaseHierarchy User] NV EXTENSIVE PRESENCE;
    0x122 NV_UndefineSpace nv::undefine_space [Provision User, NvIndex None] NV PRESENCE;
    0x124 ChangeEPS hierarchy::change_eps [Platform User] NV EXTENSIVE PRESENCE;
    0x125 ChangePPS hierarchy::change_pps [Platform User] NV EXTENSIVE PRESENCE;
    0x126 Clear hierarchy::clear [Clear User] NV EXTENSIVE PRESENCE;
    0x127 ClearControl hierarchy::clear_control [Clear User] NV PRESENCE;
    0x128 ClockSet clocks::set [Provision User] NV PRESENCE;
    0x129 HierarchyChangeAuth hierarchy::change_auth [HierarchyAuth User] NV DECRYPT PRESENCE;
    0x12A NV_DefineSpace nv::define_space [Provision User] NV DECRYPT PRESENCE;
    0x12B PCR_Allocate integrity::allocate [Platform User] NV PRESENCE;
    0x12C PCR_SetAuthPolicy integrity::set_auth_policy [Platform User] NV DECRYPT PRESENCE;
    0x12D PP_Commands hierarchy::pp_commands [Platform User] NV PRESENCE;
    0x12E SetPrimaryPolicy hierarchy::set_primary_policy [HierarchyPolicy User] NV DECRYPT PRESENCE;
    0x130 ClockRateAdjust clocks::rate_adjust [Provision User] PRESENCE;
    0x131 CreatePrimary object::create_primary [Hierarchy User] HANDLE DECRYPT ENCRYPT PRESENCE CALM;
    0x132 NV_GlobalWriteLock nv::global_write_lock [Provision User] NV PRESENCE;
    0x133 GetCommandAuditDigest attestation::get_command_audit_digest [Endorsement User, ObjectOrNull User] NV DECRYPT ENCRYPT;
    0x134 NV_Increment nv::increment [NvAuth User, NvIndex None] NV WRITES;
    0x135 NV_SetBits nv::set_bits [NvAuth User, NvIndex None] NV WRITES;
    0x136 NV_Extend nv::extend [NvAuth User, NvIndex None] NV WRITES DECRYPT;
    0x137 NV_Write nv::write [NvAuth User, NvIndex None] NV WRITES DECRYPT;
    0x138 NV_WriteLock nv::write_lock [NvAuth User, NvIndex None] NV WRITES;
    0x139 DictionaryAttackLockReset da::lock_reset [Lockout User] NV;
    0x13A DictionaryAttackParameters da::parameters [Lockout User] NV;
    0x13B NV_ChangeAuth nv::change_auth [NvIndex Admin] NV DECRYPT;
    0x13C PCR_Event integrity::event [PcrOrNull User] NV DECRYPT;
    0x13D PCR_Reset integrity::reset [Pcr User] NV;
    0x13E SequenceComplete hash_hmac::sequence_complete [Object User] FLUSHED DECRYPT ENCRYPT;
    0x13F SetAlgorithmSet hierarchy::set_algorithm_set [Platform User] NV PRESENCE;
    0x140 SetCommandCodeAuditStatus attestation::set_audit_status [Provision User] NV PRESENCE;
    0x142 IncrementalSelfTest testing::incremental_self_test [] NV CALM;
    0x143 SelfTest testing::self_test [] NV CALM;
    0x144 Startup startup::startup [] NV NO_SESSIONS EARLY CALM;
    0x145 Shutdown startup::shutdown [] NV CALM;
    0x146 StirRandom random::stir_random [] NV DECRYPT CALM;
    0x147 ActivateCredential object::activate_credential [Object Admin, Object User] DECRYPT ENCRYPT CALM;
    0x148 Certify attestation::certify [Object Admin, ObjectOrNull User] DECRYPT ENCRYPT CALM;
    0x149 PolicyNV policy::nv [NvAuth User, NvIndex None, PolicySession None] READS DECRYPT;
    0x14A CertifyCreation attestation::certify_creation [ObjectOrNull User, Object None] DECRYPT ENCRYPT CALM;
    0x14B Duplicate duplication::duplicate [Object Duplicate, ObjectOrNull None] DECRYPT ENCRYPT CALM;
    0x14C GetTime attestation::get_time [Endorsement User, ObjectOrNull User] DECRYPT ENCRYPT CALM;
    0x14D GetSessionAuditDigest attestation::get_session_audit_digest [Endorsement User, ObjectOrNull User, HmacSession None] DECRYPT ENCRYPT CALM;
    0x14E NV_Read nv::read [NvAuth User, NvIndex None] READS ENCRYPT;
    0x14F NV_ReadLock nv::read_lock [NvAuth User, NvIndex None] NV READS;
    0x150 ObjectChangeAuth object::change_auth [Object Admin, Object None] DECRYPT ENCRYPT CALM;
    0x151 PolicySecret policy::secret [Entity User, PolicySession None] READS DECRYPT ENCRYPT;
    0x152 Rewrap duplication::rewrap [ObjectOrNull User, ObjectOrNull None] DECRYPT ENCRYPT CALM;
    0x153 Create object::create [Object User] DECRYPT ENCRYPT CALM;
    0x154 ECDH_ZGen asymmetric::ecdh_zgen [Object User] DECRYPT ENCRYPT CALM;
    0x155 HMAC hash_hmac::mac [Object User] DECRYPT ENCRYPT CALM;
    0x156 Import duplication::import [Object User] DECRYPT ENCRYPT CALM;
    0x157 Load object::load [Object User] HANDLE DECRYPT ENCRYPT CALM;
    0x158 Quote attestation::quote [ObjectOrNull User] DECRYPT ENCRYPT CALM;
    0x159 RSA_Decrypt asymmetric::rsa_decrypt [Object User] DECRYPT ENCRYPT CALM;
    0x15B HMAC_Start hash_hmac::mac_start [Object User] HANDLE DECRYPT CALM;
    0x15C SequenceUpdate hash_hmac::sequence_update [Object User] DECRYPT CALM;
    0x15D Sign signing::sign [Object User] DECRYPT CALM;
    0x15E Unseal object::unseal [Object User] ENCRYPT CALM;
    0x160 PolicySigned policy::policy_signed [Object None, PolicySession None] DECRYPT ENCRYPT CALM;
    0x161 ContextLoad context::load [] HANDLE NO_SESSIONS CALM;
    0x162 ContextSave context::save [Context None] NO_SESSIONS;
    0x163 ECDH_KeyGen asymmetric::ecdh_keygen [Object None] ENCRYPT CALM;
    0x164 EncryptDecrypt symmetric::encrypt_decrypt [Object User] ENCRYPT CALM;
    0x165 FlushContext context::flush [] NO_SESSIONS CALM;
    0x167 LoadExternal object::load_external [] HANDLE DECRYPT ENCRYPT CALM;
    0x168 MakeCredential object::make_credential [Object None] DECRYPT ENCRYPT CALM;
    0x169 NV_ReadPublic nv::read_public [NvIndex None] ENCRYPT CALM;
    0x16A PolicyAuthorize policy::authorize [PolicySession None] DECRYPT CALM;
    0x16B PolicyAuthValue policy::auth_value [PolicySession None] CALM;
    0x16C PolicyCommandCode policy::command_code [PolicySession None] CALM;
    0x16D PolicyCounterTimer policy::counter_timer [PolicySession None] DECRYPT CALM;
    0x16E PolicyCpHash policy::cp_hash [PolicySession None] DECRYPT CALM;
    0x16F PolicyLocality policy::locality [PolicySession None] CALM;
    0x170 PolicyNameHash policy::name_hash [PolicySession None] DECRYPT CALM;
    0x171 PolicyOR policy::or [PolicySession None] CALM;
    0x172 PolicyTicket policy::ticket [PolicySession None] DECRYPT CALM;
    0x173 ReadPublic object::read_public [Object None] ENCRYPT CALM;
    0x174 RSA_Encrypt asymmetric::rsa_encrypt [Object None] DECRYPT ENCRYPT CALM;
    0x176 StartAuthSession session::start [ObjectOrNull None, EntityOrNull None] HANDLE DECRYPT ENCRYPT CALM;
    0x177 VerifySignature signing::verify_signature [Object None] DECRYPT CALM;
    0x178 ECC_Parameters asymmetric::ecc_parameters [] CALM;
    0x17A GetCapability capability::get [] CALM;
    0x17B GetRandom random::get_random [] ENCRYPT CALM;
    0x17C GetTestResult testing::get_test_result [] ENCRYPT CALM;
    0x17D Hash hash_hmac::hash [] DECRYPT ENCRYPT CALM;
    0x17E PCR_Read integrity::read [] CALM;
    0x17F PolicyPCR policy::pcr [PolicySession None] DECRYPT CALM;
    0x180 PolicyRestart session::policy_restart [PolicySession None] CALM;
    0x181 ReadClock clocks::read [] CALM;
    0x182 PCR_Extend integrity::extend [PcrOrNull User] NV;
    0x183 PCR_SetAuthValue integrity::set_auth_value [Pcr User] DECRYPT;
    0x184 NV_Certify nv::certify [ObjectOrNull User, NvAuth User, NvIndex None] READS DECRYPT ENCRYPT;
    0x185 EventSequenceComplete hash_hmac::event_complete [PcrOrNull User, Object User] NV FLUSHED DECRYPT;
    0x186 HashSequenceStart hash_hmac::sequence_start [] HANDLE DECRYPT CALM;
    0x187 PolicyPhysicalPresence policy::physical_presence [PolicySession None] CALM;
    0x188 PolicyDuplicationSelect policy::duplication_select [PolicySession None] DECRYPT CALM;
    0x189 PolicyGetDigest policy::get_digest [PolicySession None] ENCRYPT CALM;
    0x18A TestParms capability::test_parms [] CALM;
    0x18B Commit ephemeral_ec::commit [Object User] DECRYPT ENCRYPT;
    0x18C PolicyPassword policy::password [PolicySession None] CALM;
    0x18D ZGen_2Phase ephemeral_ec::zgen_2phase [Object User] DECRYPT ENCRYPT;
    0x18E EC_Ephemeral ephemeral_ec::ephemeral [] ENCRYPT;
    0x18F PolicyNvWritten policy::nv_written [PolicySession None] CALM;
    0x190 PolicyTemplate policy::template [PolicySession None] DECRYPT CALM;
    0x191 CreateLoaded object::create_loaded [Parent User] HANDLE DECRYPT ENCRYPT CALM;
    0x192 PolicyAuthorizeNV policy::authorize_nv [NvAuth User, NvIndex None, PolicySession None] READS;
    0x193 EncryptDecrypt2 symmetric::encrypt_decrypt2 [Object User] DECRYPT ENCRYPT CALM;
    0x194 AC_GetCapability components::capability [Component None] CALM;
    0x195 AC_Send components::send [Object Duplicate, NvAuth User, Component None] DECRYPT WRITES CALM;
    0x196 Policy_AC_SendSelect policy::ac_send_select [PolicySession None] DECRYPT CALM;
    0x197 CertifyX509 attestation::certify_x509 [Object Admin, Object User] DECRYPT ENCRYPT CALM;
    0x198 ACT_SetTimeout timers::set_timeout [Timer User];
    0x199 ECC_Encrypt asymmetric::ecc_encrypt [Object None] DECRYPT ENCRYPT CALM;
    0x19A ECC_Decrypt asymmetric::ecc_decrypt [Object User] DECRYPT ENCRYPT CALM;
    0x19B PolicyCapability policy::capability [PolicySession None] DECRYPT CALM;
    0x19C PolicyParameters policy::parameters [PolicySession None] DECRYPT CALM;
    0x19D NV_DefineSpace2 nv::define_space2 [Provision User] NV DECRYPT PRESENCE;
    0x19E NV_ReadPublic2 nv::read_public2 [NvIndex None] ENCRYPT CALM;
    0x1A0 ReadOnlyControl hierarchy::read_only_control [Platform User] NV PRESENCE CALM;
    0x1A1 PolicyTransportSPDM policy::transport_spdm [PolicySession None] DECRYPT CALM;
    #[cfg(feature = "pqc")]
    0x1A3 VerifySequenceComplete signing::verify_sequence_complete [Object User, Object None] FLUSHED CALM;
    #[cfg(feature = "pqc")]
    0x1A4 SignSequenceComplete signing::sign_sequence_complete [Object User, Object User] FLUSHED DECRYPT CALM;
    #[cfg(feature = "pqc")]
    0x1A5 VerifyDigestSignature signing::verify_digest_signature [Object None] DECRYPT CALM;
    #[cfg(feature = "pqc")]
    0x1A6 SignDigest signing::sign_digest [Object User] DECRYPT CALM;
    #[cfg(feature = "pqc")]
    0x1A7 Encapsulate encapsulation::encapsulate [Object None] ENCRYPT CALM;
    #[cfg(feature = "pqc")]
    0x1A8 Decapsulate encapsulation::decapsulate [Object User] DECRYPT ENCRYPT CALM;
    #[cfg(feature = "pqc")]
    0x1A9 VerifySequenceStart signing::verify_sequence_start [Object None] HANDLE DECRYPT CALM;
    #[cfg(feature = "pqc")]
    0x1AA SignSequenceStart signing::sign_sequence_start [Object None] HANDLE DECRYPT CALM;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted_by_code() {
        assert!(COMMANDS.is_sorted_by_key(|c| c.code));
    }

    #[test]
    fn commands_that_change_something_are_sorted_and_implemented() {
        assert!(CHANGING.is_sorted());
        assert!(CHANGING.iter().all(|c| index_of(u32::from(*c)).is_some()));
    }

    #[test]
    fn sets_of_commands_have_room_for_each() {
        use crate::state::permanent::{NO_COMMANDS, has_command, set_command};
        for command in &COMMANDS {
            let mut set = NO_COMMANDS;
            set_command(&mut set, command.code, true);
            let has = |code| has_command(&set, code);
            assert!(
                COMMANDS
                    .iter()
                    .all(|c| has(c.code) == (c.code == command.code))
            );
            set_command(&mut set, command.code, false);
            assert_eq!(set, NO_COMMANDS);
        }
    }

    #[test]
    fn handles_that_need_an_authorization_come_first() {
        for command in &COMMANDS {
            assert!(
                command
                    .handles
                    .iter()
                    .skip(command.auth_handles())
                    .all(|h| h.1 == Role::None)
            );
        }
    }
}

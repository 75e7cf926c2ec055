//! What the owner of a guest demands of the machine.

use crate::status::Status;

bitflags::bitflags! {
    /// What a guest allows and demands (56860, "Guest Policy").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Policy: u64 {
        /// The least minor version of the firmware's interface.
        const ABI_MINOR = 0xff;
        /// The least major version of it.
        const ABI_MAJOR = 0xff << 8;
        /// Sibling threads may be on.
        const SMT = 1 << 16;
        /// Always set.
        const RESERVED_ONE = 1 << 17;
        /// The guest may be handed to a migration agent.
        const MIGRATE_MA = 1 << 18;
        /// The host may read and write the guest's memory.
        const DEBUG = 1 << 19;
        /// The guest stays on one socket.
        const SINGLE_SOCKET = 1 << 20;
        /// Devices and memory on CXL may be used.
        const CXL = 1 << 21;
        /// Memory must be encrypted with AES-256-XTS.
        const MEM_AES_256_XTS = 1 << 22;
        /// The power meter must be off.
        const RAPL_DISABLED = 1 << 23;
        /// Ciphertext must be hidden from the host.
        const CIPHERTEXT_HIDING = 1 << 24;
        /// The host must not swap the guest's pages.
        const PAGE_SWAP_DISABLED = 1 << 25;
    }
}

bitflags::bitflags! {
    /// What a machine is like, as reports tell it (56860, "PLATFORM_INFO").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PlatformInfo: u64 {
        /// Sibling threads are on.
        const SMT = 1 << 0;
        /// All memory is encrypted, with one key.
        const TSME = 1 << 1;
        /// Memory corrects errors.
        const ECC = 1 << 2;
        /// The power meter is off.
        const RAPL_DISABLED = 1 << 3;
        /// Ciphertext is hidden from the host.
        const CIPHERTEXT_HIDING = 1 << 4;
        /// Memory has been searched for aliases.
        const ALIAS_CHECK_COMPLETE = 1 << 5;
        /// Trusted input and output is on.
        const TIO = 1 << 7;
    }
}

impl Policy {
    /// What most guests ask for: any version of the interface, threads allowed.
    pub const DEFAULT: Self = Self::SMT.union(Self::RESERVED_ONE);

    /// The least version of the interface, major and minor.
    #[must_use]
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.bits().to_le_bytes();
        (major, minor)
    }

    /// Whether a machine with that interface and those properties may run the guest.
    pub(crate) fn check(self, abi: (u8, u8), machine: PlatformInfo) -> Result<(), Status> {
        let demands = [
            (Self::RAPL_DISABLED, PlatformInfo::RAPL_DISABLED),
            (Self::CIPHERTEXT_HIDING, PlatformInfo::CIPHERTEXT_HIDING),
        ];
        let unmet = |(demand, property)| self.contains(demand) && !machine.contains(property);
        let refused = !Self::all().contains(self)
            || !self.contains(Self::RESERVED_ONE)
            || self.abi() > abi
            || (machine.contains(PlatformInfo::SMT) && !self.contains(Self::SMT))
            || demands.into_iter().any(unmet)
            // Memory of the machine in software is not encrypted, and there is no agent to migrate a guest to.
            || self.intersects(Self::MEM_AES_256_XTS | Self::MIGRATE_MA);
        if refused {
            Err(Status::PolicyFailure)
        } else {
            Ok(())
        }
    }
}

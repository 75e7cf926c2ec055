//! One entry, and what it is made of.

use core::fmt;

/// The size of a page as the table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
}

impl PageSize {
    /// Its length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 1 << 12,
            Self::Size2M => 1 << 21,
        }
    }

    /// Whether an address is a multiple of it.
    #[must_use]
    pub const fn aligns(self, address: u64) -> bool {
        address & (self.bytes() - 1) == 0
    }
}

/// A virtual machine privilege level; 0 is the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vmpl(u8);

impl Vmpl {
    /// The SVSM's level.
    pub const VMPL0: Self = Self(0);
    /// The level below.
    pub const VMPL1: Self = Self(1);
    /// The level below that.
    pub const VMPL2: Self = Self(2);
    /// The lowest level.
    pub const VMPL3: Self = Self(3);
    /// All of them, highest first.
    pub const ALL: [Self; 4] = [Self::VMPL0, Self::VMPL1, Self::VMPL2, Self::VMPL3];

    /// The level with that number, 0 to 3.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level < 4 { Some(Self(level)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Vmpl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VMPL{}", self.0)
    }
}

bitflags::bitflags! {
    /// What a level may do with a page (24593, "VMPL permissions"); bit positions are those of `RMPADJUST` less 8.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Permissions: u8 {
        /// Read.
        const READ = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Execute in ring 3.
        const EXECUTE_USER = 1 << 2;
        /// Execute in rings 0 to 2.
        const EXECUTE_SUPERVISOR = 1 << 3;
        /// Use as a supervisor shadow stack.
        const SHADOW_STACK = 1 << 4;
    }
}

/// What an access needs.
pub type Access = Permissions;

/// What an entry amounts to, as the specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The host's own, or shared with a guest.
    Hypervisor,
    /// Given to a guest that is being launched, which does not run yet.
    PreGuest,
    /// A guest's, who has not accepted it.
    GuestInvalid,
    /// A guest's, who has.
    GuestValid,
    /// The security processor's.
    Firmware,
}

/// What the table says of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(super) assigned: bool,
    pub(super) asid: u32,
    pub(super) gpa: u64,
    pub(super) size: PageSize,
    pub(super) immutable: bool,
    pub(super) validated: bool,
    pub(super) vmsa: bool,
    pub(super) in_use: bool,
    pub(super) permissions: [Permissions; 4],
}

impl Entry {
    /// A page of the host: what all memory is before anybody gets any.
    pub const HYPERVISOR: Self = Self {
        assigned: false,
        asid: 0,
        gpa: 0,
        size: PageSize::Size4K,
        immutable: false,
        validated: false,
        vmsa: false,
        in_use: false,
        permissions: Self::FRESH,
    };

    /// Rights after a change of owner: the highest level may do everything, the others nothing.
    pub(super) const FRESH: [Permissions; 4] = [
        Permissions::all(),
        Permissions::empty(),
        Permissions::empty(),
        Permissions::empty(),
    ];

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        match (self.assigned, self.asid, self.validated, self.immutable) {
            (false, ..) => State::Hypervisor,
            (true, 0, ..) => State::Firmware,
            (true, _, _, true) => State::PreGuest,
            (true, _, true, false) => State::GuestValid,
            (true, _, false, false) => State::GuestInvalid,
        }
    }

    /// The guest that owns it; 0 for the host and the security processor.
    #[must_use]
    pub const fn asid(&self) -> u32 {
        self.asid
    }

    /// Where the guest has it, in bytes.
    #[must_use]
    pub const fn gpa(&self) -> u64 {
        self.gpa
    }

    /// Its size.
    #[must_use]
    pub const fn size(&self) -> PageSize {
        self.size
    }

    /// Whether it holds the registers of a virtual processor.
    #[must_use]
    pub const fn is_vmsa(&self) -> bool {
        self.vmsa
    }

    /// Whether a processor has it loaded as a save area at this moment.
    #[must_use]
    pub const fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// What `level` may do with it.
    #[must_use]
    pub fn permissions(&self, level: Vmpl) -> Permissions {
        // A level is 0 to 3, so there always is one.
        self.permissions
            .get(usize::from(level.0))
            .copied()
            .unwrap_or(Permissions::empty())
    }

    pub(super) fn permissions_mut(&mut self, level: Vmpl) -> Option<&mut Permissions> {
        self.permissions.get_mut(usize::from(level.0))
    }
}

//! What a guest can do with the table, and what the hardware checks at each of its accesses.

use super::{Access, Entry, PageSize, Permissions, Rmp, State, Vmpl};
use core::fmt;

/// Who executes an instruction or makes an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Which guest.
    pub asid: u32,
    /// At which level.
    pub vmpl: Vmpl,
}

/// What the nested page tables make of a guest's private access: the host's word, which the table checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the access ends up, in bytes.
    pub spa: u64,
    /// Where the guest thinks it is, in bytes.
    pub gpa: u64,
    /// The size of the nested mapping.
    pub size: PageSize,
}

/// Why hardware stops an access or an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// To the guest: #GP, the instruction is not for this level.
    GeneralProtection,
    /// To the guest: #VC with `PAGE_NOT_VALIDATED` (0x404).
    NotValidated,
    /// To the host: #NPF, the page is not this guest's, or not at this address.
    NotOwned,
    /// To the host: #NPF, the page's size is not that of the nested mapping, or larger than the instruction's.
    SizeMismatch,
    /// To the host: #NPF, the level has no right to do this.
    Permission,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GeneralProtection => "the instruction is not for this level",
            Self::NotValidated => "the guest has not validated the page",
            Self::NotOwned => "the page is not the guest's at this address",
            Self::SizeMismatch => "page sizes do not fit",
            Self::Permission => "the level has no right to do this",
        })
    }
}

impl core::error::Error for Fault {}

/// Why an instruction of a guest did nothing; the value it returns in EAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum GuestFailure {
    /// `FAIL_INPUT`
    Input = 1,
    /// `FAIL_PERMISSION`
    Permission = 2,
    /// `FAIL_INUSE`: a processor runs from this save area.
    InUse = 3,
    /// `FAIL_SIZEMISMATCH`
    SizeMismatch = 6,
}

impl fmt::Display for GuestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "the operands make no sense",
            Self::Permission => "the level may not do this",
            Self::InUse => "a processor runs from this page",
            Self::SizeMismatch => "the page is smaller than asked for",
        })
    }
}

impl core::error::Error for GuestFailure {}

/// The word in RDX that tells `RMPADJUST` what to do (24594, `RMPADJUST`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjust {
    /// Whose rights.
    pub target: Vmpl,
    /// Which rights.
    pub permissions: Permissions,
    /// Whether the page holds the registers of a virtual processor.
    pub vmsa: bool,
}

impl Adjust {
    const VMSA: u64 = 1 << 16;

    /// Reads the word. There is a right to shadow stacks only where the save area of who executes has `VmplSSS`.
    ///
    /// # Errors
    /// [`GuestFailure::Input`] for bits and levels that do not exist.
    pub fn from_rdx(word: u64, vmpl_sss: bool) -> Result<Self, GuestFailure> {
        let [level, rights, ..] = word.to_le_bytes();
        let known = if vmpl_sss {
            Permissions::all()
        } else {
            Permissions::all().difference(Permissions::SHADOW_STACK)
        };
        let permissions = Permissions::from_bits(rights).filter(|rights| known.contains(*rights));
        match (Vmpl::new(level), permissions) {
            (Some(target), Some(permissions)) if word >> 17 == 0 => Ok(Self {
                target,
                permissions,
                vmsa: word & Self::VMSA != 0,
            }),
            _ => Err(GuestFailure::Input),
        }
    }

    /// The same word as `RMPQUERY` returns it.
    #[must_use]
    pub fn to_rdx(self) -> u64 {
        u64::from(self.target.as_u8())
            | u64::from(self.permissions.bits()) << 8
            | if self.vmsa { Self::VMSA } else { 0 }
    }
}

/// What `PVALIDATE` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a page that did not change may have been swapped by the host"]
pub struct Validated {
    /// Whether the page changed its state (carry flag clear). If not, somebody validated it twice.
    pub changed: bool,
}

/// What `RMPQUERY` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queried {
    /// The size of the page.
    pub size: PageSize,
    /// The rights of the level that was asked for.
    pub permissions: Permissions,
    /// Whether it holds the registers of a virtual processor.
    pub vmsa: bool,
}

impl Rmp<'_> {
    /// Checks a private access of a guest.
    ///
    /// # Errors
    /// The fault that the hardware raises instead.
    pub fn access(&self, caller: Caller, at: Mapping, access: Access) -> Result<(), Fault> {
        let entry = self.owned(caller, at)?;
        // Of a 4 KiB page the nested tables can only map as much; a 2 MiB page they must map as one.
        if entry.size != at.size {
            return Err(Fault::SizeMismatch);
        }
        if entry.state() != State::GuestValid {
            return Err(Fault::NotValidated);
        }
        if !entry.permissions(caller.vmpl).contains(access) {
            return Err(Fault::Permission);
        }
        Ok(())
    }

    /// `PVALIDATE`: accepts a page of `size`, or gives it up.
    ///
    /// # Errors
    /// The outer error is a fault, the inner one the return code of an instruction that did nothing.
    pub fn pvalidate(
        &mut self,
        caller: Caller,
        at: Mapping,
        size: PageSize,
        validate: bool,
    ) -> Result<Result<Validated, GuestFailure>, Fault> {
        if caller.vmpl != Vmpl::VMPL0 {
            return Err(Fault::GeneralProtection);
        }
        if !size.aligns(at.gpa) {
            return Ok(Err(GuestFailure::Input));
        }
        let found = self.owned(caller, at)?.size;
        if let Some(mismatch) = size_mismatch(size, found) {
            return mismatch.map(Err);
        }
        let entry = self.entry_mut(at.spa).ok_or(Fault::NotOwned)?;
        let changed = entry.validated != validate;
        entry.validated = validate;
        Ok(Ok(Validated { changed }))
    }

    /// `RMPADJUST`: gives `target` exactly these rights over a page; at VMPL0 also says whether the page is a VMSA. The
    /// operands are those of [`Adjust`].
    ///
    /// # Errors
    /// The outer error is a fault, the inner one the return code of an instruction that did nothing.
    pub fn rmpadjust(
        &mut self,
        caller: Caller,
        at: Mapping,
        size: PageSize,
        target: Vmpl,
        permissions: Permissions,
        vmsa: bool,
    ) -> Result<Result<(), GuestFailure>, Fault> {
        if !size.aligns(at.gpa) {
            return Ok(Err(GuestFailure::Input));
        }
        // Nobody changes the rights of a level that is not below.
        if target <= caller.vmpl {
            return Ok(Err(GuestFailure::Permission));
        }
        let entry = self.owned(caller, at)?;
        if entry.state() != State::GuestValid {
            return Err(Fault::NotValidated);
        }
        if let Some(mismatch) = size_mismatch(size, entry.size) {
            return mismatch.map(Err);
        }
        if entry.in_use {
            return Ok(Err(GuestFailure::InUse));
        }
        // Nobody grants what they do not have.
        if !entry.permissions(caller.vmpl).contains(permissions) {
            return Ok(Err(GuestFailure::Permission));
        }
        let entry = self.entry_mut(at.spa).ok_or(Fault::NotOwned)?;
        if let Some(rights) = entry.permissions_mut(target) {
            *rights = permissions;
        }
        if caller.vmpl == Vmpl::VMPL0 {
            entry.vmsa = vmsa;
        }
        Ok(Ok(()))
    }

    /// `RMPQUERY`: the rights that `target` has over a page.
    ///
    /// # Errors
    /// The outer error is a fault, the inner one the return code of an instruction that found nothing.
    pub fn rmpquery(
        &self,
        caller: Caller,
        at: Mapping,
        target: Vmpl,
    ) -> Result<Result<Queried, GuestFailure>, Fault> {
        if target <= caller.vmpl {
            return Ok(Err(GuestFailure::Permission));
        }
        let entry = self.owned(caller, at)?;
        if entry.state() != State::GuestValid {
            return Err(Fault::NotValidated);
        }
        let Entry { size, vmsa, .. } = *entry;
        Ok(Ok(Queried {
            size,
            permissions: entry.permissions(target),
            vmsa,
        }))
    }

    /// The entry of a page that is the caller's, at the address where the caller sees it.
    fn owned(&self, caller: Caller, at: Mapping) -> Result<&Entry, Fault> {
        let entry = self.entry(at.spa).ok_or(Fault::NotOwned)?;
        let offset = at.spa & (entry.size.bytes() - 1) & !0xfff;
        let in_place = entry.gpa.checked_add(offset) == Some(at.gpa & !0xfff);
        let owned = matches!(entry.state(), State::GuestValid | State::GuestInvalid)
            && entry.asid == caller.asid;
        if owned && in_place {
            Ok(entry)
        } else {
            Err(Fault::NotOwned)
        }
    }
}

/// What an instruction for pages of `asked` makes of one of `found`: nothing wrong, a return code, or a fault after which
/// the host splits the page and the guest tries again.
fn size_mismatch(asked: PageSize, found: PageSize) -> Option<Result<GuestFailure, Fault>> {
    match (asked, found) {
        (PageSize::Size2M, PageSize::Size4K) => Some(Ok(GuestFailure::SizeMismatch)),
        (PageSize::Size4K, PageSize::Size2M) => Some(Err(Fault::SizeMismatch)),
        _ => None,
    }
}

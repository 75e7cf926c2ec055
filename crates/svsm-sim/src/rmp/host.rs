//! What the host can do to the table, and what the security processor does for it at launch.

use super::{Entry, PAGES_IN_2M, PageSize, Permissions, Rmp, State};
use crate::vmsa::{Invalid, Refusal};
use core::fmt;

/// What an entry shall be: the operand of `RMPUPDATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewState {
    /// Whether it belongs to a guest (or, with ASID 0, to the security processor).
    pub assigned: bool,
    /// Which guest.
    pub asid: u32,
    /// Where that guest has it, in bytes.
    pub gpa: u64,
    /// Its size.
    pub size: PageSize,
    /// Whether only the security processor may change it from now on.
    pub immutable: bool,
}

impl NewState {
    /// A page of 4 KiB of the host.
    pub const HYPERVISOR: Self = Self::hypervisor(PageSize::Size4K);

    /// A page of the host. Taking back 2 MiB that are one page takes that size.
    #[must_use]
    pub const fn hypervisor(size: PageSize) -> Self {
        Self {
            assigned: false,
            asid: 0,
            gpa: 0,
            size,
            immutable: false,
        }
    }

    /// A page for guest `asid` at `gpa`, which the guest has yet to validate.
    #[must_use]
    pub const fn guest(asid: u32, gpa: u64, size: PageSize) -> Self {
        Self {
            assigned: true,
            asid,
            gpa,
            size,
            immutable: false,
        }
    }

    /// A page for the launch of guest `asid` at `gpa`.
    #[must_use]
    pub const fn pre_guest(asid: u32, gpa: u64, size: PageSize) -> Self {
        Self {
            immutable: true,
            ..Self::guest(asid, gpa, size)
        }
    }
}

/// Why an instruction of the host did nothing; the value it returns in EAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum HostFailure {
    /// `FAIL_INPUT`
    Input = 1,
    /// `FAIL_PERMISSION`
    Permission = 2,
    /// `FAIL_INUSE`: a processor runs from this save area; try again when it has stopped.
    InUse = 3,
    /// `FAIL_OVERLAP`
    Overlap = 4,
}

impl fmt::Display for HostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "the operands make no page",
            Self::Permission => "only the security processor may change this page",
            Self::InUse => "a processor runs from this page",
            Self::Overlap => "a page of another size covers this one",
        })
    }
}

impl core::error::Error for HostFailure {}

/// What `RMPREAD` shows: nothing of what the guest validated or granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether it belongs to a guest or to the security processor.
    pub assigned: bool,
    /// To which guest.
    pub asid: u32,
    /// Where that guest has it, in bytes.
    pub gpa: u64,
    /// Its size.
    pub size: PageSize,
    /// Whether only the security processor may change it.
    pub immutable: bool,
    /// Whether its 2 MiB are one page.
    pub in_whole: bool,
}

/// Why a write of the host faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostFault {
    /// The table does not cover it.
    NoMemory,
    /// It, or part of what the mapping covers, is a guest's or the security processor's.
    Assigned,
    /// A processor runs from it, or is taken to.
    InUse,
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "there is no such memory",
            Self::Assigned => "the page is not the host's",
            Self::InUse => "a processor runs from the page",
        })
    }
}

impl core::error::Error for HostFault {}

impl Rmp<'_> {
    /// `RMPUPDATE`: gives the page at `spa` a new owner or takes it away.
    ///
    /// Whatever the guest had validated or granted is gone: that is what keeps a host from swapping pages.
    ///
    /// # Errors
    /// [`HostFailure::Input`] for addresses that are misaligned or outside of memory, and for pages that are nobody's and
    /// yet somebody's; [`HostFailure::Permission`] for immutable pages, [`HostFailure::InUse`] for save areas from which a
    /// processor runs, [`HostFailure::Overlap`] where pages of different sizes would cover each other.
    pub fn rmpupdate(&mut self, spa: u64, new: NewState) -> Result<(), HostFailure> {
        let first = self.covered(spa, new.size)?;
        let nobody = !new.assigned && (new.asid != 0 || new.immutable);
        if !new.size.aligns(new.gpa) || nobody {
            return Err(HostFailure::Input);
        }
        // A page of 4 KiB inside of one of 2 MiB, or in place of it: the host must split that first.
        if new.size == PageSize::Size4K && self.is_whole(first) {
            return Err(HostFailure::Overlap);
        }
        let count = match new.size {
            PageSize::Size4K => 1,
            PageSize::Size2M => PAGES_IN_2M,
        };
        let region = self
            .entries
            .get_mut(first..first + count)
            .ok_or(HostFailure::Input)?;
        if region.iter().any(|entry| entry.immutable) {
            return Err(HostFailure::Permission);
        }
        if region.iter().any(|entry| entry.in_use) {
            return Err(HostFailure::InUse);
        }
        // All but the first must be nobody's: else there are smaller pages.
        if region.iter().skip(1).any(|entry| entry.assigned) {
            return Err(HostFailure::Overlap);
        }
        region.fill(Entry::HYPERVISOR);
        if let Some(entry) = region.first_mut()
            && new.assigned
        {
            let NewState {
                asid,
                gpa,
                size,
                immutable,
                ..
            } = new;
            *entry = Entry {
                assigned: true,
                asid,
                gpa,
                size,
                immutable,
                ..Entry::HYPERVISOR
            };
        }
        Ok(())
    }

    /// Whether entry `number` lies in a page of 2 MiB that is one.
    fn is_whole(&self, number: usize) -> bool {
        let head = number - number % PAGES_IN_2M;
        self.entries
            .get(head)
            .is_some_and(|entry| entry.assigned && entry.size == PageSize::Size2M)
    }

    /// `PSMASH`: splits the 2 MiB page at `spa` into pages of 4 KiB that keep its state and its rights.
    ///
    /// # Errors
    /// [`HostFailure::Input`] if there is no such page, [`HostFailure::Permission`] if it is immutable,
    /// [`HostFailure::InUse`] if a processor runs from it.
    pub fn psmash(&mut self, spa: u64) -> Result<(), HostFailure> {
        let head = self.covered(spa, PageSize::Size2M)?;
        let region = self
            .entries
            .get_mut(head..head + PAGES_IN_2M)
            .ok_or(HostFailure::Input)?;
        let whole = match region.first() {
            Some(entry) if entry.assigned && entry.size == PageSize::Size2M => *entry,
            _ => return Err(HostFailure::Input),
        };
        if whole.immutable {
            return Err(HostFailure::Permission);
        }
        if whole.in_use {
            return Err(HostFailure::InUse);
        }
        for (entry, offset) in region.iter_mut().zip((0..).step_by(0x1000)) {
            *entry = Entry {
                size: PageSize::Size4K,
                gpa: whole.gpa + offset,
                ..whole
            };
        }
        Ok(())
    }

    /// `RMPREAD`: what the host may know of the page at `spa`.
    ///
    /// # Errors
    /// [`HostFailure::Input`] for addresses that are misaligned or outside of memory.
    pub fn rmpread(&self, spa: u64) -> Result<Known, HostFailure> {
        let number = self.covered(spa, PageSize::Size4K)?;
        let own = self.entries.get(number).ok_or(HostFailure::Input)?;
        Ok(Known {
            assigned: own.assigned,
            asid: own.asid,
            gpa: own.gpa,
            size: own.size,
            immutable: own.immutable,
            in_whole: self.is_whole(number),
        })
    }

    /// `VMRUN` with the save area at `spa`: takes the page into use, if it is one of guest `asid`. What is in it is for
    /// [`Vmsa::check`](crate::vmsa::Vmsa::check) to judge.
    ///
    /// # Errors
    /// What the host reads as exit code: [`Refusal::Busy`] if another processor runs from it.
    pub fn vmrun(&mut self, spa: u64, asid: u32) -> Result<(), Refusal> {
        let refused = Refusal::Invalid(Invalid::Page);
        if !PageSize::Size4K.aligns(spa) {
            return Err(refused);
        }
        let entry = self.entry_mut(spa).ok_or(refused)?;
        let valid = entry.state() == State::GuestValid && entry.asid == asid;
        if !valid || !entry.vmsa || entry.size != PageSize::Size4K {
            return Err(refused);
        }
        if entry.in_use {
            return Err(Refusal::Busy);
        }
        entry.in_use = true;
        Ok(())
    }

    /// The exit of the processor that runs from the save area at `spa`.
    pub fn vmexit(&mut self, spa: u64) {
        if let Some(entry) = self.entry_mut(spa) {
            entry.in_use = false;
        }
    }

    /// Checks a write of the host to the page at `spa`, through a mapping of its own of `mapped` size. Reads are not
    /// checked: the host gets ciphertext.
    ///
    /// Processors have an erratum here: while a save area at a multiple of 2 MiB is in use, they take all of these 2 MiB
    /// for in use. That is why hosts never put one there, and refuse those of guests.
    ///
    /// # Errors
    /// The page fault (#PF with bit 31) that the host takes instead.
    pub fn host_write(&self, spa: u64, mapped: PageSize) -> Result<(), HostFault> {
        let bytes = PageSize::Size4K.bytes();
        let number = self
            .covered(spa & !(bytes - 1), PageSize::Size4K)
            .map_err(|_| HostFault::NoMemory)?;
        let head = number - number % PAGES_IN_2M;
        let reached = match mapped {
            PageSize::Size4K => number..number + 1,
            PageSize::Size2M => head..head + PAGES_IN_2M,
        };
        let hits_erratum = self.entries.get(head).is_some_and(|entry| entry.in_use);
        let entries = self.entries.get(reached).ok_or(HostFault::NoMemory)?;
        if entries.iter().any(|entry| entry.in_use) || hits_erratum {
            return Err(HostFault::InUse);
        }
        if self.is_whole(number) || entries.iter().any(|entry| entry.assigned) {
            return Err(HostFault::Assigned);
        }
        Ok(())
    }

    /// What the security processor does with a page that the launch measures or fills: it becomes valid without the guest's
    /// doing (56860, `SNP_LAUNCH_UPDATE`). `vmsa` marks the registers of a virtual processor; lower levels have no rights.
    ///
    /// # Errors
    /// [`HostFailure::Permission`] if the host has not prepared it as a page of that guest's launch.
    pub fn launch_update(&mut self, spa: u64, asid: u32, vmsa: bool) -> Result<(), HostFailure> {
        self.launch_page(spa, asid, vmsa, [Permissions::empty(); 3])
    }

    /// The same with rights for VMPL1, VMPL2 and VMPL3.
    ///
    /// # Errors
    /// As above.
    pub fn launch_page(
        &mut self,
        spa: u64,
        asid: u32,
        vmsa: bool,
        permissions: [Permissions; 3],
    ) -> Result<(), HostFailure> {
        let entry = self.entry_mut(spa).ok_or(HostFailure::Input)?;
        if entry.state() != State::PreGuest || entry.asid != asid {
            return Err(HostFailure::Permission);
        }
        let [vmpl1, vmpl2, vmpl3] = permissions;
        entry.immutable = false;
        entry.validated = true;
        entry.vmsa = vmsa;
        entry.permissions = [Permissions::all(), vmpl1, vmpl2, vmpl3];
        Ok(())
    }

    /// The number of the first entry of the page at `spa`, if the table covers all of it.
    fn covered(&self, spa: u64, size: PageSize) -> Result<usize, HostFailure> {
        let end = spa.checked_add(size.bytes()).ok_or(HostFailure::Input)?;
        let limit =
            usize::try_from(end / PageSize::Size4K.bytes()).map_err(|_| HostFailure::Input)?;
        if !size.aligns(spa) || limit > self.entries.len() {
            return Err(HostFailure::Input);
        }
        usize::try_from(spa / PageSize::Size4K.bytes()).map_err(|_| HostFailure::Input)
    }
}

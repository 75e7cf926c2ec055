//! What the host can do to the table, and what the security processor does for it at launch.

use super::{Entry, PAGES_IN_2M, PageSize, Permissions, Rmp, State};
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
    /// A page of the host.
    pub const HYPERVISOR: Self = Self {
        assigned: false,
        asid: 0,
        gpa: 0,
        size: PageSize::Size4K,
        immutable: false,
    };

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
    /// `FAIL_OVERLAP`
    Overlap = 4,
}

impl fmt::Display for HostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "the operands make no page",
            Self::Permission => "only the security processor may change this page",
            Self::Overlap => "a page of another size covers this one",
        })
    }
}

impl core::error::Error for HostFailure {}

impl Rmp<'_> {
    /// `RMPUPDATE`: gives the page at `spa` a new owner or takes it away.
    ///
    /// Whatever the guest had validated or granted is gone: that is what keeps a host from swapping pages.
    ///
    /// # Errors
    /// [`HostFailure::Input`] for addresses that are misaligned or outside of memory, [`HostFailure::Permission`] for
    /// immutable pages, [`HostFailure::Overlap`] where pages of different sizes would cover each other.
    pub fn rmpupdate(&mut self, spa: u64, new: NewState) -> Result<(), HostFailure> {
        let first = self.covered(spa, new.size)?;
        if !new.size.aligns(new.gpa) {
            return Err(HostFailure::Input);
        }
        let head = first - first % PAGES_IN_2M;
        let whole = self
            .entries
            .get(head)
            .is_some_and(|entry| entry.assigned && entry.size == PageSize::Size2M);
        // A 4 KiB page inside of one of 2 MiB: the host must split that first, unless it changes all of it.
        if whole && new.size == PageSize::Size4K && first != head {
            return Err(HostFailure::Overlap);
        }
        let count = if whole || new.size == PageSize::Size2M {
            PAGES_IN_2M
        } else {
            1
        };
        let start = if count == 1 { first } else { head };
        let region = self
            .entries
            .get_mut(start..start + count)
            .ok_or(HostFailure::Input)?;
        if region.iter().any(|entry| entry.immutable) {
            return Err(HostFailure::Permission);
        }
        let parts_assigned = region.iter().skip(1).any(|entry| entry.assigned);
        if new.size == PageSize::Size2M && new.assigned && parts_assigned {
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

    /// `PSMASH`: splits the 2 MiB page at `spa` into pages of 4 KiB that keep its state and its rights.
    ///
    /// # Errors
    /// [`HostFailure::Input`] if there is no such page, [`HostFailure::Permission`] if it is immutable.
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
        for (entry, offset) in region.iter_mut().zip((0..).step_by(0x1000)) {
            *entry = Entry {
                size: PageSize::Size4K,
                gpa: whole.gpa + offset,
                ..whole
            };
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

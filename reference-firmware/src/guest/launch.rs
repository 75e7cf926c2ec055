//! The guest before its first instruction: what is the same however it starts.
#![expect(unsafe_code, reason = "reads an area of the image")]

use alloc::boxed::Box;

use svsm_guest::files::{FIRMWARE, KERNEL};
use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::snp::VcpuOrder;
use svsm_platform::snp::secrets::{SecretsPage, Svsm};
use svsm_platform::snp::vmsa::Vmsa;
use svsm_protocol::Vcpu;
use svsm_protocol::seam::{GuestMemory, Unreachable};
use svsm_stage2::region::Area;

use super::memory::Machine;
use super::{Facts, Failure, firmware, kernel};
use crate::machine::snp;
use crate::{areas, memory, smp, user};

/// The newest version of the core protocol.
const CORE_VERSION: u32 = 1;

/// Makes the guest ready to be entered on this CPU.
pub(super) fn launch(facts: &Facts) -> Result<Vcpu, Failure> {
    let mut machine = Machine::here().ok_or(Failure::Memory)?;
    let (vmsa, calling_area) = match (user::file(FIRMWARE), user::file(KERNEL)) {
        (Some(file), _) => firmware::lay_out(facts, file, &mut machine)?,
        (None, Some(file)) => kernel::lay_out(facts, file, &mut machine)?,
        (None, None) => return Err(Failure::NoKernel),
    };
    let counts = machine.counts();
    info!(
        public,
        "guest: {=u64} PVALIDATEs, {=u64} RMPADJUSTs and {=u64} exits for its memory",
        counts.pvalidates,
        counts.rmpadjusts,
        counts.exits
    );
    first_vcpu(facts, &vmsa, calling_area, &mut machine)
}

/// The pages of low memory that came with the image.
pub(super) fn loaded_pages(
    facts: &Facts,
    in_range: &GpaRange,
) -> Result<impl Iterator<Item = Gpa> + use<>, Failure> {
    let loaded = facts.loaded.intersection(in_range);
    let pages = loaded.map(|loaded| loaded.pages(PageSize::Size4K).ok_or(Failure::Memory));
    Ok(pages.transpose()?.into_iter().flatten())
}

/// Writes to memory that is the guest's already.
pub(super) fn write(machine: &mut Machine, at: u64, bytes: &[u8]) -> Result<(), Unreachable> {
    let mut at = Gpa::new(at).ok_or(Unreachable)?;
    for page in bytes.chunks(4096) {
        machine.write(at, page)?;
        at = at.checked_add(4096).ok_or(Unreachable)?;
    }
    Ok(())
}

/// A page of secrets, which are wiped when it goes: that of the SVSM, or of its guest with the keys of its own level and below and
/// what it must know of its SVSM.
pub(super) struct Secrets(Box<[u8; 4096]>);

impl Secrets {
    /// A copy of the SVSM's own.
    pub(super) fn of(area: Area) -> Self {
        let mut copy = Self(Box::new([0; 4096]));
        // SAFETY: the area is one of the checked hand-off, which the builder maps for reading, and the reference ends here.
        let bytes = unsafe { areas::bytes(area) };
        for (to, from) in copy.0.iter_mut().zip(bytes) {
            *to = *from;
        }
        copy
    }

    /// The page.
    pub(super) const fn page(&self) -> &[u8; 4096] {
        &self.0
    }

    /// Takes them from the SVSM's own page, which has no keys any more after that: its channel has its own, and nobody else
    /// needs one.
    pub(super) fn take(
        facts: &Facts,
        calling_area: Gpa,
        machine: &mut Machine,
    ) -> Result<Self, Failure> {
        let own = Self::of(facts.secrets);
        let svsm = Svsm {
            memory: facts.svsm,
            calling_area,
            max_version: CORE_VERSION,
            guest_level: facts.level,
        };
        let mut guests = Self(Box::new([0; 4096]));
        SecretsPage::view(&own.0)
            .and_then(|secrets| secrets.write_for_guest(&svsm, &mut guests.0))
            .map_err(|_| Failure::NoKernel)?;
        let mut wiped = own;
        wiped.wipe();
        // Nobody holds a reference to the page: what was needed of it was copied.
        machine
            .write(facts.secrets.gpa(), wiped.0.as_slice())
            .map_err(|_| Failure::Memory)?;
        Ok(guests)
    }

    /// Writes the guest's page.
    pub(super) fn write(self, machine: &mut Machine, at: Gpa) -> Result<(), Failure> {
        machine
            .write(at, self.0.as_slice())
            .map_err(|_| Failure::Memory)
    }

    fn wipe(&mut self) {
        if let Ok(page) = SecretsPage::view_mut(&mut self.0) {
            page.wipe_keys();
        }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// Writes what the processor can do.
pub(super) fn write_cpuid(machine: &mut Machine, at: Gpa) -> Result<(), Failure> {
    let mut page = Box::new([0; 4096]);
    snp::cpuid()
        .ok_or(Failure::NoKernel)?
        .write_for_guest(&mut page);
    machine
        .write(at, page.as_slice())
        .map_err(|_| Failure::Memory)
}

fn first_vcpu(
    facts: &Facts,
    vmsa: &Vmsa,
    calling_area: Gpa,
    machine: &mut Machine,
) -> Result<Vcpu, Failure> {
    let (_, area) = memory::memory()
        .and_then(memory::Memory::platform_pages)
        .map_err(|_| Failure::Memory)?;
    machine
        .write(area, vmsa.as_page())
        .map_err(|_| Failure::Memory)?;
    machine
        .make_save_area(area, facts.level)
        .map_err(Failure::Snp)?;
    let vcpu = Vcpu {
        processor: smp::own_id().ok_or(Failure::Memory)?,
        level: facts.level,
        save_area: area,
        calling_area,
        is_first: true,
    };
    let host = snp::ghcb().ok_or(Failure::Memory)?;
    let order = VcpuOrder::CreateOnInit(area);
    // SAFETY: the level has the memory that it was given, and nothing of the SVSM's.
    unsafe { host.create_vcpu(vcpu.processor, facts.level, facts.features.bits(), order) }
        .map_err(Failure::Snp)?;
    Ok(vcpu)
}

//! `SVSM_CORE_CREATE_VCPU` and `SVSM_CORE_DELETE_VCPU`.

use svsm_platform::addr::{Gpa, PageSize};
use svsm_platform::cpu::cr::Efer;
use svsm_platform::irq::IrqCtl;
use svsm_platform::level::Vmpl;
use svsm_platform::seam::{GuestMap, Rights};

use super::{Core, page, unreachable};
use crate::registry::{Vcpu, Vcpus};
use crate::seam::{GuestMemory, Machine, Unreachable};
use crate::{Outcome, ResultCode};

const SIZE: PageSize = PageSize::Size4K;

/// `SVSM_CORE_DELETE_VCPU`: the virtual CPU runs.
const IN_USE: ResultCode = ResultCode::new(0x8000_1003);

/// Fields of a save area that are judged.
mod field {
    /// VMPL is the third byte of this word.
    pub(super) const LEVELS: u64 = 0xc8;
    pub(super) const EFER: u64 = 0xd0;
    pub(super) const SEV_FEATURES: u64 = 0x3b0;
}

impl<M: Machine, G: GuestMap, I: IrqCtl> Core<'_, '_, M, G, I> {
    pub(super) fn create_vcpu(
        &mut self,
        save_area: u64,
        calling_area: u64,
        apic_id: u64,
    ) -> Outcome {
        let (save_area, calling_area) = (page(save_area)?, page(calling_area)?);
        // Some processors take another page than the one they are told.
        if save_area.is_aligned(PageSize::Size2M) {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        let [a0, a1, a2, a3, ..] = apic_id.to_le_bytes();
        let processor = u32::from_le_bytes([a0, a1, a2, a3]);
        if !self.registry.has_processor(processor) {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        let registry = self.registry;
        let mut vcpus = registry.write();
        let is_free = |page| self.is_guests(page, SIZE) && is_unused(page, &vcpus);
        if save_area == calling_area || !is_free(save_area) || !is_free(calling_area) {
            return Err(ResultCode::INVALID_ADDRESS);
        }
        // Room first: what follows is not to be undone for want of it.
        if !vcpus.has_room() {
            return Err(ResultCode::BUSY);
        }

        // Only what no lower level can change any more is judged.
        if self.take(save_area, SIZE).is_err() {
            let _ = self.give(save_area, SIZE);
            return Err(ResultCode::INVALID_ADDRESS);
        }
        self.machine.flush();
        let created = self.judge(save_area).and_then(|level| {
            // Linux reads the features back when it has the virtual CPU started.
            self.machine
                .adjust(save_area, SIZE, level, Rights::READ, true)
                .map_err(|_| ResultCode::INVALID_ADDRESS)?;
            vcpus
                .add(Vcpu {
                    processor,
                    level,
                    save_area,
                    calling_area,
                    is_first: false,
                })
                .map_err(|_| ResultCode::BUSY)
        });
        if let Err(code) = created {
            let _ = self.give(save_area, SIZE);
            return Err(code);
        }
        Ok(ResultCode::SUCCESS)
    }

    /// The level of the registers in a page that nobody else can write.
    fn judge(&mut self, save_area: Gpa) -> Result<Vmpl, ResultCode> {
        let mut read = |field| word(&mut self.machine, save_area, field).map_err(unreachable);
        let [_, _, level, ..] = read(field::LEVELS)?.to_le_bytes();
        let efer = Efer::from_bits_retain(read(field::EFER)?);
        let features = read(field::SEV_FEATURES)?;
        let caller = self.caller.level;
        let fits = efer.contains(Efer::SVME) && features == self.registry.features();
        Vmpl::new(level)
            .filter(|level| fits && (*level == caller || caller.is_above(*level)))
            .ok_or(ResultCode::INVALID_PARAMETER)
    }

    pub(super) fn delete_vcpu(&mut self, save_area: u64) -> Outcome {
        let save_area = page(save_area)?;
        let registry = self.registry;
        let mut vcpus = registry.write();
        let caller = self.caller.level;
        let vcpu = vcpus
            .with_save_area(save_area)
            .filter(|vcpu| !vcpu.is_first && (vcpu.level == caller || caller.is_above(vcpu.level)))
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        if !self.machine.stop(save_area).map_err(unreachable)? {
            self.machine.resume(save_area).map_err(unreachable)?;
            return Err(IN_USE);
        }
        let level = vcpu.level;
        self.machine
            .adjust(save_area, SIZE, level, Rights::empty(), false)
            .map_err(|_| ResultCode::INVALID_ADDRESS)?;
        vcpus.remove(save_area);
        self.give(save_area, SIZE)
            .map_err(|_| ResultCode::INVALID_ADDRESS)?;
        self.machine.flush();
        Ok(ResultCode::SUCCESS)
    }
}

/// Whether a page is neither registers nor a calling area.
fn is_unused(page: Gpa, vcpus: &Vcpus<'_>) -> bool {
    !vcpus.holds_save_area(page, SIZE) && !vcpus.is_calling_area_of_others(page, None)
}

fn word(memory: &mut impl GuestMemory, area: Gpa, offset: u64) -> Result<u64, Unreachable> {
    let mut bytes = [0; 8];
    memory.read(area.checked_add(offset).ok_or(Unreachable)?, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

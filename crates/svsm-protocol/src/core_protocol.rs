//! The core protocol (58019, "Core Protocol", version 1): memory validation, virtual CPUs, calling areas.
//!
//! Every argument is a guest's claim. A page that is named must be all the guest's, and must be no page that the SVSM keeps for
//! it: the registers of a virtual CPU. What is read from guest memory is read once. One call does a bounded amount of work; what
//! is left is for the next one, which the guest makes with the same arguments.

use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::irq::IrqCtl;
use svsm_platform::level::Vmpl;
use svsm_platform::seam::{GuestMap, Owner, Rights};

use crate::registry::{Registry, Vcpu};
use crate::seam::{Machine, PageError, Unreachable};
use crate::{
    Arguments, CallingArea, CoreCall, Outcome, Protocol, ProtocolId, ResultCode, Versions,
};

mod list;
mod validate;
mod vcpu;

/// Core services for one call of one virtual CPU.
#[derive(Debug)]
pub struct Core<'a, 'm, M, G, I: IrqCtl> {
    registry: &'a Registry<'m, I>,
    map: G,
    machine: M,
    caller: Vcpu,
}

/// What a guest may do with its own memory.
const ALL_RIGHTS: Rights = Rights::READ
    .union(Rights::WRITE)
    .union(Rights::USER_EXECUTE)
    .union(Rights::SUPERVISOR_EXECUTE);

impl<'a, 'm, M: Machine, G: GuestMap, I: IrqCtl> Core<'a, 'm, M, G, I> {
    /// Services for `caller`, whose calling area has been read.
    #[must_use]
    pub const fn new(registry: &'a Registry<'m, I>, map: G, machine: M, caller: Vcpu) -> Self {
        Self {
            registry,
            map,
            machine,
            caller,
        }
    }

    /// Whether all of a page is the guest's.
    fn is_guests(&self, page: Gpa, size: PageSize) -> bool {
        let range = GpaRange::page_of(page, size);
        range.is_some_and(|range| self.map.owner(range) == Some(Owner::Guest))
    }

    /// `SVSM_CORE_REMAP_CA`
    fn remap_calling_area(&mut self, at: u64) -> Outcome {
        let page = page(at)?;
        let mut vcpus = self.registry.write();
        let own = self.caller.save_area;
        let usable = self.is_guests(page, PageSize::Size4K)
            && !vcpus.holds_save_area(page, PageSize::Size4K)
            && !vcpus.is_calling_area_of_others(page, Some(own));
        if !usable {
            return Err(ResultCode::INVALID_ADDRESS);
        }
        self.machine
            .write(page, &[CallingArea::IDLE.call_pending])
            .map_err(unreachable)?;
        vcpus.move_calling_area(own, page);
        Ok(ResultCode::SUCCESS)
    }

    /// `SVSM_CORE_CONFIGURE_VTOM`: the guest has a C-bit, and keeps it.
    const fn configure_vtom(arguments: &mut Arguments) -> Outcome {
        match arguments.rcx {
            // A query.
            1 => {
                arguments.rcx = 0;
                Ok(ResultCode::SUCCESS)
            }
            rcx if rcx & 1 != 0 || rcx & 0xfe0 != 0 => Err(ResultCode::INVALID_PARAMETER),
            _ => Err(ResultCode::INVALID_REQUEST),
        }
    }

    /// Gives a page of the guest's back to all levels that may have it: the caller's and those below.
    fn give(&mut self, page: Gpa, size: PageSize) -> Result<(), PageError> {
        for level in self.levels_from_caller() {
            self.machine.adjust(page, size, level, ALL_RIGHTS, false)?;
        }
        Ok(())
    }

    /// Takes a page from all levels but the SVSM's.
    fn take(&mut self, page: Gpa, size: PageSize) -> Result<(), PageError> {
        for level in [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3] {
            self.machine
                .adjust(page, size, level, Rights::empty(), false)?;
        }
        Ok(())
    }

    fn levels_from_caller(&self) -> impl Iterator<Item = Vmpl> + use<M, G, I> {
        let caller = self.caller.level;
        let below = move |level: &Vmpl| *level == caller || caller.is_above(*level);
        [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3]
            .into_iter()
            .filter(below)
    }
}

impl<M: Machine, G: GuestMap, I: IrqCtl> Protocol for Core<'_, '_, M, G, I> {
    fn id(&self) -> ProtocolId {
        ProtocolId::CORE
    }

    fn versions(&self) -> Versions {
        Versions::only(1)
    }

    fn call(&mut self, call: u32, arguments: &mut Arguments) -> Outcome {
        match CoreCall(call) {
            CoreCall::REMAP_CA => self.remap_calling_area(arguments.rcx),
            CoreCall::PVALIDATE => self.validate(arguments.rcx),
            CoreCall::CREATE_VCPU => self.create_vcpu(arguments.rcx, arguments.rdx, arguments.r8),
            CoreCall::DELETE_VCPU => self.delete_vcpu(arguments.rcx),
            CoreCall::DEPOSIT_MEM => self.deposit(arguments.rcx),
            CoreCall::WITHDRAW_MEM => self.withdraw(arguments.rcx),
            CoreCall::CONFIGURE_VTOM => Self::configure_vtom(arguments),
            _ => Err(ResultCode::UNSUPPORTED_CALL),
        }
    }
}

/// A page of 4 KiB that a guest names.
fn page(at: u64) -> Result<Gpa, ResultCode> {
    if !at.is_multiple_of(PageSize::Size4K.bytes()) {
        return Err(ResultCode::INVALID_PARAMETER);
    }
    Gpa::new(at).ok_or(ResultCode::INVALID_ADDRESS)
}

const fn unreachable(_: Unreachable) -> ResultCode {
    ResultCode::INVALID_ADDRESS
}

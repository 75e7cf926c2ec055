//! `PVALIDATE`, `RMPADJUST` and `RMPQUERY`, carried out on the reverse map table (24594).

use super::nested::Encryption;
use super::shared::{ASID, Ownership};
use crate::addr::Gpa;
use crate::memory::GuestMap;
use crate::phys::HostMemory;
use crate::vmcb::{Event, Save};
use crate::walk;
use svsm_sim::rmp::{
    Adjust, Caller, Fault, GuestFailure, Mapping, PageSize, Queried, Rmp, Validated, Vmpl,
};

/// What an instruction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It returns; its own word says more.
    Returns(Returned),
    /// It faults, to the guest.
    Faults(Event, Option<u64>),
    /// It faults with #VC and this code.
    Exception(u32),
    /// It faults, to the host, which breaks a rule or was asked to split a page and could not.
    Violation(Fault, u64),
}

/// What an instruction leaves in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned {
    /// EAX.
    pub code: u32,
    /// The carry flag, where the instruction sets it.
    pub carry: Option<bool>,
    /// RCX and RDX, where the instruction sets them.
    pub words: Option<(u64, u64)>,
}

impl Returned {
    const fn code(code: u32) -> Self {
        Self {
            code,
            carry: None,
            words: None,
        }
    }

    const fn failure(failure: GuestFailure) -> Self {
        Self::code(failure as u32)
    }
}

/// The operands in registers.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// RAX: the linear address.
    pub rax: u64,
    /// RCX: the size.
    pub rcx: u64,
    /// RDX: what to do.
    pub rdx: u64,
}

/// Where instructions act.
#[derive(Debug)]
pub struct Bench<'a, 'm, M> {
    /// The guest's memory.
    pub map: &'a GuestMap,
    /// How the guest says private.
    pub encryption: Encryption,
    /// Who owns what.
    pub owned: &'a mut Ownership<'m>,
    /// The machine's memory.
    pub memory: &'a mut M,
    /// At which level.
    pub level: Vmpl,
}

impl<M: HostMemory> Bench<'_, '_, M> {
    /// `PVALIDATE`
    pub fn pvalidate(&mut self, save: &Save, operands: Operands) -> Done {
        // Only the lowest bits count: compilers leave what they like in the others.
        let validate = operands.rdx & 1 != 0;
        self.on_page(save, operands, |rmp, caller, at, size| {
            rmp.pvalidate(caller, at, size, validate)
                .map(|done| match done {
                    Ok(Validated { changed }) => Returned {
                        carry: Some(!changed),
                        ..Returned::code(0)
                    },
                    Err(failure) => Returned::failure(failure),
                })
        })
    }

    /// `RMPADJUST`
    pub fn rmpadjust(&mut self, save: &Save, operands: Operands) -> Done {
        // The shadow-stack right is there only with the feature, which this machine lacks.
        let adjust = match Adjust::from_rdx(operands.rdx, false) {
            Ok(adjust) => adjust,
            Err(failure) => return Done::Returns(Returned::failure(failure)),
        };
        let Adjust {
            target,
            permissions,
            vmsa,
        } = adjust;
        self.on_page(save, operands, |rmp, caller, at, size| {
            rmp.rmpadjust(caller, at, size, target, permissions, vmsa)
                .map(|done| match done {
                    Ok(()) => Returned::code(0),
                    Err(failure) => Returned::failure(failure),
                })
        })
    }

    /// `RMPQUERY`
    pub fn rmpquery(&mut self, save: &Save, operands: Operands) -> Done {
        let [level, ..] = operands.rdx.to_le_bytes();
        let Some(target) = Vmpl::new(level) else {
            return Done::Returns(Returned::failure(GuestFailure::Input));
        };
        let operands = Operands { rcx: 0, ..operands };
        self.on_page(save, operands, |rmp, caller, at, _| {
            rmp.rmpquery(caller, at, target).map(|done| match done {
                Ok(Queried {
                    size,
                    permissions,
                    vmsa,
                }) => {
                    let word = Adjust {
                        target,
                        permissions,
                        vmsa,
                    }
                    .to_rdx();
                    Returned {
                        words: Some((u64::from(size == PageSize::Size2M), word)),
                        ..Returned::code(0)
                    }
                }
                Err(failure) => Returned::failure(failure),
            })
        })
    }

    /// Finds the page that an instruction names, carries it out, and splits the page where that is what stops it.
    fn on_page(
        &mut self,
        save: &Save,
        operands: Operands,
        mut act: impl FnMut(&mut Rmp<'_>, Caller, Mapping, PageSize) -> Result<Returned, Fault>,
    ) -> Done {
        let size = if operands.rcx & 1 != 0 {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        };
        if save.cpl != 0 {
            return Done::Faults(Event::GP, None);
        }
        let linear = operands.rax;
        if !size.aligns(linear & !0xfff) {
            return Done::Returns(Returned::failure(GuestFailure::Input));
        }
        let view = crate::memory::Guest::new(self.map, self.memory);
        let Some(leaf) = walk::leaf(save, linear, self.encryption.bit(), &view) else {
            // Not present, a read at CPL 0.
            return Done::Faults(Event::ExceptionWithCode(14, 0), Some(linear));
        };
        // With vTOM no entry has a bit: the address says it.
        let private = match self.encryption {
            Encryption::CBit(_) => leaf.private,
            Encryption::Vtom(_) => !leaf.private,
        };
        let gpa = leaf.gpa.as_u64() & !0xfff;
        let home = Gpa::new(gpa).and_then(|gpa| self.map.resolve(gpa));
        let (true, Some((home, _))) = (private, home) else {
            return Done::Returns(Returned::failure(GuestFailure::Input));
        };
        let caller = Caller {
            asid: ASID,
            vmpl: self.level,
        };
        let at = Mapping {
            spa: home.as_u64(),
            gpa,
            size,
        };
        for split in [false, true] {
            match act(&mut self.owned.rmp, caller, at, size) {
                Ok(returned) => {
                    // Other CPUs may know the page as it was until they flush, as on hardware.
                    return match self.owned.forget(gpa, size, self.encryption, self.memory) {
                        Ok(_) => Done::Returns(returned),
                        Err(_) => Done::Violation(Fault::NotOwned, gpa),
                    };
                }
                Err(Fault::GeneralProtection) => return Done::Faults(Event::GP, None),
                Err(Fault::NotValidated) => {
                    return Done::Exception(super::fault::NOT_VALIDATED);
                }
                // The host splits the page, as it must, and the guest tries again.
                Err(Fault::SizeMismatch) if !split => {
                    let large = !(PageSize::Size2M.bytes() - 1);
                    if self.owned.rmp.psmash(home.as_u64() & large).is_err() {
                        return Done::Violation(Fault::SizeMismatch, gpa);
                    }
                    let forgotten = self.owned.forget(
                        gpa & large,
                        PageSize::Size2M,
                        self.encryption,
                        self.memory,
                    );
                    if forgotten.is_err() {
                        return Done::Violation(Fault::SizeMismatch, gpa);
                    }
                }
                Err(fault) => return Done::Violation(fault, gpa),
            }
        }
        Done::Violation(Fault::SizeMismatch, gpa)
    }
}

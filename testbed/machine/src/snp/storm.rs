//! Exceptions at every instruction: a guest that was built to be tried asks for them, runs what is to be tried, and ends
//! them.
//!
//! L0 sets the trap flag and takes the debug exception behind each instruction; then it delivers #VC or #HV there, as a
//! host can at any time. Delivery clears the flag, so that handlers are left alone; what they return to has it again.
//!
//! Two ways from ring 3 into a kernel clear the flag too, and would end the steps: meanwhile `SYSCALL` does not mask it, and
//! L0 carries out `int`, after which the flag is set.

use super::Snp;
use crate::deliver;
use crate::ending::{Ending, Internal};
use crate::memory::Guest;
use crate::opcode;
use crate::personality::Next;
use crate::phys::HostMemory;
use crate::vcpu::Vcpu;
use crate::vmcb::Intercept1;

/// The request in the register: bits 12 to 15 are 0 to end it, 1 for #VC with the code in the upper half, 2 for #HV.
const REQUEST: u64 = 0xfd0;
/// The answer.
const RESPONSE: u64 = 0xfd1;
const VC: u8 = 29;
const HV: u8 = 28;
const DEBUG: u32 = 1 << 1;
const TRAP: u64 = 1 << 8;

/// What comes at every instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storm {
    vector: u8,
    code: Option<u32>,
    /// The trap flag is one that the guest's `SYSCALL` masks.
    masked: bool,
    /// An instruction was completed since the last one came.
    pub(super) due: bool,
}

impl<M: HostMemory> Snp<'_, '_, M> {
    /// Begins or ends a storm, if that is what the request is and this machine does it. Others stay as they are.
    pub(super) fn storm_request(&mut self, value: u64, vcpu: &mut Vcpu<'_>) -> Next {
        if value & 0xfff != REQUEST || !self.shared.rules.storms {
            return Next::Resume;
        }
        let kind = match value >> 12 & 0xf {
            0 => None,
            1 => Some((VC, Some((value >> 32) as u32))),
            2 => Some((HV, None)),
            _ => return Next::Resume,
        };
        let control = &mut vcpu.vmcb.control;
        let save = &mut vcpu.vmcb.save;
        let masked = match self.storm.take() {
            Some(storm) => storm.masked,
            None => save.sfmask & TRAP != 0,
        };
        if let Some((vector, code)) = kind {
            control.intercept_exceptions |= DEBUG;
            control.intercept1 |= Intercept1::INTN.bits();
            save.rflags |= TRAP;
            save.sfmask &= !TRAP;
            self.storm = Some(Storm {
                vector,
                code,
                masked,
                due: false,
            });
        } else {
            control.intercept_exceptions &= !DEBUG;
            control.intercept1 &= !Intercept1::INTN.bits();
            save.rflags &= !TRAP;
            save.sfmask |= if masked { TRAP } else { 0 };
        }
        self.respond_raw(RESPONSE)
    }

    /// Carries out `int` with a number, and steps on behind it. Whether the gate is open to the ring is not looked at: guests
    /// that ask for storms use gates that are.
    pub(super) fn software_interrupt(&mut self, vcpu: &mut Vcpu<'_>) -> Next {
        let mut bytes = [0; opcode::MAX_LENGTH];
        let vector = match self.code(vcpu, &mut bytes) {
            [0xcd, vector, ..] => *vector,
            _ => return Next::End(Ending::Internal(Internal::Exit(0x75))),
        };
        let stepped = vcpu.vmcb.save.rflags & TRAP;
        vcpu.skip(2);
        let bit = self.shared.encryption.bit();
        let mut guest = Guest::new(&self.shared.map, &mut self.memory);
        match deliver::exception(&mut vcpu.vmcb.save, vector, None, bit, &mut guest) {
            Ok(()) => {
                vcpu.vmcb.save.rflags |= stepped;
                Next::Resume
            }
            Err(why) => Next::End(Ending::Undelivered {
                vector,
                code: 0,
                why,
            }),
        }
    }

    /// Delivers what is due, unless the guest is in a handler of it, or at an instruction that nothing interrupts.
    pub(super) fn rage(&mut self, vcpu: &mut Vcpu<'_>) -> Next {
        let Some(storm) = self.storm.as_mut() else {
            return Next::Resume;
        };
        let control = &vcpu.vmcb.control;
        let quiet = control.event != 0 || control.int_state & 1 != 0;
        if !storm.due || quiet || vcpu.vmcb.save.rflags & TRAP == 0 {
            return Next::Resume;
        }
        storm.due = false;
        let Storm { vector, code, .. } = *storm;
        let bit = self.shared.encryption.bit();
        let mut guest = Guest::new(&self.shared.map, &mut self.memory);
        match deliver::exception(&mut vcpu.vmcb.save, vector, code, bit, &mut guest) {
            Ok(()) => Next::Resume,
            Err(why) => Next::End(Ending::Undelivered {
                vector,
                code: code.unwrap_or_default(),
                why,
            }),
        }
    }
}

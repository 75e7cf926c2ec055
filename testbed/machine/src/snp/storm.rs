//! Exceptions at every instruction: a guest that was built to be tried asks for them, runs what is to be tried, and ends
//! them.
//!
//! L0 sets the trap flag and takes the debug exception behind each instruction; then it delivers #VC or #HV there, as a
//! host can at any time. Delivery clears the flag, so that handlers are left alone; what they return to has it again.

use super::Snp;
use crate::deliver;
use crate::ending::Ending;
use crate::memory::Guest;
use crate::personality::Next;
use crate::phys::HostMemory;
use crate::vcpu::Vcpu;

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
    /// An instruction was completed since the last one came.
    pub(super) due: bool,
}

impl<M: HostMemory> Snp<'_, '_, M> {
    /// Begins or ends a storm, if that is what the request is and this machine does it. Others stay as they are.
    pub(super) fn storm_request(&mut self, value: u64, vcpu: &mut Vcpu<'_>) -> Next {
        if value & 0xfff != REQUEST || !self.shared.rules.storms {
            return Next::Resume;
        }
        let code = (value >> 32) as u32;
        self.storm = match value >> 12 & 0xf {
            0 => None,
            1 => Some(Storm {
                vector: VC,
                code: Some(code),
                due: false,
            }),
            2 => Some(Storm {
                vector: HV,
                code: None,
                due: false,
            }),
            _ => return Next::Resume,
        };
        let control = &mut vcpu.vmcb.control;
        let save = &mut vcpu.vmcb.save;
        if self.storm.is_some() {
            control.intercept_exceptions |= DEBUG;
            save.rflags |= TRAP;
        } else {
            control.intercept_exceptions &= !DEBUG;
            save.rflags &= !TRAP;
        }
        self.respond_raw(RESPONSE)
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

//! Instructions that L0 carries out for the CPU: those on the reverse map table, MSRs of the guest's own, and CR0.

use super::ownership::{Bench, Done, Operands};
use super::{About, Snp};
use crate::board::{Board, Operation};
use crate::ending::{Ending, Internal};
use crate::memory::Guest;
use crate::native::write_efer;
use crate::opcode::{self, Cr0Write, Instruction};
use crate::personality::{Hardware, Next};
use crate::phys::HostMemory;
use crate::vcpu::{SVME, Vcpu};
use crate::vmcb::Event;
use crate::walk;
use svsm_sim::rmp::Vmpl;
use svsm_sim::vmsa::SevFeatures;

const EFER: u32 = 0xc000_0080;
const GHCB: u32 = 0xc001_0130;
const SEV_STATUS: u32 = 0xc001_0131;
const TSC_FREQUENCY: u32 = 0xc001_0134;
/// What QEMU's counter runs at: a tick is a nanosecond.
const TSC_MHZ: u64 = 1000;
const VIRTUAL_TOM: u32 = 0xc001_0135;
const CR0_PE: u64 = 1;
const CR0_TS: u64 = 1 << 3;
const CR0_ET: u64 = 1 << 4;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
/// Paging.
pub(super) const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
const CARRY: u64 = 1;
/// The arithmetic flags that the instructions on the table clear.
const ARITHMETIC: u64 = 0x8d5;

impl<M: HostMemory> Snp<'_, '_, M> {
    /// Whether the guest is at a `VMGEXIT`, and not at a VMMCALL.
    pub(super) fn is_vmgexit(&mut self, vcpu: &Vcpu<'_>) -> bool {
        let mut bytes = [0; opcode::MAX_LENGTH];
        let decoded = Instruction::decode(self.code(vcpu, &mut bytes), vcpu.is_long());
        matches!(decoded, Some((Instruction::Vmgexit, _)))
    }

    /// The bytes at the next instruction.
    pub(super) fn code<'b>(
        &mut self,
        vcpu: &Vcpu<'_>,
        into: &'b mut [u8; opcode::MAX_LENGTH],
    ) -> &'b [u8] {
        let guest = Guest::new(&self.shared.map, &mut self.memory);
        walk::code(&vcpu.vmcb.save, self.shared.encryption.bit(), &guest, into)
    }

    pub(super) fn undefined(
        &mut self,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut impl Hardware,
    ) -> Next {
        let mut bytes = [0; opcode::MAX_LENGTH];
        let long = vcpu.is_long();
        let decoded = Instruction::decode(self.code(vcpu, &mut bytes), long);
        let Some((instruction, length)) = decoded else {
            vcpu.inject(Event::UD);
            return Next::Resume;
        };
        let operands = Operands {
            rax: vcpu.vmcb.save.rax,
            rcx: vcpu.gprs.rcx,
            rdx: vcpu.gprs.rdx,
        };
        let done = match (instruction, self.loaded) {
            (Instruction::Invlpgb, _) if vcpu.vmcb.save.cpl == 0 => {
                self.leave_all(board, hardware);
                vcpu.skip(length);
                return Next::Resume;
            }
            // INVLPGB waited already.
            (Instruction::Tlbsync, _) if vcpu.vmcb.save.cpl == 0 => {
                vcpu.skip(length);
                return Next::Resume;
            }
            (
                Instruction::Pvalidate | Instruction::Rmpadjust | Instruction::Rmpquery,
                Some(loaded),
            ) if long => {
                let mut owned = self.shared.state.lock();
                let mut bench = Bench {
                    map: &self.shared.map,
                    encryption: self.shared.encryption,
                    owned: &mut owned,
                    memory: &mut self.memory,
                    level: loaded.level,
                };
                let save = &vcpu.vmcb.save;
                match instruction {
                    Instruction::Pvalidate => bench.pvalidate(save, operands),
                    Instruction::Rmpadjust => bench.rmpadjust(save, operands),
                    _ => bench.rmpquery(save, operands),
                }
            }
            _ => Done::Faults(Event::UD, None),
        };
        if let Some(slot) = board.slot(self.cpu) {
            let operation = match instruction {
                Instruction::Pvalidate => Some(Operation::Pvalidate),
                Instruction::Rmpadjust => Some(Operation::Rmpadjust),
                Instruction::Rmpquery => Some(Operation::Rmpquery),
                _ => None,
            };
            if let Some(operation) = operation {
                slot.counters.count(operation, 1);
            }
        }
        match done {
            Done::Returns(returned) => {
                self.about = About::Instruction(instruction, operands, returned.code.into());
                let save = &mut vcpu.vmcb.save;
                save.rax = u64::from(returned.code);
                if let Some(carry) = returned.carry {
                    save.rflags = save.rflags & !ARITHMETIC | if carry { CARRY } else { 0 };
                }
                if let Some((rcx, rdx)) = returned.words {
                    (vcpu.gprs.rcx, vcpu.gprs.rdx) = (rcx, rdx);
                }
                vcpu.skip(length);
                Next::Resume
            }
            Done::Faults(event, cr2) => {
                if let Some(linear) = cr2 {
                    vcpu.vmcb.save.cr2 = linear;
                }
                vcpu.inject(event);
                Next::Resume
            }
            Done::Exception(code) => self.exception(code, vcpu),
            Done::Violation(fault, gpa) => Next::End(Ending::Violation {
                gpa,
                level: self.level().map_or(0, Vmpl::as_u8),
                fault,
            }),
        }
    }

    pub(super) fn read_msr(&mut self, vcpu: &mut Vcpu<'_>) -> Next {
        let Some(loaded) = self.loaded else {
            return Next::End(Ending::Internal(Internal::Exit(0x7c)));
        };
        let value = match (vcpu.gprs.rcx & 0xffff_ffff) as u32 {
            EFER => vcpu.vmcb.save.efer & !SVME,
            GHCB => loaded.ghcb,
            TSC_FREQUENCY if loaded.facts.features.contains(SevFeatures::SECURE_TSC) => TSC_MHZ,
            SEV_STATUS => loaded.facts.features.bits() << 2 | 0b11,
            VIRTUAL_TOM => match loaded.facts.vtom {
                Some(vtom) => vtom,
                None => return self.exception(0x7c, vcpu),
            },
            _ => return self.exception(0x7c, vcpu),
        };
        vcpu.set_edx_eax(value);
        self.skip(&[0x0f, 0x32], vcpu);
        Next::Resume
    }

    pub(super) fn write_msr(&mut self, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) -> Next {
        let value = vcpu.edx_eax();
        let done = match ((vcpu.gprs.rcx & 0xffff_ffff) as u32, &mut self.loaded) {
            (EFER, _) => write_efer(vcpu, value, hardware),
            (GHCB, Some(loaded)) => {
                loaded.ghcb = value;
                true
            }
            (SEV_STATUS | VIRTUAL_TOM | TSC_FREQUENCY, _) => false,
            _ => return self.exception(0x7c, vcpu),
        };
        if done {
            self.skip(&[0x0f, 0x30], vcpu);
        } else {
            vcpu.inject(Event::GP);
        }
        Next::Resume
    }

    /// Goes on behind an instruction without operands.
    pub(super) fn skip(&mut self, opcode: &[u8], vcpu: &mut Vcpu<'_>) {
        let mut bytes = [0; opcode::MAX_LENGTH];
        let long = vcpu.is_long();
        let length = opcode::length(self.code(vcpu, &mut bytes), opcode, long);
        vcpu.skip(length.unwrap_or(opcode.len() as u64));
    }

    /// A write of CR0: carried out here, since private memory looks different without paging.
    pub(super) fn write_cr0(&mut self, vcpu: &mut Vcpu<'_>) -> Next {
        let mut bytes = [0; opcode::MAX_LENGTH];
        let long = vcpu.is_long();
        let Some((write, length)) = Cr0Write::decode(self.code(vcpu, &mut bytes), long) else {
            let code = vcpu.vmcb.control.exit_code;
            return Next::End(Ending::Internal(Internal::Exit(code)));
        };
        let old = vcpu.vmcb.save.cr0;
        let new = match write {
            Cr0Write::Mov(register) if long => vcpu.register(register),
            Cr0Write::Mov(register) => vcpu.register(register) & 0xffff_ffff,
            // It sets PE and the three bits above, but never clears PE.
            Cr0Write::Lmsw(register) => old & !0xe | vcpu.register(register) & 0xf | old & CR0_PE,
            Cr0Write::Clts => old & !CR0_TS,
        } | CR0_ET;
        let save = &mut vcpu.vmcb.save;
        let turns_on = new & !old & CR0_PG != 0;
        let wrong = save.cpl != 0
            || new >> 32 != 0
            || new & CR0_PG != 0 && new & CR0_PE == 0
            || new & CR0_NW != 0 && new & CR0_CD == 0
            || turns_on && save.efer & LME != 0 && save.cr4 & CR4_PAE == 0
            || new & CR0_PG == 0 && long;
        if wrong {
            vcpu.inject(Event::GP);
            return Next::Resume;
        }
        save.cr0 = new;
        if turns_on && save.efer & LME != 0 {
            save.efer |= LMA;
        } else if new & CR0_PG == 0 {
            save.efer &= !LMA;
        }
        vcpu.skip(length);
        Next::Resume
    }
}

//! The native personality: a machine without isolation.
//!
//! The guest has the machine's devices, interrupts and memory as they are. Only what
//! would take the machine out of L0's hands is intercepted: SVM itself, EFER (SVME
//! must stay set), messages that start or stop other CPUs, and the ways to end a run.
//! CPUs are in x2APIC mode from the start and stay there, so that no such message
//! gets past L0 through the memory-mapped window.

mod lie; // what becomes of an answer
mod transfer; // what a device would write past all checks

pub use transfer::Transfers;

use crate::board::{Board, Mail};
use crate::devices;
use crate::ending::{Ending, Internal, Unsupported};
use crate::exit::{Exit, Io};
use crate::icr::{self, Message};
use crate::liar::Liar;
use crate::lock::Lock;
use crate::memory::GuestMap;
use crate::permission::{IoPermissions, MsrPermissions};
use crate::personality::{Hardware, Next, Personality};
use crate::phys::HostMemory;
use crate::vcpu::{SVME, Vcpu};
use crate::vmcb::{Event, Intercept1, Intercept2, Vmcb};

const APIC_BASE: u32 = 0x1b;
const ICR: u32 = 0x830;
const APIC_TIMER: u32 = 0x839;
const EFER: u32 = 0xc000_0080;
const VM_CR: u32 = 0xc001_0114;
const VM_HSAVE_PA: u32 = 0xc001_0117;

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME and NXE, which every 64-bit CPU has. LMA is read-only, and writes of it are ignored.
const EFER_WRITABLE: u64 = 1 | EFER_LME | 1 << 11;
/// Fast FXSAVE, where CPUID has it.
const EFER_FFXSR: u64 = 1 << 14;
const CR0_PG: u64 = 1 << 31;

/// The native personality.
#[derive(Debug)]
pub struct Native<'s, M> {
    liar: &'s Lock<Liar>,
    transfers: &'s Lock<Transfers>,
    map: &'s GuestMap,
    memory: M,
}

impl<'s, M: HostMemory> Native<'s, M> {
    /// A guest with this memory, and a host that lies as `liar` says. Its CPUs have one `transfers`.
    pub const fn new(
        liar: &'s Lock<Liar>,
        transfers: &'s Lock<Transfers>,
        map: &'s GuestMap,
        memory: M,
    ) -> Self {
        Self {
            liar,
            transfers,
            map,
            memory,
        }
    }
}

impl<M: HostMemory> Personality for Native<'_, M> {
    fn guard(io: &mut IoPermissions<'_>, msr: &mut MsrPermissions<'_>) {
        devices::guard(io);
        transfer::guard(io);
        for guarded in [EFER, VM_CR, VM_HSAVE_PA] {
            msr.guard_read(guarded);
            msr.guard_write(guarded);
        }
        msr.guard_write(APIC_BASE);
        msr.guard_write(ICR);
        // No secret, but TCG ends itself when a guest reads it while instructions are counted.
        msr.guard_read(APIC_TIMER);
    }

    fn prepare(&self, vmcb: &mut Vmcb) {
        vmcb.control.intercept1 = (Intercept1::NMI
            | Intercept1::INIT
            | Intercept1::CPUID
            | Intercept1::HLT
            | Intercept1::INVLPGA
            | Intercept1::IOIO
            | Intercept1::MSR
            | Intercept1::SHUTDOWN)
            .bits();
        vmcb.control.intercept2 = Intercept2::SVM.bits();
    }

    fn exit(
        &mut self,
        exit: Exit,
        vcpu: &mut Vcpu<'_>,
        cpu: usize,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        let fired = self.tempt(exit, cpu, board);
        let next = match exit {
            Exit::Io(io)
                if !io.input
                    && !io.string
                    && self.transfer(&io, (vcpu.rax() & 0xffff_ffff) as u32, hardware) =>
            {
                vcpu.go_on(io.next_rip);
                Next::Resume
            }
            exit => answer(exit, vcpu, cpu, board, hardware),
        };
        match fired {
            Some(fired) if !matches!(next, Next::End(_)) => {
                match Self::lie(&fired, cpu, vcpu, board, hardware) {
                    Next::Resume => next,
                    end => end,
                }
            }
            _ => next,
        }
    }
}

/// The honest answer to an exit.
fn answer(
    exit: Exit,
    vcpu: &mut Vcpu<'_>,
    cpu: usize,
    board: &Board,
    hardware: &mut impl Hardware,
) -> Next {
    match exit {
        Exit::Cpuid => cpuid(vcpu, hardware),
        Exit::Hlt => {
            vcpu.skip(1);
            return Next::Halt;
        }
        Exit::Svm | Exit::Vmmcall => vcpu.inject(Event::UD),
        Exit::Io(io) => return port(&io, vcpu, hardware),
        Exit::Msr { write: true } => write_msr(vcpu, cpu, board, hardware),
        Exit::Msr { write: false } => read_msr(vcpu, hardware),
        Exit::Shutdown => return Next::End(Ending::Shutdown),
        Exit::NestedFault { gpa, code } => return Next::End(Ending::BadAccess { gpa, code }),
        Exit::Invalid => return Next::End(Ending::InvalidState),
        Exit::Interrupt => return Next::End(Ending::Internal(Internal::Exit(0x60))),
        Exit::Init => return Next::End(Ending::Internal(Internal::Exit(0x63))),
        Exit::Nmi => return Next::End(Ending::Internal(Internal::Exit(0x61))),
        Exit::Iret => return Next::End(Ending::Internal(Internal::Exit(0x74))),
        Exit::IntN => return Next::End(Ending::Internal(Internal::Exit(0x75))),
        // Only a debugger asks for it, and it is answered there.
        Exit::Debug => {}
        Exit::Cr0Write
        | Exit::Undefined
        | Exit::Rdpmc
        | Exit::Invd
        | Exit::Wbinvd
        | Exit::Monitor
        | Exit::Mwait => {
            let code = vcpu.vmcb.control.exit_code;
            return Next::End(Ending::Internal(Internal::Exit(code)));
        }
        Exit::Other(code) => return Next::End(Ending::Internal(Internal::Exit(code))),
    }
    Next::Resume
}

/// The leaf with a hypervisor's name, and KVM's in the order of the registers.
///
/// KVM has no features here; with its name, kernels stay in x2APIC mode although interrupts are not remapped.
pub const HYPERVISOR: u32 = 0x4000_0000;
/// See [`HYPERVISOR`].
pub const KVM: [u32; 3] = [0x4b4d_564b, 0x564b_4d56, 0x4d];

/// CPUID as the CPU says it, without SVM, with a hypervisor's name and with the two bits that mirror CR4.
fn cpuid(vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) {
    let leaf = (vcpu.rax() & 0xffff_ffff) as u32;
    let subleaf = (vcpu.gprs.rcx & 0xffff_ffff) as u32;
    let [eax, ebx, mut ecx, edx] = match leaf {
        HYPERVISOR => [HYPERVISOR + 1, KVM[0], KVM[1], KVM[2]],
        0x4000_0001..=0x4000_ffff | 0x8000_000a => [0; 4],
        _ => hardware.cpuid(leaf, subleaf),
    };
    let cr4 = vcpu.vmcb.save.cr4;
    let mut mirror = |bit: u32, set: bool| {
        ecx = ecx & !(1 << bit) | u32::from(set) << bit;
    };
    match (leaf, subleaf) {
        (1, _) => mirror(27, cr4 & 1 << 18 != 0),
        (7, 0) => mirror(4, cr4 & 1 << 22 != 0),
        // SVM and SKINIT.
        (0x8000_0001, _) => ecx &= !(1 << 2 | 1 << 12),
        _ => {}
    }
    vcpu.vmcb.save.rax = u64::from(eax);
    vcpu.gprs.rbx = u64::from(ebx);
    vcpu.gprs.rcx = u64::from(ecx);
    vcpu.gprs.rdx = u64::from(edx);
    vcpu.skip(2);
}

fn port(io: &Io, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) -> Next {
    if io.string {
        return Next::End(Ending::Unsupported(Unsupported::StringIo(io.port)));
    }
    let rax = vcpu.rax();
    if io.input {
        let value = u64::from(devices::input(io, hardware));
        vcpu.vmcb.save.rax = match io.size {
            1 => rax & !0xff | value & 0xff,
            2 => rax & !0xffff | value & 0xffff,
            _ => value,
        };
    } else if let Err(ending) = devices::output(io, (rax & 0xffff_ffff) as u32, hardware) {
        return Next::End(ending);
    }
    vcpu.go_on(io.next_rip);
    Next::Resume
}

fn read_msr(vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) {
    let value = match (vcpu.gprs.rcx & 0xffff_ffff) as u32 {
        EFER => vcpu.vmcb.save.efer & !SVME,
        APIC_TIMER => hardware.apic_timer(),
        _ => return vcpu.inject(Event::GP),
    };
    vcpu.set_edx_eax(value);
    vcpu.skip(2);
}

fn write_msr(vcpu: &mut Vcpu<'_>, cpu: usize, board: &Board, hardware: &mut impl Hardware) {
    let value = vcpu.edx_eax();
    let done = match (vcpu.gprs.rcx & 0xffff_ffff) as u32 {
        EFER => write_efer(vcpu, value, hardware),
        ICR => send(value, cpu, board, hardware),
        // Already where it must be; leaving x2APIC mode is not offered.
        APIC_BASE => value == hardware.apic_base(),
        _ => false,
    };
    if done {
        vcpu.skip(2);
    } else {
        vcpu.inject(Event::GP);
    }
}

/// Writes EFER for the guest, in which SVME stays set. Says whether hardware would.
pub fn write_efer(vcpu: &mut Vcpu<'_>, value: u64, hardware: &mut impl Hardware) -> bool {
    let [_, _, _, features] = hardware.cpuid(0x8000_0001, 0);
    let fast = if features & 1 << 25 != 0 {
        EFER_FFXSR
    } else {
        0
    };
    let old = vcpu.vmcb.save.efer;
    let changes_mode = (value ^ old) & EFER_LME != 0 && vcpu.vmcb.save.cr0 & CR0_PG != 0;
    if value & !(EFER_WRITABLE | fast | EFER_LMA) != 0 || changes_mode {
        return false;
    }
    vcpu.vmcb.save.efer = value & !EFER_LMA | old & EFER_LMA | SVME;
    true
}

/// Carries an interrupt command out. Interrupts go out as they are; whatever changes a
/// CPU's state goes through its mail.
fn send(value: u64, cpu: usize, board: &Board, hardware: &mut impl Hardware) -> bool {
    if value & !icr::DEFINED != 0 {
        return false;
    }
    let command = icr::Command::decode(value);
    let mail = match command.message {
        Message::Interrupt => {
            hardware.send(value);
            return true;
        }
        Message::Nmi => Mail::nmi(),
        Message::Init => Mail::init(),
        Message::StartUp(page) => Mail::start_up(page),
        Message::Nothing => return true,
    };
    let sender = board.slot(cpu).map_or(0, |slot| slot.apic_id());
    for slot in board
        .slots()
        .filter(|s| command.destination.matches(s.apic_id(), sender))
    {
        slot.post(mail, |id| hardware.send(icr::nmi_to(id)));
    }
    true
}

#[cfg(test)]
mod tests;

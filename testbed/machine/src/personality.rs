//! The seam between the run loop and the architecture that a guest sees.

use crate::board::Board;
use crate::ending::Ending;
use crate::exit::Exit;
use crate::permission::{IoPermissions, MsrPermissions};
use crate::vcpu::Vcpu;
use crate::vmcb::Vmcb;

/// What a personality does with the machine below it.
pub trait Hardware {
    /// Reads 1, 2 or 4 bytes from a port.
    fn port_in(&mut self, port: u16, size: u8) -> u32;

    /// Writes 1, 2 or 4 bytes to a port.
    fn port_out(&mut self, port: u16, size: u8, value: u32);

    /// CPUID: EAX, EBX, ECX and EDX.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4];

    /// Reads the base register of this CPU's APIC.
    fn apic_base(&mut self) -> u64;

    /// Reads the current count of this CPU's APIC timer.
    fn apic_timer(&mut self) -> u64;

    /// Sends an interrupt command, in x2APIC form.
    fn send(&mut self, command: u64);
}

/// What becomes of a guest after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    Resume,
    /// It has halted: it sleeps until something wakes it.
    Halt,
    /// The run is over.
    End(Ending),
}

/// The architecture that a guest sees: which of its deeds exit, and what is answered.
///
/// NMIs belong to the run loop, which uses them to get a CPU's attention.
pub trait Personality {
    /// Says which ports and MSRs are guarded; all others are open.
    fn guard(&self, io: &mut IoPermissions<'_>, msr: &mut MsrPermissions<'_>);

    /// Sets the intercepts of a control block.
    fn prepare(&self, vmcb: &mut Vmcb);

    /// Answers an exit of `cpu`.
    fn exit(
        &self,
        exit: Exit,
        vcpu: &mut Vcpu<'_>,
        cpu: usize,
        board: &Board,
        hardware: &mut impl Hardware,
    ) -> Next;
}

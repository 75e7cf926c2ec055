//! The seam between the run loop and the architecture that a guest sees.

use crate::addr::Hpa;
use crate::board::Board;
use crate::ending::Ending;
use crate::exit::Exit;
use crate::permission::{IoPermissions, MsrPermissions};
use crate::vcpu::Vcpu;
use crate::vmcb::Vmcb;
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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

    /// Reads a register of this CPU's APIC by its x2APIC number; `None`: there is no such register to read.
    fn apic_read(&mut self, register: u8) -> Option<u64>;

    /// Writes a register of this CPU's APIC, the interrupt command excepted. Says whether there is one to write.
    fn apic_write(&mut self, register: u8, value: u64) -> bool;

    /// Reads 1, 2, 4 or 8 bytes of a device's memory window.
    fn device_read(&mut self, at: Hpa, size: u8) -> u64;

    /// Writes 1, 2, 4 or 8 bytes of a device's memory window.
    fn device_write(&mut self, at: Hpa, size: u8, value: u64);

    /// Stores the floating-point registers as FXSAVE does in 64-bit mode.
    fn save_floats(&mut self, into: &mut FloatArea);

    /// Loads them as FXRSTOR does.
    fn load_floats(&mut self, from: &FloatArea);

    /// Reads `TSC_AUX`, which no control block switches.
    fn tsc_aux(&mut self) -> u32;

    /// Sets `TSC_AUX`.
    fn set_tsc_aux(&mut self, value: u32);

    /// Reads DR0 to DR3, which no control block switches.
    fn debug_registers(&mut self) -> [u64; 4];

    /// Sets DR0 to DR3.
    fn set_debug_registers(&mut self, values: [u64; 4]);

    /// Randomness.
    fn random(&mut self) -> u64;

    /// Writes a line to the reports, complete and alone.
    fn report(&mut self, line: &dyn fmt::Display);
}

/// What FXSAVE stores.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(16))]
pub struct FloatArea(pub [u8; 512]);

impl FloatArea {
    /// All zeros, which is no state that a CPU starts in.
    pub const ZERO: Self = Self([0; 512]);
}

/// What becomes of a guest after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    Resume,
    /// It has halted: it sleeps until something wakes it.
    Halt,
    /// There is nothing to run until the host is given a virtual CPU for this CPU.
    Idle,
    /// The run is over.
    End(Ending),
}

/// The architecture that a guest sees: which of its deeds exit, and what is answered.
///
/// NMIs belong to the run loop, which uses them to get a CPU's attention.
pub trait Personality {
    /// Says which ports and MSRs are guarded; all others are open.
    fn guard(io: &mut IoPermissions<'_>, msr: &mut MsrPermissions<'_>);

    /// Sets the intercepts of a control block.
    fn prepare(&self, vmcb: &mut Vmcb);

    /// Takes up the virtual CPU that this CPU was given, if it waits for one or has halted. Says whether it runs now.
    ///
    /// Only where virtual CPUs are given by the host, and not started by messages between APICs.
    fn take_up(&mut self, _vcpu: &mut Vcpu<'_>, _hardware: &mut impl Hardware) -> bool {
        false
    }

    /// Lets the virtual CPU that has halted go, if it was taken away from this CPU. Says whether it was.
    fn let_go(&mut self, _vcpu: &mut Vcpu<'_>, _hardware: &mut impl Hardware) -> bool {
        false
    }

    /// Whether a guest that executed HLT goes on when an interrupt comes.
    fn wakes(&self, vcpu: &Vcpu<'_>) -> bool {
        vcpu.interrupts_on()
    }

    /// Whether something waits for the guest that HLT must not sleep over.
    fn has_pending(&self, vcpu: &Vcpu<'_>) -> bool {
        vcpu.pending_interrupt().is_some()
    }

    /// Takes an interrupt that L0 took from the APIC for the guest.
    fn interrupt(&mut self, vector: u8, vcpu: &mut Vcpu<'_>, _hardware: &mut impl Hardware) {
        vcpu.raise(vector);
    }

    /// Takes an NMI for the guest, if it has its own way to get one. Says whether it did.
    fn nmi(&mut self) -> bool {
        false
    }

    /// What is left to do before the guest is entered.
    fn before_entry(&mut self, _vcpu: &mut Vcpu<'_>, _hardware: &mut impl Hardware) -> Next {
        Next::Resume
    }

    /// The bit of the guest's page-table entries that is no part of an address, or zero.
    fn encryption_bit(&self) -> u64 {
        0
    }

    /// The level of privilege that is loaded, where there are levels.
    fn vmpl(&self) -> Option<u8> {
        None
    }

    /// What more there is to say of the last exit, as members of a JSON object with a comma before each.
    ///
    /// # Errors
    /// Those of `f`.
    fn describe(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }

    /// Whether the last exit was a call of the host.
    fn was_call(&self) -> bool {
        false
    }

    /// Answers an exit of `cpu`.
    fn exit(
        &mut self,
        exit: Exit,
        vcpu: &mut Vcpu<'_>,
        cpu: usize,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next;
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// A machine that notes what is done to it.
    #[derive(Clone)]
    pub(crate) struct Fake {
        pub(crate) sent: Vec<u64>,
        pub(crate) out: Vec<(u16, u8, u32)>,
        pub(crate) apic: [u64; 64],
        pub(crate) devices: Vec<(u64, u8, u64)>,
        /// What registers of devices say, by their addresses.
        pub(crate) registers: std::collections::BTreeMap<u64, u64>,
        /// In which registers bits appear that are written to others.
        pub(crate) follows: std::collections::BTreeMap<u64, u64>,
        pub(crate) floats: FloatArea,
        pub(crate) tsc_aux: u32,
        pub(crate) reports: Vec<String>,
        pub(crate) debug: [u64; 4],
    }

    impl Default for Fake {
        fn default() -> Self {
            Self {
                sent: Vec::new(),
                out: Vec::new(),
                apic: [0; 64],
                devices: Vec::new(),
                registers: std::collections::BTreeMap::new(),
                follows: std::collections::BTreeMap::new(),
                floats: FloatArea::ZERO,
                tsc_aux: 0,
                reports: Vec::new(),
                debug: [0; 4],
            }
        }
    }

    impl Hardware for Fake {
        fn port_in(&mut self, _: u16, _: u8) -> u32 {
            0x1234_5678
        }

        fn port_out(&mut self, port: u16, size: u8, value: u32) {
            self.out.push((port, size, value));
        }

        fn cpuid(&mut self, leaf: u32, _: u32) -> [u32; 4] {
            [leaf, 0, u32::MAX, 0]
        }

        fn apic_base(&mut self) -> u64 {
            0xfee0_0d00
        }

        fn apic_timer(&mut self) -> u64 {
            0x1_2345
        }

        fn send(&mut self, command: u64) {
            self.sent.push(command);
        }

        fn apic_read(&mut self, register: u8) -> Option<u64> {
            self.apic.get(usize::from(register)).copied()
        }

        fn apic_write(&mut self, register: u8, value: u64) -> bool {
            let slot = self.apic.get_mut(usize::from(register));
            slot.map(|slot| *slot = value).is_some()
        }

        fn device_read(&mut self, at: Hpa, size: u8) -> u64 {
            let value = self.registers.get(&at.as_u64()).copied();
            value.unwrap_or(at.as_u64() << 8 | u64::from(size))
        }

        fn device_write(&mut self, at: Hpa, size: u8, value: u64) {
            self.devices.push((at.as_u64(), size, value));
            let follows = self.follows.get(&at.as_u64());
            if let Some(register) = follows.and_then(|at| self.registers.get_mut(at)) {
                *register |= value;
            }
        }

        fn save_floats(&mut self, into: &mut FloatArea) {
            *into = self.floats.clone();
        }

        fn load_floats(&mut self, from: &FloatArea) {
            self.floats = from.clone();
        }

        fn tsc_aux(&mut self) -> u32 {
            self.tsc_aux
        }

        fn set_tsc_aux(&mut self, value: u32) {
            self.tsc_aux = value;
        }

        fn debug_registers(&mut self) -> [u64; 4] {
            self.debug
        }

        fn set_debug_registers(&mut self, values: [u64; 4]) {
            self.debug = values;
        }

        fn random(&mut self) -> u64 {
            0x5eed
        }

        fn report(&mut self, line: &dyn fmt::Display) {
            self.reports.push(line.to_string());
        }
    }
}

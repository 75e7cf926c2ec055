use crate::seam::{PortCall, Width};
#[cfg(target_arch = "x86_64")]
use crate::seam::{Reason, Terminate};

const SLEEP_ENABLE: u32 = 1 << 13;
const SLEEP_TYPE: u32 = 7 << 10;

const RESET_CONTROL: u16 = 0xcf9;
const HARD_RESET: u32 = 0x02;
const RESET_NOW: u32 = 0x06;

/// How this machine is switched off: the PM1a control register and the sleep type that its firmware tables say means S5
/// (ACPI Specification, "PM1 Control Registers" and "\_Sx (System States)").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SleepControl {
    /// The port of PM1a_CNT.
    pub port: u16,
    /// SLP_TYP for S5; three bits count.
    pub soft_off: u8,
}

/// Switches a PC off or resets it.
#[derive(Debug)]
pub struct Power<P> {
    ports: P,
    sleep: SleepControl,
}

impl<P: PortCall> Power<P> {
    /// Power control over `ports`.
    #[must_use]
    pub const fn new(ports: P, sleep: SleepControl) -> Self {
        Self { ports, sleep }
    }

    /// Asks the chipset to switch off. It may take a while, or ignore it.
    ///
    /// # Errors
    /// Why the port cannot be accessed.
    pub fn request_power_off(&mut self) -> Result<(), P::Error> {
        let now = self.ports.port_read(self.sleep.port, Width::Word)?;
        let off = now & !(SLEEP_TYPE | SLEEP_ENABLE) | u32::from(self.sleep.soft_off & 7) << 10;
        self.ports
            .port_write(self.sleep.port, Width::Word, off | SLEEP_ENABLE)
    }

    /// Asks the chipset to reset everything. It may take a while, or ignore it.
    ///
    /// # Errors
    /// Why the port cannot be accessed.
    pub fn request_reset(&mut self) -> Result<(), P::Error> {
        self.ports
            .port_write(RESET_CONTROL, Width::Byte, HARD_RESET)?;
        // The rising edge of the third bit is the request; the second must be set before.
        self.ports.port_write(RESET_CONTROL, Width::Byte, RESET_NOW)
    }
}

/// How often to read a port before a request counts as ignored: each read takes about a microsecond, so some seconds. Switching off
/// takes real machines a fraction of one, and an emulator as long as its host lets it wait.
#[cfg(target_arch = "x86_64")]
const PATIENCE: u32 = 1 << 22;

#[cfg(target_arch = "x86_64")]
impl<P: PortCall> Power<P> {
    fn wait(&mut self) {
        let port = self.sleep.port;
        (0..PATIENCE)
            .map_while(|_| self.ports.port_read(port, Width::Word).ok())
            .for_each(drop);
    }
}

#[cfg(target_arch = "x86_64")]
impl<P: PortCall> Terminate for Power<P> {
    /// Switches off; a machine that will not is reset.
    fn power_off(&mut self) -> ! {
        if self.request_power_off().is_ok() {
            self.wait();
        }
        self.fatal(Reason::General)
    }

    /// Resets; a machine that will not gets a triple fault, which none can ignore. The reason goes nowhere: a PC has no place
    /// for it.
    fn fatal(&mut self, _: Reason) -> ! {
        if self.request_reset().is_ok() {
            self.wait();
        }
        triple_fault()
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "takes the IDT away")]
fn triple_fault() -> ! {
    use crate::cpu::{descriptor::TablePointer, insn};

    // SAFETY: without an IDT no handler runs, and the next instruction is the last.
    unsafe { insn::lidt(&TablePointer::EMPTY) };
    insn::ud2()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[derive(Debug, Default)]
    struct Chipset {
        pm1a: u32,
        written: Vec<(u16, Width, u32)>,
    }

    impl PortCall for Chipset {
        type Error = core::convert::Infallible;

        fn port_read(&mut self, port: u16, _: Width) -> Result<u32, Self::Error> {
            assert_eq!(port, 0x604);
            Ok(self.pm1a)
        }

        fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), Self::Error> {
            self.written.push((port, width, value));
            Ok(())
        }
    }

    fn power(pm1a: u32, soft_off: u8) -> Power<Chipset> {
        let chipset = Chipset {
            pm1a,
            written: Vec::new(),
        };
        Power::new(
            chipset,
            SleepControl {
                port: 0x604,
                soft_off,
            },
        )
    }

    #[test]
    fn power_off_keeps_the_other_bits() {
        let mut power = power(0x1c01, 5);
        power.request_power_off().unwrap();
        assert_eq!(power.ports.written, [(0x604, Width::Word, 0x3401)]);
    }

    #[test]
    fn sleep_type_cannot_reach_other_bits() {
        let mut power = power(0, 0xff);
        power.request_power_off().unwrap();
        assert_eq!(power.ports.written, [(0x604, Width::Word, 0x3c00)]);
    }

    #[test]
    fn reset_makes_a_rising_edge() {
        let mut power = power(0, 0);
        power.request_reset().unwrap();
        assert_eq!(
            power.ports.written,
            [(0xcf9, Width::Byte, 2), (0xcf9, Width::Byte, 6)]
        );
    }
}

//! The ports that L0 guards: ways to end a run, and what is L0's own.

use crate::ending::{Ending, Unsupported};
use crate::exit::Io;
use crate::permission::IoPermissions;
use crate::personality::Hardware;

/// ACPI PM1a control, where QEMU's firmware puts it on q35.
const PM1A_CONTROL: u16 = 0x604;
/// The chipset's reset register.
const RESET_CONTROL: u16 = 0xcf9;
/// The keyboard controller's command port.
const KEYBOARD: u16 = 0x64;
/// Fast A20 and reset.
const SYSTEM_CONTROL: u16 = 0x92;
/// QEMU's exit device: only L0 ends a run.
const EXIT_DEVICE: core::ops::RangeInclusive<u16> = 0xf4..=0xf7;
/// The second serial port: L0's reports.
const REPORTS: core::ops::RangeInclusive<u16> = 0x2f8..=0x2ff;

/// A serial port for a debugger, if one was asked for.
pub const DEBUGGER: u16 = 0x5f8;

/// Guards the ports of this module.
pub fn guard(io: &mut IoPermissions<'_>) {
    let endings = [
        PM1A_CONTROL,
        PM1A_CONTROL + 1,
        RESET_CONTROL,
        KEYBOARD,
        SYSTEM_CONTROL,
    ]
    .into_iter();
    for port in endings.chain(EXIT_DEVICE).chain(REPORTS) {
        io.guard(port);
    }
}

/// Guards the ports of a debugger.
pub fn guard_debugger(io: &mut IoPermissions<'_>) {
    for port in DEBUGGER..DEBUGGER + 8 {
        io.guard(port);
    }
}

/// Reads from a guarded port; L0's own answer like an empty bus.
pub fn input(io: &Io, hardware: &mut impl Hardware) -> u32 {
    if ports(io).any(is_own) {
        u32::MAX
    } else {
        hardware.port_in(io.port, io.size)
    }
}

/// Writes to a guarded port.
///
/// # Errors
/// The ending, if that was one.
pub fn output(io: &Io, value: u32, hardware: &mut impl Hardware) -> Result<(), Ending> {
    let mut value = value.to_le_bytes();
    for (port, byte) in ports(io).zip(value.iter_mut()) {
        match port {
            // SLP_EN, and the sleep type below it.
            0x605 if *byte & 1 << 5 != 0 => {
                return Err(match *byte >> 2 & 7 {
                    0 => Ending::PowerOff,
                    other => Ending::Unsupported(Unsupported::SleepType(other)),
                });
            }
            // A wider access that reaches the port is one of the register below, the address of PCI configuration.
            RESET_CONTROL if io.port == port && *byte & 1 << 2 != 0 => {
                return Err(Ending::Reset { port });
            }
            // Pulse output lines, among them the reset line.
            KEYBOARD if *byte >= 0xf0 && *byte & 1 == 0 => return Err(Ending::Reset { port }),
            SYSTEM_CONTROL if *byte & 1 != 0 => return Err(Ending::Reset { port }),
            // A20 stays on: the gate is before L0's memory too.
            SYSTEM_CONTROL => *byte |= 2,
            _ => {}
        }
    }
    if !ports(io).any(is_own) {
        hardware.port_out(io.port, io.size, u32::from_le_bytes(value));
    }
    Ok(())
}

/// The ports that an access touches.
fn ports(io: &Io) -> impl Iterator<Item = u16> + use<> {
    let first = io.port;
    (0..u16::from(io.size.min(4))).map(move |offset| first.wrapping_add(offset))
}

fn is_own(port: u16) -> bool {
    EXIT_DEVICE.contains(&port)
        || REPORTS.contains(&port)
        || (DEBUGGER..DEBUGGER + 8).contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personality::fake::Fake;

    fn write(port: u16, size: u8, value: u32) -> Result<Vec<(u16, u8, u32)>, Ending> {
        let mut hardware = Fake::default();
        let access = Io {
            port,
            size,
            input: false,
            string: false,
            next_rip: 0,
        };
        output(&access, value, &mut hardware).map(|()| hardware.out)
    }

    #[test]
    fn the_reset_register_is_not_the_address_of_a_pci_device() {
        let reset = Err(Ending::Reset {
            port: RESET_CONTROL,
        });
        assert_eq!(write(RESET_CONTROL, 1, 6), reset);
        // Device 31, function 3: its number has the bit that resets.
        let address = 0x8000_fb00;
        assert_eq!(write(0xcf8, 4, address), Ok(vec![(0xcf8, 4, address)]));
    }
}

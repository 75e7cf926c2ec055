//! Transfers of the firmware configuration device: what that would write by itself, past what stands between devices and memory,
//! L0 carries into the guest's memory.

use super::Native;
use crate::addr::{Address, Gpa};
use crate::exit::Io;
use crate::fw_cfg::{self, Order};
use crate::memory::Guest;
use crate::permission::IoPermissions;
use crate::personality::Hardware;
use crate::phys::{HostMemory, Memory};

/// Guards the ports with which transfers are asked for.
pub(super) fn guard(io: &mut IoPermissions<'_>) {
    for port in fw_cfg::TRANSFER {
        io.guard(port);
    }
}

impl<M: HostMemory> Native<'_, M> {
    /// Takes a write to one of the ports. Says whether it was one: then all is done.
    pub(super) fn transfer(&mut self, io: &Io, value: u32, hardware: &mut impl Hardware) -> bool {
        if !fw_cfg::TRANSFER.contains(&io.port) {
            return false;
        }
        // The address comes in two halves, in big endian; the lower one is the command.
        let value = value.swap_bytes();
        if (io.port, io.size) == (*fw_cfg::TRANSFER.start(), 4) {
            self.transfer_high = value;
        } else if (io.port, io.size) == (*fw_cfg::TRANSFER.start() + 4, 4) {
            let high = core::mem::take(&mut self.transfer_high);
            if let Some(at) = Gpa::new(u64::from(high) << 32 | u64::from(value)) {
                self.carry_out(at, hardware);
            }
        }
        true
    }

    fn carry_out(&mut self, at: Gpa, hardware: &mut impl Hardware) {
        let mut guest = Guest::new(self.map, &mut self.memory);
        let mut bytes = [0; Order::BYTES];
        if guest.read(at, &mut bytes).is_err() {
            return;
        }
        let order = Order::parse(&bytes);
        if let Some(key) = order.selects() {
            hardware.port_out(fw_cfg::SELECTOR, 2, key.into());
        }
        let mut is_good = !order.writes() && order.bytes <= Order::MOST;
        let to = Gpa::new(order.address);
        let count = if order.reads() || order.skips() {
            u64::from(order.bytes)
        } else {
            0
        };
        for offset in 0..count {
            if !is_good {
                break;
            }
            let byte = (hardware.port_in(fw_cfg::DATA, 1) & 0xff) as u8;
            if order.reads() {
                is_good = to
                    .and_then(|to| to.checked_add(offset))
                    .is_some_and(|to| guest.write(to, &[byte]).is_ok());
            }
        }
        let end = if is_good { Order::DONE } else { Order::FAILED };
        // The order was read from there.
        let _ = guest.write(at, &end);
    }
}

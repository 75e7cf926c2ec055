//! Transfers of the firmware configuration device: what that would write by itself, past what stands between devices and memory,
//! L0 carries into the guest's memory.
//!
//! What the device says is QEMU's own, as its data port is open: firmware reads that by string instructions.

use super::Native;
use crate::addr::{Address, Gpa};
use crate::exit::Io;
use crate::fw_cfg::{self, Order};
use crate::memory::{Guest, GuestMap};
use crate::permission::IoPermissions;
use crate::personality::Hardware;
use crate::phys::{HostMemory, Memory};

/// Guards the ports with which transfers are asked for, and the selector, which one that goes on must keep.
pub(super) fn guard(io: &mut IoPermissions<'_>) {
    for port in fw_cfg::TRANSFER {
        io.guard(port);
    }
    io.guard(fw_cfg::SELECTOR);
}

/// What the device knows of the next transfer. One for all CPUs, as the device is one; who has it may use the selector.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// The upper half of its address.
    high: u32,
}

impl Transfers {
    /// Nothing was asked for yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { high: 0 }
    }
}

impl<M: HostMemory> Native<'_, M> {
    /// Takes a write to one of the ports. Says whether it was one: then all is done.
    pub(super) fn transfer(&mut self, io: &Io, value: u32, hardware: &mut impl Hardware) -> bool {
        if io.port == fw_cfg::SELECTOR {
            let _one_by_one = self.transfers.lock();
            hardware.port_out(io.port, io.size, value);
            return true;
        }
        if !fw_cfg::TRANSFER.contains(&io.port) {
            return false;
        }
        let mut transfers = self.transfers.lock();
        // The address comes in two halves, in big endian; the lower one is the command.
        let value = value.swap_bytes();
        if (io.port, io.size) == (*fw_cfg::TRANSFER.start(), 4) {
            transfers.high = value;
        } else if (io.port, io.size) == (*fw_cfg::TRANSFER.start() + 4, 4) {
            let high = core::mem::take(&mut transfers.high);
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
        let to = Gpa::new(order.address);
        let to = to.filter(|to| is_guests(self.map, *to, order.bytes));
        let mut is_good = !order.writes() && order.bytes <= Order::MOST;
        if is_good && order.reads() {
            let mut chunk = [0; 512];
            let mut done = 0;
            is_good = to.is_some();
            while is_good && done < order.bytes {
                let count = usize::try_from(order.bytes - done).unwrap_or(chunk.len());
                let count = count.min(chunk.len());
                let part = chunk.get_mut(..count).unwrap_or_default();
                for byte in &mut *part {
                    *byte = data(hardware);
                }
                is_good = to
                    .and_then(|to| to.checked_add(done.into()))
                    .is_some_and(|to| guest.write(to, part).is_ok());
                done = done.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            }
        } else if is_good && order.skips() {
            for _ in 0..order.bytes {
                data(hardware);
            }
        }
        let end = if is_good { Order::DONE } else { Order::FAILED };
        // The order was read from there.
        let _ = guest.write(at, &end);
    }
}

/// The next byte of what is selected.
fn data(hardware: &mut impl Hardware) -> u8 {
    (hardware.port_in(fw_cfg::DATA, 1) & 0xff) as u8
}

/// Whether all of a range is the guest's: nothing is read for one that goes astray.
fn is_guests(map: &GuestMap, to: Gpa, bytes: u32) -> bool {
    let bytes = u64::from(bytes);
    let mut done = 0;
    while done < bytes {
        let Some((_, left)) = to.checked_add(done).and_then(|at| map.resolve(at)) else {
            return false;
        };
        done = done.saturating_add(left);
    }
    true
}

//! Ports, device memory and MSRs that a guest asks its host for.

use super::super::Snp;
use super::super::injection::END_OF_INTERRUPT;
use crate::addr::{Gpa, Hpa};
use crate::board::Board;
use crate::devices;
use crate::ending::Ending;
use crate::exit::Io;
use crate::fw_cfg::{FwCfg, Order, Transfer, Written};
use crate::personality::Hardware;
use crate::phys::HostMemory;
use svsm_sim::fault::Fault;
use svsm_sim::ghcb::{IoAccess, Malformed, Reply, Snapshot};

const APIC_BASE: u32 = 0x1b;
const TSC: u32 = 0x10;
const MTRR_CAPABILITIES: u32 = 0xfe;
const MTRR_DEFAULT: u32 = 0x2ff;
/// Registers that every processor of AMD has, and in which nothing is on here: platform id, patch level, machine check
/// (capabilities, status), debug control, SYSCFG, HWCR, northbridge, pending interrupts, workarounds.
const READ_AS_ZERO: [u32; 12] = [
    0x17,
    0x8b,
    0x179,
    0x17a,
    0x1d9,
    0xc001_0010,
    0xc001_0015,
    0xc001_001f,
    0xc001_0055,
    0xc001_0140,
    0xc001_0141,
    0xc001_1029,
];
const MISC_ENABLE: u32 = 0x1a0;
const X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;
/// The APIC's register for interrupt commands.
pub(super) const ICR: u8 = 0x30;

impl<M: HostMemory> Snp<'_, '_, M> {
    /// IN, OUT, INS and OUTS.
    pub(super) fn port(
        &mut self,
        io: &IoAccess,
        gpa: u64,
        page: &Snapshot,
        hardware: &mut (impl Hardware + Clone),
    ) -> Result<Reply, Ending> {
        let access = Io {
            port: io.port,
            size: io.size,
            input: io.input,
            string: false,
            next_rip: 0,
        };
        let Some((count, buffer)) = io.string else {
            if io.input {
                let value = self.untrue(self.port_in(&access, hardware).into());
                let mask = u32::MAX >> (32 - 8 * u32::from(io.size.clamp(1, 4)));
                return Ok(Reply {
                    rax: Some(value & u64::from(mask)),
                    ..Reply::DONE
                });
            }
            self.port_out(&access, io.value, hardware)?;
            return Ok(Reply::DONE);
        };
        // Not more than the buffer holds: that was checked.
        for element in 0..count {
            let size = u64::from(io.size);
            let at = buffer + element * size;
            if io.input {
                let value = self.port_in(&access, hardware);
                let value = self.untrue(value.into()).to_le_bytes();
                let bytes = value.get(..usize::from(io.size)).unwrap_or_default();
                if !self.put(gpa.wrapping_add(at), bytes) {
                    return Ok(Reply::malformed(Malformed::Scratch));
                }
            } else {
                let mut word = [0; 4];
                let bytes = page.buffer(at, size).unwrap_or_default();
                for (to, from) in word.iter_mut().zip(bytes) {
                    *to = *from;
                }
                self.port_out(&access, u32::from_le_bytes(word), hardware)?;
            }
        }
        Ok(Reply::DONE)
    }

    fn port_in(&self, access: &Io, hardware: &mut impl Hardware) -> u32 {
        let mut fw_cfg = self.shared.fw_cfg.lock();
        let own = fw_cfg.input(access.port, access.size, hardware);
        drop(fw_cfg);
        own.unwrap_or_else(|| devices::input(access, hardware))
    }

    fn port_out(
        &mut self,
        access: &Io,
        value: u32,
        hardware: &mut impl Hardware,
    ) -> Result<(), Ending> {
        let shared = self.shared;
        let mut fw_cfg = shared.fw_cfg.lock();
        match fw_cfg.output(access.port, access.size, value, hardware) {
            Written::NotOurs => {
                drop(fw_cfg);
                devices::output(access, value, hardware)
            }
            Written::Done => Ok(()),
            Written::Transfer(Transfer { at }) => {
                self.transfer(at, &mut fw_cfg, hardware);
                Ok(())
            }
        }
    }

    /// Carries what a device would write to memory, into memory that is shared. Of what is not shared nothing becomes known.
    fn transfer(&mut self, at: u64, fw_cfg: &mut FwCfg, hardware: &mut impl Hardware) {
        let mut bytes = [0; Order::BYTES];
        if !self.get(at, &mut bytes) {
            return;
        }
        let order = Order::parse(&bytes);
        let mut is_good = fw_cfg.begin(&order, hardware) && order.bytes <= Order::MOST;
        if is_good && order.reads() {
            let mut chunk = [0; 512];
            let mut done = 0;
            while is_good && done < order.bytes {
                let count = usize::try_from(order.bytes - done).unwrap_or(chunk.len());
                let count = count.min(chunk.len());
                let part = chunk.get_mut(..count).unwrap_or_default();
                fw_cfg.read(part, hardware);
                is_good = self.put(order.address.wrapping_add(done.into()), part);
                done = done.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            }
        } else if is_good && order.skips() {
            fw_cfg.skip(order.bytes, hardware);
        }
        let end = if is_good { Order::DONE } else { Order::FAILED };
        self.put(at, &end);
    }

    /// Writes an MSR. Says whether it was one.
    pub(super) fn write_msr_for_guest(
        &self,
        msr: u32,
        value: u64,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> bool {
        match msr {
            // Already where it must be; leaving x2APIC mode is not offered.
            APIC_BASE => value == hardware.apic_base(),
            TSC | MTRR_DEFAULT | MISC_ENABLE => true,
            _ if READ_AS_ZERO.contains(&msr) => true,
            _ if X2APIC.contains(&msr) => match u8::try_from(msr - X2APIC.start()) {
                Ok(END_OF_INTERRUPT) if self.is_restricted() => {
                    self.end_of_interrupt();
                    value == 0
                }
                Ok(ICR) => {
                    self.send(value, board, hardware);
                    true
                }
                Ok(register) => hardware.apic_write(register, value),
                Err(_) => false,
            },
            _ => false,
        }
    }

    /// What a device said, or something else.
    pub(super) fn untrue(&self, value: u64) -> u64 {
        self.lies(Fault::LyingDevice)
            .map_or(value, |fired| fired.word(0))
    }

    /// Device memory: what lies between RAM and 4 GiB or behind all RAM, and video memory.
    fn device(&self, gpa: u64, size: u8) -> Option<Hpa> {
        const FOUR_GIB: u64 = 1 << 32;
        let end = gpa.checked_add(u64::from(size))?;
        let low = gpa >= 0xa_0000 && end <= 0xc_0000;
        let high = gpa >= self.shared.low_end && end <= FOUR_GIB || gpa >= self.shared.high_end;
        let taken = |at: u64| Gpa::new(at).is_none_or(|at| self.shared.map.resolve(at).is_some());
        let hidden = |at: u64| {
            let at = Gpa::new(at);
            self.shared
                .hidden
                .zip(at)
                .is_some_and(|(window, at)| window.contains(at))
        };
        let free = |at: u64| !taken(at) && !hidden(at);
        ((low || high) && free(gpa) && free(end - 1))
            .then(|| Hpa::new(gpa))
            .flatten()
    }

    /// Reads device memory.
    pub(super) fn read_device(&self, gpa: u64, size: u8, hardware: &mut impl Hardware) -> u64 {
        if let Some(register) = apic_register(gpa) {
            let value = hardware.apic_read(register).unwrap_or_default();
            // The window has the id in the highest byte, and half of the command.
            return match register {
                0x02 => value << 24,
                0x31 => hardware.apic_read(ICR).unwrap_or_default() >> 32 << 24,
                _ => value & 0xffff_ffff,
            };
        }
        self.device(gpa, size)
            .map_or(u64::MAX, |at| hardware.device_read(at, size))
    }

    /// Writes device memory.
    pub(super) fn write_device(
        &self,
        gpa: u64,
        size: u8,
        value: u64,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) {
        match apic_register(gpa) {
            // CPUs are in x2APIC mode; commands need both halves at once, which the window does not give.
            Some(ICR) => self.send(value & 0xffff_ffff, board, hardware),
            Some(register) => {
                hardware.apic_write(register, value & 0xffff_ffff);
            }
            None => {
                if let Some(at) = self.device(gpa, size) {
                    hardware.device_write(at, size, value);
                }
            }
        }
    }
}

/// The APIC's register at an address of its window.
fn apic_register(gpa: u64) -> Option<u8> {
    const WINDOW: u64 = 0xfee0_0000;
    let offset = gpa.checked_sub(WINDOW).filter(|offset| *offset < 0x400)?;
    u8::try_from(offset >> 4).ok()
}

/// Reads an MSR; `None`: there is none.
pub(super) fn read_msr(msr: u32, hardware: &mut impl Hardware) -> Option<u64> {
    Some(match msr {
        APIC_BASE => hardware.apic_base(),
        // No variable ranges; all memory is write-back.
        MTRR_CAPABILITIES => 0,
        _ if READ_AS_ZERO.contains(&msr) => 0,
        MTRR_DEFAULT => 1 << 11 | 6,
        MISC_ENABLE => 1,
        _ if X2APIC.contains(&msr) => {
            let register = u8::try_from(msr - X2APIC.start()).ok()?;
            return hardware.apic_read(register);
        }
        _ => return None,
    })
}

//! All physical memory, mapped at a fixed distance: how L0 reaches the guest's.
#![expect(unsafe_code, reason = "memory by its physical address")]

use crate::addr::{Hpa, HpaRange};
use crate::phys::{Memory, Unreachable};

/// Where physical address zero is mapped: the first address of the upper half with four levels.
/// The boot tables and the final ones both have 512 GiB here.
pub(super) const BASE: u64 = 0xffff_8000_0000_0000;
/// How much is mapped.
pub(super) const BYTES: u64 = 512 << 30;
/// What more the final tables have, at the same distance: where OVMF puts devices with 64-bit windows, which is the last eighth of
/// what it takes for the address space.
pub(super) const FAR_DEVICES: (u64, u64) = (56 << 40, 64 << 40);

/// Access to all memory but L0's own objects.
///
/// # Invariant
/// No Rust reference exists to memory reached through this: L0's image, stacks and per-CPU
/// areas are only handed out as pages of the pool before they become objects, tables and
/// guest memory are only reached through here. Reads are volatile: guests may run meanwhile.
#[derive(Debug)]
pub(super) struct DirectMap(());

impl DirectMap {
    /// Access to physical memory.
    ///
    /// # Safety
    /// The mapping at [`BASE`] is in place, and the invariant of the type is kept: whoever makes
    /// a reference to memory must not reach the same memory through a direct map again.
    pub(super) const unsafe fn new() -> Self {
        Self(())
    }

    /// The virtual address of a physical range, if it is mapped, by whichever tables.
    pub(super) fn pointer(at: Hpa, bytes: u64) -> Option<*mut u8> {
        let end = at.as_u64().checked_add(bytes)?;
        (end <= BYTES).then(|| address(at)).flatten()
    }

    /// The virtual address of a device's registers, if the final tables map it: the boot tables have no far devices.
    pub(super) fn device_pointer(at: Hpa, bytes: u64) -> Option<*mut u8> {
        let end = at.as_u64().checked_add(bytes)?;
        let is_far = at.as_u64() >= FAR_DEVICES.0 && end <= FAR_DEVICES.1;
        (end <= BYTES || is_far).then(|| address(at)).flatten()
    }

    /// The pointer to a page-aligned object in memory that the pool gave out.
    pub(super) fn object<T>(home: HpaRange) -> Option<*mut T> {
        if home.len_bytes() < size_of::<T>() as u64 || align_of::<T>() > 4096 {
            return None;
        }
        Self::pointer(home.start(), home.len_bytes()).map(<*mut u8>::cast)
    }
}

fn address(at: Hpa) -> Option<*mut u8> {
    usize::try_from(BASE + at.as_u64())
        .ok()
        .map(core::ptr::with_exposed_provenance_mut)
}

impl Memory<Hpa> for DirectMap {
    fn read(&self, at: Hpa, into: &mut [u8]) -> Result<(), Unreachable<Hpa>> {
        let mut from = Self::pointer(at, into.len() as u64)
            .ok_or(Unreachable(at))?
            .cast_const();
        let mut words = into.chunks_exact_mut(8);
        for word in &mut words {
            // SAFETY: the range is mapped; a volatile read of plain bytes has no other demands.
            let value = unsafe { from.cast::<[u8; 8]>().read_volatile() };
            word.copy_from_slice(&value);
            // SAFETY: stays within the range, or one behind it.
            from = unsafe { from.add(8) };
        }
        for byte in words.into_remainder() {
            // SAFETY: as above.
            *byte = unsafe { from.read_volatile() };
            // SAFETY: as above.
            from = unsafe { from.add(1) };
        }
        Ok(())
    }

    fn write(&mut self, at: Hpa, bytes: &[u8]) -> Result<(), Unreachable<Hpa>> {
        let to = Self::pointer(at, bytes.len() as u64).ok_or(Unreachable(at))?;
        // SAFETY: the range is mapped writable and, by the type's invariant, not L0's own;
        // `bytes` is a reference, so it does not overlap either.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn zero(&mut self, at: Hpa, bytes: u64) -> Result<(), Unreachable<Hpa>> {
        let to = Self::pointer(at, bytes).ok_or(Unreachable(at))?;
        let count = usize::try_from(bytes).map_err(|_| Unreachable(at))?;
        // SAFETY: the range is mapped writable and, by the type's invariant, not L0's own.
        unsafe { to.write_bytes(0, count) };
        Ok(())
    }
}

#![expect(
    unsafe_code,
    reason = "port and register instructions, and volatile accesses to mapped devices"
)]

use core::{convert::Infallible, ptr::NonNull};

use crate::{
    Error, Result,
    addr::{Gpa, GpaRange},
    cpu::{
        cpuid::{Cpuid, Processor, Registers},
        insn,
        msr::Msr,
    },
    seam::{CpuidCall, MmioCall, MmioWidth, MsrCall, PortCall, Width},
};

/// Device registers that are mapped.
#[derive(Clone, Copy, Debug)]
pub struct MmioWindow {
    registers: GpaRange,
    mapped_at: NonNull<u8>,
}

// SAFETY: the window stands for devices, which all CPUs reach alike, and gives out no references to them.
unsafe impl Send for MmioWindow {}
// SAFETY: as above; devices order concurrent accesses themselves.
unsafe impl Sync for MmioWindow {}

impl MmioWindow {
    /// Says that `registers` are mapped.
    ///
    /// # Safety
    /// - As long as a copy of this is used, the bytes from `mapped_at` on are mapped, readable, writable and uncached, to
    ///   `registers`, all of them in one piece, and `mapped_at` is aligned to 8 as the start of `registers` is.
    /// - They are a device's, and whatever is written to them, the device does not change memory that Rust code relies on.
    #[must_use]
    pub const unsafe fn assume_mapped(registers: GpaRange, mapped_at: NonNull<u8>) -> Self {
        Self {
            registers,
            mapped_at,
        }
    }

    /// Where an access goes, if all of it lies in the window and it is aligned, as device registers want.
    fn place(&self, at: Gpa, width: MmioWidth) -> Option<NonNull<u8>> {
        let access = GpaRange::new(at, width.bytes())?;
        if !self.registers.contains_range(&access) || !at.as_u64().is_multiple_of(width.bytes()) {
            return None;
        }
        let offset = at.checked_offset_from(self.registers.start())?;
        let place = self
            .mapped_at
            .as_ptr()
            .wrapping_add(usize::try_from(offset).ok()?);
        NonNull::new(place)
    }
}

/// Ports, registers, devices and CPUID by the processor's own instructions.
///
/// Nothing is filtered here: what code above may reach is [`Allowed`](crate::seam::Allowed)'s.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    windows: &'a [MmioWindow],
}

impl<'a> Host<'a> {
    /// Says that everything may be reached.
    ///
    /// # Safety
    /// - The code runs in ring 0.
    /// - No port that is written makes a device change memory that Rust code relies on, and no model-specific register gets a
    ///   value that takes such memory away; see [`insn::outb`] and [`insn::wrmsr`]. Whoever passes this on vouches for those
    ///   who get it.
    #[must_use]
    pub const unsafe fn assume_harmless(windows: &'a [MmioWindow]) -> Self {
        Self { windows }
    }

    fn place(&self, at: Gpa, width: MmioWidth) -> Result<NonNull<u8>> {
        self.windows
            .iter()
            .find_map(|window| window.place(at, width))
            .ok_or(Error::NotMapped { at })
    }
}

impl PortCall for Host<'_> {
    type Error = Infallible;

    fn port_read(&mut self, port: u16, width: Width) -> Result<u32, Infallible> {
        Ok(match width {
            // SAFETY: who made this value vouched for all ports.
            Width::Byte => unsafe { insn::inb(port) }.into(),
            // SAFETY: as above.
            Width::Word => unsafe { insn::inw(port) }.into(),
            // SAFETY: as above.
            Width::Dword => unsafe { insn::inl(port) },
        })
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), Infallible> {
        let [low, second, ..] = value.to_le_bytes();
        match width {
            // SAFETY: who made this value vouched for all ports.
            Width::Byte => unsafe { insn::outb(port, low) },
            // SAFETY: as above.
            Width::Word => unsafe { insn::outw(port, u16::from_le_bytes([low, second])) },
            // SAFETY: as above.
            Width::Dword => unsafe { insn::outl(port, value) },
        }
        Ok(())
    }
}

impl MsrCall for Host<'_> {
    type Error = Infallible;

    fn msr_read(&mut self, msr: Msr) -> Result<u64, Infallible> {
        Ok(insn::rdmsr(msr))
    }

    fn msr_write(&mut self, msr: Msr, value: u64) -> Result<(), Infallible> {
        // SAFETY: who made this value vouched for all registers.
        unsafe { insn::wrmsr(msr, value) };
        Ok(())
    }
}

impl MmioCall for Host<'_> {
    type Error = Error;

    fn mmio_read(&mut self, at: Gpa, width: MmioWidth) -> Result<u64> {
        let place = self.place(at, width)?;
        Ok(match width {
            // SAFETY: `place` lies in a window that is mapped, as who made the window vouched.
            MmioWidth::Byte => unsafe { place.read_volatile() }.into(),
            // SAFETY: as above; `place` is aligned because window and access are.
            MmioWidth::Word => unsafe { place.cast::<u16>().read_volatile() }.into(),
            // SAFETY: as above.
            MmioWidth::Dword => unsafe { place.cast::<u32>().read_volatile() }.into(),
            // SAFETY: as above.
            MmioWidth::Qword => unsafe { place.cast::<u64>().read_volatile() },
        })
    }

    fn mmio_write(&mut self, at: Gpa, width: MmioWidth, value: u64) -> Result<()> {
        let place = self.place(at, width)?;
        let [b0, b1, b2, b3, ..] = value.to_le_bytes();
        match width {
            // SAFETY: `place` lies in a window that is mapped, as who made the window vouched.
            MmioWidth::Byte => unsafe { place.write_volatile(b0) },
            // SAFETY: as above; `place` is aligned because window and access are.
            MmioWidth::Word => unsafe {
                place
                    .cast::<u16>()
                    .write_volatile(u16::from_le_bytes([b0, b1]))
            },
            // SAFETY: as above.
            MmioWidth::Dword => unsafe {
                place
                    .cast::<u32>()
                    .write_volatile(u32::from_le_bytes([b0, b1, b2, b3]))
            },
            // SAFETY: as above.
            MmioWidth::Qword => unsafe { place.cast::<u64>().write_volatile(value) },
        }
        Ok(())
    }
}

impl CpuidCall for Host<'_> {
    type Error = Infallible;

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<Registers, Infallible> {
        Ok(Processor.raw(leaf, subleaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_stay_in_their_window() {
        let mut registers = [0x1111_2222_3333_4444_u64, 0];
        let gpa = |value| Gpa::new(value).unwrap();
        let range = GpaRange::new(gpa(0xfee0_0000), 16).unwrap();
        let mapped_at = NonNull::from(&mut registers).cast();
        // SAFETY: sixteen bytes of this function's own, aligned to 8, which nobody else uses meanwhile.
        let windows = [unsafe { MmioWindow::assume_mapped(range, mapped_at) }];
        // SAFETY: only memory is accessed below.
        let mut host = unsafe { Host::assume_harmless(&windows) };

        assert_eq!(
            host.mmio_read(gpa(0xfee0_0000), MmioWidth::Qword),
            Ok(0x1111_2222_3333_4444)
        );
        assert_eq!(
            host.mmio_read(gpa(0xfee0_0002), MmioWidth::Word),
            Ok(0x3333)
        );
        assert_eq!(host.mmio_read(gpa(0xfee0_0007), MmioWidth::Byte), Ok(0x11));
        host.mmio_write(gpa(0xfee0_000c), MmioWidth::Dword, 0xaaaa_bbbb_cccc_dddd)
            .unwrap();
        assert_eq!(
            host.mmio_read(gpa(0xfee0_0008), MmioWidth::Qword),
            Ok(0xcccc_dddd_0000_0000)
        );

        for (at, width) in [
            (0xfee0_0010, MmioWidth::Byte),
            (0xfedf_ffff, MmioWidth::Byte),
            (0xfee0_0001, MmioWidth::Word),
        ] {
            assert_eq!(
                host.mmio_read(gpa(at), width),
                Err(Error::NotMapped { at: gpa(at) })
            );
            assert_eq!(
                host.mmio_write(gpa(at), width, 0),
                Err(Error::NotMapped { at: gpa(at) })
            );
        }
    }
}

//! What a host answers for ports, registers and devices, by exits with the page (56421, "IOIO_PROT", "MSR_PROT", "MMIO access",
//! "CPUID").

use super::{BUFFER, BUFFER_BYTES, Field, Ghcb, code};
use crate::{
    addr::Gpa,
    cpu::{cpuid::Registers, msr::Msr},
    seam::{CpuidCall, MmioCall, MmioWidth, MsrCall, PortCall, Width},
    snp::{Error, insn::Insn},
};

/// Repeated string instructions on bytes, with 64-bit addresses.
const STRING: u64 = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9;
/// Input, to ES.
const INPUT: u64 = 1;
/// Output, from DS.
const OUTPUT: u64 = 3 << 10;

impl<I: Insn> PortCall for Ghcb<'_, I> {
    type Error = Error;

    fn port_read(&mut self, port: u16, width: Width) -> Result<u32, Error> {
        let info1 = u64::from(port) << 16 | io_size(width) | 1;
        let value = self.ask(code::IOIO, info1, 0, &[])?.get(Field::Rax)?;
        Ok(low_bits(value, width))
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), Error> {
        let info1 = u64::from(port) << 16 | io_size(width);
        let value = u64::from(low_bits(value.into(), width));
        self.ask(code::IOIO, info1, 0, &[(Field::Rax, value)])
            .map(drop)
    }

    /// As REP INSB does: as many in one exit as the buffer holds.
    fn port_read_bytes(&mut self, port: u16, bytes: &mut [u8]) -> Result<(), Error> {
        for part in bytes.chunks_mut(BUFFER_BYTES) {
            let (info1, count) = (u64::from(port) << 16 | STRING | INPUT, part.len() as u64);
            let done = self.ask(code::IOIO, info1, count, &[self.scratch()]);
            let done = done.map(|_| self.empty_buffer(part));
            self.clear_buffer(part.len());
            done?;
        }
        Ok(())
    }

    /// As REP OUTSB does: as many in one exit as the buffer holds.
    fn port_write_bytes(&mut self, port: u16, bytes: &[u8]) -> Result<(), Error> {
        for part in bytes.chunks(BUFFER_BYTES) {
            self.fill_buffer(part);
            let (info1, count) = (u64::from(port) << 16 | STRING | OUTPUT, part.len() as u64);
            let done = self.ask(code::IOIO, info1, count, &[self.scratch()]);
            self.clear_buffer(part.len());
            done?;
        }
        Ok(())
    }
}

/// The size of operand and address in the exit information of a port access.
const fn io_size(width: Width) -> u64 {
    let operand = match width {
        Width::Byte => 1 << 4,
        Width::Word => 1 << 5,
        Width::Dword => 1 << 6,
    };
    operand | 1 << 9
}

#[expect(clippy::cast_possible_truncation, reason = "the bits of the width")]
const fn low_bits(value: u64, width: Width) -> u32 {
    match width {
        Width::Byte => value as u8 as u32,
        Width::Word => value as u16 as u32,
        Width::Dword => value as u32,
    }
}

impl<I: Insn> MsrCall for Ghcb<'_, I> {
    type Error = Error;

    fn msr_read(&mut self, msr: Msr) -> Result<u64, Error> {
        let fields = [(Field::Rcx, msr.as_u32().into())];
        let answer = self.ask(code::MSR, 0, 0, &fields)?;
        let (low, high) = (answer.get(Field::Rax)?, answer.get(Field::Rdx)?);
        Ok(high << 32 | low & 0xffff_ffff)
    }

    fn msr_write(&mut self, msr: Msr, value: u64) -> Result<(), Error> {
        let fields = [
            (Field::Rcx, msr.as_u32().into()),
            (Field::Rax, value & 0xffff_ffff),
            (Field::Rdx, value >> 32),
        ];
        self.ask(code::MSR, 1, 0, &fields).map(drop)
    }
}

impl<I: Insn> MmioCall for Ghcb<'_, I> {
    type Error = Error;

    fn mmio_read(&mut self, at: Gpa, width: MmioWidth) -> Result<u64, Error> {
        let bytes = width.bytes();
        let _ = self.ask(code::MMIO_READ, at.as_u64(), bytes, &[self.scratch()])?;
        let value = self.page.load(BUFFER);
        self.clear_buffer(8);
        Ok(value & u64::MAX >> (64 - bytes * 8))
    }

    fn mmio_write(&mut self, at: Gpa, width: MmioWidth, value: u64) -> Result<(), Error> {
        let bytes = width.bytes();
        self.page
            .store(BUFFER, value & u64::MAX >> (64 - bytes * 8));
        let done = self.ask(code::MMIO_WRITE, at.as_u64(), bytes, &[self.scratch()]);
        self.clear_buffer(8);
        done.map(drop)
    }
}

impl<I: Insn> CpuidCall for Ghcb<'_, I> {
    type Error = Error;

    /// Asks the host; XCR0 is shown as 1 where the leaf depends on it.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<Registers, Error> {
        let fields = [
            (Field::Rax, leaf.into()),
            (Field::Rcx, subleaf.into()),
            (Field::Xcr0, 1),
            (Field::Xss, 0),
        ];
        let fields = match (leaf, subleaf) {
            (0xd, 1) => fields.as_slice(),
            (0xd, _) => fields.get(..3).unwrap_or_default(),
            _ => fields.get(..2).unwrap_or_default(),
        };
        let answer = self.ask(code::CPUID, 0, 0, fields)?;
        let register = |field| answer.get(field).map(|value| low_bits(value, Width::Dword));
        Ok(Registers {
            eax: register(Field::Rax)?,
            ebx: register(Field::Rbx)?,
            ecx: register(Field::Rcx)?,
            edx: register(Field::Rdx)?,
        })
    }
}

//! The registers as a debugger numbers them: those of GDB's x86-64 with the bases and control registers that system
//! software is debugged by, in the order and with the names that QEMU's own stub gives them.

use super::Frozen;
use crate::snp::vmsa::{abridged, full_tags};
use crate::vcpu::SVME;
use crate::vmcb::Segment;

/// Bytes of all registers together.
pub const BYTES: usize = 16 * 8 + 8 + 4 + 6 * 4 + 9 * 8 + 8 * 10 + 8 * 4 + 16 * 16 + 4;
const RIP: usize = 16 * 8;

/// The numbers, in encoding order, of the general registers in the debugger's order: RAX, RBX, RCX, RDX, RSI, RDI, RBP,
/// RSP and R8 to R15.
const ORDER: [u8; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];

/// The architecture, for the protocol.
#[derive(Clone, Copy, Debug)]
pub enum X64 {}

/// All registers of a CPU, as they go over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers(pub [u8; BYTES]);

impl Default for Registers {
    fn default() -> Self {
        Self([0; BYTES])
    }
}

impl gdbstub::arch::Arch for X64 {
    type Usize = u64;
    type Registers = Registers;
    type BreakpointKind = usize;
    type RegId = ();

    fn target_description_xml() -> Option<&'static str> {
        Some(DESCRIPTION)
    }
}

impl gdbstub::arch::Registers for Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let mut bytes = self.0.iter().skip(RIP);
        u64::from_le_bytes([0; 8].map(|_: u8| bytes.next().copied().unwrap_or_default()))
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.try_into().map_err(|_| ())?;
        Ok(())
    }
}

/// What goes over the wire, from its first byte on.
struct Writer<'a>(core::slice::IterMut<'a, u8>);

impl Writer<'_> {
    fn word(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.one(byte);
        }
    }

    fn half(&mut self, value: u32) {
        for byte in value.to_le_bytes() {
            self.one(byte);
        }
    }

    fn one(&mut self, byte: u8) {
        if let Some(to) = self.0.next() {
            *to = byte;
        }
    }
}

impl Registers {
    /// Those of a CPU that waits.
    #[must_use]
    pub fn of(frozen: &Frozen) -> Self {
        let mut registers = Self::default();
        let mut out = Writer(registers.0.iter_mut());
        let save = &frozen.save;
        let g = &frozen.gprs;
        let [r8, r9, r10, r11, r12, r13, r14, r15] = g.r8_to_r15;
        let general = [
            save.rax, g.rcx, g.rdx, g.rbx, save.rsp, g.rbp, g.rsi, g.rdi, r8, r9, r10, r11, r12,
            r13, r14, r15,
        ];
        for number in ORDER {
            out.word(
                general
                    .get(usize::from(number))
                    .copied()
                    .unwrap_or_default(),
            );
        }
        out.word(save.rip);
        out.half((save.rflags & 0xffff_ffff) as u32);
        let selector = |segment: &Segment| u32::from(segment.selector);
        for segment in [&save.cs, &save.ss, &save.ds, &save.es, &save.fs, &save.gs] {
            out.half(selector(segment));
        }
        let efer = save.efer & !SVME;
        for value in [
            save.fs.base,
            save.gs.base,
            save.kernel_gs_base,
            save.cr0,
            save.cr2,
            save.cr3,
            save.cr4,
            0,
            efer,
        ] {
            out.word(value);
        }
        let image = &frozen.floats.0;
        let short = |at: usize| match image.get(at..at + 2) {
            Some(&[low, high]) => u32::from(u16::from_le_bytes([low, high])),
            _ => 0,
        };
        let long = |at: usize| short(at) | short(at + 2) << 16;
        for number in 0..8 {
            let from = image.iter().skip(32 + 16 * number).take(10);
            from.for_each(|byte| out.one(*byte));
        }
        let tags = full_tags((short(4) & 0xff) as u8, image);
        for value in [
            short(0),
            short(2),
            u32::from(tags),
            short(12),
            long(8),
            short(20),
            long(16),
            short(6),
        ] {
            out.half(value);
        }
        let vectors = image.iter().skip(160).take(256);
        vectors.for_each(|byte| out.one(*byte));
        out.half(long(24));
        registers
    }

    /// Gives them to a CPU that waits. Selectors and control registers stay as they are: nothing here could make their
    /// hidden parts fit.
    pub fn give(&self, frozen: &mut Frozen) {
        let mut from = self.0.iter().copied();
        let mut word = |bytes: u32| {
            let bytes =
                (0..bytes).map(|byte| u64::from(from.next().unwrap_or_default()) << (8 * byte));
            bytes.fold(0, |all, byte| all | byte)
        };
        let save = &mut frozen.save;
        let g = &mut frozen.gprs;
        let [r8, r9, r10, r11, r12, r13, r14, r15] = &mut g.r8_to_r15;
        for register in [
            &mut save.rax,
            &mut g.rbx,
            &mut g.rcx,
            &mut g.rdx,
            &mut g.rsi,
            &mut g.rdi,
            &mut g.rbp,
            &mut save.rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            &mut save.rip,
        ] {
            *register = word(8);
        }
        // Bit 1 is always set.
        save.rflags = word(4) | 2;
        for _ in 0..6 {
            word(4);
        }
        for register in [
            &mut save.fs.base,
            &mut save.gs.base,
            &mut save.kernel_gs_base,
        ] {
            *register = word(8);
        }
        for _ in 0..6 {
            word(8);
        }
        let image = &mut frozen.floats.0;
        let mut put = |at: usize, value: u64, bytes: usize| {
            let to = image.iter_mut().skip(at).take(bytes);
            for (to, byte) in to.zip(value.to_le_bytes()) {
                *to = byte;
            }
        };
        for number in 0..8 {
            put(32 + 16 * number, word(8), 8);
            put(40 + 16 * number, word(2), 2);
        }
        put(0, word(4), 2);
        put(2, word(4), 2);
        put(4, u64::from(abridged(word(4))), 1);
        put(12, word(4), 2);
        put(8, word(4), 4);
        put(20, word(4), 2);
        put(16, word(4), 4);
        put(6, word(4), 2);
        for half in 0..32 {
            put(160 + 8 * half, word(8), 8);
        }
        // Reserved bits would make FXRSTOR fault.
        put(24, word(4) & 0xffff, 4);
    }
}

macro_rules! list {
    ($bits:literal, $kind:literal: $($name:literal)*) => {
        concat!($("<reg name=\"", $name, "\" bitsize=\"", $bits, "\" type=\"", $kind, "\"/>"),*)
    };
}

macro_rules! floats {
    ($($name:literal)*) => {
        concat!($("<reg name=\"", $name, "\" bitsize=\"32\" type=\"int\" group=\"float\"/>"),*)
    };
}

/// What GDB is told of the registers.
const DESCRIPTION: &str = concat!(
    r#"<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">"#,
    r#"<architecture>i386:x86-64</architecture><feature name="org.gnu.gdb.i386.core">"#,
    r#"<flags id="x64_eflags" size="4"><field name="" start="22" end="31"/><field name="ID" start="21" end="21"/>"#,
    r#"<field name="VIP" start="20" end="20"/><field name="VIF" start="19" end="19"/><field name="AC" start="18" end="18"/>"#,
    r#"<field name="VM" start="17" end="17"/><field name="RF" start="16" end="16"/><field name="NT" start="14" end="14"/>"#,
    r#"<field name="OF" start="11" end="11"/><field name="DF" start="10" end="10"/><field name="IF" start="9" end="9"/>"#,
    r#"<field name="TF" start="8" end="8"/><field name="SF" start="7" end="7"/><field name="ZF" start="6" end="6"/>"#,
    r#"<field name="AF" start="4" end="4"/><field name="PF" start="2" end="2"/><field name="" start="1" end="1"/>"#,
    r#"<field name="CF" start="0" end="0"/></flags>"#,
    list!("64", "int64": "rax" "rbx" "rcx" "rdx" "rsi" "rdi"),
    list!("64", "data_ptr": "rbp" "rsp"),
    list!("64", "int64": "r8" "r9" "r10" "r11" "r12" "r13" "r14" "r15"),
    list!("64", "code_ptr": "rip"),
    list!("32", "x64_eflags": "eflags"),
    list!("32", "int32": "cs" "ss" "ds" "es" "fs" "gs"),
    list!("64", "int64": "fs_base" "gs_base" "k_gs_base" "cr0" "cr2" "cr3" "cr4" "cr8" "efer"),
    list!("80", "i387_ext": "st0" "st1" "st2" "st3" "st4" "st5" "st6" "st7"),
    floats!("fctrl" "fstat" "ftag" "fiseg" "fioff" "foseg" "fooff" "fop"),
    r#"</feature><feature name="org.gnu.gdb.i386.sse">"#,
    r#"<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>"#,
    r#"<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>"#,
    r#"<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>"#,
    r#"<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>"#,
    r#"<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>"#,
    r#"<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>"#,
    list!("128", "vec128": "xmm0" "xmm1" "xmm2" "xmm3" "xmm4" "xmm5" "xmm6" "xmm7"),
    list!("128", "vec128": "xmm8" "xmm9" "xmm10" "xmm11" "xmm12" "xmm13" "xmm14" "xmm15"),
    r#"<reg name="mxcsr" bitsize="32" type="int" group="vector"/></feature></target>"#,
);

#[cfg(test)]
mod tests {
    use super::*;
    use gdbstub::arch::Registers as _;

    #[test]
    fn what_is_given_is_what_was_shown() {
        let mut registers = Registers::default();
        for (at, byte) in registers.0.iter_mut().enumerate() {
            *byte = u8::try_from(at % 251).unwrap();
        }
        let mut frozen = Frozen::empty();
        registers.give(&mut frozen);
        assert_eq!(frozen.gprs.rbx, registers.word(8));
        assert_eq!(frozen.gprs.r8_to_r15[7], registers.word(120));
        assert_eq!(
            (frozen.save.rip, registers.pc()),
            (registers.word(128), registers.word(128))
        );
        let shown = Registers::of(&frozen);
        assert_eq!(shown.0[..136], registers.0[..136]);
        // The bases, the floating-point registers and the vectors; not tags, selectors and control registers.
        assert_eq!(shown.0[164..188], registers.0[164..188]);
        assert_eq!(shown.0[236..316], registers.0[236..316]);
        assert_eq!(shown.0[348..604], registers.0[348..604]);
    }

    #[test]
    fn the_description_counts_the_same_bytes() {
        let sizes = DESCRIPTION.split("bitsize=\"").skip(1);
        let bits: usize = sizes
            .map(|rest| rest.split_once('"').unwrap().0.parse::<usize>().unwrap())
            .sum();
        assert_eq!(bits, BYTES * 8);
    }

    impl Registers {
        fn word(&self, at: usize) -> u64 {
            u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
        }
    }
}

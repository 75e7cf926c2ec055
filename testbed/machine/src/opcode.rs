//! The instructions that L0 carries out or takes apart itself.
//!
//! QEMU's CPU does not know the instructions of SEV-SNP: they arrive as undefined opcodes, except `VMGEXIT`, which
//! is `VMMCALL` with a prefix. Nor does it say how long an intercepted instruction is.

/// The longest instruction there is.
pub const MAX_LENGTH: usize = 15;

/// An instruction of SEV-SNP (24594, and the table of encodings in 24593).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// F2 0F 01 FF
    Pvalidate,
    /// F3 0F 01 FE
    Rmpadjust,
    /// F3 0F 01 FD
    Rmpquery,
    /// F3 0F 01 D9 or F2 0F 01 D9
    Vmgexit,
    /// 0F 01 D9
    Vmmcall,
    /// 0F 01 FE
    Invlpgb,
    /// 0F 01 FF
    Tlbsync,
    /// F2 0F 01 FE, F3 0F 01 FF or F2 0F 01 FD: `RMPUPDATE`, `PSMASH` and `RMPREAD`, which only a host has.
    OfHost,
}

/// A write of CR0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cr0Write {
    /// MOV from the general register with this number.
    Mov(u8),
    /// LMSW from the general register with this number.
    Lmsw(u8),
    /// CLTS.
    Clts,
}

/// What stands before an opcode.
#[derive(Clone, Copy, Debug, Default)]
struct Prefixes {
    bytes: usize,
    /// The last of F2 and F3, or zero.
    repeat: u8,
    rex: u8,
}

impl Prefixes {
    fn read(code: &[u8], long: bool) -> Self {
        let mut prefixes = Self::default();
        for &byte in code.iter().take(MAX_LENGTH) {
            match byte {
                0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 => prefixes.rex = 0,
                0xf2 | 0xf3 => (prefixes.repeat, prefixes.rex) = (byte, 0),
                0x40..=0x4f if long => prefixes.rex = byte,
                _ => break,
            }
            prefixes.bytes += 1;
        }
        prefixes
    }
}

impl Instruction {
    /// Its name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pvalidate => "pvalidate",
            Self::Rmpadjust => "rmpadjust",
            Self::Rmpquery => "rmpquery",
            Self::Vmgexit => "vmgexit",
            Self::Vmmcall => "vmmcall",
            Self::Invlpgb => "invlpgb",
            Self::Tlbsync => "tlbsync",
            Self::OfHost => "of-host",
        }
    }

    /// The instruction at the start of `code`, and its length in bytes. `long`: in 64-bit mode.
    #[must_use]
    pub fn decode(code: &[u8], long: bool) -> Option<(Self, u64)> {
        let prefixes = Prefixes::read(code, long);
        let &[0x0f, 0x01, modrm, ..] = code.get(prefixes.bytes..)? else {
            return None;
        };
        let instruction = match (prefixes.repeat, modrm) {
            (0, 0xd9) => Self::Vmmcall,
            (_, 0xd9) => Self::Vmgexit,
            (0xf2, 0xff) => Self::Pvalidate,
            (0xf3, 0xfe) => Self::Rmpadjust,
            (0xf3, 0xfd) => Self::Rmpquery,
            (0xf3, 0xff) | (0xf2, 0xfe | 0xfd) => Self::OfHost,
            (0, 0xfe) => Self::Invlpgb,
            (0, 0xff) => Self::Tlbsync,
            _ => return None,
        };
        Some((instruction, prefixes.bytes as u64 + 3))
    }
}

impl Cr0Write {
    /// The write at the start of `code`, and its length in bytes. LMSW from memory is none that anybody uses.
    #[must_use]
    pub fn decode(code: &[u8], long: bool) -> Option<(Self, u64)> {
        let prefixes = Prefixes::read(code, long);
        let high = (prefixes.rex & 1) << 3;
        let bytes = prefixes.bytes as u64;
        match *code.get(prefixes.bytes..)? {
            // The mode bits of ModRM are ignored, as if they said "register".
            [0x0f, 0x22, modrm, ..] if modrm >> 3 & 7 == 0 => {
                Some((Self::Mov(modrm & 7 | high), bytes + 3))
            }
            [0x0f, 0x01, modrm, ..] if modrm >> 3 == 0b11_110 => {
                Some((Self::Lmsw(modrm & 7 | high), bytes + 3))
            }
            [0x0f, 0x06, ..] => Some((Self::Clts, bytes + 2)),
            _ => None,
        }
    }
}

/// The length of the instruction at the start of `code` whose opcode is `opcode` and nothing else.
#[must_use]
pub fn length(code: &[u8], opcode: &[u8], long: bool) -> Option<u64> {
    let bytes = Prefixes::read(code, long).bytes;
    code.get(bytes..)?
        .starts_with(opcode)
        .then(|| (bytes + opcode.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_told_apart_by_its_prefixes() {
        let decode = |code: &[u8]| Instruction::decode(code, true);
        for (code, instruction) in [
            (&[0xf2, 0x0f, 1, 0xff][..], Instruction::Pvalidate),
            (&[0xf3, 0x0f, 1, 0xfe], Instruction::Rmpadjust),
            (&[0xf3, 0x0f, 1, 0xfd], Instruction::Rmpquery),
            (&[0xf3, 0x0f, 1, 0xd9], Instruction::Vmgexit),
            (&[0xf2, 0x0f, 1, 0xd9], Instruction::Vmgexit),
            (&[0xf3, 0x0f, 1, 0xff], Instruction::OfHost),
            (&[0x0f, 1, 0xfe], Instruction::Invlpgb),
            (&[0x0f, 1, 0xff], Instruction::Tlbsync),
            (&[0x0f, 1, 0xd9], Instruction::Vmmcall),
            (&[0xf3, 0x48, 0x0f, 1, 0xfe, 0x90], Instruction::Rmpadjust),
        ] {
            let bytes = code.iter().take_while(|byte| **byte != 0x90).count();
            assert_eq!(decode(code), Some((instruction, bytes as u64)), "{code:x?}");
        }
        assert_eq!(decode(&[0x0f, 0x0b]), None);
        assert_eq!(decode(&[0xf2, 0x0f, 1]), None);
        assert_eq!(decode(&[0xf3; 16]), None);
        assert_eq!(Instruction::decode(&[0x48, 0x0f, 1, 0xff], false), None);
    }

    #[test]
    fn writes_of_cr0_name_their_source() {
        let decode = |code: &[u8]| Cr0Write::decode(code, true);
        assert_eq!(decode(&[0x0f, 0x22, 0xc0]), Some((Cr0Write::Mov(0), 3)));
        assert_eq!(
            decode(&[0x41, 0x0f, 0x22, 0xc3]),
            Some((Cr0Write::Mov(11), 4))
        );
        assert_eq!(decode(&[0x0f, 1, 0xf0]), Some((Cr0Write::Lmsw(0), 3)));
        assert_eq!(decode(&[0x0f, 6]), Some((Cr0Write::Clts, 2)));
        assert_eq!(decode(&[0x0f, 0x22, 0xd8]), None);
    }

    #[test]
    fn prefixes_count_into_the_length() {
        assert_eq!(length(&[0x66, 0x0f, 0xa2], &[0x0f, 0xa2], true), Some(3));
        assert_eq!(length(&[0xf4], &[0xf4], false), Some(1));
        assert_eq!(length(&[0x90], &[0xf4], true), None);
    }
}

use core::fmt;

use super::Field;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Why a CPU stopped (AMD64 Architecture Programmer's Manual Volume 2, appendix C).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ExitCode(pub u64);

impl ExitCode {
    /// An interrupt for the host.
    pub const INTR: Self = Self(0x60);
    /// HLT.
    pub const HLT: Self = Self(0x78);
    /// A triple fault, or the like.
    pub const SHUTDOWN: Self = Self(0x7f);
    /// A fault of the nested page tables.
    pub const NPF: Self = Self(0x400);
    /// VMGEXIT: the guest called its host or its SVSM.
    pub const VMGEXIT: Self = Self(0x403);
    /// VMRUN found something that cannot be.
    pub const INVALID: Self = Self(u64::MAX);
    /// Another processor runs the save area.
    pub const BUSY: Self = Self(u64::MAX - 1);

    /// The plain number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExitCode({:#x})", self.0)
    }
}

/// What the processor noted when a CPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct GuestExit {
    /// Why.
    pub code: ExitCode,
    /// More about it.
    pub info1: u64,
    /// More about it.
    pub info2: u64,
    /// The event that was being delivered.
    pub int_info: Event,
    /// The instruction after the one that stopped it.
    pub next_rip: u64,
}

/// The registers by which a guest calls its SVSM (58019, "Calling Convention").
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "registers")]
pub struct CallRegisters {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub r8: u64,
    pub r9: u64,
}

impl fmt::Debug for CallRegisters {
    /// The call, but not what it is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallRegisters")
            .field("rax", &format_args!("{:#x}", self.rax))
            .finish_non_exhaustive()
    }
}

bitflags::bitflags! {
    /// VINTR_CTRL: interrupts under alternate injection, and whether the CPU runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct VintrCtrl: u64 {
        /// The virtual task priority, of which the low four bits count.
        const V_TPR = 0xff;
        /// An interrupt waits.
        const V_IRQ = 1 << 8;
        /// The virtual global interrupt flag.
        const V_GIF = 1 << 9;
        /// The CPU is in an interrupt shadow.
        const INT_SHADOW = 1 << 10;
        /// An NMI waits.
        const V_NMI = 1 << 11;
        /// NMIs are blocked.
        const V_NMI_MASK = 1 << 12;
        /// The priority of the interrupt that waits.
        const V_INTR_PRIO = 0xf << 16;
        /// The task priority does not count.
        const V_IGN_TPR = 1 << 20;
        /// Virtual NMIs are in use.
        const V_NMI_ENABLE = 1 << 26;
        /// The vector of the interrupt that waits.
        const V_INTR_VECTOR = 0xff << 32;
        /// The CPU runs.
        const BUSY = 1 << 63;

        const _ = !0;
    }
}

impl VintrCtrl {
    /// The vector of the interrupt that waits, if one does.
    #[must_use]
    pub const fn vector(self) -> Option<u8> {
        let [_, _, _, _, vector, ..] = self.bits().to_le_bytes();
        if self.contains(Self::V_IRQ) {
            Some(vector)
        } else {
            None
        }
    }

    /// The same with that interrupt waiting at the priority of its vector, in the place of any other.
    #[must_use]
    pub const fn with_vector(self, vector: u8) -> Self {
        let field = Self::V_INTR_PRIO.union(Self::V_INTR_VECTOR);
        let waiting = (vector as u64) << 32 | ((vector >> 4) as u64) << 16;
        self.difference(field)
            .union(Self::V_IRQ)
            .union(Self::from_bits_retain(waiting))
    }

    /// The same without an interrupt that waits.
    #[must_use]
    pub const fn without_vector(self) -> Self {
        self.difference(
            Self::V_IRQ
                .union(Self::V_INTR_PRIO)
                .union(Self::V_INTR_VECTOR),
        )
    }

    /// The virtual task priority: the upper four bits of TPR.
    #[must_use]
    pub const fn task_priority(self) -> u8 {
        let [priority, ..] = self.bits().to_le_bytes();
        priority & 0xf
    }
}

/// An event to deliver, or one whose delivery was interrupted: EVENTINJ and EXITINTINFO (AMD64 Architecture Programmer's Manual
/// Volume 2, "Event Injection").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Event(u64);

impl Event {
    /// No event.
    pub const NONE: Self = Self(0);
    const VALID: u64 = 1 << 31;
    const WITH_CODE: u64 = 1 << 11;
    const NMI: u8 = 2;
    const EXCEPTION: u8 = 3;

    /// The event in a field.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The field.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// An interrupt from outside.
    #[must_use]
    pub const fn interrupt(vector: u8) -> Self {
        Self(Self::VALID | vector as u64)
    }

    /// An NMI.
    #[must_use]
    pub const fn nmi() -> Self {
        Self(Self::VALID | (Self::NMI as u64) << 8 | 2)
    }

    /// An exception with its error code, if it has one. `None` if there is no such exception; 2 is the NMI's vector.
    #[must_use]
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Option<Self> {
        if vector > 31 || vector == 2 {
            return None;
        }
        let bits = Self::VALID | (Self::EXCEPTION as u64) << 8 | vector as u64;
        Some(match error_code {
            None => Self(bits),
            Some(code) => Self(bits | Self::WITH_CODE | (code as u64) << 32),
        })
    }

    /// Whether there is an event.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        let [vector, ..] = self.0.to_le_bytes();
        vector
    }

    /// Its type: 0 for an interrupt, 2 for an NMI, 3 for an exception, 4 for a software interrupt.
    #[must_use]
    pub const fn kind(self) -> u8 {
        let [_, kind, ..] = self.0.to_le_bytes();
        kind & 7
    }

    /// Its error code, if it has one.
    #[must_use]
    pub const fn error_code(self) -> Option<u32> {
        let [_, _, _, _, a, b, c, d] = self.0.to_le_bytes();
        if self.0 & Self::WITH_CODE == 0 {
            None
        } else {
            Some(u32::from_le_bytes([a, b, c, d]))
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_valid() {
            return f.write_str("Event(none)");
        }
        write!(f, "Event(vector {}, type {})", self.vector(), self.kind())
    }
}

/// Which quadwords of a save area are blinded under register protection, one bit each, the first one first (56860,
/// "Secrets Page Format", `VMSA_TWEAK_BITMAP`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct TweakBitmap(pub [u8; 64]);

impl TweakBitmap {
    /// What the field is XORed with: `nonce` if it is blinded, else zero.
    ///
    /// For single registers of a save area in use, where [`Vmsa::tweak`](super::Vmsa::tweak) would touch them all.
    #[must_use]
    pub fn mask(&self, field: Field, nonce: u64) -> u64 {
        self.mask_of(field.word().into(), nonce)
    }

    pub(super) fn mask_of(&self, quadword: usize, nonce: u64) -> u64 {
        let byte = self.0.get(quadword / 8).copied().unwrap_or(0);
        if byte >> (quadword % 8) & 1 == 1 {
            nonce
        } else {
            0
        }
    }
}

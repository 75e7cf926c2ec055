//! The instructions of SEV-SNP, below a seam.
#![expect(unsafe_code, reason = "the instructions and their seam")]

use crate::{addr::Gva, level::Vmpl};

/// The two sizes of pages that SEV-SNP knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RmpSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
}

impl RmpSize {
    /// As instructions and the GHCB protocol number it.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self as u64
    }

    /// The page size.
    #[must_use]
    pub const fn page_size(self) -> crate::addr::PageSize {
        match self {
            Self::Size4K => crate::addr::PageSize::Size4K,
            Self::Size2M => crate::addr::PageSize::Size2M,
        }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.page_size().bytes()
    }
}

/// What an instruction left in its registers; nothing of it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Raw {
    /// It raised an exception instead: the address is not mapped, or the host has taken the page away.
    Faulted,
    /// It came to its end.
    Done {
        /// EAX: the return code.
        code: u32,
        /// The carry flag.
        carry: bool,
    },
}

/// RMPQUERY's answer: what it left, the page size and the permission word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RawQuery {
    /// What it left.
    pub raw: Raw,
    /// RCX: the size of the page.
    pub size: u64,
    /// RDX: the target level's permissions, and whether the page is a VMSA.
    pub word: u64,
}

/// The instructions themselves: the processor's ([`Processor`]), or a model's in tests.
///
/// Everything above is generic over this and runs on a host. (AMD64 Architecture Programmer's Manual Volume 3, "System
/// Instruction Reference".)
///
/// # Safety
///
/// Implementors do what the instruction does, and nothing else.
pub unsafe trait Insn {
    /// PVALIDATE: the private page mapped at `at` becomes valid or invalid.
    ///
    /// # Safety
    /// Rust code relies on nothing in the page: when it is invalidated its content is lost, and when it is validated the content
    /// is anything.
    unsafe fn pvalidate(&self, at: Gva, size: RmpSize, validate: bool) -> Raw;

    /// RMPADJUST: sets what a lower level may do with the private page mapped at `at`.
    ///
    /// # Safety
    /// If `word` gives rights or makes the page a VMSA, Rust code relies on nothing in it: a lower level, or the processor
    /// when it runs that level, may write it.
    unsafe fn rmpadjust(&self, at: Gva, size: RmpSize, word: u64) -> Raw;

    /// RMPQUERY: asks what `level` may do with the private page mapped at `at`. Older processors lack it.
    fn rmpquery(&self, at: Gva, level: Vmpl) -> RawQuery;

    /// INVLPGB for all translations of this guest at all levels, global ones included, and TLBSYNC: when it returns, no processor
    /// has any. #UD where the processor or the host lacks it: CPUID 0x80000008, EBX bit 3.
    fn flush_all(&self);

    /// Writes the GHCB MSR, executes VMGEXIT, and answers with the GHCB MSR.
    ///
    /// Interrupts are masked from the first to the last of these, and the MSR is left as the host leaves it.
    ///
    /// # Safety
    /// `request` names a page that is shared with the host, or is a request of the MSR protocol; and what it asks for takes no
    /// memory away and gives none away that Rust code relies on.
    unsafe fn vmgexit(&self, request: u64) -> u64;
}

// SAFETY: passes everything on.
unsafe impl<I: Insn + ?Sized> Insn for &I {
    unsafe fn pvalidate(&self, at: Gva, size: RmpSize, validate: bool) -> Raw {
        // SAFETY: the caller's promise.
        unsafe { I::pvalidate(self, at, size, validate) }
    }

    unsafe fn rmpadjust(&self, at: Gva, size: RmpSize, word: u64) -> Raw {
        // SAFETY: the caller's promise.
        unsafe { I::rmpadjust(self, at, size, word) }
    }

    fn rmpquery(&self, at: Gva, level: Vmpl) -> RawQuery {
        I::rmpquery(self, at, level)
    }

    fn flush_all(&self) {
        I::flush_all(self);
    }

    unsafe fn vmgexit(&self, request: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { I::vmgexit(self, request) }
    }
}

#[cfg(target_arch = "x86_64")]
pub use processor::Processor;

#[cfg(target_arch = "x86_64")]
mod processor {
    use core::arch::asm;

    use super::{Insn, Raw, RawQuery, RmpSize};
    use crate::{
        addr::Gva,
        cpu::{insn, msr::Msr},
        fault_entry,
        irq::{IrqCtl, LocalIrq},
        level::Vmpl,
    };

    /// The processor's own instructions. Outside of an SEV-SNP guest, and outside of ring 0, they raise exceptions.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Processor;

    /// What EAX holds where the instruction faulted: no return code.
    const FAULTED: u64 = u64::MAX;

    #[expect(clippy::cast_possible_truncation, reason = "EAX is the low half")]
    const fn raw(rax: u64, carry: u8) -> Raw {
        match rax {
            FAULTED => Raw::Faulted,
            _ => Raw::Done {
                code: rax as u32,
                carry: carry != 0,
            },
        }
    }

    // SAFETY: each method is its instruction.
    unsafe impl Insn for Processor {
        unsafe fn pvalidate(&self, at: Gva, size: RmpSize, validate: bool) -> Raw {
            let (rax, carry): (u64, u8);
            // SAFETY: the caller vouches for the page. A fault at 2: lands at 3:, with a code that the instruction never
            // gives. RAX is the address at that moment, so the landing sets it.
            unsafe {
                asm!(
                    "2: .byte 0xf2, 0x0f, 0x01, 0xff",
                    "setc {carry}",
                    "mov eax, eax",
                    "jmp 4f",
                    "3: mov rax, -1",
                    "xor {carry}, {carry}",
                    "4:",
                    fault_entry!("2b", "3b"),
                    carry = out(reg_byte) carry,
                    inout("rax") at.as_u64() => rax,
                    inout("rcx") size.as_u64() => _,
                    inout("rdx") u64::from(validate) => _,
                    options(nostack),
                );
            }
            raw(rax, carry)
        }

        unsafe fn rmpadjust(&self, at: Gva, size: RmpSize, word: u64) -> Raw {
            let rax: u64;
            // SAFETY: the caller vouches for the page. A fault at 2: lands at 3:, as above.
            unsafe {
                asm!(
                    "2: .byte 0xf3, 0x0f, 0x01, 0xfe",
                    "mov eax, eax",
                    "jmp 4f",
                    "3: mov rax, -1",
                    "4:",
                    fault_entry!("2b", "3b"),
                    inout("rax") at.as_u64() => rax,
                    inout("rcx") size.as_u64() => _,
                    inout("rdx") word => _,
                    options(nostack),
                );
            }
            raw(rax, 0)
        }

        fn rmpquery(&self, at: Gva, level: Vmpl) -> RawQuery {
            let (rax, size, word): (u64, u64, u64);
            // SAFETY: the instruction changes registers only. A fault at 2: lands at 3:, as above.
            unsafe {
                asm!(
                    "2: .byte 0xf3, 0x0f, 0x01, 0xfd",
                    "mov eax, eax",
                    "jmp 4f",
                    "3: mov rax, -1",
                    "4:",
                    fault_entry!("2b", "3b"),
                    inout("rax") at.as_u64() => rax,
                    inout("rcx") 0_u64 => size,
                    inout("rdx") u64::from(level.as_u8()) => word,
                    options(nostack),
                );
            }
            RawQuery {
                raw: raw(rax, 0),
                size,
                word,
            }
        }

        fn flush_all(&self) {
            // The ASID is valid (a guest's own, whatever EDX says), and global translations are meant, too.
            const ALL: u64 = 1 << 2 | 1 << 3;
            // SAFETY: translations are only forgotten.
            unsafe {
                asm!(
                    ".byte 0x0f, 0x01, 0xfe",
                    ".byte 0x0f, 0x01, 0xff",
                    in("rax") ALL, in("ecx") 0, in("edx") 0,
                    options(nostack, preserves_flags),
                );
            }
        }

        unsafe fn vmgexit(&self, request: u64) -> u64 {
            let masked = LocalIrq.mask();
            // SAFETY: the register is a mailbox to the host; the caller vouches for the request.
            unsafe { insn::wrmsr(Msr::GHCB, request) };
            // SAFETY: the caller vouches for what the host is asked to do. Shared memory is accessed by atomics only, and
            // `asm!` without `nomem` orders them. A lower level that runs meanwhile may use its registers as it likes: they
            // belong to its own save area.
            unsafe { asm!("rep vmmcall", options(nostack)) };
            let answer = insn::rdmsr(Msr::GHCB);
            LocalIrq.restore(masked);
            answer
        }
    }
}

//! The virtual machine control block (AMD64 Architecture Programmer's Manual, volume 2,
//! appendix B): one page that says what the guest may do and holds its state.

use bitflags::bitflags;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// A control block.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What L0 decides.
    pub control: Control,
    /// What the guest's registers hold.
    pub save: Save,
}
const _: () = assert!(size_of::<Vmcb>() == 4096);

/// The control area.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Intercepted reads (low half) and writes of control registers.
    pub intercept_cr: u32,
    /// Intercepted reads (low half) and writes of debug registers.
    pub intercept_dr: u32,
    /// Intercepted exceptions, a bit for each vector.
    pub intercept_exceptions: u32,
    /// The first word of intercepted instructions and events: [`Intercept1`].
    pub intercept1: u32,
    /// The second word: [`Intercept2`].
    pub intercept2: u32,
    /// The third word.
    pub intercept3: u32,
    reserved_018: [u8; 0x24],
    /// PAUSE filter threshold.
    pub pause_threshold: u16,
    /// PAUSE filter count.
    pub pause_count: u16,
    /// Host physical address of the I/O permission map.
    pub iopm: u64,
    /// Host physical address of the MSR permission map.
    pub msrpm: u64,
    /// Added to the time-stamp counter that the guest reads.
    pub tsc_offset: u64,
    /// The address space identifier; zero is the host's.
    pub asid: u32,
    /// What VMRUN flushes.
    pub tlb_control: u8,
    reserved_05d: [u8; 3],
    /// Virtual interrupt state.
    pub int_ctl: u32,
    /// The vector of the virtual interrupt.
    pub int_vector: u32,
    /// Bit 0: the instruction after STI or a load of SS is next, and no interrupt is taken before it.
    pub int_state: u64,
    /// Why the guest stopped.
    pub exit_code: u64,
    /// Details that depend on the exit code.
    pub exit_info1: u64,
    /// Details that depend on the exit code.
    pub exit_info2: u64,
    /// The event whose delivery was interrupted by the exit, if bit 31 is set.
    pub exit_int_info: u64,
    /// Bit 0: nested paging.
    pub nested: u64,
    reserved_098: [u8; 16],
    /// The event that VMRUN injects: [`Event`].
    pub event: u64,
    /// Host physical address of the nested page tables.
    pub nested_cr3: u64,
    /// Branch recording and virtual VMLOAD and VMSAVE.
    pub lbr_ctl: u64,
    /// State that the CPU may keep from the last exit.
    pub clean: u32,
    reserved_0c4: u32,
    /// Where the next instruction is, on CPUs that say it (TCG does not).
    pub next_rip: u64,
    reserved_0d0: [u8; 0x330],
}
const _: () = assert!(size_of::<Control>() == 0x400);
const _: () = assert!(core::mem::offset_of!(Control, iopm) == 0x40);
const _: () = assert!(core::mem::offset_of!(Control, exit_code) == 0x70);
const _: () = assert!(core::mem::offset_of!(Control, event) == 0xa8);
const _: () = assert!(core::mem::offset_of!(Control, next_rip) == 0xc8);

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Descriptor bits 40 to 47 and 52 to 55.
    pub attributes: u16,
    /// The last valid offset.
    pub limit: u32,
    /// The linear address of offset zero.
    pub base: u64,
}

impl Segment {
    /// The attribute bit that makes a code segment 64-bit.
    pub const LONG: u16 = 1 << 9;
    /// The attribute bit that makes a segment 32-bit.
    pub const BIG: u16 = 1 << 10;

    /// A descriptor table register: a base and a limit.
    #[must_use]
    pub const fn table(base: u64, limit: u16) -> Self {
        Self {
            selector: 0,
            attributes: 0,
            limit: limit as u32,
            base,
        }
    }
}

/// The save area.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Save {
    /// ES.
    pub es: Segment,
    /// CS.
    pub cs: Segment,
    /// SS.
    pub ss: Segment,
    /// DS.
    pub ds: Segment,
    /// FS; moved by VMLOAD and VMSAVE.
    pub fs: Segment,
    /// GS; moved by VMLOAD and VMSAVE.
    pub gs: Segment,
    /// GDTR.
    pub gdtr: Segment,
    /// LDTR; moved by VMLOAD and VMSAVE.
    pub ldtr: Segment,
    /// IDTR.
    pub idtr: Segment,
    /// TR; moved by VMLOAD and VMSAVE.
    pub tr: Segment,
    reserved_0a0: [u8; 0x2b],
    /// The current privilege level.
    pub cpl: u8,
    reserved_0cc: u32,
    /// Extended features; SVME is always set here.
    pub efer: u64,
    reserved_0d8: [u8; 0x70],
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    reserved_180: [u8; 0x58],
    /// RSP.
    pub rsp: u64,
    reserved_1e0: [u8; 0x18],
    /// RAX.
    pub rax: u64,
    /// SYSCALL's selectors; this and what follows up to `sysenter_eip` is moved by VMLOAD and VMSAVE.
    pub star: u64,
    /// SYSCALL's target from 64-bit mode.
    pub lstar: u64,
    /// SYSCALL's target from compatibility mode.
    pub cstar: u64,
    /// The flags that SYSCALL clears.
    pub sfmask: u64,
    /// What SWAPGS exchanges with the base of GS.
    pub kernel_gs_base: u64,
    /// SYSENTER's selectors.
    pub sysenter_cs: u64,
    /// SYSENTER's stack.
    pub sysenter_esp: u64,
    /// SYSENTER's target.
    pub sysenter_eip: u64,
    /// CR2.
    pub cr2: u64,
    reserved_248: [u8; 0x20],
    /// The guest's page attribute table, with nested paging.
    pub pat: u64,
    reserved_270: [u8; 0x990],
}
const _: () = assert!(size_of::<Save>() == 0xc00);
const _: () = assert!(core::mem::offset_of!(Save, cpl) == 0xcb);
const _: () = assert!(core::mem::offset_of!(Save, efer) == 0xd0);
const _: () = assert!(core::mem::offset_of!(Save, cr4) == 0x148);
const _: () = assert!(core::mem::offset_of!(Save, rsp) == 0x1d8);
const _: () = assert!(core::mem::offset_of!(Save, rax) == 0x1f8);
const _: () = assert!(core::mem::offset_of!(Save, cr2) == 0x240);
const _: () = assert!(core::mem::offset_of!(Save, pat) == 0x268);

impl Vmcb {
    /// A block of zeros, which no CPU would run.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

bitflags! {
    /// Intercepted instructions and events, first word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Intercept1: u32 {
        /// Physical interrupts.
        const INTR = 1;
        /// Non-maskable interrupts.
        const NMI = 1 << 1;
        /// The INIT signal.
        const INIT = 1 << 3;
        /// RDPMC.
        const RDPMC = 1 << 15;
        /// CPUID.
        const CPUID = 1 << 18;
        /// IRET.
        const IRET = 1 << 20;
        /// INT with a number.
        const INTN = 1 << 21;
        /// INVD.
        const INVD = 1 << 22;
        /// HLT.
        const HLT = 1 << 24;
        /// INVLPGA.
        const INVLPGA = 1 << 26;
        /// Ports, as the I/O permission map says.
        const IOIO = 1 << 27;
        /// RDMSR and WRMSR, as the MSR permission map says.
        const MSR = 1 << 28;
        /// Shutdown: what follows a triple fault.
        const SHUTDOWN = 1 << 31;
    }

    /// Intercepted instructions, second word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Intercept2: u32 {
        /// VMRUN; demanded by the CPU.
        const VMRUN = 1;
        /// VMMCALL.
        const VMMCALL = 1 << 1;
        /// VMLOAD.
        const VMLOAD = 1 << 2;
        /// VMSAVE.
        const VMSAVE = 1 << 3;
        /// STGI.
        const STGI = 1 << 4;
        /// CLGI.
        const CLGI = 1 << 5;
        /// SKINIT.
        const SKINIT = 1 << 6;
        /// All instructions of the SVM extension.
        const SVM = 0x7f;
        /// WBINVD.
        const WBINVD = 1 << 9;
        /// MONITOR.
        const MONITOR = 1 << 10;
        /// MWAIT.
        const MWAIT = 1 << 11;
    }
}

/// An event that VMRUN injects.
///
/// Interrupts are none: TCG may deliver an injected one a second time. [`Control::int_ctl`] serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An exception without an error code.
    Exception(u8),
    /// An exception with an error code.
    ExceptionWithCode(u8, u32),
}

impl Event {
    /// The exception for an instruction that does not exist.
    pub const UD: Self = Self::Exception(6);
    /// The exception for what is not allowed.
    pub const GP: Self = Self::ExceptionWithCode(13, 0);

    /// The word for [`Control::event`].
    #[must_use]
    pub const fn encode(self) -> u64 {
        const VALID: u64 = 1 << 31;
        match self {
            Self::Exception(vector) => VALID | 3 << 8 | vector as u64,
            Self::ExceptionWithCode(vector, code) => {
                VALID | 1 << 11 | 3 << 8 | vector as u64 | (code as u64) << 32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_encoded_as_specified() {
        assert_eq!(Event::UD.encode(), 0x8000_0306);
        assert_eq!(Event::ExceptionWithCode(13, 0x10).encode(), 0x10_8000_0b0d);
    }
}

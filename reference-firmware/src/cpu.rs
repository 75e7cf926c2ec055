//! What each CPU has of its own: the word at GS that says which it is, its descriptor tables and stacks, its log frames.
#![expect(unsafe_code, reason = "loads GS and the descriptor tables")]

mod tables;

use alloc::boxed::Box;
use alloc::vec::Vec;

use svsm_log::FrameStack;
use svsm_platform::cpu::cpuid::{Features, Processor};
use svsm_platform::cpu::insn;
use svsm_platform::cpu::msr::Msr;
use svsm_platform::cpu::protection::Protection;
use svsm_platform::irq::LocalIrq;
use svsm_platform::once::OnceCell;
use svsm_platform::percpu::{CpuIndex, CpuSlot, CpuSource, GsIndex, PerCpu};

use crate::{log, memory};

pub(crate) use tables::Tables;

/// The first bytes of what GS points to.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    index: u32,
}

const INDEX: usize = core::mem::offset_of!(Head, index);

/// The first CPU's, until there is a heap.
static BOOT_HEAD: Head = Head { index: 0 };
static BOOT_FRAMES: [CpuSlot<log::Frames>; 1] = [CpuSlot::new(FrameStack::new([0; 512]))];
static FRAMES: OnceCell<Vec<CpuSlot<log::Frames>>> = OnceCell::new();

/// Makes this CPU the first one. Before this, nothing may log or ask which CPU it runs on.
pub(crate) fn begin() {
    set_gs(&BOOT_HEAD);
}

/// Makes room for what `count` CPUs have of their own.
///
/// # Errors
/// There is no memory.
pub(crate) fn make_room(count: usize) -> svsm_mm::Result<()> {
    let mut frames = Vec::new();
    frames
        .try_reserve_exact(count)
        .map_err(|_| memory::EXHAUSTED)?;
    frames.extend((0..count).map(|_| CpuSlot::new(FrameStack::new([0; 512]))));
    FRAMES.set(frames).map_err(|_| svsm_mm::Error::Bug)
}

/// Which CPU this is.
pub(crate) fn index() -> CpuIndex {
    source().current()
}

/// Runs `run` with the log frames of this CPU, if they are not in use.
pub(crate) fn with_frames<R>(run: impl FnOnce(&mut log::Frames) -> R) -> Option<R> {
    let slots = FRAMES.value().map_or(BOOT_FRAMES.as_slice(), Vec::as_slice);
    let own = PerCpu::new(slots, source(), LocalIrq);
    let mut frames = own.borrow().ok()?;
    Some(run(&mut frames))
}

/// Gives this CPU tables and exception stacks of its own, and switches on what protects the kernel from itself.
///
/// # Errors
/// There is no memory.
pub(crate) fn settle(index: CpuIndex) -> svsm_mm::Result<&'static Tables> {
    let head = Box::leak(Box::new(Head {
        index: index.as_u32(),
    }));
    set_gs(head);
    let tables = Tables::new(core::ptr::from_ref(head).addr() as u64)?;
    tables.load();
    // SAFETY: ring 0 in long mode; the builder's tables have no user bit and no NX bit for code and no read-only data that
    // is written, and user memory is accessed by the leaf of `svsm_syscall` alone, which uses STAC and CLAC.
    unsafe { Protection::plan(features()).apply() };
    Ok(tables)
}

/// Does nothing, for ever.
pub(crate) fn halt() -> ! {
    loop {
        insn::cli();
        insn::hlt();
    }
}

/// What the processor can do.
pub(crate) fn features() -> Features {
    Features::of(&Processor)
}

fn source() -> GsIndex<INDEX> {
    // SAFETY: `begin` and `settle` point GS at a `Head` before any other code runs on their CPU, and entry code has executed
    // SWAPGS where it came from user mode.
    unsafe { GsIndex::assume_set_up() }
}

fn set_gs(head: &'static Head) {
    let base = core::ptr::from_ref(head).addr() as u64;
    // SAFETY: only the words of `Head` are accessed through GS, and that lives for ever.
    unsafe { insn::wrmsr(Msr::GS_BASE, base) };
}

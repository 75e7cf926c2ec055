//! What each CPU has of its own: the word at GS that says which it is, its descriptor tables and stacks, its log frames.
#![expect(unsafe_code, reason = "loads GS and the descriptor tables")]

mod tables;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use svsm_log::FrameStack;
use svsm_platform::addr::Gva;
use svsm_platform::cpu::cpuid::Features;
use svsm_platform::cpu::cr::{Cr4, Efer};
use svsm_platform::cpu::insn;
use svsm_platform::cpu::msr::Msr;
use svsm_platform::cpu::protection::Protection;
use svsm_platform::irq::LocalIrq;
use svsm_platform::once::OnceCell;
use svsm_platform::percpu::{CpuIndex, CpuSlot, CpuSource, GsIndex, PerCpu};

use svsm_syscall::entry::SyscallMsrs;

use crate::smp::MAX_CPUS;
use crate::{log, machine, memory};

use tables::Tables;

/// The first bytes of what GS points to.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    index: u32,
    /// Where `SYSCALL` finds the kernel stack of the current task.
    kernel_stack: AtomicU64,
    /// Where it keeps the program's stack pointer for a moment.
    scratch: AtomicU64,
    /// The task that runs, if one does.
    task: AtomicU64,
    /// The context of this CPU's idle loop.
    idle: AtomicU64,
    /// The descriptor tables.
    tables: AtomicU64,
    /// It has looked at its doorbell, and returns to a program, or runs one.
    leaves: AtomicBool,
    /// Something was taken from its doorbell, and nothing was done about it yet.
    postponed: AtomicBool,
}

const INDEX: usize = core::mem::offset_of!(Head, index);
/// For the entry code of `SYSCALL`.
pub(crate) const KERNEL_STACK: usize = core::mem::offset_of!(Head, kernel_stack);
/// For the entry code of `SYSCALL`.
pub(crate) const SCRATCH: usize = core::mem::offset_of!(Head, scratch);

impl Head {
    const fn new(index: u32) -> Self {
        Self {
            index,
            kernel_stack: AtomicU64::new(0),
            scratch: AtomicU64::new(0),
            task: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            tables: AtomicU64::new(0),
            leaves: AtomicBool::new(false),
            postponed: AtomicBool::new(false),
        }
    }
}

/// The first CPU's, until there is a heap.
static BOOT_HEAD: Head = Head::new(0);
/// Those of all CPUs, once they have one.
static HEADS: [AtomicPtr<Head>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
static BOOT_FRAMES: [CpuSlot<log::Frames>; 1] = [CpuSlot::new(FrameStack::new([0; 512]))];
static FEATURES: OnceCell<Features> = OnceCell::new();
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

/// Gives this CPU tables and exception stacks of its own, switches on what protects the kernel from itself, and lets
/// programs in.
///
/// # Errors
/// There is no memory.
pub(crate) fn settle(index: CpuIndex) -> svsm_mm::Result<()> {
    let place = HEADS.get(index.as_usize()).ok_or(svsm_mm::Error::Bug)?;
    let head: &'static Head = Box::leak(Box::new(Head::new(index.as_u32())));
    set_gs(head);
    let tables = Tables::new(core::ptr::from_ref(head).addr() as u64)?;
    head.tables.store(
        core::ptr::from_ref(tables).expose_provenance() as u64,
        Ordering::Relaxed,
    );
    place.store(core::ptr::from_ref(head).cast_mut(), Ordering::Release);
    tables.load();
    // SAFETY: ring 0 in long mode; the builder's tables have no user bit and no NX bit for code and no read-only data that
    // is written, and user memory is accessed by the leaf of `svsm_syscall` alone, which uses STAC and CLAC.
    unsafe { Protection::plan(features()).apply() };
    // SAFETY: the bits let programs use XMM registers, which the kernel does not touch.
    unsafe { insn::write_cr4(insn::read_cr4() | Cr4::OSFXSR | Cr4::OSXMMEXCPT) };
    if machine::is_snp() {
        // SAFETY: the kernel uses no instruction that this changes; programs get to write their own bases.
        unsafe { insn::write_cr4(insn::read_cr4() | Cr4::FSGSBASE) };
        // Programs that use `SYSCALL` raise #UD, which has no gap before the kernel's stack: `user::is_call`.
        return Ok(());
    }
    let efer = Efer::from_bits_retain(insn::rdmsr(Msr::EFER)) | Efer::SCE;
    // SAFETY: the bit switches `SYSCALL` on, which no program can use before the registers below are set.
    unsafe { insn::wrmsr(Msr::EFER, efer.bits()) };
    // SAFETY: the tables just loaded are a `GdtTable`, and GS is a `Head` in the kernel.
    unsafe { SyscallMsrs::plan::<crate::user::Handler>().install() };
    Ok(())
}

/// What GS points to on this CPU.
fn head() -> Option<&'static Head> {
    let place = HEADS.get(index().as_usize())?.load(Ordering::Acquire);
    // SAFETY: `settle` stored a pointer to a leaked `Head` there.
    NonNull::new(place).map(|head| unsafe { head.as_ref() })
}

/// The task that this CPU runs; null if it runs none.
pub(crate) fn current_task() -> *mut () {
    let task = head().map_or(0, |head| head.task.load(Ordering::Relaxed));
    core::ptr::with_exposed_provenance_mut(task as usize)
}

/// Notes the task that this CPU is about to run.
pub(crate) fn set_current_task(task: *const ()) {
    if let Some(head) = head() {
        head.task
            .store(task.expose_provenance() as u64, Ordering::Relaxed);
    }
}

/// Whether this CPU has looked at its doorbell and will not look again before its program runs.
pub(crate) fn leaves() -> bool {
    head().is_some_and(|head| head.leaves.load(Ordering::Relaxed))
}

/// Notes whether it does.
pub(crate) fn set_leaves(leaves: bool) {
    if let Some(head) = head() {
        head.leaves.store(leaves, Ordering::Relaxed);
    }
}

/// Whether something was taken from this CPU's doorbell that is still to be done.
pub(crate) fn postponed() -> bool {
    head().is_some_and(|head| head.postponed.load(Ordering::Relaxed))
}

/// Notes whether there is.
pub(crate) fn set_postponed(postponed: bool) {
    if let Some(head) = head() {
        head.postponed.store(postponed, Ordering::Relaxed);
    }
}

/// Where [`set_idle`] says.
pub(crate) fn idle() -> u64 {
    head().map_or(0, |head| head.idle.load(Ordering::Relaxed))
}

/// Notes where the context of this CPU's idle loop is kept.
pub(crate) fn set_idle(context: u64) {
    if let Some(head) = head() {
        head.idle.store(context, Ordering::Relaxed);
    }
}

/// Sets the stack on which this CPU enters the kernel out of user mode.
pub(crate) fn set_kernel_stack(top: Gva) {
    let Some(head) = head() else { return };
    head.kernel_stack.store(top.as_u64(), Ordering::Relaxed);
    let tables =
        core::ptr::with_exposed_provenance::<Tables>(head.tables.load(Ordering::Relaxed) as usize);
    // SAFETY: `settle` stored a pointer to leaked tables there.
    if let Some(tables) = unsafe { tables.as_ref() } {
        tables.set_kernel_stack(top);
    }
}

/// Does nothing, for ever.
pub(crate) fn halt() -> ! {
    loop {
        insn::cli();
        insn::hlt();
    }
}

/// What the processor can do. It is asked once: under a hypervisor every question is an exit.
pub(crate) fn features() -> Features {
    if let Some(features) = FEATURES.value() {
        return *features;
    }
    let features = Features::of(&machine::Source);
    let _ = FEATURES.set(features);
    features
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

//! Tasks: one for each process, and the switch between them.
#![expect(unsafe_code, reason = "switches stacks and address spaces")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use svsm_irq::Exception;
use svsm_irq::entry::TrapFrame;
use svsm_platform::cpu::insn;
use svsm_platform::irq::{IrqCtl, LocalIrq};
use svsm_platform::lock::SpinLock;
use svsm_platform::once::OnceCell;
use svsm_platform::percpu::CpuIndex;
use svsm_platform::seam::Ticks;
use svsm_syscall::abi::SysError;
use svsm_syscall::entry::{UserStart, enter_user};
use svsm_syscall::task::bases::UserBases;
use svsm_syscall::task::fpu::{Fpu, FpuArea};
use svsm_syscall::task::{Context, Leave, Scheduler, TaskId, context};

use super::process::Process;
use super::space::Start;
use crate::memory::{self, Stack};
use crate::smp::MAX_CPUS;
use crate::{clock, cpu, doorbell, guest, interrupt, machine, smp};

/// The most tasks, ended ones that nobody has asked for included.
const MAX_TASKS: usize = 64;
/// Programs get x87 and XMM registers.
const FPU: Fpu = Fpu::FXSAVE;

type Tasks = Scheduler<Arc<Task>, MAX_TASKS, MAX_CPUS>;

static TASKS: OnceCell<Box<SpinLock<Tasks, LocalIrq>>> = OnceCell::new();

/// What a process runs as.
pub(crate) struct Task {
    saved: Saved,
    doom: Doom,
    /// Where it goes on after a detour through the kernel; 0 if it makes none.
    detour: AtomicU64,
    stack: Stack,
    start: Start,
    process: Process,
}

/// What a task has when it does not run.
struct Saved {
    context: UnsafeCell<Context>,
    fpu: UnsafeCell<FpuArea<512>>,
    bases: UnsafeCell<UserBases>,
}

// SAFETY: the cells are touched by the CPU that switches from or to the task, and the scheduler gives a task to one CPU at a
// time.
unsafe impl Sync for Saved {}

impl Task {
    /// The process.
    pub(crate) const fn process(&self) -> &Process {
        &self.process
    }

    /// Where it goes on after a detour; 0 if it makes none.
    pub(crate) const fn detour(&self) -> &AtomicU64 {
        &self.detour
    }

    /// Whether its end is decided.
    pub(crate) const fn doom(&self) -> &Doom {
        &self.doom
    }
}

/// The end of a program that has been decided and has yet to come.
#[derive(Debug, Default)]
pub(crate) struct Doom {
    at: AtomicU64,
    vector: AtomicU8,
}

impl Doom {
    /// The program raised `exception` at `rip`.
    pub(crate) fn set(&self, exception: Exception, rip: u64) {
        self.vector.store(exception.as_u8(), Ordering::Relaxed);
        self.at.store(rip.max(1), Ordering::Relaxed);
    }

    /// What it raised, and where.
    pub(crate) fn get(&self) -> Option<(Exception, u64)> {
        let at = self.at.load(Ordering::Relaxed);
        let exception = Exception::new(self.vector.load(Ordering::Relaxed))?;
        (at != 0).then_some((exception, at))
    }
}

/// Makes room for tasks, of which this CPU takes some; called once.
///
/// # Errors
/// This CPU is one too many.
pub(crate) fn set_up() -> Result<(), SysError> {
    let mut tasks = Scheduler::new();
    tasks.online(cpu::index())?;
    let _ = TASKS.set(Box::new(SpinLock::new(tasks, LocalIrq)));
    Ok(())
}

fn tasks() -> Option<&'static SpinLock<Tasks, LocalIrq>> {
    TASKS.value().map(Box::as_ref)
}

/// Makes a task of a process that was loaded.
///
/// # Errors
/// [`SysError::NO_MEMORY`] if there is no room.
pub(crate) fn spawn(
    process: Process,
    start: Start,
    parent: Option<TaskId>,
) -> Result<TaskId, SysError> {
    bury();
    let stack = Stack::new().map_err(|_| SysError::NO_MEMORY)?;
    let range = stack.range();
    let lowest = core::ptr::with_exposed_provenance_mut::<u8>(range.start().as_u64() as usize);
    let memory = NonNull::new(lowest).ok_or(SysError::NO_MEMORY)?;
    let memory = NonNull::slice_from_raw_parts(memory, range.len_bytes() as usize);
    // SAFETY: the stack is the task's from here on, and mapped in the kernel's half of all address spaces.
    let context = unsafe { Context::new(memory, begin, 0) }.ok_or(SysError::NO_MEMORY)?;
    let task = Arc::new(Task {
        saved: Saved {
            context: UnsafeCell::new(context),
            fpu: UnsafeCell::new(FpuArea::new()),
            bases: UnsafeCell::new(UserBases::default()),
        },
        doom: Doom::default(),
        detour: AtomicU64::new(0),
        stack,
        start,
        process,
    });
    let tasks = tasks().ok_or(SysError::NO_MEMORY)?;
    // A task that is refused is dropped outside of the lock.
    let spawned = tasks.lock().spawn(task, parent);
    let (id, cpu) = spawned.map_err(|_| SysError::NO_MEMORY)?;
    tell(cpu);
    Ok(id)
}

/// Runs `run` with the task that this CPU runs, if it runs one.
pub(crate) fn with_current<R>(run: impl FnOnce(&Task) -> R) -> Option<R> {
    let task = cpu::current_task();
    // SAFETY: `run_on_cpu` put a pointer to a live task there, and it stays alive while it runs: it is the caller, and only its
    // end lets others drop it.
    NonNull::new(task).map(|task| run(unsafe { task.cast::<Task>().as_ref() }))
}

/// The identity of the task that this CPU runs.
pub(crate) fn current_id() -> Option<TaskId> {
    tasks()?.lock().running(cpu::index())
}

/// This CPU takes tasks from now on, and does nothing else.
pub(crate) fn work() -> ! {
    let index = cpu::index();
    if !machine::takes_interrupts() && index != CpuIndex::BOOT {
        attend()
    }
    let Some(tasks) = tasks() else { cpu::halt() };
    let _ = tasks.lock().online(index);
    // Without ticks tasks share less fairly, and sleepers sleep longer.
    let _ = interrupt::start_ticks();
    let mut idle = Context::current();
    cpu::set_idle(&raw mut idle as u64);
    loop {
        insn::cli();
        if run_next(tasks, index) {
            continue;
        }
        bury();
        if machine::takes_interrupts() {
            interrupt::sleep();
        } else {
            guest::start_if_due();
            doorbell::drain();
            if !guest::run() {
                insn::pause();
            }
            wake_sleepers();
        }
    }
}

/// Runs a task that is ready until it gives the CPU up, from the idle loop or from what that calls. Answers whether there was one.
fn run_next(tasks: &SpinLock<Tasks, LocalIrq>, index: CpuIndex) -> bool {
    let next = pick(&mut tasks.lock(), index);
    let Some(next) = next else { return false };
    let idle = core::ptr::with_exposed_provenance_mut::<Context>(cpu::idle() as usize);
    // SAFETY: interrupts are masked in the idle loop, which keeps its context where it said, for ever; no task runs here.
    unsafe { run_on_cpu(idle, next) };
    arrived();
    true
}

/// Lets a task run on this CPU until it gives it up, for a call of the guest that waits for one. Where interrupts come, tasks run
/// by themselves.
pub(crate) fn lend() {
    if machine::takes_interrupts() || !cpu::current_task().is_null() {
        return;
    }
    if let Some(tasks) = tasks() {
        wake_sleepers();
        run_next(tasks, cpu::index());
    }
}

/// The current task lets others run, and the guest where that is what runs between tasks.
pub(crate) fn give_way() {
    if machine::takes_interrupts() {
        leave(Leave::Yield);
    } else {
        let deadline = Some(Ticks::new(clock::now_ns()));
        leave(Leave::Sleep { deadline });
    }
}

/// Wakes a task.
pub(crate) fn wake(task: TaskId) {
    if let Some(cpu) = tasks().and_then(|tasks| tasks.lock().wake(task)) {
        tell(cpu);
    }
}

/// The same for a CPU that nobody can wake: it takes no tasks by itself, since the host may leave it at any instruction for a lower
/// level, and runs the guest once it has one. Until then it sleeps, and the host wakes it for the guest.
fn attend() -> ! {
    let mut idle = Context::current();
    cpu::set_idle(&raw mut idle as u64);
    loop {
        doorbell::drain();
        if !guest::run() {
            insn::hlt();
        }
    }
}

/// The current task gives its CPU up for a reason. Returns when it has one again, unless it has ended.
pub(crate) fn leave(why: Leave) {
    let Some(tasks) = tasks() else { return };
    let accepted = LocalIrq.mask();
    let index = cpu::index();
    let next = {
        let mut tasks = tasks.lock();
        if !tasks.leave(index, why) {
            drop(tasks);
            LocalIrq.restore(accepted);
            return;
        }
        pick(&mut tasks, index)
    };
    let from = cpu::current_task().cast::<Task>();
    // SAFETY: this is a task, so the pointer is to it, and it lives while it runs.
    let own = unsafe { &*from };
    // SAFETY: the registers are the task's own, of which the kernel touches none; the area is its own, too.
    let _ = unsafe { FPU.save(&mut *own.saved.fpu.get()) };
    // SAFETY: this CPU alone touches the cell of the task that it runs.
    unsafe { *own.saved.bases.get() = UserBases::save() };
    match next {
        // SAFETY: interrupts are masked, and the scheduler gives this task's context to nobody before `arrived`.
        Some(next) => unsafe { run_on_cpu(own.saved.context.get(), next) },
        None => {
            cpu::set_current_task(core::ptr::null());
            load_kernel_space();
            let idle = core::ptr::with_exposed_provenance::<Context>(cpu::idle() as usize);
            // SAFETY: `work` filled in the context of this CPU's idle loop when it left it, and waits for it.
            unsafe { context::switch(own.saved.context.get(), idle) };
        }
    }
    arrived();
    LocalIrq.restore(accepted);
}

/// Wakes those whose time has come, and lets the next one run if the interrupted one has had its share.
pub(crate) fn tick(frame: &TrapFrame) {
    wake_sleepers();
    if frame.from_user() {
        leave(Leave::Yield);
    }
}

/// Wakes those whose time has come.
fn wake_sleepers() {
    let now = Ticks::new(clock::now_ns());
    while let Some(cpu) = tasks().and_then(|tasks| tasks.lock().expire(now)) {
        tell(cpu);
    }
}

/// The exit code of a child, once it has ended; sleeps until then.
///
/// # Errors
/// That is no child of the caller.
pub(crate) fn wait(child: TaskId) -> Result<u16, SysError> {
    loop {
        let parent = current_id().ok_or(SysError::NOT_FOUND)?;
        let reaped = tasks()
            .ok_or(SysError::NOT_FOUND)?
            .lock()
            .reap(parent, child)?;
        if let Some((code, task)) = reaped {
            // Its memory goes back outside of the lock.
            drop(task);
            return Ok(code);
        }
        leave(Leave::Sleep { deadline: None });
    }
}

/// Nobody will wait for that child of the caller any more.
pub(crate) fn disown(child: TaskId) {
    let parent = current_id();
    if let Some((tasks, parent)) = tasks().zip(parent) {
        // Somebody has waited for it already.
        let _ = tasks.lock().disown(parent, child);
    }
}

/// Frees what is left of tasks whose end nobody waits for.
fn bury() {
    while let Some(task) = tasks().and_then(|tasks| tasks.lock().reap_orphan()) {
        drop(task);
    }
}

/// The task that this CPU runs next. It lives on by itself: the scheduler holds it until it has ended, and on this CPU it has not.
fn pick(tasks: &mut Tasks, cpu: CpuIndex) -> Option<NonNull<Task>> {
    let next = tasks.pick(cpu)?;
    NonNull::new(Arc::as_ptr(tasks.payload(next)?).cast_mut())
}

/// Goes on with `next`, and comes back when somebody goes on with `from`.
///
/// # Safety
/// Interrupts are masked; `from` is the context of who runs now, and stays where it is until then. `next` is what [`pick`] has
/// just answered.
unsafe fn run_on_cpu(from: *mut Context, next: NonNull<Task>) {
    cpu::set_current_task(next.as_ptr().cast());
    // SAFETY: it was picked for this CPU, says the caller, and lives while it runs.
    let next = unsafe { next.as_ref() };
    cpu::set_kernel_stack(next.stack.top());
    // SAFETY: the process's page table has the kernel's half in common with all others, and lives as long as the task.
    unsafe { insn::write_cr3(next.process.cr3()) };
    // SAFETY: the area was made for these registers, and whoever had them has saved them.
    let _ = unsafe { FPU.restore(&*next.saved.fpu.get()) };
    // SAFETY: this CPU alone touches the cell of the task that it runs.
    let bases = unsafe { *next.saved.bases.get() };
    // SAFETY: GS base is the kernel's, which does not use FS.
    unsafe { bases.restore() };
    // SAFETY: interrupts are masked, says the caller; the scheduler gave `next` to this CPU alone, its stack is in every address
    // space, and its context is from `Context::new` or from the switch away from it.
    unsafe { context::switch(from, next.saved.context.get()) };
}

/// The second half of every switch, on the new stack.
fn arrived() {
    if let Some(cpu) = tasks().and_then(|tasks| tasks.lock().switched(cpu::index())) {
        tell(cpu);
    }
}

/// Where every task begins, in the kernel.
extern "sysv64" fn begin(_: u64) -> ! {
    arrived();
    let start = with_current(|task| task.start);
    let Some(Start { entry, stack }) = start else {
        cpu::halt()
    };
    let frame = UserStart {
        entry: entry.as_u64(),
        stack: stack.as_u64(),
        argument: 0,
        interrupts: machine::takes_interrupts(),
    }
    .frame();
    doorbell::look(&frame);
    // SAFETY: `frame` made it for user mode; `run_on_cpu` loaded the process's address space, GS is the kernel's, and this
    // function needs nothing of its stack any more.
    unsafe { enter_user(&frame) }
}

/// A CPU has something to run; if it is another one, it may be asleep.
fn tell(cpu: CpuIndex) {
    if cpu != cpu::index()
        && machine::takes_interrupts()
        && let Some(id) = smp::apic_id(cpu)
    {
        interrupt::wake(id);
    }
}

/// Leaves the address space of a process.
fn load_kernel_space() {
    if let Ok(memory) = memory::memory() {
        // SAFETY: the kernel's own page table has all that the kernel uses, at the same addresses.
        unsafe { insn::write_cr3(memory.kernel_cr3()) };
    }
}

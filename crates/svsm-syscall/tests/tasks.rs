//! Scheduler and switch together, with threads of the host as CPUs: tasks really move between
//! stacks and CPUs.
#![expect(unsafe_code, reason = "switches stacks")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use core::{
    cell::{Cell, UnsafeCell},
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};
use std::{sync::Mutex, thread, time::Instant};

use svsm_platform::{percpu::CpuIndex, seam::Ticks};
use svsm_syscall::task::{Context, Leave, Scheduler, TaskId, context::switch};

const CPUS: usize = 3;
const TASKS: usize = 12;
const TURNS: usize = 200;

/// What a firmware keeps for a task. It lives as long as the test.
struct Kept {
    context: UnsafeCell<Context>,
    running: AtomicBool,
    turns: AtomicUsize,
}

// SAFETY: a context is only touched by the CPU that switches from or to it, and the scheduler
// lets no two CPUs do that at once: this is what the test is about.
unsafe impl Sync for Kept {}

struct Machine {
    scheduler: Mutex<Scheduler<&'static Kept, TASKS, CPUS>>,
    start: Instant,
    ended: AtomicUsize,
}

struct Cpu {
    index: CpuIndex,
    machine: &'static Machine,
    idle: UnsafeCell<Context>,
}

thread_local! {
    static CPU: Cell<Option<&'static Cpu>> = const { Cell::new(None) };
}

/// The CPU that runs this. Not inlined, because the thread may be another one after a switch.
#[inline(never)]
fn cpu() -> &'static Cpu {
    CPU.get().expect("set when the thread starts")
}

impl Machine {
    fn now(&self) -> Ticks {
        Ticks::new(u64::try_from(self.start.elapsed().as_micros()).unwrap())
    }
}

/// The running task gives up its CPU. Returns when it has one again, unless it ends.
fn reschedule(why: Leave) {
    let here = cpu();
    let mut scheduler = here.machine.scheduler.lock().unwrap();
    let task = scheduler.running(here.index).unwrap();
    let from: &'static Kept = scheduler.payload(task).unwrap();
    if !scheduler.leave(here.index, why) {
        return;
    }
    let to = match scheduler.pick(here.index) {
        Some(next) => scheduler.payload(next).unwrap().context.get(),
        None => here.idle.get(),
    };
    drop(scheduler);
    assert!(from.running.swap(false, Ordering::SeqCst));
    // SAFETY: the scheduler gave us `to`, and gives `from` to nobody before `arrived`.
    unsafe { switch(from.context.get(), to) };
    arrived();
}

/// The second half of a switch, on the stack that was switched to.
fn arrived() {
    let here = cpu();
    let mut scheduler = here.machine.scheduler.lock().unwrap();
    let _ = scheduler.switched(here.index);
    if let Some(task) = scheduler.running(here.index) {
        let kept = scheduler.payload(task).unwrap();
        assert!(
            !kept.running.swap(true, Ordering::SeqCst),
            "runs on two CPUs"
        );
    }
}

extern "sysv64" fn task(number: u64) -> ! {
    arrived();
    let number = usize::try_from(number).unwrap();
    for turn in 0..TURNS {
        let here = cpu();
        let (me, kept) = {
            let mut scheduler = here.machine.scheduler.lock().unwrap();
            let me = scheduler.running(here.index).unwrap();
            (me, *scheduler.payload(me).unwrap())
        };
        kept.turns.fetch_add(1, Ordering::Relaxed);
        let soon = Ticks::new(here.machine.now().as_u64() + 20);
        match (turn + number) % 4 {
            0 => reschedule(Leave::Sleep {
                deadline: Some(soon),
            }),
            1 => {
                // Woken before it sleeps: must not sleep for ever.
                wake(me);
                reschedule(Leave::Sleep { deadline: None });
            }
            _ => reschedule(Leave::Yield),
        }
    }
    cpu().machine.ended.fetch_add(1, Ordering::SeqCst);
    reschedule(Leave::Exit { code: 0 });
    std::process::abort()
}

fn wake(task: TaskId) {
    let _ = cpu().machine.scheduler.lock().unwrap().wake(task);
}

/// What a CPU does without a task: looks for one.
fn idle(here: &'static Cpu) {
    CPU.set(Some(here));
    while here.machine.ended.load(Ordering::SeqCst) < TASKS {
        let next = {
            let mut scheduler = here.machine.scheduler.lock().unwrap();
            while scheduler.expire(here.machine.now()).is_some() {}
            scheduler
                .pick(here.index)
                .map(|task| scheduler.payload(task).unwrap().context.get())
        };
        match next {
            // SAFETY: the scheduler gave us the task.
            Some(to) => unsafe {
                switch(here.idle.get(), to);
            },
            None => thread::sleep(Duration::from_micros(10)),
        }
        arrived();
    }
}

#[test]
fn tasks_move_between_cpus_and_never_run_twice() {
    let machine: &'static Machine = Box::leak(Box::new(Machine {
        scheduler: Mutex::new(Scheduler::new()),
        start: Instant::now(),
        ended: AtomicUsize::new(0),
    }));
    let mut all = Vec::new();
    for index in (0..).map(CpuIndex::new).take(CPUS) {
        machine.scheduler.lock().unwrap().online(index).unwrap();
    }
    for number in 0..TASKS {
        let stack: &'static mut [u8] = vec![0; 256 * 1024].leak();
        // SAFETY: the stack is the task's for ever.
        let context = unsafe { Context::new(NonNull::from(stack), task, number as u64) };
        let kept: &'static Kept = Box::leak(Box::new(Kept {
            context: UnsafeCell::new(context.unwrap()),
            running: AtomicBool::new(false),
            turns: AtomicUsize::new(0),
        }));
        all.push(kept);
        assert!(machine.scheduler.lock().unwrap().spawn(kept, None).is_ok());
    }
    let cpus: Vec<_> = (0..CPUS)
        .map(|index| {
            let index = CpuIndex::new(u32::try_from(index).unwrap());
            thread::spawn(move || {
                idle(Box::leak(Box::new(Cpu {
                    index,
                    machine,
                    idle: UnsafeCell::new(Context::current()),
                })));
            })
        })
        .collect();
    for cpu in cpus {
        cpu.join().unwrap();
    }
    assert!(
        all.iter()
            .all(|kept| kept.turns.load(Ordering::Relaxed) == TURNS)
    );
    let mut scheduler = machine.scheduler.lock().unwrap();
    let reaped = core::iter::from_fn(|| scheduler.reap_orphan()).count();
    assert_eq!((reaped, scheduler.len()), (TASKS, 0));
}

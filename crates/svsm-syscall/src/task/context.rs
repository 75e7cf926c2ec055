//! A task's kernel stack, and the switch to another task's.
//!
//! A task in the kernel is its stack. [`switch`] pushes what a function must preserve, leaves the
//! stack for another, pops, and so returns from a call that another task made. The rest of a switch
//! is the firmware's: the kernel stack that entries use (`RSP0` and the area of
//! [`crate::entry::SyscallHandler`]), the address space, [`super::bases`] and [`super::fpu`].

#![expect(unsafe_code, reason = "leaves one stack for another")]

use core::{arch::naked_asm, ptr::NonNull};

/// Where a task that does not run goes on.
#[derive(Debug)]
#[repr(transparent)]
pub struct Context {
    stack: u64,
}

/// What a task starts with. It does not return; a task ends by leaving its CPU for good.
pub type Start = extern "sysv64" fn(argument: u64) -> !;

/// What a new stack holds, from its lowest address on: what [`switch`] pops, then the address it
/// returns to.
#[repr(C)]
struct First {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbx: u64,
    rbp: u64,
    return_to: u64,
    end: [u64; 2], // no caller; and the stack is a multiple of 16 at the first call
}

impl Context {
    /// The least that a stack may hold. Handlers need some KiB more.
    pub const MIN_STACK: usize = 1024;

    /// The context of whoever runs now: [`switch`] fills it in.
    #[must_use]
    pub const fn current() -> Self {
        Self { stack: 0 }
    }

    /// A task that is to run `start` with `argument` on a new stack, with interrupts masked; `None`
    /// if the stack is smaller than [`Context::MIN_STACK`].
    ///
    /// # Safety
    /// The stack is the task's alone, mapped writable in every address space in which the task may
    /// be switched to, until the task has ended.
    #[must_use]
    pub unsafe fn new(stack: NonNull<[u8]>, start: Start, argument: u64) -> Option<Self> {
        let top = stack.cast::<u8>().addr().get().checked_add(stack.len())? & !15;
        let offset = top.checked_sub(stack.cast::<u8>().addr().get() + size_of::<First>())?;
        if stack.len() < Self::MIN_STACK {
            return None;
        }
        let first = First {
            r15: 0,
            r14: 0,
            r13: argument,
            r12: (start as *const ()).addr() as u64,
            rbx: 0,
            rbp: 0,
            return_to: (begin as *const ()).addr() as u64,
            end: [0; 2],
        };
        // SAFETY: the offset is inside the stack, which has room from there to `top`.
        let place = unsafe { stack.cast::<u8>().byte_add(offset) }.cast::<First>();
        // SAFETY: `top` and the size of `First` are multiples of 8; nobody else uses the stack.
        unsafe { place.write(first) };
        Some(Self {
            stack: place.addr().get() as u64,
        })
    }
}

const _: () = assert!(size_of::<First>() == 72 && size_of::<[u64; 2]>().is_multiple_of(16));

/// Goes on with `to`; returns when somebody switches to `from`.
///
/// # Safety
/// - Interrupts are masked.
/// - `to` holds a context that was made by [`Context::new`] or filled in by this function and not
///   been gone on with since. Its stack is mapped, and the address space in force is one in which
///   it may run.
/// - `from` stays where it is until somebody goes on with it. Nobody does before the CPU has left
///   this stack: see [`Scheduler::switched`](super::Scheduler::switched).
/// - What the caller borrows for the time of this call is not touched by others meanwhile.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn switch(from: *mut Context, to: *const Context) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, [rsi]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Where a new task returns to: calls its first function with the registers that `First` set. RBP
/// is 0, which ends stack traces.
#[unsafe(naked)]
unsafe extern "sysv64" fn begin() {
    naked_asm!("mov rdi, r13", "call r12", "ud2")
}

#[cfg(test)]
mod tests {
    use core::cell::{RefCell, UnsafeCell};
    use std::{boxed::Box, vec, vec::Vec};

    use super::*;

    struct Pair {
        main: UnsafeCell<Context>,
        task: UnsafeCell<Context>,
        seen: RefCell<Vec<u64>>,
    }

    extern "sysv64" fn task(pair: u64) -> ! {
        let pair = core::ptr::with_exposed_provenance::<Pair>(usize::try_from(pair).unwrap());
        // SAFETY: `main` made the address from a shared reference that is live whenever it comes
        // here.
        let pair = unsafe { &*pair };
        for step in 0.. {
            pair.seen.borrow_mut().push(step);
            // SAFETY: `main` was filled in when it came here.
            unsafe { switch(pair.task.get(), pair.main.get()) };
        }
        std::process::abort()
    }

    #[test]
    fn tasks_take_turns_on_their_own_stacks() {
        let mut stack = vec![0_u8; 64 * 1024];
        let pair = Pair {
            main: UnsafeCell::new(Context::current()),
            task: UnsafeCell::new(Context::current()),
            seen: RefCell::new(vec![]),
        };
        let argument = core::ptr::from_ref(&pair).expose_provenance() as u64;
        // SAFETY: the stack outlives the task, which never runs again after the loop.
        let context = unsafe { Context::new(NonNull::from(&mut stack[..]), task, argument) };
        // SAFETY: nobody borrows what is in the cell.
        unsafe { pair.task.get().write(context.unwrap()) };
        for turn in 0..10_u64 {
            let kept = core::hint::black_box(Box::new(turn));
            // SAFETY: `task` is new or was filled in when it came back.
            unsafe { switch(pair.main.get(), pair.task.get()) };
            assert_eq!(*kept, turn);
        }
        assert_eq!(pair.seen.into_inner(), (0..10).collect::<Vec<u64>>());
    }

    #[test]
    fn stacks_without_room_have_no_context() {
        let mut stack = [0_u8; 1023];
        // SAFETY: the task never runs.
        assert!(unsafe { Context::new(NonNull::from(&mut stack[..]), task, 0) }.is_none());
    }
}

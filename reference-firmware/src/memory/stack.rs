//! Kernel stacks: a few pages each, with an unmapped one below.

use alloc::vec::Vec;

use svsm_platform::addr::{Gva, GvaRange, PageSize};
use svsm_platform::irq::LocalIrq;
use svsm_platform::lock::SpinLock;
use svsm_platform::once::OnceCell;
use svsm_stage2::layout;

use super::memory;

/// Bytes of a stack.
pub(crate) const STACK_BYTES: u64 = 16 << 10;
/// How far apart stacks begin: what is left between them is unmapped.
const STRIDE_BYTES: u64 = 32 << 10;

/// Stacks lie one after the other from the start of the SVSM's free address space; who is done with one leaves it for the
/// next, mapped, so that no stack is ever unmapped under a CPU that still looks at it.
struct Pool {
    made: u64,
    idle: Vec<u64>,
}

static POOL: SpinLock<Pool, LocalIrq> = SpinLock::new(
    Pool {
        made: 0,
        idle: Vec::new(),
    },
    LocalIrq,
);
static BOOT_STACK: OnceCell<GvaRange> = OnceCell::new();

/// A stack of its own for a task, a CPU or a kind of exception.
#[derive(Debug)]
pub(crate) struct Stack {
    number: u64,
    range: GvaRange,
}

impl Stack {
    /// A stack with guard pages on both sides.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn new() -> svsm_mm::Result<Self> {
        let mut pool = POOL.lock();
        if let Some(number) = pool.idle.pop() {
            return Ok(Self {
                number,
                range: range(number)?,
            });
        }
        let number = pool.made;
        let range = range(number)?;
        // So that giving it back needs no memory.
        let room = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let missing = room.saturating_sub(pool.idle.len());
        pool.idle
            .try_reserve(missing)
            .map_err(|_| super::EXHAUSTED)?;
        memory()?.map_kernel(range)?;
        pool.made = number + 1;
        Ok(Self { number, range })
    }

    /// Where the stack pointer starts.
    pub(crate) fn top(&self) -> Gva {
        self.range.end()
    }

    /// All of it.
    pub(crate) const fn range(&self) -> GvaRange {
        self.range
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        POOL.lock().idle.push(self.number);
    }
}

fn range(number: u64) -> svsm_mm::Result<GvaRange> {
    let bug = svsm_mm::Error::Bug;
    let space = layout::runtime().ok_or(bug)?;
    let offset = number
        .checked_mul(STRIDE_BYTES)
        .and_then(|offset| offset.checked_add(PageSize::Size4K.bytes()));
    let start = offset
        .and_then(|offset| space.start().checked_add(offset))
        .ok_or(bug)?;
    GvaRange::new(start, STACK_BYTES)
        .filter(|range| space.contains_range(range))
        .ok_or(bug)
}

/// Remembers where the builder put the first stack.
pub(super) fn know_boot_stack(range: GvaRange) {
    let _ = BOOT_STACK.set(range);
}

/// Whether `len_bytes` bytes from `at` on lie in one kernel stack that is mapped.
pub(crate) fn is_kernel_stack(at: u64, len_bytes: u64) -> bool {
    let Some(wanted) = Gva::new(at).and_then(|at| GvaRange::new(at, len_bytes)) else {
        return false;
    };
    if BOOT_STACK
        .value()
        .is_some_and(|boot| boot.contains_range(&wanted))
    {
        return true;
    }
    let number =
        layout::runtime().and_then(|space| wanted.start().checked_offset_from(space.start()));
    let Some(number) = number.map(|offset| offset / STRIDE_BYTES) else {
        return false;
    };
    // A panic must not wait for the pool; then the trace is shorter.
    let made = POOL.try_lock().map_or(0, |pool| pool.made);
    number < made && range(number).is_ok_and(|stack| stack.contains_range(&wanted))
}

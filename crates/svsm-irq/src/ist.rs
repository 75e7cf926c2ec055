//! Stacks for the vectors that can come at any instruction, so made that such vectors may nest.
//!
//! The interrupt stack table gives each of those vectors a fixed address to start at, whatever was
//! going on. [`crate::entry`] therefore moves the table's entry to another stack while it uses one.
//! The stacks of one vector form a chain of [`Slot`]s; each slot ends in a header that tells the
//! entry code which CPU it is on, and what comes next.
//!
//! A firmware needs, for each CPU, at least one slot for each vector of [`STACKS`], and one last
//! slot that all chains share: an event that arrives there was one too many. Slots need not be
//! adjacent, so guard pages may lie between them.
//!
//! ```
//! use core::ptr::NonNull;
//! use svsm_irq::{Error, ist};
//! use svsm_platform::cpu::descriptor::Tss;
//!
//! /// # Safety
//! /// As `ist::Slot::new` and `ist::link` ask; `stack` hands out each piece of memory once.
//! unsafe fn set_up(
//!     tss: NonNull<Tss>,
//!     gs_base: u64,
//!     mut stack: impl FnMut() -> NonNull<[u8]>,
//! ) -> Result<(), Error> {
//!     let last = unsafe { ist::Slot::new(stack()) }?;
//!     for (_exception, which) in ist::STACKS {
//!         let slots = [unsafe { ist::Slot::new(stack()) }?, unsafe { ist::Slot::new(stack()) }?];
//!         unsafe { ist::link(&slots, &last, tss, which, gs_base) }?;
//!     }
//!     Ok(())
//! }
//! ```

#![expect(unsafe_code, reason = "writes the headers that entry code reads")]

use core::{mem::offset_of, ptr::NonNull};

use svsm_platform::{
    cpu::descriptor::{Ist, Tss},
    frame::TrapFrame,
};

use crate::{Error, Exception, Result};

/// The exceptions that take a stack of their own, and which entry of the table it is. Entry 7 is
/// left to the firmware.
pub const STACKS: [(Exception, Ist); 6] = [
    (Exception::DF, ist::<1>()),
    (Exception::NMI, ist::<2>()),
    (Exception::MC, ist::<3>()),
    (Exception::DB, ist::<4>()),
    (Exception::HV, ist::<5>()),
    (Exception::VC, ist::<6>()),
];

const fn ist<const N: u8>() -> Ist {
    const {
        match Ist::new(N) {
            Some(ist) => ist,
            None => unreachable!(),
        }
    }
}

/// The stack that this exception takes, if it takes one.
#[must_use]
pub fn stack_of(exception: Exception) -> Option<Ist> {
    STACKS
        .iter()
        .find(|(taker, _)| *taker == exception)
        .map(|&(_, stack)| stack)
}

/// Ends a slot; the IST entry points at it, so that a trap frame lies right below.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Header {
    /// The return's RAX, and its RIP, CS, RFLAGS, RSP and SS. They lie first, because the entry
    /// code finds them by an RSP that points at either.
    pub(crate) rax: u64,
    pub(crate) ret: [u64; 5],
    /// What a nested event of this vector starts at; 0 in the last slot.
    pub(crate) next: u64,
    /// Address of the vector's entry in the task-state segment.
    pub(crate) tss_entry: u64,
    /// Address of the first of the seven entries there.
    pub(crate) tss_table: u64,
    /// GS base of the kernel on this CPU.
    pub(crate) gs_base: u64,
}

const _: () = assert!(offset_of!(Header, rax) == 0 && offset_of!(Header, ret) == 8);
const _: () = assert!(size_of::<Header>() == 80);

/// One stack, long enough for one event.
#[derive(Debug)]
pub struct Slot {
    header: NonNull<Header>,
}

impl Slot {
    /// What the entry code itself needs; a Rust handler wants a few KiB more.
    pub const MIN_BYTES: usize = 1024;

    /// Makes a slot out of memory.
    ///
    /// # Safety
    /// From here on the memory belongs to the entry code: on the CPU that will use it, it is mapped
    /// writable at this address in every address space, and nothing else reads or writes it as
    /// long as that CPU's task-state segment leads to it.
    ///
    /// # Errors
    /// [`Error::StackTooSmall`] below [`Slot::MIN_BYTES`].
    pub unsafe fn new(memory: NonNull<[u8]>) -> Result<Self> {
        let bytes = memory.len();
        let start = memory.cast::<u8>();
        // The last 16-byte boundary that leaves room for the header.
        let misalignment = (start.addr().get().wrapping_add(bytes)) % align_of::<Header>();
        match bytes.checked_sub(size_of::<Header>() + misalignment) {
            Some(header) if header + size_of::<Header>() >= Self::MIN_BYTES => Ok(Self {
                // SAFETY: `header` is less than the length of the memory the caller gave.
                header: unsafe { start.byte_add(header) }.cast(),
            }),
            _ => Err(Error::StackTooSmall {
                need: Self::MIN_BYTES,
                have: bytes,
            }),
        }
    }

    /// What an IST entry holds to start here.
    #[must_use]
    pub fn top(&self) -> u64 {
        address(self.header)
    }
}

const _: () = assert!(Slot::MIN_BYTES >= 2 * (size_of::<Header>() + size_of::<TrapFrame>()));

/// Links the slots of one vector into a chain that ends in `last`, and puts the first of them into
/// the task-state segment.
///
/// `last` may end all chains of a CPU; an event that reaches it goes to
/// [`TrapHandler::lost`](crate::entry::TrapHandler::lost).
///
/// # Errors
/// [`Error::NoStack`] if `slots` is empty.
///
/// # Safety
/// - `tss` is the task-state segment of the CPU that will use the chain. It stays there, mapped
///   writable in every address space, and nobody else touches this entry of it from here on.
/// - No event uses the slots yet, no slot is in two chains, and `last` is not in a chain of another
///   CPU.
/// - `gs_base` is the kernel's GS base on that CPU whenever [`crate::entry::entries`] can run.
pub unsafe fn link(
    slots: &[Slot],
    last: &Slot,
    tss: NonNull<Tss>,
    stack: Ist,
    gs_base: u64,
) -> Result<()> {
    let first = slots.first().ok_or(Error::NoStack)?;
    // SAFETY: the entry lies inside the segment, which the caller says is there.
    let entry = unsafe { tss.byte_add(Tss::ist_offset(stack)) }.cast::<u64>();
    let tss_entry = address(entry);
    let tss_table = address(tss) + Tss::ist_offset(ist::<1>()) as u64;
    let header = |next| Header {
        rax: 0,
        ret: [0; 5],
        next,
        tss_entry,
        tss_table,
        gs_base,
    };
    let mut next = 0;
    for slot in slots.iter().chain([last]).rev() {
        // SAFETY: `Slot::new` placed the header inside memory that is the entry code's, aligned,
        // and the caller says that no event uses it yet.
        unsafe { slot.header.write(header(next)) };
        next = slot.top();
    }
    // SAFETY: nobody else touches the entry, says the caller. Entries are not aligned to their
    // size.
    unsafe { entry.write_unaligned(first.top()) };
    Ok(())
}

/// Pointers are 64 bits wide on this architecture.
fn address<T>(pointer: NonNull<T>) -> u64 {
    pointer.addr().get() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use svsm_platform::addr::Gva;

    #[repr(align(16))]
    struct Memory([u8; 4096]);

    fn slot(memory: &mut Memory, from: usize) -> Slot {
        // SAFETY: no entry code runs in a test, and the memory outlives the slot.
        unsafe { Slot::new(NonNull::from(&mut memory.0[from..])) }.unwrap()
    }

    #[test]
    fn every_vector_that_can_come_anywhere_has_a_stack_of_its_own() {
        for number in 0..32 {
            let exception = Exception::new(number).unwrap();
            assert_eq!(
                stack_of(exception).is_some(),
                exception.at_any_instruction()
            );
        }
        let mut seen = 0_u8;
        for (_, stack) in STACKS {
            assert_eq!(seen & 1 << stack.as_u8(), 0);
            seen |= 1 << stack.as_u8();
        }
    }

    #[test]
    fn frames_start_aligned_even_in_crooked_memory() {
        let mut memory = Memory([0; 4096]);
        for from in 0..32 {
            let end = memory.0.as_ptr_range().end as u64;
            let top = slot(&mut memory, from).top();
            assert_eq!(top % 16, 0);
            assert!(top + 80 <= end);
        }
        let mut crooked = Memory([0; 4096]);
        // SAFETY: as in `slot`.
        let slot = unsafe { Slot::new(NonNull::from(&mut crooked.0[..4091])) }.unwrap();
        assert_eq!(slot.top() % 16, 0);
    }

    #[test]
    fn small_stacks_are_refused() {
        let mut memory = [0_u8; 1000];
        // SAFETY: no entry code runs in a test.
        let slot = unsafe { Slot::new(NonNull::from(&mut memory[..])) };
        assert_eq!(
            slot.unwrap_err(),
            Error::StackTooSmall {
                need: 1024,
                have: 1000
            }
        );
    }

    #[test]
    fn chains_run_from_the_first_slot_to_the_last() {
        let (mut a, mut b, mut z) = (Memory([0; 4096]), Memory([0; 4096]), Memory([0; 4096]));
        let slots = [slot(&mut a, 0), slot(&mut b, 0)];
        let last = slot(&mut z, 0);
        let mut tss = Tss::new();
        let stack = stack_of(Exception::NMI).unwrap();
        // SAFETY: no entry code runs in a test.
        unsafe { link(&slots, &last, NonNull::from(&mut tss), stack, 7) }.unwrap();
        let mut expected = Tss::new();
        expected.set_ist(stack, Gva::new(slots[0].top()).unwrap());
        assert_eq!(std::format!("{tss:?}"), std::format!("{expected:?}"));
        let next = |slot: &Slot| {
            // SAFETY: `link` wrote the header.
            unsafe { slot.header.as_ref() }.next
        };
        assert_eq!(next(&slots[0]), slots[1].top());
        assert_eq!(next(&slots[1]), last.top());
        assert_eq!(next(&last), 0);
    }

    #[test]
    fn a_vector_needs_a_slot_besides_the_last() {
        let mut memory = Memory([0; 4096]);
        let last = slot(&mut memory, 0);
        let mut tss = Tss::new();
        // SAFETY: no entry code runs in a test.
        let linked = unsafe { link(&[], &last, NonNull::from(&mut tss), ist::<1>(), 0) };
        assert_eq!(linked, Err(Error::NoStack));
    }
}

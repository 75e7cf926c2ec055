//! Tasks: who runs on which CPU, and the switch between them.
//!
//! The scheduling is plain logic in values that a firmware owns ([`Scheduler`]); only [`bases`],
//! [`context`] and [`fpu`] hold instructions. `reference-firmware` shows all of it at work; the
//! order of things is told at [`Scheduler`].

pub mod bases; // FS and GS base, which programs may have set
pub mod context; // a task's kernel stack, and the switch to another
pub mod fpu; // the registers that a soft-float kernel does not touch
mod list;
mod scheduler;
mod wait;

use core::fmt;

pub use context::Context;
pub use scheduler::{Leave, Scheduler, TaskState};
pub use wait::{Sched, block_until};

/// Names a task as long as it lives, and nothing after that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TaskId(u32);

impl TaskId {
    /// Generations have 15 bits, so that an identity is a positive number to programs.
    const GENERATIONS: u16 = 0x7fff;

    const fn new(place: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | place as u32)
    }

    /// What programs get to know.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    const fn number(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    const fn place(self) -> usize {
        self.number() as usize
    }

    const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({}.{})", self.place(), self.generation())
    }
}

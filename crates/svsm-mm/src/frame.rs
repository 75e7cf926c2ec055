//! Frames of physical memory: who owns them, and who hands them out.

use svsm_platform::addr::{Gpa, GpaRange, PageSize};

use crate::{Error, Result};

mod buddy;
mod bump;
mod cache;
mod locked;

pub use buddy::{Buddy, FrameMeta};
pub use bump::Bump;
pub use cache::FrameCache;

/// A block size: `2^order` frames of 4 KiB, naturally aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Order(u8);

impl Order {
    /// One 4 KiB frame.
    pub const SINGLE: Self = Self(0);
    /// One 2 MiB block.
    pub const LARGE: Self = Self(9);
    /// One 1 GiB block, the largest there is.
    pub const MAX: Self = Self(18);

    /// The order `order`, or `None` beyond [`Order::MAX`].
    #[must_use]
    pub const fn new(order: u8) -> Option<Self> {
        if order <= Self::MAX.0 {
            Some(Self(order))
        } else {
            None
        }
    }

    /// The order of one page of that size.
    #[must_use]
    pub const fn of_page(size: PageSize) -> Self {
        match size {
            PageSize::Size4K => Self::SINGLE,
            PageSize::Size2M => Self::LARGE,
            PageSize::Size1G => Self::MAX,
        }
    }

    /// The smallest order that holds `len_bytes`, or `None` if no order does.
    #[must_use]
    pub const fn holding(len_bytes: u64) -> Option<Self> {
        let mut order = 0;
        while order <= Self::MAX.0 {
            if Self(order).bytes() >= len_bytes {
                return Some(Self(order));
            }
            order += 1;
        }
        None
    }

    /// The exponent.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// How many 4 KiB frames a block has.
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self.0
    }

    /// How many bytes a block has.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        4096 << self.0
    }

    /// The next smaller order, or `None` for a single frame.
    #[must_use]
    pub const fn halved(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(order) => Some(Self(order)),
            None => None,
        }
    }
}

/// A block of physical memory that its holder owns alone.
///
/// It is neither `Copy` nor `Clone`: handing it on hands on the memory, and a [`FrameSource`]
/// takes it back by value. A frame says nothing about its contents; sources do not clear them.
#[must_use = "a frame that is dropped is lost until the next boot"]
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Frame {
    base: Gpa,
    order: Order,
}

impl Frame {
    /// The block at `base`, or `None` if none of that order can start there.
    ///
    /// # Safety
    /// The caller owns the memory and gives it to the frame: no other frame has any of it, and no
    /// Rust object lives in it.
    #[must_use]
    #[expect(unsafe_code, reason = "the caller vouches for the memory")]
    pub const unsafe fn from_raw(base: Gpa, order: Order) -> Option<Self> {
        if base.as_u64().is_multiple_of(order.bytes()) && base.checked_add(order.bytes()).is_some()
        {
            Some(Self { base, order })
        } else {
            None
        }
    }

    /// The address of the first byte.
    #[must_use]
    pub const fn base(&self) -> Gpa {
        self.base
    }

    /// The size, as a power of two of 4 KiB frames.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.order.bytes()
    }

    /// The memory as a range.
    ///
    /// # Errors
    /// [`Error::Bug`] if the block leaves the physical address space, which no block can.
    pub fn range(&self) -> Result<GpaRange> {
        GpaRange::new(self.base, self.bytes()).ok_or(Error::Bug)
    }

    /// Two halves, lower first. A source that hands out the whole takes back the parts.
    ///
    /// # Errors
    /// The frame itself, if it is a single one.
    pub fn split(self) -> core::result::Result<(Self, Self), Self> {
        let Some(order) = self.order.halved() else {
            return Err(self);
        };
        let Some(upper) = self.base.checked_add(order.bytes()) else {
            return Err(self);
        };
        Ok((
            Self {
                base: self.base,
                order,
            },
            Self { base: upper, order },
        ))
    }

    /// A frame of memory that the caller of this crate-internal function accounts for.
    ///
    /// The proof is the caller's: within the crate only sources (for memory that was given to
    /// them by an unsafe call) and page tables (for entries that were written from a frame) use it.
    pub(crate) const fn trusted(base: Gpa, order: Order) -> Self {
        Self { base, order }
    }
}

/// A frame that was not taken back, and why.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Refused {
    /// The frame, back in the caller's hands.
    pub frame: Frame,
    /// What is wrong with it.
    pub error: Error,
}

/// Whoever hands out frames and takes them back.
pub trait FrameSource {
    /// Takes a block of that order, aligned to its size. Contents are arbitrary.
    ///
    /// # Errors
    /// [`Error::OutOfFrames`] if there is none; another error is the source's fault.
    fn take(&mut self, order: Order) -> Result<Frame>;

    /// Gives a block back, whole or a part that [`Frame::split`] made.
    ///
    /// # Errors
    /// The frame and the reason, if it is not of this source.
    fn give(&mut self, frame: Frame) -> core::result::Result<(), Refused>;

    /// Fills empty slots with single frames and answers how many it filled. A source behind a
    /// lock takes the lock once.
    fn take_singles(&mut self, slots: &mut [Option<Frame>]) -> usize {
        let mut filled = 0;
        for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
            match self.take(Order::SINGLE) {
                Ok(frame) => *slot = Some(frame),
                Err(_) => break,
            }
            filled += 1;
        }
        filled
    }

    /// Empties the slots and answers how many it took. What it refuses stays in its slot.
    fn give_all(&mut self, slots: &mut [Option<Frame>]) -> usize {
        let mut given = 0;
        for slot in slots {
            let Some(frame) = slot.take() else { continue };
            match self.give(frame) {
                Ok(()) => given += 1,
                Err(refused) => *slot = Some(refused.frame),
            }
        }
        given
    }
}

impl<S: FrameSource + ?Sized> FrameSource for &mut S {
    fn take(&mut self, order: Order) -> Result<Frame> {
        (**self).take(order)
    }

    fn give(&mut self, frame: Frame) -> core::result::Result<(), Refused> {
        (**self).give(frame)
    }

    fn take_singles(&mut self, slots: &mut [Option<Frame>]) -> usize {
        (**self).take_singles(slots)
    }

    fn give_all(&mut self, slots: &mut [Option<Frame>]) -> usize {
        (**self).give_all(slots)
    }
}

//! The frame allocator proper: a buddy system whose bookkeeping lies beside the frames.

use svsm_platform::addr::{Gpa, GpaRange};

use super::{Frame, FrameSource, Order, Refused};
use crate::{Error, Result};

const ORDERS: usize = Order::MAX.as_u8() as usize + 1;
const FRAME_SHIFT: u32 = 12;
const NIL: u32 = u32::MAX;

/// What the allocator knows about one frame. All-zero bytes are a valid value: "not mine".
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct FrameMeta {
    next: u32,
    prev: u32,
    state: State,
}

impl FrameMeta {
    /// A frame that belongs to nobody; what metadata is before it is lent.
    pub const EMPTY: Self = Self {
        next: 0,
        prev: 0,
        state: State::ABSENT,
    };
}

/// The state of a block sits at its first frame; the others are [`State::INTERIOR`]. That makes
/// a wrong `give` visible without searching: a block starts here, or it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
struct State(u32);

impl State {
    const ABSENT: Self = Self(0);
    const INTERIOR: Self = Self(1);
    const FREE: u32 = 0x100;
    const TAKEN: u32 = 0x200;

    const fn free(order: Order) -> Self {
        Self(Self::FREE | order.as_u8() as u32)
    }

    const fn taken(order: Order) -> Self {
        Self(Self::TAKEN | order.as_u8() as u32)
    }

    /// The order of the block that starts here, if one does.
    #[expect(clippy::cast_possible_truncation, reason = "the low byte is asked for")]
    const fn order(self) -> Option<Order> {
        if self.0 & (Self::FREE | Self::TAKEN) == 0 {
            None
        } else {
            Order::new(self.0 as u8)
        }
    }

    const fn is_free(self) -> bool {
        self.0 & Self::FREE != 0
    }
}

/// A buddy allocator over a span of physical memory.
///
/// Every operation takes a number of steps bounded by the number of orders (19), however many
/// frames there are. The bookkeeping is an array of [`FrameMeta`] that the caller lends; frames
/// themselves are never touched, so they need not be mapped, or even be validated.
#[derive(Debug)]
pub struct Buddy<'m> {
    /// Number of the span's first frame.
    base: u64,
    meta: &'m mut [FrameMeta],
    heads: [u32; ORDERS],
    /// Bit `n`: the list of order `n` has blocks.
    nonempty: u32,
    free_frames: u64,
    total_frames: u64,
}

impl<'m> Buddy<'m> {
    /// How many [`FrameMeta`] a span needs.
    #[must_use]
    pub fn metadata_len(span: GpaRange) -> u64 {
        span.len_bytes() >> FRAME_SHIFT
    }

    /// An allocator that covers `span` and owns none of it yet: see [`Buddy::add`].
    ///
    /// # Errors
    /// - [`Error::Misaligned`] if a bound of the span is not a frame's.
    /// - [`Error::MetadataTooShort`] if `meta` has fewer than [`Buddy::metadata_len`] elements.
    pub fn new(span: GpaRange, meta: &'m mut [FrameMeta]) -> Result<Self> {
        check_frames(span)?;
        let needed = Self::metadata_len(span);
        let len = usize::try_from(needed)
            .ok()
            .filter(|_| needed < u64::from(NIL));
        let meta = len
            .and_then(|len| meta.get_mut(..len))
            .ok_or(Error::MetadataTooShort { needed })?;
        meta.fill(FrameMeta::EMPTY);
        Ok(Self {
            base: span.start().as_u64() >> FRAME_SHIFT,
            meta,
            heads: [NIL; ORDERS],
            nonempty: 0,
            free_frames: 0,
            total_frames: 0,
        })
    }

    /// Makes a part of the span free memory of this allocator.
    ///
    /// # Errors
    /// - [`Error::Misaligned`] if a bound of the range is not a frame's.
    /// - [`Error::ForeignFrame`] if the range leaves the span.
    /// - [`Error::DoubleFree`] if a frame of the range was added before. Nothing has changed then.
    ///
    /// # Safety
    /// - The caller owns the memory in `range`, and no other source hands out any of it.
    /// - No Rust object lives in it, except through frames of this source.
    #[expect(unsafe_code, reason = "the caller vouches for the memory")]
    pub unsafe fn add(&mut self, range: GpaRange) -> Result<()> {
        self.adopt(range)
    }

    /// As [`Buddy::add`], for callers in the crate that account for the memory themselves.
    pub(crate) fn adopt(&mut self, range: GpaRange) -> Result<()> {
        check_frames(range)?;
        let foreign = Error::ForeignFrame {
            base: range.start(),
        };
        let first = (range.start().as_u64() >> FRAME_SHIFT)
            .checked_sub(self.base)
            .ok_or(foreign)?;
        let end = first + (range.len_bytes() >> FRAME_SHIFT);
        let bounds = usize::try_from(first).ok().zip(usize::try_from(end).ok());
        let (first, end) = bounds.ok_or(foreign)?;
        let fresh = self.meta.get_mut(first..end).ok_or(foreign)?;
        if let Some(known) = fresh.iter().position(|meta| meta.state != State::ABSENT) {
            let base = self.address((first + known) as u64)?;
            return Err(Error::DoubleFree { base });
        }
        for meta in fresh {
            meta.state = State::INTERIOR;
        }
        let (mut at, end) = (first as u64, end as u64);
        while at < end {
            let order = self.widest_block(at, end);
            self.release(self.index(at)?, order)?;
            self.total_frames += order.frames();
            at += order.frames();
        }
        Ok(())
    }

    /// How many 4 KiB frames are free.
    #[must_use]
    pub const fn free_frames(&self) -> u64 {
        self.free_frames
    }

    /// How many 4 KiB frames were added.
    #[must_use]
    pub const fn total_frames(&self) -> u64 {
        self.total_frames
    }

    /// The largest block that [`FrameSource::take`] would find now.
    #[must_use]
    pub fn largest_free(&self) -> Option<Order> {
        let highest = self.nonempty.checked_ilog2()?;
        u8::try_from(highest).ok().and_then(Order::new)
    }

    /// The largest naturally aligned block that starts at `at` and ends by `end`.
    fn widest_block(&self, at: u64, end: u64) -> Order {
        let by_alignment = (self.base + at).trailing_zeros();
        let by_length = (end - at).ilog2();
        let order = by_alignment.min(by_length);
        u8::try_from(order)
            .ok()
            .and_then(Order::new)
            .unwrap_or(Order::MAX)
    }

    fn address(&self, index: u64) -> Result<Gpa> {
        Gpa::new((self.base + index) << FRAME_SHIFT).ok_or(Error::Bug)
    }

    fn index(&self, index: u64) -> Result<u32> {
        u32::try_from(index).map_err(|_| Error::Bug)
    }

    fn node(&self, index: u32) -> Result<&FrameMeta> {
        self.meta.get(index as usize).ok_or(Error::Bug)
    }

    fn node_mut(&mut self, index: u32) -> Result<&mut FrameMeta> {
        self.meta.get_mut(index as usize).ok_or(Error::Bug)
    }

    fn head_mut(&mut self, order: Order) -> Result<&mut u32> {
        self.heads
            .get_mut(usize::from(order.as_u8()))
            .ok_or(Error::Bug)
    }

    /// Puts a block at the head of its list.
    fn push(&mut self, index: u32, order: Order) -> Result<()> {
        let next = core::mem::replace(self.head_mut(order)?, index);
        *self.node_mut(index)? = FrameMeta {
            next,
            prev: NIL,
            state: State::free(order),
        };
        if next != NIL {
            self.node_mut(next)?.prev = index;
        }
        self.nonempty |= 1 << order.as_u8();
        Ok(())
    }

    /// Takes a block out of its list, and leaves `state` behind.
    fn unlink(&mut self, index: u32, order: Order, state: State) -> Result<()> {
        let node = self.node_mut(index)?;
        node.state = state;
        let FrameMeta { next, prev, .. } = *node;
        if next != NIL {
            self.node_mut(next)?.prev = prev;
        }
        if prev != NIL {
            self.node_mut(prev)?.next = next;
        } else {
            *self.head_mut(order)? = next;
            if next == NIL {
                self.nonempty &= !(1 << order.as_u8());
            }
        }
        Ok(())
    }

    /// Frees a block that is in no list, merging it with its buddies as far as they are free.
    fn release(&mut self, mut index: u32, mut order: Order) -> Result<()> {
        self.free_frames += order.frames();
        while let Some(wider) = Order::new(order.as_u8() + 1) {
            let buddy = (self.base + u64::from(index)) ^ order.frames();
            let Some(buddy) = buddy
                .checked_sub(self.base)
                .and_then(|b| u32::try_from(b).ok())
            else {
                break;
            };
            // A free block never leaves the span, so its head alone needs to be looked at.
            if self
                .meta
                .get(buddy as usize)
                .is_none_or(|m| m.state != State::free(order))
            {
                break;
            }
            self.unlink(buddy, order, State::INTERIOR)?;
            self.node_mut(index)?.state = State::INTERIOR;
            index = index.min(buddy);
            order = wider;
        }
        self.push(index, order)
    }

    /// The block that covers frame `index`: its first frame, and its state.
    fn covering(&self, index: u32) -> Result<Option<(u32, State)>> {
        if self.node(index)?.state == State::ABSENT {
            return Ok(None);
        }
        for order in 0..=Order::MAX.as_u8() {
            let head = ((self.base + u64::from(index)) >> order) << order;
            let Some(head) = head.checked_sub(self.base) else {
                break;
            };
            let head = self.index(head)?;
            let state = self.node(head)?.state;
            if let Some(found) = state.order() {
                return Ok((found.as_u8() >= order).then_some((head, state)));
            }
        }
        Err(Error::Bug)
    }

    /// Finds out whether a frame may come back, cutting the block it is a part of if need be.
    fn check_given(&mut self, frame: &Frame) -> Result<u32> {
        let base = frame.base();
        let foreign = Error::ForeignFrame { base };
        let order = frame.order();
        let index = (base.as_u64() >> FRAME_SHIFT)
            .checked_sub(self.base)
            .ok_or(foreign)?;
        let index = u32::try_from(index).map_err(|_| foreign)?;
        let state = self.meta.get(index as usize).ok_or(foreign)?.state;
        if state == State::taken(order) {
            return Ok(index);
        }
        let (mut head, state) = self.covering(index)?.ok_or(foreign)?;
        if state.is_free() {
            return Err(Error::DoubleFree { base });
        }
        let mut block = state.order().ok_or(Error::Bug)?;
        if block < order {
            return Err(Error::WrongOrder {
                base,
                taken: block,
                given: order,
            });
        }
        // Cut the taken block until the given part stands alone; the rest stays taken.
        while block > order {
            block = block.halved().ok_or(Error::Bug)?;
            let half = u32::try_from(block.frames()).map_err(|_| Error::Bug)?;
            self.node_mut(head)?.state = State::taken(block);
            self.node_mut(head + half)?.state = State::taken(block);
            if index >= head + half {
                head += half;
            }
        }
        Ok(head)
    }
}

impl FrameSource for Buddy<'_> {
    fn take(&mut self, order: Order) -> Result<Frame> {
        let fitting = self.nonempty & (u32::MAX << order.as_u8());
        let mut found = u8::try_from(fitting.trailing_zeros())
            .ok()
            .and_then(Order::new)
            .ok_or(Error::OutOfFrames { order })?;
        let index = *self.head_mut(found)?;
        self.unlink(index, found, State::taken(order))?;
        while found > order {
            found = found.halved().ok_or(Error::Bug)?;
            let half = u32::try_from(found.frames()).map_err(|_| Error::Bug)?;
            self.push(index + half, found)?;
        }
        self.free_frames -= order.frames();
        Ok(Frame::trusted(self.address(u64::from(index))?, order))
    }

    fn give(&mut self, frame: Frame) -> core::result::Result<(), Refused> {
        let order = frame.order();
        match self
            .check_given(&frame)
            .and_then(|index| self.release(index, order))
        {
            Ok(()) => Ok(()),
            Err(error) => Err(Refused { frame, error }),
        }
    }
}

fn check_frames(range: GpaRange) -> Result<()> {
    for bound in [range.start(), range.end()] {
        if bound.as_u64() % Order::SINGLE.bytes() != 0 {
            return Err(Error::Misaligned {
                address: bound.as_u64(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

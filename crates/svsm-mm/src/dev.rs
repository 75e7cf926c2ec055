//! What every implementation of a seam has to keep, as functions for its tests.
//!
//! They answer with the law that was broken, and leave what they were given as it was.

use svsm_platform::addr::Gpa;
use svsm_platform::encryption::Visibility;

use crate::frame::{FrameSource, Order};
use crate::window::{PAGE_BYTES, Window, WordIndex};
use crate::{Error, Result};

/// A law that an implementation breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// A block is not aligned to its size, or not of the order that was asked for.
    Shape,
    /// Two blocks have memory in common.
    Overlap,
    /// A block that the source handed out was not taken back.
    NotTakenBack,
    /// After everything came back, less could be taken than before.
    Shrinks,
    /// An error that its kind of failure does not have.
    Failure(Error),
    /// What was written is not what is read.
    Contents,
    /// An access beyond the page was not refused.
    Bounds,
}

/// Checks a [`FrameSource`] that has at least one frame, with up to `N` single frames and one
/// block of every order. The source takes blocks back in reverse order of handing them out.
///
/// # Errors
/// The law it breaks.
pub fn check_frame_source<const N: usize>(
    source: &mut impl FrameSource,
) -> core::result::Result<(), Broken> {
    let mut counts = [0; 2];
    for count in &mut counts {
        let mut held = [const { None }; N];
        *count = source.take_singles(&mut held);
        for (index, frame) in held.iter().enumerate() {
            let Some(frame) = frame else { continue };
            if frame.order() != Order::SINGLE || frame.base().as_u64() % PAGE_BYTES != 0 {
                return Err(Broken::Shape);
            }
            let others = held.iter().take(index).flatten();
            if others.into_iter().any(|other| other.base() == frame.base()) {
                return Err(Broken::Overlap);
            }
        }
        held.reverse();
        if source.give_all(&mut held) != *count || held.iter().any(Option::is_some) {
            return Err(Broken::NotTakenBack);
        }
    }
    let [before, after] = counts;
    if before == 0 || after < before {
        return Err(Broken::Shrinks);
    }
    for order in (0..=Order::MAX.as_u8()).filter_map(Order::new) {
        match source.take(order) {
            Ok(frame) => {
                let aligned = frame.base().as_u64().is_multiple_of(order.bytes());
                if frame.order() != order || !aligned {
                    return Err(Broken::Shape);
                }
                source.give(frame).map_err(|_| Broken::NotTakenBack)?;
            }
            Err(Error::OutOfFrames { order: asked }) if asked == order => {}
            Err(error) => return Err(Broken::Failure(error)),
        }
    }
    Ok(())
}

/// Checks a [`Window`] with a page that it shows.
///
/// # Errors
/// The law it breaks.
///
/// # Safety
/// As for [`Window::map`]: the caller may access the page. Its contents stay.
#[expect(unsafe_code, reason = "the caller vouches for the page")]
pub unsafe fn check_window<W: Window>(
    window: &W,
    page: Gpa,
    visibility: Visibility,
) -> core::result::Result<(), Broken> {
    let show = || -> Result<W::Mapping<'_>> {
        // SAFETY: the caller may access the page.
        unsafe { window.map(page, visibility) }
    };
    let pattern = |index: WordIndex| u64::from(index.as_u16()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut before = [0; 64];
    for (part, index) in (0..PAGE_BYTES / 64).zip(WordIndex::all().step_by(8)) {
        let cell = show().map_err(Broken::Failure)?;
        cell.read(part * 64, &mut before).map_err(Broken::Failure)?;
        cell.store(index, pattern(index));
        drop(cell);
        let cell = show().map_err(Broken::Failure)?;
        if cell.load(index) != pattern(index) {
            return Err(Broken::Contents);
        }
        cell.write(part * 64, &before).map_err(Broken::Failure)?;
    }
    let cell = show().map_err(Broken::Failure)?;
    for (offset, len) in [(PAGE_BYTES - 1, 2), (PAGE_BYTES, 1), (u64::MAX, 2)] {
        let bytes = before.get_mut(..len).ok_or(Broken::Bounds)?;
        if cell.read(offset, bytes).is_ok() || cell.write(offset, bytes).is_ok() {
            return Err(Broken::Bounds);
        }
    }
    Ok(())
}

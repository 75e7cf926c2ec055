//! Tokens for translations that a processor may still hold.

use svsm_platform::addr::{Gpa, GvaRange};

use super::PageTable;
use crate::{Error, Result};

/// Translations of a range are no longer what the page table says.
///
/// Until they are flushed on every CPU that may hold them, what was unmapped is still accessible
/// and its frames must not be used for anything else. [`Shootdown::flush`] takes the token and
/// answers with [`Flushed`], and only that opens [`Editor::reclaim`](super::Editor::reclaim).
#[must_use = "stale translations stay live until flushed"]
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StaleTlb {
    root: Gpa,
    range: GvaRange,
    global: bool,
    epoch: u64,
    simulated: bool,
}

impl StaleTlb {
    pub(super) const fn new(table: &PageTable, range: GvaRange, global: bool) -> Self {
        Self {
            root: table.root(),
            range,
            global,
            epoch: table.epoch,
            simulated: table.simulated,
        }
    }

    /// The root of the page table. Others that [share](PageTable::new_sharing) a part with it
    /// translate that part the same, and CPUs that have loaded them are meant as well.
    #[must_use]
    pub const fn root(&self) -> Gpa {
        self.root
    }

    /// The addresses whose translations are stale; empty if nothing is.
    #[must_use]
    pub const fn range(&self) -> GvaRange {
        self.range
    }

    /// Whether some of them are global, so that a change of address space does not flush them.
    #[must_use]
    pub const fn has_global(&self) -> bool {
        self.global
    }

    /// One token for both, so that both are flushed at once. It covers what lies between them.
    ///
    /// # Errors
    /// Both tokens, if they are of different page tables or of different halves of the address
    /// space.
    pub fn join(self, other: Self) -> core::result::Result<Self, (Self, Self)> {
        let start = self.range.start().min(other.range.start());
        let end = self.range.end().max(other.range.end());
        match GvaRange::from_bounds(start, end) {
            Some(range) if self.root == other.root => Ok(Self {
                root: self.root,
                range,
                global: self.global || other.global,
                epoch: self.epoch.max(other.epoch),
                simulated: self.simulated && other.simulated,
            }),
            _ => Err((self, other)),
        }
    }

    /// States that the flush is done.
    ///
    /// # Safety
    /// No processor holds a translation of [`range`](Self::range) under this page table that is
    /// older than the token, neither of a page nor of a table on the way to it.
    #[expect(
        unsafe_code,
        reason = "the caller vouches for what the processors hold"
    )]
    pub const unsafe fn assume_flushed(self) -> Flushed {
        Flushed(self)
    }

    /// Tables that were made in simulated memory are no processor's.
    #[cfg(any(test, feature = "alloc"))]
    pub(crate) fn into_flushed_if_simulated(self) -> core::result::Result<Flushed, Self> {
        if self.simulated {
            Ok(Flushed(self))
        } else {
            Err(self)
        }
    }
}

/// The proof that translations were flushed.
///
/// Without it nothing is given back:
///
/// ```compile_fail
/// use svsm_mm::table::{Editor, StaleTlb};
///
/// fn too_early<F: svsm_mm::frame::FrameSource, W: svsm_mm::window::Window>(
///     mut editor: Editor<'_, F, W>,
///     stale: StaleTlb,
/// ) {
///     let _ = editor.reclaim(stale);
/// }
/// ```
#[must_use = "frames of what was unmapped are given back by `Editor::reclaim`"]
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Flushed(StaleTlb);

impl Flushed {
    /// The addresses whose translations were flushed.
    #[must_use]
    pub const fn range(&self) -> GvaRange {
        self.0.range
    }

    /// Whether this flush came after everything that was unmapped in the page table with that
    /// root and that number of unmappings: what the range then retires is out of use.
    pub(super) fn check(&self, root: Gpa, epoch: u64) -> Result<()> {
        let latest = self.0.root == root && self.0.epoch == epoch;
        if latest {
            Ok(())
        } else {
            Err(Error::StaleToken)
        }
    }
}

/// Makes all processors forget translations: by IPIs, by INVLPGB, or on one CPU alone.
pub trait Shootdown {
    /// Why it failed.
    type Error;

    /// Flushes what the token names on every CPU that may hold it, and returns when all are done.
    ///
    /// # Errors
    /// The token, and why some CPU may still hold stale translations.
    fn flush(&mut self, stale: StaleTlb) -> core::result::Result<Flushed, (StaleTlb, Self::Error)>;
}

impl<S: Shootdown + ?Sized> Shootdown for &mut S {
    type Error = S::Error;

    fn flush(&mut self, stale: StaleTlb) -> core::result::Result<Flushed, (StaleTlb, S::Error)> {
        (**self).flush(stale)
    }
}

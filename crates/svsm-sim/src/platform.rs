//! The seams of `svsm-platform` on this model, so that code above them runs on a host: page states and rights of a guest
//! whose SVSM is at VMPL0.
//!
//! The host is a value too: [`Honest`] does what it is asked, and a closure may do anything else.

use crate::rmp::{
    Caller, Fault, GuestFailure, HostFailure, Mapping, NewState, PageSize, Permissions, Rmp,
    Validated, Vmpl,
};
use core::fmt;
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::level;
use svsm_platform::seam::{GuestAccess, PageState, Rights, Stopped};

/// Why an operation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// The range does not have 4 KiB bounds.
    Unaligned,
    /// An instruction faulted.
    Fault(Fault),
    /// An instruction did nothing.
    Refused(GuestFailure),
    /// The page had that state already: the host plays with pages.
    Unchanged,
    /// The host says that it did not do what it was asked.
    Host,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned => f.write_str("the range has no whole pages"),
            Self::Fault(fault) => write!(f, "fault: {fault}"),
            Self::Refused(failure) => write!(f, "refused: {failure}"),
            Self::Unchanged => f.write_str("the page had that state already"),
            Self::Host => f.write_str("the host refused"),
        }
    }
}

impl core::error::Error for Error {}

/// The host's part in changes of page states.
pub trait Host {
    /// Makes a page of a guest private, or shared. What it answers is what the guest gets to hear.
    fn change(&mut self, rmp: &mut Rmp<'_>, page: Mapping, private: bool) -> bool;
}

impl<F: FnMut(&mut Rmp<'_>, Mapping, bool) -> bool> Host for F {
    fn change(&mut self, rmp: &mut Rmp<'_>, page: Mapping, private: bool) -> bool {
        self(rmp, page, private)
    }
}

/// A host that does what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Honest {
    /// The guest's number.
    pub asid: u32,
}

impl Honest {
    fn update(self, rmp: &mut Rmp<'_>, page: Mapping, private: bool) -> Result<(), HostFailure> {
        let new = if private {
            NewState::guest(self.asid, page.gpa, page.size)
        } else {
            NewState::hypervisor(page.size)
        };
        rmp.rmpupdate(page.spa, new)
    }
}

impl Host for Honest {
    fn change(&mut self, rmp: &mut Rmp<'_>, page: Mapping, private: bool) -> bool {
        match (self.update(rmp, page, private), page.size) {
            (Ok(()), _) => true,
            // Part of a large page: split that, and try again.
            (Err(HostFailure::Overlap), PageSize::Size4K) => {
                rmp.psmash(large_start(page.spa)).is_ok() && self.update(rmp, page, private).is_ok()
            }
            // Many small pages: one by one.
            (Err(HostFailure::Overlap), PageSize::Size2M) => {
                small_pages(page).all(|part| self.update(rmp, part, private).is_ok())
            }
            (Err(_), _) => false,
        }
    }
}

fn large_start(spa: u64) -> u64 {
    spa & !(PageSize::Size2M.bytes() - 1)
}

fn small_pages(page: Mapping) -> impl Iterator<Item = Mapping> {
    let step = PageSize::Size4K.bytes();
    (0..page.size.bytes() / step).map(move |number| Mapping {
        spa: page.spa + number * step,
        gpa: page.gpa + number * step,
        size: PageSize::Size4K,
    })
}

/// Memory of a guest, as its SVSM sees it. Guest physical address *n* is at system address `base` + *n*.
#[derive(Debug)]
pub struct Memory<'r, 'm, H> {
    /// Who owns what.
    pub rmp: &'r mut Rmp<'m>,
    /// The host.
    pub host: H,
    /// The guest's number.
    pub asid: u32,
    /// Where the guest's memory starts: a multiple of 2 MiB.
    pub base: u64,
}

impl<H> Memory<'_, '_, H> {
    const fn svsm(&self) -> Caller {
        Caller {
            asid: self.asid,
            vmpl: Vmpl::VMPL0,
        }
    }

    fn mapping(&self, gpa: u64, size: PageSize) -> Mapping {
        Mapping {
            spa: self.base.wrapping_add(gpa),
            gpa,
            size,
        }
    }

    /// Executes an instruction of the SVSM; where it meets a larger page, the host splits that and the SVSM tries again.
    fn execute<T>(
        &mut self,
        at: Mapping,
        mut instruction: impl FnMut(&mut Rmp<'_>) -> Result<Result<T, GuestFailure>, Fault>,
    ) -> Result<T, Error> {
        let mut done = instruction(self.rmp);
        if matches!(done, Err(Fault::SizeMismatch)) && self.rmp.psmash(large_start(at.spa)).is_ok()
        {
            done = instruction(self.rmp);
        }
        done.map_err(Error::Fault)?.map_err(Error::Refused)
    }

    fn pvalidate(&mut self, at: Mapping, validate: bool) -> Result<(), Error> {
        let caller = self.svsm();
        let done = self.execute(at, |rmp| rmp.pvalidate(caller, at, at.size, validate))?;
        if matches!(done, Validated { changed: true }) {
            Ok(())
        } else {
            Err(Error::Unchanged)
        }
    }

    fn rmpadjust(&mut self, at: Mapping, target: Vmpl, rights: Permissions) -> Result<(), Error> {
        let caller = self.svsm();
        self.execute(at, |rmp| {
            rmp.rmpadjust(caller, at, at.size, target, rights, false)
        })
    }

    /// Does something to each page of a range, in the largest pages that fit. A large page that turns out to be many small
    /// ones is done one by one.
    fn each(
        &mut self,
        range: GpaRange,
        mut change: impl FnMut(&mut Self, Mapping) -> Result<(), Broken>,
    ) -> Result<(), Stopped<Error>> {
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        if (start | end) % PageSize::Size4K.bytes() != 0 {
            return Err(Stopped::at_start(Error::Unaligned));
        }
        let mut at = start;
        while at < end {
            let large = PageSize::Size2M.aligns(at) && end - at >= PageSize::Size2M.bytes();
            let mut size = if large {
                PageSize::Size2M
            } else {
                PageSize::Size4K
            };
            let mut page = self.mapping(at, size);
            let mut result = change(self, page);
            let smaller = Err(Broken::untouched(Error::Refused(
                GuestFailure::SizeMismatch,
            )));
            if large && result == smaller {
                size = PageSize::Size4K;
                page = self.mapping(at, size);
                result = change(self, page);
            }
            if let Err(broken) = result {
                return Err(Stopped {
                    done_bytes: at - start,
                    doubtful_bytes: if broken.touched { size.bytes() } else { 0 },
                    cause: broken.cause,
                });
            }
            at += size.bytes();
        }
        Ok(())
    }
}

/// A change of one page that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken {
    cause: Error,
    /// Whether the page may be in another state than before.
    touched: bool,
}

impl Broken {
    const fn untouched(cause: Error) -> Self {
        Self {
            cause,
            touched: false,
        }
    }

    const fn touched(cause: Error) -> Self {
        Self {
            cause,
            touched: true,
        }
    }
}

impl<H: Host> PageState for Memory<'_, '_, H> {
    type Error = Error;

    fn accept(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        self.each(range, |memory, page| {
            memory.pvalidate(page, true).map_err(Broken::untouched)
        })
    }

    fn release(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        self.each(range, |memory, page| {
            memory.pvalidate(page, false).map_err(Broken::untouched)
        })
    }

    fn make_shared(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        self.each(range, |memory, page| {
            memory.pvalidate(page, false).map_err(Broken::untouched)?;
            if memory.host.change(memory.rmp, page, false) {
                Ok(())
            } else {
                Err(Broken::touched(Error::Host))
            }
        })
    }

    fn make_private(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        self.each(range, |memory, page| {
            if !memory.host.change(memory.rmp, page, true) {
                return Err(Broken::touched(Error::Host));
            }
            match memory.pvalidate(page, true) {
                // The host gave it in smaller pages.
                Err(Error::Refused(GuestFailure::SizeMismatch)) => small_pages(page)
                    .try_for_each(|part| memory.pvalidate(part, true))
                    .map_err(Broken::touched),
                done => done.map_err(Broken::touched),
            }
        })
    }
}

fn below(level: level::Vmpl) -> Result<Vmpl, Error> {
    Vmpl::new(level.as_u8()).ok_or(Error::Refused(GuestFailure::Input))
}

impl<H> GuestAccess for Memory<'_, '_, H> {
    type Level = level::Vmpl;
    type Error = Error;

    fn grant(
        &mut self,
        range: GpaRange,
        level: level::Vmpl,
        rights: Rights,
    ) -> Result<(), Stopped<Error>> {
        let target = below(level).map_err(Stopped::at_start)?;
        // Both sides number rights as the processor does.
        let rights = Permissions::from_bits_truncate(rights.bits());
        self.each(range, |memory, page| {
            memory
                .rmpadjust(page, target, rights)
                .map_err(Broken::untouched)
        })
    }

    fn revoke(&mut self, range: GpaRange, level: level::Vmpl) -> Result<(), Stopped<Error>> {
        self.grant(range, level, Rights::empty())
    }

    fn rights(&mut self, page: Gpa, level: level::Vmpl) -> Result<Rights, Error> {
        let (caller, target) = (self.svsm(), below(level)?);
        let at = self.mapping(page.as_u64() & !0xfff, PageSize::Size4K);
        let found = self
            .rmp
            .rmpquery(caller, at, target)
            .map_err(Error::Fault)?
            .map_err(Error::Refused)?;
        Ok(Rights::from_bits_truncate(found.permissions.bits()))
    }
}

//! A program of the archive: which memory its ELF file asks for. A plan only; the firmware carries
//! it out.
//!
//! Programs are static x86-64 executables that are linked at their final addresses. Everything else
//! is refused with a [`ProgramError`] that says what and where, before a single page is taken.

mod error;

use core::fmt;

use elf::{ElfBytes, abi, endian::LittleEndian, segment::ProgramHeader};
pub use error::ProgramError;
use svsm_platform::addr::{Gva, GvaRange, PageCount, PageSize};

use crate::memory::USER_END;

/// What a program may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Where programs may lie. It does not reach beyond [`USER_END`] even if this does.
    pub space: GvaRange,
    /// How many pages all of its segments may have.
    pub pages: PageCount,
}

/// What a program may do with the pages of a segment. Reading is always allowed, writing and
/// executing never together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Rights {
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read and execute.
    Execute,
}

/// One segment: pages with the same rights, and what they start with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    pages: GvaRange,
    data_at: Gva,
    data: &'a [u8],
    rights: Rights,
}

/// How many segments a program may have. Linkers make four.
pub const MAX_SEGMENTS: usize = 16;

/// A program whose file was found to be in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    segments: [Option<Segment<'a>>; MAX_SEGMENTS],
    entry: Gva,
    pages: PageCount,
    stack_bytes: Option<u64>,
}

impl<'a> Program<'a> {
    /// Looks at all of a file's headers.
    ///
    /// # Errors
    /// The first reason why this is no program that may run.
    pub fn plan(file: &'a [u8], limits: &Limits) -> Result<Self, ProgramError> {
        let elf =
            ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| ProgramError::Format)?;
        let header = &elf.ehdr;
        if (header.class, header.e_machine, header.e_type)
            != (elf::file::Class::ELF64, abi::EM_X86_64, abi::ET_EXEC)
        {
            return Err(ProgramError::Kind {
                machine: header.e_machine,
                kind: header.e_type,
            });
        }
        let table = elf.segments().ok_or(ProgramError::NoSegments)?;
        let entry = Gva::new(header.e_entry).ok_or(ProgramError::Entry(header.e_entry))?;
        let mut plan = Self {
            segments: [None; MAX_SEGMENTS],
            entry,
            pages: PageCount::ZERO,
            stack_bytes: None,
        };
        let mut count = 0;
        for (index, header) in table.iter().enumerate() {
            match header.p_type {
                abi::PT_LOAD if header.p_memsz > 0 => {
                    let segment = Segment::plan(file, &header, index, limits)?;
                    plan.add(segment, index, count, limits)?;
                    count += 1;
                }
                abi::PT_GNU_STACK if header.p_memsz > 0 => plan.stack_bytes = Some(header.p_memsz),
                // Nobody here would relocate it or give it thread-local storage.
                abi::PT_INTERP | abi::PT_DYNAMIC | abi::PT_TLS => {
                    return Err(ProgramError::NotStatic { segment: index });
                }
                _ => {}
            }
        }
        if count == 0 {
            return Err(ProgramError::NoSegments);
        }
        let starts_in_code = |segment: &Segment<'_>| {
            segment.rights == Rights::Execute && segment.pages.contains(plan.entry)
        };
        if !plan.segments().any(|segment| starts_in_code(&segment)) {
            return Err(ProgramError::Entry(header.e_entry));
        }
        Ok(plan)
    }

    /// Its segments, in the order of the file. Their pages don't overlap.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + '_ {
        self.segments.iter().copied().flatten()
    }

    /// Where it starts.
    #[must_use]
    pub const fn entry(&self) -> Gva {
        self.entry
    }

    /// How much stack it asks for (the size of its `PT_GNU_STACK` header), which nobody has promised.
    #[must_use]
    pub const fn stack_bytes(&self) -> Option<u64> {
        self.stack_bytes
    }

    /// How many pages its segments have.
    #[must_use]
    pub const fn pages(&self) -> PageCount {
        self.pages
    }

    fn add(
        &mut self,
        segment: Segment<'a>,
        index: usize,
        count: usize,
        limits: &Limits,
    ) -> Result<(), ProgramError> {
        if self
            .segments()
            .any(|other| other.pages.overlaps(&segment.pages))
        {
            return Err(ProgramError::Overlap { segment: index });
        }
        let pages = PageCount::covering(segment.pages.len_bytes(), PageSize::Size4K);
        self.pages = self
            .pages
            .checked_add(pages)
            .filter(|pages| *pages <= limits.pages)
            .ok_or(ProgramError::TooBig { segment: index })?;
        let place = self
            .segments
            .get_mut(count)
            .ok_or(ProgramError::TooManySegments)?;
        *place = Some(segment);
        Ok(())
    }
}

impl<'a> Segment<'a> {
    fn plan(
        file: &'a [u8],
        header: &ProgramHeader,
        index: usize,
        limits: &Limits,
    ) -> Result<Self, ProgramError> {
        let outside = ProgramError::Outside { segment: index };
        let bytes = Gva::new(header.p_vaddr)
            .and_then(|start| GvaRange::new(start, header.p_memsz))
            .ok_or(outside)?;
        let pages = bytes
            .grow_to(PageSize::Size4K)
            .filter(|pages| limits.space.contains_range(pages) && pages.end().as_u64() <= USER_END)
            .ok_or(outside)?;
        let (from, length) = (
            usize::try_from(header.p_offset),
            usize::try_from(header.p_filesz),
        );
        let data = match (from, length) {
            (Ok(from), Ok(length)) => from.checked_add(length).and_then(|end| file.get(from..end)),
            _ => None,
        };
        let data = data
            .filter(|_| header.p_filesz <= header.p_memsz)
            .ok_or(ProgramError::Data { segment: index })?;
        let rights = match (
            header.p_flags & abi::PF_W != 0,
            header.p_flags & abi::PF_X != 0,
        ) {
            (false, false) => Rights::Read,
            (true, false) => Rights::Write,
            (false, true) => Rights::Execute,
            (true, true) => return Err(ProgramError::WritableCode { segment: index }),
        };
        Ok(Self {
            pages,
            data_at: bytes.start(),
            data,
            rights,
        })
    }

    /// Its pages.
    #[must_use]
    pub const fn pages(&self) -> GvaRange {
        self.pages
    }

    /// What the program may do with them.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// What one of its 4 KiB pages starts with: that many zero bytes, then these; zeros fill the
    /// rest.
    #[must_use]
    pub fn contents(&self, page: Gva) -> (usize, &'a [u8]) {
        let page_bytes = PageSize::Size4K.bytes();
        // Of the data, how much lies before this page; or of this page, how much before the data.
        let (skip, lead) = match page.as_u64().checked_sub(self.data_at.as_u64()) {
            Some(skip) => (skip, 0),
            None => (0, self.data_at.as_u64() - page.as_u64()),
        };
        let room = page_bytes.saturating_sub(lead);
        let start = usize::try_from(skip)
            .unwrap_or(usize::MAX)
            .min(self.data.len());
        let length = usize::try_from(room)
            .unwrap_or(0)
            .min(self.data.len() - start);
        let lead = usize::try_from(lead.min(page_bytes)).unwrap_or(0);
        (
            lead,
            self.data.get(start..start + length).unwrap_or_default(),
        )
    }
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("pages", &self.pages)
            .field("rights", &self.rights)
            .field("data_at", &self.data_at)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;

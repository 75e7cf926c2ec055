//! Statically linked ELF programs, read with distrust.
//!
//! An [`Executable`] is what an image may contain: x86-64, linked at fixed
//! addresses, no page both writable and executable, nothing that would need a
//! dynamic loader. Anything else is refused with the place where it says so.

use core::fmt;
use core::ops::Range;

use elf::ElfBytes;
use elf::abi;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::Note;
use elf::segment::ProgramHeader;

use crate::{PAGE_BYTES, PAGE_SIZE, PageContents};

mod fault;

pub use fault::{ElfFault, Malformed};

/// Program headers that a file may have. Linkers write about a dozen.
const MAX_PROGRAM_HEADERS: usize = 64;

/// What code may do with a segment's pages. Reading is always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rights {
    /// Only read.
    Read,
    /// Read and write.
    Write,
    /// Read and execute.
    Execute,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "r--",
            Self::Write => "rw-",
            Self::Execute => "r-x",
        })
    }
}

/// A loadable segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    address: u64,
    memory_bytes: u64,
    data: &'a [u8],
    rights: Rights,
}

impl<'a> Segment<'a> {
    /// The virtual address of the first byte; need not be aligned.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// The bytes in memory; those that the file does not give are zero.
    #[must_use]
    pub const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The bytes that the file gives, at most [`memory_bytes`](Self::memory_bytes).
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// What code may do with the segment.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// The addresses of the whole pages that the segment touches. No other
    /// segment touches them.
    #[must_use]
    pub const fn pages(&self) -> Range<u64> {
        let start = self.address & !(PAGE_BYTES - 1);
        // Cannot overflow: `read` refused segments that end in the last page.
        let end = (self.address + self.memory_bytes + PAGE_BYTES - 1) & !(PAGE_BYTES - 1);
        start..end
    }

    /// The contents of the page at `address`, an address in
    /// [`pages`](Self::pages), padded with zeros.
    #[must_use]
    pub fn page(&self, address: u64) -> PageContents {
        let mut page = [0; PAGE_SIZE];
        let page_start = address & !(PAGE_BYTES - 1);
        // Where the page's first byte lies in the segment, and the other way
        // around; one of them is zero.
        let skip_data = page_start.saturating_sub(self.address);
        let skip_page = self.address.saturating_sub(page_start);
        let data = usize::try_from(skip_data)
            .ok()
            .and_then(|skip| self.data.get(skip..));
        let room = usize::try_from(skip_page)
            .ok()
            .and_then(|skip| page.get_mut(skip..));
        if let (Some(data), Some(room)) = (data, room) {
            for (to, from) in room.iter_mut().zip(data) {
                *to = *from;
            }
        }
        page
    }
}

/// A program that may go into an image.
#[derive(Clone, Debug)]
pub struct Executable<'a> {
    bytes: &'a [u8],
    entry: u64,
    segments: Vec<Segment<'a>>,
    /// How much of the file the program headers refer to.
    used_bytes: usize,
    build_id: Option<&'a [u8]>,
}

impl<'a> Executable<'a> {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// An [`ElfFault`] says which rule the file breaks, and where.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ElfFault> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(ElfFault::malformed)?;
        if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != abi::EM_X86_64 {
            return Err(ElfFault::NotX86_64 {
                machine: elf.ehdr.e_machine,
            });
        }
        if elf.ehdr.e_type != abi::ET_EXEC {
            return Err(ElfFault::NotStatic {
                file_type: elf.ehdr.e_type,
            });
        }
        let headers = elf.segments().ok_or(ElfFault::NoSegments)?;
        if headers.len() > MAX_PROGRAM_HEADERS {
            return Err(ElfFault::TooManyHeaders {
                count: headers.len(),
            });
        }

        let mut segments: Vec<(usize, Segment<'a>)> = Vec::new();
        let table_bytes = headers
            .len()
            .saturating_mul(usize::from(elf.ehdr.e_phentsize));
        let mut used_bytes = usize::try_from(elf.ehdr.e_phoff)
            .unwrap_or(usize::MAX)
            .saturating_add(table_bytes)
            .max(usize::from(elf.ehdr.e_ehsize));
        for (index, header) in headers.iter().enumerate() {
            let data = file_data(bytes, index, &header)?;
            match header.p_type {
                abi::PT_LOAD if header.p_memsz != 0 || header.p_filesz != 0 => {
                    segments.push((index, segment(index, &header, data)?));
                }
                abi::PT_INTERP | abi::PT_DYNAMIC => {
                    return Err(ElfFault::NeedsLinker { index });
                }
                abi::PT_TLS if header.p_memsz != 0 => {
                    return Err(ElfFault::ThreadLocal { index });
                }
                _ => {}
            }
            // Also of a header without bytes: loaders may ask that it starts in the file.
            let end = header.p_offset.saturating_add(header.p_filesz);
            used_bytes = used_bytes.max(usize::try_from(end).unwrap_or(usize::MAX));
        }
        if segments.is_empty() {
            return Err(ElfFault::NoSegments);
        }

        segments.sort_by_key(|(_, segment)| segment.address);
        for pair in segments.windows(2) {
            if let [(first, low), (second, high)] = pair
                && low.pages().end > high.pages().start
            {
                return Err(ElfFault::Overlap {
                    first: *first,
                    second: *second,
                    page: high.pages().start,
                });
            }
        }

        let entry = elf.ehdr.e_entry;
        let in_code = |(_, segment): &(usize, Segment<'_>)| {
            segment.rights == Rights::Execute
                && entry
                    .checked_sub(segment.address)
                    .is_some_and(|at| at < segment.memory_bytes)
        };
        if !segments.iter().any(in_code) {
            return Err(ElfFault::EntryNotExecutable { entry });
        }

        Ok(Self {
            bytes,
            entry,
            segments: segments.into_iter().map(|(_, segment)| segment).collect(),
            used_bytes: used_bytes.min(bytes.len()),
            build_id: build_id(&elf),
        })
    }

    /// The address of the first instruction, in an executable segment.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// The loadable segments by rising address; no two touch one page.
    #[must_use]
    pub fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// The addresses from the first page to the last.
    #[must_use]
    pub fn pages(&self) -> Range<u64> {
        let start = self
            .segments
            .first()
            .map_or(0, |segment| segment.pages().start);
        let end = self
            .segments
            .last()
            .map_or(0, |segment| segment.pages().end);
        start..end
    }

    /// Refuses a program that has a segment outside of `region`.
    ///
    /// # Errors
    /// [`ElfFault::OutsideRegion`] names the first such segment.
    pub fn within(&self, region: Range<u64>) -> Result<(), ElfFault> {
        let outside = self.segments.iter().find(|segment| {
            let pages = segment.pages();
            pages.start < region.start || pages.end > region.end
        });
        outside.map_or(Ok(()), |segment| {
            Err(ElfFault::OutsideRegion {
                start: segment.address,
                end: segment.address + segment.memory_bytes,
                region: (region.start, region.end),
            })
        })
    }

    /// The linker's build id, by which logs and stack traces find the file again.
    #[must_use]
    pub const fn build_id(&self) -> Option<&'a [u8]> {
        self.build_id
    }

    /// The file without what only debuggers read: everything past the last byte
    /// that a program header refers to, and the section headers.
    #[must_use]
    pub fn stripped(&self) -> Vec<u8> {
        let mut file = self
            .bytes
            .get(..self.used_bytes)
            .unwrap_or(self.bytes)
            .to_vec();
        // ELF-64 header: e_shoff at 40; e_shentsize, e_shnum, e_shstrndx at 58.
        for field in [40..48, 58..64] {
            if let Some(field) = file.get_mut(field) {
                field.fill(0);
            }
        }
        file
    }
}

/// The file's bytes of one program header.
fn file_data<'a>(
    bytes: &'a [u8],
    index: usize,
    header: &ProgramHeader,
) -> Result<&'a [u8], ElfFault> {
    let outside = ElfFault::OutsideFile {
        index,
        offset: header.p_offset,
        bytes: header.p_filesz,
        file_bytes: bytes.len(),
    };
    let end = header
        .p_offset
        .checked_add(header.p_filesz)
        .ok_or(outside)?;
    let range = usize::try_from(header.p_offset)
        .ok()
        .zip(usize::try_from(end).ok());
    range
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or(outside)
}

/// Checks one PT_LOAD header by itself.
fn segment<'a>(
    index: usize,
    header: &ProgramHeader,
    data: &'a [u8],
) -> Result<Segment<'a>, ElfFault> {
    if header.p_filesz > header.p_memsz {
        return Err(ElfFault::MoreFileThanMemory {
            index,
            file_bytes: header.p_filesz,
            memory_bytes: header.p_memsz,
        });
    }
    // The last page of the address space stays free, so that ends of pages can
    // be computed without wrapping.
    let end = header.p_vaddr.checked_add(header.p_memsz);
    if end.is_none_or(|end| end > u64::MAX - PAGE_BYTES) {
        return Err(ElfFault::Wraps {
            index,
            start: header.p_vaddr,
            bytes: header.p_memsz,
        });
    }
    let rights = match (
        header.p_flags & abi::PF_W != 0,
        header.p_flags & abi::PF_X != 0,
    ) {
        (true, true) => {
            return Err(ElfFault::WritableAndExecutable {
                index,
                start: header.p_vaddr,
            });
        }
        (true, false) => Rights::Write,
        (false, true) => Rights::Execute,
        (false, false) => Rights::Read,
    };
    Ok(Segment {
        address: header.p_vaddr,
        memory_bytes: header.p_memsz,
        data,
        rights,
    })
}

/// The build id from the note segments, or else from the section of that name.
fn build_id<'a>(elf: &ElfBytes<'a, LittleEndian>) -> Option<&'a [u8]> {
    let in_notes = |note: Note<'a>| match note {
        Note::GnuBuildId(id) => Some(id.0),
        _ => None,
    };
    let from_segments = elf.segments().and_then(|headers| {
        headers
            .iter()
            .filter(|header| header.p_type == abi::PT_NOTE)
            .filter_map(|header| elf.segment_data_as_notes(&header).ok())
            .find_map(|mut notes| notes.find_map(in_notes))
    });
    from_segments.or_else(|| {
        let header = elf
            .section_header_by_name(".note.gnu.build-id")
            .ok()
            .flatten()?;
        elf.section_data_as_notes(&header).ok()?.find_map(in_notes)
    })
}

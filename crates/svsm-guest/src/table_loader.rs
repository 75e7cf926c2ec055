//! ACPI tables that a host has made, put together as its script says (QEMU, `bios-linker-loader`): files to load, pointers between
//! them, and checksums.
//!
//! Script and files are the host's word. Everything is copied before it is looked at, and nothing that the script says reaches
//! beyond the copy. What the tables say to a kernel is another matter: they have code (AML) that the kernel runs.

use crate::error::{Error, Result, TableFault};
use crate::fw_cfg::{File, FwCfg, Name, Ports};

/// The most bytes that the files may take together.
pub const MAX_BYTES: usize = 1 << 20;

/// The most bytes that the script may take.
pub const MAX_SCRIPT_BYTES: usize = 16 << 10;

/// The most files.
const MAX_FILES: usize = 16;
/// The file with the script.
const SCRIPT: &str = "etc/table-loader";
/// The file with the root pointer.
const ROOT: &str = "etc/acpi/rsdp";
const ENTRY: usize = 128;
/// The most that a file may ask its address to be a multiple of.
const MAX_ALIGN: usize = 4096;
/// Root pointer and tables of ACPI 1.0 end here; those of later versions go on.
const ROOT_BYTES: usize = 20;
const ROOT_2_BYTES: usize = 36;
const HEADER_BYTES: usize = 36;

/// A line of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Load this file.
    Allocate { file: Name, align: usize },
    /// Add the address of `source` to so many bytes at `offset` of `target`.
    Point {
        target: Name,
        source: Name,
        offset: usize,
        size: usize,
    },
    /// Make all bytes of a part of `file` add up to zero with the one at `at`.
    Sum {
        file: Name,
        at: usize,
        start: usize,
        len: usize,
    },
    /// Nothing that tables need: the host would like to know an address.
    Tell,
    /// Nothing, or what nobody knows.
    Nothing,
}

impl Step {
    fn read(entry: &[u8; ENTRY]) -> Self {
        let word = |at: usize| {
            let bytes = entry.get(at..).and_then(<[u8]>::first_chunk);
            u32::from_le_bytes(bytes.copied().unwrap_or_default())
        };
        let size = |at| usize::try_from(word(at)).unwrap_or(usize::MAX);
        let name = |at: usize| {
            let bytes = entry.get(at..).and_then(<[u8]>::first_chunk);
            Name::of(bytes.unwrap_or(&[0; Name::BYTES]))
        };
        match word(0) {
            1 => Self::Allocate {
                file: name(4),
                align: size(60),
            },
            2 => Self::Point {
                target: name(4),
                source: name(60),
                offset: size(116),
                size: entry.get(120).copied().unwrap_or_default().into(),
            },
            3 => Self::Sum {
                file: name(4),
                at: size(60),
                start: size(64),
                len: size(68),
            },
            4 => Self::Tell,
            _ => Self::Nothing,
        }
    }
}

/// A file that is loaded.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    name: Name,
    file: File,
    /// Where it starts, from the first file's start on.
    start: usize,
    len: usize,
}

/// What a host has for a guest: the files are known, and not loaded yet.
#[derive(Debug)]
pub struct HostTables<'s> {
    script: &'s [u8],
    files: [Option<Loaded>; MAX_FILES],
    bytes: usize,
}

impl<'s> HostTables<'s> {
    /// Looks what there is; `None` if the host has no script, or an empty one. The script's copy is put into `room`, which should
    /// have [`MAX_SCRIPT_BYTES`].
    ///
    /// # Errors
    /// [`Error::HostTables`] for a script or files that cannot be, [`Error::Host`] if the host does not answer.
    pub fn survey<P: Ports>(device: &mut FwCfg<P>, room: &'s mut [u8]) -> Result<Option<Self>> {
        let Some(script) = find(device, Name::new(SCRIPT))? else {
            return Ok(None);
        };
        let len = usize::try_from(script.len()).unwrap_or(usize::MAX);
        let room = room.get_mut(..len).filter(|_| len % ENTRY == 0);
        let room = room.ok_or(Error::HostTables(TableFault::Script))?;
        device.read(script, room).map_err(|_| Error::Host)?;
        let mut tables = Self {
            script: room,
            files: [None; MAX_FILES],
            bytes: 0,
        };
        for step in tables.steps() {
            if let Step::Allocate { file, align } = step {
                tables.allocate(file, align, device)?;
            }
        }
        match tables.files.first() {
            Some(Some(_)) => Ok(Some(tables)),
            _ => Ok(None),
        }
    }

    /// Bytes that the tables take.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Loads the files into `out` and carries out the script, for tables that will lie at `at`, a multiple of 4096. Answers how
    /// far from there the root pointer is.
    ///
    /// # Errors
    /// [`Error::HostTables`] if `out` has not [`bytes`](Self::bytes), the script reaches beyond its files, or what it leaves has no
    /// root, [`Error::Host`] if the host does not answer. Nothing of `out` may be used then.
    pub fn load<P: Ports>(&self, device: &mut FwCfg<P>, out: &mut [u8], at: u64) -> Result<u64> {
        let out = out.get_mut(..self.bytes);
        let out = out.ok_or(Error::HostTables(TableFault::Size))?;
        out.fill(0);
        for file in self.files.iter().flatten() {
            let room = out.get_mut(file.start..file.start + file.len);
            let room = room.ok_or(Error::HostTables(TableFault::Size))?;
            device.read(file.file, room).map_err(|_| Error::Host)?;
        }
        for step in self.steps() {
            match step {
                Step::Point {
                    target,
                    source,
                    offset,
                    size,
                } => self.point(out, at, target, source, offset, size)?,
                Step::Sum {
                    file,
                    at,
                    start,
                    len,
                } => self.sum(out, file, at, start, len)?,
                Step::Allocate { .. } | Step::Tell | Step::Nothing => {}
            }
        }
        let root = self.loaded(Name::new(ROOT))?;
        check_root(out, at, root)?;
        Ok(root.start as u64)
    }

    fn steps(&self) -> impl Iterator<Item = Step> + use<'s> {
        let (entries, _) = self.script.as_chunks::<ENTRY>();
        entries.iter().map(Step::read)
    }

    fn allocate<P: Ports>(
        &mut self,
        name: Name,
        align: usize,
        device: &mut FwCfg<P>,
    ) -> Result<()> {
        let align = align.max(1);
        if !align.is_power_of_two() || align > MAX_ALIGN || self.loaded(name).is_ok() {
            return Err(Error::HostTables(TableFault::File));
        }
        let file = find(device, name)?.ok_or(Error::HostTables(TableFault::File))?;
        let len = usize::try_from(file.len()).unwrap_or(usize::MAX);
        let start = self.bytes.next_multiple_of(align);
        let end = start.checked_add(len).filter(|end| *end <= MAX_BYTES);
        let too_much = Error::HostTables(TableFault::Size);
        let end = end.ok_or(too_much)?;
        let mut free = self.files.iter_mut().filter(|place| place.is_none());
        *free.next().ok_or(too_much)? = Some(Loaded {
            name,
            file,
            start,
            len,
        });
        self.bytes = end;
        Ok(())
    }

    fn loaded(&self, name: Name) -> Result<Loaded> {
        let mut files = self.files.iter().flatten();
        let file = files.find(|file| file.name == name && !name.is_empty());
        file.copied().ok_or(Error::HostTables(TableFault::Reach))
    }

    /// A part of a file's copy.
    fn part<'o>(
        &self,
        out: &'o mut [u8],
        name: Name,
        start: usize,
        len: usize,
    ) -> Result<&'o mut [u8]> {
        let file = self.loaded(name)?;
        let end = start.checked_add(len).filter(|end| *end <= file.len);
        end.and_then(|end| out.get_mut(file.start + start..file.start + end))
            .ok_or(Error::HostTables(TableFault::Reach))
    }

    fn point(
        &self,
        out: &mut [u8],
        at: u64,
        target: Name,
        source: Name,
        offset: usize,
        size: usize,
    ) -> Result<()> {
        let nowhere = Error::HostTables(TableFault::Pointer);
        if !matches!(size, 1 | 2 | 4 | 8) {
            return Err(nowhere);
        }
        let source = self.loaded(source)?;
        let place = self.part(out, target, offset, size)?;
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(place.iter()) {
            *to = *from;
        }
        let address = at + source.start as u64;
        // Only offsets into the file make sense, and only addresses that the place can hold.
        let offset = u64::from_le_bytes(word);
        let sum = address
            .checked_add(offset)
            .filter(|_| offset < source.len as u64)
            .filter(|sum| size == 8 || sum >> (8 * size) == 0)
            .ok_or(nowhere)?;
        for (to, from) in place.iter_mut().zip(sum.to_le_bytes()) {
            *to = from;
        }
        Ok(())
    }

    fn sum(&self, out: &mut [u8], name: Name, at: usize, start: usize, len: usize) -> Result<()> {
        let part = self.part(out, name, start, len)?;
        let sum = part.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let [place] = self.part(out, name, at, 1)? else {
            return Err(Error::HostTables(TableFault::Reach));
        };
        *place = place.wrapping_sub(sum);
        Ok(())
    }
}

/// Checks that there is a root pointer, and that the table to which it points is among what was loaded.
fn check_root(out: &[u8], at: u64, root: Loaded) -> Result<()> {
    let bytes = out.get(root.start..root.start + root.len);
    let none = Error::HostTables(TableFault::Root);
    let bytes = bytes.ok_or(none)?;
    let adds_up = |len: usize| {
        let part = bytes.get(..len).unwrap_or(&[1]);
        part.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    };
    if !bytes.starts_with(b"RSD PTR ") || !adds_up(ROOT_BYTES) {
        return Err(none);
    }
    let word = |offset: usize| bytes.get(offset..).and_then(<[u8]>::first_chunk::<4>);
    let old = word(16).map_or(0, |word| u64::from(u32::from_le_bytes(*word)));
    let new = bytes.get(24..).and_then(<[u8]>::first_chunk::<8>);
    let (table, signature) = match (bytes.get(15), new) {
        (Some(2..), Some(new)) if *new != [0; 8] => {
            if !adds_up(ROOT_2_BYTES) {
                return Err(none);
            }
            (u64::from_le_bytes(*new), b"XSDT")
        }
        _ => (old, b"RSDT"),
    };
    let start = table
        .checked_sub(at)
        .and_then(|start| usize::try_from(start).ok());
    let table = start
        .and_then(|start| out.get(start..)?.get(..HEADER_BYTES))
        .ok_or(none)?;
    match table.starts_with(signature) {
        true => Ok(()),
        false => Err(none),
    }
}

fn find<P: Ports>(device: &mut FwCfg<P>, name: Name) -> Result<Option<File>> {
    device.file(name).map_err(|_| Error::Host)
}

#[cfg(test)]
mod tests;

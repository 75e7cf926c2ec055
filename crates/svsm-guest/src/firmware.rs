//! Guest firmware (OVMF): what it says of itself, and the memory that it expects of who starts it.
//!
//! A firmware image ends at 4 GiB. A table of entries, each with a GUID, ends 32 bytes before that; one entry leads to the
//! list of pages that SEV-SNP firmware needs before its first instruction.

use crate::error::{Error, Result};

const PAGE: u32 = 4096;
const FOUR_GIB: u64 = 1 << 32;
/// What lies behind the table: the reset vector.
const BEHIND_TABLE: usize = 0x20;
const GUID_BYTES: usize = 16;
/// A GUID, and the length in front of it.
const TAIL: usize = GUID_BYTES + 2;
/// Magic, length, version, count.
const DESCRIPTOR: usize = 16;
const SECTION: usize = 12;
const LARGEST: usize = 16 << 20;

/// The most sections that a list may have.
pub const MAX_SECTIONS: usize = 64;

/// A GUID as firmware stores it: the first three groups in little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; GUID_BYTES]);

impl Guid {
    /// The last entry, which holds the length of the table.
    pub const FOOTER: Self = Self::new(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
    /// Where the list for SEV-SNP is.
    pub const SEV_METADATA: Self = Self::new(0xdc88_6566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
    /// Where the list for TDX is.
    pub const TDX_METADATA: Self = Self::new(0xe47a_6535, 0x984a, 0x4798, 0x865e_4685_a7bf_8ec2);
    /// Where another processor starts (SEV-ES).
    pub const RESET_BLOCK: Self = Self::new(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);
    /// Where digests of a kernel go that the loader brings.
    pub const HASH_TABLE: Self = Self::new(0x7255_371f, 0x3a3b, 0x4b04, 0x927b_1da6_efa8_d454);
    /// Where a secret of the guest's owner goes.
    pub const LAUNCH_SECRET: Self = Self::new(0x4c2e_b361, 0x7d9b, 0x4cc3, 0x8081_127c_90d3_d294);

    /// The GUID `a-b-c-d`, with the last two groups in one.
    #[must_use]
    pub const fn new(a: u32, b: u16, c: u16, d: u64) -> Self {
        let (a, b, c, d) = (
            a.to_le_bytes(),
            b.to_le_bytes(),
            c.to_le_bytes(),
            d.to_be_bytes(),
        );
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ])
    }
}

/// What a page of a section is to hold before the firmware's first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contents {
    /// Zeroes.
    Zero,
    /// The secrets page, one page.
    Secrets,
    /// The CPUID table, one page.
    Cpuid,
    /// Zeroes: the first processor's calling area, one page.
    CallingArea,
    /// The digests of a kernel, or zeroes.
    KernelHashes,
}

/// Memory that the firmware finds validated (a section of the list "ASEV"). Whole pages, below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The first byte.
    pub gpa: u32,
    /// How many bytes.
    pub bytes: u32,
    /// What is in it.
    pub contents: Contents,
}

impl Section {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let [gpa, len, kind] = [0, 4, 8].map(|at| word(bytes, at));
        let (gpa, len) = (gpa?, len?);
        let (contents, is_one_page) = match kind? {
            1 => (Contents::Zero, false),
            2 => (Contents::Secrets, true),
            3 => (Contents::Cpuid, true),
            4 => (Contents::CallingArea, true),
            0x10 => (Contents::KernelHashes, false),
            other => return Err(Error::SectionType(other)),
        };
        let is_whole = len != 0 && gpa.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
        if !is_whole || is_one_page && len != PAGE || gpa.checked_add(len).is_none() {
            return Err(Error::Section(gpa));
        }
        Ok(Self {
            gpa,
            bytes: len,
            contents,
        })
    }

    /// The first byte behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.gpa as u64 + self.bytes as u64
    }

    const fn overlaps(&self, other: &Self) -> bool {
        (self.gpa as u64) < other.end() && (other.gpa as u64) < self.end()
    }
}

/// Where processors other than the first start, in real mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApStart {
    /// IP
    pub ip: u16,
    /// The base of CS.
    pub cs_base: u32,
}

/// A firmware image whose table was checked.
#[derive(Clone, Copy, Debug)]
pub struct Firmware<'a> {
    file: &'a [u8],
    /// The table without its footer.
    table: &'a [u8],
}

impl<'a> Firmware<'a> {
    /// Checks an image: its size, its table to the last entry, and what the list for SEV-SNP asks for, if there is one.
    ///
    /// # Errors
    /// [`Error::NotFirmware`] for a file that is not whole pages, larger than 16 MiB, or has no table;
    /// [`Error::FirmwareTable`] for a table or a list that does not add up; [`Error::SectionType`] and [`Error::Section`] for
    /// a section that nobody knows, that is not whole pages below 4 GiB, or that overlaps another one or the image.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        if !file.len().is_multiple_of(PAGE as usize) || file.len() > LARGEST {
            return Err(Error::NotFirmware);
        }
        let front = file.len().checked_sub(BEHIND_TABLE);
        let front = front.and_then(|len| file.get(..len));
        let front = front.ok_or(Error::NotFirmware)?;
        let (rest, length) = tail(front).ok_or(Error::NotFirmware)?;
        if !front.ends_with(&Guid::FOOTER.0) {
            return Err(Error::NotFirmware);
        }
        // The length counts the footer.
        let entries = length.checked_sub(TAIL).ok_or(Error::FirmwareTable)?;
        let start = rest.len().checked_sub(entries);
        let table = start.and_then(|start| rest.get(start..));
        let firmware = Self {
            file,
            table: table.ok_or(Error::FirmwareTable)?,
        };
        let mut walk = firmware.entries();
        walk.by_ref().for_each(drop);
        if !walk.0.is_empty() {
            return Err(Error::FirmwareTable);
        }
        firmware.check_sections()?;
        Ok(firmware)
    }

    /// Checks an image that is to start below an SVSM.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse); [`Error::NotForSnp`] without a place for secrets or for the CPUID table,
    /// [`Error::KnowsNoSvsm`] without one for a calling area, [`Error::Section`] for a second place for one of them.
    pub fn for_svsm(file: &'a [u8]) -> Result<Self> {
        let firmware = Self::parse(file)?;
        for (contents, missing) in [
            (Contents::Secrets, Error::NotForSnp),
            (Contents::Cpuid, Error::NotForSnp),
            (Contents::CallingArea, Error::KnowsNoSvsm),
        ] {
            let mut places = firmware
                .sections()
                .filter(|section| section.contents == contents);
            places.next().ok_or(missing)?;
            if let Some(second) = places.next() {
                return Err(Error::Section(second.gpa));
            }
        }
        Ok(firmware)
    }

    fn check_sections(&self) -> Result<()> {
        let bytes = self.section_bytes()?;
        let sections = || bytes.chunks_exact(SECTION).map(Section::parse);
        for (n, section) in sections().enumerate() {
            let section = section?;
            let mut later = sections().skip(n + 1).flatten();
            if section.end() > self.base() || later.any(|other| section.overlaps(&other)) {
                return Err(Error::Section(section.gpa));
            }
        }
        Ok(())
    }

    /// The image.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.file
    }

    /// The guest physical address of its first byte: it ends at 4 GiB.
    #[must_use]
    pub const fn base(&self) -> u64 {
        FOUR_GIB - self.file.len() as u64
    }

    /// The entries of the table, the last one first.
    pub fn entries(&self) -> Entries<'a> {
        Entries(self.table)
    }

    /// The data of the first entry with this GUID.
    #[must_use]
    pub fn entry(&self, guid: Guid) -> Option<&'a [u8]> {
        self.entries()
            .find_map(|(found, data)| (found == guid).then_some(data))
    }

    /// Whether it can start as a guest of SEV-SNP.
    #[must_use]
    pub fn is_for_snp(&self) -> bool {
        self.entry(Guid::SEV_METADATA).is_some()
    }

    /// Whether it looks for an SVSM: it has a calling area.
    #[must_use]
    pub fn knows_svsm(&self) -> bool {
        self.page(Contents::CallingArea).is_some()
    }

    /// The memory that it needs as a guest of SEV-SNP, in the order of the list; none without a list.
    pub fn sections(&self) -> impl Iterator<Item = Section> + use<'a> {
        let bytes = self.section_bytes().unwrap_or_default();
        // What does not parse was refused before.
        bytes.chunks_exact(SECTION).flat_map(Section::parse)
    }

    /// Where the first section with these contents starts.
    #[must_use]
    pub fn page(&self, contents: Contents) -> Option<u32> {
        self.sections()
            .find_map(|section| (section.contents == contents).then_some(section.gpa))
    }

    /// Where other processors start.
    #[must_use]
    pub fn ap_start(&self) -> Option<ApStart> {
        let value = word(self.entry(Guid::RESET_BLOCK)?, 0).ok()?;
        Some(ApStart {
            ip: (value & 0xffff) as u16,
            cs_base: value & 0xffff_0000,
        })
    }

    /// The sections of the list, not parsed.
    fn section_bytes(&self) -> Result<&'a [u8]> {
        let Some(entry) = self.entry(Guid::SEV_METADATA) else {
            return Ok(&[]);
        };
        let from_end = word(entry, 0)? as usize;
        let start = self.file.len().checked_sub(from_end);
        let list = start.and_then(|start| self.file.get(start..));
        let list = list.ok_or(Error::FirmwareTable)?;
        let [length, version, count] = [4, 8, 12].map(|at| word(list, at));
        let (length, count) = (length? as usize, count? as usize);
        let fits = length.checked_sub(DESCRIPTOR) == count.checked_mul(SECTION);
        if !list.starts_with(b"ASEV") || version? != 1 || count > MAX_SECTIONS || !fits {
            return Err(Error::FirmwareTable);
        }
        list.get(DESCRIPTOR..length).ok_or(Error::FirmwareTable)
    }
}

/// The entries of a table, from the last one on.
#[derive(Clone, Debug)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (Guid, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (rest, length) = tail(self.0)?;
        let guid = self.0.last_chunk().map(|bytes| Guid(*bytes))?;
        let start = length
            .checked_sub(TAIL)
            .and_then(|len| rest.len().checked_sub(len))?;
        let (before, data) = rest.split_at_checked(start)?;
        self.0 = before;
        Some((guid, data))
    }
}

/// What lies before the length and the GUID at the end, and the length.
fn tail(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (rest, end) = bytes.split_last_chunk::<TAIL>()?;
    let length = end
        .first_chunk()
        .map(|length| u16::from_le_bytes(*length))?;
    Some((rest, length.into()))
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    let bytes = bytes.ok_or(Error::FirmwareTable)?;
    Ok(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;

//! The page: what the guest wrote, copied once, and what the host writes back (56421, "GHCB layout").

/// The state of the page's fields.
const VALID_BITMAP: usize = 0x3f0;

/// Offsets of fields; the number of a field's bit in the bitmap is its offset divided by eight.
pub(super) mod field {
    pub(in super::super) const CPL: usize = 0x0c8;
    pub(in super::super) const RAX: usize = 0x1f8;
    pub(in super::super) const RCX: usize = 0x308;
    pub(in super::super) const RDX: usize = 0x310;
    pub(in super::super) const RBX: usize = 0x318;
    pub(in super::super) const EXIT_CODE: usize = 0x390;
    pub(in super::super) const EXIT_INFO1: usize = 0x398;
    pub(in super::super) const EXIT_INFO2: usize = 0x3a0;
    pub(in super::super) const SCRATCH: usize = 0x3a8;
    pub(in super::super) const XCR0: usize = 0x3e8;
    pub(in super::super) const XSS: usize = 0x140;
    pub(in super::super) const VERSION: usize = 0xffa;
    pub(in super::super) const USAGE: usize = 0xffc;
}

/// A copy of the page that the guest cannot change any more.
#[derive(Clone, Debug)]
pub struct Snapshot {
    bytes: [u8; 4096],
}

impl Snapshot {
    /// Where the buffer that both sides share lies in the page, and its length.
    pub const BUFFER: core::ops::Range<u64> = 0x800..0xff0;

    /// A copy of a page.
    #[must_use]
    pub const fn new(bytes: [u8; 4096]) -> Self {
        Self { bytes }
    }

    /// The protocol version that the guest speaks in this page.
    #[must_use]
    pub fn version(&self) -> u16 {
        (self.word(field::VERSION & !7) >> 16 & 0xffff) as u16
    }

    /// What the page is used for: 0 is what 56421 describes.
    #[must_use]
    pub fn usage(&self) -> u32 {
        (self.word(field::USAGE & !7) >> 32) as u32
    }

    /// A field, if the guest made it valid.
    pub(super) fn field(&self, offset: usize) -> Option<u64> {
        let bit = offset / 8;
        let byte = self.bytes.get(VALID_BITMAP + bit / 8)?;
        (byte >> (bit % 8) & 1 != 0).then(|| self.word(offset))
    }

    /// A field, whether or not the guest made it valid.
    fn word(&self, offset: usize) -> u64 {
        let mut word = [0; 8];
        if let Some(bytes) = self.bytes.get(offset..offset + 8) {
            word.copy_from_slice(bytes);
        }
        u64::from_le_bytes(word)
    }

    /// The part of the shared buffer at an offset in the page.
    #[must_use]
    pub fn buffer(&self, offset: u64, bytes: u64) -> Option<&[u8]> {
        let end = offset.checked_add(bytes)?;
        if offset < Self::BUFFER.start || end > Self::BUFFER.end {
            return None;
        }
        let (start, end) = (usize::try_from(offset).ok()?, usize::try_from(end).ok()?);
        self.bytes.get(start..end)
    }
}

/// What the host writes back; only what is `Some` becomes valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// `SW_EXITINFO1`: zero is success.
    pub info1: u64,
    /// `SW_EXITINFO2`: depends on the event.
    pub info2: u64,
    /// RAX
    pub rax: Option<u64>,
    /// RBX
    pub rbx: Option<u64>,
    /// RCX
    pub rcx: Option<u64>,
    /// RDX
    pub rdx: Option<u64>,
}

impl Reply {
    /// The event is done, and there is nothing to tell.
    pub const DONE: Self = Self {
        info1: 0,
        info2: 0,
        rax: None,
        rbx: None,
        rcx: None,
        rdx: None,
    };

    /// Done, with a word in `SW_EXITINFO2`.
    #[must_use]
    pub const fn with_info2(info2: u64) -> Self {
        Self {
            info2,
            ..Self::DONE
        }
    }

    /// The guest shall raise a general-protection fault.
    #[must_use]
    pub const fn general_protection() -> Self {
        Self {
            info1: 1,
            info2: 1 << 31 | 1 << 11 | 3 << 8 | 13,
            ..Self::DONE
        }
    }

    /// The request was malformed; the code says how.
    #[must_use]
    pub const fn malformed(why: super::Malformed) -> Self {
        Self {
            info1: 2,
            info2: why as u64,
            ..Self::DONE
        }
    }

    /// Hands every field to write to `write`, with its offset in the page; the bitmap of what is valid comes last.
    pub fn write(&self, mut write: impl FnMut(usize, &[u8])) {
        let mut bitmap = [0_u8; 16];
        let registers = [
            (field::EXIT_INFO1, Some(self.info1)),
            (field::EXIT_INFO2, Some(self.info2)),
            (field::RAX, self.rax),
            (field::RBX, self.rbx),
            (field::RCX, self.rcx),
            (field::RDX, self.rdx),
        ];
        for (offset, value) in registers {
            let Some(value) = value else { continue };
            write(offset, &value.to_le_bytes());
            let bit = offset / 8;
            if let Some(byte) = bitmap.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
        write(VALID_BITMAP, &bitmap);
    }
}

#[cfg(test)]
pub(super) mod build {
    use super::*;

    /// A page as a guest fills it.
    pub(in super::super) fn page(fields: &[(usize, u64)]) -> [u8; 4096] {
        let mut bytes = [0; 4096];
        bytes[field::VERSION] = 2;
        for &(offset, value) in fields {
            bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            bytes[VALID_BITMAP + offset / 64] |= 1 << (offset / 8 % 8);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_fields_are_there() {
        let mut bytes = build::page(&[(field::RAX, 7)]);
        bytes[field::RBX] = 9;
        let copy = Snapshot::new(bytes);
        assert_eq!(copy.field(field::RAX), Some(7));
        assert_eq!(copy.field(field::RBX), None);
        assert_eq!((copy.version(), copy.usage()), (2, 0));
        assert_eq!(copy.buffer(0x800, 0x7f0).map(<[u8]>::len), Some(0x7f0));
        assert_eq!(copy.buffer(0x7f8, 8), None);
        assert_eq!(copy.buffer(0xfe8, 16), None);
        assert_eq!(copy.buffer(u64::MAX, 2), None);
    }

    #[test]
    fn a_reply_makes_its_own_fields_valid() {
        let mut page = [0xff; 4096];
        let reply = Reply {
            rax: Some(5),
            ..Reply::with_info2(6)
        };
        reply.write(|at, bytes| page[at..at + bytes.len()].copy_from_slice(bytes));
        let copy = Snapshot::new(page);
        assert_eq!(copy.field(field::RAX), Some(5));
        assert_eq!(copy.field(field::EXIT_INFO1), Some(0));
        assert_eq!(copy.field(field::EXIT_INFO2), Some(6));
        assert_eq!(copy.field(field::RBX), None);
        assert_eq!(copy.field(field::EXIT_CODE), None);
    }
}

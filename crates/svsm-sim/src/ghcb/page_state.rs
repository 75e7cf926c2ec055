//! Page-state changes: one by one in the register, or in a list that a host may leave half done (56421, "Page state
//! change").

/// What shall become of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The guest's own.
    Private,
    /// Open to the host.
    Shared,
    /// A page of 2 MiB becomes 512 of 4 KiB.
    Smash,
    /// 512 of 4 KiB become one of 2 MiB.
    Unsmash,
}

impl Operation {
    const fn decode(value: u64) -> Option<Self> {
        Some(match value {
            1 => Self::Private,
            2 => Self::Shared,
            3 => Self::Smash,
            4 => Self::Unsmash,
            _ => return None,
        })
    }
}

/// A change by the register: one page of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinglePage {
    /// The page's guest physical address.
    pub gpa: u64,
    /// Private or shared.
    pub operation: Operation,
}

impl SinglePage {
    /// Takes the register apart; `None` for operations that it does not know.
    pub(super) const fn decode(value: u64) -> Option<Self> {
        let operation = match Operation::decode(value >> 52 & 0xf) {
            Some(operation @ (Operation::Private | Operation::Shared)) => operation,
            _ => return None,
        };
        Some(Self {
            gpa: value & 0x000f_ffff_ffff_f000,
            operation,
        })
    }
}

/// One step of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The first page's guest physical address.
    pub gpa: u64,
    /// What becomes of it.
    pub operation: Operation,
    /// Whether it is a page of 2 MiB.
    pub large: bool,
    /// How many pages of 4 KiB of a large one are done already.
    pub done: u16,
}

/// Why an entry is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// An operation that is not known, a reserved bit, a large page that is not aligned, or more progress than pages.
    Invalid,
}

/// Why a list is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// The header asks for more entries than a list has.
    Header,
}

/// The word in `SW_EXITINFO2` for a header that is none.
const INVALID_HEADER: u64 = 1 << 32 | 1;
/// The word for an entry that is none.
const INVALID_ENTRY: u64 = 1 << 32 | 2;
/// The word for a change that the host could not make.
const GENERIC: u64 = 0x100 << 32;

/// A list, as the guest left it in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    current: u16,
    end: u16,
}

impl List {
    /// The most entries.
    pub const ENTRIES: u16 = 253;
    /// Bytes of the whole list with its header.
    pub const BYTES: u64 = 8 + Self::ENTRIES as u64 * 8;

    /// Takes a list's header apart. Its upper half is reserved, and not looked at: KVM does not, and OVMF leaves there whatever its
    /// buffer held.
    ///
    /// # Errors
    /// [`ListError::Header`]
    pub const fn decode(header: u64) -> Result<Self, ListError> {
        let list = Self {
            current: (header & 0xffff) as u16,
            end: (header >> 16 & 0xffff) as u16,
        };
        if list.end >= Self::ENTRIES {
            return Err(ListError::Header);
        }
        Ok(list)
    }

    /// The number of the entry that is next, and its offset from the start of the list; `None` when all are done.
    #[must_use]
    pub const fn next(&self) -> Option<(u16, u64)> {
        if self.current > self.end {
            None
        } else {
            Some((self.current, 8 + self.current as u64 * 8))
        }
    }

    /// Goes on to the next entry.
    pub const fn advance(&mut self) {
        self.current = self.current.saturating_add(1);
    }

    /// The header with the progress made so far, without what is reserved.
    #[must_use]
    pub const fn header(&self) -> u64 {
        self.current as u64 | (self.end as u64) << 16
    }
}

impl Change {
    /// Takes an entry apart.
    ///
    /// # Errors
    /// [`EntryError::Invalid`]
    pub const fn decode(entry: u64) -> Result<Self, EntryError> {
        let Some(operation) = Operation::decode(entry >> 52 & 0xf) else {
            return Err(EntryError::Invalid);
        };
        let change = Self {
            gpa: entry & 0x000f_ffff_ffff_f000,
            operation,
            large: entry >> 56 & 1 != 0,
            done: (entry & 0xfff) as u16,
        };
        let pages = if change.large { 512 } else { 1 };
        let aligned = !change.large || change.gpa & 0x1f_ffff == 0;
        // Splitting and joining is for large pages only.
        let sized = change.large || matches!(operation, Operation::Private | Operation::Shared);
        if entry >> 57 != 0 || !aligned || !sized || change.done > pages {
            return Err(EntryError::Invalid);
        }
        Ok(change)
    }

    /// The entry with its progress: all pages done.
    #[must_use]
    pub const fn finished(entry: u64) -> u64 {
        let pages = if entry >> 56 & 1 != 0 { 512 } else { 1 };
        entry & !0xfff | pages
    }
}

impl ListError {
    /// The word in `SW_EXITINFO2`.
    #[must_use]
    pub const fn word(self) -> u64 {
        INVALID_HEADER
    }
}

impl EntryError {
    /// The word in `SW_EXITINFO2`.
    #[must_use]
    pub const fn word(self) -> u64 {
        INVALID_ENTRY
    }

    /// The word for a change that could not be made.
    #[must_use]
    pub const fn generic() -> u64 {
        GENERIC
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_gone_through_to_its_inclusive_end() {
        let mut list = List::decode(1 | 2 << 16).unwrap();
        assert_eq!(list.next(), Some((1, 16)));
        list.advance();
        assert_eq!(list.next(), Some((2, 24)));
        list.advance();
        assert_eq!(list.next(), None);
        assert_eq!(list.header(), 3 | 2 << 16);
        assert_eq!(List::decode(253 << 16), Err(ListError::Header));
        // What is reserved is neither looked at nor given back.
        let list = List::decode(0x2f6d_7074 << 32 | 1 << 16).unwrap();
        assert_eq!(list.header(), 1 << 16);
        assert!(List::decode(252 << 16).is_ok());
    }

    #[test]
    fn entries_name_pages() {
        let entry = 1 << 52 | 1 << 56 | 0x20_0000;
        let change = Change::decode(entry).unwrap();
        assert_eq!((change.gpa, change.large), (0x20_0000, true));
        assert_eq!(change.operation, Operation::Private);
        assert_eq!(Change::finished(entry) & 0xfff, 512);
        for wrong in [
            entry | 0x1000,             // not aligned
            5 << 52 | 0x5000,           // no such operation
            3 << 52 | 0x5000,           // splitting a small page
            1 << 52 | 1 << 57 | 0x5000, // a reserved bit
            1 << 52 | 0x5002,           // more progress than pages
        ] {
            assert_eq!(
                Change::decode(wrong),
                Err(EntryError::Invalid),
                "{wrong:#x}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_header_leads_outside_the_list(header: u64) {
            if let Ok(mut list) = List::decode(header) {
                let mut steps = 0;
                while let Some((_, offset)) = list.next() {
                    prop_assert!(offset + 8 <= List::BYTES);
                    list.advance();
                    steps += 1;
                    prop_assert!(steps <= List::ENTRIES);
                }
            }
        }
    }
}

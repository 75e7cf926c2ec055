//! Entries of page tables as bits, and what they mean.
//!
//! AMD64 Architecture Programmer's Manual Volume 2, "Page-Translation-Table Entry Fields". Bits 9
//! to 11 are for software; a page table keeps there whom a page or table belongs to. The processor
//! ignores all bits of an entry that is not present, so one that was unmapped keeps its address
//! until the flush is done: then, and only then, frames can be given back.

use svsm_platform::addr::{Gpa, PageSize};
use svsm_platform::encryption::{ENTRY_ADDRESS, Encryption, Visibility};

use super::attributes::{Attributes, Cache, Rights};
use crate::frame::Order;
use crate::window::WordIndex;
use crate::{Error, Result};

/// A level of the translation: 1 maps 4 KiB pages, 4 or 5 is the root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(pub(super) u8);

impl Level {
    /// How far an address is shifted to make this level's index.
    pub(super) const fn shift(self) -> u32 {
        3 + 9 * self.0 as u32
    }

    /// What one entry covers.
    pub(super) const fn entry_bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The entry of this level that translates `address`.
    pub(super) const fn index(self, address: u64) -> WordIndex {
        WordIndex::from_low_bits(address >> self.shift())
    }

    /// The level that tables of this level's entries are on.
    pub(super) const fn below(self) -> Result<Self> {
        if self.0 > 1 {
            Ok(Self(self.0 - 1))
        } else {
            Err(Error::Bug)
        }
    }

    /// The page that an entry of this level maps, if it can be a leaf.
    pub(super) const fn page_size(self) -> Option<PageSize> {
        match self.0 {
            1 => Some(PageSize::Size4K),
            2 => Some(PageSize::Size2M),
            3 => Some(PageSize::Size1G),
            _ => None,
        }
    }

    /// The block that a leaf of this level maps.
    pub(super) fn order(self) -> Result<Order> {
        self.page_size().map(Order::of_page).ok_or(Error::Bug)
    }
}

/// One entry, as it lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u64);

impl Entry {
    pub(super) const EMPTY: Self = Self(0);

    const PRESENT: u64 = 1 << 0;
    const WRITABLE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const WRITE_THROUGH: u64 = 1 << 3;
    const NO_CACHE: u64 = 1 << 4;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    /// Level 2 and 3: a page, not a table. On level 1 the same bit is a part of the cache type.
    const LARGE: u64 = 1 << 7;
    const GLOBAL: u64 = 1 << 8;
    /// Software: the frame of the page or table goes to the source when it is unmapped. An entry
    /// of a table without it is a copy: the table is another page table's.
    const OWNED: u64 = 1 << 9;
    /// Software: the table stays, however empty, because it is part of an image or because others
    /// have copied its entry.
    const PINNED: u64 = 1 << 10;
    const NO_EXECUTE: u64 = 1 << 63;
    /// What bit 7 is on level 1 (a part of the cache type) is here on large pages.
    const LARGE_CACHE: u64 = 1 << 12;

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn is_present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// Unmapped, but still the only record of a frame.
    pub(super) const fn is_retired(self) -> bool {
        !self.is_present() && !self.is_empty()
    }

    pub(super) const fn is_owned(self) -> bool {
        self.0 & Self::OWNED != 0
    }

    pub(super) const fn is_pinned(self) -> bool {
        self.0 & Self::PINNED != 0
    }

    pub(super) const fn is_user(self) -> bool {
        self.0 & Self::USER != 0
    }

    pub(super) const fn is_global(self) -> bool {
        self.0 & Self::GLOBAL != 0
    }

    /// Whether a present or retired entry of that level maps a page.
    pub(super) const fn is_leaf(self, level: Level) -> bool {
        level.0 == 1 || self.0 & Self::LARGE != 0
    }

    /// What remains of an owned entry until it is reclaimed.
    pub(super) const fn retired(self) -> Self {
        Self(self.0 & !Self::PRESENT)
    }

    pub(super) const fn pinned(self) -> Self {
        Self(self.0 | Self::PINNED)
    }

    /// The entry as another table holds it: it neither frees nor edits what is below.
    pub(super) const fn foreign(self) -> Self {
        Self(self.0 & !(Self::OWNED | Self::PINNED))
    }

    pub(super) const fn with_user(self) -> Self {
        Self(self.0 | Self::USER)
    }

    /// The entry with the address moved on by `bytes`, to another page inside of the same block.
    pub(super) const fn moved(self, bytes: u64) -> Self {
        Self(self.0 | bytes)
    }

    /// The entry for the 4 KiB page after this one's.
    pub(super) const fn next_page(self) -> Self {
        Self(self.0.wrapping_add(4096))
    }

    /// What the first entry of the level below says, when a page of `level` becomes many.
    pub(super) const fn first_part(self, level: Level) -> Self {
        if level.0 != 2 {
            return self;
        }
        let cache = if self.0 & Self::LARGE_CACHE != 0 {
            Self::LARGE
        } else {
            0
        };
        Self(self.0 & !(Self::LARGE | Self::LARGE_CACHE) | cache)
    }
}

/// All of a leaf but its address; many leaves of one table share it.
#[derive(Clone, Copy)]
pub(super) struct LeafFlags {
    bits: u64,
    visibility: Visibility,
    offset_mask: u64,
}

impl LeafFlags {
    /// Accessed and dirty are set in advance: nobody asks for them, and a processor that need not
    /// set them never writes to a table.
    pub(super) fn new(attributes: Attributes, level: Level, owned: bool) -> Self {
        let Attributes {
            rights,
            visibility,
            cache,
            global,
        } = attributes;
        let mut bits = Entry::PRESENT | Entry::ACCESSED | Entry::DIRTY;
        for (set, bit) in [
            (rights.can_write(), Entry::WRITABLE),
            (rights.is_user(), Entry::USER),
            (!rights.can_execute(), Entry::NO_EXECUTE),
            (
                cache == Cache::Uncached,
                Entry::NO_CACHE | Entry::WRITE_THROUGH,
            ),
            (global && !rights.is_user(), Entry::GLOBAL),
            (owned, Entry::OWNED),
            (level.0 > 1, Entry::LARGE),
        ] {
            if set {
                bits |= bit;
            }
        }
        Self {
            bits,
            visibility,
            offset_mask: level.entry_bytes() - 1,
        }
    }
}

/// Translates between entries and what they mean on a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codec(pub(super) Encryption);

impl Codec {
    /// An entry that points to the table at `table`.
    pub(super) fn table(self, table: Gpa, user: bool) -> Result<Entry> {
        let user = if user { Entry::USER } else { 0 };
        let flags = Entry::PRESENT | Entry::WRITABLE | Entry::ACCESSED | Entry::OWNED;
        Ok(Entry(
            self.address(table, Visibility::Private)? | flags | user,
        ))
    }

    /// The same page under other attributes; whether it is owned stays.
    pub(super) fn changed(self, old: Entry, new: Attributes, level: Level) -> Result<Entry> {
        self.leaf(
            self.target(old, level),
            LeafFlags::new(new, level, old.is_owned()),
        )
    }

    /// An entry that maps the page at `page`.
    pub(super) fn leaf(self, page: Gpa, flags: LeafFlags) -> Result<Entry> {
        let address = self.address(page, flags.visibility)?;
        // A shared alias above vTOM is as aligned as the boundary is.
        if address & flags.offset_mask != 0 {
            return Err(Error::NotEncodable { page });
        }
        Ok(Entry(address | flags.bits))
    }

    /// Where the table or page of an entry lies.
    pub(super) fn target(self, entry: Entry, level: Level) -> Gpa {
        self.decode(entry, level).0
    }

    /// What an entry that maps a page says.
    pub(super) fn attributes(self, entry: Entry, level: Level) -> Attributes {
        let bit = |bit: u64| entry.0 & bit != 0;
        let rights = match (bit(Entry::WRITABLE), !bit(Entry::NO_EXECUTE)) {
            (true, true) => Rights::write_and_execute(),
            (true, false) => Rights::READ_WRITE,
            (false, true) => Rights::READ_EXECUTE,
            (false, false) => Rights::READ,
        };
        Attributes {
            rights: if entry.is_user() {
                rights.user()
            } else {
                rights
            },
            visibility: self.decode(entry, level).1,
            cache: if bit(Entry::NO_CACHE) {
                Cache::Uncached
            } else {
                Cache::WriteBack
            },
            global: entry.is_global(),
        }
    }

    fn decode(self, entry: Entry, level: Level) -> (Gpa, Visibility) {
        let low = if level.0 > 1 && entry.is_leaf(level) {
            Entry::LARGE_CACHE
        } else {
            0
        };
        self.0.decode(entry.0 & !low)
    }

    /// The same entry for another platform.
    pub(super) fn recoded(self, entry: Entry, level: Level, to: Self) -> Result<Entry> {
        let (target, visibility) = self.decode(entry, level);
        let cache = if level.0 > 1 && entry.is_leaf(level) {
            Entry::LARGE_CACHE
        } else {
            0
        };
        let kept = entry.0 & (!ENTRY_ADDRESS | cache);
        Ok(Entry(to.address(target, visibility)? | kept))
    }

    fn address(self, page: Gpa, visibility: Visibility) -> Result<u64> {
        self.0
            .encode(page, visibility)
            .ok_or(Error::NotEncodable { page })
    }
}

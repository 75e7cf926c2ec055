//! A store of two slots over sectors: a commit survives a power cut at any byte, and an image that was wound back shows.
//!
//! A slot is a head in a sector of its own and the image in the sectors after it. A commit writes the slot that does not hold
//! the newest image; until all of it has arrived, its code does not match, and the other slot is what counts. So it does not
//! matter which sectors arrive, in which order, or how much of one.
//!
//! The image is encrypted and authenticated by a synthetic initialization vector (the construction of RFC 5297, with HMAC and
//! AES-CTR): the code is HMAC-SHA-256 over head and plain image, and its first half is the counter of AES-256.

use core::fmt;

use zeroize::Zeroize;

use crate::{
    NvStore, SeamError,
    crypto::{
        Crypto,
        seal::{CODE_LEN, Keys, counter_of},
    },
    wire::{Reader, Writer},
};

const MAGIC: [u8; 8] = *b"svsmslot";
/// The layout of a slot; raised when it changes.
const FORMAT: u16 = 1;
/// Magic, format, generation, length.
const PREFIX_LEN: usize = 8 + 2 + 8 + 4;
/// The smallest sector.
const SECTOR_MIN: usize = 64;

/// Where the slots are: sectors of one length, numbered from 0.
pub trait Sectors: Send {
    /// Bytes of a sector: a multiple of 16, and 64 at least.
    fn sector_len(&self) -> usize;

    /// How many there are.
    fn count(&self) -> usize;

    /// Reads a sector, of which `into` has the length.
    ///
    /// # Errors
    ///
    /// [`SeamError::StoreUnavailable`]
    fn read(&mut self, sector: usize, into: &mut [u8]) -> Result<(), SeamError>;

    /// Writes a sector. Until [`Sectors::flush`] returns, all, some or nothing of it may have arrived.
    ///
    /// # Errors
    ///
    /// [`SeamError::StoreUnavailable`]
    fn write(&mut self, sector: usize, from: &[u8]) -> Result<(), SeamError>;

    /// Returns when everything that was written is there to stay.
    ///
    /// # Errors
    ///
    /// [`SeamError::StoreUnavailable`]
    fn flush(&mut self) -> Result<(), SeamError>;
}

/// A number that nobody winds back: a monotonic counter, a key broker, a quorum.
pub trait Freshness: Send {
    /// The newest generation that was confirmed; `None` if there is nobody who would know.
    ///
    /// # Errors
    ///
    /// [`SeamError`] if it cannot be learned now.
    fn newest(&mut self) -> Result<Option<u64>, SeamError>;

    /// Remembers a generation, which grows by one each time.
    ///
    /// # Errors
    ///
    /// [`SeamError`]; the commit then fails.
    fn confirm(&mut self, generation: u64) -> Result<(), SeamError>;
}

/// Nobody remembers: whoever holds the sectors can put an old image back, and it will not show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwitnessed;

impl Freshness for Unwitnessed {
    fn newest(&mut self) -> Result<Option<u64>, SeamError> {
        Ok(None)
    }

    fn confirm(&mut self, _: u64) -> Result<(), SeamError> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Head {
    generation: u64,
    len: usize,
    code: [u8; CODE_LEN],
}

#[derive(Clone, Copy, Debug)]
enum Found {
    /// Zeros: never written.
    Blank,
    /// Not a head of ours, or not a whole one.
    Broken,
    Head(Head),
}

/// An [`NvStore`] of two slots.
pub struct Slots<'a> {
    crypto: &'a dyn Crypto,
    sectors: &'a mut dyn Sectors,
    freshness: &'a mut dyn Freshness,
    scratch: &'a mut [u8],
    keys: Keys,
    /// The slot with the newest image.
    current: Option<usize>,
}

impl fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl<'a> Slots<'a> {
    /// A store under `key`, which only this TPM may have. `scratch` holds a sector.
    ///
    /// # Errors
    ///
    /// [`SeamError::StoreSize`] if sectors or scratch are too small.
    pub fn new(
        crypto: &'a dyn Crypto,
        sectors: &'a mut dyn Sectors,
        freshness: &'a mut dyn Freshness,
        key: &[u8; 32],
        scratch: &'a mut [u8],
    ) -> Result<Self, SeamError> {
        let len = sectors.sector_len();
        let fits = len >= SECTOR_MIN && len.is_multiple_of(16) && sectors.count() >= 4;
        let scratch = scratch
            .get_mut(..len)
            .filter(|_| fits)
            .ok_or(SeamError::StoreSize)?;
        let keys = Keys::new(crypto, key, ["SLOT-CODE", "SLOT-CIPHER"]);
        Ok(Self {
            crypto,
            sectors,
            freshness,
            scratch,
            keys,
            current: None,
        })
    }

    /// The longest image that there is room for, in bytes.
    pub fn capacity(&self) -> usize {
        (self.slot_sectors() - 1) * self.scratch.len()
    }

    fn slot_sectors(&self) -> usize {
        self.sectors.count() / 2
    }

    fn head(&mut self, slot: usize) -> Result<Found, SeamError> {
        self.sectors
            .read(slot * self.slot_sectors(), self.scratch)?;
        if self.scratch.iter().all(|byte| *byte == 0) {
            return Ok(Found::Blank);
        }
        let mut r = Reader::new(self.scratch);
        if r.array() != Ok(MAGIC) {
            return Ok(Found::Broken);
        }
        match r.read::<u16>() {
            Ok(FORMAT) => {}
            Ok(newer) if newer > FORMAT => return Err(SeamError::StoreNewer),
            _ => return Ok(Found::Broken),
        }
        let mut fields = || {
            Ok::<_, crate::Rc>(Head {
                generation: r.read()?,
                len: usize::try_from(r.read::<u32>()?).map_err(|_| crate::Rc::SIZE)?,
                code: r.array()?,
            })
        };
        Ok(fields().map_or(Found::Broken, Found::Head))
    }

    /// Reads the image of a slot; whether it is whole and ours.
    fn read_image(&mut self, slot: usize, head: &Head, into: &mut [u8]) -> Result<bool, SeamError> {
        if head.len > self.capacity() {
            return Ok(false);
        }
        let image = into.get_mut(..head.len).ok_or(SeamError::StoreSize)?;
        let mut counter = counter_of(&head.code);
        let first = slot * self.slot_sectors() + 1;
        for (sector, chunk) in (first..).zip(image.chunks_mut(self.scratch.len())) {
            self.sectors.read(sector, self.scratch)?;
            self.keys.crypt(self.crypto, &mut counter, self.scratch);
            chunk
                .iter_mut()
                .zip(&*self.scratch)
                .for_each(|(to, from)| *to = *from);
        }
        self.scratch.zeroize();
        let prefix = prefix_of(head.generation, head.len)?;
        let whole = self.keys.matches(self.crypto, &prefix, image, &head.code);
        if !whole {
            image.zeroize();
        }
        Ok(whole)
    }

    /// Compares an image's generation with what the witness says.
    fn check_freshness(&mut self, found: Option<u64>) -> Result<(), SeamError> {
        match (self.freshness.newest()?, found) {
            (None, _) | (Some(0), None) => Ok(()),
            (Some(newest), Some(generation)) if generation == newest => Ok(()),
            // The power went after the flush and before the confirmation.
            (Some(newest), Some(generation)) if Some(generation) == newest.checked_add(1) => {
                self.freshness.confirm(generation)
            }
            _ => Err(SeamError::StoreRolledBack),
        }
    }
}

fn prefix_of(generation: u64, len: usize) -> Result<[u8; PREFIX_LEN], SeamError> {
    let mut prefix = [0; PREFIX_LEN];
    let mut w = Writer::new(&mut prefix);
    let len = u32::try_from(len).map_err(|_| SeamError::StoreSize)?;
    w.bytes(&MAGIC)
        .and_then(|()| w.put(&FORMAT))
        .and_then(|()| w.put(&generation))
        .and_then(|()| w.put(&len))
        .map_err(|_| SeamError::StoreSize)?;
    Ok(prefix)
}

impl NvStore for Slots<'_> {
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, SeamError> {
        let found = [self.head(0)?, self.head(1)?];
        let mut heads = [(0, found[0]), (1, found[1])];
        heads.sort_unstable_by_key(|(_, found)| match found {
            Found::Head(head) => u64::MAX - head.generation,
            _ => u64::MAX,
        });
        for (slot, found) in heads {
            if let Found::Head(head) = found
                && self.read_image(slot, &head, into)?
            {
                self.check_freshness(Some(head.generation))?;
                self.current = Some(slot);
                return Ok(Some(head.len));
            }
        }
        // A first commit that was cut leaves a blank slot beside the broken one; there never was an image then.
        if !found.iter().any(|f| matches!(f, Found::Blank)) {
            return Err(SeamError::StoreBroken);
        }
        self.check_freshness(None)?;
        self.current = None;
        Ok(None)
    }

    fn commit(&mut self, generation: u64, image: &[u8]) -> Result<(), SeamError> {
        if image.len() > self.capacity() {
            return Err(SeamError::StoreSize);
        }
        let slot = self.current.map_or(0, |current| 1 - current);
        let prefix = prefix_of(generation, image.len())?;
        let code = self.keys.code(self.crypto, &prefix, image);
        let mut counter = counter_of(&code);
        let first = slot * self.slot_sectors();
        for (sector, chunk) in (first + 1..).zip(image.chunks(self.scratch.len())) {
            self.scratch.zeroize();
            self.scratch
                .iter_mut()
                .zip(chunk)
                .for_each(|(to, from)| *to = *from);
            self.keys.crypt(self.crypto, &mut counter, self.scratch);
            self.sectors.write(sector, self.scratch)?;
        }
        self.scratch.zeroize();
        self.scratch
            .iter_mut()
            .zip(prefix.iter().chain(&code))
            .for_each(|(to, from)| *to = *from);
        self.sectors.write(first, self.scratch)?;
        self.sectors.flush()?;
        self.freshness.confirm(generation)?;
        self.current = Some(slot);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

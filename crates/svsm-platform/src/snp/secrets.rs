//! The secrets page: the keys of a guest's channel to its security processor, and how a guest learns of its SVSM (56860,
//! "Secrets Page Format"; fields from 140h on: 58019, "Secrets Page").
//!
//! The SVSM keeps the page, takes [its own key](SecretsPage::key) and gives the guest [a copy](SecretsPage::write_for_guest) in
//! which the keys of all levels above the guest are wiped: who holds a key speaks for its level.

use core::{fmt, mem::offset_of};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};
use zeroize::Zeroize;

use super::vmsa::TweakBitmap;
use crate::{
    addr::{Gpa, GpaRange, PageSize},
    error::Blame,
    level::Vmpl,
};

/// A key of the channel to the security processor (VMPCK): AES-256-GCM. It is wiped when it is dropped.
pub struct Vmpck([u8; 32]);

impl Vmpck {
    /// The key with these bytes; `None` if they are all zero, which is how a wiped key looks.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Option<Self> {
        let key = Self(*bytes);
        // Looks at all bytes, so that the time tells nothing of them.
        let any = key.0.iter().fold(0, |any, byte| any | byte);
        (any != 0).then_some(key)
    }

    /// The bytes, for the cipher.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Vmpck {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Vmpck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vmpck(..)")
    }
}

/// The page, as a view over the memory that the security processor filled at launch.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SecretsPage {
    version: U32,
    flags: U32,
    signature: U32,
    reserved_00c: U32,
    gosvw: [u8; 16],
    vmpck: [[u8; 32]; 4],
    guest: [u8; 96],
    tweak_bitmap: TweakBitmap,
    svsm_base: U64,
    svsm_size: U64,
    svsm_caa: U64,
    svsm_max_version: U32,
    svsm_guest_vmpl: u8,
    reserved_15d: [u8; 3],
    tsc_factor: U32,
    reserved_164: [u8; 3740],
}
const _: () = {
    assert!(size_of::<SecretsPage>() == 4096);
    assert!(offset_of!(SecretsPage, vmpck) == 0x20);
    assert!(offset_of!(SecretsPage, guest) == 0xa0);
    assert!(offset_of!(SecretsPage, tweak_bitmap) == 0x100);
    assert!(offset_of!(SecretsPage, svsm_base) == 0x140);
    assert!(offset_of!(SecretsPage, svsm_guest_vmpl) == 0x15c);
    assert!(offset_of!(SecretsPage, tsc_factor) == 0x160);
};

impl SecretsPage {
    /// The page in `page`, which must be private memory.
    ///
    /// # Errors
    /// [`Refused::Empty`] if no security processor filled it.
    pub fn view(page: &[u8; 4096]) -> Result<&Self, Refused> {
        let view: &Self = zerocopy::transmute_ref!(page);
        view.filled().map(|()| view)
    }

    /// The page in `page`, to wipe keys in it.
    ///
    /// # Errors
    /// [`Refused::Empty`] if no security processor filled it.
    pub fn view_mut(page: &mut [u8; 4096]) -> Result<&mut Self, Refused> {
        let view: &mut Self = zerocopy::transmute_mut!(page);
        view.filled().map(|()| view)
    }

    fn filled(&self) -> Result<(), Refused> {
        if self.version.get() == 0 {
            Err(Refused::Empty)
        } else {
            Ok(())
        }
    }

    /// The layout's version, from 1 on.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version.get()
    }

    /// Whether the guest was launched from an initial migration image.
    #[must_use]
    pub const fn is_migration_image(&self) -> bool {
        self.flags.get() & 1 == 1
    }

    /// The processor's signature, as EAX of CPUID 1 tells it.
    #[must_use]
    pub const fn signature(&self) -> u32 {
        self.signature.get()
    }

    /// The workarounds that the guest's system needs, as the host says.
    #[must_use]
    pub const fn gosvw(&self) -> &[u8; 16] {
        &self.gosvw
    }

    /// The key of a level; `None` if it was wiped.
    #[must_use]
    pub fn key(&self, level: Vmpl) -> Option<Vmpck> {
        let [key0, key1, key2, key3] = &self.vmpck;
        Vmpck::new(match level {
            Vmpl::Vmpl0 => key0,
            Vmpl::Vmpl1 => key1,
            Vmpl::Vmpl2 => key2,
            Vmpl::Vmpl3 => key3,
        })
    }

    /// Which quadwords of a save area are blinded under [register protection](super::vmsa::Vmsa::tweak).
    #[must_use]
    pub const fn tweak_bitmap(&self) -> &TweakBitmap {
        &self.tweak_bitmap
    }

    /// By how many hundred-thousandths the time-stamp counter runs slower than its nominal rate; zero where the firmware is too
    /// old to say.
    #[must_use]
    pub const fn tsc_factor(&self) -> u32 {
        self.tsc_factor.get()
    }

    /// What the page says of an SVSM above its reader; `None` if there is none, or if it says what cannot be.
    #[must_use]
    pub fn svsm(&self) -> Option<Svsm> {
        let svsm = Svsm {
            memory: GpaRange::new(Gpa::new(self.svsm_base.get())?, self.svsm_size.get())?,
            calling_area: Gpa::new(self.svsm_caa.get())?,
            max_version: self.svsm_max_version.get(),
            guest_level: Vmpl::new(self.svsm_guest_vmpl)?,
        };
        svsm.check().ok().map(|()| svsm)
    }

    /// Writes the page that the guest at `svsm.guest_level` gets: without the keys of the levels above it, and with what it must
    /// know of its SVSM. The area for the guest's own use is as the security processor left it.
    ///
    /// The keys of the guest's level and below pass through `page`; wipe it if it is not the guest's memory itself.
    ///
    /// # Errors
    /// Why no guest could use it; `page` is unchanged then.
    pub fn write_for_guest(&self, svsm: &Svsm, page: &mut [u8; 4096]) -> Result<(), Refused> {
        svsm.check()?;
        let copy: &mut Self = zerocopy::transmute_mut!(page);
        copy.as_mut_bytes().copy_from_slice(self.as_bytes());
        copy.wipe_keys_above(svsm.guest_level);
        copy.svsm_base = U64::new(svsm.memory.start().as_u64());
        copy.svsm_size = U64::new(svsm.memory.len_bytes());
        copy.svsm_caa = U64::new(svsm.calling_area.as_u64());
        copy.svsm_max_version = U32::new(svsm.max_version);
        copy.svsm_guest_vmpl = svsm.guest_level.as_u8();
        Ok(())
    }

    /// Wipes all keys. Whoever still holds one goes on with it.
    pub fn wipe_keys(&mut self) {
        self.vmpck.zeroize();
    }

    /// Wipes the keys of the levels above `level`, its own not included.
    pub fn wipe_keys_above(&mut self, level: Vmpl) {
        for (above, key) in Vmpl::ALL.into_iter().zip(&mut self.vmpck) {
            if above.is_above(level) {
                key.zeroize();
            }
        }
    }
}

impl fmt::Debug for SecretsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsPage")
            .field("version", &self.version())
            .field("svsm", &self.svsm())
            .finish_non_exhaustive()
    }
}

/// What a guest must know of its SVSM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Svsm {
    /// The memory of the SVSM, which the guest must not use.
    pub memory: GpaRange,
    /// The calling area of the first CPU.
    pub calling_area: Gpa,
    /// The newest version of the core protocol that it speaks.
    pub max_version: u32,
    /// The level at which the guest runs.
    pub guest_level: Vmpl,
}

impl Svsm {
    fn check(&self) -> Result<(), Refused> {
        if self.guest_level == Vmpl::Vmpl0 {
            return Err(Refused::GuestLevel);
        }
        if self.memory.is_empty() || !self.memory.is_aligned(PageSize::Size4K) {
            return Err(Refused::Memory);
        }
        if self.calling_area.is_aligned(PageSize::Size4K) {
            Ok(())
        } else {
            Err(Refused::CallingArea)
        }
    }
}

/// Why there is no page for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refused {
    /// The security processor did not fill the page.
    Empty,
    /// Level 0 is the SVSM's own.
    GuestLevel,
    /// The SVSM's memory is none, or not whole pages. A length of zero would say that there is no SVSM.
    Memory,
    /// The calling area is not a page.
    CallingArea,
}

impl Refused {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Empty => Blame::Host,
            Self::GuestLevel | Self::Memory | Self::CallingArea => Blame::Caller,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the secrets page was not filled",
            Self::GuestLevel => "a guest below an SVSM cannot run at level 0",
            Self::Memory => "the memory of the SVSM is empty or not whole pages",
            Self::CallingArea => "the calling area is not a page",
        })
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::format;

    fn page() -> [u8; 4096] {
        let mut page = [0; 4096];
        page[0] = 3;
        page[8..12].copy_from_slice(&0x00a0_0f11_u32.to_le_bytes());
        for key in 0..4_u8 {
            page[0x20 + 32 * usize::from(key)..][..32].fill(key + 1);
        }
        page[0x160] = 200;
        page
    }

    fn svsm(level: Vmpl) -> Svsm {
        Svsm {
            memory: GpaRange::new(Gpa::new(0x80_0000_0000).unwrap(), 0x100_0000).unwrap(),
            calling_area: Gpa::new(0x80_4000).unwrap(),
            max_version: 1,
            guest_level: level,
        }
    }

    fn keys(page: &SecretsPage) -> [Option<u8>; 4] {
        Vmpl::ALL.map(|level| page.key(level).map(|key| key.expose()[31]))
    }

    #[test]
    fn guest_gets_no_key_of_a_level_above() {
        let original = page();
        let view = SecretsPage::view(&original).unwrap();
        for (level, expected) in [
            (Vmpl::Vmpl1, [None, Some(2), Some(3), Some(4)]),
            (Vmpl::Vmpl2, [None, None, Some(3), Some(4)]),
            (Vmpl::Vmpl3, [None, None, None, Some(4)]),
        ] {
            let mut copy = [0xff; 4096];
            view.write_for_guest(&svsm(level), &mut copy).unwrap();
            let copy = SecretsPage::view(&copy).unwrap();
            assert_eq!(keys(copy), expected);
            assert_eq!(copy.svsm(), Some(svsm(level)));
            assert_eq!((copy.tsc_factor(), copy.signature()), (200, 0x00a0_0f11));
        }
        assert_eq!(keys(view), [Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!(view.svsm(), None);
    }

    #[test]
    fn what_no_guest_could_use_is_refused() {
        let original = page();
        let view = SecretsPage::view(&original).unwrap();
        let mut copy = [0xff; 4096];
        let good = svsm(Vmpl::Vmpl1);
        let range = |start, len| GpaRange::new(Gpa::new(start).unwrap(), len).unwrap();
        for (bad, why) in [
            (svsm(Vmpl::Vmpl0), Refused::GuestLevel),
            (
                Svsm {
                    memory: range(0x1000, 0),
                    ..good
                },
                Refused::Memory,
            ),
            (
                Svsm {
                    memory: range(0x1000, 0x800),
                    ..good
                },
                Refused::Memory,
            ),
            (
                Svsm {
                    memory: range(0x800, 0x1000),
                    ..good
                },
                Refused::Memory,
            ),
            (
                Svsm {
                    calling_area: Gpa::new(0x80_4008).unwrap(),
                    ..good
                },
                Refused::CallingArea,
            ),
        ] {
            assert_eq!(view.write_for_guest(&bad, &mut copy), Err(why));
        }
        assert_eq!(copy, [0xff; 4096]);
    }

    #[test]
    fn wiped_keys_are_no_keys() {
        let mut original = page();
        let view = SecretsPage::view_mut(&mut original).unwrap();
        view.wipe_keys();
        assert_eq!(keys(view), [None; 4]);
        assert_eq!(original[0x20..0xa0], [0; 0x80]);
        assert!(Vmpck::new(&[0; 32]).is_none());
    }

    #[test]
    fn pages_that_nobody_filled_are_not_read() {
        assert_eq!(SecretsPage::view(&[0; 4096]).err(), Some(Refused::Empty));
        assert_eq!(
            SecretsPage::view_mut(&mut [0; 4096]).err(),
            Some(Refused::Empty)
        );
    }

    #[test]
    fn keys_are_not_printed() {
        let original = page();
        let view = SecretsPage::view(&original).unwrap();
        let key = view.key(Vmpl::Vmpl1).unwrap();
        assert_eq!(format!("{key:?}"), "Vmpck(..)");
        assert!(!format!("{view:?}").contains('['));
    }
}

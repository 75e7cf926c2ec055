//! The secrets page, which the security processor fills at launch and through which a guest gets the keys of its channel
//! to it (56860, "Secrets Page Format"; fields from 140h on: "Secure VM Service Module", "Secrets Page").

use crate::vmsa::TweakBitmap;
use core::fmt;
use core::mem::offset_of;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A key of the channel between a guest and the security processor: AES-256-GCM.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Vmpck(pub [u8; 32]);

impl fmt::Debug for Vmpck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vmpck(..)")
    }
}

/// The page as a guest finds it.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SecretsPage {
    /// The layout of this page.
    pub version: U32,
    /// Bit 0: the guest was launched from an initial migration image.
    pub flags: U32,
    /// The processor's signature, as CPUID 1 EAX tells it.
    pub fms: U32,
    /// Zero.
    pub reserved_00c: U32,
    /// Workarounds that the host's system needs, as it says.
    pub gosvw: [u8; 16],
    /// The keys, VMPCK0 first; holding one means to speak for the level of that number or a lower one.
    pub vmpck: [Vmpck; 4],
    /// For the guest's software: sequence numbers and the like.
    pub guest: [u8; 96],
    /// Which quadwords of a save area are blinded under register protection.
    pub vmsa_tweak_bitmap: TweakBitmap,
    /// Where the SVSM is; written by the SVSM, as the four below.
    pub svsm_base: U64,
    /// Its length in bytes; 0 where there is none.
    pub svsm_size: U64,
    /// The calling area of the first processor.
    pub svsm_caa: U64,
    /// The newest version of the core protocol.
    pub svsm_max_version: U32,
    /// The level at which the guest runs.
    pub svsm_guest_vmpl: u8,
    /// Zero.
    pub reserved_15d: [u8; 3],
    /// How much slower than nominal the time stamp counter runs, in hundred-thousandths.
    pub tsc_factor: U32,
    /// Zero.
    pub reserved_164: [u8; 3740],
}
const _: () = {
    assert!(size_of::<SecretsPage>() == 4096);
    assert!(offset_of!(SecretsPage, vmpck) == 0x20);
    assert!(offset_of!(SecretsPage, guest) == 0xa0);
    assert!(offset_of!(SecretsPage, vmsa_tweak_bitmap) == 0x100);
    assert!(offset_of!(SecretsPage, svsm_base) == 0x140);
    assert!(offset_of!(SecretsPage, svsm_guest_vmpl) == 0x15c);
    assert!(offset_of!(SecretsPage, tsc_factor) == 0x160);
};

/// What the security processor puts into the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// The processor's signature (CPUID 1 EAX).
    pub signature: u32,
    /// What the host said of its workarounds.
    pub gosvw: [u8; 16],
    /// The keys, VMPCK0 first.
    pub vmpck: [Vmpck; 4],
    /// Which quadwords of a save area are blinded.
    pub vmsa_tweak_bitmap: TweakBitmap,
    /// Slowness of the time stamp counter in hundred-thousandths.
    pub tsc_factor: u32,
}

impl SecretsPage {
    /// The layout's version. 3 is the first with a time stamp counter factor.
    pub const VERSION: u32 = 3;

    /// The page as the security processor leaves it: whatever the host had there is gone.
    #[must_use]
    pub fn fill(secrets: &Secrets) -> Self {
        let mut page: Self = FromZeros::new_zeroed();
        page.version = U32::new(Self::VERSION);
        page.fms = U32::new(secrets.signature);
        page.gosvw = secrets.gosvw;
        page.vmpck = secrets.vmpck;
        page.vmsa_tweak_bitmap = secrets.vmsa_tweak_bitmap;
        page.tsc_factor = U32::new(secrets.tsc_factor);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_the_secrets_where_the_specification_puts_them() {
        let secrets = Secrets {
            signature: 0x00a0_0f11,
            gosvw: [7; 16],
            vmpck: [1, 2, 3, 4].map(|byte| Vmpck([byte; 32])),
            vmsa_tweak_bitmap: TweakBitmap::REGISTERS,
            tsc_factor: 200,
        };
        let page = SecretsPage::fill(&secrets);
        let bytes = page.as_bytes();
        assert_eq!(bytes[..12], [3, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x0f, 0xa0, 0]);
        assert_eq!(
            (bytes[0x20], bytes[0x40], bytes[0x60], bytes[0x80]),
            (1, 2, 3, 4)
        );
        assert_eq!(bytes[0x160..0x164], [200, 0, 0, 0]);
        // No SVSM until one says so.
        assert_eq!(bytes[0x140..0x160], [0; 32]);
    }
}

//! Endorsement keys: their templates, and where their certificates are (TCG EK Credential Profile for TPM Family 2.0, versions 2.3 to 2.6).
//!
//! An endorsement key is the primary key of the endorsement hierarchy that a template determines: it says which TPM this is, and
//! changes only with the hierarchy's seed (`TPM2_ChangeEPS`, a manufacture). Who has the templates of the profile can make it anew at
//! any time. Its certificate comes from whoever answers for the TPM; [`Tpm::provision`](crate::Tpm::provision) puts it where software
//! looks for it:
//!
//! ```
//! use svsm_vtpm::{Error, Tpm, endorsement::{Credential, EndorsementKey, PUBLIC_MAX}};
//!
//! /// At manufacture, after `power_on` and before the guest's first command.
//! fn provision(tpm: &mut Tpm<'_>, certify: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), Error> {
//!     let mut public = [0; PUBLIC_MAX];
//!     for key in [EndorsementKey::Rsa2048, EndorsementKey::P256] {
//!         let len = tpm.endorsement_key(key.template().as_slice(), &mut public, || ())?;
//!         let certificate = certify(public.get(..len).unwrap_or_default());
//!         tpm.provision(key, Credential::Certificate, &certificate)?;
//!     }
//!     Ok(())
//! }
//! ```

use crate::{
    alg::{Alg, Curve, HashAlg},
    bytes::Bytes,
    handle::Handle,
    rc::Rc,
    structures::attributes::ObjectAttributes as A,
    wire::Writer,
};

/// The most bytes of a template of the profile.
pub const TEMPLATE_MAX: usize = 320;

/// The most bytes of a public area (`TPMT_PUBLIC`).
pub const PUBLIC_MAX: usize = crate::structures::public::PUBLIC_MAX;

/// An endorsement key of the profile. The first two are of its "Low Range", which software looks at first; the others of its "High
/// Range" (B.3 and B.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndorsementKey {
    /// RSA-2048, "Template L-1".
    Rsa2048,
    /// NIST P-256, "Template L-2".
    P256,
    /// RSA-2048, "Template H-1".
    HighRsa2048,
    /// NIST P-256, "Template H-2".
    HighP256,
    /// NIST P-384, "Template H-3".
    HighP384,
    /// NIST P-521, "Template H-4".
    HighP521,
    /// RSA-3072, "Template H-6".
    HighRsa3072,
    /// RSA-4096, "Template H-7".
    HighRsa4096,
}

/// What an NV index can hold of an endorsement key (2.2.1.4 and 2.2.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Its certificate, as DER.
    Certificate,
    /// A number that software puts into the template's `unique`, so that the key is another one. Only in the Low Range.
    Nonce,
    /// Its template, if it is not the profile's own: a `TPMT_PUBLIC`.
    Template,
}

enum Kind {
    Rsa(u16),
    Ecc(Curve),
}

impl EndorsementKey {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 8] = [
        Self::Rsa2048,
        Self::P256,
        Self::HighRsa2048,
        Self::HighP256,
        Self::HighP384,
        Self::HighP521,
        Self::HighRsa3072,
        Self::HighRsa4096,
    ];

    /// The NV index that holds `credential` of this key; `None` for a nonce of the High Range, which has none.
    #[must_use]
    pub const fn index(self, credential: Credential) -> Option<Handle> {
        let certificate = match self {
            Self::Rsa2048 => 0x01C0_0002,
            Self::P256 => 0x01C0_000A,
            Self::HighRsa2048 => 0x01C0_0012,
            Self::HighP256 => 0x01C0_0014,
            Self::HighP384 => 0x01C0_0016,
            Self::HighP521 => 0x01C0_0018,
            Self::HighRsa3072 => 0x01C0_001C,
            Self::HighRsa4096 => 0x01C0_001E,
        };
        let distance = match (credential, self.is_low()) {
            (Credential::Certificate, _) => 0,
            (Credential::Nonce, true) | (Credential::Template, false) => 1,
            (Credential::Template, true) => 2,
            (Credential::Nonce, false) => return None,
        };
        Some(Handle(certificate + distance))
    }

    /// The profile's template (B.3 and B.4), as `TPMT_PUBLIC`: what `TPM2_CreatePrimary` in the endorsement hierarchy takes.
    #[must_use]
    pub fn template(self) -> Bytes<TEMPLATE_MAX> {
        let mut room = [0; TEMPLATE_MAX];
        let mut w = Writer::new(&mut room);
        // The longest has 314 bytes: there is always room.
        match self.write(&mut w) {
            Ok(()) => Bytes::new(w.written()).unwrap_or_default(),
            Err(_) => Bytes::EMPTY,
        }
    }

    const fn is_low(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::P256)
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Rsa2048 | Self::HighRsa2048 => Kind::Rsa(2048),
            Self::HighRsa3072 => Kind::Rsa(3072),
            Self::HighRsa4096 => Kind::Rsa(4096),
            Self::P256 | Self::HighP256 => Kind::Ecc(Curve::P256),
            Self::HighP384 => Kind::Ecc(Curve::P384),
            Self::HighP521 => Kind::Ecc(Curve::P521),
        }
    }

    /// The hash of its name, and the bits of the AES key that protects its children.
    const fn strength(self) -> (HashAlg, u16) {
        match self {
            Self::Rsa2048 | Self::P256 | Self::HighRsa2048 | Self::HighP256 => {
                (HashAlg::Sha256, 128)
            }
            Self::HighP384 | Self::HighRsa3072 | Self::HighRsa4096 => (HashAlg::Sha384, 256),
            Self::HighP521 => (HashAlg::Sha512, 256),
        }
    }

    fn write(self, w: &mut Writer<'_>) -> Result<(), Rc> {
        let (hash, aes_bits) = self.strength();
        let kind = self.kind();
        w.put(&match kind {
            Kind::Rsa(_) => Alg::RSA,
            Kind::Ecc(_) => Alg::ECC,
        })?;
        w.put(&hash)?;
        let fixed = A::FIXED_TPM | A::FIXED_PARENT | A::SENSITIVE_DATA_ORIGIN;
        let storage = fixed | A::ADMIN_WITH_POLICY | A::RESTRICTED | A::DECRYPT;
        w.put(&if self.is_low() {
            storage
        } else {
            storage | A::USER_WITH_AUTH
        })?;
        w.sized(match hash {
            _ if self.is_low() => &POLICY_A_SHA256,
            HashAlg::Sha384 => &POLICY_B_SHA384,
            HashAlg::Sha512 => &POLICY_B_SHA512,
            _ => &POLICY_B_SHA256,
        })?;
        w.put(&Alg::AES)?;
        w.put(&aes_bits)?;
        w.put(&Alg::CFB)?;
        w.put(&Alg::NULL)?;
        match kind {
            Kind::Rsa(bits) => {
                w.put(&bits)?;
                w.put(&0u32)?;
                w.sized(self.zeros(256))
            }
            Kind::Ecc(curve) => {
                w.put(&curve.id())?;
                w.put(&Alg::NULL)?;
                w.sized(self.zeros(32))?;
                w.sized(self.zeros(32))
            }
        }
    }

    /// What stands in `unique`: in the Low Range zeros of the number's length, in the High Range nothing.
    fn zeros(self, len: usize) -> &'static [u8] {
        const ZEROS: [u8; 256] = [0; 256];
        let len = if self.is_low() { len } else { 0 };
        ZEROS.get(..len).unwrap_or_default()
    }
}

/// "PolicyA": `PolicySecret` of the endorsement hierarchy.
const POLICY_A_SHA256: [u8; 32] =
    *b"\x83\x71\x97\x67\x44\x84\xb3\xf8\x1a\x90\xcc\x8d\x46\xa5\xd7\x24\xfd\x52\xd7\x6e\x06\x52\x0b\x64\xf2\xa1\xda\x1b\x33\x14\x69\xaa";

/// "PolicyB": `PolicyOR` of PolicyA and PolicyC, which is `PolicyAuthorizeNV` of the profile's index for the hash.
const POLICY_B_SHA256: [u8; 32] =
    *b"\xca\x3d\x0a\x99\xa2\xb9\x39\x06\xf7\xa3\x34\x24\x14\xef\xcf\xb3\xa3\x85\xd4\x4c\xd1\xfd\x45\x90\x89\xd1\x9b\x50\x71\xc0\xb7\xa0";
const POLICY_B_SHA384: [u8; 48] =
    *b"\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a\x07\x41\x48\xbb\x35\xd3\xb4\xe4\
    \xcb\x1c\x0a\xd9\xbd\xe4\x19\xca\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12";
const POLICY_B_SHA512: [u8; 64] =
    *b"\xb8\x22\x1c\xa6\x9e\x85\x50\xa4\x91\x4d\xe3\xfa\xa6\xa1\x8c\x07\x2c\xc0\x12\x08\x07\x3a\x92\x8d\x5d\x66\xd5\x9e\xf7\x9e\x49\xa4\
    \x29\xc4\x1a\x6b\x26\x95\x71\xd5\x7e\xdb\x25\xfb\xdb\x18\x38\x42\x56\x08\xb4\x13\xcd\x61\x6a\x5f\x6d\xb5\xb6\x07\x1a\xf9\x9b\xea";

#[cfg(feature = "rustcrypto")]
#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::crypto::{Hashing, RustCrypto};

    fn hash(alg: HashAlg, parts: &[&[u8]]) -> Vec<u8> {
        RustCrypto.hash(alg, parts).as_slice().to_vec()
    }

    /// The profile says how its policies come about.
    #[test]
    fn policies_are_those_of_the_profile() {
        let known: [(HashAlg, u32, &[u8]); 3] = [
            (HashAlg::Sha256, 0x01C0_7F01, &POLICY_B_SHA256),
            (HashAlg::Sha384, 0x01C0_7F02, &POLICY_B_SHA384),
            (HashAlg::Sha512, 0x01C0_7F03, &POLICY_B_SHA512),
        ];
        for (alg, index, policy_b) in known {
            let none = [0; 64];
            let (none, len) = (&none[..alg.digest_len()], alg.digest_len());
            let secret = hash(alg, &[none, b"\0\0\x01\x51\x40\0\0\x0B"]);
            let policy_a = hash(alg, &[&secret]);
            if alg == HashAlg::Sha256 {
                assert_eq!(policy_a, POLICY_A_SHA256);
            }
            // TPMS_NV_PUBLIC of the index: written by the owner's policy, read by all.
            let id = alg.alg().0.to_be_bytes();
            let [policy_len, data_len] = [len, len + 2].map(|n| u16::try_from(n).unwrap());
            let public = hash(
                alg,
                &[
                    &index.to_be_bytes(),
                    &id,
                    &0x220F_1008u32.to_be_bytes(),
                    &policy_len.to_be_bytes(),
                    &policy_a,
                    &data_len.to_be_bytes(),
                ],
            );
            let policy_c = hash(alg, &[none, b"\0\0\x01\x92", &id, &public]);
            let both = hash(alg, &[none, b"\0\0\x01\x71", &policy_a, &policy_c]);
            assert_eq!(both, policy_b);
        }
    }

    #[test]
    fn every_key_has_indices_of_its_own() {
        let mut all = Vec::new();
        for key in EndorsementKey::ALL {
            for credential in [
                Credential::Certificate,
                Credential::Nonce,
                Credential::Template,
            ] {
                all.extend(key.index(credential));
            }
            assert!(!key.template().is_empty());
        }
        assert_eq!(all.len(), 2 * 3 + 6 * 2);
        all.windows(2).for_each(|pair| assert!(pair[0] < pair[1]));
    }
}

//! Which public areas make sense, alone and below a parent (Part 1, clause 25; Part 2, clauses 8.3 and 12.2).
//!
//! The codes are those of the reference, without the number of the parameter that is to blame.

use crate::{
    alg::Alg,
    crypto::{EccNumber, keygen::is_exponent},
    rc::{Rc, ensure},
    state::{Core, object::Object},
    structures::{
        attributes::ObjectAttributes as A,
        public::{Params, Public, Unique},
        scheme::{KeyMode, KeyedHashScheme, Scheme},
        sensitive::Sensitive,
    },
};

/// Attributes, alone and together with the parent's. Without a parent the object is at the root of a hierarchy, or external.
pub(crate) fn check_attributes(public: &Public, parent: Option<&Object>) -> Result<(), Rc> {
    let len = public.name_alg.map_or(0, crate::HashAlg::digest_len);
    ensure(
        public.policy.is_empty() || public.policy.len() == len,
        Rc::SIZE,
    )?;
    let attributes = public.attributes;
    let fixed_tpm = attributes.contains(A::FIXED_TPM);
    let fixed_parent = attributes.contains(A::FIXED_PARENT);
    let parent_fixed = parent.is_none_or(|p| p.has(A::FIXED_TPM));
    if fixed_parent {
        ensure(fixed_tpm == parent_fixed, Rc::ATTRIBUTES)?;
    }
    ensure(fixed_parent || !fixed_tpm, Rc::ATTRIBUTES)?;
    // What leaves the TPM only encrypted cannot have children that leave it otherwise.
    let encrypted = attributes.contains(A::ENCRYPTED_DUPLICATION);
    if fixed_tpm {
        ensure(!encrypted, Rc::ATTRIBUTES)?;
    } else if let Some(parent) = parent.filter(|p| !p.has(A::FIXED_TPM)) {
        ensure(
            encrypted == parent.has(A::ENCRYPTED_DUPLICATION),
            Rc::ATTRIBUTES,
        )?;
    }
    let (sign, decrypt) = (
        attributes.contains(A::SIGN),
        attributes.contains(A::DECRYPT),
    );
    if attributes.contains(A::RESTRICTED) {
        ensure(sign != decrypt, Rc::ATTRIBUTES)?;
    } else if !matches!(public.params, Params::KeyedHash(_)) {
        ensure(sign || decrypt, Rc::ATTRIBUTES)?;
    }
    // x509sign means nothing in a key that does not sign, and may be set in it.
    Ok(())
}

/// Schemes and symmetric algorithms, which depend on what the key is for.
pub(crate) fn check_schemes(public: &Public) -> Result<(), Rc> {
    let has = |attribute| public.has(attribute);
    let (sign, decrypt, restricted) = (has(A::SIGN), has(A::DECRYPT), has(A::RESTRICTED));
    match &public.params {
        // A code encrypts nothing.
        Params::SymCipher(cipher) => ensure(!decrypt || cipher.mode != KeyMode::Cmac, Rc::SCHEME),
        Params::KeyedHash(scheme) => {
            let fits = match scheme {
                KeyedHashScheme::Null => sign == decrypt,
                KeyedHashScheme::Hmac(_) => sign && !decrypt,
                KeyedHashScheme::Xor(_, kdf) => {
                    decrypt && !sign && (!restricted || *kdf == Some(Alg::KDF1_SP800_108))
                }
            };
            ensure(fits, Rc::SCHEME)
        }
        Params::Rsa {
            symmetric, scheme, ..
        }
        | Params::Ecc {
            symmetric, scheme, ..
        } => {
            let storage = restricted && decrypt;
            // Whatever mode it names, children are encrypted in CFB mode.
            let symmetric_fits = symmetric.is_some() == storage;
            let scheme_fits = match scheme {
                Scheme::Null => !(restricted && sign),
                scheme if scheme.signs() => sign && !decrypt,
                _ => decrypt && !sign && !restricted,
            };
            ensure(scheme_fits, Rc::SCHEME)?;
            if let Params::Ecc { kdf, .. } = &public.params {
                ensure(kdf.is_none(), Rc::KDF)?;
            }
            ensure(symmetric_fits, Rc::SYMMETRIC)
        }
        Params::Lattice(params) => params.check_use(sign, decrypt, restricted),
    }
}

/// What a template of a new object must be (clauses 12.1, 24.1).
pub(crate) fn check_creation(
    public: &Public,
    parent: Option<&Object>,
    data_len: usize,
) -> Result<(), Rc> {
    let origin = public.has(A::SENSITIVE_DATA_ORIGIN);
    ensure(origin || data_len != 0, Rc::ATTRIBUTES)?;
    // Below a parent nobody gives data for what the TPM makes. The data of a primary object go into its derivation.
    ensure(parent.is_none() || !origin || data_len == 0, Rc::ATTRIBUTES)?;
    match public.params {
        Params::KeyedHash(_) | Params::SymCipher(_) => {
            if let Params::KeyedHash(_) = public.params {
                let is_data = !public.attributes.intersects(A::SIGN | A::DECRYPT);
                ensure(!(is_data && origin), Rc::ATTRIBUTES)?;
            }
            let fixed = public.attributes.intersects(A::FIXED_TPM | A::FIXED_PARENT);
            ensure(
                !public.has(A::RESTRICTED) || origin || !fixed,
                Rc::ATTRIBUTES,
            )?;
        }
        // Keys of number theory are never given.
        _ => ensure(origin, Rc::ATTRIBUTES)?,
    }
    check_attributes(public, parent)?;
    check_schemes(public)?;
    if let Params::Rsa { exponent, .. } = public.params {
        ensure(exponent == 0 || is_exponent(exponent), Rc::RANGE)?;
    }
    Ok(())
}

/// Whose fault it is that two areas do not fit together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blame {
    Public(Rc),
    Sensitive(Rc),
    Both(Rc),
}

/// Checks the key itself: sizes, points, and, if `deep`, that both areas are one key.
pub(crate) fn check_key(
    core: &Core<'_>,
    public: &Public,
    sensitive: Option<&Sensitive>,
    deep: bool,
) -> Result<(), Blame> {
    let crypto = core.crypto;
    let blame_public = |held, rc| ensure(held, rc).map_err(Blame::Public);
    let blame_sensitive = |held, rc| ensure(held, rc).map_err(Blame::Sensitive);
    let digest_len = public.name_alg.map_or(0, crate::HashAlg::digest_len);
    if let Some(sensitive) = sensitive {
        blame_sensitive(sensitive.alg == public.params.alg(), Rc::TYPE)?;
        let fits = public.name_alg.is_none() || sensitive.auth.len() <= digest_len;
        blame_sensitive(fits, Rc::SIZE)?;
    }
    match (&public.params, &public.unique) {
        (Params::Rsa { bits, exponent, .. }, Unique::Rsa(n)) => {
            let len = usize::from(*bits) / 8;
            let long = n.as_slice().first().is_some_and(|b| b & 0x80 != 0);
            let odd = n.as_slice().last().is_some_and(|b| b & 1 != 0);
            blame_public(n.len() == len && long && odd, Rc::KEY)?;
            blame_public(*exponent == 0 || is_exponent(*exponent), Rc::VALUE)?;
            if let Some(sensitive) = sensitive {
                blame_sensitive(sensitive.secret.len() * 2 == len, Rc::KEY_SIZE)?;
            }
        }
        (Params::Ecc { curve, .. }, Unique::Ecc(point)) => {
            let len = curve.bytes();
            blame_public(point.x.len() == len && point.y.len() == len, Rc::KEY)?;
            blame_public(crypto.contains(*curve, point), Rc::ECC_POINT)?;
            if let Some(sensitive) = sensitive {
                blame_sensitive(sensitive.secret.len() <= len, Rc::KEY_SIZE)?;
                if deep {
                    let mut d: EccNumber = sensitive.secret.resized();
                    d.pad_front(len);
                    blame_sensitive(crate::crypto::is_scalar(crypto, *curve, &d), Rc::KEY_SIZE)?;
                    let own = crypto.mul(*curve, &d, None);
                    ensure(own.as_ref() == Some(point), Rc::BINDING).map_err(Blame::Both)?;
                }
            }
        }
        (Params::Lattice(params), Unique::Lattice(key)) => {
            core.check_lattice(*params, key, sensitive, deep)?;
        }
        (params, Unique::Digest(unique)) => {
            let Some(sensitive) = sensitive else {
                return blame_public(unique.len() == digest_len, Rc::KEY);
            };
            if let Params::SymCipher(cipher) = params {
                blame_sensitive(sensitive.secret.len() == cipher.key_len(), Rc::KEY_SIZE)?;
            }
            if let Params::KeyedHash(KeyedHashScheme::Hmac(alg) | KeyedHashScheme::Xor(alg, _)) =
                params
            {
                blame_sensitive(sensitive.secret.len() <= alg.block_len(), Rc::KEY_SIZE)?;
            }
            if let Some(alg) = public.name_alg {
                let parts = [sensitive.seed.as_slice(), sensitive.secret.as_slice()];
                // A seed shorter than the digest would let the secret be guessed from `unique`.
                blame_sensitive(sensitive.seed.len() == digest_len, Rc::KEY_SIZE)?;
                let expected = crypto.hash(alg, &parts);
                ensure(expected == *unique, Rc::BINDING).map_err(Blame::Both)?;
            }
        }
        _ => return Err(Blame::Public(Rc::TYPE)),
    }
    Ok(())
}

impl Blame {
    /// The code, numbered by the parameters that hold the areas.
    pub(crate) const fn numbered(self, public: u32, sensitive: u32) -> Rc {
        match self {
            Self::Public(rc) => rc.param(public),
            Self::Sensitive(rc) => rc.param(sensitive),
            Self::Both(rc) => rc,
        }
    }
}

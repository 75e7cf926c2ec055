//! Certificates, as far as a chain of them needs.

use super::rsa;
use crate::der::read::Reader;
use crate::der::{oid, spl, tag};
use crate::launch::Tcb;
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};

/// Why a certificate is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unusable {
    /// It is not X.509 version 3 in DER.
    Malformed,
    /// It is signed, or its key signs, by other means than ECDSA over P-384 or RSASSA-PSS with 4096 bits, both with SHA-384.
    Algorithm,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub(super) struct Certificate<'a> {
    to_be_signed: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    key: Key,
    extensions: Reader<'a>,
    signature: Signed,
}

/// A public key.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is no allocator to put it elsewhere"
)]
enum Key {
    Ecdsa(VerifyingKey),
    Rsa(rsa::Key),
}

/// A signature.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is no allocator to put it elsewhere"
)]
enum Signed {
    Ecdsa(Signature),
    Rsa(rsa::Signature),
}

/// RSASSA-PSS with SHA-384 in both places, 48 bytes of salt, and the only trailer there is (RFC 8017, A.2.3): what stands in
/// a certificate after the identifier of the algorithm, and with it.
const RSASSA_PSS: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, // rsassaPss
    0x30, 0x39, 0xa0, 0x0f, 0x30, 0x0d, // the hash:
    0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, // SHA-384
    0xa1, 0x1c, 0x30, 0x1a, // the mask:
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, // MGF1 with
    0x30, 0x0d, // the hash
    0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, // SHA-384
    0xa2, 0x03, 0x02, 0x01, 0x30, // the length of the salt
    0xa3, 0x03, 0x02, 0x01, 0x01, // the trailer
];

impl<'a> Certificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Unusable> {
        let mut outer = Reader::new(der);
        let mut whole = outer.inside(tag::SEQUENCE).ok_or(Unusable::Malformed)?;
        let body = whole.value(tag::SEQUENCE).ok_or(Unusable::Malformed)?;
        let algorithm = whole.value(tag::SEQUENCE).ok_or(Unusable::Malformed)?;
        let signature = whole.bits().ok_or(Unusable::Malformed)?;
        if !outer.is_empty() || !whole.is_empty() {
            return Err(Unusable::Malformed);
        }
        let mut inner = Reader::new(body.contents);
        let fields = Fields::parse(&mut inner).ok_or(Unusable::Malformed)?;
        let mut algorithm_parts = Reader::new(algorithm.contents);
        let means = algorithm_parts.value(tag::OID).ok_or(Unusable::Malformed)?;
        if fields.algorithm != algorithm.whole {
            return Err(Unusable::Algorithm);
        }
        let signature = if means.contents == oid::ECDSA_SHA384 {
            Signed::Ecdsa(numbers(signature).ok_or(Unusable::Malformed)?)
        } else if algorithm.contents == RSASSA_PSS {
            Signed::Rsa(signature.try_into().map_err(|_| Unusable::Algorithm)?)
        } else {
            return Err(Unusable::Algorithm);
        };
        Ok(Self {
            to_be_signed: body.whole,
            issuer: fields.issuer,
            subject: fields.subject,
            key: public_key(fields.key)?,
            extensions: fields.extensions,
            signature,
        })
    }

    /// Whether `issuer` says that this is so.
    pub(super) fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        let holds = match (&issuer.key, &self.signature) {
            (Key::Ecdsa(key), Signed::Ecdsa(signature)) => {
                key.verify(self.to_be_signed, signature).is_ok()
            }
            (Key::Rsa(key), Signed::Rsa(signature)) => key.verifies(self.to_be_signed, signature),
            _ => false,
        };
        holds && self.issuer == issuer.subject
    }

    /// Its key, if that is one for ECDSA, as a chip's is.
    pub(super) const fn ecdsa(&self) -> Option<&VerifyingKey> {
        match &self.key {
            Key::Ecdsa(key) => Some(key),
            Key::Rsa(_) => None,
        }
    }

    /// Whether its key may sign certificates.
    pub(super) fn is_authority(&self) -> bool {
        // A flag that is false would not be there.
        self.extension(oid::BASIC_CONSTRAINTS)
            .and_then(|value| Reader::new(value).inside(tag::SEQUENCE))
            .and_then(|mut parts| parts.value(tag::BOOLEAN))
            .is_some_and(|flag| flag.contents == [0xff])
    }

    /// The security versions of the machine whose key it is (57230, "VCEK Certificate").
    pub(super) fn tcb(&self) -> Option<Tcb> {
        Some(Tcb {
            boot_loader: self.security_version(spl::BOOT_LOADER)?,
            tee: self.security_version(spl::TEE)?,
            snp: self.security_version(spl::SNP)?,
            microcode: self.security_version(spl::MICROCODE)?,
        })
    }

    /// The name of the machine, bare or as an octet string.
    pub(super) fn hardware_id(&self) -> Option<[u8; 64]> {
        let value = self.extension(oid::HARDWARE_ID)?;
        let bare = value.try_into().ok();
        bare.or_else(|| {
            let wrapped = Reader::new(value).value(tag::OCTET_STRING)?;
            wrapped.contents.try_into().ok()
        })
    }

    fn security_version(&self, part: u8) -> Option<u8> {
        let mut kind = [part; 10];
        for (to, from) in kind.iter_mut().zip(oid::SPL) {
            *to = from;
        }
        Reader::new(self.extension(&kind)?).small()
    }

    /// The value of an extension, if it is there once.
    fn extension(&self, kind: &[u8]) -> Option<&'a [u8]> {
        let (mut left, mut found) = (self.extensions, None);
        while !left.is_empty() {
            let mut extension = left.inside(tag::SEQUENCE)?;
            let name = extension.value(tag::OID)?;
            let mut value = extension.any()?;
            if value.tag == tag::BOOLEAN {
                value = extension.any()?;
            }
            if value.tag != tag::OCTET_STRING {
                return None;
            }
            if name.contents == kind && found.replace(value.contents).is_some() {
                return None;
            }
        }
        found
    }
}

/// The parts of what is signed.
struct Fields<'a> {
    algorithm: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    key: &'a [u8],
    extensions: Reader<'a>,
}

impl<'a> Fields<'a> {
    fn parse(body: &mut Reader<'a>) -> Option<Self> {
        const VERSION_3: u8 = 2;
        if body.inside(tag::VERSION)?.small()? != VERSION_3 {
            return None;
        }
        body.value(tag::INTEGER)?;
        let algorithm = body.value(tag::SEQUENCE)?.whole;
        let issuer = body.value(tag::SEQUENCE)?.whole;
        // Between two times, which nobody here can tell.
        body.value(tag::SEQUENCE)?;
        let subject = body.value(tag::SEQUENCE)?.whole;
        let key = body.value(tag::SEQUENCE)?.contents;
        let extensions = body.inside(tag::EXTENSIONS)?.inside(tag::SEQUENCE)?;
        body.is_empty().then_some(Self {
            algorithm,
            issuer,
            subject,
            key,
            extensions,
        })
    }
}

fn public_key(info: &[u8]) -> Result<Key, Unusable> {
    let mut info = Reader::new(info);
    let mut algorithm = info.inside(tag::SEQUENCE).ok_or(Unusable::Malformed)?;
    let kind = algorithm.value(tag::OID).ok_or(Unusable::Malformed)?;
    if kind.contents == oid::RSA_ENCRYPTION {
        let numbers = info.bits().ok_or(Unusable::Malformed)?;
        return rsa::Key::parse(numbers).map(Key::Rsa);
    }
    if kind.contents != oid::EC_PUBLIC_KEY {
        return Err(Unusable::Algorithm);
    }
    let curve = algorithm.value(tag::OID).ok_or(Unusable::Malformed)?;
    if curve.contents != oid::SECP384R1 {
        return Err(Unusable::Algorithm);
    }
    let point = info.bits().ok_or(Unusable::Malformed)?;
    VerifyingKey::from_sec1_bytes(point)
        .map(Key::Ecdsa)
        .map_err(|_| Unusable::Malformed)
}

fn numbers(signature: &[u8]) -> Option<Signature> {
    let mut outer = Reader::new(signature);
    let mut parts = outer.inside(tag::SEQUENCE)?;
    let (r, s) = (parts.number::<48>()?, parts.number::<48>()?);
    if !outer.is_empty() || !parts.is_empty() {
        return None;
    }
    Signature::from_scalars(r, s).ok()
}

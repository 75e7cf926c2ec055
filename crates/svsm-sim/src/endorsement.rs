//! Keys that sign reports, and certificates that say whose they are.
//!
//! The chain has the shape of AMD's: a root (ARK), below it a key for the product (ASK), below that the chip's own key for
//! one set of security versions (VCEK). All are derived from a seed that stands in this file, so **nothing that they sign
//! proves anything**; they exist so that the whole path from request to verdict can be tested. AMD's root and product key
//! are RSA-4096 with PSS padding; ours are ECDSA P-384, as the VCEK is in both.

use crate::der::write::Writer;
use crate::der::{oid, spl, tag};
use crate::launch::{Chip, Tcb};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use p384::elliptic_curve::ops::Reduce;
use p384::{FieldBytes, NonZeroScalar};
use sha2::{Digest, Sha384};

/// Everybody knows this.
const SEED: &[u8] = b"svsm-sim test keys, not a secret";
const ORGANIZATION: &str = "svsm-sim test keys";
const ROOT: &str = "ARK-Sim";
const PRODUCT: &str = "SEV-Sim";
const CHIP: &str = "SEV-VCEK";

/// 48 bytes that only depend on the seed, a name and `facts`.
pub(crate) fn derive(name: &str, facts: &[&[u8]]) -> [u8; 48] {
    let mut hash = Sha384::new();
    hash.update(SEED);
    hash.update(name);
    for fact in facts {
        hash.update(fact);
    }
    hash.finalize().into()
}

fn key(name: &str, facts: &[&[u8]]) -> SigningKey {
    let number = derive(name, facts);
    SigningKey::from(NonZeroScalar::reduce(&FieldBytes::from(number)))
}

/// A certificate: X.509 version 3, DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    buffer: [u8; Self::MAX_LEN],
    len: usize,
}

impl Certificate {
    /// More than any of ours has.
    const MAX_LEN: usize = 1024;

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

/// What a certificate says beyond whose key it is.
enum Role<'c> {
    /// Its key signs certificates.
    Authority,
    /// Its key signs reports of this chip.
    Chip { id: &'c [u8; 64], tcb: Tcb },
}

/// The keys behind a machine's reports.
#[derive(Clone, Debug)]
pub struct Endorsement {
    ark: SigningKey,
    ask: SigningKey,
    vcek: SigningKey,
    id: [u8; 64],
    tcb: Tcb,
}

impl Endorsement {
    /// The keys of a machine at its security versions.
    #[must_use]
    pub fn new<H>(chip: &Chip<H>) -> Self {
        let tcb = chip.tcb.to_u64().to_le_bytes();
        Self {
            ark: key("ARK", &[]),
            ask: key("ASK", &[]),
            vcek: key("VCEK", &[&chip.id, &tcb]),
            id: chip.id,
            tcb: chip.tcb,
        }
    }

    /// The key that signs reports.
    #[must_use]
    pub const fn vcek(&self) -> &SigningKey {
        &self.vcek
    }

    /// The root's certificate, signed by itself: [`root_certificate`].
    #[must_use]
    pub fn ark_certificate(&self) -> Certificate {
        self_signed(&self.ark)
    }

    /// The product key's certificate, signed by the root.
    #[must_use]
    pub fn ask_certificate(&self) -> Certificate {
        let public = self.ask.verifying_key();
        certificate(2, ROOT, &self.ark, PRODUCT, public, &Role::Authority)
    }

    /// The chip's certificate, signed by the product key.
    #[must_use]
    pub fn vcek_certificate(&self) -> Certificate {
        let role = Role::Chip {
            id: &self.id,
            tcb: self.tcb,
        };
        let public = self.vcek.verifying_key();
        certificate(3, PRODUCT, &self.ask, CHIP, public, &role)
    }

    /// Writes what a host gives a guest with an extended request: a table of GUIDs, offsets and lengths, then the
    /// certificates (56421, "SNP Extended Guest Request"). The rest of `pages` becomes zero.
    ///
    /// # Errors
    /// How many bytes it takes, if these are not enough.
    pub fn certificate_table(&self, pages: &mut [u8]) -> Result<(), usize> {
        const ENTRY: usize = 24;
        let certificates = [
            (GUID_VCEK, self.vcek_certificate()),
            (GUID_ASK, self.ask_certificate()),
            (GUID_ARK, self.ark_certificate()),
        ];
        // One more entry, of zeros, ends the table.
        let table_len = ENTRY * (certificates.len() + 1);
        let bodies_len: usize = certificates.iter().map(|(_, body)| body.len).sum();
        let needed = table_len + bodies_len;
        let (table, mut rest) = pages.split_at_mut_checked(table_len).ok_or(needed)?;
        table.fill(0);
        rest.fill(0);
        let mut offset = table_len;
        for (entry, (guid, body)) in table.chunks_exact_mut(ENTRY).zip(&certificates) {
            let number = |len: usize| u32::try_from(len).map(u32::to_le_bytes).map_err(|_| needed);
            let target;
            (target, rest) = rest.split_at_mut_checked(body.len).ok_or(needed)?;
            target.copy_from_slice(body.der());
            let fields = [guid.as_slice(), &number(offset)?, &number(body.len)?];
            for (to, from) in entry.iter_mut().zip(fields.into_iter().flatten()) {
                *to = *from;
            }
            offset += body.len;
        }
        Ok(())
    }
}

/// The certificate of the root, which is the same for all machines in software: what a reader of their reports trusts.
#[must_use]
pub fn root_certificate() -> Certificate {
    self_signed(&key("ARK", &[]))
}

fn self_signed(ark: &SigningKey) -> Certificate {
    certificate(1, ROOT, ark, ROOT, ark.verifying_key(), &Role::Authority)
}

/// 63da758d-e664-4564-adc5-f4b93be8accd
pub const GUID_VCEK: [u8; 16] = guid(0x63da_758d, 0xe664, 0x4564, 0xadc5_f4b9_3be8_accd);
/// 4ab7b379-bbac-4fe4-a02f-05aef327c782
pub const GUID_ASK: [u8; 16] = guid(0x4ab7_b379, 0xbbac, 0x4fe4, 0xa02f_05ae_f327_c782);
/// c0b406a4-a803-4952-9743-3fb6014cd0ae
pub const GUID_ARK: [u8; 16] = guid(0xc0b4_06a4, 0xa803, 0x4952, 0x9743_3fb6_014c_d0ae);

/// A GUID on the wire: the first three parts little-endian, the rest as written.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
        (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [d0, d1, d2, d3, d4, d5, d6, d7] = d.to_be_bytes();
    [
        a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
    ]
}

fn certificate(
    serial: u8,
    issuer: &str,
    issuer_key: &SigningKey,
    subject: &str,
    public: &VerifyingKey,
    role: &Role<'_>,
) -> Certificate {
    let mut buffer = [0; Certificate::MAX_LEN];
    let mut writer = Writer::new(&mut buffer);
    to_be_signed(&mut writer, serial, issuer, subject, public, role);
    // All certificates of ours fit: the tests make the largest.
    let body = writer.written().unwrap_or_default();
    let signature: Signature = issuer_key.sign(body);
    let (r, s) = signature.split_bytes();

    let mut whole = [0; Certificate::MAX_LEN];
    let mut writer = Writer::new(&mut whole);
    writer.nested(tag::SEQUENCE, |writer| {
        writer.bits(|writer| {
            writer.nested(tag::SEQUENCE, |writer| {
                writer.unsigned(&s);
                writer.unsigned(&r);
            });
        });
        algorithm(writer);
        writer.raw(body);
    });
    let mut certificate = Certificate {
        buffer: [0; Certificate::MAX_LEN],
        len: 0,
    };
    let der = writer.written().unwrap_or_default();
    certificate.len = der.len();
    for (to, from) in certificate.buffer.iter_mut().zip(der) {
        *to = *from;
    }
    certificate
}

fn algorithm(writer: &mut Writer<'_>) {
    writer.nested(tag::SEQUENCE, |writer| {
        writer.value(tag::OID, oid::ECDSA_SHA384);
    });
}

/// Everything is written last part first.
fn to_be_signed(
    writer: &mut Writer<'_>,
    serial: u8,
    issuer: &str,
    subject: &str,
    public: &VerifyingKey,
    role: &Role<'_>,
) {
    writer.nested(tag::SEQUENCE, |writer| {
        writer.nested(tag::EXTENSIONS, |writer| {
            writer.nested(tag::SEQUENCE, |writer| match role {
                Role::Authority => authority(writer),
                Role::Chip { id, tcb } => chip(writer, id, *tcb),
            });
        });
        writer.nested(tag::SEQUENCE, |writer| {
            writer.bits(|writer| writer.raw(public.to_sec1_point(false).as_bytes()));
            writer.nested(tag::SEQUENCE, |writer| {
                writer.value(tag::OID, oid::SECP384R1);
                writer.value(tag::OID, oid::EC_PUBLIC_KEY);
            });
        });
        name(writer, subject);
        // Test keys do not age.
        writer.nested(tag::SEQUENCE, |writer| {
            writer.value(tag::UTC_TIME, b"491231235959Z");
            writer.value(tag::UTC_TIME, b"200101000000Z");
        });
        name(writer, issuer);
        algorithm(writer);
        writer.unsigned(&[serial]);
        writer.nested(tag::VERSION, |writer| writer.unsigned(&[2]));
    });
}

fn name(writer: &mut Writer<'_>, common_name: &str) {
    let attribute = |writer: &mut Writer<'_>, kind: &[u8], text: &str| {
        writer.nested(tag::SET, |writer| {
            writer.nested(tag::SEQUENCE, |writer| {
                writer.value(tag::UTF8_STRING, text.as_bytes());
                writer.value(tag::OID, kind);
            });
        });
    };
    writer.nested(tag::SEQUENCE, |writer| {
        attribute(writer, oid::COMMON_NAME, common_name);
        attribute(writer, oid::ORGANIZATION, ORGANIZATION);
    });
}

fn extension(
    writer: &mut Writer<'_>,
    kind: &[u8],
    critical: bool,
    contents: impl FnOnce(&mut Writer<'_>),
) {
    writer.nested(tag::SEQUENCE, |writer| {
        writer.nested(tag::OCTET_STRING, contents);
        if critical {
            writer.value(tag::BOOLEAN, &[0xff]);
        }
        writer.value(tag::OID, kind);
    });
}

fn authority(writer: &mut Writer<'_>) {
    // keyCertSign alone, then "is an authority".
    extension(writer, oid::KEY_USAGE, true, |writer| {
        writer.value(tag::BIT_STRING, &[2, 0b100]);
    });
    extension(writer, oid::BASIC_CONSTRAINTS, true, |writer| {
        writer.nested(tag::SEQUENCE, |writer| writer.value(tag::BOOLEAN, &[0xff]));
    });
}

fn chip(writer: &mut Writer<'_>, id: &[u8; 64], tcb: Tcb) {
    // The name of the chip stands there as it is, not as a value of its own.
    extension(writer, oid::HARDWARE_ID, false, |writer| writer.raw(id));
    let version = |writer: &mut Writer<'_>, part: u8, value: u8| {
        let mut kind = [part; 10];
        for (to, from) in kind.iter_mut().zip(oid::SPL) {
            *to = from;
        }
        extension(writer, &kind, false, |writer| writer.unsigned(&[value]));
    };
    version(writer, spl::MICROCODE, tcb.microcode);
    for part in spl::RESERVED.into_iter().rev() {
        version(writer, part, 0);
    }
    version(writer, spl::SNP, tcb.snp);
    version(writer, spl::TEE, tcb.tee);
    version(writer, spl::BOOT_LOADER, tcb.boot_loader);
    extension(writer, oid::PRODUCT_NAME, false, |writer| {
        writer.value(tag::IA5_STRING, b"Sim-A0");
    });
    extension(writer, oid::STRUCTURE_VERSION, false, |writer| {
        writer.unsigned(&[1]);
    });
}

//! Whether a report is what it says: signatures, certificates, and what the reader expects of the guest.
//!
//! Times and revocation are not checked: there is no clock here and no list. Certificates are signed as AMD's are, by RSA of
//! 4096 bits (RSASSA-PSS), or as those of the software machine are, by ECDSA; reports are by ECDSA in both.

mod certificate;
mod rsa;

pub use certificate::Unusable;

use crate::curve::ALGORITHM_P384_SHA384;
use crate::launch::{Policy, Tcb};
use crate::report::Report;
use certificate::Certificate;
use core::fmt;
use zerocopy::FromBytes;

/// Which certificate of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// The root.
    Ark,
    /// The product key.
    Ask,
    /// The chip's key.
    Vcek,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ark => "ARK",
            Self::Ask => "ASK",
            Self::Vcek => "VCEK",
        })
    }
}

/// Why a report is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It does not have the length of a report.
    Length,
    /// A layout that is not known here.
    Version(u32),
    /// It is signed by other means than ECDSA over P-384 with SHA-384.
    SignatureAlgorithm(u32),
    /// It is not signed by the chip's key: 1 the VLEK, 7 nobody.
    SigningKey(u32),
    /// The processor's family numbers security versions in another way.
    TcbLayout(u8),
    /// The table of certificates makes no sense.
    Table,
    /// The chain lacks this certificate.
    Missing(Link),
    /// This certificate cannot be used.
    Certificate(Link, Unusable),
    /// The issuer of this certificate did not sign it, or may not sign certificates.
    Chain(Link),
    /// The certificate speaks of other security versions than the report.
    CertificateTcb,
    /// The certificate is another chip's.
    ChipId,
    /// The report's signature is wrong.
    Signature,
    /// The guest's policy is not one.
    Policy,
    /// The host may read and write the guest's memory.
    Debug,
    /// Another image was launched.
    Measurement,
    /// The report was made for another purpose, or another time.
    ReportData,
    /// The host added something else at launch.
    HostData,
    /// Another level asked.
    Vmpl(u32),
    /// The machine is older than it may be.
    OldTcb,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("not as long as a report"),
            Self::Version(version) => write!(f, "report version {version} is unknown"),
            Self::SignatureAlgorithm(number) => {
                write!(f, "signature algorithm {number} is unknown")
            }
            Self::SigningKey(number) => write!(f, "signed by key {number}, not by the VCEK"),
            Self::TcbLayout(family) => {
                write!(f, "security versions of family {family:#x} are unknown")
            }
            Self::Table => f.write_str("the certificate table is malformed"),
            Self::Missing(link) => write!(f, "the {link} certificate is missing"),
            Self::Certificate(link, Unusable::Malformed) => {
                write!(f, "the {link} certificate is malformed")
            }
            Self::Certificate(link, Unusable::Algorithm) => {
                write!(f, "the {link} certificate uses another algorithm")
            }
            Self::Chain(link) => write!(f, "the {link} certificate is not its issuer's"),
            Self::CertificateTcb => f.write_str("the certificate is for other security versions"),
            Self::ChipId => f.write_str("the certificate is another chip's"),
            Self::Signature => f.write_str("the report's signature is wrong"),
            Self::Policy => f.write_str("the policy is malformed"),
            Self::Debug => f.write_str("the host may debug the guest"),
            Self::Measurement => f.write_str("the measurement is another one"),
            Self::ReportData => f.write_str("the report data is another one"),
            Self::HostData => f.write_str("the host data is another one"),
            Self::Vmpl(level) => write!(f, "VMPL{level} asked for the report"),
            Self::OldTcb => f.write_str("the machine's security versions are too old"),
        }
    }
}

impl core::error::Error for Reason {}

/// What comes with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// The certificate of the chip's key, DER.
    pub vcek: &'a [u8],
    /// The certificate of the product key, DER.
    pub ask: &'a [u8],
}

impl<'a> Chain<'a> {
    /// Finds the certificates in the table that a host hands out with an extended request. A root in it is passed over:
    /// who reads a report must have one already.
    ///
    /// # Errors
    /// [`Reason::Table`] and [`Reason::Missing`].
    pub fn from_table(pages: &'a [u8]) -> Result<Self, Reason> {
        const VCEK: [u8; 16] = 0x8d75_da63_64e6_6445_adc5_f4b9_3be8_accd_u128.to_be_bytes();
        const ASK: [u8; 16] = 0x79b3_b74a_acbb_e44f_a02f_05ae_f327_c782_u128.to_be_bytes();
        let (mut vcek, mut ask) = (None, None);
        for entry in pages.chunks_exact(24) {
            let Some((guid, [o0, o1, o2, o3, l0, l1, l2, l3])) = entry.split_first_chunk::<16>()
            else {
                return Err(Reason::Table);
            };
            if entry.iter().all(|byte| *byte == 0) {
                return Ok(Self {
                    vcek: vcek.ok_or(Reason::Missing(Link::Vcek))?,
                    ask: ask.ok_or(Reason::Missing(Link::Ask))?,
                });
            }
            let number =
                |bytes| usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| Reason::Table);
            let (offset, len) = (number([*o0, *o1, *o2, *o3])?, number([*l0, *l1, *l2, *l3])?);
            let end = offset.checked_add(len).ok_or(Reason::Table)?;
            let body = pages.get(offset..end).ok_or(Reason::Table)?;
            match *guid {
                VCEK => vcek = Some(body),
                ASK => ask = Some(body),
                _ => {}
            }
        }
        Err(Reason::Table)
    }
}

/// What the reader of a report expects. What is `None` may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The launch digest.
    pub measurement: Option<[u8; 48]>,
    /// What the guest says.
    pub report_data: Option<[u8; 64]>,
    /// What the host said at launch.
    pub host_data: Option<[u8; 32]>,
    /// Which level asked.
    pub vmpl: Option<u32>,
    /// Versions that the machine has at least.
    pub least_tcb: Option<Tcb>,
    /// Whether a guest that the host may debug will do.
    pub debug: bool,
}

impl Expected {
    /// Any guest that the host may not debug.
    pub const ANY: Self = Self {
        measurement: None,
        report_data: None,
        host_data: None,
        vmpl: None,
        least_tcb: None,
        debug: false,
    };
}

/// Checks a report against the chain that came with it, a root that the caller trusts, and what the caller expects.
///
/// # Errors
/// The first reason not to believe it: first its form, then the chain from the root down, then the signature, then what it
/// says.
pub fn verify(
    report: &[u8],
    chain: &Chain<'_>,
    root: &[u8],
    expected: &Expected,
) -> Result<Report, Reason> {
    let report = Report::read_from_bytes(report).map_err(|_| Reason::Length)?;
    let tcb = form(&report)?;
    let vcek = trusted(chain, root)?;
    // A report without a chip's name does not say whose it is.
    if vcek.hardware_id() != Some(report.chip_id) {
        return Err(Reason::ChipId);
    }
    if vcek.tcb() != Some(tcb) {
        return Err(Reason::CertificateTcb);
    }
    let Some(key) = vcek.ecdsa() else {
        return Err(Reason::Certificate(Link::Vcek, Unusable::Algorithm));
    };
    if !report.signature.verifies(key, report.signed_part()) {
        return Err(Reason::Signature);
    }
    meets(&report, tcb, expected)?;
    Ok(report)
}

/// The security versions of a report whose form is known.
fn form(report: &Report) -> Result<Tcb, Reason> {
    let version = report.version.get();
    if !(2..=5).contains(&version) {
        return Err(Reason::Version(version));
    }
    if report.signature_algorithm.get() != ALGORITHM_P384_SHA384 {
        return Err(Reason::SignatureAlgorithm(report.signature_algorithm.get()));
    }
    if report.signing_key() != 0 {
        return Err(Reason::SigningKey(report.signing_key()));
    }
    let family = report.cpuid_family;
    if version >= 3 && family >= 0x1a {
        return Err(Reason::TcbLayout(family));
    }
    Tcb::from_u64(report.reported_tcb.get()).ok_or(Reason::TcbLayout(family))
}

/// The chip's certificate, if a line of signatures leads from the root to it.
fn trusted<'a>(chain: &Chain<'a>, root: &[u8]) -> Result<Certificate<'a>, Reason> {
    let parse = |link| move |why| Reason::Certificate(link, why);
    let ark = Certificate::parse(root).map_err(parse(Link::Ark))?;
    let ask = Certificate::parse(chain.ask).map_err(parse(Link::Ask))?;
    let vcek = Certificate::parse(chain.vcek).map_err(parse(Link::Vcek))?;
    if !ark.is_authority() || !ark.is_signed_by(&ark) {
        return Err(Reason::Chain(Link::Ark));
    }
    if !ask.is_authority() || !ask.is_signed_by(&ark) {
        return Err(Reason::Chain(Link::Ask));
    }
    if !vcek.is_signed_by(&ask) {
        return Err(Reason::Chain(Link::Vcek));
    }
    Ok(vcek)
}

fn meets(report: &Report, tcb: Tcb, expected: &Expected) -> Result<(), Reason> {
    let policy = Policy::from_bits_retain(report.policy.get());
    let differs =
        |wanted: Option<&[u8]>, found: &[u8]| wanted.is_some_and(|wanted| wanted != found);
    if !policy.contains(Policy::RESERVED_ONE) {
        return Err(Reason::Policy);
    }
    if policy.contains(Policy::DEBUG) && !expected.debug {
        return Err(Reason::Debug);
    }
    if differs(
        expected.measurement.as_ref().map(<[u8; 48]>::as_slice),
        &report.measurement,
    ) {
        return Err(Reason::Measurement);
    }
    if differs(
        expected.report_data.as_ref().map(<[u8; 64]>::as_slice),
        &report.report_data,
    ) {
        return Err(Reason::ReportData);
    }
    if differs(
        expected.host_data.as_ref().map(<[u8; 32]>::as_slice),
        &report.host_data,
    ) {
        return Err(Reason::HostData);
    }
    let level = report.vmpl.get();
    if expected.vmpl.is_some_and(|wanted| wanted != level) {
        return Err(Reason::Vmpl(level));
    }
    if expected.least_tcb.is_some_and(|least| !least.within(tcb)) {
        return Err(Reason::OldTcb);
    }
    Ok(())
}

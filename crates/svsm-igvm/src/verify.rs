//! What runs, or what is wrong: the relying party's question, answered from a report, the certificates behind it, and the
//! image that should run.
//!
//! [`svsm_sim::verify`] says whether a report is the chip's; this module says whether the guest in it is the one from an
//! image. Of a report that is the chip's, everything that is wrong is found, not the first thing only.

use core::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use svsm_sim::launch::{Policy, Tcb};
use svsm_sim::report::Report;
use svsm_sim::verify::{Chain, Expected, Reason, verify as authentic};

use crate::digest::LaunchDigest;
use crate::hex::{Hex, IdName};
use crate::reference::{Reference, SignedIdentity};

mod certificates;

pub use certificates::{CertificateFault, Certificates, first_certificate, last_certificate};

/// What somebody shows of a guest. All of it is their word until it has been verified.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The attestation report.
    pub report: &'a [u8],
    /// The certificates that came with it.
    pub chain: Chain<'a>,
    /// The root's certificate, in DER: the one thing here that is trusted.
    pub root: &'a [u8],
}

/// What the guest should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// The image that it came from.
    pub reference: Reference,
    /// The level that asked for the report. Every level of a guest can ask for one, with the same launch digest.
    pub vmpl: u32,
    /// What the guest says, if that is known: a nonce, as a rule.
    pub report_data: Option<[u8; 64]>,
    /// What the host said at launch, if that matters.
    pub host_data: Option<[u8; 32]>,
    /// Security versions that the machine has at least.
    pub least_tcb: Option<Tcb>,
    /// Whether a guest will do that the host can read and write.
    pub debug: bool,
}

impl Wanted {
    /// A guest from an image, on any machine, where VMPL0 says anything.
    #[must_use]
    pub const fn new(reference: Reference) -> Self {
        Self {
            reference,
            vmpl: 0,
            report_data: None,
            host_data: None,
            least_tcb: None,
            debug: false,
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The report is not a chip's, or is malformed: nothing in it counts.
    Evidence(Reason),
    /// There are no certificates to check the report with.
    Certificates(CertificateFault),
    /// Another image was launched.
    LaunchDigest {
        /// The digest that the report has.
        found: LaunchDigest,
        /// The image's.
        wanted: LaunchDigest,
    },
    /// The image was launched with another policy.
    Policy {
        /// The policy that the report has.
        found: u64,
        /// The image's.
        wanted: u64,
    },
    /// The host can read and write the guest's memory.
    Debug,
    /// The image was launched without the identity that its owner signed.
    NoIdentity,
    /// The image was launched with an identity that another key signed.
    IdKey {
        /// The digest that the report has.
        found: Hex<48>,
        /// The owner's.
        wanted: Hex<48>,
    },
    /// Another author vouches for the key.
    AuthorKey {
        /// The digest that the report has, if it has one.
        found: Option<Hex<48>>,
        /// The owner's.
        wanted: Option<Hex<48>>,
    },
    /// The family of images is another.
    Family {
        /// The name that the report has.
        found: IdName,
        /// The image's.
        wanted: IdName,
    },
    /// The image has another name.
    Image {
        /// The name that the report has.
        found: IdName,
        /// The image's.
        wanted: IdName,
    },
    /// The image has another security version.
    GuestSvn {
        /// The version that the report has.
        found: u32,
        /// The image's.
        wanted: u32,
    },
    /// Another level asked for the report.
    Vmpl {
        /// The level.
        found: u32,
        /// The level that should have asked.
        wanted: u32,
    },
    /// The guest says something else: the report was made for another purpose, or another time.
    ReportData,
    /// The host said something else at launch.
    HostData,
    /// The machine's security versions are too old.
    OldTcb {
        /// Those of the report.
        found: Tcb,
        /// The least that will do.
        least: Tcb,
    },
}

impl Finding {
    /// Its name, for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Evidence(_) => "evidence",
            Self::Certificates(_) => "certificates",
            Self::LaunchDigest { .. } => "launch-digest",
            Self::Policy { .. } => "policy",
            Self::Debug => "debug",
            Self::NoIdentity => "no-identity",
            Self::IdKey { .. } => "id-key",
            Self::AuthorKey { .. } => "author-key",
            Self::Family { .. } => "family",
            Self::Image { .. } => "image",
            Self::GuestSvn { .. } => "guest-svn",
            Self::Vmpl { .. } => "vmpl",
            Self::ReportData => "report-data",
            Self::HostData => "host-data",
            Self::OldTcb { .. } => "old-tcb",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evidence(reason) => reason.fmt(f),
            Self::Certificates(fault) => write!(f, "the certificates are of no use: {fault}"),
            Self::LaunchDigest { found, wanted } => {
                write!(
                    f,
                    "another image runs: its launch digest is {found}, not {wanted}"
                )
            }
            Self::Policy { found, wanted } => {
                write!(f, "the guest policy is {found:#x}, not {wanted:#x}")
            }
            Self::Debug => f.write_str("the host may read and write the guest's memory"),
            Self::NoIdentity => f.write_str(
                "the guest was launched without the identity that is signed in the image",
            ),
            Self::IdKey { found, wanted } => write!(
                f,
                "the identity is signed by the key with digest {found}, not {wanted}"
            ),
            Self::AuthorKey { found, wanted } => {
                let name = |digest: &Option<Hex<48>>| match digest {
                    Some(digest) => format!("the author with digest {digest}"),
                    None => "no author".to_owned(),
                };
                write!(
                    f,
                    "the key is vouched for by {}, not {}",
                    name(found),
                    name(wanted)
                )
            }
            Self::Family { found, wanted } => {
                write!(f, "the family of images is \"{found}\", not \"{wanted}\"")
            }
            Self::Image { found, wanted } => {
                write!(f, "the image is called \"{found}\", not \"{wanted}\"")
            }
            Self::GuestSvn { found, wanted } => {
                write!(f, "the image's security version is {found}, not {wanted}")
            }
            Self::Vmpl { found, wanted } => {
                write!(f, "VMPL{found} asked for the report, not VMPL{wanted}")
            }
            Self::ReportData => f.write_str("the guest says something else in the report data"),
            Self::HostData => f.write_str("the host said something else at launch"),
            Self::OldTcb { found, least } => write!(
                f,
                "the machine's security versions are {}, less than {}",
                Versions(*found),
                Versions(*least)
            ),
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Finding", 2)?;
        fields.serialize_field("what", self.name())?;
        fields.serialize_field("message", &format_args!("{self}"))?;
        fields.end()
    }
}

/// Security versions of a machine: boot loader, operating system, SNP firmware, microcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions(pub Tcb);

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tcb {
            boot_loader,
            tee,
            snp,
            microcode,
        } = self.0;
        write!(f, "{boot_loader}.{tee}.{snp}.{microcode}")
    }
}

impl core::str::FromStr for Versions {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.').map(str::parse::<u8>);
        let mut part = || parts.next().and_then(Result::ok);
        let tcb = (|| {
            Some(Tcb {
                boot_loader: part()?,
                tee: part()?,
                snp: part()?,
                microcode: part()?,
            })
        })();
        tcb.filter(|_| parts.next().is_none())
            .map(Self)
            .ok_or("it takes four numbers below 256: BOOTLOADER.TEE.SNP.MICROCODE")
    }
}

/// What an authentic report says of its guest and its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Guest {
    /// The launch digest.
    pub launch_digest: LaunchDigest,
    /// The level that asked for the report.
    pub vmpl: u32,
    /// The guest policy.
    pub policy: u64,
    /// Who the guest is, if somebody signed that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<SignedIdentity>,
    /// What the guest says.
    pub report_data: Hex<64>,
    /// What the host said at launch.
    pub host_data: Hex<32>,
    /// The machine's name.
    pub chip_id: Hex<64>,
    /// The machine's security versions.
    pub tcb: String,
    /// What the machine is like, as bits (56860, `PLATFORM_INFO`).
    pub platform_info: u64,
}

impl Guest {
    fn of(report: &Report) -> Self {
        let tcb = Tcb::from_u64(report.reported_tcb.get());
        Self {
            launch_digest: Hex(report.measurement),
            vmpl: report.vmpl.get(),
            policy: report.policy.get(),
            identity: identity(report),
            report_data: Hex(report.report_data),
            host_data: Hex(report.host_data),
            chip_id: Hex(report.chip_id),
            tcb: tcb.map_or_else(String::new, |tcb| Versions(tcb).to_string()),
            platform_info: report.platform_info.get(),
        }
    }
}

/// The identity in a report; without an ID block all of it is zero.
fn identity(report: &Report) -> Option<SignedIdentity> {
    (report.id_key_digest != [0; 48]).then(|| SignedIdentity {
        family_id: IdName(report.family_id),
        image_id: IdName(report.image_id),
        guest_svn: report.guest_svn.get(),
        id_key_digest: Hex(report.id_key_digest),
        author_key_digest: (report.flags.get() & Report::AUTHOR_KEY != 0)
            .then_some(Hex(report.author_key_digest)),
    })
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether the guest is what it should be: nothing is wrong.
    pub trusted: bool,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// What the report says, if it is a chip's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
}

impl Verdict {
    /// An answer about evidence that cannot even be looked at.
    #[must_use]
    pub fn against(finding: Finding) -> Self {
        Self {
            trusted: false,
            findings: vec![finding],
            guest: None,
        }
    }
}

/// Verifies that a guest is what it should be.
///
/// Times in certificates and revocation lists are not looked at: there is no clock here, and no list.
#[must_use]
pub fn verify(evidence: &Evidence<'_>, wanted: &Wanted) -> Verdict {
    let any = Expected {
        debug: true,
        ..Expected::ANY
    };
    match authentic(evidence.report, &evidence.chain, evidence.root, &any) {
        Ok(report) => {
            let findings = compare(&report, wanted);
            Verdict {
                trusted: findings.is_empty(),
                findings,
                guest: Some(Guest::of(&report)),
            }
        }
        Err(reason) => Verdict::against(Finding::Evidence(reason)),
    }
}

/// What an authentic report says else than wanted.
fn compare(report: &Report, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    let reference = &wanted.reference;
    let mut note = |differs: bool, finding| {
        if differs {
            findings.push(finding);
        }
    };
    let found = Hex(report.measurement);
    note(
        found != reference.launch_digest,
        Finding::LaunchDigest {
            found,
            wanted: reference.launch_digest,
        },
    );
    let policy = report.policy.get();
    note(
        policy != reference.policy,
        Finding::Policy {
            found: policy,
            wanted: reference.policy,
        },
    );
    let debug = Policy::from_bits_retain(policy).contains(Policy::DEBUG);
    note(debug && !wanted.debug, Finding::Debug);
    if let Some(signed) = &reference.identity {
        match identity(report) {
            None => note(true, Finding::NoIdentity),
            Some(found) => compare_identities(&found, signed, &mut note),
        }
    }
    let vmpl = report.vmpl.get();
    note(
        vmpl != wanted.vmpl,
        Finding::Vmpl {
            found: vmpl,
            wanted: wanted.vmpl,
        },
    );
    let said = wanted
        .report_data
        .is_none_or(|data| data == report.report_data);
    note(!said, Finding::ReportData);
    let said = wanted.host_data.is_none_or(|data| data == report.host_data);
    note(!said, Finding::HostData);
    // The signature holds only for a report whose versions can be read.
    if let (Some(least), Some(found)) = (wanted.least_tcb, Tcb::from_u64(report.reported_tcb.get()))
    {
        note(!least.within(found), Finding::OldTcb { found, least });
    }
    findings
}

fn compare_identities(
    found: &SignedIdentity,
    wanted: &SignedIdentity,
    note: &mut impl FnMut(bool, Finding),
) {
    note(
        found.id_key_digest != wanted.id_key_digest,
        Finding::IdKey {
            found: found.id_key_digest,
            wanted: wanted.id_key_digest,
        },
    );
    note(
        found.author_key_digest != wanted.author_key_digest,
        Finding::AuthorKey {
            found: found.author_key_digest,
            wanted: wanted.author_key_digest,
        },
    );
    note(
        found.family_id != wanted.family_id,
        Finding::Family {
            found: found.family_id,
            wanted: wanted.family_id,
        },
    );
    note(
        found.image_id != wanted.image_id,
        Finding::Image {
            found: found.image_id,
            wanted: wanted.image_id,
        },
    );
    note(
        found.guest_svn != wanted.guest_svn,
        Finding::GuestSvn {
            found: found.guest_svn,
            wanted: wanted.guest_svn,
        },
    );
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "wrong: {finding}")?;
        }
        let Some(guest) = &self.guest else {
            return writeln!(f, "not trusted: the report proves nothing");
        };
        guest.fmt(f)?;
        f.write_str(if self.trusted {
            "trusted: the guest runs this image\n"
        } else {
            "not trusted\n"
        })
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<17} {value}");
        line("launch digest", &self.launch_digest)?;
        line("asked by", &format_args!("VMPL{}", self.vmpl))?;
        line("guest policy", &format_args!("{:#x}", self.policy))?;
        if let Some(identity) = &self.identity {
            line("family", &identity.family_id)?;
            line("image", &identity.image_id)?;
            line("security version", &identity.guest_svn)?;
            line("ID key digest", &identity.id_key_digest)?;
            if let Some(digest) = &identity.author_key_digest {
                line("author key digest", digest)?;
            }
        }
        line("report data", &self.report_data)?;
        line("host data", &self.host_data)?;
        line("machine", &self.chip_id)?;
        line("machine versions", &self.tcb)
    }
}

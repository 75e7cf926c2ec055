//! The verbs of owners and relying parties: `sign` and `verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest, Sha512};
use svsm_igvm::hex::{Hex, IdName};
use svsm_igvm::manifest::Identity;
use svsm_igvm::svsm_sim::endorsement::root_certificate;
use svsm_igvm::verify::{
    Certificates, Evidence, Finding, Verdict, Versions, Wanted, last_certificate, verify,
};
use svsm_igvm::{Keys, Loader, Manifest, Options, Reference, build, sign};

use crate::{Answer, Failure, about, name_and_path, print, read, to_json, write};

/// The keys that sign who an image is.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Sign who the image is, with this private key (P-384, PEM or DER)
    #[arg(long, value_name = "FILE")]
    pub(crate) id_key: Option<PathBuf>,
    /// Vouch for that key with this one
    #[arg(long, value_name = "FILE", requires = "id_key")]
    pub(crate) author_key: Option<PathBuf>,
}

impl KeyArgs {
    /// The keys, if there are any.
    pub(crate) fn load(&self) -> Result<Option<Keys>, Failure> {
        let author = self.author_key.as_deref();
        let keys = self.id_key.as_deref().map(|id| Keys::load(id, author));
        Ok(keys.transpose()?)
    }
}

/// Signs who an image is: gives it an ID block for its launch digest.
///
/// For images of SEV-SNP, whoever built them. The machine refuses to launch
/// anything else with that block, and repeats it in attestation reports, beside
/// the digests of the keys. Same image, same keys, same bytes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  openssl ecparam -name secp384r1 -genkey -noout -out id.pem\n  \
        svsm-igvm sign svsm.igvm -o signed.igvm --id-key id.pem --image-id svsm --guest-svn 3"
)]
pub(crate) struct Sign {
    /// The image
    image: PathBuf,
    /// Where the signed image goes
    #[arg(short, long)]
    output: PathBuf,
    /// The private key that signs (P-384, PEM or DER)
    #[arg(long, value_name = "FILE")]
    id_key: PathBuf,
    /// The private key that vouches for the first
    #[arg(long, value_name = "FILE")]
    author_key: Option<PathBuf>,
    /// The family of images: 16 characters at most, or 32 hexadecimal digits
    #[arg(long, value_name = "NAME", default_value = "")]
    family_id: IdName,
    /// The image's name, in the same way
    #[arg(long, value_name = "NAME", default_value = "")]
    image_id: IdName,
    /// The image's security version
    #[arg(long, value_name = "N", default_value_t = 0)]
    guest_svn: u32,
    /// Print what reports will say as JSON
    #[arg(long)]
    json: bool,
}

impl Sign {
    pub(crate) fn run(&self) -> Result<Answer, Failure> {
        let keys = Keys::load(&self.id_key, self.author_key.as_deref())?;
        let identity = Identity::new(self.family_id, self.image_id, self.guest_svn);
        let failed = |error| about(&self.image, &error);
        let signed = sign(&read(&self.image)?, &identity, &keys).map_err(failed)?;
        let reference = Reference::of(&signed).map_err(failed)?;
        write(&self.output, &signed)?;
        if let Some(reference) = reference {
            if self.json {
                print(&to_json(&reference)?)?;
            } else {
                print(&reference.to_string())?;
            }
        }
        Ok(Answer::Yes)
    }
}

/// Says what runs in a guest of SEV-SNP, or what is wrong with it.
///
/// Holds an attestation report against the certificates that came with it, a root
/// that you trust, and the image that should run. All that is wrong is listed.
/// Times and revocation are not checked.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  svsm-igvm verify report.bin --image svsm.igvm --certs certs.bin --root ark.der\n  \
        svsm-igvm build image.toml -o svsm.igvm --json > svsm.json\n  \
        svsm-igvm verify report.bin --reference svsm.json --vcek vcek.der \\\n      \
            --ask chain.pem --root chain.pem --report-data $NONCE --json\n\n\
        Exit status:\n  \
        0  trusted: the guest runs the image\n  \
        1  not trusted: something is wrong\n  \
        2  no answer: what you trust cannot be read"
)]
pub(crate) struct Verify {
    /// The attestation report: 1184 bytes, as they are
    report: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Where programs of the manifest are: svsm, stage2, or the name of a service
    #[arg(long, value_name = "NAME=PATH", value_parser = name_and_path, requires = "manifest")]
    elf: Vec<(String, PathBuf)>,
    /// Whom the manifest's image is built for
    #[arg(long, default_value = "machine", value_name = "NAME")]
    loader: Loader,
    /// The table of certificates that the host handed out
    #[arg(long, value_name = "FILE", required_unless_present = "vcek")]
    certs: Option<PathBuf>,
    /// The chip's certificate, instead of a table (PEM or DER)
    #[arg(long, value_name = "FILE", conflicts_with = "certs", requires = "ask")]
    vcek: Option<PathBuf>,
    /// The product key's certificate; of a chain in PEM, the first
    #[arg(long, value_name = "FILE", requires = "vcek")]
    ask: Option<PathBuf>,
    #[command(flatten)]
    root: Root,
    /// What the guest has to say: 128 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    report_data: Option<Hex<64>>,
    /// The nonce that an SVSM was asked with, which says SHA-512 of it and of the services' manifest
    #[arg(
        long,
        value_name = "HEX",
        conflicts_with = "report_data",
        requires = "services"
    )]
    nonce: Option<Hex<64>>,
    /// The services' manifest that the SVSM gave with its report
    #[arg(long, value_name = "FILE", requires = "nonce")]
    services: Option<PathBuf>,
    /// What the host has to have said at launch: 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    host_data: Option<Hex<32>>,
    /// The level that has to have asked
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3))]
    vmpl: u32,
    /// The least versions of the machine: BOOTLOADER.TEE.SNP.MICROCODE
    #[arg(long, value_name = "VERSIONS")]
    least_tcb: Option<Versions>,
    /// Trust a guest that the host may debug
    #[arg(long)]
    allow_debug: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What should run.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The image that should run
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The manifest whose image should run; it is built anew
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// What `build --json` or `sign --json` printed of the image that should run
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
}

/// Whom to trust.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Root {
    /// The root's certificate; of a chain in PEM, the last
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Trust the software machine, whose keys anybody can make: for tests only
    #[arg(long)]
    simulated: bool,
}

impl Verify {
    pub(crate) fn run(&self) -> Result<Answer, Failure> {
        let mut wanted = Wanted::new(self.reference()?);
        wanted.vmpl = self.vmpl;
        wanted.report_data = self.report_data()?;
        wanted.host_data = self.host_data.map(|data| data.0);
        wanted.least_tcb = self.least_tcb.map(|versions| versions.0);
        wanted.debug = self.allow_debug;
        let root = match &self.root.root {
            Some(path) => last_certificate(&read(path)?).map_err(|error| about(path, &error))?,
            None => root_certificate().der().to_vec(),
        };
        let report = read(&self.report)?;
        let verdict = match self.certificates()? {
            Ok(certificates) => verify(
                &Evidence {
                    report: &report,
                    chain: certificates.chain(),
                    root: &root,
                },
                &wanted,
            ),
            Err(finding) => Verdict::against(finding),
        };
        if self.json {
            print(&to_json(&verdict)?)?;
        } else {
            print(&verdict.to_string())?;
        }
        Ok(if verdict.trusted {
            Answer::Yes
        } else {
            Answer::No
        })
    }

    fn reference(&self) -> Result<Reference, Failure> {
        let of_image = |path: &Path, bytes: &[u8]| match Reference::of(bytes) {
            Ok(Some(reference)) => Ok(reference),
            Ok(None) => Err(about(path, &svsm_igvm::Error::NoSnp)),
            Err(error) => Err(about(path, &error)),
        };
        match &self.source {
            Source {
                image: Some(path), ..
            } => of_image(path, &read(path)?),
            Source {
                manifest: Some(path),
                ..
            } => {
                let mut manifest = Manifest::load(path)?;
                for (name, path) in &self.elf {
                    manifest.replace_elf(name, path)?;
                }
                of_image(path, &build(&manifest, &Options::new(self.loader))?.bytes)
            }
            Source {
                reference: Some(path),
                ..
            } => {
                let mut json: serde_json::Value =
                    serde_json::from_slice(&read(path)?).map_err(|error| about(path, &error))?;
                // A report of a build has it among other things.
                if let Some(part) = json.get_mut("snp") {
                    json = part.take();
                }
                serde_json::from_value(json).map_err(|error| about(path, &error))
            }
            _ => Err(Failure(
                "there is nothing to hold the report against".to_owned(),
            )),
        }
    }

    /// The certificates, or what is wrong with them: they are the other party's.
    fn certificates(&self) -> Result<Result<Certificates, Finding>, Failure> {
        match (&self.certs, &self.vcek, &self.ask) {
            (Some(table), ..) => {
                Ok(Certificates::from_table(&read(table)?).map_err(Finding::Evidence))
            }
            (None, Some(vcek), Some(ask)) => {
                Ok(Certificates::parse(&read(vcek)?, &read(ask)?).map_err(Finding::Certificates))
            }
            _ => Err(Failure("there are no certificates".to_owned())),
        }
    }

    fn report_data(&self) -> Result<Option<[u8; 64]>, Failure> {
        let (Some(nonce), Some(services)) = (self.nonce, &self.services) else {
            return Ok(self.report_data.map(|data| data.0));
        };
        let mut hash = Sha512::new();
        hash.update(nonce.0);
        hash.update(read(services)?);
        Ok(Some(hash.finalize().into()))
    }
}

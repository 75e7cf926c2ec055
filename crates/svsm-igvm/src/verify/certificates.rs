//! Certificates as files have them: the table that hosts hand out, or certificates one by one, in PEM or DER.

use core::fmt;

use p384::pkcs8::der::pem;
use svsm_sim::verify::{Chain, Reason};

/// Why a file holds no certificate that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// The PEM in it is damaged.
    Pem,
    /// There is PEM in it, but no certificate.
    None,
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem => "the PEM is damaged",
            Self::None => "there is no certificate in it",
        })
    }
}

impl core::error::Error for CertificateFault {}

/// The certificates between a report and a root, in DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    vcek: Vec<u8>,
    ask: Vec<u8>,
}

impl Certificates {
    /// The chip's certificate and the product key's, each from a file of its own.
    ///
    /// Of a file with several certificates, the first counts: AMD publishes the product key's together with the root's.
    ///
    /// # Errors
    /// A [`CertificateFault`].
    pub fn parse(vcek: &[u8], ask: &[u8]) -> Result<Self, CertificateFault> {
        Ok(Self {
            vcek: first_certificate(vcek)?,
            ask: first_certificate(ask)?,
        })
    }

    /// Those of the table that a host hands out with an extended report: `auxblob` on Linux.
    ///
    /// # Errors
    /// [`Reason::Table`] and [`Reason::Missing`].
    pub fn from_table(table: &[u8]) -> Result<Self, Reason> {
        let chain = Chain::from_table(table)?;
        Ok(Self {
            vcek: chain.vcek.to_vec(),
            ask: chain.ask.to_vec(),
        })
    }

    /// The chain of both.
    #[must_use]
    pub fn chain(&self) -> Chain<'_> {
        Chain {
            vcek: &self.vcek,
            ask: &self.ask,
        }
    }
}

/// The first certificate of a file: PEM, or all of it in DER.
///
/// # Errors
/// A [`CertificateFault`].
pub fn first_certificate(file: &[u8]) -> Result<Vec<u8>, CertificateFault> {
    let first = certificates(file)?.into_iter().next();
    first.ok_or(CertificateFault::None)
}

/// The last certificate of a file, which in a chain is the root's.
///
/// # Errors
/// A [`CertificateFault`].
pub fn last_certificate(file: &[u8]) -> Result<Vec<u8>, CertificateFault> {
    certificates(file)?.pop().ok_or(CertificateFault::None)
}

/// All certificates of a file, in its order.
fn certificates(file: &[u8]) -> Result<Vec<Vec<u8>>, CertificateFault> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = core::str::from_utf8(file).unwrap_or_default();
    if !text.contains("-----BEGIN ") {
        return Ok(vec![file.to_vec()]);
    }
    let mut rest = text;
    let mut found = Vec::new();
    while let Some(start) = rest.find(BEGIN) {
        let (_, block) = rest.split_at(start);
        let end = block.find(END).ok_or(CertificateFault::Pem)? + END.len();
        let (block, behind) = block.split_at(end);
        let (_, der) = pem::decode_vec(block.as_bytes()).map_err(|_| CertificateFault::Pem)?;
        found.push(der);
        rest = behind;
    }
    Ok(found)
}

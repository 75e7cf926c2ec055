//! What a guest asks its security processor: reports, keys, and how its time-stamp counter runs (56860, "Guest Messages").
//!
//! ```no_run
//! # #[cfg(feature = "aes-gcm")]
//! # fn attest(host: &mut impl svsm_platform::snp::message::GuestRequest, secrets: &[u8; 4096]) -> Option<()> {
//! use svsm_platform::level::Vmpl;
//! use svsm_platform::seam::Report;
//! use svsm_platform::snp::message::{AesGcm, Channel};
//! use svsm_platform::snp::report::{AttestationReport, Attester};
//! use svsm_platform::snp::secrets::SecretsPage;
//!
//! let key = SecretsPage::view(secrets).ok()?.key(Vmpl::Vmpl0)?;
//! let mut channel = Channel::new(Vmpl::Vmpl0, key, AesGcm);
//! let (mut page, mut buffer) = ([0; 4096], [0; 4096]);
//! let bytes = Attester::new(&mut channel, host, &mut page)
//!     .report(&[7; 64], &mut buffer)
//!     .ok()?;
//! assert_eq!(AttestationReport::view(bytes)?.report_data, [7; 64]);
//! # Some(())
//! # }
//! ```

mod attester;
mod certificates;
mod key;
mod wire;

pub use attester::Attester;
pub use certificates::{Certificates, Guid, Malformed};
pub use key::{KeyFields, KeyRequest};
pub use wire::AttestationReport;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};
use zeroize::Zeroize;

use super::message::{Aead, Channel, Error, GuestRequest, MessageType, Question, ResponsePage};
use crate::{level::Vmpl, seam::Hertz};

/// Which of the chip's keys signs, or is the root of a derived key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum ChipKey {
    /// The VLEK if one is loaded, else the VCEK.
    #[default]
    Any = 0,
    /// The key of the chip.
    Vcek = 1,
    /// The key that the owner of many chips loaded.
    Vlek = 2,
}

/// Asks for a report.
#[derive(Clone, Copy, Debug)]
pub struct ReportRequest {
    /// What the report is to say: a nonce, or a digest.
    pub data: [u8; 64],
    /// The level in whose name it is.
    pub level: Vmpl,
    /// Who signs it.
    pub signer: ChipKey,
}

/// MSG_REPORT_REQ.
#[derive(Immutable, IntoBytes)]
#[repr(C)]
struct WireReportRequest {
    report_data: [u8; 64],
    vmpl: U32,
    key_sel: U32,
    reserved: [u8; 24],
}
const _: () = assert!(size_of::<WireReportRequest>() == 96);

/// How MSG_REPORT_RSP begins.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireReportResponse {
    status: U32,
    report_size: U32,
    reserved: [u8; 24],
}
const _: () = assert!(size_of::<WireReportResponse>() == 0x20);

/// How MSG_KEY_RSP begins; the key follows.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireKeyResponse {
    status: U32,
    reserved: [u8; 28],
    key: [u8; 32],
}
const _: () = assert!(size_of::<WireKeyResponse>() == 64);

/// The part of MSG_TSC_INFO_RSP that means something.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireTscInfo {
    status: U32,
    reserved: U32,
    scale: U64,
    offset: U64,
    factor: U32,
    rest: [u8; 100],
}
const _: () = assert!(size_of::<WireTscInfo>() == 128);

/// How the time-stamp counter of the guest runs under Secure TSC. Scale and offset belong into every save area that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TscInfo {
    /// By what the counter of the processor is multiplied.
    pub scale: u64,
    /// What is added to that.
    pub offset: u64,
    /// By how many hundred-thousandths it runs slower than its nominal rate.
    pub factor: u32,
}

impl TscInfo {
    /// The mean rate of a counter whose nominal one (GUEST_TSC_FREQ, MSR C001_0134h) is `nominal`; `None` if it would stand still.
    #[must_use]
    pub fn mean_rate(&self, nominal: Hertz) -> Option<Hertz> {
        let nominal = u128::from(nominal.as_u64());
        let slower = nominal * u128::from(self.factor) / 100_000;
        Hertz::new(nominal.checked_sub(slower)?.try_into().ok()?)
    }
}

impl<A: Aead> Channel<A> {
    /// Asks for a report, which is written to `page` and lies in what is answered. With `certificates` the host is asked for those
    /// of the signing key, which [`Certificates::parse`] reads.
    ///
    /// The report comes from the security processor; the certificates come from the host, and prove themselves or nothing.
    ///
    /// # Errors
    /// Why there is none. After [`Error::CertificateSpace`] ask again, with more room or without certificates.
    pub fn report<'r, T: GuestRequest>(
        &mut self,
        request: &ReportRequest,
        host: &mut T,
        certificates: Option<&mut [u8]>,
        page: &'r mut ResponsePage,
    ) -> Result<&'r [u8], Error<T::Error>> {
        self.speaks_for(request.level)?;
        let question = WireReportRequest {
            report_data: request.data,
            vmpl: U32::new(request.level.as_u8().into()),
            key_sel: U32::new(request.signer as u32),
            reserved: [0; 24],
        };
        let question = Question {
            kind: MessageType::Report,
            version: 1,
            payload: question.as_bytes(),
        };
        let answer = self.ask(&question, host, certificates, page)?;
        status(answer)?;
        let (response, rest) =
            WireReportResponse::ref_from_prefix(answer).map_err(|_| Error::Malformed)?;
        let size = usize::try_from(response.report_size.get()).map_err(|_| Error::Malformed)?;
        let report = rest.get(..size).ok_or(Error::Malformed)?;
        if report.len() < AttestationReport::LEN {
            return Err(Error::Malformed);
        }
        Ok(report)
    }

    /// Derives a key into `key`. `page` is wiped.
    ///
    /// # Errors
    /// Why there is none; `key` is unchanged then.
    pub fn derive_key<T: GuestRequest>(
        &mut self,
        request: &KeyRequest,
        host: &mut T,
        page: &mut ResponsePage,
        key: &mut [u8; 32],
    ) -> Result<(), Error<T::Error>> {
        self.speaks_for(request.level())?;
        let (version, wire) = request.wire();
        let question = Question {
            kind: MessageType::Key,
            version,
            payload: wire.bytes(version),
        };
        let answer = self.ask(&question, host, None, page)?;
        let derived = status(answer).and_then(|()| {
            let (response, _) =
                WireKeyResponse::ref_from_prefix(answer).map_err(|_| Error::Malformed)?;
            key.copy_from_slice(&response.key);
            Ok(())
        });
        page.zeroize();
        derived
    }

    /// Asks how the time-stamp counter runs.
    ///
    /// # Errors
    /// Why that is unknown.
    pub fn tsc_info<T: GuestRequest>(
        &mut self,
        host: &mut T,
        page: &mut ResponsePage,
    ) -> Result<TscInfo, Error<T::Error>> {
        let question = Question {
            kind: MessageType::TscInfo,
            version: 1,
            payload: &[0; 128],
        };
        let answer = self.ask(&question, host, None, page)?;
        status(answer)?;
        let (info, _) = WireTscInfo::ref_from_prefix(answer).map_err(|_| Error::Malformed)?;
        Ok(TscInfo {
            scale: info.scale.get(),
            offset: info.offset.get(),
            factor: info.factor.get(),
        })
    }

    /// Nobody speaks for a level above its own.
    fn speaks_for<E>(&self, level: Vmpl) -> Result<(), Error<E>> {
        if level.is_above(self.level()) {
            Err(Error::Request)
        } else {
            Ok(())
        }
    }
}

/// The status with which every answer begins.
fn status<E>(answer: &[u8]) -> Result<(), Error<E>> {
    let (status, _) = U32::ref_from_prefix(answer).map_err(|_| Error::Malformed)?;
    match status.get() {
        0 => Ok(()),
        status => Err(Error::Status(status)),
    }
}

//! The attestation protocol (58019, "Attestation Protocol", version 1): what runs at VMPL0, and what its services say of
//! themselves, signed by the security processor.
//!
//! A report's data is SHA-512 over the guest's nonce and the manifest, so the report vouches for both. Every address and size is
//! the guest's claim; buffers are written only when all of them are known to be large enough.

use core::fmt;

use svsm_platform::addr::PageSize;
use svsm_platform::irq::IrqCtl;
use svsm_platform::seam::GuestMap;

use crate::buffer::GuestBuffers;
use crate::registry::Registry;
use crate::seam::GuestMemory;
use crate::{Arguments, Outcome, Protocol, ProtocolId, ResultCode, Versions};

mod operation;
mod table;

use operation::{Buffer, Operation};
pub use table::{Guid, MANIFEST_TABLE};

/// `SVSM_ATTEST_SERVICES`
const SERVICES: u32 = 0;
/// `SVSM_ATTEST_SINGLE_SERVICE`
const SINGLE_SERVICE: u32 = 1;

const PAGE: u64 = PageSize::Size4K.bytes();

/// Bytes of a report that are expected before there is one.
const REPORT_BYTES: u64 = 0x4a0;

/// A service that says something of itself.
pub trait Attested {
    /// By which the guest names it.
    fn guid(&self) -> Guid;

    /// What it says, in the form of `version`, written to the start of `out`; `None` if there is no such form, or no room.
    fn manifest(&self, version: u32, out: &mut [u8]) -> Option<usize>;
}

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NoReport {
    /// Ask again later.
    Busy,
    /// The security processor cannot be asked, or refuses.
    Refused,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Evidence {
    /// Bytes of the report.
    pub report_bytes: usize,
    /// Bytes of certificates; zero if the host has none, or more than there is room for.
    pub certificate_bytes: usize,
}

/// Asks the security processor.
pub trait Evidencer {
    /// Writes a report of this level over `data`, and certificates if there is a buffer for them.
    ///
    /// # Errors
    /// Why there is none.
    fn evidence(
        &mut self,
        data: &[u8; 64],
        report: &mut [u8],
        certificates: Option<&mut [u8]>,
    ) -> Result<Evidence, NoReport>;
}

/// SHA-512, whose choice is the firmware's.
pub trait Sha512 {
    /// The digest of all parts, one after the other.
    fn digest(&self, parts: [&[u8]; 2]) -> [u8; 64];
}

/// Memory for one call, which the firmware lends: private, a page or more each.
#[derive(Debug)]
pub struct Scratch<'s> {
    /// For the manifest.
    pub manifest: &'s mut [u8],
    /// For the report.
    pub report: &'s mut [u8],
    /// For certificates; what does not fit is as if the host had none.
    pub certificates: &'s mut [u8],
}

/// The protocol for one call.
pub struct Attestation<'a, 'm, M, G, I: IrqCtl, E, H> {
    buffers: GuestBuffers<'a, 'm, M, G, I>,
    evidencer: E,
    sha512: H,
    services: &'a [&'a dyn Attested],
    scratch: Scratch<'a>,
}

impl<M, G, I: IrqCtl, E, H> fmt::Debug for Attestation<'_, '_, M, G, I, E, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.services.iter().map(|service| service.guid());
        f.debug_list().entries(services).finish()
    }
}

impl<'a, 'm, M: GuestMemory, G: GuestMap, I: IrqCtl, E: Evidencer, H: Sha512>
    Attestation<'a, 'm, M, G, I, E, H>
{
    /// The protocol for these services.
    #[must_use]
    pub fn new(
        registry: &'a Registry<'m, I>,
        (map, memory): (G, M),
        (evidencer, sha512): (E, H),
        services: &'a [&'a dyn Attested],
        scratch: Scratch<'a>,
    ) -> Self {
        Self {
            buffers: GuestBuffers::new(registry, map, memory),
            evidencer,
            sha512,
            services,
            scratch,
        }
    }

    fn attest(&mut self, arguments: &mut Arguments, single: bool) -> Outcome {
        let operation = self.operation(arguments.rcx, single)?;
        let mut nonce = [0; 4096];
        let nonce = nonce
            .get_mut(..usize::from(operation.nonce_bytes))
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        self.read(operation.nonce, nonce)?;
        for buffer in [operation.report, operation.manifest, operation.certificates] {
            self.check_buffer(buffer)?;
        }
        let manifest_bytes = self.manifest(&operation, single)?;
        // Nothing is asked of the security processor for buffers that are too small anyway.
        let mut needed = Needed {
            manifest: manifest_bytes as u64,
            certificates: 0,
            report: REPORT_BYTES,
        };
        if !needed.fits(&operation) {
            return Ok(needed.tell(arguments));
        }
        let manifest = self.scratch.manifest.get(..manifest_bytes);
        let manifest = manifest.ok_or(ResultCode::INVALID_REQUEST)?;
        let data = self.sha512.digest([nonce, manifest]);
        let wants_certificates = operation.certificates.bytes != 0;
        let evidence = self
            .evidencer
            .evidence(
                &data,
                self.scratch.report,
                wants_certificates.then_some(&mut *self.scratch.certificates),
            )
            .map_err(|error| match error {
                NoReport::Busy => ResultCode::BUSY,
                NoReport::Refused => ResultCode::INVALID_REQUEST,
            })?;
        needed.report = evidence.report_bytes as u64;
        needed.certificates = evidence.certificate_bytes as u64;
        if !needed.fits(&operation) {
            return Ok(needed.tell(arguments));
        }
        let report = self.scratch.report.get(..evidence.report_bytes);
        let certificates = self.scratch.certificates.get(..evidence.certificate_bytes);
        for (buffer, bytes) in [
            (operation.report, report),
            (operation.manifest, Some(manifest)),
            (operation.certificates, certificates),
        ] {
            let bytes = bytes.ok_or(ResultCode::INVALID_REQUEST)?;
            if !bytes.is_empty() {
                self.buffers.write(buffer.at, bytes)?;
            }
        }
        needed.tell(arguments);
        Ok(ResultCode::SUCCESS)
    }

    fn operation(&mut self, at: u64, single: bool) -> Result<Operation, ResultCode> {
        if !at.is_multiple_of(8) {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        let mut bytes = [0; Operation::MAX_BYTES];
        let bytes = bytes
            .get_mut(..Operation::bytes(single))
            .unwrap_or_default();
        self.read(at, bytes)?;
        Operation::parse(bytes).ok_or(ResultCode::INVALID_PARAMETER)
    }

    /// Reads bytes that lie in one page.
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), ResultCode> {
        if at % PAGE + to.len() as u64 > PAGE {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        self.buffers.read(at, to)
    }

    fn check_buffer(&self, buffer: Buffer) -> Result<(), ResultCode> {
        if buffer.bytes == 0 {
            return Ok(());
        }
        if !buffer.at.is_multiple_of(PAGE) {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        self.buffers.check(buffer.at, u64::from(buffer.bytes))
    }

    /// Writes the manifest that was asked for into the memory for it.
    fn manifest(&mut self, operation: &Operation, single: bool) -> Result<usize, ResultCode> {
        let out = &mut *self.scratch.manifest;
        if !single {
            return table::write(self.services, out).ok_or(ResultCode::INVALID_REQUEST);
        }
        let service = self
            .services
            .iter()
            .find(|service| service.guid() == operation.service)
            .ok_or(ResultCode::UNSUPPORTED_PROTOCOL)?;
        service
            .manifest(operation.version, out)
            .ok_or(ResultCode::INVALID_PARAMETER)
    }
}

/// The sizes that buffers must have.
#[derive(Clone, Copy)]
struct Needed {
    manifest: u64,
    certificates: u64,
    report: u64,
}

impl Needed {
    fn fits(&self, operation: &Operation) -> bool {
        [
            (self.manifest, operation.manifest),
            (self.certificates, operation.certificates),
            (self.report, operation.report),
        ]
        .iter()
        .all(|(needed, buffer)| *needed <= u64::from(buffer.bytes))
    }

    /// Puts the sizes into the registers, beside the code for buffers that are too small.
    const fn tell(self, arguments: &mut Arguments) -> ResultCode {
        arguments.rcx = self.manifest;
        arguments.rdx = self.certificates;
        arguments.r8 = self.report;
        ResultCode::INVALID_PARAMETER
    }
}

impl<M: GuestMemory, G: GuestMap, I: IrqCtl, E: Evidencer, H: Sha512> Protocol
    for Attestation<'_, '_, M, G, I, E, H>
{
    fn id(&self) -> ProtocolId {
        ProtocolId::ATTEST
    }

    fn versions(&self) -> Versions {
        Versions::only(1)
    }

    fn call(&mut self, call: u32, arguments: &mut Arguments) -> Outcome {
        match call {
            SERVICES => self.attest(arguments, false),
            SINGLE_SERVICE => self.attest(arguments, true),
            _ => Err(ResultCode::UNSUPPORTED_CALL),
        }
    }
}

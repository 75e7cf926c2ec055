//! What is asked of the plan.

use sha2::{Digest, Sha384};
use svsm_platform::addr::{Gpa, PageSize};
use svsm_stage2::Fault;
use svsm_stage2::plan::{Arrival, ProgramFacts, Request, SegmentFacts};
use svsm_stage2::region::{Parameter, Region};

use crate::error::{Error, Result};
use crate::executable::{Executable, Rights};
use crate::loader::{Directive, Loader, Need};
use crate::manifest::{Area, Delivery, Manifest, Platform};

/// How much room each parameter gets, after the loader was asked whether it
/// takes what the manifest needs.
pub(super) fn parameter_bytes(
    manifest: &Manifest,
    loader: Loader,
) -> Result<[u64; Parameter::ALL.len()]> {
    for platform in &manifest.platforms {
        loader.require(Need::Platform(*platform), "platforms")?;
        if *platform == Platform::Native {
            loader.require(Need::Directive(Directive::NativeVpContext), "platforms")?;
        }
    }
    if manifest.archive.delivery == Delivery::Staged {
        loader.require(Need::Directive(Directive::SharedPages), "archive.delivery")?;
    }
    if manifest.svsm.delivery == Delivery::Staged {
        loader.require(Need::Directive(Directive::SharedPages), "svsm.delivery")?;
    }
    let mut bytes = [0; Parameter::ALL.len()];
    for (room, parameter) in bytes.iter_mut().zip(Parameter::ALL) {
        let (area, directive, key) = wanted(manifest, parameter);
        let Some(area) = area else { continue };
        let answer = loader.require(Need::Directive(directive), key);
        if !area.optional {
            answer?;
        }
        if answer.is_ok() {
            *room = area.size.bytes();
        }
    }
    Ok(bytes)
}

/// What the manifest says of a parameter, and how loader and manifest call it.
const fn wanted(
    manifest: &Manifest,
    parameter: Parameter,
) -> (Option<Area>, Directive, &'static str) {
    let wanted = &manifest.parameters;
    match parameter {
        Parameter::VpCount => (wanted.vp_count, Directive::VpCount, "parameters.vp_count"),
        Parameter::MemoryMap => (
            wanted.memory_map,
            Directive::MemoryMap,
            "parameters.memory_map",
        ),
        Parameter::Madt => (wanted.madt, Directive::Madt, "parameters.madt"),
        Parameter::DeviceTree => (
            wanted.device_tree,
            Directive::DeviceTree,
            "parameters.device_tree",
        ),
        Parameter::CommandLine => (
            wanted.command_line,
            Directive::CommandLine,
            "parameters.command_line",
        ),
    }
}

/// How the archive arrives, if it does not pass the launch.
pub(super) fn arrival(manifest: &Manifest, archive: &[u8]) -> Result<Option<Arrival>> {
    if manifest.archive.delivery == Delivery::Measured {
        return Ok(None);
    }
    let start = manifest.archive.staging_base.or(behind_svsm(manifest));
    Ok(Some(Arrival {
        start: place(Region::Staging, start)?,
        digest: Sha384::digest(archive).into(),
    }))
}

/// Where the SVSM arrives, if it does not pass the launch; `archive` is how the archive arrives, and `archive_bytes` its length.
pub(super) fn svsm_arrival(
    manifest: &Manifest,
    archive: Option<Arrival>,
    archive_bytes: u64,
) -> Result<Option<Gpa>> {
    if manifest.svsm.delivery == Delivery::Measured {
        return Ok(None);
    }
    let behind = match archive {
        Some(archive) => behind(archive.start.as_u64(), archive_bytes),
        None => behind_svsm(manifest),
    };
    let start = manifest.svsm.staging_base.or(behind);
    place(Region::SvsmStaging, start).map(Some)
}

fn behind_svsm(manifest: &Manifest) -> Option<u64> {
    behind(manifest.svsm.base, manifest.svsm.size.bytes())
}

/// The first multiple of 2 MiB behind something.
fn behind(start: u64, len_bytes: u64) -> Option<u64> {
    start
        .checked_add(len_bytes)
        .and_then(|end| end.checked_next_multiple_of(PageSize::Size2M.bytes()))
}

fn place(region: Region, start: Option<u64>) -> Result<Gpa> {
    let fault = Fault::NoAddress {
        value: start.unwrap_or(u64::MAX),
    };
    let no_address = Error::Plan(svsm_stage2::Error::Region { region, fault });
    start.and_then(Gpa::new).ok_or(no_address)
}

/// A program's segments, grown to whole pages.
pub(super) fn segments(program: &Executable<'_>) -> Vec<SegmentFacts> {
    let facts = program.segments().iter().map(|segment| {
        let pages = segment.pages();
        let lead = segment.address() - pages.start;
        SegmentFacts {
            address: pages.start,
            mem_bytes: pages.end - pages.start,
            file_bytes: lead + segment.data().len() as u64,
            writable: segment.rights() == Rights::Write,
            executable: segment.rights() == Rights::Execute,
        }
    });
    facts.collect()
}

pub(super) const fn facts<'s>(
    program: &Executable<'_>,
    segments: &'s [SegmentFacts],
) -> ProgramFacts<'s> {
    ProgramFacts {
        segments,
        entry: program.entry(),
    }
}

/// The request for a native image, without parameters and archive.
pub(super) fn request<'s>(
    manifest: &Manifest,
    stage2: ProgramFacts<'s>,
    svsm: ProgramFacts<'s>,
) -> Result<Request<'s>> {
    let mut request = Request::new(stage2, svsm);
    request.debug = manifest.debug;
    request.svsm_base = Gpa::new(manifest.svsm.base).ok_or(Error::Bug)?;
    request.svsm_bytes = manifest.svsm.size.bytes();
    request.boot_stack_bytes = manifest.svsm.stack.bytes();
    request.console_port = Some(manifest.native.console_port);
    request.power_port = Some(manifest.native.pm1a_control_port);
    Ok(request)
}

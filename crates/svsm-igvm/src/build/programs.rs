//! The ELF files of an image.

use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

use svsm_guest::files;
use svsm_guest::firmware::Firmware;
use svsm_stage2::layout;

use crate::archive;
use crate::error::{Error, Result};
use crate::executable::Executable;
use crate::manifest::{AcpiTables, Guest, Manifest, Size};

/// Where user-mode programs may be linked: the lower half without its first
/// page, so that null stays a fault, and without its last.
const USER: Range<u64> = 0x1000..0x7fff_ffff_f000;

/// A file's path and contents.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    bytes: Vec<u8>,
}

/// The files as they were read.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) svsm: File,
    pub(crate) stage2: File,
    /// In the order of the manifest.
    pub(crate) services: Vec<File>,
    /// By their names in the archive.
    guest: Vec<(&'static str, File)>,
}

impl Files {
    pub(super) fn read(
        manifest: &Manifest,
        mut read: impl FnMut(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self> {
        let mut read = |path: &Path| match read(path) {
            Ok(bytes) => Ok(File {
                path: path.to_owned(),
                bytes,
            }),
            Err(source) => Err(Error::reading(path, source)),
        };
        Ok(Self {
            stage2: read(&manifest.stage2.elf)?,
            svsm: read(&manifest.svsm.elf)?,
            services: manifest
                .services
                .iter()
                .map(|service| read(&service.elf))
                .collect::<Result<_>>()?,
            guest: match &manifest.guest {
                Some(guest) => guest_files(guest, &mut read)?,
                None => Vec::new(),
            },
        })
    }

    /// Where the guest's firmware wants to be, if it starts with firmware: an address and bytes.
    pub(super) fn guest_memory(&self, manifest: &Manifest) -> Result<Option<(u64, u64)>> {
        let is_firmware = |(name, _): &&(&str, File)| *name == files::FIRMWARE;
        let Some((_, file)) = self.guest.iter().find(is_firmware) else {
            return Ok(None);
        };
        let firmware = Firmware::for_svsm(&file.bytes).map_err(Error::Guest)?;
        let (base, bytes) = (firmware.base(), file.bytes.len() as u64);
        let end = base.saturating_add(bytes);
        let overlaps =
            |start: u64, size: Size| base < start.saturating_add(size.bytes()) && start < end;
        let svsm = &manifest.svsm;
        let mut others = manifest.required_memory.iter();
        if overlaps(svsm.base, svsm.size) || others.any(|other| overlaps(other.base, other.size)) {
            return Err(Error::GuestOverlap { base });
        }
        Ok(Some((base, bytes)))
    }
}

/// The files of a guest, by the names that the SVSM looks for.
fn guest_files(
    guest: &Guest,
    read: &mut impl FnMut(&Path) -> Result<File>,
) -> Result<Vec<(&'static str, File)>> {
    let mut files = Vec::new();
    for (name, path) in [
        (files::KERNEL, &guest.kernel),
        (files::INITRD, &guest.initrd),
        (files::FIRMWARE, &guest.firmware),
    ] {
        if let Some(path) = path {
            files.push((name, read(path)?));
        }
    }
    if guest.firmware.is_some() {
        return Ok(files);
    }
    let command_line = File {
        path: PathBuf::new(),
        bytes: guest.command_line.clone().into_bytes(),
    };
    files.push((files::COMMAND_LINE, command_line));
    if guest.acpi == AcpiTables::Host {
        let host = File {
            path: PathBuf::new(),
            bytes: b"host".to_vec(),
        };
        files.push((files::ACPI, host));
    }
    Ok(files)
}

/// The programs in the files.
#[derive(Clone, Debug)]
pub(crate) struct Programs<'f> {
    pub(crate) svsm: Executable<'f>,
    pub(crate) stage2: Executable<'f>,
    /// In the order of the manifest.
    pub(crate) services: Vec<Executable<'f>>,
}

impl<'f> Programs<'f> {
    pub(super) fn check(files: &'f Files) -> Result<Self> {
        let image = layout::IMAGE.as_u64()..layout::IMAGE_END.as_u64();
        // Where stage2 may lie, the plan knows; it is not one range.
        Ok(Self {
            stage2: executable(&files.stage2, None)?,
            svsm: executable(&files.svsm, Some(image))?,
            services: files
                .services
                .iter()
                .map(|file| executable(file, Some(USER)))
                .collect::<Result<_>>()?,
        })
    }

    /// The archive of services and of the guest's files; empty if there are none.
    pub(super) fn archive(&self, manifest: &Manifest, files: &Files) -> Result<Vec<u8>> {
        if self.services.is_empty() && files.guest.is_empty() {
            return Ok(Vec::new());
        }
        let stripped: Vec<_> = self.services.iter().map(Executable::stripped).collect();
        let entries: Vec<_> = manifest
            .services
            .iter()
            .zip(&stripped)
            .map(|(service, data)| archive::Entry {
                name: &service.name,
                data,
            })
            .chain(files.guest.iter().map(|(name, file)| archive::Entry {
                name,
                data: &file.bytes,
            }))
            .collect();
        archive::write(&entries).ok_or(Error::TooLarge)
    }
}

fn executable(file: &File, region: Option<Range<u64>>) -> Result<Executable<'_>> {
    let check = || {
        let executable = Executable::read(&file.bytes)?;
        if let Some(region) = region {
            executable.within(region)?;
        }
        Ok(executable)
    };
    check().map_err(|fault| Error::Elf {
        path: file.path.clone(),
        fault,
    })
}

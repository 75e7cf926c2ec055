//! The rules that a manifest keeps beyond its grammar.

use core::fmt;
use std::collections::BTreeSet;

use svsm_guest::files;

use super::{AcpiTables, Manifest, Platform, Size};
use crate::PAGE_BYTES;
use crate::error::{Error, Result};

/// The longest name of a service.
const MAX_NAME_BYTES: usize = 64;

/// The largest parameter area. Hosts write at most a few pages.
const MAX_AREA: Size = Size::new(1 << 20);

/// The bit of a guest policy that the security processor wants set.
const SNP_POLICY_MUST_BE_ONE: u64 = 1 << 17;

/// What the SVSM's private memory is aligned to, so that large pages map it.
const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Guest-physical addresses have at most this many bits.
const GPA_BITS: u32 = 52;

/// The rule that a manifest breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestFault {
    /// TOML's or the schema's complaint.
    Syntax(String),
    /// A list that must have an element has none.
    Empty,
    /// Two elements of a list say the same.
    Duplicate {
        /// What they say.
        value: String,
    },
    /// The platform is known, but this version cannot build for it.
    PlatformNotBuilt {
        /// The platform.
        platform: Platform,
    },
    /// A guest policy that the security processor refuses.
    BadPolicy {
        /// The policy.
        policy: u64,
    },
    /// A guest cannot run at that level.
    BadVmpl {
        /// The level.
        vmpl: u8,
    },
    /// An address or a size is not a multiple of the page size.
    NotPages {
        /// The number given.
        value: u64,
    },
    /// The SVSM's private memory does not start at a multiple of 2 MiB.
    NotLargePages {
        /// The number given.
        value: u64,
    },
    /// A size is zero.
    Zero,
    /// A size is larger than it may be.
    TooLarge {
        /// The size given.
        size: Size,
        /// The largest allowed.
        limit: Size,
    },
    /// A range of addresses reaches beyond what a guest can address.
    BeyondAddresses {
        /// Its first byte.
        base: u64,
        /// Its size.
        size: Size,
    },
    /// A range of addresses overlaps the SVSM's private memory.
    OverlapsSvsm,
    /// A name is empty, too long, starts with a full stop, or has other
    /// characters than letters, digits, `-`, `_` and `.`.
    BadName {
        /// The name.
        name: String,
    },
    /// A service has the name of a program that is no service.
    ReservedName {
        /// The name.
        name: String,
    },
    /// A guest starts with a kernel or with firmware, and this one has both or neither.
    GuestStart,
    /// Firmware gets its RAM disk and its command line from elsewhere.
    FirmwareAlone,
    /// The first service is not called `init`.
    InitNotFirst {
        /// What it is called.
        name: String,
    },
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => f.write_str(message.trim_end()),
            Self::Empty => f.write_str("must not be empty"),
            Self::Duplicate { value } => write!(f, "\"{value}\" is there twice"),
            Self::PlatformNotBuilt { platform } => {
                write!(
                    f,
                    "images for the platform \"{platform}\" cannot be built yet"
                )
            }
            Self::BadPolicy { policy } => {
                write!(
                    f,
                    "bit 17 must be set in a guest policy, and is not in {policy:#x}"
                )
            }
            Self::BadVmpl { vmpl } => {
                write!(f, "a guest runs at VMPL 1, 2 or 3, and not at {vmpl}")
            }
            Self::NotPages { value } => {
                write!(
                    f,
                    "{value:#x} is not a multiple of the page size, {PAGE_BYTES:#x}"
                )
            }
            Self::NotLargePages { value } => write!(f, "{value:#x} is not a multiple of 2 MiB"),
            Self::Zero => f.write_str("must not be zero"),
            Self::TooLarge { size, limit } => write!(f, "{size} is more than {limit}"),
            Self::BeyondAddresses { base, size } => write!(
                f,
                "{size} at {base:#x} reach beyond the {GPA_BITS} bits of guest-physical addresses"
            ),
            Self::OverlapsSvsm => f.write_str("overlaps the SVSM's private memory"),
            Self::BadName { name } => write!(
                f,
                "{name:?} is not a name: it takes 1 to {MAX_NAME_BYTES} of the characters \
                 A-Z a-z 0-9 - _ . and does not start with a full stop"
            ),
            Self::ReservedName { name } => write!(f, "\"{name}\" is the name of no service"),
            Self::GuestStart => {
                f.write_str("takes a kernel or firmware: one of them, and not both")
            }
            Self::FirmwareAlone => f.write_str(
                "is nothing that firmware takes from the image: leave out initrd and command_line",
            ),
            Self::InitNotFirst { name } => {
                write!(f, "the first service must be \"init\", not \"{name}\"")
            }
        }
    }
}

impl Manifest {
    /// Checks the rules that a manifest keeps beyond its grammar. What comes
    /// from [`parse`](Self::parse) or [`load`](Self::load) keeps them;
    /// [`build`](crate::build()) checks again.
    ///
    /// # Errors
    /// [`Error::Manifest`] names the key and the rule that it breaks.
    pub fn check(&self) -> Result<()> {
        self.check_platforms()?;
        if self.snp.policy & SNP_POLICY_MUST_BE_ONE == 0 {
            return Err(at(
                "snp.policy",
                ManifestFault::BadPolicy {
                    policy: self.snp.policy,
                },
            ));
        }
        self.check_memory()?;
        for (key, base) in [
            ("svsm.staging_base", self.svsm.staging_base),
            ("archive.staging_base", self.archive.staging_base),
        ] {
            if let Some(base) = base
                && !base.is_multiple_of(PAGE_BYTES)
            {
                let fault = ManifestFault::NotPages { value: base };
                return Err(at(key, fault));
            }
        }
        self.check_services()?;
        self.check_guest()?;
        for (key, area) in self.parameters.wanted() {
            let key = format!("parameters.{key}");
            check_pages(&key, area.size)?;
            if area.size > MAX_AREA {
                let fault = ManifestFault::TooLarge {
                    size: area.size,
                    limit: MAX_AREA,
                };
                return Err(at(key, fault));
            }
        }
        Ok(())
    }

    fn check_platforms(&self) -> Result<()> {
        if self.platforms.is_empty() {
            return Err(at("platforms", ManifestFault::Empty));
        }
        let mut seen = BTreeSet::new();
        for (index, platform) in self.platforms.iter().enumerate() {
            let key = format!("platforms[{index}]");
            if *platform == Platform::Tdx {
                return Err(at(
                    key,
                    ManifestFault::PlatformNotBuilt {
                        platform: *platform,
                    },
                ));
            }
            if !seen.insert(platform.to_string()) {
                return Err(at(
                    key,
                    ManifestFault::Duplicate {
                        value: platform.to_string(),
                    },
                ));
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<()> {
        if !self.svsm.base.is_multiple_of(LARGE_PAGE_BYTES) {
            return Err(at(
                "svsm.base",
                ManifestFault::NotLargePages {
                    value: self.svsm.base,
                },
            ));
        }
        let svsm = check_range("svsm.base", "svsm.size", self.svsm.base, self.svsm.size)?;
        check_pages("svsm.stack", self.svsm.stack)?;
        if self.svsm.stack >= self.svsm.size {
            let fault = ManifestFault::TooLarge {
                size: self.svsm.stack,
                limit: self.svsm.size,
            };
            return Err(at("svsm.stack", fault));
        }
        for (index, memory) in self.required_memory.iter().enumerate() {
            let (base_key, size_key) = (
                format!("required_memory[{index}].base"),
                format!("required_memory[{index}].size"),
            );
            let range = check_range(&base_key, &size_key, memory.base, memory.size)?;
            if range.start < svsm.end && svsm.start < range.end {
                return Err(at(base_key, ManifestFault::OverlapsSvsm));
            }
        }
        Ok(())
    }

    fn check_guest(&self) -> Result<()> {
        let Some(guest) = &self.guest else {
            return Ok(());
        };
        if !matches!(guest.vmpl, 1..=3) {
            let fault = ManifestFault::BadVmpl { vmpl: guest.vmpl };
            return Err(at("guest.vmpl", fault));
        }
        if guest.kernel.is_some() == guest.firmware.is_some() {
            return Err(at("guest", ManifestFault::GuestStart));
        }
        if guest.firmware.is_some() {
            for (is_there, key) in [
                (guest.initrd.is_some(), "guest.initrd"),
                (!guest.command_line.is_empty(), "guest.command_line"),
                (guest.acpi != AcpiTables::Own, "guest.acpi"),
            ] {
                if is_there {
                    return Err(at(key, ManifestFault::FirmwareAlone));
                }
            }
        }
        Ok(())
    }

    fn check_services(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (index, service) in self.services.iter().enumerate() {
            let key = format!("service[{index}].name");
            let name = &service.name;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let hidden = name.starts_with('.');
            if name.is_empty() || hidden || name.len() > MAX_NAME_BYTES || !name.chars().all(plain)
            {
                return Err(at(key, ManifestFault::BadName { name: name.clone() }));
            }
            if index == 0 && name != "init" {
                return Err(at(key, ManifestFault::InitNotFirst { name: name.clone() }));
            }
            // `Manifest::replace_elf` names the two other programs by these words.
            // The guest's files have names of their own.
            if name == "svsm" || name == "stage2" || name.starts_with(files::PREFIX) {
                return Err(at(key, ManifestFault::ReservedName { name: name.clone() }));
            }
            if !seen.insert(name) {
                return Err(at(
                    key,
                    ManifestFault::Duplicate {
                        value: name.clone(),
                    },
                ));
            }
        }
        Ok(())
    }
}

fn at(key: impl Into<String>, fault: ManifestFault) -> Error {
    Error::Manifest {
        name: "manifest".to_owned(),
        place: None,
        key: key.into(),
        fault,
    }
}

fn check_pages(key: &str, size: Size) -> Result<()> {
    if size.bytes() == 0 {
        return Err(at(key, ManifestFault::Zero));
    }
    if !size.bytes().is_multiple_of(PAGE_BYTES) {
        return Err(at(
            key,
            ManifestFault::NotPages {
                value: size.bytes(),
            },
        ));
    }
    Ok(())
}

fn check_range(
    base_key: &str,
    size_key: &str,
    base: u64,
    size: Size,
) -> Result<core::ops::Range<u64>> {
    if !base.is_multiple_of(PAGE_BYTES) {
        return Err(at(base_key, ManifestFault::NotPages { value: base }));
    }
    check_pages(size_key, size)?;
    let end = base
        .checked_add(size.bytes())
        .filter(|end| *end <= 1 << GPA_BITS);
    end.map(|end| base..end)
        .ok_or_else(|| at(size_key, ManifestFault::BeyondAddresses { base, size }))
}

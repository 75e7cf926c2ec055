//! What each loader takes.
//!
//! The format lets a loader refuse what it does not know, and loaders differ:
//! one aborts on a header that another needs. The builder asks this table
//! before it emits anything, so that an image is refused here, by name, and not
//! on the machine where it should start.

use core::fmt;
use core::str::FromStr;

use crate::manifest::Platform;

/// Who will load the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loader {
    /// The software machine of this project.
    Machine,
    /// QEMU.
    Qemu,
    /// `OpenVMM`.
    OpenVmm,
    /// cloud-hypervisor.
    CloudHypervisor,
}

/// What an image may need of a loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// A platform.
    Platform(Platform),
    /// A directive, by its name in the specification.
    Directive(Directive),
}

/// Directives that the builder can emit and that not every loader takes.
/// (`PAGE_DATA`, `PARAMETER_AREA`, `PARAMETER_INSERT` and `REQUIRED_MEMORY`
/// are taken by all.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Directive {
    /// The number of processors.
    VpCount,
    /// The memory map.
    MemoryMap,
    /// The ACPI table of processors.
    Madt,
    /// A flattened device tree.
    DeviceTree,
    /// The command line.
    CommandLine,
    /// The first processor's registers, for an unprotected machine.
    NativeVpContext,
    /// Pages that the host can see.
    SharedPages,
}

/// Why a loader does not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The loader.
    pub loader: Loader,
    /// What it would have to take.
    pub need: Need,
    /// The manifest's key that asks for it.
    pub key: &'static str,
}

impl Loader {
    /// All loaders.
    pub const ALL: [Self; 4] = [
        Self::Machine,
        Self::Qemu,
        Self::OpenVmm,
        Self::CloudHypervisor,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Qemu => "qemu",
            Self::OpenVmm => "openvmm",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// Whether the loader takes what an image needs.
    ///
    /// - `machine` takes all that the builder emits.
    /// - QEMU ends at an unknown header even if its mask is for another
    ///   platform. Older releases take neither an MADT nor native contexts.
    /// - `OpenVMM` loads for isolated platforms only; its machines without
    ///   protection start from the VSM part of a file.
    /// - QEMU and cloud-hypervisor launch a page that the host should see like any other: it would be
    ///   measured, and not shared. What `OpenVMM` does is not known here, so it is refused too.
    /// - cloud-hypervisor asks for an SEV-SNP part and has no other context.
    #[must_use]
    pub const fn takes(self, need: Need) -> bool {
        match need {
            Need::Platform(platform) => match self {
                Self::Machine => matches!(platform, Platform::Native | Platform::Snp),
                Self::Qemu => matches!(platform, Platform::Native | Platform::Snp),
                Self::OpenVmm => matches!(platform, Platform::Snp | Platform::Tdx),
                Self::CloudHypervisor => matches!(platform, Platform::Snp),
            },
            Need::Directive(directive) => match directive {
                Directive::VpCount | Directive::MemoryMap => true,
                Directive::Madt => !matches!(self, Self::CloudHypervisor),
                Directive::DeviceTree => matches!(self, Self::Machine | Self::OpenVmm),
                Directive::CommandLine => !matches!(self, Self::Qemu),
                Directive::SharedPages => matches!(self, Self::Machine),
                Directive::NativeVpContext => matches!(self, Self::Machine | Self::Qemu),
            },
        }
    }

    /// Passes if the loader takes what the manifest's key needs.
    ///
    /// # Errors
    /// A [`Refusal`] with all three.
    pub const fn require(self, need: Need, key: &'static str) -> Result<(), Refusal> {
        if self.takes(need) {
            Ok(())
        } else {
            Err(Refusal {
                loader: self,
                need,
                key,
            })
        }
    }
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLoader;

impl fmt::Display for UnknownLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the loaders are")?;
        for (index, loader) in Loader::ALL.into_iter().enumerate() {
            write!(f, "{}{loader}", if index == 0 { " " } else { ", " })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownLoader {}

impl FromStr for Loader {
    type Err = UnknownLoader;

    fn from_str(name: &str) -> Result<Self, UnknownLoader> {
        Self::ALL
            .into_iter()
            .find(|loader| loader.name() == name)
            .ok_or(UnknownLoader)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(platform) => write!(f, "the platform \"{platform}\""),
            Self::Directive(directive) => directive.fmt(f),
        }
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VpCount => "the directive VP_COUNT",
            Self::MemoryMap => "the directive MEMORY_MAP",
            Self::Madt => "the directive MADT",
            Self::DeviceTree => "the directive DEVICE_TREE",
            Self::CommandLine => "the directive COMMAND_LINE",
            Self::NativeVpContext => "the directive VP_CONTEXT with native registers",
            Self::SharedPages => "the directive PAGE_DATA with pages that the host can see",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loader, need, key } = self;
        write!(
            f,
            "the loader {loader} does not take {need}, which {key} needs"
        )
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_they_print() {
        for loader in Loader::ALL {
            assert_eq!(loader.name().parse(), Ok(loader));
        }
        assert_eq!("xen".parse::<Loader>(), Err(UnknownLoader));
    }

    #[test]
    fn a_refusal_names_loader_directive_and_key() {
        let need = Need::Directive(Directive::DeviceTree);
        let refusal = Loader::Qemu
            .require(need, "parameters.device_tree")
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the loader qemu does not take the directive DEVICE_TREE, which \
             parameters.device_tree needs"
        );
    }

    #[test]
    fn the_machine_takes_everything_for_a_native_image() {
        for directive in [
            Directive::VpCount,
            Directive::MemoryMap,
            Directive::Madt,
            Directive::DeviceTree,
            Directive::CommandLine,
            Directive::NativeVpContext,
            Directive::SharedPages,
        ] {
            assert!(Loader::Machine.takes(Need::Directive(directive)));
        }
        assert!(Loader::Machine.takes(Need::Platform(Platform::Native)));
    }
}

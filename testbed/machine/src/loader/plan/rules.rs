//! Rules for a file's headers, whatever they ask for.

use super::super::error::{LoadError, Reason};
use super::super::file::{File, Header};
use super::body;
use crate::cmdline::Platform;
use igvm_defs::{
    IGVM_NATIVE_PLATFORM_VERSION, IGVM_VHS_GUEST_POLICY, IGVM_VHS_PAGE_TABLE_RELOCATION,
    IGVM_VHS_RELOCATABLE_REGION, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPlatformType,
    IgvmVariableHeaderType,
};

/// The bit of the chosen platform; all platform headers are checked.
pub(super) fn mask(file: &File<'_>, platform: Platform) -> Result<u32, LoadError> {
    let wanted = match platform {
        Platform::Native => IgvmPlatformType::NATIVE,
        Platform::Snp => IgvmPlatformType::SEV_SNP,
    };
    let (mut chosen, mut masks, mut kinds) = (None, 0_u32, [false; 256]);
    for header in file.headers() {
        let header = header?;
        if header.kind != IgvmVariableHeaderType::IGVM_VHT_SUPPORTED_PLATFORM.0 {
            break;
        }
        let fail = |reason| LoadError {
            offset: header.offset,
            reason,
        };
        let info: IGVM_VHS_SUPPORTED_PLATFORM = body(&header).map_err(fail)?;
        let kind = info.platform_type;
        if !info.compatibility_mask.is_power_of_two() || masks & info.compatibility_mask != 0 {
            return Err(fail(Reason::Mask(info.compatibility_mask)));
        }
        masks |= info.compatibility_mask;
        match kinds.get_mut(usize::from(kind.0)) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(fail(Reason::SecondPlatform(kind.0))),
        }
        // Every platform's only version so far.
        if info.platform_version != IGVM_NATIVE_PLATFORM_VERSION {
            return Err(fail(Reason::PlatformVersion(info.platform_version)));
        }
        if kind == wanted {
            if info.highest_vtl != 0 || info.shared_gpa_boundary != 0 {
                return Err(fail(Reason::PlatformFeature));
            }
            chosen = Some(info.compatibility_mask);
        }
    }
    chosen.ok_or(LoadError {
        offset: 0,
        reason: Reason::NoPlatform,
    })
}

/// Sections come in order, and what is not known must be optional.
pub(super) fn check_section(header: &Header<'_>, last: &mut u32) -> Result<(), Reason> {
    use IgvmVariableHeaderType as T;
    let section = match header.kind {
        0x001..=0x100 => 1,
        0x101..=0x200 => 2,
        0x301..=0x400 => 3,
        _ => 0,
    };
    let known = match T(header.kind) {
        T::IGVM_VHT_SUPPORTED_PLATFORM | T::IGVM_VHT_VERSION_STRING => true,
        T::IGVM_VHT_GUEST_POLICY => {
            let policy: IGVM_VHS_GUEST_POLICY = body(header)?;
            if policy.reserved != 0 {
                return Err(Reason::Reserved);
            }
            true
        }
        // We load everything where it is linked, as if no region could move.
        T::IGVM_VHT_RELOCATABLE_REGION => {
            body::<IGVM_VHS_RELOCATABLE_REGION>(header)?;
            true
        }
        T::IGVM_VHT_PAGE_TABLE_RELOCATION_REGION => {
            body::<IGVM_VHS_PAGE_TABLE_RELOCATION>(header)?;
            true
        }
        // Documents about the image (CoRIM) and policies of other platforms.
        T(0x104..=0x106) => true,
        T(kind) => (0x301..=0x313).contains(&kind) && kind != T::RESERVED_DO_NOT_USE.0,
    };
    if !known {
        return if header.optional {
            Ok(())
        } else {
            Err(Reason::Unknown(header.kind))
        };
    }
    if section < *last {
        return Err(Reason::Order(header.kind));
    }
    *last = section;
    Ok(())
}

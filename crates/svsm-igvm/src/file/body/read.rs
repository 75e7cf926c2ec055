//! Takes bodies apart.

use super::{
    Body, PageData, PageType, ParameterArea, ParameterInsert, PlatformType, SnpIdBlock,
    SupportedPlatform, VpContext,
};
use crate::PAGE_BYTES;
use crate::file::fault::FileFault;
use crate::file::fields::Fields;
use crate::file::{HeaderType, Platforms};

/// Where bodies find their data.
pub(in crate::file) struct Data<'a, 'p> {
    /// The whole file.
    pub(in crate::file) file: &'a [u8],
    /// Where file data starts.
    pub(in crate::file) start: usize,
    /// The platforms read so far.
    pub(in crate::file) platforms: &'p Platforms,
}

impl<'a> Data<'a, '_> {
    fn get(&self, offset: u32, bytes: u64) -> Result<&'a [u8], FileFault> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let outside = FileFault::DataOutside { offset, bytes };
        let end = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| offset.checked_add(bytes));
        let data = end.and_then(|end| self.file.get(offset..end));
        data.filter(|_| offset >= self.start).ok_or(outside)
    }

    /// As [`get`](Self::get), where offset zero says that there is no data.
    fn get_optional(&self, offset: u32, bytes: u64) -> Result<Option<&'a [u8]>, FileFault> {
        if offset == 0 {
            Ok(None)
        } else {
            self.get(offset, bytes).map(Some)
        }
    }
}

/// The size of a type's body, if all bodies of the type have one size.
fn body_bytes(kind: HeaderType) -> Option<usize> {
    Some(match kind {
        HeaderType::SUPPORTED_PLATFORM
        | HeaderType::GUEST_POLICY
        | HeaderType::CORIM_DOCUMENT
        | HeaderType::CORIM_SIGNATURE
        | HeaderType::PARAMETER_AREA
        | HeaderType::PARAMETER_INSERT
        | HeaderType::ERROR_RANGE => 16,
        HeaderType::RELOCATABLE_REGION => 48,
        HeaderType::PAGE_TABLE_RELOCATION_REGION | HeaderType::CCA_POLICY => 32,
        HeaderType::PAGE_DATA | HeaderType::REQUIRED_MEMORY => 24,
        HeaderType::VP_CONTEXT => 20,
        HeaderType::VP_COUNT
        | HeaderType::SRAT
        | HeaderType::MADT
        | HeaderType::MMIO_RANGES
        | HeaderType::MEMORY_MAP
        | HeaderType::COMMAND_LINE
        | HeaderType::SLIT
        | HeaderType::PPTT
        | HeaderType::DEVICE_TREE
        | HeaderType::ENVIRONMENT_INFO => 8,
        HeaderType::SNP_ID_BLOCK => 696,
        HeaderType::VBS_MEASUREMENT => 864,
        _ => return None,
    })
}

impl<'a> Body<'a> {
    pub(in crate::file) fn read(
        kind: HeaderType,
        optional: bool,
        content: &'a [u8],
        data: &Data<'a, '_>,
    ) -> Result<Self, FileFault> {
        if let Some(expected) = body_bytes(kind)
            && content.len() != expected
        {
            return Err(FileFault::BodySize {
                found: content.len(),
                expected,
            });
        }
        let mut f = Fields::new(content);
        Ok(match kind {
            HeaderType::SUPPORTED_PLATFORM => Self::SupportedPlatform(SupportedPlatform {
                mask: f.u32(),
                highest_vtl: f.u8(),
                kind: PlatformType(f.u8()),
                version: f.u16(),
                shared_gpa_boundary: f.u64(),
            }),
            HeaderType::GUEST_POLICY => {
                let (policy, mask) = (f.u64(), f.u32());
                zero(f.u32())?;
                Self::GuestPolicy { mask, policy }
            }
            HeaderType::RELOCATABLE_REGION => {
                let (mask, _vp, _vtl_and_flags) = (f.u32(), f.u16(), f.u16());
                let (alignment, base, bytes) = (f.u64(), f.u64(), f.u64());
                let allowed = f.u64()..f.u64();
                range(base, bytes)?;
                Self::RelocatableRegion {
                    mask,
                    base,
                    bytes,
                    alignment,
                    allowed,
                }
            }
            HeaderType::PAGE_TABLE_RELOCATION_REGION => {
                let (mask, _vp, _vtl) = (f.u32(), f.u16(), f.u8());
                zero(f.u8().into())?;
                let (base, bytes, used_bytes) = (f.u64(), f.u64(), f.u64());
                range(base, bytes)?;
                Self::PageTableRelocation {
                    mask,
                    base,
                    bytes,
                    used_bytes,
                }
            }
            HeaderType::CORIM_DOCUMENT | HeaderType::CORIM_SIGNATURE => {
                let (mask, offset, bytes) = (f.u32(), f.u32(), f.u32());
                zero(f.u32())?;
                Self::Corim {
                    mask,
                    data: data.get(offset, bytes.into())?,
                }
            }
            HeaderType::CCA_POLICY => Self::CcaPolicy { mask: f.u32() },
            HeaderType::VERSION_STRING => Self::VersionString(
                core::str::from_utf8(content).map_err(|_| FileFault::VersionString)?,
            ),
            HeaderType::PARAMETER_AREA => {
                let (bytes, area, offset) = (f.u64(), f.u32(), f.u32());
                pages(bytes)?;
                let data = data.get_optional(offset, bytes)?;
                Self::ParameterArea(ParameterArea { area, bytes, data })
            }
            HeaderType::PARAMETER_INSERT => {
                let (gpa, mask, area) = (f.u64(), f.u32(), f.u32());
                aligned(gpa, PAGE_BYTES)?;
                Self::ParameterInsert(ParameterInsert { mask, gpa, area })
            }
            HeaderType::PAGE_DATA => Self::PageData(page_data(&mut f, data)?),
            HeaderType::VP_CONTEXT => Self::VpContext(vp_context(&mut f, data)?),
            HeaderType::REQUIRED_MEMORY => {
                let (gpa, mask, bytes, flags) = (f.u64(), f.u32(), f.u32(), f.u32());
                zero(f.u32() | flags & !1)?;
                range(gpa, bytes.into())?;
                Self::RequiredMemory {
                    mask,
                    gpa,
                    bytes,
                    vtl2_protectable: flags & 1 != 0,
                }
            }
            HeaderType::ERROR_RANGE => {
                let (gpa, mask, bytes) = (f.u64(), f.u32(), f.u32());
                aligned(gpa, PAGE_BYTES)?;
                Self::ErrorRange { mask, gpa, bytes }
            }
            HeaderType::SNP_ID_BLOCK => Self::SnpIdBlock(id_block(content)?),
            HeaderType::VBS_MEASUREMENT => Self::VbsMeasurement { mask: f.u32() },
            _ if body_bytes(kind).is_some() => Self::Parameter {
                area: f.u32(),
                offset: f.u32(),
            },
            // An optional header may be anywhere; one that must be understood
            // has to belong to a section.
            _ if optional || kind.section().is_some() => Self::Unknown(content),
            _ => return Err(FileFault::NoSection),
        })
    }
}

fn page_data<'a>(f: &mut Fields<'_>, data: &Data<'a, '_>) -> Result<PageData<'a>, FileFault> {
    let (gpa, mask, offset, flags) = (f.u64(), f.u32(), f.u32(), f.u32());
    let kind = match f.u16() {
        0 => PageType::Normal,
        1 => PageType::Secrets,
        2 => PageType::Cpuid,
        3 => PageType::CpuidXf,
        found => return Err(FileFault::PageType { found }),
    };
    zero(u32::from(f.u16()) | flags & !0b111)?;
    let [large, unmeasured, shared] = [1, 2, 4].map(|bit| flags & bit != 0);
    let mut page = PageData {
        mask,
        gpa,
        kind,
        large,
        unmeasured,
        shared,
        data: None,
    };
    aligned(gpa, page.bytes())?;
    range(gpa, page.bytes())?;
    page.data = data.get_optional(offset, page.bytes())?;
    Ok(page)
}

fn id_block(content: &[u8]) -> Result<SnpIdBlock<'_>, FileFault> {
    let mut f = Fields::new(content.get(..8).unwrap_or_default());
    let (mask, author) = (f.u32(), f.u8());
    zero(u32::from(f.u8()) | u32::from(f.u16()))?;
    let mut numbers = Fields::new(content.get(88..104).unwrap_or_default());
    let author = author != 0;
    Ok(SnpIdBlock {
        mask,
        launch_digest: chunk(content, 8)?,
        family_id: *chunk(content, 56)?,
        image_id: *chunk(content, 72)?,
        version: numbers.u32(),
        guest_svn: numbers.u32(),
        algorithms: [numbers.u32(), numbers.u32()],
        signature: chunk(content, 104)?,
        id_key: chunk(content, 248)?,
        author_signature: author.then(|| chunk(content, 400)).transpose()?,
        author_key: author.then(|| chunk(content, 544)).transpose()?,
    })
}

/// The bytes of a body from `offset` on; the body's size has been checked.
fn chunk<const N: usize>(content: &[u8], offset: usize) -> Result<&[u8; N], FileFault> {
    let chunk = content.get(offset..).and_then(|rest| rest.first_chunk());
    chunk.ok_or(FileFault::BodySize {
        found: content.len(),
        expected: offset + N,
    })
}

fn vp_context<'a>(f: &mut Fields<'_>, data: &Data<'a, '_>) -> Result<VpContext<'a>, FileFault> {
    let (gpa, mask, offset, vp_index) = (f.u64(), f.u32(), f.u32(), f.u16());
    zero(f.u16().into())?;
    aligned(gpa, PAGE_BYTES)?;
    let mut kinds = data.platforms.of(mask).map(|platform| platform.kind);
    let platform = kinds.next().ok_or(FileFault::ContextPlatform { mask })?;
    if kinds.next().is_some() || platform == PlatformType::TDX {
        return Err(FileFault::ContextPlatform { mask });
    }
    if offset == 0 {
        return Err(FileFault::ContextEmpty);
    }
    let bytes = if platform == PlatformType::VSM {
        // A count, then records of 32 bytes.
        let count = Fields::new(data.get(offset, 4)?).u32();
        u64::from(count) * 32 + 4
    } else {
        PAGE_BYTES
    };
    Ok(VpContext {
        mask,
        platform,
        gpa,
        vp_index,
        data: data.get(offset, bytes)?,
    })
}

fn zero(field: u32) -> Result<(), FileFault> {
    if field == 0 {
        Ok(())
    } else {
        Err(FileFault::ReservedNotZero)
    }
}

fn aligned(address: u64, to: u64) -> Result<(), FileFault> {
    if address.is_multiple_of(to) {
        Ok(())
    } else {
        Err(FileFault::Unaligned { address })
    }
}

fn pages(bytes: u64) -> Result<(), FileFault> {
    if bytes.is_multiple_of(PAGE_BYTES) {
        Ok(())
    } else {
        Err(FileFault::NotPages { bytes })
    }
}

/// Checks that whole pages lie in the address space.
fn range(address: u64, bytes: u64) -> Result<(), FileFault> {
    aligned(address, PAGE_BYTES)?;
    pages(bytes)?;
    address
        .checked_add(bytes)
        .map(|_| ())
        .ok_or(FileFault::Wraps { address, bytes })
}

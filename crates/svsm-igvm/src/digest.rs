//! The launch digest of SEV-SNP: what an attestation report says of an image.

use sha2::{Digest, Sha384};

use crate::error::Result;
use crate::file::{Body, ImageFile, PageType, PlatformType};
use crate::hex::Hex;
use crate::{PAGE_BYTES, PAGE_SIZE};

/// Bytes of a launch digest.
pub const DIGEST_BYTES: usize = 48;

/// Where a save area has the time-stamp counter's scale and offset, which count as zero: the host cannot know them.
const TSC_FIELDS: core::ops::Range<usize> = 0x2f0..0x300;

/// A launch digest.
pub type LaunchDigest = Hex<DIGEST_BYTES>;

/// What the security processor does with a page (56860, "SNP_LAUNCH_UPDATE").
#[derive(Clone, Copy)]
enum Update {
    Normal = 1,
    SaveArea = 2,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

/// The digest that the launch of the SEV-SNP part of a file gives, on a machine that launches the pages in the order of the
/// file and the first processor's save area last, and no other processor's: as our machine does, and others with a file's VP
/// context for the first processor alone. `None` if the file has no such part.
///
/// # Errors
/// [`Error::File`](crate::Error::File) if the file is damaged.
pub fn launch_digest(bytes: &[u8]) -> Result<Option<LaunchDigest>> {
    let file = ImageFile::read(bytes)?;
    let mut platforms = file.platforms().all().iter();
    let Some(platform) = platforms.find(|platform| platform.kind == PlatformType::SNP) else {
        return Ok(None);
    };
    let is_ours = |mask: u32| mask & platform.mask != 0;
    let mut chain = Chain([0; DIGEST_BYTES]);
    let mut save_areas = Vec::new();
    let mut areas = std::collections::BTreeMap::new();
    for header in file.headers() {
        match &header.body {
            Body::ParameterArea(area) => {
                areas.insert(area.area, area.bytes);
            }
            Body::ParameterInsert(insert) if is_ours(insert.mask) => {
                let bytes = areas.get(&insert.area).copied().unwrap_or(0);
                for offset in (0..bytes).step_by(PAGE_SIZE) {
                    chain.add(Update::Unmeasured, insert.gpa + offset, None);
                }
            }
            Body::PageData(page) if is_ours(page.mask) && !page.shared => {
                let update = match page.kind {
                    PageType::Secrets => Update::Secrets,
                    PageType::Cpuid | PageType::CpuidXf => Update::Cpuid,
                    _ if page.unmeasured => Update::Unmeasured,
                    _ => Update::Normal,
                };
                let zeros = [0; PAGE_SIZE];
                let data = page.data.unwrap_or(&zeros);
                let small = if page.large { 512 } else { 1 };
                for index in 0..small {
                    let mut contents = [0; PAGE_SIZE];
                    let rest = data.get(index * PAGE_SIZE..).unwrap_or_default();
                    for (to, from) in contents.iter_mut().zip(rest) {
                        *to = *from;
                    }
                    let gpa = page.gpa + index as u64 * PAGE_BYTES;
                    chain.add(update, gpa, Some(&contents));
                }
            }
            Body::VpContext(context) if is_ours(context.mask) => save_areas.push(context),
            _ => {}
        }
    }
    for context in save_areas {
        let mut contents = [0; PAGE_SIZE];
        for (to, from) in contents.iter_mut().zip(context.data) {
            *to = *from;
        }
        if let Some(fields) = contents.get_mut(TSC_FIELDS) {
            fields.fill(0);
        }
        chain.add(Update::SaveArea, context.gpa, Some(&contents));
    }
    Ok(Some(Hex(chain.0)))
}

/// The hash over what came, and the hash before it.
struct Chain([u8; DIGEST_BYTES]);

impl Chain {
    /// Adds a page as the structure `PAGE_INFO` describes it.
    fn add(&mut self, update: Update, gpa: u64, contents: Option<&[u8; PAGE_SIZE]>) {
        let counts = matches!(update, Update::Normal | Update::SaveArea);
        let hash = match contents {
            Some(contents) if counts => Sha384::digest(contents).into(),
            _ => [0; DIGEST_BYTES],
        };
        let mut next = Sha384::new();
        next.update(self.0);
        next.update(hash);
        // Its own length, the type, no IMI, no rights of lower levels.
        next.update([0x70, 0, update as u8, 0, 0, 0, 0, 0]);
        next.update(gpa.to_le_bytes());
        self.0 = next.finalize().into();
    }
}

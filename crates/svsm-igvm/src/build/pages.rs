//! What the plan's pages hold.

use std::collections::BTreeMap;

use sha2::{Digest, Sha384};
use svsm_platform::addr::{Gpa, PageSize};
use svsm_stage2::plan::{Content, Placement, Plan};
use svsm_stage2::region::{Region, Rights};
use zerocopy::IntoBytes;

use super::programs::Programs;
use super::tables;
use super::target::Target;
use crate::error::{Error, Result};
use crate::executable::Executable;
use crate::report::Kind;
use crate::{PAGE_BYTES, PAGE_SIZE, PageContents};

/// A page of the initial memory.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// The platforms that get it.
    pub(super) mask: u32,
    pub(super) gpa: Gpa,
    pub(super) contents: Contents,
}

/// What fills a page.
#[derive(Clone, Debug)]
pub(super) enum Contents {
    /// The file.
    File(Box<PageContents>),
    /// The file, where the host can see it.
    Shared(Box<PageContents>),
    /// The security processor, with what it has checked of CPUID.
    Cpuid,
    /// The security processor, with keys.
    Secrets,
}

/// The pages that the image loads, by rising address.
///
/// Pages of zeros are written out: loaders disagree on how a page without data
/// is measured.
///
/// `targets` are the image's platforms. All get the same pages, but for the hand-off, which names the platform, and those that
/// a platform fills in itself.
pub(super) fn pages(
    plan: &mut Plan,
    targets: &[Target],
    programs: &Programs<'_>,
    archive: &[u8],
) -> Result<Vec<Page>> {
    let mut tables = tables::tables(&plan.stage2)?;
    tables.extend(tables::tables(&plan.svsm)?);
    let all = targets.iter().fold(0, |mask, target| mask | target.mask());
    let svsm = svsm(plan, programs, &tables).ok_or(Error::Bug)?;
    plan.set_staged_svsm_digest(Sha384::digest(svsm.as_flattened()).into());
    let source = Source {
        programs,
        archive,
        svsm,
        tables,
    };
    let mut pages = Vec::new();
    for placement in plan
        .placements
        .iter()
        .filter(|placement| is_loaded(placement.content))
    {
        let gpas = placement.gpa.pages(PageSize::Size4K).ok_or(Error::Bug)?;
        for (index, gpa) in (0..).zip(gpas) {
            match placement.content {
                Content::Handoff => {
                    for target in targets {
                        let handoff = target.handoff(plan).encode();
                        pages.push(Page {
                            mask: target.mask(),
                            gpa,
                            contents: Contents::File(Box::new(part(handoff.as_bytes(), index))),
                        });
                    }
                }
                // An unprotected machine has the memory there, and nobody fills it in.
                Content::Platform => {
                    let contents = match placement.region {
                        Region::Cpuid => Contents::Cpuid,
                        Region::Secrets => Contents::Secrets,
                        _ => return Err(Error::Bug),
                    };
                    pages.push(Page {
                        mask: Target::Snp.mask(),
                        gpa,
                        contents,
                    });
                }
                content => {
                    let page = source.page(placement, gpa, index).ok_or(Error::Bug)?;
                    let page = Box::new(page);
                    pages.push(Page {
                        mask: all,
                        gpa,
                        contents: match content {
                            Content::Staged { .. } | Content::StagedSvsm => Contents::Shared(page),
                            _ => Contents::File(page),
                        },
                    });
                }
            }
        }
    }
    Ok(pages)
}

/// Whether the file has contents for it.
const fn is_loaded(content: Content) -> bool {
    !matches!(content, Content::Deposited(_) | Content::Free)
}

/// Where contents come from.
struct Source<'s> {
    programs: &'s Programs<'s>,
    archive: &'s [u8],
    /// All pages of a staged SVSM.
    svsm: Vec<PageContents>,
    tables: BTreeMap<Gpa, PageContents>,
}

impl Source<'_> {
    /// The contents of a placement's page with that index.
    fn page(&self, placement: &Placement, gpa: Gpa, index: usize) -> Option<PageContents> {
        match placement.content {
            Content::Segment { .. } => match placement.region {
                Region::SvsmSegment(_) => {
                    let address = placement.gva?.start().as_u64() + index as u64 * PAGE_BYTES;
                    linked(&self.programs.svsm, address)
                }
                _ => linked(&self.programs.stage2, gpa.as_u64()),
            },
            Content::Zero => Some([0; PAGE_SIZE]),
            Content::Tables => self.tables.get(&gpa).copied(),
            Content::Archive { .. } | Content::Staged { .. } => Some(part(self.archive, index)),
            Content::StagedSvsm => self.svsm.get(index).copied(),
            _ => None,
        }
    }
}

/// The pages that are the SVSM, in the order in which it is staged; none if it is loaded.
fn svsm(
    plan: &Plan,
    programs: &Programs<'_>,
    tables: &BTreeMap<Gpa, PageContents>,
) -> Option<Vec<PageContents>> {
    let mut pages = Vec::new();
    let handoff = &plan.handoff;
    if handoff.staged_svsm.is_none() {
        return Some(pages);
    }
    for segment in handoff.segments.iter() {
        for gva in segment.area.gva_range().pages(PageSize::Size4K)? {
            pages.push(linked(&programs.svsm, gva.as_u64())?);
        }
    }
    for gpa in handoff.tables.gpa_range().pages(PageSize::Size4K)? {
        pages.push(*tables.get(&gpa)?);
    }
    Some(pages)
}

/// The page that a program has at the address at which it is linked.
fn linked(program: &Executable<'_>, address: u64) -> Option<PageContents> {
    let mut segments = program.segments().iter();
    let segment = segments.find(|segment| segment.pages().contains(&address))?;
    Some(segment.page(address))
}

/// The page of `bytes` with that index, filled up with zeros.
fn part(bytes: &[u8], index: usize) -> PageContents {
    let mut page = [0; PAGE_SIZE];
    let rest = bytes
        .get(index.saturating_mul(PAGE_SIZE)..)
        .unwrap_or_default();
    for (to, from) in page.iter_mut().zip(rest) {
        *to = *from;
    }
    page
}

/// How many pages the image has of each kind.
pub(super) fn count(plan: &Plan) -> Result<BTreeMap<Kind, u64>> {
    let mut counts = BTreeMap::new();
    for placement in plan
        .placements
        .iter()
        .filter(|placement| placement.content != Content::Free)
    {
        let pages = placement.gpa.len_bytes() / PAGE_BYTES;
        *counts.entry(kind(placement)?).or_default() += pages;
    }
    Ok(counts)
}

fn kind(placement: &Placement) -> Result<Kind> {
    Ok(match placement.region {
        Region::Stage2Segment(_)
        | Region::Stage2Stack
        | Region::Stage2Tables
        | Region::Trampoline
        | Region::Mailbox => Kind::Stage2,
        Region::Handoff => Kind::HandOff,
        Region::SvsmSegment(_) => match placement.rights {
            Rights::Read => Kind::ReadOnlyData,
            Rights::ReadWrite => Kind::Data,
            Rights::ReadExecute => Kind::Code,
        },
        Region::BootStack => Kind::Stacks,
        Region::Parameter(_) => Kind::Parameters,
        Region::Archive => Kind::Archive,
        Region::Staging | Region::SvsmStaging => Kind::Staged,
        Region::Tables => Kind::PageTables,
        Region::Cpuid | Region::Secrets => Kind::Platform,
        _ => return Err(Error::Bug),
    })
}

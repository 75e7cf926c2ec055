//! What the plan's pages hold.

use std::collections::BTreeMap;

use svsm_platform::addr::{Gpa, PageSize};
use svsm_stage2::plan::{Content, Placement, Plan};
use svsm_stage2::region::{Region, Rights};
use zerocopy::IntoBytes;

use super::programs::Programs;
use super::tables;
use crate::error::{Error, Result};
use crate::executable::Executable;
use crate::report::Kind;
use crate::{PAGE_BYTES, PAGE_SIZE, PageContents};

/// A page of the initial memory.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) gpa: Gpa,
    pub(super) contents: PageContents,
}

/// The pages that the image loads, by rising address.
///
/// Pages of zeros are written out: loaders disagree on how a page without data
/// is measured.
pub(super) fn pages(plan: &Plan, programs: &Programs<'_>, archive: &[u8]) -> Result<Vec<Page>> {
    let mut tables = tables::tables(&plan.stage2)?;
    tables.extend(tables::tables(&plan.svsm)?);
    let handoff = plan.handoff.encode();
    let source = Source {
        programs,
        archive,
        handoff: handoff.as_bytes(),
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
            let contents = source.page(placement, gpa, index).ok_or(Error::Bug)?;
            pages.push(Page { gpa, contents });
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
    handoff: &'s [u8],
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
            Content::Handoff => Some(part(self.handoff, index)),
            Content::Archive { .. } => Some(part(self.archive, index)),
            // What the platform fills in is not there on an unprotected one.
            _ => None,
        }
    }
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
        Region::Tables => Kind::PageTables,
        _ => return Err(Error::Bug),
    })
}

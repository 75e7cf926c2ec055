//! What differs between two IGVM files.

use core::fmt;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::PAGE_BYTES;
use crate::file::{Body, Header, HeaderType, ImageFile, PageData};
use crate::inspect::{Areas, HeaderFacts};

/// A difference between two files, the left and the right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Difference {
    /// A fact of the fixed header.
    Fixed {
        /// Which.
        what: &'static str,
        /// Left.
        left: String,
        /// Right.
        right: String,
    },
    /// A header other than a page is in one file only.
    Header {
        /// Which file.
        side: Side,
        /// The header.
        header: String,
    },
    /// Pages differ.
    Pages {
        /// The platform.
        platform: String,
        /// The first page's address.
        gpa: u64,
        /// How many pages, one after the other.
        pages: u64,
        /// What differs.
        change: PageChange,
    },
    /// The same headers are in another order, which changes the measurement.
    Order {
        /// The first header of the left file that stands elsewhere in the right.
        left: String,
        /// What the right file has in its place.
        right: String,
    },
}

/// One of two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The first.
    Left,
    /// The second.
    Right,
}

/// What differs between two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageChange {
    /// The page is in the left file only.
    OnlyLeft,
    /// The page is in the right file only.
    OnlyRight,
    /// The contents.
    Contents,
    /// The kind of page: what it is for, its size, measured, or shared.
    Kind,
    /// Zeros are written out in one file and left out in the other: the same
    /// memory, but some loaders measure it in another way.
    ZerosWrittenOut,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { what, left, right } => write!(f, "{what}: {left} | {right}"),
            Self::Header {
                side: Side::Left,
                header,
            } => write!(f, "- {header}"),
            Self::Header {
                side: Side::Right,
                header,
            } => write!(f, "+ {header}"),
            Self::Pages {
                platform,
                gpa,
                pages,
                change,
            } => {
                let (sign, what) = match change {
                    PageChange::OnlyLeft => ('-', "only on the left"),
                    PageChange::OnlyRight => ('+', "only on the right"),
                    PageChange::Contents => ('!', "other contents"),
                    PageChange::Kind => ('!', "another kind of page"),
                    PageChange::ZerosWrittenOut => ('!', "zeros written out in one file only"),
                };
                let end = gpa.saturating_add(pages.saturating_mul(PAGE_BYTES));
                let unit = if *pages == 1 { "page" } else { "pages" };
                write!(
                    f,
                    "{sign} {platform} {gpa:#x}..{end:#x}  {pages} {unit}: {what}"
                )
            }
            Self::Order { left, right } => write!(f, "order: {left} | {right}"),
        }
    }
}

/// Tells what differs between two files; nothing, if both make the same guest
/// in the same order.
#[must_use]
pub fn diff(left: &ImageFile<'_>, right: &ImageFile<'_>) -> Vec<Difference> {
    let mut differences = fixed(left, right);
    differences.extend(headers(left, right));
    differences.extend(pages(left, right));
    differences.extend(order(left, right));
    differences
}

fn fixed(left: &ImageFile<'_>, right: &ImageFile<'_>) -> Vec<Difference> {
    let facts = |file: &ImageFile<'_>| {
        let fixed = file.fixed();
        [
            ("version", fixed.version.to_string()),
            ("architecture", fixed.architecture.to_string()),
        ]
    };
    let pairs = facts(left).into_iter().zip(facts(right));
    let different = pairs.filter(|((_, left), (_, right))| left != right);
    different
        .map(|((what, left), (_, right))| Difference::Fixed { what, left, right })
        .collect()
}

/// All headers but pages as their lines in an inspection: what people see is
/// what is compared. Data that is not shown there counts by its checksum.
fn lines(file: &ImageFile<'_>) -> Vec<String> {
    let areas = Areas::of(file);
    let line = |header: &Header<'_>| {
        let facts = HeaderFacts::of(header, file.platforms(), &areas);
        let data = match &header.body {
            Body::PageData(_) => return None,
            // The line of an inspection has the mask, which may differ.
            Body::SupportedPlatform(platform) => {
                return Some(format!(
                    "{} {} version {}, highest VTL {}, shared from {:#x}",
                    header.kind,
                    platform.kind,
                    platform.version,
                    platform.highest_vtl,
                    platform.shared_gpa_boundary
                ));
            }
            Body::VpContext(context) => Some(context.data),
            Body::ParameterArea(area) => area.data,
            Body::Corim { data, .. } | Body::Unknown(data) => Some(*data),
            _ => None,
        };
        Some(match data {
            Some(data) => format!("{facts}  data={:08x}", crc32fast::hash(data)),
            None => facts.to_string(),
        })
    };
    file.headers().iter().filter_map(line).collect()
}

fn headers(left: &ImageFile<'_>, right: &ImageFile<'_>) -> Vec<Difference> {
    let (left, right) = (lines(left), lines(right));
    let only = |these: &[String], those: &[String], side| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for line in those {
            *counts.entry(line).or_default() += 1;
        }
        let mut only = Vec::new();
        for line in these {
            match counts.get_mut(line.as_str()) {
                Some(count) if *count != 0 => *count -= 1,
                _ => only.push(Difference::Header {
                    side,
                    header: line.clone(),
                }),
            }
        }
        only
    };
    let mut differences = only(&left, &right, Side::Left);
    differences.extend(only(&right, &left, Side::Right));
    differences
}

/// A page of a platform; the number tells pages at one address apart.
type PageKey = (String, u64, usize);

fn pages_of<'f>(file: &'f ImageFile<'_>) -> BTreeMap<PageKey, &'f PageData<'f>> {
    let mut pages = BTreeMap::new();
    let mut seen: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for header in file.headers() {
        let Body::PageData(page) = &header.body else {
            continue;
        };
        for platform in file.platforms().of(page.mask) {
            let count = seen.entry((platform.mask, page.gpa)).or_default();
            pages.insert((platform.kind.to_string(), page.gpa, *count), page);
            *count += 1;
        }
    }
    pages
}

fn pages(left: &ImageFile<'_>, right: &ImageFile<'_>) -> Vec<Difference> {
    let (left, right) = (pages_of(left), pages_of(right));
    let mut keys: Vec<&PageKey> = left.keys().chain(right.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut differences: Vec<Difference> = Vec::new();
    for key in keys {
        let (this, that) = (left.get(key), right.get(key));
        let Some(new_change) = change(this.copied(), that.copied()) else {
            continue;
        };
        let (new_platform, new_gpa, _) = key;
        let bytes = this.or(that).map_or(0, |page| page.bytes());
        if let Some(Difference::Pages {
            platform,
            gpa,
            pages,
            change,
        }) = differences.last_mut()
            && platform == new_platform
            && *change == new_change
            && gpa.checked_add(pages.saturating_mul(PAGE_BYTES)) == Some(*new_gpa)
        {
            *pages += bytes / PAGE_BYTES;
        } else {
            differences.push(Difference::Pages {
                platform: new_platform.clone(),
                gpa: *new_gpa,
                pages: bytes / PAGE_BYTES,
                change: new_change,
            });
        }
    }
    differences
}

fn change(left: Option<&PageData<'_>>, right: Option<&PageData<'_>>) -> Option<PageChange> {
    let (left, right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (Some(_), None) => return Some(PageChange::OnlyLeft),
        (None, Some(_)) => return Some(PageChange::OnlyRight),
        (None, None) => return None,
    };
    let kind = |page: &PageData<'_>| (page.kind, page.large, page.unmeasured, page.shared);
    if kind(left) != kind(right) {
        return Some(PageChange::Kind);
    }
    match (left.data, right.data) {
        (Some(left), Some(right)) => (left != right).then_some(PageChange::Contents),
        (None, None) => None,
        (Some(data), None) | (None, Some(data)) => Some(if data.iter().all(|byte| *byte == 0) {
            PageChange::ZerosWrittenOut
        } else {
            PageChange::Contents
        }),
    }
}

/// Compares the order of the directives that both files have.
fn order(left: &ImageFile<'_>, right: &ImageFile<'_>) -> Option<Difference> {
    let names = |file: &ImageFile<'_>| -> Vec<String> {
        let areas = Areas::of(file);
        let headers = file.headers().iter();
        let headers = headers.filter(|header| header.kind != HeaderType::SUPPORTED_PLATFORM);
        let name = |header: &Header<'_>| {
            let facts = HeaderFacts::of(header, file.platforms(), &areas);
            let memory = facts
                .memory
                .map_or(String::new(), |memory| format!(" {:#x}", memory.gpa));
            format!(
                "{} {}{memory}",
                facts.kind,
                facts.platforms.unwrap_or_default()
            )
        };
        headers.map(name).collect()
    };
    let (left, right) = (names(left), names(right));
    let common = |these: &[String], those: &[String]| -> Vec<String> {
        let those: std::collections::BTreeSet<&String> = those.iter().collect();
        these
            .iter()
            .filter(|name| those.contains(name))
            .cloned()
            .collect()
    };
    let (left, right) = (common(&left, &right), common(&right, &left));
    let (left, right) = left
        .into_iter()
        .zip(right)
        .find(|(left, right)| left != right)?;
    Some(Difference::Order { left, right })
}

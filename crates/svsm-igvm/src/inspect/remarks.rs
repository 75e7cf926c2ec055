//! What is strange about a file that can be loaded.

use super::Areas;
use crate::PAGE_BYTES;
use crate::file::{Body, Header, ImageFile};

/// So many remarks of one sort; a hostile file could have one per header.
const MAX_REMARKS: usize = 8;

pub(super) fn remarks(file: &ImageFile<'_>, areas: &Areas) -> Vec<String> {
    let mut remarks = Vec::new();
    bounded(&mut remarks, unknown_headers(file));
    bounded(&mut remarks, stray_masks(file));
    bounded(&mut remarks, areas_without_use(file));
    for platform in file.platforms().all() {
        let overlaps = overlaps(file, areas, platform.mask);
        let overlaps = overlaps.map(|(first, second)| {
            format!(
                "on {}, {second} puts memory where {first} did",
                platform.kind
            )
        });
        bounded(&mut remarks, overlaps);
    }
    remarks
}

fn bounded(all: &mut Vec<String>, mut new: impl Iterator<Item = String>) {
    all.extend(new.by_ref().take(MAX_REMARKS));
    let rest = new.count();
    if rest != 0 {
        all.push(format!("... and {rest} more of this sort"));
    }
}

fn unknown_headers(file: &ImageFile<'_>) -> impl Iterator<Item = String> {
    let unknown = file
        .headers()
        .iter()
        .filter(|header| matches!(header.body, Body::Unknown(_)));
    unknown.map(|header| {
        let verdict = if header.optional {
            "may pass over it"
        } else {
            "must refuse the file"
        };
        format!("{header} is unknown here; a loader that does not know it {verdict}")
    })
}

fn stray_masks(file: &ImageFile<'_>) -> impl Iterator<Item = String> {
    let known = file.platforms().mask();
    file.headers().iter().filter_map(move |header| {
        let mask = header.body.mask()?;
        let stray = mask & !known;
        if mask == 0 {
            Some(format!("{header} is for no platform"))
        } else {
            (stray != 0)
                .then(|| format!("{header} is for platforms that are not there: {stray:#x}"))
        }
    })
}

fn areas_without_use(file: &ImageFile<'_>) -> impl Iterator<Item = String> {
    let inserted: std::collections::BTreeSet<u32> = file
        .headers()
        .iter()
        .filter_map(|header| match &header.body {
            Body::ParameterInsert(insert) => Some(insert.area),
            _ => None,
        })
        .collect();
    file.headers()
        .iter()
        .filter_map(move |header| match &header.body {
            Body::ParameterArea(area) if !inserted.contains(&area.area) => Some(format!(
                "{header}: area {} is never put into memory",
                area.area
            )),
            _ => None,
        })
}

/// Pairs of headers that give contents to the same page of one platform.
fn overlaps<'f>(
    file: &'f ImageFile<'_>,
    areas: &Areas,
    mask: u32,
) -> impl Iterator<Item = (&'f Header<'f>, &'f Header<'f>)> {
    let mut ranges: Vec<(u64, u64, &Header<'_>)> = file
        .headers()
        .iter()
        .filter(|header| header.body.mask().is_some_and(|of| of & mask != 0))
        .filter_map(|header| {
            let (gpa, bytes) = match &header.body {
                Body::PageData(page) => (page.gpa, page.bytes()),
                Body::ParameterInsert(insert) => (insert.gpa, areas.bytes(insert.area)),
                Body::VpContext(context) if context.gpa != 0 => (context.gpa, PAGE_BYTES),
                _ => return None,
            };
            (bytes != 0).then_some((gpa, gpa.saturating_add(bytes), header))
        })
        .collect();
    ranges.sort_by_key(|(start, _, header)| (*start, header.index));
    let mut highest: Option<(u64, &Header<'_>)> = None;
    let mut pairs = Vec::new();
    for (start, end, header) in ranges {
        if let Some((reached, by)) = highest
            && start < reached
        {
            let (first, second) = if by.index < header.index {
                (by, header)
            } else {
                (header, by)
            };
            pairs.push((first, second));
        }
        if highest.is_none_or(|(reached, _)| end > reached) {
            highest = Some((end, header));
        }
    }
    pairs.into_iter()
}

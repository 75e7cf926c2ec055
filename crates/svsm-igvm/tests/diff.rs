//! What a comparison tells.
#![cfg(test)]

#[path = "support/igvm.rs"]
mod igvm;

use igvm::Raw;
use svsm_igvm::diff::{Difference, PageChange, Side};
use svsm_igvm::file::ImageFile;

fn compare(left: &Raw, right: &Raw) -> Vec<Difference> {
    let (left, right) = (left.bytes(), right.bytes());
    svsm_igvm::diff(
        &ImageFile::read(&left).unwrap(),
        &ImageFile::read(&right).unwrap(),
    )
}

fn pages(offsets: &[(u64, u32)]) -> Raw {
    let make = |base: u32| {
        let start = Raw::new(2).platform(1, 0);
        offsets.iter().fold(start, |raw, (gpa, page)| {
            raw.page(
                *gpa,
                1,
                if *page == 0 {
                    0
                } else {
                    base + (page - 1) * 0x1000
                },
                0,
                0,
            )
        })
    };
    let mut raw = make(make(0).data_offset());
    raw.data = [[1; 4096], [2; 4096], [0; 4096]].concat();
    raw
}

#[test]
fn the_same_guest_has_no_difference() {
    assert_eq!(compare(&igvm::sample(2), &igvm::sample(2)), []);
    // Other masks and other places in the file make the same guest.
    let mut left = Raw::new(2).platform(1, 0).page(0x1000, 1, 0x58, 0, 0);
    let mut right = Raw::new(2).platform(4, 0).page(0x1000, 4, 0x60, 0, 0);
    left.data = vec![7; 0x1000];
    right.data = [vec![0; 8], vec![7; 0x1000]].concat();
    assert_eq!(compare(&left, &right), []);
}

#[test]
fn pages_are_told_by_range() {
    let left = pages(&[(0x1000, 1), (0x2000, 1), (0x3000, 1), (0x8000, 0)]);
    let right = pages(&[(0x1000, 2), (0x2000, 2), (0x3000, 1), (0x9000, 0)]);
    let told: Vec<_> = compare(&left, &right)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "! native 0x1000..0x3000  2 pages: other contents",
            "- native 0x8000..0x9000  1 page: only on the left",
            "+ native 0x9000..0xa000  1 page: only on the right",
        ]
    );
}

#[test]
fn written_out_zeros_are_a_difference_of_their_own() {
    let told = compare(&pages(&[(0x1000, 0)]), &pages(&[(0x1000, 3)]));
    assert!(
        matches!(
            told[..],
            [Difference::Pages {
                change: PageChange::ZerosWrittenOut,
                ..
            }]
        ),
        "{told:?}"
    );
}

#[test]
fn order_is_a_difference() {
    let told = compare(
        &pages(&[(0x1000, 1), (0x2000, 2)]),
        &pages(&[(0x2000, 2), (0x1000, 1)]),
    );
    assert_eq!(
        told,
        [Difference::Order {
            left: "PAGE_DATA native 0x1000".into(),
            right: "PAGE_DATA native 0x2000".into()
        }]
    );
}

#[test]
fn other_headers_are_told_by_what_they_say() {
    let policy = |value: u64| {
        Raw::new(2)
            .platform(1, 2)
            .header(0x101, &[&value.to_le_bytes(), &[1, 0, 0, 0], &[0; 4]])
    };
    let told = compare(&policy(0x3_0000), &policy(0xb_0000));
    assert_eq!(told.len(), 2);
    assert!(
        matches!(&told[0], Difference::Header { side: Side::Left, header }
        if header.ends_with("policy=0x30000"))
    );
    assert!(
        matches!(&told[1], Difference::Header { side: Side::Right, header }
        if header.ends_with("policy=0xb0000"))
    );
    let told = compare(&Raw::new(1).platform(1, 0), &Raw::new(2).platform(1, 0));
    assert_eq!(told[0].to_string(), "version: 1 | 2");
}

#[test]
fn registers_count_to_the_last_byte() {
    let mut other = igvm::sample(2);
    *other.data.last_mut().unwrap() = 1;
    assert_eq!(compare(&igvm::sample(2), &other).len(), 2);
}

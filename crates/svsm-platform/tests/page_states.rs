//! Pages and page states over a platform that does part of what it is asked, and says so.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use svsm_platform::{
    addr::{Gpa, GpaRange, PageSize},
    conformance,
    encryption::Visibility,
    page::{Page, Private, Shared},
    seam::{PageState, Stopped},
};

const PAGE: u64 = PageSize::Size4K.bytes();

/// Memory that is private at first, on a platform that fails when its patience ends.
#[derive(Debug, Clone)]
struct Memory {
    pages: BTreeMap<Gpa, Option<Visibility>>,
    patience: u32, // page changes until one fails
    doubt: u64,    // pages in doubt after that
    honest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Unaligned,
    Impatient,
}

impl Memory {
    fn new(pages: u64, patience: u32) -> Self {
        let page = |index| (Gpa::new(index * PAGE).unwrap(), Some(Visibility::Private));
        Self {
            pages: (0..pages).map(page).collect(),
            patience,
            doubt: 1,
            honest: true,
        }
    }

    fn range(&self) -> GpaRange {
        GpaRange::new(Gpa::ZERO, self.pages.len() as u64 * PAGE).unwrap()
    }

    fn change(&mut self, range: GpaRange, to: Option<Visibility>) -> Result<(), Stopped<Refusal>> {
        let pages = range
            .pages(PageSize::Size4K)
            .ok_or(Stopped::at_start(Refusal::Unaligned))?;
        let mut done_bytes = 0;
        for page in pages {
            if self.patience == 0 {
                let left = range.len_bytes() - done_bytes;
                let doubtful_bytes = (self.doubt * PAGE).min(left);
                if !self.honest {
                    return Ok(());
                }
                return Err(Stopped {
                    done_bytes,
                    doubtful_bytes,
                    cause: Refusal::Impatient,
                });
            }
            self.patience -= 1;
            self.pages.insert(page, to);
            done_bytes += PAGE;
        }
        Ok(())
    }
}

impl PageState for Memory {
    type Error = Refusal;

    fn accept(&mut self, range: GpaRange) -> Result<(), Stopped<Refusal>> {
        self.change(range, Some(Visibility::Private))
    }

    fn release(&mut self, range: GpaRange) -> Result<(), Stopped<Refusal>> {
        self.change(range, None)
    }

    fn make_shared(&mut self, range: GpaRange) -> Result<(), Stopped<Refusal>> {
        self.change(range, Some(Visibility::Shared))
    }

    fn make_private(&mut self, range: GpaRange) -> Result<(), Stopped<Refusal>> {
        self.change(range, Some(Visibility::Private))
    }
}

fn look(memory: &Memory, page: Gpa) -> Option<Visibility> {
    memory.pages[&page]
}

fn page(start: u64) -> Page<Private> {
    #[expect(unsafe_code, reason = "the memory is a test's own")]
    // SAFETY: each test has one page of a memory of its own, which starts private.
    let page = unsafe { Page::assume(Gpa::new(start).unwrap(), PageSize::Size4K) };
    page.unwrap()
}

#[test]
fn page_goes_to_the_host_and_comes_back() {
    let mut memory = Memory::new(1, 2);
    let shared: Page<Shared> = page(0).share(&mut memory).unwrap();
    assert_eq!(look(&memory, shared.start()), Some(Visibility::Shared));
    let private = shared.unshare(&mut memory).unwrap();
    assert_eq!(look(&memory, private.start()), Some(Visibility::Private));
}

#[test]
fn page_that_failed_half_way_is_lost_until_recovered() {
    let mut memory = Memory::new(1, 0);
    let (lost, refusal) = page(0).share(&mut memory).unwrap_err();
    assert_eq!(refusal, Refusal::Impatient);
    let (lost, _) = lost.recover(&mut memory).unwrap_err();
    memory.patience = 1;
    assert_eq!(lost.recover(&mut memory).unwrap().start(), Gpa::ZERO);
}

#[test]
fn no_page_starts_in_the_middle_of_another() {
    #[expect(unsafe_code, reason = "no page is made")]
    // SAFETY: the address is refused.
    let page = unsafe { Page::<Private>::assume(Gpa::new(0x800).unwrap(), PageSize::Size4K) };
    assert!(page.is_none());
}

#[test]
#[should_panic(expected = "was said to be changed")]
fn platform_that_hides_a_failure_does_not_conform() {
    let mut memory = Memory {
        honest: false,
        ..Memory::new(4, 2)
    };
    let range = memory.range();
    conformance::page_state(&mut memory, range, look);
}

proptest! {
    #[test]
    fn platform_that_tells_how_far_it_came_conforms(pages in 2_u64..8, patience in 0_u32..40, doubt in 0_u64..10) {
        let mut memory = Memory { doubt, ..Memory::new(pages, patience) };
        let range = memory.range();
        conformance::page_state(&mut memory, range, look);
    }
}

//! What every implementation of a seam must pass.
//!
//! Call these from the tests of an implementation. They panic, with the reason, where it breaks the seam's contract.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use core::fmt::Debug;

use crate::{
    addr::{Gpa, GpaRange, PageSize},
    encryption::Visibility,
    irq::IrqCtl,
    seam::{Clock, Entropy, GuestAccess, GuestMap, PageState, Rights, Stopped},
};

/// Masking nests, and restoring brings back what was: `is_masked` looks at the truth.
///
/// # Panics
/// If it does not.
pub fn irq_ctl<I: IrqCtl>(irq: &I, is_masked: impl Fn(&I) -> bool) {
    assert!(!is_masked(irq), "start with interrupts accepted");
    let outer = irq.mask();
    assert!(is_masked(irq), "mask did not mask");
    let inner = irq.mask();
    assert!(is_masked(irq), "the second mask undid the first");
    irq.restore(inner);
    assert!(
        is_masked(irq),
        "restoring the inner state ended the outer masking"
    );
    irq.restore(outer);
    assert!(
        !is_masked(irq),
        "restoring the outer state did not end the masking"
    );
}

/// Visibility changes, and progress is told as it is: `look` looks at the truth, `None` meaning a page that nobody can use.
///
/// `memory` is private, accepted, has 4 KiB bounds and holds at least two pages; it is so again afterwards if no operation
/// fails. Let the platform fail where it can (a lying host, a schedule of faults): failures are judged, not refused.
///
/// # Panics
/// If a page is in another state than was told.
pub fn page_state<P: PageState>(
    platform: &mut P,
    memory: GpaRange,
    look: impl Fn(&P, Gpa) -> Option<Visibility>,
) {
    let nothing = GpaRange::empty(memory.start());
    assert!(
        platform.make_shared(nothing).is_ok(),
        "an empty range has nothing that could fail"
    );

    let fraction =
        GpaRange::new(memory.start(), PageSize::Size4K.bytes() / 2).expect("lies inside `memory`");
    let refused = platform
        .make_shared(fraction)
        .expect_err("half a page cannot be shared");
    assert_eq!(
        (refused.done_bytes, refused.doubtful_bytes),
        (0, 0),
        "half a page was touched"
    );

    let private = Some(Visibility::Private);
    let shared = Some(Visibility::Shared);
    let result = platform.make_shared(memory);
    let shared_part = judge(memory, result, |page| look(platform, page), private, shared);
    let result = platform.make_private(shared_part);
    let private_part = judge(
        shared_part,
        result,
        |page| look(platform, page),
        shared,
        private,
    );
    let result = platform.release(private_part);
    let released = judge(
        private_part,
        result,
        |page| look(platform, page),
        private,
        None,
    );
    let result = platform.accept(released);
    judge(released, result, |page| look(platform, page), None, private);
}

/// Compares what was told with what is, and gives back the part that is done.
fn judge<E: Debug>(
    range: GpaRange,
    result: Result<(), Stopped<E>>,
    look: impl Fn(Gpa) -> Option<Visibility>,
    before: Option<Visibility>,
    after: Option<Visibility>,
) -> GpaRange {
    let (done, doubtful) = match result {
        Ok(()) => (range.len_bytes(), 0),
        Err(stopped) => (stopped.done_bytes, stopped.doubtful_bytes),
    };
    let changed = done
        .checked_add(doubtful)
        .filter(|bytes| *bytes <= range.len_bytes());
    let changed = changed.expect("more was done than asked for");
    for page in range
        .pages(PageSize::Size4K)
        .expect("whole pages were asked for")
    {
        let offset = page
            .checked_offset_from(range.start())
            .expect("pages come in order");
        if offset < done {
            assert_eq!(look(page), after, "{page} was said to be changed");
        } else if offset >= changed {
            assert_eq!(look(page), before, "{page} was said to be untouched");
        }
    }
    GpaRange::new(range.start(), done).expect("lies inside `range`")
}

/// Rights become what was granted, and nothing after they were revoked.
///
/// `memory` is private, accepted, and has 4 KiB bounds.
///
/// # Panics
/// If a page has other rights, or an operation fails.
pub fn guest_access<G: GuestAccess>(platform: &mut G, memory: GpaRange, level: G::Level) {
    let read_only = Rights::READ;
    let all_but_shadow = Rights::all().difference(Rights::SHADOW_STACK);
    for rights in [read_only, all_but_shadow, read_only] {
        platform
            .grant(memory, level, rights)
            .expect("rights can be granted");
        for page in memory
            .pages(PageSize::Size4K)
            .expect("`memory` has whole pages")
        {
            let found = platform
                .rights(page, level)
                .expect("rights can be asked for");
            assert_eq!(found, rights, "{page} has other rights than were granted");
        }
    }
    platform
        .revoke(memory, level)
        .expect("rights can be revoked");
    for page in memory
        .pages(PageSize::Size4K)
        .expect("`memory` has whole pages")
    {
        let found = platform
            .rights(page, level)
            .expect("rights can be asked for");
        assert_eq!(
            found,
            Rights::empty(),
            "{page} has rights after they were revoked"
        );
    }
}

/// What owns a range owns every page of it.
///
/// # Panics
/// If it does not.
pub fn guest_map(map: &impl GuestMap, range: GpaRange) {
    let owner = map.owner(range);
    let pages = range
        .pages(PageSize::Size4K)
        .expect("`range` has whole pages");
    let owners = pages.map(|page| {
        map.owner(GpaRange::new(page, PageSize::Size4K.bytes()).expect("lies inside `range`"))
    });
    if owner.is_some() {
        owners.for_each(|of_page| {
            assert_eq!(of_page, owner, "a page has another owner than the whole")
        });
    }
}

/// Time does not go backwards.
///
/// # Panics
/// If it does.
pub fn clock(clock: &impl Clock) {
    let mut last = clock.now();
    for _ in 0..1000 {
        let now = clock.now();
        assert!(now >= last, "time went backwards");
        last = now;
    }
}

/// Every byte is filled, and no two fills agree. A failure is no offence.
///
/// # Panics
/// If a byte is left out, or if bytes repeat. (Truly random ones do so once in 2^128 runs.)
pub fn entropy(source: &mut impl Entropy) {
    let (mut one, mut two) = ([0; 16], [0; 16]);
    if source.fill(&mut one).is_ok() && source.fill(&mut two).is_ok() {
        assert_ne!(one, two, "the same bytes came twice");
    }
    // A byte that is left out stays zero in all rounds; a random one does so once in 2^128 runs.
    let mut seen = [0; 9];
    for _ in 0..16 {
        let mut bytes = [0; 9];
        if source.fill(&mut bytes).is_err() {
            return;
        }
        seen.iter_mut()
            .zip(bytes)
            .for_each(|(seen, byte)| *seen |= byte);
    }
    assert!(seen.iter().all(|byte| *byte != 0), "a byte was left out");
}

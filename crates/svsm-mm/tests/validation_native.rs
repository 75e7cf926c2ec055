//! The tracker keeps its word on a machine where accepting does nothing, too.

use svsm_mm::validation::{Block, PageUse, StateError, Tracked, Validation};
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::native::Unprotected;

#[test]
fn the_host_cannot_have_a_page_accepted_twice() {
    let at = Gpa::new(0x4000_0000).unwrap();
    let memory = GpaRange::new(at, 1 << 30).unwrap();
    let mut blocks = [Block::UNACCEPTED; 512];
    let mut validation = Validation::new(memory, &mut blocks).unwrap();
    let mut platform = Unprotected;
    let mut tracked = Tracked::new(&mut validation, &mut platform);
    tracked.accept(memory).unwrap();
    // The host takes a page away and puts another in its place; the guest asks for acceptance.
    let page = GpaRange::new(at, 4096).unwrap();
    let stopped = tracked.accept(page).unwrap_err();
    let wrong = StateError::Wrong {
        page: at,
        state: PageUse::Private,
    };
    assert_eq!((stopped.done_bytes, stopped.cause), (0, wrong));
    // On purpose it works: given up, and then accepted anew.
    tracked.release(page).unwrap();
    tracked.ensure(memory).unwrap();
}

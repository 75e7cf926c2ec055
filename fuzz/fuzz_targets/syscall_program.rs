//! Programs: none makes the plan panic, and what it plans stays within the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_platform::addr::{Gva, GvaRange, PageCount, PageSize};
use svsm_syscall::{
    memory::USER_END,
    program::{Limits, Program},
};

fuzz_target!(|bytes: &[u8]| {
    let bounds = Gva::new(0x1000).zip(Gva::new(USER_END)).expect("user addresses");
    let space = GvaRange::from_bounds(bounds.0, bounds.1).expect("in order");
    let limits = Limits { space, pages: PageCount::new(64) };
    let Ok(program) = Program::plan(bytes, &limits) else {
        return;
    };
    assert!(program.pages() <= limits.pages);
    let mut before: Vec<GvaRange> = Vec::new();
    for segment in program.segments() {
        assert!(space.contains_range(&segment.pages()));
        assert!(before.iter().all(|other| !other.overlaps(&segment.pages())));
        for page in segment.pages().pages(PageSize::Size4K).expect("whole pages") {
            let (lead, data) = segment.contents(page);
            assert!(lead + data.len() <= 4096);
        }
        before.push(segment.pages());
    }
});

use std::vec::Vec;

use proptest::prelude::*;
use svsm_platform::addr::GpaRange;
use svsm_platform::encryption::Encryption;

use super::*;
use crate::frame::{Buddy, FrameMeta, Order};
use crate::table::{Flushed, Levels};
use crate::window::HostMemory;

const PAGE: u64 = 4096;
const FRAMES: u64 = 2048;
const AREA: (u64, u64) = (0x40_0000, 0x7f00_0000_0000);

fn gva(at: u64) -> Gva {
    Gva::new(at).unwrap()
}

fn range(at: u64, len: u64) -> GvaRange {
    GvaRange::new(gva(at), len).unwrap()
}

fn area() -> GvaRange {
    GvaRange::from_bounds(gva(AREA.0), gva(AREA.1)).unwrap()
}

fn memory_range() -> GpaRange {
    GpaRange::new(Gpa::new(0x80_0000_0000).unwrap(), FRAMES * PAGE).unwrap()
}

fn metadata() -> Vec<FrameMeta> {
    std::vec![FrameMeta::EMPTY; usize::try_from(FRAMES).unwrap()]
}

/// A shootdown that fails as often as it is told to.
struct Flaky(u32);

impl Shootdown for Flaky {
    type Error = &'static str;

    fn flush(&mut self, stale: StaleTlb) -> Result<Flushed, (StaleTlb, &'static str)> {
        if self.0 > 0 {
            self.0 -= 1;
            return Err((stale, "a CPU does not answer"));
        }
        stale
            .into_flushed_if_simulated()
            .map_err(|stale| (stale, "not simulated"))
    }
}

struct Machine<'m> {
    memory: HostMemory,
    frames: Buddy<'m>,
    shootdown: Flaky,
}

impl<'m> Machine<'m> {
    fn new(meta: &'m mut [FrameMeta]) -> Self {
        let mut frames = Buddy::new(memory_range(), meta).unwrap();
        frames.adopt(memory_range()).unwrap();
        Self {
            memory: HostMemory::new(memory_range()),
            frames,
            shootdown: Flaky(0),
        }
    }

    fn means(&mut self) -> Means<'_, Buddy<'m>, HostMemory, Flaky> {
        Means {
            frames: &mut self.frames,
            window: &self.memory,
            shootdown: &mut self.shootdown,
        }
    }

    fn space(&mut self) -> AddressSpace {
        let root = self.frames.take(Order::SINGLE).unwrap();
        let encryption = Encryption::None;
        let table = PageTable::new(root, encryption, Levels::Four, &self.memory).unwrap();
        AddressSpace::user(table, area())
    }
}

#[test]
fn a_program_is_loaded_and_leaves_nothing_behind() {
    let mut meta = metadata();
    let mut machine = Machine::new(&mut meta);
    let before = machine.frames.free_frames();
    let mut space = machine.space();
    let text: Vec<u8> = (0_u32..5000).map(|n| n.to_le_bytes()[0]).collect();
    let means = &mut machine.means();
    let place = Place::At(range(0x40_0000, 3 * PAGE));
    space
        .map_filled(means, place, 0x123, &text, Rights::READ_EXECUTE)
        .unwrap();
    let stack = Place::Guarded {
        len_bytes: 8 * PAGE,
    };
    let stack = space.map_fresh(means, stack, Rights::READ_WRITE).unwrap();

    let mut copy = std::vec![0xff; 3 * 4096];
    space.read(means.window, gva(0x40_0000), &mut copy).unwrap();
    assert!(
        copy[..0x123]
            .iter()
            .chain(&copy[0x123 + 5000..])
            .all(|byte| *byte == 0)
    );
    assert!(copy[0x123..][..5000] == text);
    let leaf = space
        .table()
        .lookup(means.window, gva(0x40_1000))
        .unwrap()
        .unwrap();
    assert_eq!(leaf.attributes.rights, Rights::READ_EXECUTE.user());

    // Guards are no one else's, and not mapped.
    let guard = stack.start().checked_sub(PAGE).unwrap();
    assert_eq!(space.table().lookup(means.window, guard), Ok(None));
    assert!(space.region(guard).is_none());
    let taken = space.map_fresh(means, Place::At(range(guard.as_u64(), PAGE)), Rights::READ);
    assert_eq!(taken, Err(Error::Mapped { at: guard }));

    space.clear(means).unwrap();
    assert_eq!(space.regions().len(), 0);
    machine.frames.give(space.into_table().into_root()).unwrap();
    assert_eq!(machine.frames.free_frames(), before);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut meta = metadata();
    let mut machine = Machine::new(&mut meta);
    let mut space = machine.space();
    let before = machine.frames.free_frames();
    let means = &mut machine.means();
    let all = Place::Anywhere {
        len_bytes: 2 * FRAMES * PAGE,
        align: PageSize::Size2M,
    };
    let error = space.map_fresh(means, all, Rights::READ_WRITE).unwrap_err();
    assert_eq!(
        error,
        Error::OutOfFrames {
            order: Order::SINGLE
        }
    );
    let outside = range(0x10_0000, PAGE);
    assert_eq!(
        space.map_fresh(means, Place::At(outside), Rights::READ),
        Err(Error::OutsideArea { range: outside })
    );
    let huge = Place::Guarded { len_bytes: AREA.1 };
    assert_eq!(
        space.reserve(huge),
        Err(Error::NoAddresses { len_bytes: AREA.1 })
    );
    let place = Place::At(range(0x40_0000, PAGE));
    let error = space
        .map_filled(means, place, 4000, &[1; 100], Rights::READ)
        .unwrap_err();
    assert_eq!(
        error,
        Error::OutOfBounds {
            offset: 4000,
            len_bytes: 100
        }
    );
    assert_eq!(space.regions().len(), 0);
    assert_eq!(machine.frames.free_frames(), before);
}

#[test]
fn frames_wait_for_a_shootdown_that_failed() {
    let mut meta = metadata();
    let mut machine = Machine::new(&mut meta);
    let mut space = machine.space();
    let before = machine.frames.free_frames();
    let place = Place::At(range(0x40_0000, 4 * PAGE));
    space
        .map_fresh(&mut machine.means(), place, Rights::READ_WRITE)
        .unwrap();
    let used = before - machine.frames.free_frames();
    machine.shootdown.0 = 2;
    for page in 0..2 {
        let part = range(0x40_0000 + page * PAGE, PAGE);
        let stopped = space.unmap(&mut machine.means(), part).unwrap_err();
        assert_eq!(
            (stopped.done_bytes, stopped.cause),
            (PAGE, Error::Unflushed)
        );
    }
    assert_eq!(machine.frames.free_frames(), before - used);
    space
        .unmap(&mut machine.means(), range(0x40_2000, 2 * PAGE))
        .unwrap();
    assert_eq!(machine.frames.free_frames(), before);
}

#[test]
fn memory_of_others_is_mapped_but_neither_read_nor_given_back() {
    let mut meta = metadata();
    let mut machine = Machine::new(&mut meta);
    let mut space = machine.space();
    let before = machine.frames.free_frames();
    let means = &mut machine.means();
    let place = Place::Anywhere {
        len_bytes: 3 * PAGE,
        align: PageSize::Size4K,
    };
    let device = Attributes::shared(Rights::READ_WRITE).uncached();
    let at = space
        .map_memory(means, place, Gpa::new(0xfee0_0000).unwrap(), device)
        .unwrap();
    let mut byte = [0];
    let error = space.read(means.window, at.start(), &mut byte).unwrap_err();
    assert_eq!(error, Error::NotMapped { at: at.start() });
    let (_, rest) = at.split_at(at.start().checked_add(PAGE).unwrap()).unwrap();
    space
        .unmap(means, range(at.start().as_u64(), PAGE))
        .unwrap();
    let region = space.region(rest.start()).unwrap();
    assert_eq!(
        region.backing(),
        Backing::Memory(Gpa::new(0xfee0_1000).unwrap())
    );
    space.clear(means).unwrap();
    assert_eq!(machine.frames.free_frames(), before);
}

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64),
    Anywhere(u64, bool),
    Unmap(u64, u64),
    Protect(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (at, len) = (0_u64..40, 1_u64..12);
    let step = prop_oneof![
        (at.clone(), len.clone()).prop_map(|(at, len)| Step::Map(at, len)),
        (len.clone(), any::<bool>()).prop_map(|(len, guarded)| Step::Anywhere(len, guarded)),
        (at.clone(), len.clone()).prop_map(|(at, len)| Step::Unmap(at, len)),
        (at, len).prop_map(|(at, len)| Step::Protect(at, len)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// The model: what the page table says. Regions and table must always agree.
    #[test]
    fn regions_say_what_the_page_table_says(steps in steps()) {
        let mut meta = metadata();
        let mut machine = Machine::new(&mut meta);
        let mut space = machine.space();
        let before = machine.frames.free_frames();
        for step in steps {
            let means = &mut machine.means();
            let pages = |at: u64, len: u64| range(AREA.0 + at * PAGE, len * PAGE);
            match step {
                Step::Map(at, len) => {
                    let place = Place::At(pages(at, len));
                    let free = space.regions().all(|region| !region.reserved().overlaps(&pages(at, len)));
                    let outcome = space.map_fresh(means, place, Rights::READ_WRITE);
                    prop_assert_eq!(outcome.is_ok(), free);
                }
                Step::Anywhere(len, guarded) => {
                    let len_bytes = len * PAGE;
                    let place = if guarded {
                        Place::Guarded { len_bytes }
                    } else {
                        Place::Anywhere { len_bytes, align: PageSize::Size4K }
                    };
                    prop_assert!(space.map_fresh(means, place, Rights::READ).is_ok());
                }
                Step::Unmap(at, len) => space.unmap(means, pages(at, len)).unwrap(),
                Step::Protect(at, len) => {
                    let _ = space.protect(means, pages(at, len), Rights::READ_EXECUTE);
                }
            }
            let mut last = area().start();
            for region in space.regions() {
                prop_assert!(last <= region.reserved().start());
                prop_assert!(region.reserved().contains_range(&region.range()));
                last = region.reserved().end();
            }
            for page in 0..80 {
                let at = gva(AREA.0 + page * PAGE);
                let leaf = space.table().lookup(&machine.memory, at).unwrap();
                let rights = space.region(at).map(|region| region.rights().user());
                prop_assert_eq!(leaf.map(|leaf| leaf.attributes.rights), rights);
            }
        }
        space.clear(&mut machine.means()).unwrap();
        prop_assert_eq!(machine.frames.free_frames(), before);
        prop_assert_eq!(space.regions().len(), 0);
    }
}

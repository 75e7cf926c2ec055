use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const FIRST: u64 = 500;
const COUNT: u64 = 1600;

fn pages(first: u64, count: u64) -> GpaRange {
    GpaRange::new(Gpa::new(first << 12).unwrap(), count << 12).unwrap()
}

fn blocks() -> Vec<Block> {
    let len = Validation::blocks_len(pages(FIRST, COUNT));
    std::vec![Block::UNACCEPTED; usize::try_from(len).unwrap()]
}

/// A platform that does at most so many pages, says that one more is in doubt, and keeps a log.
#[derive(Default)]
struct Script {
    stops_after: Option<u64>,
    log: Vec<(&'static str, GpaRange)>,
}

impl Script {
    fn run(&mut self, what: &'static str, range: GpaRange) -> Result<(), Stopped<&'static str>> {
        self.log.push((what, range));
        match self.stops_after {
            Some(pages) if pages < range.len_bytes() >> 12 => Err(Stopped {
                done_bytes: pages << 12,
                doubtful_bytes: 0x1000,
                cause: "host",
            }),
            _ => Ok(()),
        }
    }
}

impl PageState for Script {
    type Error = &'static str;

    fn accept(&mut self, range: GpaRange) -> Result<(), Stopped<&'static str>> {
        self.run("accept", range)
    }

    fn release(&mut self, range: GpaRange) -> Result<(), Stopped<&'static str>> {
        self.run("release", range)
    }

    fn make_shared(&mut self, range: GpaRange) -> Result<(), Stopped<&'static str>> {
        self.run("share", range)
    }

    fn make_private(&mut self, range: GpaRange) -> Result<(), Stopped<&'static str>> {
        self.run("unshare", range)
    }
}

#[test]
fn accepting_twice_is_an_error_and_never_reaches_the_platform() {
    let mut blocks = blocks();
    let mut validation = Validation::new(pages(FIRST, COUNT), &mut blocks).unwrap();
    let mut platform = Script::default();
    let mut tracked = Tracked::new(&mut validation, &mut platform);
    tracked.accept(pages(600, 10)).unwrap();
    let again = tracked.accept(pages(605, 1)).unwrap_err();
    let page = Gpa::new(605 << 12).unwrap();
    assert_eq!(
        again.cause,
        StateError::Wrong {
            page,
            state: PageUse::Private
        }
    );
    // A range that meets accepted pages half-way is done up to there.
    let half = tracked.accept(pages(590, 20)).unwrap_err();
    assert_eq!(half.done_bytes, 10 << 12);
    assert_eq!(
        platform.log,
        [("accept", pages(600, 10)), ("accept", pages(590, 10))]
    );
}

#[test]
fn only_what_is_missing_is_accepted_on_demand() {
    let mut blocks = blocks();
    let mut validation = Validation::new(pages(FIRST, COUNT), &mut blocks).unwrap();
    let mut platform = Script::default();
    let mut tracked = Tracked::new(&mut validation, &mut platform);
    tracked.accept(pages(600, 10)).unwrap();
    tracked.ensure(pages(FIRST, COUNT)).unwrap();
    tracked.ensure(pages(FIRST, COUNT)).unwrap();
    let expected = [(600, 10), (FIRST, 100), (610, COUNT - 110)];
    assert!(
        platform
            .log
            .iter()
            .map(|(_, range)| *range)
            .eq(expected.map(|(at, n)| pages(at, n)))
    );
}

#[test]
fn a_host_that_stops_half_way_leaves_a_done_part_and_a_doubtful_one() {
    let mut blocks = blocks();
    let mut validation = Validation::new(pages(FIRST, COUNT), &mut blocks).unwrap();
    let mut platform = Script {
        stops_after: Some(3),
        ..Script::default()
    };
    let mut tracked = Tracked::new(&mut validation, &mut platform);
    let stopped = tracked.accept(pages(510, 5)).unwrap_err();
    assert_eq!(
        (stopped.done_bytes, stopped.doubtful_bytes),
        (3 << 12, 1 << 12)
    );
    assert_eq!(stopped.cause, StateError::Platform("host"));
    let states = (510..515).map(|page| validation.page(Gpa::new(page << 12).unwrap()).unwrap());
    use PageUse::{InDoubt, Private, Unaccepted};
    assert!(states.eq([Private, Private, Private, InDoubt, Unaccepted]));
    let mut tracked = Tracked::new(&mut validation, &mut platform);
    assert!(tracked.ensure(pages(510, 5)).is_err());
    tracked.recover(pages(513, 1)).unwrap();
    tracked.ensure(pages(510, 5)).unwrap();
}

#[test]
fn what_is_not_tracked_is_not_touched() {
    let mut blocks = blocks();
    let mut validation = Validation::new(pages(FIRST, COUNT), &mut blocks).unwrap();
    let mut platform = Script::default();
    let mut tracked = Tracked::new(&mut validation, &mut platform);
    for range in [
        pages(0, 1),
        pages(FIRST - 1, 2),
        pages(FIRST + COUNT - 1, 2),
    ] {
        let cause = StateError::Request(Error::Untracked { range });
        assert_eq!(tracked.accept(range), Err(Stopped::at_start(cause)));
    }
    let ragged = GpaRange::new(Gpa::new(0x20_0800).unwrap(), 0x1000).unwrap();
    assert!(tracked.accept(ragged).is_err());
    assert!(platform.log.is_empty());
}

fn states() -> impl Strategy<Value = PageUse> {
    (0_u64..4).prop_map(PageUse::from_bits)
}

proptest! {
    /// The model: an array of states.
    #[test]
    fn agrees_with_an_array(
        changes in prop::collection::vec((0..COUNT, 0..COUNT, states()), 1..40),
        (from, to) in (0..COUNT, 0..COUNT),
    ) {
        let mut blocks = blocks();
        let mut validation = Validation::new(pages(FIRST, COUNT), &mut blocks).unwrap();
        let mut model = std::vec![PageUse::Unaccepted; usize::try_from(COUNT).unwrap()];
        for (a, b, state) in changes {
            // Whole blocks now and then.
            let (a, b) = if a % 3 == 0 { (a / 512 * 512 + 12, b / 512 * 512 + 12) } else { (a, b) };
            let (a, b) = (a.min(b), a.max(b));
            validation.assume(pages(FIRST + a, b - a), state).unwrap();
            model[usize::try_from(a).unwrap()..usize::try_from(b).unwrap()].fill(state);
        }
        for (page, state) in (FIRST..).zip(&model) {
            prop_assert_eq!(validation.page(Gpa::new(page << 12).unwrap()).unwrap(), *state);
        }
        let (from, to) = (from.min(to), from.max(to) + 1);
        let (run, state) = validation.first_run(pages(FIRST + from, to - from)).unwrap();
        let part = &model[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
        let same = part.iter().take_while(|other| **other == part[0]).count();
        prop_assert_eq!((state, run.len_bytes() >> 12), (part[0], same as u64));
    }
}

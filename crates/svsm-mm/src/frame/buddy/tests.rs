use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn gpa(at: u64) -> Gpa {
    Gpa::new(at).unwrap()
}

fn frames(first: u64, count: u64) -> GpaRange {
    GpaRange::new(gpa(first << FRAME_SHIFT), count << FRAME_SHIFT).unwrap()
}

fn meta(count: u64) -> Vec<FrameMeta> {
    std::vec![FrameMeta::EMPTY; usize::try_from(count).unwrap()]
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

#[test]
fn free_memory_merges_again() {
    let mut meta = meta(1024);
    let mut buddy = Buddy::new(frames(512, 1024), &mut meta).unwrap();
    buddy.adopt(frames(512, 512)).unwrap();
    buddy.adopt(frames(1024, 512)).unwrap();
    assert_eq!(buddy.largest_free(), Some(Order::LARGE));
    let taken: Vec<_> = (0..1024)
        .map(|_| buddy.take(Order::SINGLE).unwrap())
        .collect();
    assert_eq!(
        buddy.take(Order::SINGLE),
        Err(Error::OutOfFrames {
            order: Order::SINGLE
        })
    );
    assert_eq!(buddy.largest_free(), None);
    for frame in taken {
        buddy.give(frame).unwrap();
    }
    assert_eq!(buddy.free_frames(), 1024);
    assert_eq!(buddy.largest_free(), Some(Order::LARGE));
}

#[test]
fn memory_comes_back_once() {
    let mut meta = meta(16);
    let mut buddy = Buddy::new(frames(0, 16), &mut meta).unwrap();
    buddy.adopt(frames(0, 16)).unwrap();
    let taken = buddy.take(order(2)).unwrap();
    let (base, forged) = (taken.base(), Frame::trusted(taken.base(), taken.order()));
    buddy.give(taken).unwrap();
    let refused = buddy.give(forged).unwrap_err();
    assert_eq!(refused.error, Error::DoubleFree { base });
    let inside = Frame::trusted(gpa(0x3000), Order::SINGLE);
    assert_eq!(
        buddy.give(inside).unwrap_err().error,
        Error::DoubleFree { base: gpa(0x3000) }
    );
    assert_eq!(
        buddy.adopt(frames(3, 1)),
        Err(Error::DoubleFree { base: gpa(0x3000) })
    );
}

#[test]
fn memory_of_others_is_refused() {
    let mut meta = meta(16);
    let mut buddy = Buddy::new(frames(4, 16), &mut meta).unwrap();
    buddy.adopt(frames(4, 4)).unwrap();
    for (first, size) in [(0, 0), (20, 0), (8, 0), (8, 3)] {
        let foreign = Frame::trusted(gpa(first << FRAME_SHIFT), order(size));
        let base = foreign.base();
        assert_eq!(
            buddy.give(foreign).unwrap_err().error,
            Error::ForeignFrame { base }
        );
    }
    assert!(matches!(
        buddy.adopt(frames(18, 4)),
        Err(Error::ForeignFrame { .. })
    ));
}

#[test]
fn a_block_does_not_grow_on_its_way_back() {
    let mut meta = meta(16);
    let mut buddy = Buddy::new(frames(0, 16), &mut meta).unwrap();
    buddy.adopt(frames(0, 16)).unwrap();
    let taken = buddy.take(order(1)).unwrap();
    let grown = Frame::trusted(taken.base(), order(3));
    let base = grown.base();
    let error = Error::WrongOrder {
        base,
        taken: order(1),
        given: order(3),
    };
    assert_eq!(buddy.give(grown).unwrap_err().error, error);
    buddy.give(taken).unwrap();
    assert_eq!(buddy.largest_free(), Some(order(4)));
}

#[test]
fn ragged_ranges_and_short_metadata_are_refused() {
    let mut meta = meta(15);
    let ragged = GpaRange::new(gpa(0x800), 0x1000).unwrap();
    assert_eq!(
        Buddy::new(ragged, &mut meta).unwrap_err(),
        Error::Misaligned { address: 0x800 }
    );
    assert_eq!(
        Buddy::new(frames(0, 16), &mut meta).unwrap_err(),
        Error::MetadataTooShort { needed: 16 }
    );
}

#[derive(Clone, Debug)]
enum Step {
    Take(u8),
    Give(prop::sample::Index),
    GivePart(prop::sample::Index, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u8..6).prop_map(Step::Take),
        2 => any::<prop::sample::Index>().prop_map(Step::Give),
        1 => any::<(prop::sample::Index, bool)>().prop_map(|(at, low)| Step::GivePart(at, low)),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// The model: a set of free frames, searched from end to end.
    #[test]
    fn agrees_with_a_set_of_free_frames(base in 0_u64..64, hole in 0_u64..90, steps in steps()) {
        let mut meta = meta(100);
        let mut buddy = Buddy::new(frames(base, 100), &mut meta).unwrap();
        buddy.adopt(frames(base, hole)).unwrap();
        buddy.adopt(frames(base + hole + 7, 93 - hole)).unwrap();
        let mut free: BTreeSet<u64> = (base..base + 100).collect();
        free.retain(|at| !(base + hole..base + hole + 7).contains(at));
        let mut taken = Vec::new();
        let blocks = |frame: &Frame| {
            let first = frame.base().as_u64() >> FRAME_SHIFT;
            first..first + frame.order().frames()
        };
        for step in steps {
            match step {
                Step::Take(size) => match buddy.take(order(size)) {
                    Ok(frame) => {
                        prop_assert_eq!(frame.base().as_u64() % frame.bytes(), 0);
                        prop_assert!(blocks(&frame).all(|at| free.remove(&at)));
                        taken.push(frame);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, Error::OutOfFrames { order: order(size) });
                        let fits = |first: u64| (first..first + (1 << size)).all(|at| free.contains(&at));
                        prop_assert!(!(0..256 >> size).any(|block| fits(block << size)));
                    }
                },
                Step::Give(at) if !taken.is_empty() => {
                    let frame = taken.swap_remove(at.index(taken.len()));
                    free.extend(blocks(&frame));
                    prop_assert_eq!(buddy.give(frame), Ok(()));
                }
                Step::GivePart(at, low) if !taken.is_empty() => {
                    let frame = taken.swap_remove(at.index(taken.len()));
                    let part = match frame.split() {
                        Ok((lower, upper)) => {
                            let (given, kept) = if low { (lower, upper) } else { (upper, lower) };
                            taken.push(kept);
                            given
                        }
                        Err(single) => single,
                    };
                    free.extend(blocks(&part));
                    prop_assert_eq!(buddy.give(part), Ok(()));
                }
                Step::Give(_) | Step::GivePart(..) => {}
            }
            prop_assert_eq!(buddy.free_frames(), free.len() as u64);
        }
        for frame in taken {
            prop_assert_eq!(buddy.give(frame), Ok(()));
        }
        prop_assert_eq!(buddy.free_frames(), buddy.total_frames());
    }
}

//! Laws of page tables, on memory of the host.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use svsm_platform::addr::{GpaRange, Gva};
use svsm_platform::encryption::BitPosition;

use super::*;
use crate::frame::{Buddy, FrameMeta};
use crate::window::{HostMemory, NoProcessor};

const MEMORY: u64 = 0x80_0000_0000;
const FRAMES: u64 = 2048;
const KIB4: u64 = 4096;
const MIB2: u64 = 512 * KIB4;
const GIB1: u64 = 512 * MIB2;

fn gva(at: u64) -> Gva {
    Gva::new(at).unwrap()
}

fn gpa(at: u64) -> Gpa {
    Gpa::new(at).unwrap()
}

fn range(at: u64, len: u64) -> GvaRange {
    GvaRange::new(gva(at), len).unwrap()
}

fn c_bit() -> Encryption {
    Encryption::CBit(BitPosition::new(51).unwrap())
}

fn memory_range() -> GpaRange {
    GpaRange::new(gpa(MEMORY), FRAMES * KIB4).unwrap()
}

fn metadata() -> Vec<FrameMeta> {
    std::vec![FrameMeta::EMPTY; usize::try_from(FRAMES).unwrap()]
}

/// A page table with all it needs.
struct Bench<'m> {
    memory: HostMemory,
    frames: Buddy<'m>,
    table: PageTable,
}

impl<'m> Bench<'m> {
    fn new(meta: &'m mut [FrameMeta], encryption: Encryption, levels: Levels) -> Self {
        let memory = HostMemory::new(memory_range());
        let mut frames = Buddy::new(memory_range(), meta).unwrap();
        frames.adopt(memory_range()).unwrap();
        let root = frames.take(Order::SINGLE).unwrap();
        let table = PageTable::new(root, encryption, levels, &memory).unwrap();
        Self {
            memory,
            frames,
            table,
        }
    }

    fn edit(&mut self) -> Editor<'_, Buddy<'m>, HostMemory> {
        self.table.editor(&mut self.frames, &self.memory)
    }

    fn lookup(&self, at: u64) -> Option<Leaf> {
        self.table.lookup(&self.memory, gva(at)).unwrap()
    }

    fn reclaim(&mut self, stale: StaleTlb) {
        let flushed = NoProcessor.flush(stale).unwrap();
        self.edit().reclaim(flushed).unwrap();
    }

    fn unmap(&mut self, range: GvaRange) {
        let (stale, outcome) = self.edit().unmap(range);
        outcome.unwrap();
        self.reclaim(stale);
    }
}

#[test]
fn the_largest_pages_that_fit_are_used() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Four);
    let all = range(GIB1 - KIB4, KIB4 + GIB1 + MIB2 + KIB4);
    let attributes = Attributes::private(Rights::READ_WRITE);
    bench
        .edit()
        .map(all, gpa(5 * GIB1 - KIB4), attributes)
        .unwrap();
    let sizes = [
        (GIB1 - KIB4, PageSize::Size4K),
        (GIB1, PageSize::Size1G),
        (2 * GIB1, PageSize::Size2M),
        (2 * GIB1 + MIB2, PageSize::Size4K),
    ];
    for (at, size) in sizes {
        let leaf = bench.lookup(at).unwrap();
        assert_eq!((leaf.size, leaf.page), (size, gpa(at + 4 * GIB1)));
        assert_eq!(leaf.attributes, attributes);
    }
    assert_eq!(bench.lookup(GIB1 - 2 * KIB4), None);
    assert_eq!(
        bench
            .table
            .translate(&bench.memory, gva(GIB1 + 0x1234))
            .unwrap(),
        Some(gpa(5 * GIB1 + 0x1234))
    );
}

#[test]
fn splitting_a_shared_page_keeps_its_parts_shared() {
    for encryption in [
        c_bit(),
        Encryption::SharedBit(BitPosition::new(47).unwrap()),
        Encryption::Vtom(gpa(1 << 46)),
    ] {
        let mut meta = metadata();
        let mut bench = Bench::new(&mut meta, encryption, Levels::Four);
        let shared = Attributes::shared(Rights::READ_WRITE);
        bench
            .edit()
            .map(range(GIB1, GIB1), gpa(GIB1), shared)
            .unwrap();
        assert_eq!(bench.lookup(GIB1).unwrap().size, PageSize::Size1G);
        let (stale, outcome) = bench.edit().protect(range(GIB1 + MIB2, KIB4), Rights::READ);
        outcome.unwrap();
        bench.reclaim(stale);
        bench.unmap(range(GIB1 + MIB2 + 5 * KIB4, KIB4));
        for at in (GIB1..2 * GIB1).step_by(4096 * 64) {
            let leaf = bench.lookup(at).unwrap();
            assert_eq!(leaf.attributes.visibility, Visibility::Shared, "at {at:#x}");
            assert_eq!(leaf.translate(gva(at)), Some(gpa(at)));
        }
        assert_eq!(
            bench.lookup(GIB1 + MIB2).unwrap().attributes.rights,
            Rights::READ
        );
        assert_eq!(bench.lookup(GIB1 + MIB2 + 5 * KIB4), None);
    }
}

#[test]
fn nothing_is_mapped_over() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Four);
    let attributes = Attributes::private(Rights::READ);
    bench
        .edit()
        .map(range(4 * KIB4, KIB4), gpa(0), attributes)
        .unwrap();
    let stopped = bench
        .edit()
        .map(range(0, 8 * KIB4), gpa(0), attributes)
        .unwrap_err();
    assert_eq!(stopped.done_bytes, 4 * KIB4);
    assert_eq!(stopped.cause, Error::Mapped { at: gva(4 * KIB4) });
    assert!(bench.lookup(3 * KIB4).is_some());
}

#[test]
fn frames_stay_until_the_flush() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Four);
    let before = bench.frames.free_frames();
    let all = range(7 * KIB4, 3 * MIB2);
    let attributes = Attributes::private(Rights::READ_WRITE.user());
    bench
        .edit()
        .map_fresh(all, attributes, PageSize::Size2M)
        .unwrap();
    let used = before - bench.frames.free_frames();
    assert!(used >= 3 * 512 + 3);
    let (stale, outcome) = bench.edit().unmap(all);
    outcome.unwrap();
    assert_eq!(bench.frames.free_frames(), before - used);
    assert_eq!(bench.lookup(7 * KIB4), None);
    let again = bench
        .edit()
        .map(range(7 * KIB4, KIB4), gpa(0), attributes)
        .unwrap_err();
    assert!(matches!(again.cause, Error::Retired { .. }));
    bench.reclaim(stale);
    assert_eq!(bench.frames.free_frames(), before);
    bench
        .edit()
        .map(range(7 * KIB4, KIB4), gpa(0), attributes)
        .unwrap();
}

#[test]
fn a_flush_before_the_latest_unmapping_gives_nothing_back() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Four);
    let attributes = Attributes::private(Rights::READ_WRITE);
    bench
        .edit()
        .map_fresh(range(0, 8 * KIB4), attributes, PageSize::Size4K)
        .unwrap();
    let (first, outcome) = bench.edit().unmap(range(0, KIB4));
    outcome.unwrap();
    let flushed = NoProcessor.flush(first).unwrap();
    let (second, outcome) = bench.edit().unmap(range(KIB4, KIB4));
    outcome.unwrap();
    let unreclaimed = bench.edit().reclaim(flushed).unwrap_err();
    assert_eq!(unreclaimed.stopped.cause, Error::StaleToken);
    bench.reclaim(unreclaimed.stale.join(second).unwrap());
    bench
        .edit()
        .map(range(0, 2 * KIB4), gpa(0), attributes)
        .unwrap();
}

#[test]
fn a_table_that_goes_takes_all_that_was_retired_in_it_into_the_flush() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Four);
    let attributes = Attributes::private(Rights::READ_WRITE);
    bench
        .edit()
        .map_fresh(range(MIB2, 2 * KIB4), attributes, PageSize::Size4K)
        .unwrap();
    let (_unflushed, outcome) = bench.edit().unmap(range(MIB2, KIB4));
    outcome.unwrap();
    let (stale, outcome) = bench.edit().unmap(range(MIB2 + KIB4, KIB4));
    outcome.unwrap();
    assert!(stale.range().contains_range(&range(MIB2, MIB2)));
}

#[test]
fn running_out_of_frames_leaves_a_usable_table() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Five);
    let before = bench.frames.free_frames();
    let attributes = Attributes::private(Rights::READ_WRITE);
    let all = range(0xffff_8000_0000_0000, 2 * FRAMES * KIB4);
    let stopped = bench
        .edit()
        .map_fresh(all, attributes, PageSize::Size1G)
        .unwrap_err();
    assert_eq!(
        stopped.cause,
        Error::OutOfFrames {
            order: Order::SINGLE
        }
    );
    assert!(stopped.done_bytes > 3 * MIB2 && stopped.done_bytes < FRAMES * KIB4);
    bench.unmap(all);
    assert_eq!(bench.frames.free_frames(), before);
}

#[test]
fn frames_that_are_mapped_singly_come_back() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, c_bit(), Levels::Four);
    let before = bench.frames.free_frames();
    let attributes = Attributes::private(Rights::READ_EXECUTE.user());
    let frame = bench.frames.take(Order::LARGE).unwrap();
    let refused = bench
        .edit()
        .map_frame(gva(KIB4), frame, attributes)
        .unwrap_err();
    assert_eq!(refused.error, Error::Misaligned { address: KIB4 });
    bench
        .edit()
        .map_frame(gva(MIB2), refused.frame, attributes)
        .unwrap();
    let frame = bench.frames.take(Order::SINGLE).unwrap();
    let refused = bench
        .edit()
        .map_frame(gva(MIB2), frame, attributes)
        .unwrap_err();
    assert_eq!(refused.error, Error::Mapped { at: gva(MIB2) });
    bench.frames.give(refused.frame).unwrap();
    // Cut the large page: its parts go back one by one.
    bench.unmap(range(MIB2 + 3 * KIB4, 9 * KIB4));
    bench.unmap(range(0, GIB1));
    assert_eq!(bench.frames.free_frames(), before);
}

#[test]
fn processes_share_what_the_kernel_maps_later() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, c_bit(), Levels::Four);
    let kernel = range(0xffff_8000_0000_0000, 0x7fff_8000_0000);
    bench.edit().populate(kernel).unwrap();
    let root = bench.frames.take(Order::SINGLE).unwrap();
    let mut user = PageTable::new_sharing(root, &bench.table, kernel, &bench.memory).unwrap();
    let (at, attributes) = (0xffff_8000_0000_3000, Attributes::private(Rights::READ));
    bench
        .edit()
        .map(range(at, KIB4), gpa(0), attributes)
        .unwrap();
    // The processor sees it: the roots point to the same table.
    let entry = |memory: &HostMemory, table: &PageTable| {
        let root = open(memory, table.root()).unwrap();
        root.load(Level(4).index(at)) & 0x000f_ffff_ffff_f000
    };
    assert_eq!(
        entry(&bench.memory, &user),
        entry(&bench.memory, &bench.table)
    );
    assert_eq!(
        user.lookup(&bench.memory, gva(at)),
        Err(Error::ForeignTable { at: gva(at) })
    );
    let (stale, outcome) = user
        .editor(&mut bench.frames, &bench.memory)
        .unmap(range(at, KIB4));
    assert_eq!(
        outcome.unwrap_err().cause,
        Error::ForeignTable { at: gva(at) }
    );
    assert_eq!(stale.root(), user.root());
    // What was populated stays, however empty.
    bench.unmap(kernel);
    assert_eq!(
        entry(&bench.memory, &user),
        entry(&bench.memory, &bench.table)
    );
    assert_ne!(entry(&bench.memory, &user), 0);
}

#[test]
fn tables_take_the_final_form_of_their_platform_later() {
    let neutral = Encryption::SharedBit(BitPosition::new(51).unwrap());
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, neutral, Levels::Four);
    let all = range(GIB1, 2 * MIB2 + KIB4);
    bench
        .edit()
        .map(all, gpa(MIB2), Attributes::private(Rights::READ))
        .unwrap();
    let device = range(0, KIB4);
    bench
        .edit()
        .map(device, gpa(MIB2), Attributes::shared(Rights::READ))
        .unwrap();
    bench.table.recode(&bench.memory, c_bit()).unwrap();
    assert_eq!(
        bench.table.cr3().unwrap().bits(),
        bench.table.root().as_u64() | 1 << 51
    );
    assert_eq!(
        bench.lookup(GIB1).unwrap().attributes.visibility,
        Visibility::Private
    );
    assert_eq!(bench.lookup(GIB1 + MIB2).unwrap().page, gpa(2 * MIB2));
    assert_eq!(
        bench.lookup(0).unwrap().attributes.visibility,
        Visibility::Shared
    );
    let low = Encryption::CBit(BitPosition::new(39).unwrap());
    assert!(matches!(
        bench.table.recode(&bench.memory, low),
        Err(Error::NotEncodable { .. })
    ));
    assert_eq!(
        bench.lookup(GIB1).unwrap().attributes.visibility,
        Visibility::Private
    );
}

#[test]
fn tables_of_an_image_are_never_given_back() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Four);
    let attributes = Attributes::private(Rights::READ);
    bench
        .edit()
        .map(range(0, KIB4), gpa(0), attributes)
        .unwrap();
    bench.table.pin(&bench.memory).unwrap();
    let before = bench.frames.free_frames();
    bench.unmap(range(0, 4 * GIB1));
    assert_eq!(bench.lookup(0), None);
    assert_eq!(bench.frames.free_frames(), before);
}

#[test]
fn tables_of_a_processor_are_not_flushed_by_pretending() {
    let mut meta = metadata();
    let mut bench = Bench::new(&mut meta, Encryption::None, Levels::Four);
    let root = bench.frames.take(Order::SINGLE).unwrap();
    clear(&bench.memory, root.base()).unwrap();
    // SAFETY: an empty table, which no processor uses whatever is said here.
    #[expect(unsafe_code, reason = "a table as it would be taken over")]
    let mut live = unsafe { PageTable::adopt(root, Encryption::None, Levels::Four) };
    let (stale, outcome) = live
        .editor(&mut bench.frames, &bench.memory)
        .unmap(range(0, GIB1));
    outcome.unwrap();
    let (_stale, error) = NoProcessor.flush(stale).unwrap_err();
    assert_eq!(error, Error::StaleToken);
}

#[derive(Clone, Debug)]
enum Step {
    Map {
        at: u64,
        pages: u64,
        to: u64,
        attributes: Attributes,
    },
    Fresh {
        at: u64,
        pages: u64,
        attributes: Attributes,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    Protect {
        at: u64,
        pages: u64,
        rights: Rights,
    },
    Show {
        at: u64,
        pages: u64,
        visibility: Visibility,
    },
}

/// Pages of the model: 8 MiB on both sides of a 1 GiB bound.
const FIRST: u64 = GIB1 / KIB4 - 2048;
const LAST: u64 = GIB1 / KIB4 + 2048;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Page numbers and lengths that often are those of large pages.
    let at =
        || (FIRST..LAST, any::<bool>()).prop_map(|(at, whole)| if whole { at & !511 } else { at });
    let pages = || prop_oneof![1_u64..20, 500_u64..530, Just(512_u64), Just(1024_u64)];
    let rights = || {
        prop::sample::select(std::vec![
            Rights::READ,
            Rights::READ_WRITE,
            Rights::READ_EXECUTE,
            Rights::READ_WRITE.user(),
        ])
    };
    let visibility = || prop::sample::select(std::vec![Visibility::Private, Visibility::Shared]);
    let attributes = move || {
        (rights(), visibility(), any::<bool>()).prop_map(|(rights, visibility, global)| {
            Attributes {
                rights,
                visibility,
                cache: Cache::WriteBack,
                global: global && !rights.is_user(),
            }
        })
    };
    let step = prop_oneof![
        4 => (at(), pages(), 0_u64..1 << 20, any::<bool>(), attributes()).prop_map(
            |(at, pages, to, alike, attributes)| {
                let to = if alike { (to & !511) + (at & 511) } else { to };
                Step::Map { at, pages, to, attributes }
            }
        ),
        1 => (at(), pages(), attributes())
            .prop_map(|(at, pages, attributes)| Step::Fresh { at, pages, attributes }),
        3 => (at(), pages()).prop_map(|(at, pages)| Step::Unmap { at, pages }),
        2 => (at(), pages(), rights())
            .prop_map(|(at, pages, rights)| Step::Protect { at, pages, rights }),
        2 => (at(), pages(), visibility())
            .prop_map(|(at, pages, visibility)| Step::Show { at, pages, visibility }),
    ];
    prop::collection::vec(step, 1..24)
}

type Model = BTreeMap<u64, (Gpa, Attributes)>;

fn snapshot(bench: &Bench<'_>) -> Model {
    let mut seen = Model::new();
    let all = range((FIRST - 1) * KIB4, (LAST - FIRST + 3000) * KIB4);
    let visit = |leaf: Leaf| {
        for offset in (0..leaf.size.bytes()).step_by(4096) {
            let page = leaf.page.checked_add(offset).unwrap();
            seen.insert((leaf.at.as_u64() + offset) / KIB4, (page, leaf.attributes));
        }
        ControlFlow::Continue(())
    };
    bench.table.walk(&bench.memory, all, visit).unwrap();
    seen
}

/// The prefix that an operation has done, in pages.
fn done(outcome: Result<(), Stopped<Error>>, pages: u64) -> u64 {
    outcome.map_or_else(|stopped| stopped.done_bytes / KIB4, |()| pages)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The model: a map from page to what is there.
    #[test]
    fn agrees_with_a_map_of_pages(
        encryption in prop::sample::select(std::vec![c_bit(), Encryption::Vtom(gpa(1 << 45))]),
        levels in prop::sample::select(std::vec![Levels::Four, Levels::Five]),
        steps in steps(),
    ) {
        let mut meta = metadata();
        let mut bench = Bench::new(&mut meta, encryption, levels);
        let before = bench.frames.free_frames();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Map { at, pages, to, attributes } => {
                    let outcome =
                        bench.edit().map(range(at * KIB4, pages * KIB4), gpa(to * KIB4), attributes);
                    let free = (at..at + pages).take_while(|page| !model.contains_key(page)).count();
                    if outcome.is_err_and(|stopped| matches!(stopped.cause, Error::OutOfFrames { .. })) {
                        return Ok(());
                    }
                    prop_assert_eq!(done(outcome, pages), free as u64);
                    for page in 0..free as u64 {
                        model.insert(at + page, (gpa((to + page) * KIB4), attributes));
                    }
                }
                Step::Fresh { at, pages, attributes } => {
                    let all = range(at * KIB4, pages * KIB4);
                    let outcome = bench.edit().map_fresh(all, attributes, PageSize::Size2M);
                    let seen = snapshot(&bench);
                    for page in at..at + done(outcome, pages) {
                        prop_assert!(model.insert(page, seen[&page]).is_none());
                        prop_assert_eq!(seen[&page].1, attributes);
                    }
                }
                Step::Unmap { at, pages } => {
                    let (stale, outcome) = bench.edit().unmap(range(at * KIB4, pages * KIB4));
                    for page in at..at + done(outcome, pages) {
                        model.remove(&page);
                    }
                    bench.reclaim(stale);
                }
                Step::Protect { at, pages, rights } => {
                    let (_stale, outcome) =
                        bench.edit().protect(range(at * KIB4, pages * KIB4), rights);
                    for page in at..at + done(outcome, pages) {
                        let attributes = &mut model.get_mut(&page).unwrap().1;
                        attributes.rights = rights;
                        attributes.global &= !rights.is_user();
                    }
                }
                Step::Show { at, pages, visibility } => {
                    let (_stale, outcome) =
                        bench.edit().set_visibility(range(at * KIB4, pages * KIB4), visibility);
                    for page in at..at + done(outcome, pages) {
                        model.get_mut(&page).unwrap().1.visibility = visibility;
                    }
                }
            }
            prop_assert!(snapshot(&bench) == model);
        }
        bench.unmap(range(0, 4 * GIB1));
        prop_assert_eq!(bench.frames.free_frames(), before);
    }
}

use super::*;
use crate::addr::HpaRange;
use crate::ending::Internal;
use crate::layout::{Layout, MapEntry};
use crate::loader::Backed;
use crate::personality::fake::Fake;
use crate::phys::Memory;
use crate::phys::fake::Ram;
use crate::snp::nested::Encryption;
use crate::snp::shared::{ASID, C_BIT, Ownership, Seat};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use svsm_sim::rmp::{Entry, NewState};

const MIB: u64 = 1 << 20;
const RAM: u64 = 40 * MIB;
const BASE: u64 = 0xfed9_0000;
const ENCRYPTION: Encryption = Encryption::CBit(1 << C_BIT);
/// Memory beside RAM.
const FAR: u64 = 1 << 39;
/// Memory where no device's address goes. The tables would take it for memory at 34 MiB, which is L0's.
const BEYOND: u64 = (1 << 48) + 34 * MIB;

/// What the registers of QEMU's unit say.
fn unit() -> (Unit, Fake) {
    let capabilities = 6 << 8 | 0x22 << 24 | 3 << 34 | 1 << 39 | 18 << 48 | 3 << 54;
    let registers = BTreeMap::from([
        (BASE + 8, capabilities),
        (BASE + 0x10, 0xf << 8),
        (BASE + 0x1c, 0),
        (BASE + 0x28, 0),
        (BASE + 0x34, 0),
        (BASE + 0xf8, 0),
        (BASE + 0x228, 0),
    ]);
    let hardware = Fake {
        registers,
        follows: BTreeMap::from([(BASE + 0x18, BASE + 0x1c)]),
        ..Fake::default()
    };
    (Unit::new(Hpa::new(BASE).unwrap()), hardware)
}

/// The unit with the tables that it was started with.
fn started(reach: Reach) -> (Remapping, Fake) {
    let (unit, mut hardware) = unit();
    let unit = unit.start(&reach, &mut hardware).unwrap();
    hardware.devices.clear();
    (Remapping { unit, reach }, hardware)
}

struct Setup {
    layout: Layout,
    map: GuestMap,
    pool: Pool,
    ram: Ram,
}

fn setup() -> Setup {
    let entry = MapEntry {
        start: 0,
        bytes: RAM,
        kind: 1,
    };
    let layout = Layout::new(&[entry], Some(32 * MIB)).unwrap();
    let mut ram = Ram::new(usize::try_from(RAM).unwrap());
    let mut pool = Pool::new(layout.own, HpaRange::from_u64(0, 0).unwrap());
    let mut backed = Backed::new();
    for start in [FAR, BEYOND] {
        backed
            .insert(GpaRange::from_u64(start, start + 0x4000).unwrap())
            .unwrap();
    }
    let map = GuestMap::new(&layout, &backed, &mut pool, &mut ram).unwrap();
    Setup {
        layout,
        map,
        pool,
        ram,
    }
}

#[test]
fn the_unit_is_told_where_the_tables_are_before_it_is_turned_on() {
    let Setup {
        mut pool, mut ram, ..
    } = setup();
    let reach = Reach::new(&mut pool, &mut ram).unwrap();
    let (unit, mut hardware) = unit();
    unit.start(&reach, &mut hardware).unwrap();
    let written: Vec<_> = hardware
        .devices
        .iter()
        .map(|(at, size, value)| (at - BASE, *size, *value))
        .collect();
    let expected = [
        (0x20, 8, reach.root().as_u64()),
        (0x18, 4, 1 << 30),
        (0x28, 8, 1 << 63 | 1 << 61),
        (0xf8, 8, 1 << 63 | 1 << 60 | 3 << 48),
        (0x18, 4, 1 << 31),
    ];
    assert_eq!(written, expected);
    // Every device of every bus has the same tables.
    for device in [0, 0x10, 0xff08, 0xffff_u64] {
        let entry = Hpa::new(reach.root().as_u64() + (device >> 8) * 16).unwrap();
        let contexts = ram.read_u64(entry).unwrap();
        assert_eq!(contexts & 0xfff, 1);
        let entry = Hpa::new(contexts - 1 + (device & 0xff) * 16).unwrap();
        assert_eq!(ram.read_u64(entry).unwrap() & 0xfff, 1);
        let width = Hpa::new(entry.as_u64() + 8).unwrap();
        assert_eq!(ram.read_u64(width).unwrap(), 1 << 8 | 2);
    }
}

#[test]
fn a_unit_of_another_kind_is_named() {
    let Setup {
        mut pool, mut ram, ..
    } = setup();
    let reach = Reach::new(&mut pool, &mut ram).unwrap();
    let (unit, good) = unit();
    let capabilities = good.registers[&(BASE + 8)];
    let four = UnitError::Lacks("tables of four levels");
    let large = UnitError::Lacks("pages of 2 MiB and 1 GiB");
    for (changed, error) in [
        (capabilities & !(1 << 10), four),
        (capabilities & !(1 << 34), large),
        (capabilities & !(1 << 35), large),
        (
            capabilities & !(1 << 39),
            UnitError::Lacks("the invalidation of single pages"),
        ),
        (
            capabilities & !(0x3f << 48) | 8 << 48,
            UnitError::Lacks("the invalidation of 512 pages at once"),
        ),
        (
            capabilities | 1 << 4,
            UnitError::Needs("its write buffers flushed"),
        ),
        (
            capabilities | 1 << 7,
            UnitError::Needs("the invalidation of what was not there"),
        ),
    ] {
        let mut other = good.clone();
        other.registers.insert(BASE + 8, changed);
        assert_eq!(unit.start(&reach, &mut other), Err(error));
        assert!(other.devices.is_empty());
    }
    for on in [1 << 31, 1 << 26, 1 << 25] {
        let mut used = good.clone();
        used.registers.insert(BASE + 0x1c, on);
        assert_eq!(unit.start(&reach, &mut used), Err(UnitError::InUse));
        assert!(used.devices.is_empty());
    }
    let mut silent = good.clone();
    silent.follows.clear();
    assert_eq!(unit.start(&reach, &mut silent), Err(UnitError::Silent));
    // What cannot wait for accesses is not asked to.
    let mut hasty = good;
    hasty
        .registers
        .insert(BASE + 8, capabilities & !(3 << 54) | 1 << 54);
    let working = unit.start(&reach, &mut hasty).unwrap();
    hasty.devices.clear();
    working
        .forget(0x5123, PageSize::Size4K, &mut hasty)
        .unwrap();
    let command = 1 << 63 | 3 << 60 | 1 << 48 | 1 << 32;
    assert_eq!(
        hasty.devices,
        [(BASE + 0xf0, 8, 0x5000), (BASE + 0xf8, 8, command)]
    );
}

#[test]
fn refused_accesses_are_read_and_their_places_given_free() {
    let (unit, mut hardware) = unit();
    assert_eq!(unit.refused(&mut hardware), None);
    hardware.registers.insert(BASE + 0x34, 3);
    hardware.registers.insert(BASE + 0x220, 0x5000);
    hardware
        .registers
        .insert(BASE + 0x228, 1 << 63 | 5 << 32 | 0x18);
    let write = Refused {
        device: 0x18,
        gpa: 0x5000,
        write: true,
    };
    assert_eq!(unit.refused(&mut hardware), Some(write));
    let freed = [(BASE + 0x228, 8, 1 << 63), (BASE + 0x34, 4, 1)];
    assert_eq!(hardware.devices, freed);
    hardware
        .registers
        .insert(BASE + 0x228, 3 << 62 | 6 << 32 | 0x18);
    let read = Refused {
        write: false,
        ..write
    };
    assert_eq!(unit.refused(&mut hardware), Some(read));
}

#[test]
fn one_cpu_at_a_time_looks_for_what_was_refused() {
    let (unit, mut hardware) = unit();
    // The note stays, as with a device that goes on.
    hardware.registers.insert(BASE + 0x34, 2);
    hardware.registers.insert(BASE + 0x220, 0x5000);
    hardware.registers.insert(BASE + 0x228, 1 << 63 | 0x18);
    let watch = Watch::new(unit);
    watch.look_at(5, &mut hardware);
    watch.look_at(6, &mut hardware);
    assert_eq!((watch.refused(), hardware.reports.len()), (8, 8));
    hardware.devices.clear();
    let other = watch.looks.try_lock().unwrap();
    watch.look(&mut hardware);
    watch.look_at(5 + Watch::PAUSE, &mut hardware);
    assert_eq!((watch.refused(), hardware.devices.len()), (8, 0));
    drop(other);
    watch.look_at(5 + 2 * Watch::PAUSE, &mut hardware);
    assert_eq!(watch.refused(), 16);
    for _ in 0..100 {
        watch.look(&mut hardware);
    }
    assert_eq!((watch.refused(), hardware.reports.len()), (816, 64));
}

#[test]
fn without_isolation_all_of_the_guest_and_nothing_of_l0_is_reached() {
    let Setup {
        layout,
        map,
        mut pool,
        mut ram,
    } = setup();
    let reach = Reach::new(&mut pool, &mut ram).unwrap();
    reach.open_all(&map, &mut pool, &mut ram).unwrap();
    for at in [0, 0x9_f123, MIB, 0x123_4567, 32 * MIB - 1] {
        assert_eq!(reach.home(at, &ram), Ok(Some(at)));
    }
    let (home, _) = map.resolve(Gpa::new(FAR).unwrap()).unwrap();
    let far = reach.home(FAR + 0x123, &ram).unwrap();
    assert_eq!(far, Some(home.as_u64() + 0x123));
    for at in (layout.own.start().as_u64()..layout.own.end().as_u64()).step_by(4096) {
        assert_eq!(reach.home(at, &ram), Ok(None));
    }
    for at in [0xa_0000, BASE, 0xfee0_0000, 1 << 32, FAR + 0x4000, BEYOND] {
        assert_eq!(reach.home(at, &ram), Ok(None));
    }
}

#[test]
fn a_page_that_devices_may_still_reach_does_not_become_the_guests() {
    let Setup {
        map,
        mut pool,
        mut ram,
        ..
    } = setup();
    let reach = Reach::new(&mut pool, &mut ram).unwrap();
    let (remapping, mut hardware) = started(reach);
    // An invalidation is never over.
    hardware.registers.insert(BASE + 0xf8, 1 << 63);
    let mut entries = vec![Entry::HYPERVISOR; usize::try_from(RAM / 4096).unwrap()];
    let mut seats = [Seat::EMPTY];
    let mut owned = Ownership::new(
        &mut entries,
        &mut seats,
        Levels::Five,
        Some(remapping),
        pool,
    );
    let Ownership { rmp, pool, .. } = &mut owned;
    reach.open_shared(&map, rmp, pool, &mut ram).unwrap();
    let (home, size) = (Hpa::new(0x5000).unwrap(), PageSize::Size4K);
    let new = NewState::guest(ASID, 0x5000, size);
    let done = owned.assign(0x5000, home, new, ENCRYPTION, &mut ram, &mut hardware);
    assert_eq!((done, owned.failed), (None, Some(Internal::Remapping)));
    assert!(super::is_hosts(&owned.rmp, home));
    assert_eq!(ram.0[0x5000], 0xcc);
}

#[test]
fn a_page_that_cannot_change_hands_stays_in_reach() {
    let Setup {
        map,
        mut pool,
        mut ram,
        ..
    } = setup();
    let reach = Reach::new(&mut pool, &mut ram).unwrap();
    let (remapping, mut hardware) = started(reach);
    let mut entries = vec![Entry::HYPERVISOR; usize::try_from(RAM / 4096).unwrap()];
    let mut seats = [Seat::EMPTY];
    let mut owned = Ownership::new(
        &mut entries,
        &mut seats,
        Levels::Five,
        Some(remapping),
        pool,
    );
    let Ownership { rmp, pool, .. } = &mut owned;
    reach.open_shared(&map, rmp, pool, &mut ram).unwrap();
    // A large page begins where small ones do not.
    let (home, gpa) = (Hpa::new(4 * MIB + 0x1000).unwrap(), 4 * MIB + 0x1000);
    let new = NewState::guest(ASID, gpa, PageSize::Size2M);
    let done = owned.assign(gpa, home, new, ENCRYPTION, &mut ram, &mut hardware);
    assert_eq!((done, owned.failed), (None, None));
    assert_eq!(reach.home(gpa, &ram), Ok(Some(gpa)));
}

/// Something that happens to a page, by its number among those that are looked at.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Give(usize),
    GiveLarge(usize),
    Take(usize),
    /// A device uses it, and the unit remembers.
    Use(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let page = 0..PAGES.len();
    prop_oneof![
        page.clone().prop_map(Deed::Give),
        page.clone().prop_map(Deed::GiveLarge),
        page.clone().prop_map(Deed::Take),
        page.prop_map(Deed::Use),
    ]
}

const PAGES: [u64; 10] = [
    0x5000,
    4 * MIB,
    4 * MIB + 0x1000,
    6 * MIB - 0x1000,
    6 * MIB,
    8 * MIB - 0x1000,
    32 * MIB - 0x1000,
    FAR,
    FAR + 0x3000,
    BEYOND,
];

/// A unit that remembers what it looked up until it is told to forget.
#[derive(Default)]
struct Memorious(BTreeSet<u64>);

impl Memorious {
    fn obey(&mut self, hardware: &mut Fake) {
        let mut page = (0, 0);
        for (at, _, value) in hardware.devices.drain(..) {
            match at - BASE {
                0xf0 => page = (value & !0xfff, 4096 << (value & 0x3f)),
                0xf8 => {
                    assert_eq!(value, 1 << 63 | 3 << 60 | 3 << 48 | 1 << 32);
                    self.0.retain(|at| *at < page.0 || *at >= page.0 + page.1);
                }
                other => panic!("register {other:#x}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn devices_reach_what_the_host_has_and_nothing_else(
        deeds in prop::collection::vec(deed(), 1..60),
    ) {
        let Setup { layout, map, mut pool, mut ram } = setup();
        let reach = Reach::new(&mut pool, &mut ram).unwrap();
        let (remapping, mut hardware) = started(reach);
        let mut entries = vec![Entry::HYPERVISOR; usize::try_from(RAM / 4096).unwrap()];
        let mut seats = [Seat::EMPTY];
        let mut owned =
            Ownership::new(&mut entries, &mut seats, Levels::Five, Some(remapping), pool);
        let Ownership { rmp, pool, .. } = &mut owned;
        // As after a launch: a page is the guest's already.
        rmp.rmpupdate(0x5000, NewState::guest(ASID, 0x5000, PageSize::Size4K)).unwrap();
        reach.open_shared(&map, rmp, pool, &mut ram).unwrap();
        let home = |gpa: u64| map.resolve(Gpa::new(gpa).unwrap()).unwrap().0;
        let mut memorious = Memorious::default();
        for deed in deeds {
            let is_hosts = |owned: &Ownership<'_>, gpa: u64| super::is_hosts(&owned.rmp, home(gpa));
            let (gpa, new) = match deed {
                Deed::Give(page) => (PAGES[page], NewState::guest(ASID, PAGES[page], PageSize::Size4K)),
                Deed::GiveLarge(page) => {
                    let gpa = PAGES[page] & !(2 * MIB - 1);
                    (gpa, NewState::guest(ASID, gpa, PageSize::Size2M))
                }
                Deed::Take(page) => {
                    let at = home(PAGES[page]).as_u64();
                    if owned.rmp.entry(at).unwrap().size() == PageSize::Size2M {
                        owned.rmp.psmash(at & !(2 * MIB - 1)).unwrap();
                    }
                    (PAGES[page], NewState::HYPERVISOR)
                }
                Deed::Use(page) => {
                    if reach.home(PAGES[page], &ram).unwrap().is_some() {
                        memorious.0.insert(PAGES[page]);
                    }
                    continue;
                }
            };
            // The caller's part: a whole large page is there, and all of it is the host's.
            let fits = new.size == PageSize::Size4K || gpa < 32 * MIB && gpa > 0;
            let mut pages = (0..new.size.bytes()).step_by(4096);
            if !fits || new.assigned && !pages.all(|offset| is_hosts(&owned, gpa + offset)) {
                continue;
            }
            owned.assign(gpa, home(gpa), new, ENCRYPTION, &mut ram, &mut hardware);
            memorious.obey(&mut hardware);
            for gpa in PAGES {
                let reached = gpa != BEYOND && is_hosts(&owned, gpa);
                let expected = reached.then(|| home(gpa).as_u64());
                prop_assert_eq!(reach.home(gpa, &ram), Ok(expected));
                prop_assert!(expected.is_some() || !memorious.0.contains(&gpa), "{:#x}", gpa);
            }
            let own = [layout.own.start(), reach.root(), layout.own.end().page()];
            for at in own.map(Hpa::as_u64).into_iter().chain([34 * MIB]) {
                prop_assert_eq!(reach.home(at, &ram), Ok(None));
            }
        }
    }
}

//! The core protocol on the model of the hardware: what a guest asks for, and what it then has.

use crate::model::{GUEST, LARGE, Map, Model, SMALL, SVSM, gpa};
use proptest::prelude::*;
use svsm_platform::irq::NoIrq;
use svsm_platform::level::Vmpl;
use svsm_protocol::{Core, Dispatcher, Protocol, Registers, Registry, Vcpu};
use svsm_sim::rmp::Access;

const FEATURES: u64 = 1;

const SUCCESS: u64 = 0;
const INCOMPLETE: u64 = 0x8000_0000;
const INVALID_ADDRESS: u64 = 0x8000_0003;
const INVALID_PARAMETER: u64 = 0x8000_0005;
const INVALID_REQUEST: u64 = 0x8000_0006;
const BUSY: u64 = 0x8000_0007;
const IN_USE: u64 = 0x8000_1003;

const REMAP: u64 = 0;
const PVALIDATE: u64 = 1;
const CREATE: u64 = 2;
const DELETE: u64 = 3;
const DEPOSIT: u64 = 4;
const WITHDRAW: u64 = 5;
const VTOM: u64 = 7;

const FIRST_AREA: u64 = SVSM.start + SMALL;
const FIRST_CALLING: u64 = 0x3000;
const LIST: u64 = 0x5000;

struct Bench<'m> {
    model: Model,
    registry: Registry<'m, NoIrq>,
}

impl<'m> Bench<'m> {
    fn new(slots: &'m mut [Option<Vcpu>]) -> Self {
        let registry = Registry::new(slots, &[0, 1, 4], FEATURES, NoIrq);
        registry
            .add_first(Vcpu {
                processor: 0,
                level: Vmpl::Vmpl2,
                save_area: gpa(FIRST_AREA),
                calling_area: gpa(FIRST_CALLING),
                is_first: false,
            })
            .unwrap();
        Self {
            model: Model::new(),
            registry,
        }
    }

    /// A call of the first virtual CPU.
    fn call(&mut self, call: u64, rcx: u64, rdx: u64, r8: u64) -> Registers {
        let vcpu = self.registry.of_processor(0).unwrap();
        let mut core = Core::new(&self.registry, &Map, &mut self.model, vcpu);
        let mut registers = Registers {
            rax: call,
            rcx,
            rdx,
            r8,
            r9: 9,
        };
        Dispatcher::new([&mut core as &mut dyn Protocol])
            .unwrap()
            .dispatch(&mut registers);
        registers
    }

    fn validate(&mut self, entries: &[u64]) -> u64 {
        self.model.list(LIST, 0, entries);
        self.call(PVALIDATE, LIST, 0, 0).rax
    }
}

fn slots() -> [Option<Vcpu>; 4] {
    [None; 4]
}

const VALIDATE: u64 = 1 << 2;
const IGNORE: u64 = 1 << 3;

#[test]
fn a_page_goes_and_comes_back_empty() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    for (at, size) in [(0x8000, 0), (3 * LARGE, 1)] {
        assert_eq!(bench.validate(&[at | size]), SUCCESS);
        assert_eq!(bench.model.next(LIST), 1);
        assert_eq!(bench.model.flushes, 1, "rights were taken");
        for level in 0..4 {
            assert!(!bench.model.may(level, at, Access::READ));
        }
        assert_eq!(bench.validate(&[at | size | VALIDATE]), SUCCESS);
        assert_eq!(bench.model.flushes, 1, "nothing was taken");
        assert_eq!(bench.model.word(at), 0, "no old contents");
        for (level, may) in [(1, false), (2, true), (3, true)] {
            for access in [Access::READ, Access::WRITE] {
                assert_eq!(bench.model.may(level, at, access), may, "{level}");
            }
        }
        bench.model.flushes = 0;
    }
}

#[test]
fn a_list_stops_at_its_first_bad_entry_and_says_where() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    for (bad, code) in [
        (0x9002, INVALID_PARAMETER),
        (0x9003, INVALID_PARAMETER),
        (0x9010, INVALID_PARAMETER),
        (0x9800, INVALID_PARAMETER),
        (0x9001 | VALIDATE, INVALID_PARAMETER),
        (SVSM.start, INVALID_ADDRESS),
        (FIRST_AREA, INVALID_ADDRESS),
        (1 << 51 | 0x9000, INVALID_ADDRESS),
        (!0xfff, INVALID_ADDRESS),
        // Valid already.
        (0x9000 | VALIDATE, 0x8000_1010),
        // Small pages in a large one, and one large page of small ones.
        (2 * LARGE + SMALL, 0x8000_1001),
        (1, 0x8000_1006),
    ] {
        assert_eq!(bench.validate(&[0x8000, bad, 0xa000]), code, "{bad:#x}");
        assert_eq!(bench.model.next(LIST), 1);
        assert!(
            bench.model.may(2, 0xa000, Access::READ),
            "the rest is as it was"
        );
        // From where it stopped, and on.
        bench.model.list(LIST, 1, &[bad, 0x8000 | VALIDATE]);
        assert_eq!(bench.call(PVALIDATE, LIST, 0, 0).rax, SUCCESS);
    }
    assert_eq!(bench.validate(&[0x9000 | VALIDATE | IGNORE]), SUCCESS);
    assert_eq!(bench.model.word(0x9000), 0);
}

#[test]
fn a_list_is_where_a_list_can_be() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    for (at, code) in [
        (LIST + 4, INVALID_PARAMETER),
        (!7, INVALID_ADDRESS),
        (SVSM.start, INVALID_ADDRESS),
        (FIRST_AREA + 8, INVALID_ADDRESS),
        (GUEST.end + LARGE, INVALID_ADDRESS),
    ] {
        assert_eq!(bench.call(PVALIDATE, at, 0, 0).rax, code, "{at:#x}");
    }
    for (count, next) in [(0, 0), (1, 1), (512, 0), (2, 3)] {
        bench.model.list(LIST, next, &vec![0x8000; count]);
        assert_eq!(bench.call(PVALIDATE, LIST, 0, 0).rax, INVALID_PARAMETER);
    }
    // As many as fit.
    let entries = vec![0x8000 | VALIDATE | IGNORE; 511];
    assert_eq!(bench.validate(&entries), SUCCESS);
    // One less behind the calling area's header.
    bench.model.list(LIST + 8, 0, &entries);
    assert_eq!(bench.call(PVALIDATE, LIST + 8, 0, 0).rax, INVALID_PARAMETER);
    // A list in memory that the guest has given away.
    assert_eq!(bench.validate(&[0x6000]), SUCCESS);
    assert_eq!(bench.call(PVALIDATE, 0x6000, 0, 0).rax, INVALID_ADDRESS);
}

#[test]
fn long_work_is_done_in_pieces() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    let entries: Vec<u64> = (1..21).map(|n| (n * LARGE) | 1).collect();
    assert_eq!(bench.validate(&entries), INCOMPLETE);
    assert_eq!(bench.model.next(LIST), 16);
    assert_eq!(bench.call(PVALIDATE, LIST, 0, 0).rax, SUCCESS);
    assert_eq!(bench.model.next(LIST), 20);
}

#[test]
fn calling_areas_move_and_never_overlap() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    bench.model.put(0x4000, &[1]);
    assert_eq!(bench.call(REMAP, 0x4000, 0, 0).rax, SUCCESS);
    assert_eq!(
        bench.model.word(0x4000) & 0xff,
        0,
        "no call is pending there"
    );
    let now = bench.registry.of_processor(0).unwrap();
    assert_eq!(now.calling_area, gpa(0x4000));
    assert_eq!(bench.call(REMAP, 0x4000, 0, 0).rax, SUCCESS, "to itself");

    bench.model.save_area(0x11000, 2, 0x1000, FEATURES);
    assert_eq!(bench.call(CREATE, 0x11000, 0x12000, 4).rax, SUCCESS);
    for (at, code) in [
        (0x4008, INVALID_PARAMETER),
        (SVSM.start, INVALID_ADDRESS),
        (FIRST_AREA, INVALID_ADDRESS),
        (0x11000, INVALID_ADDRESS),
        (0x12000, INVALID_ADDRESS),
        (GUEST.end + 16 * LARGE, INVALID_ADDRESS),
    ] {
        assert_eq!(bench.call(REMAP, at, 0, 0).rax, code, "{at:#x}");
    }
    // Nor where there is no memory any more.
    assert_eq!(bench.validate(&[0x6000]), SUCCESS);
    assert_eq!(bench.call(REMAP, 0x6000, 0, 0).rax, INVALID_ADDRESS);
}

#[test]
fn registers_are_judged_when_nobody_can_change_them() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    let area = 0x11000;
    for (level, efer, features) in [
        (0, 0x1000, FEATURES),
        (1, 0x1000, FEATURES),
        (4, 0x1000, FEATURES),
        (2, 0, FEATURES),
        (2, 0x1000, FEATURES | 8),
    ] {
        bench.model.save_area(area, level, efer, features);
        assert_eq!(bench.call(CREATE, area, 0x12000, 4).rax, INVALID_PARAMETER);
        assert!(
            bench.model.may(2, area, Access::WRITE),
            "the page is as it was"
        );
        assert!(!bench.model.may(1, area, Access::READ));
    }
    bench.model.save_area(area, 3, 0x1000, FEATURES);
    for (save, calling, cpu, code) in [
        (area + 8, 0x12000, 4, INVALID_PARAMETER),
        (area, 0x12008, 4, INVALID_PARAMETER),
        (LARGE, 0x12000, 4, INVALID_PARAMETER),
        (area, 0x12000, 2, INVALID_PARAMETER),
        (area, area, 4, INVALID_ADDRESS),
        (FIRST_AREA, 0x12000, 4, INVALID_ADDRESS),
        (area, FIRST_CALLING, 4, INVALID_ADDRESS),
        (FIRST_CALLING, 0x12000, 4, INVALID_ADDRESS),
        (area, SVSM.start, 4, INVALID_ADDRESS),
    ] {
        assert_eq!(
            bench.call(CREATE, save, calling, cpu).rax,
            code,
            "{save:#x} {calling:#x}"
        );
    }
    assert_eq!(bench.call(CREATE, area, 0x12000, 4 | 7 << 32).rax, SUCCESS);
    let made = bench.registry.of_processor(4).unwrap();
    assert_eq!((made.level, made.save_area), (Vmpl::Vmpl3, gpa(area)));
    assert!(bench.model.rmp().entry(area).unwrap().is_vmsa());
    for level in 1..4 {
        assert!(!bench.model.may(level, area, Access::WRITE));
    }
    assert!(
        bench.model.may(3, area, Access::READ),
        "Linux reads it back"
    );
    // Neither it nor its page can be had twice, nor be validated or invalidated.
    assert_eq!(bench.call(CREATE, area, 0x13000, 1).rax, INVALID_ADDRESS);
    for entry in [area, area | VALIDATE | IGNORE] {
        assert_eq!(bench.validate(&[entry]), INVALID_ADDRESS);
    }
}

#[test]
fn virtual_cpus_go_when_they_rest() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    let area = 0x11000;
    bench.model.save_area(area, 2, 0x1000, FEATURES);
    assert_eq!(bench.call(CREATE, area, 0x12000, 4).rax, SUCCESS);
    bench.model.running.push(area);
    assert_eq!(bench.call(DELETE, area, 0, 0).rax, IN_USE);
    assert_eq!(bench.model.word(area + 0xd0), 0x1000, "it goes on");
    bench.model.running.clear();
    for (at, code) in [
        (area + 8, INVALID_PARAMETER),
        (FIRST_AREA, INVALID_PARAMETER),
        (0x12000, INVALID_PARAMETER),
    ] {
        assert_eq!(bench.call(DELETE, at, 0, 0).rax, code);
    }
    assert_eq!(bench.call(DELETE, area, 0, 0).rax, SUCCESS);
    assert!(bench.registry.of_processor(4).is_none());
    assert!(!bench.model.rmp().entry(area).unwrap().is_vmsa());
    assert!(bench.model.may(2, area, Access::WRITE));

    // A processor's newest one counts; there is room for so many and no more.
    for n in 0..3 {
        let area = 0x21000 + n * 0x2000;
        bench.model.save_area(area, 2, 0x1000, FEATURES);
        assert_eq!(bench.call(CREATE, area, area + SMALL, 1).rax, SUCCESS);
        assert_eq!(bench.registry.of_processor(1).unwrap().save_area, gpa(area));
    }
    let nth = |n| Some(bench.registry.nth_of_processor(1, n)?.save_area);
    let all: Vec<_> = (0..4).map(nth).collect();
    let expected = [0x25000, 0x23000, 0x21000].map(|at| Some(gpa(at)));
    assert_eq!(all, [&expected[..], &[None]].concat());
    bench.model.save_area(0x41000, 2, 0x1000, FEATURES);
    assert_eq!(bench.call(CREATE, 0x41000, 0x42000, 1).rax, BUSY);
    assert!(bench.model.may(2, 0x41000, Access::WRITE));
}

#[test]
fn memory_is_neither_taken_nor_owed() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots);
    bench.model.list(LIST, 0, &[0x8000]);
    assert_eq!(bench.call(DEPOSIT, LIST, 0, 0).rax, INVALID_REQUEST);
    assert_eq!(bench.call(WITHDRAW, LIST, 0, 0).rax, SUCCESS);
    assert_eq!(bench.model.word(LIST) & 0xffff, 0);
    assert_eq!(
        bench.call(WITHDRAW, LIST + 0xff8, 0, 0).rax,
        INVALID_PARAMETER
    );
    assert_eq!(bench.call(WITHDRAW, SVSM.start, 0, 0).rax, INVALID_ADDRESS);
    let asked = bench.call(VTOM, 1, 2, 3);
    assert_eq!((asked.rax, asked.rcx, asked.rdx), (SUCCESS, 0, 2));
    assert_eq!(bench.call(VTOM, 3, 0, 0).rax, INVALID_PARAMETER);
    assert_eq!(bench.call(VTOM, 1 << 46 | 2, 0, 0).rax, INVALID_REQUEST);
}

/// Addresses that matter, and some that do not.
fn addresses() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..0x40_u64).prop_map(|n| n * SMALL),
        (0..23_u64).prop_map(|n| n * LARGE),
        (0..17_u64).prop_map(|n| SVSM.start + n * SMALL),
        any::<u64>(),
        (0..0x40_u64, 0..4096_u64).prop_map(|(n, m)| n * SMALL + m),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a guest calls, it gets no right to what is not its own.
    #[test]
    fn no_sequence_of_calls_reaches_what_is_not_the_guests(
        calls in proptest::collection::vec(
            (0..9_u64, addresses(), addresses(), 0..6_u64, proptest::collection::vec((addresses(), 0..16_u64), 0..6), 0..4_u8),
            1..24,
        ),
    ) {
        let mut slots = slots();
        let mut bench = Bench::new(&mut slots);
        for (call, rcx, rdx, r8, entries, level) in calls {
            let words: Vec<u64> = entries.iter().map(|(at, bits)| at & !0xfff | bits).collect();
            // The guest writes what it can.
            if bench.model.may(2, LIST, Access::WRITE) {
                bench.model.list(LIST, 0, &words);
            }
            let in_guest = rcx < GUEST.end && rcx.is_multiple_of(SMALL);
            if in_guest && bench.model.may(2, rcx, Access::WRITE) && call == CREATE {
                bench.model.save_area(rcx, level, 0x1000, FEATURES);
            }
            let rcx = if call == PVALIDATE { LIST } else { rcx };
            let _ = bench.call(call, rcx, rdx, r8);
            for at in SVSM.step_by(4096) {
                for level in 1..4 {
                    prop_assert!(!bench.model.may(level, at, Access::READ));
                }
            }
            for processor in [0, 1, 4] {
                let Some(vcpu) = bench.registry.of_processor(processor) else { continue };
                let area = vcpu.save_area.as_u64();
                for level in 1..4 {
                    prop_assert!(!bench.model.may(level, area, Access::WRITE));
                }
                prop_assert!(vcpu.level != Vmpl::Vmpl0 && vcpu.level != Vmpl::Vmpl1);
                prop_assert_ne!(vcpu.calling_area, vcpu.save_area);
            }
            for at in (0..LARGE).step_by(4096) {
                prop_assert!(!bench.model.may(1, at, Access::READ), "the guest is at level 2");
            }
        }
    }
}

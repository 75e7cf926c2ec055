use std::{collections::BTreeMap, vec::Vec};

use proptest::prelude::*;
use svsm_platform::{percpu::CpuIndex, seam::Ticks};

use super::{Leave, Scheduler, State, TaskId, TaskState};
use crate::abi::SysError;

const CPU0: CpuIndex = CpuIndex::new(0);
const CPU1: CpuIndex = CpuIndex::new(1);
const SLEEP: Leave = Leave::Sleep { deadline: None };

fn on<const CPUS: usize>() -> Scheduler<u32, 8, CPUS> {
    let mut scheduler = Scheduler::new();
    for cpu in (0..).map(CpuIndex::new).take(CPUS) {
        scheduler.online(cpu).unwrap();
    }
    scheduler
}

/// Both halves of a switch; who runs next.
fn switch<const CPUS: usize>(
    scheduler: &mut Scheduler<u32, 8, CPUS>,
    cpu: CpuIndex,
    why: Leave,
) -> Option<TaskId> {
    if scheduler.leave(cpu, why) {
        let next = scheduler.pick(cpu);
        scheduler.switched(cpu);
        next.or_else(|| scheduler.pick(cpu))
    } else {
        scheduler.running(cpu)
    }
}

#[test]
fn tasks_take_turns() {
    let mut scheduler = on::<1>();
    let (a, _) = scheduler.spawn(1, None).unwrap();
    let (b, _) = scheduler.spawn(2, None).unwrap();
    assert_eq!(scheduler.pick(CPU0), Some(a));
    assert_eq!(switch(&mut scheduler, CPU0, Leave::Yield), Some(b));
    assert_eq!(switch(&mut scheduler, CPU0, Leave::Yield), Some(a));
    assert_eq!(switch(&mut scheduler, CPU0, SLEEP), Some(b));
    assert!(!scheduler.leave(CPU0, Leave::Yield), "nobody else is there");
    assert_eq!(scheduler.state(a), Some(TaskState::Asleep));
}

#[test]
fn new_tasks_spread_over_the_cpus() {
    let mut scheduler = on::<4>();
    let cpus: Vec<usize> = (0..8)
        .map(|n| scheduler.spawn(n, None).unwrap().1.as_usize())
        .collect();
    assert_eq!(cpus, [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(scheduler.spawn(9, None), Err(9));
}

#[test]
fn a_cpu_without_work_takes_some_from_the_busiest() {
    let mut scheduler = on::<2>();
    let tasks: Vec<TaskId> = (0..6)
        .map(|n| scheduler.spawn(n, None).unwrap().0)
        .collect();
    assert_eq!(scheduler.pick(CPU0), Some(tasks[0]));
    let taken: Vec<Option<TaskId>> = (0..4)
        .map(|_| {
            let next = scheduler.pick(CPU1);
            assert!(scheduler.leave(CPU1, Leave::Exit { code: 0 }));
            assert_eq!(scheduler.switched(CPU1), None);
            next
        })
        .collect();
    assert_eq!(taken, [1, 3, 5, 4].map(|n| Some(tasks[n])));
}

#[test]
fn nobody_picks_a_task_that_still_stands_on_its_stack() {
    let mut scheduler = on::<2>();
    let (task, _) = scheduler.spawn(1, None).unwrap();
    let (other, _) = scheduler.spawn(2, None).unwrap();
    assert_eq!(
        (scheduler.pick(CPU0), scheduler.pick(CPU1)),
        (Some(task), Some(other))
    );
    assert!(scheduler.leave(CPU0, SLEEP));
    assert_eq!(scheduler.wake(task), None);
    assert!(scheduler.leave(CPU1, SLEEP));
    assert_eq!(scheduler.pick(CPU1), None, "woken, but not off its stack");
    assert_eq!(scheduler.switched(CPU0), Some(CPU0));
    assert_eq!(scheduler.pick(CPU1), Some(task));
}

#[test]
fn a_wake_up_before_the_sleep_is_not_lost() {
    let mut scheduler = on::<1>();
    let (task, _) = scheduler.spawn(1, None).unwrap();
    assert_eq!(scheduler.pick(CPU0), Some(task));
    assert_eq!(scheduler.wake(task), None);
    assert!(!scheduler.leave(CPU0, SLEEP));
    assert!(scheduler.leave(CPU0, SLEEP), "one wake-up, one sleep");
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let mut scheduler = on::<1>();
    let deadlines = [30, 10, 20, 10];
    for deadline in deadlines {
        let (task, _) = scheduler.spawn(deadline, None).unwrap();
        assert_eq!(scheduler.pick(CPU0), Some(task));
        assert!(scheduler.leave(
            CPU0,
            Leave::Sleep {
                deadline: Some(Ticks::new(deadline.into()))
            }
        ));
        scheduler.switched(CPU0);
    }
    assert_eq!(scheduler.next_deadline(), Some(Ticks::new(10)));
    assert_eq!(scheduler.expire(Ticks::new(9)), None);
    let mut woken = Vec::new();
    while scheduler.expire(Ticks::new(25)).is_some() {
        let task = scheduler.pick(CPU0).unwrap();
        woken.push(*scheduler.payload(task).unwrap());
        assert!(scheduler.leave(CPU0, Leave::Exit { code: 0 }));
        scheduler.switched(CPU0);
    }
    assert_eq!(woken, [10, 10, 20]);
    assert_eq!(scheduler.next_deadline(), Some(Ticks::new(30)));
}

#[test]
fn an_early_wake_up_ends_the_deadline() {
    let mut scheduler = on::<1>();
    let (task, _) = scheduler.spawn(1, None).unwrap();
    assert_eq!(scheduler.pick(CPU0), Some(task));
    assert!(scheduler.leave(
        CPU0,
        Leave::Sleep {
            deadline: Some(Ticks::new(5))
        }
    ));
    scheduler.switched(CPU0);
    assert_eq!(scheduler.wake(task), Some(CPU0));
    assert_eq!(scheduler.next_deadline(), None);
    assert_eq!(scheduler.expire(Ticks::new(9)), None);
}

#[test]
fn parents_learn_exit_codes_once() {
    let mut scheduler = on::<1>();
    let (parent, _) = scheduler.spawn(1, None).unwrap();
    assert_eq!(scheduler.pick(CPU0), Some(parent));
    let (child, _) = scheduler.spawn(2, Some(parent)).unwrap();
    assert_eq!(scheduler.reap(parent, child), Ok(None));
    assert_eq!(switch(&mut scheduler, CPU0, SLEEP), Some(child));
    assert!(scheduler.leave(CPU0, Leave::Exit { code: 7 }));
    assert_eq!(scheduler.pick(CPU0), None);
    assert_eq!(scheduler.switched(CPU0), Some(CPU0), "the parent is woken");
    assert_eq!(scheduler.pick(CPU0), Some(parent));
    assert_eq!(scheduler.reap(child, child), Err(SysError::NOT_FOUND));
    assert_eq!(scheduler.reap(parent, child), Ok(Some((7, 2))));
    assert_eq!(scheduler.reap(parent, child), Err(SysError::NOT_FOUND));
    assert_eq!(scheduler.state(child), None);
}

#[test]
fn orphans_leave_what_was_kept_for_them() {
    let mut scheduler = on::<1>();
    let (parent, _) = scheduler.spawn(1, None).unwrap();
    let (ended, _) = scheduler.spawn(2, Some(parent)).unwrap();
    let (left, _) = scheduler.spawn(3, Some(parent)).unwrap();
    assert_eq!(scheduler.pick(CPU0), Some(parent));
    assert_eq!(switch(&mut scheduler, CPU0, Leave::Yield), Some(ended));
    assert_eq!(
        switch(&mut scheduler, CPU0, Leave::Exit { code: 0 }),
        Some(left)
    );
    assert_eq!(scheduler.reap_orphan(), None);
    assert_eq!(switch(&mut scheduler, CPU0, Leave::Yield), Some(parent));
    assert_eq!(
        switch(&mut scheduler, CPU0, Leave::Exit { code: 0 }),
        Some(left)
    );
    let mut payloads: Vec<u32> = core::iter::from_fn(|| scheduler.reap_orphan()).collect();
    payloads.sort_unstable();
    assert_eq!(payloads, [1, 2]);
    assert_eq!(switch(&mut scheduler, CPU0, Leave::Exit { code: 0 }), None);
    assert_eq!(scheduler.reap_orphan(), Some(3));
    assert!(scheduler.is_empty());
}

#[test]
fn a_disowned_child_is_an_orphan_whether_it_runs_or_has_ended() {
    let mut scheduler = on::<1>();
    let (parent, _) = scheduler.spawn(1, None).unwrap();
    let (ended, _) = scheduler.spawn(2, Some(parent)).unwrap();
    let (left, _) = scheduler.spawn(3, Some(parent)).unwrap();
    assert_eq!(scheduler.pick(CPU0), Some(parent));
    assert_eq!(switch(&mut scheduler, CPU0, Leave::Yield), Some(ended));
    assert_eq!(
        switch(&mut scheduler, CPU0, Leave::Exit { code: 0 }),
        Some(left)
    );
    assert_eq!(scheduler.disown(left, ended), Err(SysError::NOT_FOUND));
    scheduler.disown(parent, ended).unwrap();
    scheduler.disown(parent, left).unwrap();
    assert_eq!(scheduler.disown(parent, left), Err(SysError::NOT_FOUND));
    assert_eq!(scheduler.reap(parent, ended), Err(SysError::NOT_FOUND));
    assert_eq!(scheduler.reap_orphan(), Some(2));
    assert_eq!(scheduler.reap_orphan(), None, "the other one still runs");
    assert_eq!(
        switch(&mut scheduler, CPU0, Leave::Exit { code: 0 }),
        Some(parent)
    );
    assert_eq!(scheduler.reap_orphan(), Some(3));
}

#[derive(Clone, Debug)]
enum Step {
    Spawn { by: CpuIndex },
    Leave { cpu: CpuIndex, why: Leave },
    Pick { cpu: CpuIndex },
    Switched { cpu: CpuIndex },
    Wake { task: prop::sample::Index },
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let cpu = (0..3_u32).prop_map(CpuIndex::new);
    let why = prop_oneof![
        Just(Leave::Yield),
        proptest::option::of(0..50_u64).prop_map(|at| Leave::Sleep {
            deadline: at.map(Ticks::new)
        }),
        Just(Leave::Exit { code: 1 }),
    ];
    prop_oneof![
        2 => cpu.clone().prop_map(|by| Step::Spawn { by }),
        4 => (cpu.clone(), why).prop_map(|(cpu, why)| Step::Leave { cpu, why }),
        6 => cpu.clone().prop_map(|cpu| Step::Pick { cpu }),
        6 => cpu.prop_map(|cpu| Step::Switched { cpu }),
        2 => any::<prop::sample::Index>().prop_map(|task| Step::Wake { task }),
        1 => Just(Step::Expire),
    ]
}

/// Every task is in exactly the place that its state says.
fn check(scheduler: &Scheduler<u32, 8, 3>) {
    let mut places = BTreeMap::<u16, Vec<State>>::new();
    for cpu in &scheduler.cpus {
        for number in scheduler.links.iter(&cpu.queue) {
            places.entry(number).or_default().push(State::Ready);
        }
        if let Some(number) = cpu.running {
            places.entry(number).or_default().push(State::Running);
        }
        if let Some(number) = cpu.leaving {
            places
                .entry(number)
                .or_default()
                .push(scheduler.tasks[usize::from(number)].state);
        }
    }
    let mut deadlines = Vec::new();
    for number in scheduler.links.iter(&scheduler.sleepers) {
        let task = &scheduler.tasks[usize::from(number)];
        assert_eq!(task.state, State::Asleep);
        deadlines.push(task.deadline.unwrap());
    }
    assert!(deadlines.is_sorted());
    let mut sleepers = 0;
    let mut orphans = 0;
    for (number, task) in (0_u16..).zip(&scheduler.tasks) {
        let place = places.remove(&number).unwrap_or_default();
        match task.state {
            State::Ready | State::Running | State::Leaving(_) => assert_eq!(place, [task.state]),
            State::Free | State::Asleep | State::Ended(_) => assert!(place.is_empty()),
        }
        sleepers += usize::from(task.deadline.is_some());
        orphans += usize::from(matches!(task.state, State::Ended(_)) && task.parent.is_none());
        assert_eq!(task.payload.is_some(), task.state != State::Free);
    }
    assert_eq!((sleepers, orphans), (deadlines.len(), scheduler.orphans));
}

proptest! {
    #[test]
    fn every_task_is_in_one_place(steps in proptest::collection::vec(step(), 0..300)) {
        let mut scheduler = on::<3>();
        let mut leaving = [false; 3];
        let (mut tasks, mut now) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Spawn { by } => {
                    let parent = scheduler.running(by);
                    tasks.extend(scheduler.spawn(0, parent).ok().map(|(task, _)| task));
                }
                // A CPU is between `leave` and `switched` once at a time.
                Step::Leave { cpu, why } if !leaving[cpu.as_usize()] => leaving[cpu.as_usize()] = scheduler.leave(cpu, why),
                Step::Leave { .. } => {}
                Step::Pick { cpu } => {
                    let had = scheduler.running(cpu);
                    let picked = scheduler.pick(cpu);
                    prop_assert!(had.is_none() || picked.is_none());
                }
                Step::Switched { cpu } => {
                    scheduler.switched(cpu);
                    leaving[cpu.as_usize()] = false;
                }
                Step::Wake { task } => {
                    if !tasks.is_empty() {
                        scheduler.wake(*task.get(&tasks));
                    }
                }
                Step::Expire => {
                    now += 5;
                    while scheduler.expire(Ticks::new(now)).is_some() {}
                    prop_assert!(scheduler.next_deadline().is_none_or(|next| next > Ticks::new(now)));
                }
            }
            check(&scheduler);
            while scheduler.reap_orphan().is_some() {}
        }
    }

    #[test]
    fn no_wake_up_is_lost(steps in proptest::collection::vec(step(), 0..200)) {
        let mut scheduler = on::<3>();
        let (task, _) = scheduler.spawn(0, None).unwrap();
        let mut leaving = [false; 3];
        for step in steps {
            match step {
                Step::Leave { cpu, why: why @ (Leave::Yield | Leave::Sleep { .. }) } if !leaving[cpu.as_usize()] => {
                    leaving[cpu.as_usize()] = scheduler.leave(cpu, why);
                }
                Step::Pick { cpu } => drop(scheduler.pick(cpu)),
                Step::Switched { cpu } => {
                    scheduler.switched(cpu);
                    leaving[cpu.as_usize()] = false;
                }
                _ => {}
            }
        }
        scheduler.wake(task);
        for cpu in (0..3).map(CpuIndex::new) {
            scheduler.switched(cpu);
        }
        prop_assert_ne!(scheduler.state(task), Some(TaskState::Asleep));
    }
}

use core::fmt;

use svsm_platform::{percpu::CpuIndex, seam::Ticks};

use super::{
    TaskId,
    list::{Links, List},
};
use crate::abi::SysError;

/// Which task runs where: a value that the firmware owns and lends behind a lock that masks
/// interrupts.
///
/// It holds up to `TASKS` tasks on up to `CPUS` CPUs, and with each what the firmware keeps for it
/// (`T`: stack, saved registers, address space). Each CPU has a queue; one whose queue is empty
/// takes from the longest. There is no idle task: a CPU without work runs what the firmware runs
/// there.
///
/// # Switching
/// A task that gives up its CPU still stands on its stack for a moment. So a switch has two halves,
/// and nobody else can pick the task in between:
///
/// 1. under the lock, [`leave`](Self::leave), then [`pick`](Self::pick) who is next;
/// 2. without the lock, interrupts masked, switch stacks ([`super::Context`]); then, on the new
///    stack and under the lock again, [`switched`](Self::switched).
///
/// # Waking
/// [`wake`](Self::wake) of a task that is not asleep is remembered, and its next sleep ends at
/// once. Whoever waits for something therefore looks, sleeps, and looks again, and loses no wake-up
/// in between.
pub struct Scheduler<T, const TASKS: usize, const CPUS: usize> {
    tasks: [Task<T>; TASKS],
    links: Links<TASKS>,
    sleepers: List, // those with a deadline, soonest first
    cpus: [Cpu; CPUS],
    orphans: usize, // ended, and nobody will ask for their exit code
}

struct Task<T> {
    generation: u16,
    state: State,
    payload: Option<T>,
    parent: Option<TaskId>,
    deadline: Option<Ticks>,
    woken: bool,
    cpu: CpuIndex, // where it ran last, or is queued
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Ready,
    Running,
    Leaving(Leave),
    Asleep,
    Ended(u16),
}

#[derive(Debug)]
struct Cpu {
    online: bool,
    queue: List,
    running: Option<u16>,
    leaving: Option<u16>,
}

/// Why a task gives up its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Leave {
    /// Others may run; it goes on later.
    Yield,
    /// It sleeps until somebody wakes it, or until the deadline.
    Sleep {
        /// When it wakes by itself.
        deadline: Option<Ticks>,
    },
    /// It has ended.
    Exit {
        /// What its parent learns.
        code: u16,
    },
}

/// What a task does, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TaskState {
    /// It waits for a CPU.
    Ready,
    /// It runs, or is about to give up its CPU.
    Running,
    /// It sleeps.
    Asleep,
    /// It has ended, and its parent has not asked yet.
    Ended,
}

impl<T, const TASKS: usize, const CPUS: usize> Scheduler<T, TASKS, CPUS> {
    /// No tasks, and no CPU takes any.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(CPUS > 0, "there is a CPU") };
        Self {
            tasks: [const { Task::FREE }; TASKS],
            links: Links::new(),
            sleepers: List::EMPTY,
            cpus: [const {
                Cpu {
                    online: false,
                    queue: List::EMPTY,
                    running: None,
                    leaving: None,
                }
            }; CPUS],
            orphans: 0,
        }
    }

    /// A CPU takes tasks from now on.
    ///
    /// # Errors
    /// [`SysError::INVALID`] if there is no such CPU.
    pub fn online(&mut self, cpu: CpuIndex) -> Result<(), SysError> {
        self.cpu(cpu).ok_or(SysError::INVALID)?.online = true;
        Ok(())
    }

    /// Makes a task that is ready to run, on the CPU with the least to do. Answers with the task
    /// and that CPU, which may have to be told.
    ///
    /// Its parent will ask for its exit code; without one, nobody will.
    ///
    /// # Errors
    /// The payload, if there is no room, or no CPU that takes tasks.
    pub fn spawn(&mut self, payload: T, parent: Option<TaskId>) -> Result<(TaskId, CpuIndex), T> {
        let Some((_, cpu)) = self.least_busy() else {
            return Err(payload);
        };
        let free = (0_u16..)
            .zip(&mut self.tasks)
            .find(|(_, task)| task.state == State::Free);
        let Some((number, task)) = free else {
            return Err(payload);
        };
        task.payload = Some(payload);
        task.parent = parent;
        task.deadline = None;
        task.woken = false;
        task.cpu = cpu;
        let id = TaskId::new(number, task.generation);
        self.enqueue(number);
        Ok((id, cpu))
    }

    /// The task that a CPU runs.
    #[must_use]
    pub fn running(&self, cpu: CpuIndex) -> Option<TaskId> {
        let number = self.cpus.get(cpu.as_usize())?.running?;
        self.tasks
            .get(usize::from(number))
            .map(|task| TaskId::new(number, task.generation))
    }

    /// What the firmware keeps for a task.
    #[must_use]
    pub fn payload(&mut self, task: TaskId) -> Option<&mut T> {
        self.task(task)?.payload.as_mut()
    }

    /// What a task does; `None` if there is no such task any more.
    #[must_use]
    pub fn state(&self, task: TaskId) -> Option<TaskState> {
        let task = self
            .tasks
            .get(task.place())
            .filter(|slot| slot.generation == task.generation())?;
        match task.state {
            State::Free => None,
            State::Ready => Some(TaskState::Ready),
            State::Running | State::Leaving(_) => Some(TaskState::Running),
            State::Asleep => Some(TaskState::Asleep),
            State::Ended(_) => Some(TaskState::Ended),
        }
    }

    /// The task that runs on `cpu` gives it up; `false` if it goes on instead.
    ///
    /// It goes on if it yields and nobody else is there, or if it was woken before it slept.
    /// Otherwise [`pick`](Self::pick) says who is next, and [`switched`](Self::switched) must
    /// follow.
    #[must_use = "a task that gave up its CPU must not go on"]
    pub fn leave(&mut self, cpu: CpuIndex, why: Leave) -> bool {
        let alone = self.has_nothing_else(cpu);
        let Some(place) = self.cpus.get_mut(cpu.as_usize()) else {
            return false;
        };
        // Between `leave` and `switched` nobody else leaves.
        let (Some(number), None) = (place.running, place.leaving) else {
            return false;
        };
        let Some(task) = self.tasks.get_mut(usize::from(number)) else {
            return false;
        };
        match why {
            Leave::Yield if alone => return false,
            Leave::Sleep { .. } if task.woken => {
                task.woken = false;
                return false;
            }
            _ => {}
        }
        task.state = State::Leaving(why);
        place.running = None;
        place.leaving = Some(number);
        true
    }

    /// Gives `cpu`, which runs no task, the next one to run; `None` if there is none.
    #[must_use]
    pub fn pick(&mut self, cpu: CpuIndex) -> Option<TaskId> {
        if self.cpu(cpu)?.running.is_some() {
            return None;
        }
        let number = self.take_from(cpu.as_usize(), List::first).or_else(|| {
            // The last of the longest queue: it would have waited longest, and is least warm there.
            let longest =
                (0..CPUS).max_by_key(|&other| self.cpus.get(other).map(|cpu| cpu.queue.len()))?;
            self.take_from(longest, List::last)
        })?;
        self.cpu(cpu)?.running = Some(number);
        let task = self.tasks.get_mut(usize::from(number))?;
        task.state = State::Running;
        task.cpu = cpu;
        Some(TaskId::new(number, task.generation))
    }

    /// The task that left `cpu` no longer stands on its stack. Answers with a CPU that may have to
    /// be told, if it made a task ready.
    pub fn switched(&mut self, cpu: CpuIndex) -> Option<CpuIndex> {
        let number = self.cpu(cpu)?.leaving.take()?;
        let task = self.tasks.get_mut(usize::from(number))?;
        let State::Leaving(why) = task.state else {
            return None;
        };
        match why {
            Leave::Exit { code } => self.end(number, code),
            Leave::Sleep { deadline } if !core::mem::take(&mut task.woken) => {
                task.state = State::Asleep;
                task.deadline = deadline;
                if let Some(deadline) = deadline {
                    let later =
                        |&other: &u16| self.deadline(other).is_none_or(|other| other > deadline);
                    let after = self.links.iter(&self.sleepers).find(later);
                    self.links.insert(&mut self.sleepers, number, after);
                }
                None
            }
            Leave::Sleep { .. } | Leave::Yield => Some(self.enqueue(number)),
        }
    }

    /// Wakes a task, or keeps it from sleeping next time. Answers with a CPU that may have to be
    /// told, if it made a task ready.
    pub fn wake(&mut self, task: TaskId) -> Option<CpuIndex> {
        let slot = self.task(task)?;
        match slot.state {
            State::Asleep => self.rouse(task.number()),
            State::Free | State::Ended(_) => None,
            _ => {
                slot.woken = true;
                None
            }
        }
    }

    /// Wakes one task whose deadline has passed. Answers with a CPU that may have to be told;
    /// `None` if there is none left.
    pub fn expire(&mut self, now: Ticks) -> Option<CpuIndex> {
        let number = self.sleepers.first()?;
        if self.deadline(number)? > now {
            return None;
        }
        self.rouse(number)
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ticks> {
        self.deadline(self.sleepers.first()?)
    }

    /// The exit code of a child that has ended, and what the firmware kept for it; `None` if it has
    /// not ended yet. Its parent is woken when it does.
    ///
    /// # Errors
    /// [`SysError::NOT_FOUND`] if that is no child of `parent`, or was asked for before.
    pub fn reap(&mut self, parent: TaskId, child: TaskId) -> Result<Option<(u16, T)>, SysError> {
        let task = self
            .task(child)
            .filter(|task| task.parent == Some(parent))
            .ok_or(SysError::NOT_FOUND)?;
        let State::Ended(code) = task.state else {
            return Ok(None);
        };
        Ok(self.free(child.number()).map(|payload| (code, payload)))
    }

    /// Nobody will ask for the exit code of this child: its parent has closed what it would have asked by.
    ///
    /// # Errors
    /// [`SysError::NOT_FOUND`] if that is no child of `parent`.
    pub fn disown(&mut self, parent: TaskId, child: TaskId) -> Result<(), SysError> {
        let task = self
            .task(child)
            .filter(|task| task.parent == Some(parent))
            .ok_or(SysError::NOT_FOUND)?;
        task.parent = None;
        if matches!(task.state, State::Ended(_)) {
            self.orphans += 1;
        }
        Ok(())
    }

    /// What the firmware kept for a task that has ended and whose exit code nobody will ask for;
    /// `None` if there is none.
    pub fn reap_orphan(&mut self) -> Option<T> {
        if self.orphans == 0 {
            return None;
        }
        let ended = |task: &Task<T>| matches!(task.state, State::Ended(_)) && task.parent.is_none();
        let (number, _) = (0_u16..).zip(&self.tasks).find(|(_, task)| ended(task))?;
        self.orphans -= 1;
        self.free(number)
    }

    /// How many tasks there are, ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks
            .iter()
            .filter(|task| task.state != State::Free)
            .count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T, const TASKS: usize, const CPUS: usize> Scheduler<T, TASKS, CPUS> {
    fn task(&mut self, task: TaskId) -> Option<&mut Task<T>> {
        self.tasks
            .get_mut(task.place())
            .filter(|slot| slot.generation == task.generation() && slot.state != State::Free)
    }

    fn deadline(&self, number: u16) -> Option<Ticks> {
        self.tasks.get(usize::from(number))?.deadline
    }

    fn cpu(&mut self, cpu: CpuIndex) -> Option<&mut Cpu> {
        self.cpus.get_mut(cpu.as_usize())
    }

    /// How much a CPU has to do; `None` if it takes no tasks.
    fn load(&self, cpu: CpuIndex) -> Option<usize> {
        let cpu = self.cpus.get(cpu.as_usize()).filter(|cpu| cpu.online)?;
        Some(cpu.queue.len() + usize::from(cpu.running.is_some()))
    }

    /// The CPU with the least to do, and how much that is.
    fn least_busy(&self) -> Option<(usize, CpuIndex)> {
        let cpus = (0..).map(CpuIndex::new).take(CPUS);
        cpus.filter_map(|cpu| Some((self.load(cpu)?, cpu))).min()
    }

    fn has_nothing_else(&self, cpu: CpuIndex) -> bool {
        self.cpus
            .get(cpu.as_usize())
            .is_none_or(|cpu| cpu.queue.len() == 0)
    }

    /// Makes a task ready: where it ran last, unless only another CPU has nothing to do.
    fn enqueue(&mut self, number: u16) -> CpuIndex {
        let last = self
            .tasks
            .get(usize::from(number))
            .map_or(CpuIndex::BOOT, |task| task.cpu);
        let cpu = match (self.load(last), self.least_busy()) {
            (Some(1..) | None, Some((0, idle))) => idle,
            _ => last,
        };
        if let Some(task) = self.tasks.get_mut(usize::from(number)) {
            task.state = State::Ready;
            task.cpu = cpu;
        }
        if let Some(place) = self.cpus.get_mut(cpu.as_usize()) {
            self.links.insert(&mut place.queue, number, None);
        }
        cpu
    }

    fn take_from(&mut self, cpu: usize, which: fn(&List) -> Option<u16>) -> Option<u16> {
        let queue = &mut self.cpus.get_mut(cpu)?.queue;
        let number = which(queue)?;
        self.links.remove(queue, number);
        Some(number)
    }

    fn rouse(&mut self, number: u16) -> Option<CpuIndex> {
        let task = self.tasks.get_mut(usize::from(number))?;
        if task.deadline.take().is_some() {
            self.links.remove(&mut self.sleepers, number);
        }
        Some(self.enqueue(number))
    }

    /// A task has ended and left its stack. Its children lose their parent; its own parent is
    /// woken.
    fn end(&mut self, number: u16, code: u16) -> Option<CpuIndex> {
        let task = self.tasks.get_mut(usize::from(number))?;
        task.state = State::Ended(code);
        let (id, parent) = (TaskId::new(number, task.generation), task.parent);
        for child in self
            .tasks
            .iter_mut()
            .filter(|child| child.parent == Some(id))
        {
            child.parent = None;
            self.orphans += usize::from(matches!(child.state, State::Ended(_)));
        }
        if parent.is_none() {
            self.orphans += 1;
        }
        self.wake(parent?)
    }

    fn free(&mut self, number: u16) -> Option<T> {
        let task = self.tasks.get_mut(usize::from(number))?;
        task.state = State::Free;
        task.generation = task.generation.wrapping_add(1) & TaskId::GENERATIONS;
        task.parent = None;
        task.payload.take()
    }
}

impl<T> Task<T> {
    const FREE: Self = Self {
        generation: 0,
        state: State::Free,
        payload: None,
        parent: None,
        deadline: None,
        woken: false,
        cpu: CpuIndex::BOOT,
    };
}

impl<T, const TASKS: usize, const CPUS: usize> Default for Scheduler<T, TASKS, CPUS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const TASKS: usize, const CPUS: usize> fmt::Debug for Scheduler<T, TASKS, CPUS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = (0_u16..)
            .zip(&self.tasks)
            .filter(|(_, task)| task.state != State::Free);
        let entry = |(number, task): (u16, &Task<T>)| {
            (TaskId::new(number, task.generation), (task.state, task.cpu))
        };
        f.debug_map().entries(tasks.map(entry)).finish()
    }
}

#[cfg(test)]
mod tests;

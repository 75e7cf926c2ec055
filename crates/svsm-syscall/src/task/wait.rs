use svsm_platform::seam::Ticks;

use super::TaskId;
use crate::abi::SysError;

/// What objects need of a scheduler: the seam through which they make callers wait.
///
/// A firmware implements it over its [`Scheduler`](super::Scheduler) and the switch; tests do
/// without either.
pub trait Sched {
    /// The task that calls.
    fn current(&self) -> TaskId;

    /// Starts a task that runs `entry` with `argument` in the kernel.
    ///
    /// # Errors
    /// [`SysError::NO_MEMORY`] or [`SysError::QUOTA`].
    fn spawn(&mut self, entry: fn(u64), argument: u64) -> Result<TaskId, SysError>;

    /// Puts the task that calls to sleep until somebody wakes it, or until the deadline. It may
    /// return early.
    fn block(&mut self, deadline: Option<Ticks>);

    /// Wakes a task, or ends its next sleep at once.
    fn wake(&mut self, task: TaskId);

    /// The moment, on the clock of deadlines.
    fn now(&self) -> Ticks;
}

/// Sleeps until `ready` has an answer.
///
/// Whoever changes what `ready` looks at wakes the task afterwards.
///
/// # Errors
/// [`SysError::TIMED_OUT`] if there is none at the deadline.
pub fn block_until<S: Sched, T>(
    sched: &mut S,
    deadline: Option<Ticks>,
    mut ready: impl FnMut(&mut S) -> Option<T>,
) -> Result<T, SysError> {
    loop {
        if let Some(answer) = ready(sched) {
            return Ok(answer);
        }
        if deadline.is_some_and(|deadline| sched.now() >= deadline) {
            return Err(SysError::TIMED_OUT);
        }
        sched.block(deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time passes whenever somebody sleeps.
    struct Sleepy(u64);

    impl Sched for Sleepy {
        fn current(&self) -> TaskId {
            TaskId::new(0, 0)
        }

        fn spawn(&mut self, _: fn(u64), _: u64) -> Result<TaskId, SysError> {
            Err(SysError::NO_MEMORY)
        }

        fn block(&mut self, _: Option<Ticks>) {
            self.0 += 1;
        }

        fn wake(&mut self, _: TaskId) {}

        fn now(&self) -> Ticks {
            Ticks::new(self.0)
        }
    }

    #[test]
    fn waiting_ends_with_an_answer_or_with_the_deadline() {
        let answer = |sched: &mut Sleepy| (sched.0 >= 5).then_some(sched.0);
        assert_eq!(block_until(&mut Sleepy(0), None, answer), Ok(5));
        assert_eq!(
            block_until(&mut Sleepy(9), Some(Ticks::new(0)), answer),
            Ok(9)
        );
        let late = block_until(&mut Sleepy(0), Some(Ticks::new(3)), answer);
        assert_eq!(late, Err(SysError::TIMED_OUT));
    }
}

//! Many runs of one image against a host that lies: which lies, from which seeds, what came of each.
//!
//! A campaign is a list of [`Case`]s. Each is one run with a fault schedule of its own; [`Class`] says what came of it, and
//! whether that may be. What is done is written down as it is done, so that a campaign that was stopped goes on where it
//! was, and parts of it ([`Partition`]) can run on machines that know nothing of each other.

mod case;
mod class;
mod report;
mod state;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

pub use case::{Case, CaseResult, Partition, Seeds};
pub use class::{Class, judge};
pub use report::Report;

use self::state::State;
use crate::{Cancel, Error, FaultPlan, Result, Run};

/// What a campaign is made of; [`start`](Self::start) runs it.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `start`"]
pub struct Campaign {
    faults: String,
    each: bool,
    seeds: Seeds,
    partition: Partition,
    jobs: usize,
    state: Option<PathBuf>,
    restart: bool,
    identity: String,
    cancel: Cancel,
}

/// How far a campaign is.
#[derive(Clone, Debug)]
pub struct Status<'a> {
    /// How many cases there are.
    pub cases: usize,
    /// How many are done, those of earlier calls included.
    pub done: usize,
    /// How many of those were done by earlier calls.
    pub before: usize,
    /// How many ended in a way that may not be.
    pub wrong: usize,
    /// Since the start of this call.
    pub elapsed: Duration,
    /// The case that ended now; none at the start.
    pub latest: Option<&'a CaseResult>,
}

impl Campaign {
    /// All faults in `faults` (names, classes or `all`, as [`FaultPlan::add`] reads them), from `seeds`.
    ///
    /// `identity` names what is run: the image, its settings. A file of another campaign is not gone on with.
    pub fn new(faults: impl Into<String>, seeds: Seeds, identity: impl Into<String>) -> Self {
        Self {
            faults: faults.into(),
            each: false,
            seeds,
            partition: Partition::WHOLE,
            jobs: 1,
            state: None,
            restart: false,
            identity: identity.into(),
            cancel: Cancel::default(),
        }
    }

    /// One fault in a run instead of all of them: as many cases for each seed as there are faults.
    pub const fn each(mut self, each: bool) -> Self {
        self.each = each;
        self
    }

    /// Only this part of the cases.
    pub const fn partition(mut self, partition: Partition) -> Self {
        self.partition = partition;
        self
    }

    /// How many runs at once.
    pub const fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }

    /// Where it is written down what was done.
    pub fn state(mut self, file: impl Into<Option<PathBuf>>) -> Self {
        self.state = file.into();
        self
    }

    /// Forgets what was done before.
    pub const fn restart(mut self, restart: bool) -> Self {
        self.restart = restart;
        self
    }

    /// What stops it from elsewhere. Runs that have begun must be given the same.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// The cases of this part, in order.
    ///
    /// # Errors
    /// [`Error::BadFault`]
    pub fn cases(&self) -> Result<Vec<Case>> {
        let chosen = FaultPlan::drawn(&self.faults)?;
        let mut cases = Vec::new();
        for seed in self.seeds.iter() {
            if self.each {
                let each = chosen.iter().map(|fault| Case::new(fault.name(), seed));
                cases.extend(each);
            } else {
                cases.push(Case::new(&chosen.to_string(), seed));
            }
        }
        let mine = cases.into_iter().enumerate();
        let mine = mine.filter(|(index, _)| self.partition.has(*index));
        Ok(mine.map(|(_, case)| case).collect())
    }

    /// Runs all cases that are not done yet. `run` makes the run of a case, whose faults and cancellation are added to it.
    ///
    /// # Errors
    /// When a run cannot begin, or what is done cannot be written down.
    pub fn start(
        &self,
        run: &(dyn Fn() -> Result<Run> + Sync),
        progress: &mut dyn FnMut(&Status<'_>),
    ) -> Result<Report> {
        let began = Instant::now();
        let cases = self.cases()?;
        let identity = format!("{} each={} {}", self.identity, self.each, self.faults);
        let mut state = State::open(self.state.as_deref(), &identity, self.restart)?;
        let done: Vec<CaseResult> = state.take(&cases);
        let left: Vec<&Case> = cases
            .iter()
            .filter(|case| !done.iter().any(|result| result.case == **case))
            .collect();
        let mut report = Report::new(&self.identity, cases.len(), done);
        let before = report.results.len();
        let mut tell = |report: &Report, latest: Option<&CaseResult>| {
            progress(&Status {
                cases: cases.len(),
                done: report.results.len(),
                before,
                wrong: report.wrong(),
                elapsed: began.elapsed(),
                latest,
            });
        };
        tell(&report, None);
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let (say, heard) = mpsc::channel();
            for _ in 0..self.jobs.clamp(1, left.len().max(1)) {
                let (say, next, stop, left) = (say.clone(), &next, &stop, &left);
                scope.spawn(move || {
                    while let Some(case) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stop.load(Ordering::Relaxed) || self.cancel.is_cancelled() {
                            return;
                        }
                        if say.send(self.one(case, run)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(say);
            for result in heard {
                let noted = match result {
                    // One that was interrupted says nothing about the image.
                    Ok(result) if result.class == Class::Interrupted => continue,
                    Ok(result) => state.add(&result).map(|()| result),
                    Err(error) => Err(error),
                };
                match noted {
                    Ok(result) => {
                        report.results.push(result);
                        tell(&report, report.results.last());
                    }
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            Ok(())
        })?;
        report.results.sort_by_key(|result| {
            let place = cases.iter().position(|case| *case == result.case);
            place.unwrap_or(usize::MAX)
        });
        report.wall_time = began.elapsed();
        Ok(report)
    }

    fn one(&self, case: &Case, run: &(dyn Fn() -> Result<Run> + Sync)) -> Result<CaseResult> {
        let mut plan = FaultPlan::new();
        plan.add(&case.faults)?;
        plan.seed(case.seed);
        let run = run()?.faults(plan).cancel(self.cancel.clone());
        match run.start(&mut |_| ()) {
            Ok(outcome) => Ok(CaseResult::new(case, &outcome)),
            // No fault of the case, and the same for all others.
            Err(error) => Err(error),
        }
    }
}

impl Error {
    /// What a file that keeps a campaign cannot do.
    pub(crate) fn state(path: &std::path::Path, cause: impl core::fmt::Display) -> Self {
        Self::CampaignState {
            path: path.to_owned(),
            cause: cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign() -> Campaign {
        Campaign::new("time,-reset", "5..7".parse().unwrap(), "x")
    }

    #[test]
    fn cases_are_seeds_or_faults_and_seeds() {
        let cases = campaign().cases().unwrap();
        let all = "delayed-exit,reordered-exits";
        assert_eq!(cases, [5, 6, 7].map(|seed| Case::new(all, seed)));
        let each = campaign().each(true).cases().unwrap();
        assert_eq!(each.len(), 6);
        assert_eq!(each[3], Case::new("reordered-exits", 6));
        assert!(Campaign::new("moon", Seeds::one(1), "x").cases().is_err());
        assert!(
            Campaign::new("remap@3", Seeds::one(1), "x")
                .cases()
                .is_err()
        );
    }

    #[test]
    fn parts_make_the_whole() {
        let whole = campaign().each(true).cases().unwrap();
        let mut parts: Vec<Case> = (1..=4)
            .flat_map(|part| {
                let partition = format!("{part}/4").parse().unwrap();
                let part = campaign().each(true).partition(partition);
                part.cases().unwrap()
            })
            .collect();
        parts.sort_by_key(|case| whole.iter().position(|other| other == case));
        assert_eq!(parts, whole);
    }
}

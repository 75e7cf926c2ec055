//! Which lies the host tells in a run, and which it told.
//!
//! The catalogue is that of `svsm-sim`, which the software machine carries out: [`FaultPlan`] chooses from it, and each
//! lie that is told is a [`FaultEvent`] of the outcome.

use core::fmt::Write as _;

use serde::{Deserialize, Serialize};
use svsm_sim::fault::{Expected, Fault, Faults, ParseError, Platforms, Schedule};

use crate::{Error, Platform, Result};

/// The lies of a run: some again and again at events that follow from a seed, some once at events that are written down.
///
/// ```
/// use svsm_testbed::FaultPlan;
///
/// let mut plan = FaultPlan::new();
/// plan.add("injection,-stray-nmi")?;
/// plan.add("partial-psc@12")?;
/// plan.seed(7);
/// assert!(plan.add("partial-pcs").unwrap_err().to_string().contains("partial-psc"));
/// # Ok::<(), svsm_testbed::Error>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FaultPlan {
    drawn: Faults,
    seed: u64,
    steps: Vec<String>,
    from_guest: bool,
}

impl FaultPlan {
    /// A host that never lies.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            drawn: Faults::NONE,
            seed: 0,
            steps: Vec::new(),
            from_guest: false,
        }
    }

    /// Adds lies: names, names of classes or `all`, with commas between, for lies that come again and again (`-name` takes
    /// one out again); `name@event` for one that comes once.
    ///
    /// # Errors
    /// [`Error::BadFault`], with the names that there are.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let (steps, names): (Vec<&str>, Vec<&str>) = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .partition(|word| word.contains('@'));
        for step in steps {
            Schedule::script(step).map_err(|error| bad(step, error))?;
            self.steps.push(step.to_owned());
        }
        if self.steps.len() > Schedule::STEPS {
            let what = format!("a script has {} steps at most", Schedule::STEPS);
            return Err(Error::BadFault(what));
        }
        let mut all = self.drawn.to_string();
        for name in names {
            // Each for itself first, so that the message names the word.
            let plain = name.strip_prefix('-').unwrap_or(name);
            plain.parse::<Faults>().map_err(|error| bad(name, error))?;
            all.push(',');
            all.push_str(name);
            self.drawn = match all.parse() {
                Ok(faults) => faults,
                Err(ParseError::Nothing) => Faults::NONE,
                Err(error) => return Err(bad(name, error)),
            };
        }
        Ok(())
    }

    /// A choice of lies that come again and again.
    pub(crate) fn drawn(text: &str) -> Result<Faults> {
        let mut plan = Self::new();
        plan.add(text)?;
        match plan.steps.first() {
            Some(step) => Err(Error::BadFault(format!(
                "seeds say when faults come: `{step}` has an event of its own"
            ))),
            None if plan.drawn.is_empty() => Err(Error::BadFault("no fault is chosen".to_owned())),
            None => Ok(plan.drawn),
        }
    }

    /// Adds a script: `name@event` or `name@event=choice`, with commas or line ends between; what follows `#` is a comment.
    ///
    /// # Errors
    /// As [`FaultPlan::add`]; also a word without an event.
    pub fn add_script(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            for word in line.split(',').map(str::trim) {
                if !word.is_empty() && !word.contains('@') {
                    return Err(bad(word, ParseError::NoEvent { at: 0 }));
                }
                self.add(word)?;
            }
        }
        Ok(())
    }

    /// From which number it is drawn when lies come.
    pub const fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Has the host be honest until a level below the highest has run, so that the lies meet firmware that serves its guest.
    pub const fn from_guest(&mut self) {
        self.from_guest = true;
    }

    /// Whether the host never lies.
    #[must_use]
    pub const fn is_honest(&self) -> bool {
        self.drawn.is_empty() && self.steps.is_empty()
    }

    /// Refuses lies that mean nothing on a platform, unless they came with many others.
    pub(crate) fn check(&self, platform: Platform) -> Result<()> {
        let here = platforms(platform);
        if self.from_guest && platform == Platform::Native {
            return Err(Error::BadFault(
                "lies from the guest on take a platform with levels".to_owned(),
            ));
        }
        let impossible = |fault: &Fault| !fault.platforms().contains(here);
        let named = self.steps.iter().filter_map(|step| {
            let (name, _) = step.split_once('@')?;
            Fault::named(name)
        });
        let alone = self.drawn.iter().filter(|_| self.drawn.on(here).is_empty());
        match named.chain(alone).find(impossible) {
            Some(fault) => Err(Error::BadFault(format!(
                "`{fault}` means nothing on the platform {platform}"
            ))),
            None => Ok(()),
        }
    }

    /// The words for the software machine.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if !self.drawn.is_empty() {
            words.push(format!("faults={}", self.drawn));
            words.push(format!("seed={}", self.seed));
        }
        if self.from_guest && !self.is_honest() {
            words.push("faults-from-guest".to_owned());
        }
        if !self.steps.is_empty() {
            words.push(format!("script={}", self.steps.join(",")));
        }
        words
    }
}

const fn platforms(platform: Platform) -> Platforms {
    match platform {
        Platform::Native => Platforms::NATIVE,
        Platform::Snp => Platforms::SNP,
    }
}

fn bad(word: &str, error: ParseError) -> Error {
    Error::BadFault(match error {
        ParseError::Unknown { .. } => {
            let mut text = format!("there is no fault `{word}`; there are");
            for fault in Fault::ALL {
                // Writing to a string cannot fail.
                let _ = write!(text, " {fault}");
            }
            text.push_str(", the classes");
            for class in svsm_sim::fault::Class::ALL {
                let _ = write!(text, " {class}");
            }
            text.push_str(", and `all`");
            text
        }
        ParseError::NoEvent { .. } => {
            format!("a script says at which event a fault comes: `{word}@event`")
        }
        error => format!("`{word}`: {error}"),
    })
}

/// A lie that was told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FaultEvent {
    /// The number of the event at which it came.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// As a step of a script, which brings the very same again.
    pub script: String,
    /// What was done, or why nothing could be.
    pub effect: String,
    /// On which CPU.
    pub cpu: u64,
    /// At which level, where there are levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmpl: Option<u8>,
    /// Behind the instruction that asked the host.
    pub rip: String,
}

impl FaultEvent {
    /// The lie in the catalogue.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        Fault::named(&self.name)
    }

    /// Whether it changed anything for the guest.
    #[must_use]
    pub fn had_effect(&self) -> bool {
        !self.effect.starts_with("nothing")
    }

    /// What must come of it.
    #[must_use]
    pub fn expected(&self) -> Option<Expected> {
        self.fault().map(Fault::expected)
    }
}

/// The catalogue as a table for people.
#[must_use]
pub fn table() -> String {
    let mut text = String::new();
    for class in svsm_sim::fault::Class::ALL {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{class}:");
        for fault in Fault::ALL.iter().filter(|fault| fault.class() == class) {
            let native = if fault.platforms().contains(Platforms::NATIVE) {
                "native, snp"
            } else {
                "snp"
            };
            let _ = writeln!(
                text,
                "  {:<19} {:<10} {native:<12} {}",
                fault.name(),
                fault.expected().name(),
                fault.about()
            );
        }
    }
    text.push_str(
        "\nWhat must come of it: `tolerated` the guest ends as without it; `detected` it sees through it, and goes on or\n\
         ends by its own request; `denied` no guest can help it, but it must not crash.\n",
    );
    text
}

/// The catalogue as JSON.
#[must_use]
pub fn json() -> serde_json::Value {
    let entry = |fault: &Fault| {
        serde_json::json!({
            "name": fault.name(),
            "class": fault.class().name(),
            "about": fault.about(),
            "expected": fault.expected().name(),
            "native": fault.platforms().contains(Platforms::NATIVE),
            "snp": fault.platforms().contains(Platforms::SNP),
        })
    };
    Fault::ALL.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_and_steps_are_told_apart() {
        let mut plan = FaultPlan::new();
        plan.add("time, remap@3").unwrap();
        plan.add("-reset").unwrap();
        plan.add_script("# twice\nreplay@7=0x10, smash@9 # and this\n")
            .unwrap();
        plan.seed(5);
        assert_eq!(
            plan.words(),
            [
                "faults=delayed-exit,reordered-exits",
                "seed=5",
                "script=remap@3,replay@7=0x10,smash@9"
            ]
        );
        assert!(!plan.is_honest());
        assert!(FaultPlan::new().words().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut plan = FaultPlan::new();
        let says = |result: Result<()>| result.unwrap_err().to_string();
        let unknown = says(plan.add("remap,moon"));
        assert!(unknown.contains("`moon`") && unknown.contains("partial-psc"));
        assert!(says(plan.add("moon@3")).contains("`moon@3`"));
        assert!(says(plan.add("remap@x")).contains("number"));
        assert!(says(plan.add_script("remap")).contains("remap@event"));
        let long = vec!["remap@1"; 33].join(",");
        assert!(says(plan.add(&long)).contains("32"));
    }

    #[test]
    fn faults_fit_their_platform() {
        let mut plan = FaultPlan::new();
        plan.add("all").unwrap();
        plan.check(Platform::Native).unwrap();
        plan.add("remap@1").unwrap();
        plan.check(Platform::Snp).unwrap();
        assert!(plan.check(Platform::Native).is_err());
        let mut alone = FaultPlan::new();
        alone.add("remap").unwrap();
        assert!(alone.check(Platform::Native).is_err());
    }

    #[test]
    fn the_table_has_all() {
        let text = table();
        assert!(Fault::ALL.iter().all(|fault| text.contains(fault.name())));
        assert_eq!(json().as_array().unwrap().len(), Fault::ALL.len());
    }
}

//! L0's command line.
//!
//! ```text
//! memory=<bytes>[K|M|G]  platform=native|snp  [faults=<set> [seed=<number>]]  [script=<steps>]  [faults-from-guest]
//! [trace=calls|exits]  [rmp]  [equal-features]  [storms]  [gdb]
//! [-- <the guest's command line>]
//! ```

use crate::liar::Liar;
use core::fmt;
use svsm_sim::fault::{Faults, ParseError, Platforms, Schedule};

/// What a run was asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    /// Bytes of RAM that the guest sees; without it, all but [`crate::layout::RESERVE`].
    pub memory: Option<u64>,
    /// The architecture that the guest sees.
    pub platform: Platform,
    /// Which exits are reported one by one.
    pub trace: Trace,
    /// Whether the state of all pages is reported at the start and at the end.
    pub rmp: bool,
    /// Whether all save areas must have the first one's features.
    pub equal_features: bool,
    /// Whether guests may ask for exceptions at every instruction.
    pub storms: bool,
    /// Whether the last CPU serves a debugger, and the guest waits for it.
    pub gdb: bool,
    /// Lies that the host tells again and again.
    pub faults: Faults,
    /// From which number it is drawn when.
    pub seed: u64,
    /// Lies that it tells once, each at its event; as text that was read once already.
    pub script: &'a str,
    /// Whether the host is honest until a level below the highest has run.
    pub faults_from_guest: bool,
    /// What an image's command-line parameter is filled with.
    pub guest: &'a str,
}

/// The architecture that a guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// A machine without isolation.
    #[default]
    Native,
    /// AMD SEV-SNP.
    Snp,
}

/// Which exits are reported one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// None.
    #[default]
    Off,
    /// Requests to the host.
    Calls,
    /// All.
    Exits,
}

impl Platform {
    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Snp => "snp",
        }
    }
}

/// What is wrong with a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// A word that is no option; its number, counted from zero.
    Unknown(usize),
    /// An option whose value makes no sense; its number, counted from zero.
    Value(usize),
    /// Faults that cannot be: the number of the word, counted from zero, and what is wrong.
    Fault(usize, ParseError),
    /// A debugger and storms, which both live on the trap flag.
    Trap,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "word {word} of the command line is no option"),
            Self::Value(word) => write!(f, "word {word} of the command line has a bad value"),
            Self::Fault(word, error) => write!(f, "word {word} of the command line: {error}"),
            Self::Trap => f.write_str("`gdb` and `storms` exclude each other"),
        }
    }
}

impl core::error::Error for OptionError {}

impl<'a> Options<'a> {
    /// Reads a command line.
    ///
    /// # Errors
    /// The first word that is wrong.
    pub fn parse(line: &'a str) -> Result<Self, OptionError> {
        let (own, guest) = match line.strip_prefix("-- ") {
            Some(guest) => ("", guest),
            None => line.split_once(" -- ").unwrap_or((line, "")),
        };
        let mut options = Self {
            memory: None,
            platform: Platform::Native,
            trace: Trace::Off,
            rmp: false,
            equal_features: false,
            storms: false,
            gdb: false,
            faults: Faults::NONE,
            seed: 0,
            script: "",
            faults_from_guest: false,
            guest,
        };
        for (index, word) in own.split_ascii_whitespace().enumerate() {
            match word.split_once('=') {
                Some(("memory", value)) => {
                    options.memory = Some(bytes(value).ok_or(OptionError::Value(index))?);
                }
                Some(("platform", "native")) => options.platform = Platform::Native,
                Some(("platform", "snp")) => options.platform = Platform::Snp,
                Some(("platform", _)) => return Err(OptionError::Value(index)),
                Some(("faults", value)) => {
                    let faults = value.parse();
                    options.faults = faults.map_err(|error| OptionError::Fault(index, error))?;
                }
                Some(("seed", value)) => {
                    options.seed = value.parse().map_err(|_| OptionError::Value(index))?;
                }
                Some(("script", value)) => {
                    Schedule::script(value).map_err(|error| OptionError::Fault(index, error))?;
                    options.script = value;
                }
                Some(("trace", "calls")) => options.trace = Trace::Calls,
                Some(("trace", "exits")) => options.trace = Trace::Exits,
                Some(("trace", _)) => return Err(OptionError::Value(index)),
                None if word == "rmp" => options.rmp = true,
                None if word == "equal-features" => options.equal_features = true,
                None if word == "storms" => options.storms = true,
                None if word == "faults-from-guest" => options.faults_from_guest = true,
                None if word == "gdb" => options.gdb = true,
                // The words that QEMU's own loaders add.
                Some(("initrd" | "BOOT_IMAGE", _)) => {}
                _ => return Err(OptionError::Unknown(index)),
            }
        }
        if options.gdb && options.storms {
            return Err(OptionError::Trap);
        }
        Ok(options)
    }
}

impl Options<'_> {
    /// The host that lies as the options say, on their platform.
    #[must_use]
    pub fn liar(&self) -> Liar {
        let platform = match self.platform {
            Platform::Native => Platforms::NATIVE,
            Platform::Snp => Platforms::SNP,
        };
        let seeded = match self.faults.on(platform) {
            Faults::NONE => Schedule::HONEST,
            faults => Schedule::seeded(faults, self.seed),
        };
        // It was read once already, so that this does not fail.
        let script = Schedule::script(self.script).unwrap_or(Schedule::HONEST);
        Liar::new(script, seeded).from_guest(self.faults_from_guest)
    }
}

/// A number of bytes with an optional binary unit.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' => (text.strip_suffix('K')?, 1 << 10),
        b'M' => (text.strip_suffix('M')?, 1 << 20),
        b'G' => (text.strip_suffix('G')?, 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        assert_eq!(
            Options::parse("memory=256M platform=native -- quiet -- x"),
            Ok(Options {
                memory: Some(256 << 20),
                platform: Platform::Native,
                trace: Trace::Off,
                rmp: false,
                equal_features: false,
                storms: false,
                gdb: false,
                faults: Faults::NONE,
                seed: 0,
                script: "",
                faults_from_guest: false,
                guest: "quiet -- x"
            })
        );
        assert_eq!(Options::parse("").unwrap().memory, None);
        assert_eq!(Options::parse("-- only this").unwrap().guest, "only this");
        assert_eq!(Options::parse("memory=4096").unwrap().memory, Some(4096));
    }

    #[test]
    fn what_is_reported_is_chosen() {
        let options = Options::parse("trace=calls rmp").unwrap();
        assert_eq!((options.trace, options.rmp), (Trace::Calls, true));
        assert_eq!(Options::parse("trace=all"), Err(OptionError::Value(0)));
        assert!(Options::parse("gdb").unwrap().gdb);
        assert_eq!(Options::parse("gdb storms"), Err(OptionError::Trap));
    }

    #[test]
    fn lies_are_chosen() {
        let options = Options::parse("platform=snp faults=time,-reset seed=7 script=remap@3");
        let options = options.unwrap();
        assert_eq!((options.faults.len(), options.seed), (2, 7));
        assert!(!options.liar().is_honest());
        // What takes SEV-SNP is not drawn without it.
        let native = Options::parse("faults=messages").unwrap();
        assert!(native.liar().is_honest());
        assert!(matches!(
            Options::parse("faults=moon"),
            Err(OptionError::Fault(0, ParseError::Unknown { at: 0 }))
        ));
        assert!(Options::parse("script=remap").is_err());
        let late = Options::parse("platform=snp faults-from-guest script=remap@0").unwrap();
        assert!(late.faults_from_guest);
    }

    #[test]
    fn the_wrong_word_is_named() {
        assert_eq!(
            Options::parse("memory=1G platform=moon"),
            Err(OptionError::Value(1))
        );
        assert_eq!(Options::parse("memory=1T"), Err(OptionError::Value(0)));
        assert_eq!(
            Options::parse("memory=99999999999999999999"),
            Err(OptionError::Value(0))
        );
        assert_eq!(
            Options::parse("memory=18014398509481984K"),
            Err(OptionError::Value(0))
        );
        assert_eq!(
            Options::parse("memory=1G fast"),
            Err(OptionError::Unknown(1))
        );
    }
}

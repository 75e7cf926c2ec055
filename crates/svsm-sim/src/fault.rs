//! A host that lies: every way in which it can, by name, and when it does.
//!
//! [`Fault`] is the catalogue: what is done, what it takes to do it ([`Occasions`]) and what a guest must make of it
//! ([`Expected`]). [`Faults`] is a choice from it, and [`Schedule`] says at which of a run's events which fault comes:
//! by a script, or by a seed. Nothing here does anything to a guest; a host asks, and then lies as it was told.
//!
//! ```
//! use svsm_sim::fault::{Faults, Occasions, Schedule};
//!
//! let mut schedule = Schedule::script("partial-psc@2")?;
//! assert_eq!(schedule.next(0, Occasions::CPUID), None);
//! assert_eq!(schedule.next(1, Occasions::PAGE_STATE_LIST), None); // too early
//! assert_eq!(schedule.next(2, Occasions::CPUID), None); // nothing to do it to
//! let fired = schedule.next(3, Occasions::PAGE_STATE_LIST).unwrap();
//! assert_eq!(fired.fault.name(), "partial-psc");
//!
//! // The same seed, the same lies; what is printed is a script.
//! let mut schedule = Schedule::seeded("stray-vc,junk-output".parse::<Faults>()?, 7);
//! let fired = (0..).find_map(|event| schedule.next(event, Occasions::REPLY)).unwrap();
//! let mut again = Schedule::script(&fired.to_string())?;
//! assert_eq!(again.next(fired.event, Occasions::REPLY), Some(fired));
//! # Ok::<(), svsm_sim::fault::ParseError>(())
//! ```

mod catalogue;
mod draw;
mod parse;
mod schedule;
mod set;

pub use catalogue::{Class, Expected, Fault, Occasions, Platforms};
pub use draw::draw;
pub use parse::ParseError;
pub use schedule::{Fired, Schedule};
pub use set::Faults;

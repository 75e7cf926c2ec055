//! What a person sees while a chore runs: one line when a step begins, one when it ends.

use core::time::Duration;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Announces a step on standard error and returns its start.
pub(crate) fn step(what: &str) -> Instant {
    let mut err = std::io::stderr().lock();
    // A closed standard error is no reason to stop the work.
    let _ = writeln!(err, "{} {what}", paint("1;34", "==>"));
    Instant::now()
}

/// Says something that belongs to the current step.
pub(crate) fn note(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "    {what}");
}

/// Says that something failed.
pub(crate) fn failure(what: &str) {
    let _ = writeln!(
        std::io::stderr().lock(),
        "{} {what}",
        paint("1;31", "error:")
    );
}

/// A duration as a person reads it.
pub(crate) fn elapsed(since: Instant) -> String {
    seconds(since.elapsed())
}

fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    if whole >= 60 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

/// `text` in the colour of an SGR code, where standard error is a terminal that wants colours.
pub(crate) fn paint(code: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_a_clock_above_a_minute() {
        assert_eq!(seconds(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }
}

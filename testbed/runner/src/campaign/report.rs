use core::fmt::Write as _;
use core::time::Duration;

use serde::Serialize;

use super::{CaseResult, Class};

/// What came of a campaign.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub image: String,
    /// How many cases there are; those without a result were not run.
    pub cases: usize,
    /// What came of each, in the order of the cases.
    pub results: Vec<CaseResult>,
    /// How long this call took.
    #[serde(skip)]
    pub wall_time: Duration,
}

impl Report {
    pub(super) fn new(image: &str, cases: usize, results: Vec<CaseResult>) -> Self {
        Self {
            image: image.to_owned(),
            cases,
            results,
            wall_time: Duration::ZERO,
        }
    }

    /// How many ended so.
    #[must_use]
    pub fn count(&self, class: Class) -> usize {
        let of_class = self.results.iter().filter(|result| result.class == class);
        of_class.count()
    }

    /// How many ended in a way that may not be.
    #[must_use]
    pub fn wrong(&self) -> usize {
        self.results.iter().filter(|result| !result.fine).count()
    }

    /// The exit status of the command: 0 if all cases were run and ended as they may, 1 if one did not, 5 if the testbed
    /// failed in one, 130 if cases are left.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.results.len() < self.cases {
            130
        } else if self.count(Class::Error) > 0 {
            5
        } else {
            u8::from(self.wrong() > 0)
        }
    }

    /// The report as one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let classes: serde_json::Map<_, _> = Class::ALL
            .into_iter()
            .map(|class| {
                let name = class.name().to_lowercase();
                (name, self.count(class).into())
            })
            .collect();
        serde_json::json!({
            "image": self.image,
            "cases": self.cases,
            "done": self.results.len(),
            "wrong": self.wrong(),
            "classes": classes,
            "results": self.results,
        })
    }

    /// The report as JUnit XML: a test case for each case, failed if it ended as it may not.
    #[must_use]
    pub fn junit(&self) -> String {
        let seconds: f64 = self.results.iter().map(|result| result.seconds).sum();
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let (tests, errors) = (self.results.len(), self.count(Class::Error));
        let failures = self.wrong() - errors;
        // Writing to a string cannot fail.
        let _ = writeln!(
            xml,
            "<testsuites>\n<testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" \
             time=\"{seconds:.3}\">",
            escaped(&self.image)
        );
        for result in &self.results {
            let _ = write!(
                xml,
                "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
                result.class,
                escaped(&result.case.to_string()),
                result.seconds
            );
            if !result.fine {
                let kind = if result.class == Class::Error {
                    "error"
                } else {
                    "failure"
                };
                let _ = write!(
                    xml,
                    "<{kind} message=\"{}: {}\">lies: {}</{kind}>",
                    result.class,
                    escaped(&result.verdict),
                    escaped(&result.lies.join(","))
                );
            }
            xml.push_str("</testcase>\n");
        }
        xml.push_str("</testsuite>\n</testsuites>\n");
        xml
    }

    /// A table for people: how many of each class, and each case that ended as it may not, with the script that brings
    /// its lies again.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for result in self.results.iter().filter(|result| !result.fine) {
            let _ = writeln!(
                text,
                "{}: {} ({})",
                result.case, result.class, result.verdict
            );
            let lies = result.lies.join(",");
            let _ = writeln!(
                text,
                "    told: {}",
                if lies.is_empty() { "nothing" } else { &lies }
            );
        }
        for class in Class::ALL {
            match self.count(class) {
                0 => {}
                count => {
                    let _ = writeln!(text, "{count:>7} {class}");
                }
            }
        }
        let _ = writeln!(
            text,
            "{:>7} of {} cases done, {} as they may not",
            self.results.len(),
            self.cases,
            self.wrong()
        );
        text
    }
}

/// Text within XML: nothing in it is markup, and what XML cannot hold is left out.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            '\t' | '\n' | '\r' => xml.push(' '),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => xml.push(c),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::super::Case;
    use super::*;

    fn report(classes: &[(Class, bool)]) -> Report {
        let results = (1..).zip(classes).map(|(seed, (class, fine))| CaseResult {
            case: Case::new("remap", seed),
            class: *class,
            fine: *fine,
            verdict: "a <b> & \"c\"\u{1}".into(),
            lies: vec!["remap@3=0x1".into()],
            seconds: 0.25,
        });
        Report::new("my.igvm", classes.len(), results.collect())
    }

    #[test]
    fn the_exit_status_follows_the_worst_case() {
        let fine = (Class::Correct, true);
        assert_eq!(report(&[fine, (Class::Terminated, true)]).exit_code(), 0);
        assert_eq!(report(&[fine, (Class::Hang, false)]).exit_code(), 1);
        assert_eq!(report(&[(Class::Error, false), fine]).exit_code(), 5);
        let mut left = report(&[fine]);
        left.cases = 2;
        assert_eq!(left.exit_code(), 130);
    }

    #[test]
    fn junit_is_xml() {
        let xml = report(&[(Class::Correct, true), (Class::Crash, false)]).junit();
        assert!(
            xml.contains("tests=\"2\" failures=\"1\" errors=\"0\""),
            "{xml}"
        );
        assert!(
            xml.contains("message=\"CRASH: a &lt;b&gt; &amp; &quot;c&quot;\""),
            "{xml}"
        );
        assert_eq!(xml.matches("<testcase ").count(), 2);
        assert_eq!(xml.matches("</testcase>").count(), 2);
    }

    #[test]
    fn json_and_text_count_the_classes() {
        let report = report(&[(Class::Correct, true), (Class::Hang, false)]);
        let json = report.json();
        assert_eq!(
            (&json["classes"]["hang"], &json["wrong"]),
            (&1.into(), &1.into())
        );
        assert_eq!(json["results"][1]["lies"][0], "remap@3=0x1");
        let text = report.text();
        assert!(text.contains("remap seed 2: HANG") && text.contains("told: remap@3=0x1"));
    }
}

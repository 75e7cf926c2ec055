//! The command line.

use svsm_platform::claim::Claim;

use crate::error::{Error, Flaw, Result};
use crate::region::Parameter;

/// A line of printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CommandLine<'a>(&'a str);

impl<'a> CommandLine<'a> {
    /// The text up to the first NUL. A blank area is an empty line.
    ///
    /// # Errors
    ///
    /// [`Error::Claim`] if the area has no NUL, or at the first byte that is not printable ASCII.
    pub fn parse(area: Claim<&'a [u8]>) -> Result<Self> {
        let claim = |offset, flaw| Error::Claim {
            parameter: Parameter::CommandLine,
            offset,
            flaw,
        };
        area.check_with(|bytes| {
            let Some(length) = bytes.iter().position(|byte| *byte == 0) else {
                return Err(claim(bytes.len(), Flaw::Unterminated));
            };
            let line = bytes.get(..length).unwrap_or_default();
            if let Some(offset) = line.iter().position(|byte| !matches!(byte, b' '..=b'~')) {
                return Err(claim(offset, Flaw::Text));
            }
            // Printable ASCII is UTF-8.
            core::str::from_utf8(line)
                .map(Self)
                .map_err(|_| claim(0, Flaw::Text))
        })
    }

    /// The whole line.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// Its words: what stands between spaces.
    #[must_use]
    pub fn words(&self) -> Words<'a> {
        Words(self.0.split_ascii_whitespace())
    }

    /// What follows `key=` in the last word that starts so; the empty text for a bare `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.words()
            .filter_map(|(name, value)| (name == key).then_some(value))
            .last()
    }
}

/// The words of a line as name and value, split at the first `=`; see [`CommandLine::words`].
#[derive(Clone, Debug)]
pub struct Words<'a>(core::str::SplitAsciiWhitespace<'a>);

impl<'a> Iterator for Words<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let word = self.0.next()?;
        Some(word.split_once('=').unwrap_or((word, "")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<CommandLine<'_>> {
        CommandLine::parse(Claim::new(bytes))
    }

    #[test]
    fn words_have_names_and_values() {
        let line = parse(b"  quiet log=info a=b=c log=trace \0junk\xff").unwrap();
        assert!(line.words().eq([
            ("quiet", ""),
            ("log", "info"),
            ("a", "b=c"),
            ("log", "trace")
        ]));
        assert_eq!(line.value("log"), Some("trace"));
        assert_eq!(line.value("quiet"), Some(""));
        assert_eq!(line.value("lo"), None);
    }

    #[test]
    fn only_terminated_text_is_a_line() {
        let claim = |offset, flaw| {
            Err(Error::Claim {
                parameter: Parameter::CommandLine,
                offset,
                flaw,
            })
        };
        assert_eq!(parse(b"quiet"), claim(5, Flaw::Unterminated));
        assert_eq!(parse(b""), claim(0, Flaw::Unterminated));
        assert_eq!(parse(b"a\x1b[2J\0"), claim(1, Flaw::Text));
        assert_eq!(parse(b"caf\xc3\xa9\0"), claim(3, Flaw::Text));
        assert_eq!(parse(&[0; 4096]).unwrap().as_str(), "");
    }
}

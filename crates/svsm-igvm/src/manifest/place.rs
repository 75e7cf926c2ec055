//! Where in a manifest a key stands.

use core::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A line and a column, both counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Place {
    /// The place of a byte of `text`.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let start_of_line = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(start_of_line..).unwrap_or("").chars().count() + 1,
        }
    }

    /// The place of a key written as `table.key` or `array[2].key`; of what
    /// encloses it, if the key itself is not written.
    pub(super) fn of_key(text: &str, key: &str) -> Option<Self> {
        let root = DeTable::parse(text).ok()?;
        let mut span = None;
        let mut table: Option<&DeTable<'_>> = Some(root.get_ref());
        for step in key.split('.') {
            let (name, index) = match step.strip_suffix(']').and_then(|step| step.split_once('[')) {
                Some((name, index)) => (name, index.parse::<usize>().ok()),
                None => (step, None),
            };
            let Some((written, value)) =
                table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name))
            else {
                break;
            };
            span = Some(written.span());
            let value = match (value.get_ref(), index) {
                (DeValue::Array(array), Some(index)) => array.get(index).inspect(|value| {
                    span = Some(Spanned::span(value));
                }),
                (_, Some(_)) => None,
                (_, None) => Some(value),
            };
            table = value.and_then(|value| match value.get_ref() {
                DeValue::Table(table) => Some(table),
                _ => None,
            });
        }
        span.map(|span| Self::of(text, span.start))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\n\n[b]\nc = 2\n\n[[d]]\ne = 3\n[[d]]\ne = 4\n";

    #[test]
    fn keys_are_found_where_they_are_written() {
        for (key, line, column) in [
            ("a", 1, 1),
            ("b.c", 4, 1),
            ("d[0].e", 7, 1),
            ("d[1].e", 9, 1),
            ("d[1]", 8, 1),
        ] {
            assert_eq!(
                Place::of_key(TEXT, key),
                Some(Place { line, column }),
                "{key}"
            );
        }
    }

    #[test]
    fn a_missing_key_is_placed_at_what_encloses_it() {
        assert_eq!(
            Place::of_key(TEXT, "b.x"),
            Some(Place { line: 3, column: 2 })
        );
        assert_eq!(Place::of_key(TEXT, "x"), None);
    }
}

//! Sizes as people write them.

use core::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Area;

/// A number of bytes: an integer, or text such as `"16 MiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Size(u64);

/// Units by falling size, so that a size prints in the largest that fits.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    /// A size in bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Reads `"4096"` or `"16 MiB"`; `None` if it is neither or too large.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let unit = UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
        let (number, unit) = unit.unwrap_or((text, 1));
        let number: u64 = number.trim_end().parse().ok()?;
        number.checked_mul(unit).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit));
        match unit {
            Some((name, unit)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or text such as \"16 MiB\"")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Size, E> {
        let bytes = u64::try_from(value);
        bytes
            .map(Size)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Size, E> {
        Ok(Size(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Size, E> {
        Size::parse(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

/// Reads an area: a size, or a table with more.
pub(super) fn area<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Area, D::Error> {
    deserializer.deserialize_any(AreaVisitor)
}

struct AreaVisitor;

impl<'de> Visitor<'de> for AreaVisitor {
    type Value = Area;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, or a table { size, optional }")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Area, E> {
        SizeVisitor.visit_i64(value).map(|size| Area {
            size,
            optional: false,
        })
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Area, E> {
        SizeVisitor.visit_str(value).map(|size| Area {
            size,
            optional: false,
        })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Area, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            size: Size,
            #[serde(default)]
            optional: bool,
        }
        let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Area {
            size: table.size,
            optional: table.optional,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_print() {
        for (text, bytes) in [
            ("0 bytes", 0),
            ("1 KiB", 1024),
            ("16 MiB", 16 << 20),
            ("3 GiB", 3 << 30),
        ] {
            assert_eq!(Size::new(bytes).to_string(), text);
            assert_eq!(
                Size::parse(text.trim_end_matches(" bytes")),
                Some(Size::new(bytes))
            );
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1 mib",
            "0x1000",
            "1.5 MiB",
            "18446744073709551615 GiB",
        ] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }
}

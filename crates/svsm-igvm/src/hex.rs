//! Bytes as people write them: digests, and names of images.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// As many bytes, written as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// Text that is not so many bytes in hexadecimal digits, or no name of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// How many bytes there should be.
    pub bytes: usize,
    /// Whether other text of that length at most would have done.
    pub text: bool,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text {
            write!(
                f,
                "it takes {} bytes of printable ASCII at most, or ",
                self.bytes
            )?;
        } else {
            f.write_str("it takes ")?;
        }
        write!(f, "{} hexadecimal digits", 2 * self.bytes)
    }
}

impl core::error::Error for Unreadable {}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut bytes = [0; N];
        match read(text, &mut bytes) {
            Some(()) => Ok(Self(bytes)),
            None => Err(Unreadable {
                bytes: N,
                text: false,
            }),
        }
    }
}

/// Reads exactly as many digits as fill `bytes`.
fn read(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != bytes.len().checked_mul(2)? {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = 0;
        for digit in pair {
            let digit = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(digit).ok()?;
        }
    }
    Some(())
}

/// The name of an image or of a family of images, in an ID block: 16 bytes that mean what their owner likes.
///
/// It is written as text of at most 16 printable characters, or as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IdName(pub [u8; 16]);

impl fmt::Display for IdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().rposition(|byte| *byte != 0);
        let text = self.0.get(..end.map_or(0, |end| end + 1)).unwrap_or(&[]);
        match core::str::from_utf8(text) {
            Ok(text) if text.chars().all(is_printable) => f.write_str(text),
            _ => Hex(self.0).fmt(f),
        }
    }
}

const fn is_printable(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic()
}

impl FromStr for IdName {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut bytes = [0; 16];
        if read(text, &mut bytes).is_some() {
            return Ok(Self(bytes));
        }
        if text.len() > bytes.len() || !text.chars().all(is_printable) {
            return Err(Unreadable {
                bytes: bytes.len(),
                text: true,
            });
        }
        bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl Serialize for IdName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = Unreadable>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_read_as_they_print() {
        let bytes = Hex([0x00, 0x1f, 0xa0]);
        assert_eq!(bytes.to_string(), "001fa0");
        assert_eq!("001FA0".parse(), Ok(bytes));
        for text in ["", "001fa", "001fa0a", "001fag", "+01fa0", "é1fa0"] {
            assert!(text.parse::<Hex<3>>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_text_or_digits() {
        let text: IdName = "svsm 1".parse().unwrap();
        assert_eq!(text.0, *b"svsm 1\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(text.to_string(), "svsm 1");
        let odd = IdName([0xff; 16]);
        assert_eq!(odd.to_string(), "ff".repeat(16));
        assert_eq!(odd.to_string().parse(), Ok(odd));
        assert_eq!("".parse(), Ok(IdName::default()));
        for text in ["seventeen letters", "ü", "a\n"] {
            let message = text.parse::<IdName>().unwrap_err().to_string();
            assert!(message.contains("16 bytes of printable ASCII"), "{message}");
        }
        // A name that looks like digits reads as it was before.
        let digits = IdName(*b"0123456789abcdef");
        assert_eq!(digits.to_string().parse(), Ok(digits));
    }
}

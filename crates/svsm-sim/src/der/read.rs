//! Reads DER that anybody may have written: one value after the other, lengths checked, nothing recursive.

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

/// One value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) contents: &'a [u8],
    /// Tag and length too.
    pub(crate) whole: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value, whatever it is. Lengths are as short as they can be and take two bytes at most: certificates are
    /// smaller than 64 KiB.
    pub(crate) fn any(&mut self) -> Option<Value<'a>> {
        let (tag, len, header) = match *self.0 {
            [tag, short, ..] if short < 0x80 => (tag, usize::from(short), 2),
            [tag, 0x81, len, ..] if len >= 0x80 => (tag, usize::from(len), 3),
            [tag, 0x82, high, low, ..] if high != 0 => {
                (tag, usize::from(u16::from_be_bytes([high, low])), 4)
            }
            _ => return None,
        };
        let (whole, rest) = self.0.split_at_checked(header + len)?;
        self.0 = rest;
        Some(Value {
            tag,
            contents: whole.get(header..)?,
            whole,
        })
    }

    /// The next value, which has this tag.
    pub(crate) fn value(&mut self, tag: u8) -> Option<Value<'a>> {
        self.any().filter(|value| value.tag == tag)
    }

    /// What is inside the next value, which has this tag.
    pub(crate) fn inside(&mut self, tag: u8) -> Option<Self> {
        self.value(tag).map(|value| Self(value.contents))
    }

    /// The next value is a number below 256 and is not negative.
    pub(crate) fn small(&mut self) -> Option<u8> {
        match *self.value(super::tag::INTEGER)?.contents {
            [byte] if byte < 0x80 => Some(byte),
            [0, byte] if byte >= 0x80 => Some(byte),
            _ => None,
        }
    }

    /// The next value is a number of at most `N` bytes and is not negative.
    pub(crate) fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let digits = match self.value(super::tag::INTEGER)?.contents {
            [0, rest @ ..] if rest.first().is_some_and(|byte| byte & 0x80 != 0) => rest,
            digits @ [first, ..] if first & 0x80 == 0 => digits,
            _ => return None,
        };
        let mut number = [0; N];
        let start = N.checked_sub(digits.len())?;
        number.get_mut(start..)?.copy_from_slice(digits);
        Some(number)
    }

    /// The next value is a string of whole bytes.
    pub(crate) fn bits(&mut self) -> Option<&'a [u8]> {
        match self.value(super::tag::BIT_STRING)?.contents {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in [
            &[0x30][..],
            &[0x30, 5, 0],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 1, 0],
            &[0x30, 0x82, 0, 1, 0],
            &[0x30, 0x82, 1],
        ] {
            assert!(Reader::new(bytes).any().is_none(), "{bytes:x?}");
        }
    }

    #[test]
    fn numbers_are_not_negative_and_fit() {
        assert_eq!(Reader::new(&[2, 1, 5]).number(), Some([0, 5]));
        assert_eq!(Reader::new(&[2, 3, 0, 0x80, 1]).number(), Some([0x80, 1]));
        assert_eq!(Reader::new(&[2, 1, 0x80]).number::<2>(), None);
        assert_eq!(Reader::new(&[2, 3, 1, 2, 3]).number::<2>(), None);
        assert_eq!(Reader::new(&[2, 2, 0, 5]).small(), None);
        assert_eq!(Reader::new(&[2, 2, 0, 0xc8]).small(), Some(0xc8));
    }
}

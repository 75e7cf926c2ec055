//! Writes DER from its end to its start, so that every length is known when it is written. The same values make the same
//! bytes.

/// A buffer that fills from its end.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    buffer: &'b mut [u8],
    start: usize,
    overflow: bool,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(buffer: &'b mut [u8]) -> Self {
        let start = buffer.len();
        Self {
            buffer,
            start,
            overflow: false,
        }
    }

    /// What was written; `None` where it was too much.
    pub(crate) fn written(&self) -> Option<&[u8]> {
        if self.overflow {
            return None;
        }
        self.buffer.get(self.start..)
    }

    /// Puts bytes in front of all that is there.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let end = self.start;
        let start = end.checked_sub(bytes.len());
        match start.and_then(|start| Some((start, self.buffer.get_mut(start..end)?))) {
            Some((start, target)) => {
                target.copy_from_slice(bytes);
                self.start = start;
            }
            None => self.overflow = true,
        }
    }

    /// A value whose contents `contents` writes, last part first.
    pub(crate) fn nested(&mut self, tag: u8, contents: impl FnOnce(&mut Self)) {
        let end = self.start;
        contents(self);
        let len = end - self.start;
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short), _) if short < 0x80 => self.raw(&[tag, short]),
            (Ok(byte), _) => self.raw(&[tag, 0x81, byte]),
            (_, Ok(word)) => {
                let [high, low] = word.to_be_bytes();
                self.raw(&[tag, 0x82, high, low]);
            }
            // Nothing here is that long.
            _ => self.overflow = true,
        }
    }

    /// A value with these contents.
    pub(crate) fn value(&mut self, tag: u8, contents: &[u8]) {
        self.nested(tag, |writer| writer.raw(contents));
    }

    /// A number that is not negative, from its big-endian bytes.
    pub(crate) fn unsigned(&mut self, big_endian: &[u8]) {
        let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
        let digits = big_endian.get(zeros..).unwrap_or_default();
        self.nested(super::tag::INTEGER, |writer| {
            writer.raw(digits);
            if digits.first().is_none_or(|byte| byte & 0x80 != 0) {
                writer.raw(&[0]);
            }
        });
    }

    /// Bits whose number is a multiple of eight.
    pub(crate) fn bits(&mut self, contents: impl FnOnce(&mut Self)) {
        self.nested(super::tag::BIT_STRING, |writer| {
            contents(writer);
            writer.raw(&[0]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tag;
    use super::*;

    fn written<const N: usize>(write: impl FnOnce(&mut Writer<'_>)) -> [u8; N] {
        let mut buffer = [0; 600];
        let mut writer = Writer::new(&mut buffer);
        write(&mut writer);
        writer.written().unwrap().try_into().unwrap()
    }

    #[test]
    fn numbers_take_no_more_bytes_than_they_need() {
        assert_eq!(written(|writer| writer.unsigned(&[])), [2, 1, 0]);
        assert_eq!(written(|writer| writer.unsigned(&[0, 0])), [2, 1, 0]);
        assert_eq!(written(|writer| writer.unsigned(&[0, 5])), [2, 1, 5]);
        assert_eq!(written(|writer| writer.unsigned(&[0x80])), [2, 2, 0, 0x80]);
    }

    #[test]
    fn lengths_grow_with_what_is_inside() {
        let long = written::<203>(|writer| writer.value(tag::OCTET_STRING, &[7; 200]));
        assert_eq!(long[..4], [4, 0x81, 200, 7]);
        let longer = written::<504>(|writer| writer.value(tag::OCTET_STRING, &[7; 500]));
        assert_eq!(longer[..5], [4, 0x82, 1, 244, 7]);
    }

    #[test]
    fn too_much_is_nothing() {
        let mut buffer = [0; 4];
        let mut writer = Writer::new(&mut buffer);
        writer.value(tag::OCTET_STRING, &[1, 2, 3]);
        assert_eq!(writer.written(), None);
    }
}

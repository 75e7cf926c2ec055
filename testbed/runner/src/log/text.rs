/// Collects bytes into lines of bounded length.
#[derive(Debug, Default)]
pub(super) struct LineSplitter(Vec<u8>);

impl LineSplitter {
    /// What has no end by then is cut.
    const MAX_LINE: usize = 4096;

    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(String)) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line(&mut each);
            } else {
                self.0.push(byte);
                if self.0.len() >= Self::MAX_LINE {
                    self.end_line(&mut each);
                }
            }
        }
    }

    /// Hands out a line that has no end yet.
    pub(super) fn finish(&mut self, mut each: impl FnMut(String)) {
        if !self.0.is_empty() {
            self.end_line(&mut each);
        }
    }

    fn end_line(&mut self, each: &mut impl FnMut(String)) {
        let line = String::from_utf8_lossy(&self.0);
        each(printable(line.trim_end_matches('\r')));
        self.0.clear();
    }
}

/// What a firmware wrote, without anything that could act on a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            control if control.is_control() => shown.extend(control.escape_default()),
            other => shown.push(other),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_harmless() {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        splitter.feed(b"one\r\ntw", |line| lines.push(line));
        splitter.feed(b"o\n\x1b[2J\xff", |line| lines.push(line));
        splitter.finish(|line| lines.push(line));
        splitter.finish(|line| lines.push(line));
        splitter.feed(&[b'x'; 5000], |line| lines.push(line));
        assert_eq!(lines[..3], ["one", "two", "\\u{1b}[2J\u{fffd}"]);
        assert_eq!(lines[3].len(), 4096);
        assert_eq!(lines.len(), 4);
    }
}

//! An inspection as a table for people.

use core::fmt;

use super::{HeaderFacts, Inspection, Memory};
use crate::manifest::Size;

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "IGVM version {}, {}, {} bytes: {} of headers, {} of data; checksum {:#010x}",
            self.version,
            self.architecture,
            self.file_bytes,
            self.header_bytes,
            self.file_bytes.saturating_sub(self.header_bytes),
            self.checksum
        )?;
        for platform in &self.platforms {
            writeln!(
                f,
                "\nplatform {} (mask {:#x}, version {}, highest VTL {}, shared from {:#x})",
                platform.platform,
                platform.mask,
                platform.version,
                platform.highest_vtl,
                platform.shared_gpa_boundary
            )?;
            for (class, pages) in &platform.pages {
                let bytes = Size::new(pages.saturating_mul(crate::PAGE_BYTES));
                writeln!(f, "  {class:<16} {pages:>9} {:<5}  {bytes}", unit(*pages))?;
            }
            writeln!(
                f,
                "  {:<16} {:>9} pages",
                "launch update", platform.launch_pages
            )?;
        }
        for (title, headers) in [
            ("initialization", &self.initialization),
            ("directives", &self.directives),
        ] {
            if !headers.is_empty() {
                writeln!(f, "\n{title}")?;
            }
            for run in Runs(headers) {
                writeln!(f, "  {run}")?;
            }
        }
        if !self.remarks.is_empty() {
            writeln!(f, "\nremarks")?;
        }
        for remark in &self.remarks {
            writeln!(f, "  {remark}")?;
        }
        Ok(())
    }
}

const fn unit(pages: u64) -> &'static str {
    if pages == 1 { "page" } else { "pages" }
}

/// Headers that follow each other and differ only in adjacent addresses.
struct Run<'a> {
    first: &'a HeaderFacts,
    headers: usize,
    memory: Option<Memory>,
}

/// Takes runs off the front of a list of headers.
struct Runs<'a>(&'a [HeaderFacts]);

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let (first, mut rest) = self.0.split_first()?;
        let mut run = Run {
            first,
            headers: 1,
            memory: first.memory,
        };
        while let Some((next, after)) = rest.split_first()
            && run.take(next)
        {
            rest = after;
        }
        self.0 = rest;
        Some(run)
    }
}

impl Run<'_> {
    /// Makes `next` part of the run, if it continues it.
    fn take(&mut self, next: &HeaderFacts) -> bool {
        let alike = next.kind == self.first.kind
            && next.platforms == self.first.platforms
            && next.class == self.first.class
            && next.details == self.first.details;
        match (&mut self.memory, next.memory) {
            (Some(memory), Some(more)) if alike && memory.end() == more.gpa => {
                memory.pages = memory.pages.saturating_add(more.pages);
                self.headers += 1;
                true
            }
            _ => false,
        }
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = match self.headers {
            1 => self.first.index.to_string(),
            more => format!("{}-{}", self.first.index, self.first.index + more - 1),
        };
        write!(f, "{index:>9}  ")?;
        self.first.line(f, self.memory)
    }
}

impl fmt::Display for HeaderFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f, self.memory)
    }
}

impl HeaderFacts {
    fn line(&self, f: &mut fmt::Formatter<'_>, memory: Option<Memory>) -> fmt::Result {
        let mut words = vec![format!("{:<16}", self.kind)];
        words.extend(self.platforms.iter().map(ToString::to_string));
        if let Some(memory) = memory {
            words.push(format!("{:#x}..{:#x}", memory.gpa, memory.end()));
            words.push(format!("{} {}", memory.pages, unit(memory.pages)));
        }
        words.extend(self.class.iter().map(ToString::to_string));
        words.extend(
            self.details
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        f.write_str(words.join("  ").trim_end())
    }
}

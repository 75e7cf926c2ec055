//! The state of all pages, for the reports.

use super::shared::Shared;
use core::fmt::{self, Write};
use svsm_sim::rmp::{Entry, PageSize, Permissions, State, Vmpl};

/// How many ranges go into a line.
const RANGES: usize = 64;

/// What pages next to each other can have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    state: State,
    size: PageSize,
    area: bool,
    rights: [Permissions; 4],
}

impl Kind {
    fn of(entry: &Entry) -> Self {
        Self {
            state: entry.state(),
            size: entry.size(),
            area: entry.is_vmsa(),
            rights: Vmpl::ALL.map(|level| entry.permissions(level)),
        }
    }

    const fn state(self) -> &'static str {
        match self.state {
            State::Hypervisor => "shared",
            State::PreGuest => "pre-guest",
            State::GuestInvalid => "private-invalid",
            State::GuestValid => "private-valid",
            State::Firmware => "firmware",
        }
    }
}

/// Pages of one kind, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Range {
    gpa: u64,
    pages: u64,
    kind: Kind,
}

/// Reports all of the guest's pages, in lines of many ranges; `when` says which moment it is.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, when: &str, shared: &Shared<'_>) -> fmt::Result {
    // A CPU that did not stop in time may hold it: then there is nothing to be had.
    let Some(owned) = shared.state.try_lock() else {
        return Ok(());
    };
    let mut lines = Lines {
        out,
        when,
        in_line: 0,
    };
    let mut open: Option<Range> = None;
    for (range, home) in shared.map.ranges() {
        let (start, bytes) = (range.start().as_u64(), range.len_bytes());
        for offset in (0..bytes).step_by(4096) {
            let Some(entry) = owned.rmp.entry(home.as_u64() + offset) else {
                continue;
            };
            let (gpa, kind) = (start + offset, Kind::of(entry));
            match &mut open {
                Some(range) if range.kind == kind && range.gpa + range.pages * 4096 == gpa => {
                    range.pages += 1;
                }
                _ => {
                    if let Some(done) = open.take() {
                        lines.add(&done)?;
                    }
                    let pages = 1;
                    open = Some(Range { gpa, pages, kind });
                }
            }
        }
    }
    if let Some(done) = open {
        lines.add(&done)?;
    }
    lines.end()
}

/// The state of one page, as text.
///
/// # Errors
/// Those of `out`.
pub fn describe(out: &mut impl Write, entry: &Entry) -> fmt::Result {
    let kind = Kind::of(entry);
    let area = if kind.area { ", save area" } else { "" };
    write!(
        out,
        "{}, page of {:#x}{area}; rights",
        kind.state(),
        kind.size.bytes()
    )?;
    for (level, rights) in kind.rights.iter().enumerate() {
        write!(out, " VMPL{level} {}", Letters(*rights))?;
    }
    Ok(())
}

struct Lines<'a, W> {
    out: &'a mut W,
    when: &'a str,
    in_line: usize,
}

impl<W: Write> Lines<'_, W> {
    fn add(&mut self, range: &Range) -> fmt::Result {
        if self.in_line == RANGES {
            self.end()?;
        }
        let (when, out) = (self.when, &mut *self.out);
        if self.in_line == 0 {
            write!(out, r#"{{"event":"rmp","when":"{when}","ranges":["#)?;
        } else {
            out.write_char(',')?;
        }
        self.in_line += 1;
        let Range { gpa, pages, kind } = range;
        let state = kind.state();
        let bytes = kind.size.bytes();
        write!(
            out,
            r#"{{"gpa":"{gpa:#x}","pages":{pages},"state":"{state}","size":{bytes},"vmsa":{},"rights":["#,
            kind.area
        )?;
        for (level, rights) in kind.rights.iter().enumerate() {
            let comma = if level == 0 { "" } else { "," };
            write!(out, r#"{comma}"{}""#, Letters(*rights))?;
        }
        out.write_str("]}")
    }

    fn end(&mut self) -> fmt::Result {
        if self.in_line > 0 {
            self.out.write_str("]}\n")?;
        }
        self.in_line = 0;
        Ok(())
    }
}

/// Rights as letters: read, write, execute in ring 3, execute elsewhere, shadow stack.
struct Letters(Permissions);

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [
            (Permissions::READ, 'r'),
            (Permissions::WRITE, 'w'),
            (Permissions::EXECUTE_USER, 'u'),
            (Permissions::EXECUTE_SUPERVISOR, 'x'),
            (Permissions::SHADOW_STACK, 's'),
        ] {
            let there = self.0.contains(right);
            f.write_char(if there { letter } else { '-' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_json_and_lines_are_bounded() {
        let mut out = String::new();
        let kind = Kind {
            state: State::GuestValid,
            size: PageSize::Size4K,
            area: false,
            rights: [
                Permissions::all(),
                Permissions::READ,
                Permissions::empty(),
                Permissions::empty(),
            ],
        };
        let mut lines = Lines {
            out: &mut out,
            when: "end",
            in_line: 0,
        };
        for number in 0..100 {
            let (gpa, pages) = (number << 20, 3);
            lines.add(&Range { gpa, pages, kind }).unwrap();
        }
        lines.end().unwrap();
        let values: Vec<serde_json::Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let counts: Vec<_> = values
            .iter()
            .map(|value| value["ranges"].as_array().unwrap().len())
            .collect();
        assert_eq!(counts, [64, 36]);
        assert_eq!(values[0]["ranges"][1]["gpa"], "0x100000");
        assert_eq!(values[0]["ranges"][1]["rights"][1], "r----");
    }
}

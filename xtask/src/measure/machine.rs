//! The software machine: what exits cost, how long Linux takes on it, how large it is.

use super::{Figure, parse};
use crate::firmware::Programs;
use crate::linux::{self, Guest, Lab, Platform};
use crate::setup::{self, Bare, Install};
use crate::workspace;
use anyhow::{Context, Result, bail};
use core::time::Duration;
use std::path::Path;
use svsm_testbed::{Platform as MachinePlatform, Run};
use svsm_testbed_guest::image;

/// How often Linux starts in each way; the median counts.
const STARTS: usize = 3;

pub(super) fn figures() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    costs(&mut figures)?;
    starts(&mut figures)?;
    size(&mut figures)?;
    Ok(figures)
}

/// Ticks of what the guests do, under counted instructions and by the clock of this computer.
fn costs(figures: &mut Vec<Figure>) -> Result<()> {
    let bare = Bare::find(Install::Allowed)?;
    let programs = Programs::build(&bare)?;
    Programs::build_guests(&bare)?;
    let guest = std::fs::read(programs.elf("svsm-testbed-guest")?)?;
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
    let file = scratch.path().join("figures.igvm");
    let image = image::snp(&guest, false).context("no image of the small guests")?;
    std::fs::write(&file, image)?;
    let outcome = Run::new(file)
        .qemu(setup::qemu(Install::Allowed)?.program)
        .machine_elf(programs.elf("svsm-machine")?)
        .platform(MachinePlatform::Snp)
        .memory(64 << 20)
        .command_line("snp-figures")
        .expect("snp-figures: ok")
        .timeout(Duration::from_secs(300))
        .icount(true)
        .start(&mut |_| ())?;
    if !outcome.verdict.is_passed() {
        bail!("{}\n{}", outcome.verdict, crate::bench::tail(&outcome));
    }
    for (what, value) in outcome.log.iter().filter_map(|line| parse(&line.message)) {
        figures.push(Figure::new(
            "instructions, the machine's included",
            what,
            value,
        ));
    }
    Ok(())
}

/// Milliseconds from the start of QEMU to its end.
fn starts(figures: &mut Vec<Figure>) -> Result<()> {
    let lab = Lab::build(None, None)?;
    let mut times: [Vec<Duration>; 3] = Default::default();
    // In turn, so that a slow minute of this computer hits all of them.
    for _ in 0..STARTS {
        let [without, plain, snp] = &mut times;
        without.push(lab.without_machine(1)?);
        plain.push(linux::passes(&lab, &Guest::of(Platform::Plain, 1))?.wall_time);
        snp.push(linux::passes(&lab, &Guest::of(Platform::Snp, 1))?.wall_time);
    }
    let group = "Linux from start to power-off, median ms";
    let names = [
        "in QEMU itself",
        "on the software machine, plain",
        "on it, as an SNP guest",
    ];
    for (name, mut times) in names.into_iter().zip(times) {
        times.sort();
        let middle = times.get(STARTS / 2).copied().unwrap_or_default();
        let ms = u64::try_from(middle.as_millis()).unwrap_or(u64::MAX);
        figures.push(Figure::new(group, name, ms));
    }
    Ok(())
}

/// Lines of code, and blocks of unsafe code.
fn size(figures: &mut Vec<Figure>) -> Result<()> {
    let mut count = Count::default();
    count.add(&workspace::root().join("testbed/machine/src"))?;
    let group = "size";
    figures.push(Figure::new(
        group,
        "lines of the software machine",
        count.lines,
    ));
    figures.push(Figure::new(
        group,
        "of these in files with unsafe code",
        count.unsafe_lines,
    ));
    figures.push(Figure::new(group, "unsafe blocks", count.blocks));
    Ok(())
}

#[derive(Default)]
struct Count {
    lines: u64,
    unsafe_lines: u64,
    blocks: u64,
}

impl Count {
    fn add(&mut self, dir: &Path) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                self.add(&path)?;
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                self.text(&std::fs::read_to_string(&path)?);
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        let lines = text.lines().count() as u64;
        let blocks = text.matches("unsafe {").count() as u64;
        self.lines += lines;
        self.blocks += blocks;
        if blocks > 0 {
            self.unsafe_lines += lines;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_blocks_are_counted() {
        let mut count = Count::default();
        count.text("fn a() {}\n");
        count.text("fn b() {\n    unsafe { c() };\n}\n");
        assert_eq!((count.lines, count.unsafe_lines, count.blocks), (4, 3, 1));
    }
}

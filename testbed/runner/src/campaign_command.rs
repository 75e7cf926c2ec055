//! `svsm-testbed campaign`.

use core::hash::{Hash as _, Hasher as _};
use core::time::Duration;
use std::fs;
use std::hash::DefaultHasher;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use svsm_testbed::campaign::{Campaign, Report, Status};
use svsm_testbed::{Cancel, Error};

use crate::cli::{CampaignArgs, GuestArgs};

/// How often progress is shown where lines cannot be overwritten.
const INTERVAL: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &CampaignArgs) -> Result<ExitCode> {
    let cancel = Cancel::default();
    let on_signal = cancel.clone();
    ctrlc::set_handler(move || on_signal.cancel()).context("cannot catch Ctrl-C")?;
    let guest = &args.guest;
    let campaign = Campaign::new(&args.faults, args.seeds, identity(guest)?)
        .each(args.each)
        .partition(args.partition)
        .jobs(args.jobs.into())
        .state(args.state())
        .restart(args.restart)
        .cancel(cancel.clone());
    // Whatever is wrong with the choice is said before anything runs.
    let cases = campaign.cases()?.len();
    eprintln!("svsm-testbed: {cases} cases; an honest host first");
    let one = || {
        let images = guest.images.load(Some(&guest.image))?;
        let run = crate::configure(guest, images, false);
        // Cases are alike, and run side by side.
        Ok(if guest.disk.is_empty() {
            run
        } else {
            run.qemu_arg("-snapshot")
        })
    };
    let honest = one()?.cancel(cancel).start(&mut |_| ())?;
    if !honest.verdict.is_passed() {
        eprintln!(
            "svsm-testbed: with an honest host the image does not pass: {}",
            honest.verdict
        );
        return Ok(ExitCode::from(match honest.verdict.exit_code() {
            0 | 3 | 4 => 1,
            other => other,
        }));
    }
    let mut shown = Shown::new();
    let report = campaign.start(&one, &mut |status| shown.show(status))?;
    shown.clear();
    print!("{}", report.text());
    write(args, &report)?;
    Ok(ExitCode::from(report.exit_code()))
}

fn write(args: &CampaignArgs, report: &Report) -> Result<()> {
    let put = |file: &Path, text: &str| {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = &args.junit {
        put(file, &report.junit())?;
    }
    if let Some(file) = &args.json {
        put(
            file,
            &(serde_json::to_string_pretty(&report.json())? + "\n"),
        )?;
    }
    Ok(())
}

/// What a state file must be of: the image's name and content, and all that changes what it does.
fn identity(guest: &GuestArgs) -> Result<String> {
    let bytes = fs::read(&guest.image).map_err(|cause| Error::Unreadable {
        path: guest.image.clone(),
        wanted_as: "image",
        cause,
    })?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!(
        "{:?} {} {} {:?} {:?} {:?}",
        guest.platform, guest.smp, guest.memory, guest.expect, guest.append, guest.machine_arg
    )
    .hash(&mut hasher);
    let name = guest.image.file_name().unwrap_or_default();
    Ok(format!(
        "{} {:016x}",
        name.to_string_lossy(),
        hasher.finish()
    ))
}

/// The progress line.
struct Shown {
    terminal: bool,
    last: Option<Instant>,
    wrong: usize,
}

impl Shown {
    fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            last: None,
            wrong: 0,
        }
    }

    fn show(&mut self, status: &Status<'_>) {
        let due = self.last.is_none_or(|last| last.elapsed() >= INTERVAL);
        // A case that ended as it may not is worth a line at once.
        let news = status.wrong > self.wrong;
        if let (true, Some(latest)) = (news, status.latest) {
            self.clear();
            eprintln!("{}: {} ({})", latest.case, latest.class, latest.verdict);
        }
        self.wrong = status.wrong;
        if !self.terminal && !due && !news {
            return;
        }
        self.last = Some(Instant::now());
        let line = line(status);
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            // Standard error is not buffered, and if it fails nobody looks.
            let _ = io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(status: &Status<'_>) -> String {
    let new = status.done.saturating_sub(status.before);
    let mut line = format!(
        "[{}/{}] {} as they may not",
        status.done, status.cases, status.wrong
    );
    if new > 0 {
        let left = status.cases.saturating_sub(status.done);
        let each = status.elapsed.as_secs_f64() / f64::from(u32::try_from(new).unwrap_or(u32::MAX));
        let rest = each * f64::from(u32::try_from(left).unwrap_or(u32::MAX));
        line.push_str(&format!(
            ", {each:.1} s a case, {:.0} min left",
            rest / 60.0
        ));
    } else if status.before > 0 {
        line.push_str(&format!(", {} of them done before", status.before));
    }
    line
}

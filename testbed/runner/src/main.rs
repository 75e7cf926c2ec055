//! The command `svsm-testbed`: see `svsm-testbed --help`.

mod campaign_command;
mod cli;

use core::time::Duration;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use svsm_testbed::faults;
use svsm_testbed::log::{Interpreter, TimeSource};
use svsm_testbed::show::{Format, Printer};
use svsm_testbed::summary::Summary;
use svsm_testbed::{Cancel, Images, MachineEvent, Outcome, Progress, Run, Timeline, Trace};

use cli::{Cli, Command, DecodeArgs, FaultsArgs, GuestArgs, RunArgs};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Decode(args) => decode(&args).map(|()| ExitCode::SUCCESS),
        Command::Campaign(args) => campaign_command::run(&args),
        Command::Faults(args) => list_faults(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        let known = error.downcast_ref::<svsm_testbed::Error>();
        eprintln!("svsm-testbed: {error:#}");
        if let Some(remedy) = known.and_then(svsm_testbed::Error::remedy) {
            eprintln!("  {remedy}");
        }
        ExitCode::from(known.map_or(5, svsm_testbed::Error::exit_code))
    })
}

fn run(args: &RunArgs) -> Result<ExitCode> {
    let cancel = Cancel::default();
    let on_signal = cancel.clone();
    ctrlc::set_handler(move || on_signal.cancel()).context("cannot catch Ctrl-C")?;
    let guest = &args.guest;
    let images = guest.images.load(Some(&guest.image))?;
    for file in images.stale() {
        eprintln!(
            "svsm-testbed: {} is gone, or newer than the image",
            file.display()
        );
    }
    let debugged = args.gdb.is_some() || args.gdb_machine.is_some();
    if let Some(port) = args.gdb {
        let programs = images.iter().map(svsm_testbed::images::Image::path);
        explain_gdb("the guest", programs, port);
    }
    if let Some(port) = args.gdb_machine {
        // Firmware may be linked at the same addresses, and QEMU finds none of its memory.
        explain_gdb(
            "the machine",
            guest.machine_elf().as_deref().into_iter(),
            port,
        );
    }
    let run = configure(guest, images, debugged)
        .gdb(args.gdb)
        .gdb_machine(args.gdb_machine)
        .cancel(cancel.clone())
        .trace(match args.trace {
            Some(which) => which.into(),
            None if !args.timeline.is_empty() => Trace::Exits,
            None => Trace::Off,
        })
        .pages(args.rmp.is_some() || !args.timeline.is_empty())
        .faults(args.faults.plan()?);
    let mut timeline = Timeline::default();
    let format = Format::from(args.log);
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut printer = Printer::new(io::stdout().lock(), format, coloured);
    let mut printed = Ok(());
    let outcome = run.start(&mut |progress| {
        timeline.take(&progress);
        // What is only for the timeline is not shown.
        let quiet =
            args.trace.is_none() && matches!(progress, Progress::Machine(MachineEvent::Exit(_)));
        if printed.is_ok() && !quiet {
            printed = printer.progress(&progress);
        }
        if printed.is_err() {
            // Nobody reads any more (`| head`): there is nothing left to do.
            cancel.cancel();
        }
    })?;
    if let Some(path) = &args.json_result {
        write_result(path, &outcome).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.rmp {
        let text = serde_json::to_string_pretty(&outcome.pages)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for path in &args.timeline {
        let text = match path.extension() {
            Some(html) if html == "html" => timeline.html(&outcome),
            _ => timeline.json(&outcome).to_string() + "\n",
        };
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.summary && format == Format::Text && printed.is_ok() {
        println!("\n{}", Summary::new(&outcome));
    }
    if format == Format::Raw {
        Printer::new(io::stderr().lock(), format, io::stderr().is_terminal()).outcome(&outcome)?;
    } else if printed.is_ok() {
        printer.outcome(&outcome)?;
    }
    Ok(ExitCode::from(outcome.verdict.exit_code()))
}

fn configure(args: &GuestArgs, images: Images, endless: bool) -> Run {
    let mut run = Run::new(&args.image)
        .machine(args.machine.into())
        .platform(args.platform.into())
        .cpus(args.smp)
        .memory(args.memory)
        .timeout(args.timeout(endless))
        .qemu(&args.qemu)
        .icount(args.icount)
        .images(images)
        .stop_when_expected(args.until_expected);
    if let Some(elf) = args.machine_elf() {
        run = run.machine_elf(elf);
    }
    if let Some(text) = &args.append {
        run = run.command_line(text);
    }
    if let Some(file) = &args.kernel {
        run = run.kernel(file);
    }
    if let Some(file) = &args.initrd {
        run = run.initrd(file);
    }
    if let Some(text) = &args.kernel_append {
        run = run.kernel_command_line(text);
    }
    run = args.disk.iter().fold(run, Run::disk);
    run = args.expect.iter().fold(run, Run::expect);
    run = args.machine_arg.iter().fold(run, Run::machine_arg);
    args.qemu_arg.iter().fold(run, Run::qemu_arg)
}

/// Says how a debugger is attached.
fn explain_gdb<'a>(of: &str, programs: impl Iterator<Item = &'a Path>, port: u16) {
    let mut command = String::from("gdb -ex 'set confirm off'");
    for file in programs {
        command += &format!(" -ex 'add-symbol-file {}'", file.display());
    }
    eprintln!(
        "svsm-testbed: waiting for a debugger of {of}, which then says `continue`:\n  \
         {command} -ex 'target remote localhost:{port}'"
    );
}

fn list_faults(args: &FaultsArgs) -> Result<()> {
    let text = if args.json {
        serde_json::to_string_pretty(&faults::json())? + "\n"
    } else {
        faults::table()
    };
    ended(io::stdout().lock().write_all(text.as_bytes()))
}

fn write_result(path: &Path, outcome: &Outcome) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(outcome)?;
    text.push(b'\n');
    std::fs::write(path, text)?;
    Ok(())
}

fn decode(args: &DecodeArgs) -> Result<()> {
    let images: Images = args.images.load(None)?;
    let mut input: Box<dyn io::Read> = match &args.file {
        Some(path) => {
            let file = std::fs::File::open(path);
            Box::new(file.with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut printer = Printer::new(
        io::stdout().lock(),
        args.log.into(),
        io::stdout().is_terminal(),
    );
    let mut interpreter = Interpreter::new(images, TimeSource::Arrival);
    let began = Instant::now();
    let mut printed = Ok(());
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = input.read(&mut buffer).context("cannot read the log")?;
        let mut show = |line| {
            if printed.is_ok() {
                printed = printer.progress(&Progress::Line(&line));
            }
        };
        if len == 0 {
            interpreter.finish(began.elapsed(), &mut show);
            return ended(printed);
        }
        interpreter.feed(
            began.elapsed(),
            buffer.get(..len).unwrap_or_default(),
            &mut show,
        );
        if printed.is_err() {
            return ended(printed);
        }
    }
}

/// A reader that has had enough is no failure.
fn ended(printed: io::Result<()>) -> Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write"),
    }
}

/// How long a run may take, from seconds on the command line.
fn seconds(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

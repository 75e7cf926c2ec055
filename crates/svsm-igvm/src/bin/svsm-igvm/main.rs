//! The command `svsm-igvm`.

mod attest;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use svsm_igvm::file::ImageFile;
use svsm_igvm::linux::Platform;
use svsm_igvm::symbols::Symbols;
use svsm_igvm::{Error, Linux, Loader, Manifest, Options, build, diff, inspect, linux, manifest};

/// Lays out, writes, inspects, compares and signs IGVM images of paravisors, and
/// verifies what runs.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status:\n  \
        0  done; for diff: the images are the same; for verify: trusted\n  \
        1  the answer is no: the images differ, a budget is exceeded, or not trusted\n  \
        2  refused: a file, a manifest or the command line is wrong"
)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(Build),
    Inspect(Inspect),
    Diff(Diff),
    Manifest(CheckManifest),
    Linux(BuildLinux),
    Sign(attest::Sign),
    Verify(Box<attest::Verify>),
}

/// Builds the image that a manifest describes.
///
/// Prints pages by kind, each with its budget, and for SEV-SNP what attestation
/// reports must say. Beside the image it writes IMAGE.symbols.json, which tells
/// logs and stack traces where the ELF files are. Same input, same image.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  svsm-igvm build image.toml -o svsm.igvm\n  \
        svsm-igvm build image.toml -o svsm.igvm --loader qemu --elf svsm=target/svsm\n  \
        svsm-igvm build image.toml -o svsm.igvm --id-key id.pem --json > svsm.json"
)]
struct Build {
    /// The image manifest
    manifest: PathBuf,
    /// Where the image goes
    #[arg(short, long)]
    output: PathBuf,
    /// Who will load the image: machine, qemu, openvmm or cloud-hypervisor
    #[arg(long, default_value = "machine", value_name = "NAME")]
    loader: Loader,
    /// Take a program from elsewhere: svsm, stage2, or the name of a service
    #[arg(long, value_name = "NAME=PATH", value_parser = name_and_path)]
    elf: Vec<(String, PathBuf)>,
    #[command(flatten)]
    keys: attest::KeyArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Shows what is in an IGVM file, whoever wrote it.
///
/// Damaged files are refused with the offset and the header at fault. Remarks
/// at the end tell what is strange about a file that can be loaded.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  svsm-igvm inspect svsm.igvm\n  \
        svsm-igvm inspect --json svsm.igvm | jq '.platforms[].launch_pages'")]
struct Inspect {
    /// The IGVM file
    file: PathBuf,
    /// Print JSON, with every header by itself
    #[arg(long)]
    json: bool,
}

/// Shows what differs between two IGVM files, header by header and page by page.
///
/// File offsets and compatibility masks may differ: two files are the same if
/// they make the same guest in the same order.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  svsm-igvm diff yesterday.igvm today.igvm")]
struct Diff {
    /// An IGVM file
    left: PathBuf,
    /// The file to compare it with
    right: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks an image manifest, or prints an example.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  svsm-igvm manifest --example > image.toml\n  \
        svsm-igvm manifest image.toml"
)]
struct CheckManifest {
    /// The manifest to check
    #[arg(required_unless_present = "example")]
    file: Option<PathBuf>,
    /// Print a manifest that has every key, with comments
    #[arg(long, conflicts_with = "file")]
    example: bool,
    /// Print the manifest as JSON, with all defaults
    #[arg(long, conflicts_with = "example")]
    json: bool,
}

/// Builds an image that starts a Linux kernel directly.
///
/// Without firmware and without a paravisor: kernel, RAM disk, command line,
/// ACPI tables and memory map are all in the image, so the machine that loads
/// it must have as much memory as the image says. With SEV-SNP the guest runs
/// at VMPL0, and a stub validates its memory before the kernel starts.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  svsm-igvm linux --kernel vmlinuz --initrd initrd.img \\\n      \
        --append 'console=ttyS0' --platform snp --memory 512M -o linux.igvm"
)]
struct BuildLinux {
    /// The kernel (bzImage)
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    append: String,
    /// What protects the guest
    #[arg(long, value_enum, default_value_t)]
    platform: PlatformArg,
    /// Memory of the guest: 64M to 2G, in steps of 2M
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = size)]
    memory: u64,
    /// How many processors the guest is told of
    #[arg(long, value_name = "N", default_value_t = 1)]
    smp: u32,
    /// Where the image goes
    #[arg(short, long)]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PlatformArg {
    /// Nothing
    #[default]
    Native,
    /// AMD SEV-SNP
    Snp,
}

/// What a verb found, if it found an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

fn main() -> ExitCode {
    let answer = match Command::parse().verb {
        Verb::Build(verb) => verb.run(),
        Verb::Inspect(verb) => verb.run(),
        Verb::Diff(verb) => verb.run(),
        Verb::Manifest(verb) => verb.run(),
        Verb::Linux(verb) => verb.run(),
        Verb::Sign(verb) => verb.run(),
        Verb::Verify(verb) => verb.run(),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(Failure(message)) => {
            eprintln!("svsm-igvm: {message}");
            ExitCode::from(2)
        }
    }
}

/// Why there is no answer, for people.
#[derive(Debug)]
struct Failure(String);

impl<E: core::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Build {
    fn run(&self) -> Result<Answer, Failure> {
        let mut manifest = Manifest::load(&self.manifest)?;
        for (name, path) in &self.elf {
            manifest.replace_elf(name, path)?;
        }
        let keys = self.keys.load()?;
        let image = build(&manifest, &Options::new(self.loader)).and_then(|image| match &keys {
            Some(keys) => image.sign(&manifest, keys),
            None => Ok(image),
        });
        let image = match image {
            Err(error @ Error::Budget(_)) => {
                eprintln!("svsm-igvm: {error}");
                return Ok(Answer::No);
            }
            other => other?,
        };
        write(&self.output, &image.bytes)?;
        let symbols = to_json(&image.symbols)?;
        write(&Symbols::path_beside(&self.output), symbols.as_bytes())?;
        if self.json {
            print(&to_json(&image.report)?)?;
        } else {
            print(&image.report.to_string())?;
        }
        Ok(Answer::Yes)
    }
}

impl Inspect {
    fn run(&self) -> Result<Answer, Failure> {
        let bytes = read(&self.file)?;
        let inspection = inspect(&bytes).map_err(|error| about(&self.file, &error))?;
        if self.json {
            print(&to_json(&inspection)?)?;
        } else {
            print(&inspection.to_string())?;
        }
        Ok(Answer::Yes)
    }
}

impl Diff {
    fn run(&self) -> Result<Answer, Failure> {
        let (left, right) = (read(&self.left)?, read(&self.right)?);
        let left = ImageFile::read(&left).map_err(|error| about(&self.left, &error))?;
        let right = ImageFile::read(&right).map_err(|error| about(&self.right, &error))?;
        let differences = diff(&left, &right);
        if self.json {
            print(&to_json(&differences)?)?;
        } else {
            print(
                &differences
                    .iter()
                    .map(|line| format!("{line}\n"))
                    .collect::<String>(),
            )?;
        }
        Ok(if differences.is_empty() {
            Answer::Yes
        } else {
            Answer::No
        })
    }
}

impl CheckManifest {
    fn run(&self) -> Result<Answer, Failure> {
        let Some(file) = &self.file else {
            print(manifest::EXAMPLE)?;
            return Ok(Answer::Yes);
        };
        let manifest = Manifest::load(file)?;
        if self.json {
            print(&to_json(&manifest)?)?;
        } else {
            print(&format!("{}: good\n", file.display()))?;
        }
        Ok(Answer::Yes)
    }
}

impl BuildLinux {
    fn run(&self) -> Result<Answer, Failure> {
        let kernel = read(&self.kernel)?;
        let initrd = self.initrd.as_deref().map(read).transpose()?;
        let image = linux(&Linux {
            kernel: &kernel,
            initrd: initrd.as_deref().unwrap_or_default(),
            command_line: &self.append,
            platform: match self.platform {
                PlatformArg::Native => Platform::Native,
                PlatformArg::Snp => Platform::Snp,
            },
            memory: self.memory,
            processors: self.smp,
        })?;
        write(&self.output, &image)?;
        Ok(Answer::Yes)
    }
}

/// A number of bytes with an optional unit: K, M or G.
fn size(argument: &str) -> Result<u64, &'static str> {
    let (digits, shift) = match argument.as_bytes().last() {
        Some(b'K') => (argument.strip_suffix('K'), 10),
        Some(b'M') => (argument.strip_suffix('M'), 20),
        Some(b'G') => (argument.strip_suffix('G'), 30),
        _ => (Some(argument), 0),
    };
    digits
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or("it takes a number with K, M or G")
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path);
    Ok(bytes.map_err(|source| Error::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    })?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let done = std::fs::write(path, bytes);
    Ok(done.map_err(|source| Error::Io {
        verb: "write",
        path: path.to_owned(),
        source,
    })?)
}

fn name_and_path(argument: &str) -> Result<(String, PathBuf), &'static str> {
    let (name, path) = argument.split_once('=').ok_or("it takes NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

fn about(path: &Path, error: &impl core::error::Error) -> Failure {
    Failure(format!("{}: {error}", path.display()))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Prints to standard output. A reader that has seen enough is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }
}

//! Plays the part of QEMU in the tests: it dies in every way there is.
//!
//! The "image" (after `-initrd`, or QEMU's own loader's `file=`) is the script, one command per line. The
//! name it is started under says which version it pretends to be (`fake-8.2.1`), and whether it has an
//! IGVM loader (`…-igvm`).

use core::error::Error;
use core::time::Duration;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use svsm_log::{Class, ImageId, PanicLocation, Sink, Stamp, Verdict, Writer};

type Result<T> = core::result::Result<T, Box<dyn Error>>;

const STAMP: Stamp = Stamp {
    cpu: 0,
    image: ImageId::UNKNOWN,
    time: 1,
};

/// The firmware's serial port.
struct Com1(File);

impl Sink for Com1 {
    type Error = std::io::Error;

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let name = args.first().map(String::as_str).unwrap_or_default();
    if args.iter().any(|arg| arg == "--version") {
        println!("QEMU emulator version {} (Fake)", version(name));
        return Ok(());
    }
    if args.windows(2).any(|pair| pair == ["-object", "help"]) {
        let igvm = if name.ends_with("-igvm") {
            "  igvm-cfg\n"
        } else {
            ""
        };
        print!("List of user creatable objects:\n{igvm}  rng-random\n");
        return Ok(());
    }
    let mut player = Player {
        com1: std::io::stdout().as_fd().try_clone_to_owned()?.into(),
        report: std::io::stdin().as_fd().try_clone_to_owned()?.into(),
    };
    let script = script(&args).ok_or("no image")?;
    for line in std::fs::read_to_string(script)?.lines() {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        player.play(command, rest)?;
    }
    Ok(())
}

fn version(name: &str) -> &str {
    name.rsplit_once("fake-")
        .map(|(_, version)| version)
        .filter(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or("10.0.2")
}

fn script(args: &[String]) -> Option<&str> {
    let after = |word: &str| {
        let at = args.iter().position(|arg| arg == word)?;
        args.get(at + 1).map(String::as_str)
    };
    after("-initrd").or_else(|| Some(after("-object")?.split_once("file=")?.1))
}

struct Player {
    com1: File,
    report: File,
}

impl Player {
    fn play(&mut self, command: &str, rest: &str) -> Result<()> {
        match command {
            "text" | "passed" | "failed" | "panic" | "raw" | "garbage" | "flood" => {
                self.firmware(command, rest)
            }
            "report" => Ok(writeln!(self.report, "{rest}")?),
            "report-part" => Ok(write!(self.report, "{rest}")?),
            "await-greeting" => match self.report.read(&mut [0; 64])? {
                0 => Err("no greeting".into()),
                _ => Ok(()),
            },
            _ => self.qemu(command, rest),
        }
    }

    /// What the firmware writes.
    fn firmware(&mut self, command: &str, rest: &str) -> Result<()> {
        let mut log = Writer::new(Com1(self.com1.try_clone()?));
        let written = match command {
            "text" => log.text(STAMP, Class::Public, rest),
            "passed" => log.verdict(STAMP, Verdict::Passed),
            "failed" => log.verdict(STAMP, Verdict::Failed(rest.parse()?)),
            "panic" => {
                let (file, line) = rest.split_once(':').ok_or("no line")?;
                let (line, column) = (line.parse()?, 1);
                log.panic(STAMP, PanicLocation { file, line, column })
                    .and_then(|()| log.stack_trace(STAMP, [0x1000, 0x2000]))
            }
            "garbage" => {
                let mut state = 1_u32;
                for _ in 0..rest.parse::<u32>()? {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    self.com1.write_all(&state.to_be_bytes()[..1])?;
                }
                Ok(())
            }
            "flood" => loop {
                let flooded = log.text(STAMP, Class::Public, "again and again and again");
                if flooded.is_err() {
                    break flooded;
                }
            },
            _ => return Ok(writeln!(self.com1, "{rest}")?),
        };
        written.map_err(|error| format!("{error}").into())
    }

    /// What QEMU itself does.
    fn qemu(&mut self, command: &str, rest: &str) -> Result<()> {
        match command {
            "stderr" => eprintln!("{rest}"),
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            // Closes its streams, and hangs.
            "close" => {
                let mut other = Command::new("sleep");
                other
                    .arg("30")
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                return Err(other.exec().into());
            }
            // Something that outlives us and holds on to our streams.
            "orphan" => {
                let child = Command::new("sleep").arg("30").spawn()?;
                std::fs::write(rest, child.id().to_string())?;
            }
            "pid" => std::fs::write(rest, std::process::id().to_string())?,
            // Goes on only with this argument, or only without.
            "with" | "without" => {
                if std::env::args().any(|arg| arg == rest) != (command == "with") {
                    return Err(format!("not {command} {rest}").into());
                }
            }
            "exit" => std::process::exit(rest.parse()?),
            "abort" => std::process::abort(),
            other => return Err(format!("unknown command {other:?}").into()),
        }
        Ok(())
    }
}

//! `tpm-sim`: the TPM of `svsm-vtpm` behind sockets, for software that expects a simulator.

use core::net::IpAddr;
use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tpm_sim::{Machine, Settings, mssim, swtpm};

/// A TPM 2.0 behind a socket.
///
/// It listens on the loopback address and trusts whoever connects.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
How tpm2-tss reaches it (TPM2TOOLS_TCTI for tpm2-tools):
  --protocol mssim              mssim:host=127.0.0.1,port=PORT
  --protocol swtpm              swtpm:host=127.0.0.1,port=PORT
  --protocol swtpm --socket S   swtpm:path=S

How QEMU does, with --protocol swtpm --socket S:
  -chardev socket,id=tpm,path=S.ctrl -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0"
)]
struct Options {
    /// What clients speak
    #[arg(long, value_enum, default_value_t = Protocol::Mssim)]
    protocol: Protocol,

    /// Port for commands
    #[arg(long, short, default_value_t = 2321)]
    port: u16,

    /// Port for power, cancel, locality and the like [default: the one after PORT]
    #[arg(long)]
    ctrl: Option<u16>,

    /// UNIX socket for commands instead of a port; the one for control has `.ctrl` after its name
    #[arg(long, value_name = "PATH", conflicts_with_all = ["port", "ctrl", "bind"])]
    socket: Option<PathBuf>,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,

    /// Keep the permanent state in this file; without, it ends with the process
    #[arg(long)]
    state: Option<PathBuf>,

    /// Print each command and its response to the standard error output
    #[arg(long, short)]
    trace: bool,

    /// Objects that can be loaded at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(3..=64))]
    objects: u8,

    /// Sessions that can be loaded at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(3..=64))]
    sessions: u8,

    /// Authenticated countdown timers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=8))]
    timers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// The TCG's simulator: signals, on a port for commands and one for the platform
    Mssim,
    /// swtpm: bare commands, and a control channel
    Swtpm,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let ctrl = match options.ctrl {
        Some(port) => port,
        None => options
            .port
            .checked_add(1)
            .context("no port after this one; give --ctrl")?,
    };
    anyhow::ensure!(
        options.socket.is_none() || options.protocol == Protocol::Swtpm,
        "--socket needs --protocol swtpm: mssim has TCP ports only"
    );
    let machine = Arc::new(Machine::new(Settings {
        state: options.state,
        objects: usize::from(options.objects),
        sessions: usize::from(options.sessions),
        timers: options.timers,
        trace: options.trace,
    })?);
    match (options.protocol, options.socket) {
        (Protocol::Mssim, _) => mssim::serve(&machine, options.bind, options.port, ctrl),
        (Protocol::Swtpm, None) => {
            swtpm::Service::new(machine).serve_tcp(options.bind, options.port, ctrl)
        }
        (Protocol::Swtpm, Some(path)) => swtpm::Service::new(machine).serve_unix(&path),
    }
}

//! `tpm-sim`: the TPM of `svsm-vtpm` behind sockets, for software that expects a simulator.

mod machine; // the TPM with its memory, power and store
mod mssim; // the TCG simulator's protocol
mod store; // the permanent state in a file
mod trace; // commands and responses for people

use core::net::IpAddr;
use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;

use machine::Machine;

/// A TPM 2.0 behind a socket.
///
/// Speaks the protocol of the TCG's simulator: commands on PORT, power and the like on the port after it. tpm2-tss reaches it as
/// `mssim:host=127.0.0.1,port=PORT`. It listens on the loopback address and trusts whoever connects.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Port for commands
    #[arg(long, short, default_value_t = 2321)]
    port: u16,

    /// Port for power, NV, cancel and physical presence [default: the one after PORT]
    #[arg(long)]
    ctrl: Option<u16>,

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
    let machine = Arc::new(Machine::new(
        options.state,
        usize::from(options.objects),
        usize::from(options.sessions),
        options.trace,
    )?);
    mssim::serve(&machine, options.bind, options.port, ctrl)
}

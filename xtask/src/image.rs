//! `cargo xtask image`: the firmware's image, without a boot.

use crate::firmware::{self, Programs, Variant};
use crate::setup::{Bare, Install};
use anyhow::{Context, Result};
use std::process::ExitCode;
use svsm_igvm::Loader;

/// Options of `cargo xtask image`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The image goes to target/images/svsm-LOADER.igvm, with the list of its programs beside it.
It is refused if it needs something that the loader does not take.

Examples:
  cargo xtask image
  cargo xtask image --loader qemu --inspect
  cargo xtask image --debug-image
  cargo xtask image --restricted-injection   # another launch digest")]
pub(crate) struct Args {
    /// Who will load the image: machine, qemu, openvmm or cloud-hypervisor.
    #[arg(long, value_name = "NAME", default_value = "machine")]
    loader: Loader,
    /// Build the image for debugging: local records and messages of panics leave the machine too.
    #[arg(long)]
    debug_image: bool,
    /// On SEV-SNP, let the host raise nothing but #HV in the SVSM.
    #[arg(long)]
    restricted_injection: bool,
    /// Show what is in the file, header by header.
    #[arg(long)]
    inspect: bool,
}

/// `cargo xtask image`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let programs = Programs::build(&Bare::find(Install::Allowed)?)?;
    let variant = Variant {
        debug: args.debug_image,
        restricted: args.restricted_injection,
        ..Variant::default()
    };
    let image = firmware::image(&programs, args.loader, variant, None)?;
    print!("{}", image.report);
    if args.inspect {
        let bytes = std::fs::read(&image.file)
            .with_context(|| format!("cannot read {}", image.file.display()))?;
        print!("\n{}", svsm_igvm::inspect(&bytes)?);
    }
    Ok(ExitCode::SUCCESS)
}

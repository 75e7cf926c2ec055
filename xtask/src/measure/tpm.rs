//! The TPM: what its operations cost beside libtpms', and how much code it is.

use crate::tpm;
use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use serde_json::{Value, json};
use std::process::{Command, ExitCode};

/// Parts of the code, by what the names of its functions contain. The first that fits counts.
const PARTS: &[(&str, &[&str])] = &[
    ("engine (svsm-vtpm)", &["svsm_vtpm"]),
    (
        "primitives (feature rustcrypto)",
        &[
            "aes",
            "cipher",
            "crypto_bigint",
            "digest",
            "ecdsa",
            "elliptic_curve",
            "ff",
            "group",
            "hybrid_array",
            "p256",
            "p384",
            "p521",
            "primefield",
            "primeorder",
            "sha1",
            "sha2",
        ],
    ),
];

pub(super) fn command(json: bool) -> Result<ExitCode> {
    if let Some(why) = tpm::library_missing() {
        bail!("there is nothing to measure beside: {why}");
    }
    let tool = tpm::tool("tpm-diff")?;
    let mut run = Command::new(&tool);
    run.arg("--measure");
    if json {
        run.arg("--json");
    }
    let said = crate::proc::capture(&mut run)?;
    let code = code(&std::fs::read(tpm::tool("tpm-sim")?)?)?;
    if json {
        let mut report: Value = serde_json::from_str(&said).context("tpm-diff printed no JSON")?;
        if let Some(report) = report.as_object_mut() {
            report.insert(
                "code".into(),
                code.iter()
                    .map(|(part, bytes)| json!({*part: bytes}))
                    .collect(),
            );
        }
        println!("{report:#}");
    } else {
        print!("{said}");
        for (part, bytes) in code {
            println!("code of tpm-sim, {part}: {bytes} bytes");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Statistics of our TPM's times. They depend on the machine and on what else it does, so nothing here fails.
pub(super) fn timing(json: bool) -> Result<ExitCode> {
    let mut run = Command::new(tpm::tool("tpm-diff")?);
    run.arg("--timing");
    if json {
        run.arg("--json");
    }
    print!("{}", crate::proc::capture(&mut run)?);
    Ok(ExitCode::SUCCESS)
}

/// Bytes of the functions of each part, by the program's symbols.
fn code(program: &[u8]) -> Result<Vec<(&'static str, u64)>> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(program)?;
    let (symbols, names) = file.symbol_table()?.context("the program has no symbols")?;
    let mut sums: Vec<(&str, u64)> = PARTS.iter().map(|(part, _)| (*part, 0)).collect();
    for symbol in symbols
        .iter()
        .filter(|symbol| symbol.st_symtype() == elf::abi::STT_FUNC)
    {
        let name = names.get(usize::try_from(symbol.st_name)?)?;
        if let Some(part) = part_of(name)
            && let Some((_, sum)) = sums.get_mut(part)
        {
            *sum += symbol.st_size;
        }
    }
    Ok(sums)
}

/// The part that a function belongs to: that of the first crate its mangled name contains, with the name's length before it.
fn part_of(name: &str) -> Option<usize> {
    PARTS.iter().position(|(_, crates)| {
        let mut crates = crates.iter();
        crates.any(|part| name.contains(&format!("{}{part}", part.len())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_belong_to_the_crate_in_their_name() {
        assert_eq!(part_of("_ZN9svsm_vtpm6engine3Tpm4step17h0123E"), Some(0));
        assert_eq!(part_of("_ZN4p25610arithmetic5field17h0123E"), Some(1));
        assert_eq!(part_of("_ZN3std2io5Write17h0123E"), None);
    }
}

//! What a guest said about itself, held against what the machine knows.

use super::{Disk, Guest, Platform};
use anyhow::{Context, Result, bail, ensure};
use core::fmt;
use sha2::{Digest, Sha512};
use svsm_igvm::LaunchDigest;
use svsm_sim::endorsement::root_certificate;
use svsm_sim::verify::{Chain, Expected, verify};
use svsm_testbed::{MachineEvent, Outcome};

/// What a guest said: lines that begin with `guest:`, without that word.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    lines: Vec<String>,
    digest: Option<String>,
    /// How many accesses of devices the machine refused.
    refused: Option<u64>,
}

/// The report data that the first process asks for.
fn report_data() -> [u8; 64] {
    core::array::from_fn(|index| u8::try_from(index).unwrap_or_default())
}

impl Facts {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let lines = outcome
            .log
            .iter()
            .filter_map(|line| line.message.trim_start().strip_prefix("guest: "))
            .map(str::to_owned)
            .collect();
        let digest = outcome.events.iter().find_map(|event| match event {
            MachineEvent::Other(fields) => Some(fields.get("digest")?.as_str()?.to_owned()),
            _ => None,
        });
        Self {
            lines,
            digest,
            refused: outcome.counters.value("dma.refused"),
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.lines
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    fn log_has(&self, text: &str) -> bool {
        self.lines
            .iter()
            .any(|line| line.starts_with("log:") && line.contains(text))
    }

    /// Holds it against what was asked for.
    ///
    /// `promised` is what the image's builder says that the machine measures.
    pub(super) fn check(&self, guest: &Guest<'_>, promised: Option<LaunchDigest>) -> Result<()> {
        let online = match guest.processors {
            1 => "0".to_owned(),
            count => format!("0-{}", count - 1),
        };
        let cpus = self
            .value("cpus:")
            .context("the guest names no processors")?;
        ensure!(cpus == online, "processors {cpus} are online, not {online}");
        let disk = self
            .value("disk:")
            .context("the guest does not say what disk it has")?;
        ensure!(
            disk == Disk::fact(),
            "the guest has another disk: {disk}, not {}",
            Disk::fact()
        );
        ensure!(
            self.refused == Some(0),
            "the guest lets devices use memory that they do not reach: {:?} accesses",
            self.refused
        );
        if guest.platform == Platform::Plain {
            return Ok(());
        }
        let level = format!("SNP running at VMPL{}", guest.platform.level());
        for text in [
            "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP",
            &level,
        ] {
            ensure!(self.log_has(text), "the kernel does not say `{text}`");
        }
        if let Some(promised) = promised {
            let measured = self.digest.as_deref().unwrap_or_default();
            ensure!(
                measured == promised.to_string(),
                "the machine measured {measured}, and the builder promised {promised}"
            );
        }
        self.check_report(guest.platform.level())
    }

    /// The report is the machine's, about this guest, and carries what the guest put in.
    fn check_report(&self, level: u32) -> Result<()> {
        let blob = |name: &str| {
            let hex = self
                .value(&format!("report: {name}"))
                .with_context(|| format!("the guest has no {name}"))?;
            bytes(hex).with_context(|| format!("{name} is no hexadecimal number"))
        };
        let (report, table) = (blob("outblob")?, blob("auxblob")?);
        let digest = self.digest.as_deref().and_then(bytes);
        let measurement = digest.and_then(|digest| digest.try_into().ok());
        ensure!(
            measurement.is_some(),
            "the machine reported no launch digest"
        );
        // Below an SVSM the report is the SVSM's, over what it says of itself beside the guest's data.
        let data = if level == 0 {
            report_data()
        } else {
            let manifest = blob("manifestblob")?;
            let hash = Sha512::new().chain_update(report_data());
            hash.chain_update(manifest).finalize().into()
        };
        let chain = Chain::from_table(&table)?;
        let expected = Expected {
            measurement,
            report_data: Some(data),
            vmpl: Some(0),
            ..Expected::ANY
        };
        if let Err(reason) = verify(&report, &chain, root_certificate().der(), &expected) {
            bail!("the report does not hold: {reason}");
        }
        Ok(())
    }
}

impl fmt::Display for Facts {
    /// All facts, long ones cut short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 100;
        for line in &self.lines {
            let short: String = line.chars().take(WIDTH).collect();
            let dots = if short.len() < line.len() { "…" } else { "" };
            writeln!(f, "  {short}{dots}")?;
        }
        if let Some(digest) = &self.digest {
            writeln!(f, "  launch digest: {digest}")?;
        }
        Ok(())
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = hex.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(high << 4 | low).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_numbers_have_an_even_number_of_digits() {
        assert_eq!(bytes("00ff1a"), Some(vec![0, 0xff, 0x1a]));
        assert_eq!(bytes("0"), None);
        assert_eq!(bytes("zz"), None);
    }

    #[test]
    fn a_guest_that_lacks_what_was_asked_for_is_found_out() {
        let mut facts = Facts {
            lines: vec![
                "cpus: 0-1".into(),
                format!("disk: {}", Disk::fact()),
                "log: SEV: SNP running at VMPL0.".into(),
            ],
            digest: None,
            refused: Some(0),
        };
        let mut guest = Guest {
            platform: Platform::Plain,
            processors: 2,
            memory: 0,
            append: "",
        };
        assert!(facts.check(&guest, None).is_ok());
        facts.refused = Some(1);
        assert!(facts.check(&guest, None).is_err());
        facts.refused = Some(0);
        guest.platform = Platform::Snp;
        assert!(facts.check(&guest, None).is_err());
        guest.processors = 1;
        assert!(facts.check(&guest, None).is_err());
    }
}

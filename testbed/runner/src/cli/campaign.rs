use std::path::PathBuf;

use clap::Args;
use svsm_testbed::campaign::{Partition, Seeds};

use super::GuestArgs;

/// Runs an image many times against a host that lies, and says what came of each.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_override_self = true)]
pub(crate) struct CampaignArgs {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,

    /// Lies of the host: names, classes or `all`, with commas between, `-NAME` to take one out
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "all",
        allow_hyphen_values = true
    )]
    pub(crate) faults: String,

    /// One fault in a run, instead of all in each
    #[arg(long)]
    pub(crate) each: bool,

    /// From which numbers it is drawn when they come: one number, or FIRST..LAST with both
    #[arg(long, value_name = "SEEDS", default_value = "1..100")]
    pub(crate) seeds: Seeds,

    /// Only this part of the cases: number K of N, from 1
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    pub(crate) partition: Partition,

    /// How many runs at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: u16,

    /// The file that keeps what is done [default: IMAGE.campaign-K-N.jsonl]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Forget what was done before
    #[arg(long)]
    pub(crate) restart: bool,

    /// Write the results to this file as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl CampaignArgs {
    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let part = self.partition.to_string().replace('/', "-");
            let mut name = self.guest.image.as_os_str().to_owned();
            name.push(format!(".campaign-{part}.jsonl"));
            name.into()
        })
    }
}

const EXAMPLES: &str = "\
A run with an honest host comes first, and must pass. What is done is kept in a file, so that a campaign that was
stopped goes on where it was.

How a case ends:
  correct      as with an honest host
  refused      in an orderly way, without what was expected
  terminated   at the firmware's own request, with a reason
  stopped      by the hardware, at a page that a lie had left with another owner, or by the lie `reset`
  PANICKED     with a panic
  HANG         time ran out, or all CPUs halted
  CRASH        a triple fault, a reset of its own, an access to nothing
  VIOLATION    it broke the rules of memory ownership by itself
After lies that must be tolerated only `correct` is right; after those that must be detected `refused`, `terminated` and
`stopped` are, too; after those that nobody can help also `HANG`. The others never are.

Examples:
  svsm-testbed campaign svsm.igvm --platform snp --faults all --seeds 1..1000 --jobs 4
  svsm-testbed campaign svsm.igvm --platform snp --each --seeds 1..10 --expect 'guest is up' --junit results.xml
  svsm-testbed campaign svsm.igvm --platform snp --seeds 1..100000 --partition 3/16

Exit status:
    0  all cases ended as they may
    1  one did not, or the image does not pass with an honest host
    2  bad usage, a file that cannot be read, or a state file of another campaign
    5  the testbed failed in a case
  130  interrupted: cases are left";

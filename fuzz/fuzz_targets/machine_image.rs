//! IGVM files for the software machine: its loader takes or refuses every file, and writes
//! nothing outside of the memory that there is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_machine::addr::{Gpa, GpaRange};
use svsm_machine::cmdline::Platform;
use svsm_machine::layout::GuestRam;
use svsm_machine::loader::{Facts, File, NoLaunch, Plan};
use svsm_machine::phys::{Memory, Unreachable};

const RAM: u64 = 1 << 20;

struct Ram(Vec<u8>);

impl Ram {
    fn range(at: Gpa, bytes: u64) -> Result<core::ops::Range<usize>, Unreachable<Gpa>> {
        let start = at.as_u64();
        let end = start.checked_add(bytes).filter(|end| *end <= RAM).ok_or(Unreachable(at))?;
        Ok(usize::try_from(start).unwrap()..usize::try_from(end).unwrap())
    }
}

impl Memory<Gpa> for Ram {
    fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), Unreachable<Gpa>> {
        into.copy_from_slice(&self.0[Self::range(at, into.len() as u64)?]);
        Ok(())
    }

    fn write(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), Unreachable<Gpa>> {
        self.0[Self::range(at, bytes.len() as u64)?].copy_from_slice(bytes);
        Ok(())
    }

    fn zero(&mut self, at: Gpa, bytes: u64) -> Result<(), Unreachable<Gpa>> {
        self.0[Self::range(at, bytes)?].fill(0);
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    load_all(bytes);
    // The size and the checksum hide all that comes behind them.
    let mut sealed = bytes.to_vec();
    if seal(&mut sealed).is_some() {
        load_all(&sealed);
    }
});

fn load_all(bytes: &[u8]) {
    load(bytes, Platform::Native);
    load(bytes, Platform::Snp);
}

fn load(bytes: &[u8], platform: Platform) {
    let mut ram = GuestRam::new();
    let all = GpaRange::from_u64(0, RAM).expect("a range");
    ram.insert(all).expect("an empty set");
    let Ok(file) = File::new(bytes) else { return };
    let Ok(mut plan) = Plan::new(file, platform, &ram) else { return };
    let facts = Facts {
        apic_ids: &[0, 1, 300],
        ram: &ram,
        mmio: GpaRange::from_u64(0xb000_0000, 1 << 32).expect("a range"),
        command_line: "a command line",
    };
    let mut memory = Ram(vec![0; RAM as usize]);
    if plan.apply(&facts, &mut memory, &mut NoLaunch).is_err() {
        return;
    }
    // What can be carried out once can be carried out again, with the same result.
    let before = memory.0.clone();
    plan.apply(&facts, &mut memory, &mut NoLaunch).expect("the same again");
    assert!(before == memory.0);
}

/// Writes the size and the checksum that the file should have.
fn seal(file: &mut [u8]) -> Option<()> {
    let size = u32::try_from(file.len()).ok()?;
    file.get_mut(16..20)?.copy_from_slice(&size.to_le_bytes());
    let field = |at: usize| {
        let bytes = file.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let fixed = if field(4)? == 1 { 24 } else { 32 };
    let start = field(8)?;
    let variable = file.get(start..start.checked_add(field(12)?)?)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(file.get(..20)?);
    hasher.update(&[0; 4]);
    hasher.update(file.get(24..fixed)?);
    hasher.update(variable);
    let sum = hasher.finalize();
    file.get_mut(20..24)?.copy_from_slice(&sum.to_le_bytes());
    Some(())
}

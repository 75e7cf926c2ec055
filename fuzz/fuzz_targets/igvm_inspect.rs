//! IGVM files: no file makes the reader, the inspection or the comparison panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_igvm::file::ImageFile;
use svsm_igvm::{diff, inspect};

fuzz_target!(|bytes: &[u8]| {
    try_all(bytes);
    // The size and the checksum hide all that comes behind them.
    let mut sealed = bytes.to_vec();
    if seal(&mut sealed).is_some() {
        try_all(&sealed);
    }
});

fn try_all(bytes: &[u8]) {
    let Ok(file) = ImageFile::read(bytes) else {
        return;
    };
    assert_eq!(diff(&file, &file), []);
    let inspection = inspect(bytes).expect("what was read can be inspected");
    assert!(!inspection.to_string().is_empty());
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

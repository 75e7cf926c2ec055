//! Archives of programs: none makes the parser panic, loop, or hand out what is not in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_syscall::archive::Archive;

fuzz_target!(|bytes: &[u8]| {
    let archive = Archive::new(bytes);
    let mut sound = true;
    for (count, entry) in archive.entries().enumerate() {
        assert!(sound, "an error ends the walk");
        assert!(count <= Archive::MAX_ENTRIES);
        match entry {
            Ok(entry) => {
                assert!(entry.data().is_empty() || bytes.as_ptr_range().contains(&entry.data().as_ptr()));
                assert!(!entry.name().starts_with('/'));
            }
            Err(error) => {
                assert!(error.offset <= bytes.len());
                sound = false;
            }
        }
    }
    assert_eq!(archive.find("init").is_ok(), sound);
});

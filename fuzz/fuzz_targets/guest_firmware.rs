//! Firmware of a guest: its table of GUIDs and its list of memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_guest::firmware::Firmware;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(firmware) = Firmware::parse(bytes) {
        let _ = (firmware.ap_start(), firmware.entries().count());
        for section in firmware.sections() {
            assert!(u64::from(section.gpa) + u64::from(section.bytes) <= 1 << 32);
        }
    }
    let _ = Firmware::for_svsm(bytes);
});

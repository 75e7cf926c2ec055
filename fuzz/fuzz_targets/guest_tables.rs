//! ACPI tables of a host, put together as its script says: a host of any script, files and directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_guest::fw_cfg::{FwCfg, Ports};
use svsm_guest::table_loader::{HostTables, MAX_SCRIPT_BYTES};

/// A device whose every item but the first comes from one run of bytes: the directory from its start, files behind it.
struct Device<'b> {
    bytes: &'b [u8],
    item: &'b [u8],
}

impl Ports for Device<'_> {
    type Error = ();

    fn select(&mut self, key: u16) -> Result<(), ()> {
        self.item = match key {
            0 => b"QEMU",
            0x19 => self.bytes,
            key => self.bytes.get(usize::from(key)..).unwrap_or_default(),
        };
        Ok(())
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), ()> {
        let len = into.len().min(self.item.len());
        let (now, later) = self.item.split_at(len);
        into.fill(0);
        into[..len].copy_from_slice(now);
        self.item = later;
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let device = Device { bytes, item: &[] };
    let Ok(Some(mut device)) = FwCfg::find(device) else {
        return;
    };
    let mut room = vec![0; MAX_SCRIPT_BYTES];
    if let Ok(Some(tables)) = HostTables::survey(&mut device, &mut room) {
        let mut out = vec![0; tables.bytes()];
        if let Ok(root) = tables.load(&mut device, &mut out, 0x7ff0_0000) {
            assert!(out[root as usize..].starts_with(b"RSD PTR "));
        }
    }
});

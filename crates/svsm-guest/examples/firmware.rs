//! Shows what guest firmware asks of who starts it: `cargo run -p svsm-guest --example firmware -- OVMF.fd`

use core::error::Error;
use svsm_guest::firmware::Firmware;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("which file? Call me with the path of guest firmware (OVMF.fd)")?;
    let file = std::fs::read(path)?;
    let firmware = Firmware::parse(&file)?;
    println!("starts at {:#x}", firmware.base());
    println!("SEV-SNP: {}", firmware.is_for_snp());
    println!("SVSM: {}", firmware.knows_svsm());
    for section in firmware.sections() {
        let (start, end) = (section.gpa, section.end());
        println!("{start:#010x}..{end:#010x}  {:?}", section.contents);
    }
    if let Some(start) = firmware.ap_start() {
        println!("other CPUs: {:#x}:{:#x}", start.cs_base, start.ip);
    }
    Ok(())
}

//! Shows where everything of a guest goes: `place KERNEL [MEMORY IN MIB]`.

use core::error::Error;
use std::env;
use std::fs;

use svsm_guest::kernel::Kernel;
use svsm_guest::layout::{Acpi, Guest, Layout, Protection};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let path = words.next().ok_or("usage: place KERNEL [MEMORY IN MIB]")?;
    let mib: u64 = words.next().as_deref().unwrap_or("512").parse()?;
    let file = fs::read(path)?;
    let guest = Guest {
        kernel: Kernel::parse(&file)?,
        initrd: b"",
        command_line: "console=ttyS0",
        memory: mib << 20,
        apic_ids: &[0],
        acpi: Acpi::Own,
        protection: Protection::Snp { c_bit: 51 },
    };
    let layout = Layout::new(&guest)?;
    layout.write(&guest, &mut |gpa, bytes: &[u8]| {
        println!("{gpa:#12x}  {} bytes", bytes.len());
        Ok::<_, Box<dyn Error>>(())
    })?;
    println!("{:#x?}", layout.start());
    Ok(())
}

//! A host swaps two pages of a guest behind its back, and the table shows it.

use svsm_sim::rmp::{Access, Caller, Entry, Mapping, NewState, PageSize, Rmp, Vmpl};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut entries = [Entry::HYPERVISOR; 8];
    let mut rmp = Rmp::new(&mut entries);
    let svsm = Caller {
        asid: 1,
        vmpl: Vmpl::VMPL0,
    };

    rmp.rmpupdate(0x1000, NewState::guest(1, 0x5000, PageSize::Size4K))?;
    let honest = Mapping {
        spa: 0x1000,
        gpa: 0x5000,
        size: PageSize::Size4K,
    };
    let found = rmp.pvalidate(svsm, honest, PageSize::Size4K, true)??;
    println!("validated, changed: {}", found.changed);
    println!(
        "read where it was:  {:?}",
        rmp.access(svsm, honest, Access::READ)
    );

    rmp.rmpupdate(0x2000, NewState::guest(1, 0x5000, PageSize::Size4K))?;
    let swapped = Mapping {
        spa: 0x2000,
        ..honest
    };
    println!(
        "read after a swap:  {:?}",
        rmp.access(svsm, swapped, Access::READ)
    );
    Ok(())
}

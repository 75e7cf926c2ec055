#![cfg_attr(target_os = "none", no_std)]
#![doc = include_str!("../README.md")]

pub mod acpi; // the firmware's tables, and tables for the guest
pub mod addr; // guest and host physical addresses
pub mod board; // what CPUs know of one another
pub mod cmdline; // what a run was asked to be
pub mod debug; // a debugger of the guest
pub mod deliver; // exceptions that L0 delivers itself
pub mod devices; // the ports that L0 guards
pub mod dma; // which memory devices reach
pub mod ending; // how a run ends
pub mod exit; // why a guest stopped
pub mod fdt; // a device tree for the guest
pub mod fw_cfg; // what the host tells firmware
pub mod icr; // messages between CPUs
pub mod layout; // who has which RAM
pub mod liar; // a host that lies
pub mod loader; // IGVM files
pub mod lock; // for what CPUs share while a guest runs
pub mod memory; // the guest's memory in the machine's
pub mod native; // the personality without isolation
pub mod opcode; // instructions that L0 carries out itself
pub mod paging; // page tables, L0's own and nested
pub mod permission; // which ports and MSRs exit
pub mod personality; // the seam for other architectures
pub mod phys; // physical memory behind a seam
pub mod pool; // L0's own memory
pub mod range_set; // sets of ranges
pub mod report; // JSON lines
pub mod snp; // the personality of AMD SEV-SNP
pub mod vcpu; // a virtual CPU
pub mod vmcb; // its control block
pub mod walk; // the guest's page tables

#[cfg(target_os = "none")]
pub mod bare; // everything that needs the machine

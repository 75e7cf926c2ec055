//! A Linux kernel as the guest: it finds all memory validated, and starts in 64-bit mode.

use alloc::vec;
use alloc::vec::Vec;

use svsm_guest::files::{ACPI, COMMAND_LINE, INITRD};
use svsm_guest::fw_cfg::{self, FwCfg};
use svsm_guest::kernel::Kernel;
use svsm_guest::layout::{Acpi, Guest as Plan, Layout, Protection, Start};
use svsm_guest::table_loader::{HostTables, MAX_SCRIPT_BYTES};
use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::cpu::cr::{Cr0, Cr4, Efer};
use svsm_platform::seam::{PortCall, Stopped, Width};
use svsm_platform::snp::Error;
use svsm_platform::snp::vmsa::{LongMode, Segment, Vmsa};

use super::launch::{Secrets, loaded_pages, write, write_cpuid};
use super::memory::Machine;
use super::{Facts, Failure};
use crate::machine::{self, HostError, snp};
use crate::{smp, user};

/// The registers of a kernel that starts in 64-bit mode (Linux/x86 boot protocol, "64-bit boot protocol").
const CR0: Cr0 = Cr0::PE
    .union(Cr0::MP)
    .union(Cr0::ET)
    .union(Cr0::NE)
    .union(Cr0::WP)
    .union(Cr0::AM)
    .union(Cr0::PG);
const EFER: Efer = Efer::LME.union(Efer::LMA).union(Efer::NXE);
const FLAT_CODE: u16 = 0xa9b;
const FLAT_DATA: u16 = 0xc93;

/// Gives the guest its memory, and puts everything into it. Answers how its first CPU starts, and where that calls us.
pub(super) fn lay_out(
    facts: &Facts,
    file: &[u8],
    machine: &mut Machine,
) -> Result<(Vmsa, Gpa), Failure> {
    let kernel = Kernel::parse(file).map_err(Failure::Layout)?;
    let command_line = core::str::from_utf8(user::file(COMMAND_LINE).unwrap_or_default())
        .map_err(|_| Failure::NoKernel)?;
    let encryption = snp::cpuid().and_then(|page| page.c_bit());
    let c_bit = encryption.ok_or(Failure::NoKernel)?.as_u8();
    let apic_ids = smp::raw_ids();
    let plan = Plan {
        kernel,
        initrd: user::file(INITRD).unwrap_or_default(),
        command_line,
        memory: low_memory(facts),
        apic_ids: &apic_ids,
        acpi: Acpi::Own,
        protection: Protection::Svsm { c_bit },
    };
    let mut tables = Vec::new();
    let (layout, acpi) = place(&plan, &mut tables)?;
    let plan = Plan { acpi, ..plan };
    let page = |at| Gpa::new(at).ok_or(Failure::Memory);
    let calling_area = page(layout.calling_area())?;

    let secrets = Secrets::take(facts, calling_area, machine)?;
    prepare_memory(facts, machine)?;
    let mut put = |at: u64, bytes: &[u8]| write(machine, at, bytes);
    layout.write(&plan, &mut put).map_err(|_| Failure::Memory)?;
    secrets.write(machine, page(layout.secrets())?)?;
    write_cpuid(machine, page(layout.cpuid())?)?;
    Ok((registers(facts, &layout), calling_area))
}

/// The layout, and the ACPI tables in it: the host's, in `tables`, if the image wants them and there are some.
fn place<'t>(plan: &Plan<'_>, tables: &'t mut Vec<u8>) -> Result<(Layout, Acpi<'t>), Failure> {
    let own = |plan| Ok((Layout::new(plan).map_err(Failure::Layout)?, Acpi::Own));
    if user::file(ACPI).is_none() {
        return own(plan);
    }
    let no_answer = |_| Failure::Layout(svsm_guest::Error::Host);
    let Some(mut device) = FwCfg::find(Ports(machine::Host)).map_err(no_answer)? else {
        return own(plan);
    };
    let mut script = vec![0; MAX_SCRIPT_BYTES];
    let host = HostTables::survey(&mut device, &mut script).map_err(Failure::Layout)?;
    let Some(host) = host else {
        return own(plan);
    };
    tables.resize(host.bytes(), 0);
    let (tables_so_far, root) = (tables.as_slice(), 0);
    let acpi = Acpi::Host {
        tables: tables_so_far,
        root,
    };
    let layout = Layout::new(&Plan { acpi, ..*plan }).map_err(Failure::Layout)?;
    let root = host.load(&mut device, tables, layout.tables());
    let root = root.map_err(Failure::Layout)?;
    info!(
        public,
        "guest: {=usize} bytes of ACPI tables are the host's",
        tables.len()
    );
    Ok((layout, Acpi::Host { tables, root }))
}

/// The ports of QEMU's device.
struct Ports(machine::Host);

impl fw_cfg::Ports for Ports {
    type Error = HostError;

    fn select(&mut self, key: u16) -> Result<(), HostError> {
        self.0.port_write(fw_cfg::SELECTOR, Width::Word, key.into())
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), HostError> {
        self.0.port_read_bytes(fw_cfg::DATA, into)
    }
}

/// Memory without a hole from 1 MiB on, in whole large pages: what a kernel without firmware is told of.
fn low_memory(facts: &Facts) -> u64 {
    let large = PageSize::Size2M.bytes();
    let mut ranges = facts.map.ranges();
    let first = ranges.find(|range| range.end().as_u64() > 1 << 20);
    let end = first.map_or(0, |range| range.end().as_u64());
    end.min(2 << 30) / large * large
}

fn prepare_memory(facts: &Facts, machine: &mut Machine) -> Result<(), Failure> {
    let failed = |stopped: Stopped<Error>| Failure::Snp(stopped.cause);
    for range in facts.map.ranges() {
        // What came with the image is in use already, in pieces.
        for page in loaded_pages(facts, &range)? {
            machine.prepare_loaded(page, facts.level).map_err(failed)?;
        }
        let Some(loaded) = range.intersection(&facts.loaded) else {
            machine.prepare(range, facts.level).map_err(failed)?;
            continue;
        };
        let before = GpaRange::from_bounds(range.start(), loaded.start());
        let after = GpaRange::from_bounds(loaded.end(), range.end());
        for rest in [before, after].into_iter().flatten() {
            if !rest.is_empty() {
                machine.prepare(rest, facts.level).map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn registers(facts: &Facts, layout: &Layout) -> Vmsa {
    let start = layout.start();
    let mut vmsa = Vmsa::long_mode(
        facts.level,
        facts.features,
        &LongMode {
            rip: start.entry,
            rsp: 0,
            rdi: start.rdi,
            rsi: start.rsi,
            cr3: start.cr3,
            cr0: CR0,
            cr4: Cr4::MCE,
            efer: EFER,
        },
    );
    vmsa.cs = Segment::new(Start::CODE, FLAT_CODE, u32::MAX, 0);
    let data = Segment::new(Start::DATA, FLAT_DATA, u32::MAX, 0);
    (vmsa.ds, vmsa.es, vmsa.ss) = (data, data, data);
    vmsa.gdtr = Segment::new(0, 0, Start::GDT_LIMIT.into(), start.gdt);
    vmsa
}

//! The guest before its first instruction: its memory, what lies in it, and its first virtual CPU.
#![expect(unsafe_code, reason = "reads an area of the image")]

use alloc::boxed::Box;

use svsm_guest::kernel::Kernel;
use svsm_guest::layout::{Guest as Plan, Layout, Protection, Start};
use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::cpu::cr::{Cr0, Cr4, Efer};
use svsm_platform::snp::secrets::{SecretsPage, Svsm};
use svsm_platform::snp::vmsa::{LongMode, Segment, Vmsa};
use svsm_platform::snp::{Error, VcpuOrder};
use svsm_protocol::Vcpu;
use svsm_protocol::seam::{GuestMemory, Unreachable};
use svsm_stage2::region::Area;

use super::memory::Machine;
use super::{Facts, Failure, LEVEL};
use crate::machine::snp;
use crate::{areas, memory, smp, user};

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

/// The newest version of the core protocol.
const CORE_VERSION: u32 = 1;

/// Makes the guest ready to be entered on this CPU.
pub(super) fn launch(facts: &Facts) -> Result<Vcpu, Failure> {
    let file = |name| user::file(name).ok_or(Failure::NoKernel);
    let kernel = Kernel::parse(file("guest.kernel")?).map_err(Failure::Layout)?;
    let command_line = core::str::from_utf8(user::file("guest.command-line").unwrap_or_default())
        .map_err(|_| Failure::NoKernel)?;
    let encryption = snp::cpuid().and_then(|page| page.c_bit());
    let c_bit = encryption.ok_or(Failure::NoKernel)?.as_u8();
    let apic_ids = smp::raw_ids();
    let plan = Plan {
        kernel,
        initrd: user::file("guest.initrd").unwrap_or_default(),
        command_line,
        memory: low_memory(facts),
        apic_ids: &apic_ids,
        protection: Protection::Svsm { c_bit },
    };
    let layout = Layout::new(&plan).map_err(Failure::Layout)?;

    let mut machine = Machine::here().ok_or(Failure::Memory)?;
    prepare_memory(facts, &mut machine)?;
    let counts = machine.counts();
    info!(
        public,
        "guest: {=u64} PVALIDATEs, {=u64} RMPADJUSTs and {=u64} exits for its memory",
        counts.pvalidates,
        counts.rmpadjusts,
        counts.exits
    );
    let mut put = |at: u64, bytes: &[u8]| write(&mut machine, at, bytes);
    layout.write(&plan, &mut put).map_err(|_| Failure::Memory)?;
    write_pages(facts, &layout, &mut machine)?;
    first_vcpu(facts, &layout, &mut machine)
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
    let failed = |stopped: svsm_platform::seam::Stopped<Error>| Failure::Snp(stopped.cause);
    for range in facts.map.ranges() {
        // What came with the image is in use already, in pieces.
        let loaded = range.intersection(&facts.loaded);
        let Some(loaded) = loaded else {
            machine.prepare(range, LEVEL).map_err(failed)?;
            continue;
        };
        for page in loaded.pages(PageSize::Size4K).ok_or(Failure::Memory)? {
            machine.prepare_loaded(page, LEVEL).map_err(failed)?;
        }
        let before = GpaRange::from_bounds(range.start(), loaded.start());
        let after = GpaRange::from_bounds(loaded.end(), range.end());
        for rest in [before, after].into_iter().flatten() {
            if !rest.is_empty() {
                machine.prepare(rest, LEVEL).map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn write(machine: &mut Machine, at: u64, bytes: &[u8]) -> Result<(), Unreachable> {
    let mut at = Gpa::new(at).ok_or(Unreachable)?;
    for page in bytes.chunks(4096) {
        machine.write(at, page)?;
        at = at.checked_add(4096).ok_or(Unreachable)?;
    }
    Ok(())
}

/// The pages that an SVSM fills for its guest: keys of its own level, and what the processor can do.
fn write_pages(facts: &Facts, layout: &Layout, machine: &mut Machine) -> Result<(), Failure> {
    let mut page = Box::new([0; 4096]);
    let secrets = SecretsPage::view(bytes(facts.secrets)).map_err(|_| Failure::NoKernel)?;
    let svsm = Svsm {
        memory: facts.svsm,
        calling_area: Gpa::new(layout.calling_area()).ok_or(Failure::Memory)?,
        max_version: CORE_VERSION,
        guest_level: LEVEL,
    };
    secrets
        .write_for_guest(&svsm, &mut page)
        .map_err(|_| Failure::NoKernel)?;
    let written = write(machine, layout.secrets(), page.as_slice());
    SecretsPage::view_mut(&mut page)
        .map_err(|_| Failure::NoKernel)?
        .wipe_keys();
    written.map_err(|_| Failure::Memory)?;
    snp::cpuid()
        .ok_or(Failure::NoKernel)?
        .write_for_guest(&mut page);
    write(machine, layout.cpuid(), page.as_slice()).map_err(|_| Failure::Memory)?;
    wipe_keys(facts, machine, &mut page)
}

/// Wipes the keys of all levels from the SVSM's own page: its channel and the guest have theirs, and nobody needs another.
fn wipe_keys(facts: &Facts, machine: &mut Machine, page: &mut [u8; 4096]) -> Result<(), Failure> {
    page.copy_from_slice(bytes(facts.secrets));
    SecretsPage::view_mut(page)
        .map_err(|_| Failure::NoKernel)?
        .wipe_keys();
    // Nobody holds a reference to the page: what was needed of it was copied.
    machine
        .write(facts.secrets.gpa(), page.as_slice())
        .map_err(|_| Failure::Memory)
}

pub(super) fn bytes(area: Area) -> &'static [u8; 4096] {
    // SAFETY: the area is one of the checked hand-off, which the builder maps for reading, and one page long.
    let bytes = unsafe { areas::bytes(area) };
    bytes.first_chunk().unwrap_or(&[0; 4096])
}

fn first_vcpu(facts: &Facts, layout: &Layout, machine: &mut Machine) -> Result<Vcpu, Failure> {
    let start = layout.start();
    let mut vmsa = Vmsa::long_mode(
        LEVEL,
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
    let (_, area) = memory::memory()
        .and_then(memory::Memory::platform_pages)
        .map_err(|_| Failure::Memory)?;
    machine
        .write(area, vmsa.as_page())
        .map_err(|_| Failure::Memory)?;
    machine.make_save_area(area, LEVEL).map_err(Failure::Snp)?;
    let vcpu = Vcpu {
        processor: smp::own_id().ok_or(Failure::Memory)?,
        level: LEVEL,
        save_area: area,
        calling_area: Gpa::new(layout.calling_area()).ok_or(Failure::Memory)?,
        is_first: true,
    };
    let host = snp::ghcb().ok_or(Failure::Memory)?;
    let order = VcpuOrder::CreateOnInit(area);
    // SAFETY: the level has the memory that it was given, and nothing of the SVSM's.
    unsafe { host.create_vcpu(vcpu.processor, LEVEL, facts.features.bits(), order) }
        .map_err(Failure::Snp)?;
    Ok(vcpu)
}

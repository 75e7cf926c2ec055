//! From boot to the first guest instruction.
#![expect(
    unsafe_code,
    reason = "the boot sequence hands memory out and changes page tables"
)]

use super::console::{Console, exit};
use super::cpu::{self, Cpu};
use super::direct::{self, DirectMap};
use super::smp::{self, Handover, Role};
use super::start_info::Given;
use super::{boot, fatal, insn, run, trap};
use crate::acpi;
use crate::addr::{Address, GpaRange, Hpa, HpaRange, PAGE};
use crate::board::{Board, State};
use crate::cmdline::{Options, Platform, Trace};
use crate::debug::{Debugger, Seat as DebugSeat};
use crate::devices;
use crate::dma::{self, Reach, Remapping, Unit, Watch};
use crate::ending::Ending;
use crate::fw_cfg::FwCfg;
use crate::layout::Layout;
use crate::liar::Liar;
use crate::loader::{Context, Facts, File, LoadError, NoLaunch, Plan, Reason};
use crate::lock::Lock;
use crate::memory::{Guest, GuestMap};
use crate::native::{Native, Transfers};
use crate::paging::{Flags, Levels, Tables};
use crate::permission::{IO_BYTES, IoPermissions, MSR_BYTES, MsrPermissions};
use crate::personality::Personality;
use crate::phys::Memory;
use crate::pool::Pool;
use crate::report::{self, Start};
use crate::snp::launch::Launcher;
use crate::snp::nested::Encryption;
use crate::snp::pages;
use crate::snp::shared::{C_BIT, Ownership, Resident, Rules, Seat, Shared};
use crate::snp::vmsa::{self, Area};
use crate::snp::{self, Snp};
use crate::vmcb::Vmcb;
use core::fmt;
use svsm_sim::launch::Measurement;
use svsm_sim::rmp::{Entry, Vmpl};

mod error; // why it does not get there

pub(super) use error::BootError;

const CR4_LA57: u64 = 1 << 12;
/// Each CPU's stack has a slot of this size here, with an unmapped page at its start.
const STACKS: u64 = 0xffff_ffff_c000_0000;
const STACK_SLOT: u64 = 128 << 10;
const FOUR_GIB: u64 = 1 << 32;

/// What all CPUs share; made by the first one, read by all.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) board: Board,
    pub(super) map: GuestMap,
    /// What an SNP guest's CPUs share; without, the guest is native.
    pub(super) snp: Option<Shared<'static>>,
    /// Which lies the host tells.
    pub(super) liar: Lock<Liar>,
    /// What a native guest's CPUs share of the firmware configuration device.
    pub(super) transfers: Lock<Transfers>,
    /// Which exits are reported.
    pub(super) trace: Trace,
    /// Whether pages are reported at the end.
    pub(super) rmp: bool,
    /// Who looks for what devices were refused, if something stands between them and memory.
    pub(super) dma: Option<Watch>,
    /// A debugger of the guest, if one was asked for.
    pub(super) debugger: Option<Debugger<'static>>,
    nested: Hpa,
    iopm: Hpa,
    msrpm: Hpa,
}

impl Site {
    /// Points a control block to what all of them share.
    pub(super) const fn prepare(&self, vmcb: &mut Vmcb) {
        vmcb.control.iopm = self.iopm.as_u64();
        vmcb.control.msrpm = self.msrpm.as_u64();
        vmcb.control.asid = 1;
        vmcb.control.nested = 1;
        vmcb.control.nested_cr3 = self.nested.as_u64();
    }
}

/// Everything up to the guest, on the first CPU.
pub(super) fn main(start_info: u64, mut memory: DirectMap) -> ! {
    let mut console = Console::new();
    mask_old_interrupt_controllers();
    let given = or_end(Given::read(start_info, &memory));
    let line = or_end(given.command_line());
    let options = or_end(Options::parse(line));
    or_end(check_cpu());
    let layout = or_end(Layout::new(given.map(), options.memory));
    insn::x2apic_on();
    insn::floats_on();
    let cpus = acpi::cpus(given.rsdp, &memory);
    let cpus = or_end(cpus.and_then(|cpus| cpus.with_first(insn::apic_id())));
    let levels = if insn::cr4() & CR4_LA57 != 0 {
        Levels::Five
    } else {
        Levels::Four
    };

    let unit = acpi::remapping(given.rsdp, &memory).map(Unit::new);
    if unit.is_some() {
        // It is L0's.
        or_end(acpi::hide(given.rsdp, acpi::REMAPPING, &mut memory).ok_or(BootError::Tables));
    }

    let (ids, watch) = or_end(guests(cpus.as_slice(), options.gdb));
    let mut pool = Pool::new(layout.own, given.image);
    let own = or_end(OwnTables::new(
        levels,
        cpus.as_slice().len(),
        &mut pool,
        &mut memory,
    ));
    // SAFETY: the tables were made for this; the home is fresh from the pool.
    unsafe { boot::relocate(own.home, own.tables.root()) };

    let image = or_end(image_file(given.image, &layout, &mut pool, &mut memory));
    let mut plan =
        match File::new(image).and_then(|file| Plan::new(file, options.platform, &layout.guest)) {
            Ok(plan) => plan,
            Err(error) => refuse(&error, &mut console),
        };
    let map = match GuestMap::new(&layout, plan.backed(), &mut pool, &mut memory) {
        Ok(map) => map,
        Err(error) => {
            let reason = Reason::NoMemory(error.0.as_u64());
            refuse(&LoadError { offset: 0, reason }, &mut console)
        }
    };
    let remapping = or_end(remapping(unit, &mut pool, &mut memory));
    let snp = match options.platform {
        Platform::Native => None,
        Platform::Snp => Some(or_end(snp(
            plan.first_area(),
            &options,
            ids.len(),
            &map,
            levels,
            remapping,
            &layout,
            &mut pool,
        ))),
    };
    if let (Some(remapping), None) = (remapping, &snp) {
        or_end(remapping.reach.open_all(&map, &mut pool, &mut memory));
    }
    let debugger = watch.map(|id| {
        let seats = fill(ids.len(), || Lock::new(DebugSeat::new()), &mut pool);
        or_end(
            seats
                .map(|seats| Debugger::new(id, seats))
                .ok_or(BootError::Memory),
        )
    });
    let site = or_end(site(
        ids,
        map,
        snp,
        debugger,
        unit,
        &options,
        levels,
        &layout,
        &mut pool,
        &mut memory,
    ));
    let cpu = or_end(bring_up(site, &own, &mut pool, &mut memory));
    or_end(scrub(&layout, &mut memory));

    let facts = Facts {
        apic_ids: ids,
        ram: &layout.guest,
        mmio: or_end(GpaRange::from_u64(layout.low_end, FOUR_GIB).ok_or(BootError::Memory)),
        command_line: options.guest,
    };
    let begun = match &site.snp {
        None => plan
            .apply(
                &facts,
                &mut Guest::new(&site.map, &mut memory),
                &mut NoLaunch,
            )
            .map(|context| (context, None)),
        Some(shared) => launch(&mut plan, &facts, shared, &mut memory)
            .map(|(context, digest)| (context, Some(digest))),
    };
    let (context, digest) = match begun {
        Ok(context) => context,
        Err(error) => refuse(&error, &mut console),
    };
    let start = Start {
        platform: options.platform.name(),
        cpus: ids.len(),
        memory: layout.memory,
        own: layout.own,
        image_bytes: plan.file().len_bytes(),
        image_version: plan.file().version(),
        pages: plan.pages(),
        backed: plan.backed().len_bytes(),
        digest: digest.as_ref().map(|digest| &digest.0[..]),
        remaps: unit.is_some(),
        tsc: insn::rdtsc(),
    };
    // A console that fails cannot be told anywhere.
    let _ = report::start(&mut console, &start);
    if let (true, Some(shared)) = (options.rmp, &site.snp) {
        let _ = pages::write(&mut console, "start", shared);
    }
    insn::apic_reset();
    insn::fninit();
    run::run(site, 0, cpu, Some(&context))
}

/// L0's own page tables, and where the image goes.
struct OwnTables {
    tables: Tables,
    home: *mut u8,
}

impl OwnTables {
    fn new(
        levels: Levels,
        cpus: usize,
        pool: &mut Pool,
        memory: &mut DirectMap,
    ) -> Result<Self, BootError> {
        const DATA: Flags = Flags::PRESENT.union(Flags::WRITE).union(Flags::NO_EXECUTE);
        let home = pool
            .take(boot::image_bytes(), PAGE)
            .ok_or(BootError::Memory)?;
        let tables = Tables::new(levels, pool, memory)?;
        tables.map(direct::BASE, Hpa::ZERO, direct::BYTES, DATA, pool, memory)?;
        let (start, end) = direct::FAR_DEVICES;
        let far = Hpa::new(start).ok_or(BootError::Memory)?;
        tables.map(direct::BASE + start, far, end - start, DATA, pool, memory)?;
        for part in boot::parts() {
            let mut flags = Flags::PRESENT;
            flags.set(Flags::WRITE, part.writable);
            flags.set(Flags::NO_EXECUTE, !part.executable);
            let to = home.start().checked_add(part.start - boot::image_start());
            let to = to.ok_or(BootError::Memory)?;
            tables.map(part.start, to, part.end - part.start, flags, pool, memory)?;
        }
        // The first CPU keeps the boot stack; its slot stays empty.
        for index in 1..cpus as u64 {
            let stack = pool
                .take(STACK_SLOT - PAGE, PAGE)
                .ok_or(BootError::Memory)?;
            let at = STACKS + index * STACK_SLOT + PAGE;
            tables.map(at, stack.start(), stack.len_bytes(), DATA, pool, memory)?;
        }
        let home = DirectMap::pointer(home.start(), home.len_bytes()).ok_or(BootError::Memory)?;
        Ok(Self { tables, home })
    }
}

/// The image file as bytes, in L0's part.
fn image_file(
    given: HpaRange,
    layout: &Layout,
    pool: &mut Pool,
    memory: &mut DirectMap,
) -> Result<&'static [u8], BootError> {
    let bytes = given.len_bytes();
    let home = if layout.own.contains_range(&given) {
        given
    } else {
        let home = pool.take(bytes, PAGE).ok_or(BootError::Memory)?;
        let mut buffer = [0; 4096];
        let mut done = 0;
        while done < bytes {
            let count = usize::try_from((bytes - done).min(PAGE)).unwrap_or_default();
            let piece = buffer.get_mut(..count).ok_or(BootError::Memory)?;
            let at = |range: HpaRange| range.start().checked_add(done).ok_or(BootError::Memory);
            memory
                .read(at(given)?, piece)
                .map_err(|_| BootError::Memory)?;
            memory
                .write(at(home)?, piece)
                .map_err(|_| BootError::Memory)?;
            done += count as u64;
        }
        home
    };
    let start = DirectMap::pointer(home.start(), bytes).ok_or(BootError::Memory)?;
    let len = usize::try_from(bytes).map_err(|_| BootError::Memory)?;
    // SAFETY: the bytes are mapped, initialized, and lie in L0's part; the pool stepped around
    // them or gave them out for this, so nobody writes them any more.
    Ok(unsafe { core::slice::from_raw_parts(start, len) })
}

/// Keeps devices from all memory, with what QEMU has for it. Who starts QEMU may leave that out: then they reach everything.
fn remapping(
    unit: Option<Unit>,
    pool: &mut Pool,
    memory: &mut DirectMap,
) -> Result<Option<Remapping>, BootError> {
    let Some(unit) = unit else {
        return Ok(None);
    };
    let reach = Reach::new(pool, memory)?;
    let unit = unit.start(&reach, &mut insn::Bare)?;
    Ok(Some(Remapping { unit, reach }))
}

/// What the CPUs of an SNP guest share, with memory for the reverse map table and for nested tables.
fn snp(
    area: Option<&[u8]>,
    options: &Options<'_>,
    cpus: usize,
    map: &GuestMap,
    levels: Levels,
    remapping: Option<Remapping>,
    layout: &Layout,
    pool: &mut Pool,
) -> Result<Shared<'static>, BootError> {
    let guest_end = layout.guest.iter().map(|range| range.end().as_u64()).max();
    let end = guest_end.unwrap_or_default();
    let pages = end.max(layout.own.end().as_u64()) / PAGE;
    let count = usize::try_from(pages).map_err(|_| BootError::Memory)?;
    let entries = filled(count, Entry::HYPERVISOR, pool).ok_or(BootError::Memory)?;
    let seats = filled(cpus, Seat::EMPTY, pool).ok_or(BootError::Memory)?;
    // A page of tables maps 2 MiB. Private and shared names, of three levels; and what devices reach.
    let tables = 7 * layout.memory.div_ceil(512) + (4 << 20);
    let tables = pool
        .take(tables.next_multiple_of(PAGE), PAGE)
        .ok_or(BootError::Memory)?;
    let nothing = HpaRange::from_u64(0, 0).ok_or(BootError::Memory)?;
    let owned = Ownership::new(
        entries,
        seats,
        levels,
        remapping,
        Pool::new(tables, nothing),
    );
    // The first save area says how all of the guest says "private".
    let area = area.and_then(|bytes| <&Area>::try_from(bytes).ok());
    let vtom = area.and_then(|area| vmsa::facts(area).vtom);
    let rules = Rules {
        features: area
            .filter(|_| options.equal_features)
            .map(|area| vmsa::features(area)),
        storms: options.storms,
    };
    let encryption = match vtom {
        None => Encryption::CBit(1 << C_BIT),
        Some(boundary) if boundary.is_power_of_two() && boundary < 1 << 52 => {
            Encryption::Vtom(boundary)
        }
        Some(_) => return Err(BootError::Boundary),
    };
    Ok(Shared {
        map: *map,
        encryption,
        low_end: layout.low_end,
        high_end: end.max(layout.own.end().as_u64()).max(FOUR_GIB),
        hidden: remapping.and_then(|remapping| dma::window(remapping.unit.unit())),
        rules,
        fw_cfg: Lock::new(FwCfg::new(&layout.guest, cpus, &mut insn::Bare)),
        state: Lock::new(owned),
    })
}

/// Which CPUs are the guest's, and which is the debugger's, if there is one: the last.
const fn guests(ids: &[u32], debugged: bool) -> Result<(&[u32], Option<u32>), BootError> {
    match ids.split_last() {
        Some((last, rest)) if debugged && !rest.is_empty() => Ok((rest, Some(*last))),
        _ if debugged => Err(BootError::NoCpuForDebugger),
        _ => Ok((ids, None)),
    }
}

/// A slice in memory of the pool, of clones of one value.
fn filled<T: Clone>(count: usize, value: T, pool: &mut Pool) -> Option<&'static mut [T]> {
    fill(count, || value.clone(), pool)
}

/// A slice in memory of the pool, of values that are made one by one.
fn fill<T>(count: usize, make: impl Fn() -> T, pool: &mut Pool) -> Option<&'static mut [T]> {
    let bytes = (count as u64).checked_mul(size_of::<T>() as u64)?;
    let home = pool.take(bytes, PAGE)?;
    let first = DirectMap::pointer(home.start(), bytes)?.cast::<T>();
    for index in 0..count {
        // SAFETY: within fresh memory of the pool, aligned to a page, of which nobody else knows.
        unsafe { first.wrapping_add(index).write(make()) };
    }
    // SAFETY: every element was just written, and this is the only reference to them, for ever.
    Some(unsafe { core::slice::from_raw_parts_mut(first, count) })
}

/// Launches an SNP guest, and says what was measured.
fn launch(
    plan: &mut Plan<'_>,
    facts: &Facts<'_>,
    shared: &Shared<'_>,
    memory: &mut DirectMap,
) -> Result<(Context, Measurement), LoadError> {
    let fail = |reason| LoadError { offset: 0, reason };
    let mut owned = shared.state.lock();
    let mut hardware = insn::Bare;
    let mut launcher =
        Launcher::new(&mut owned, &shared.map, &mut hardware, plan.policy()).map_err(fail)?;
    let mut guest = Guest::new(&shared.map, memory);
    let context = plan.apply(facts, &mut guest, &mut launcher)?;
    let digest = launcher.finish(plan.id_block()).map_err(fail)?;
    let Ownership {
        rmp,
        pool,
        remapping,
        ..
    } = &mut *owned;
    if let Some(Remapping { reach, .. }) = remapping {
        reach
            .open_shared(&shared.map, rmp, pool, memory)
            .map_err(|_| fail(Reason::NoMemory(0)))?;
    }
    if let (Context::Snp(gpa), Some(seat)) = (&context, owned.seats.first_mut()) {
        let resident = Resident::new(gpa.as_u64(), snp::first_ghcb());
        seat.place(Vmpl::VMPL0, Some(resident));
        seat.next = Some(Vmpl::VMPL0);
    }
    Ok((context, digest))
}

/// Builds what all CPUs share.
fn site(
    cpus: &[u32],
    map: GuestMap,
    snp: Option<Shared<'static>>,
    debugger: Option<Debugger<'static>>,
    unit: Option<Unit>,
    options: &Options<'_>,
    levels: Levels,
    layout: &Layout,
    pool: &mut Pool,
    memory: &mut DirectMap,
) -> Result<&'static Site, BootError> {
    let nested = map.nested(levels, &layout.own, unit, pool, memory)?.root();
    let iopm = pool.take(IO_BYTES as u64, PAGE).ok_or(BootError::Memory)?;
    let msrpm = pool.take(MSR_BYTES as u64, PAGE).ok_or(BootError::Memory)?;
    let io = DirectMap::object::<[u8; IO_BYTES]>(iopm).ok_or(BootError::Memory)?;
    // SAFETY: fresh memory; bytes may hold anything. No reference outlives this function.
    let io = unsafe { &mut *io };
    let msr = DirectMap::object::<[u8; MSR_BYTES]>(msrpm).ok_or(BootError::Memory)?;
    // SAFETY: as above.
    let msr = unsafe { &mut *msr };
    let (mut io, mut msr) = (IoPermissions::open(io), MsrPermissions::open(msr));
    if snp.is_some() {
        Snp::<DirectMap>::guard(&mut io, &mut msr);
    } else {
        Native::<DirectMap>::guard(&mut io, &mut msr);
    }
    if debugger.is_some() {
        devices::guard_debugger(&mut io);
    }

    let home = pool
        .take(size_of::<Site>() as u64, PAGE)
        .ok_or(BootError::Memory)?;
    let place = DirectMap::object::<Site>(home).ok_or(BootError::Memory)?;
    let site = Site {
        board: Board::new(cpus),
        map,
        snp,
        liar: Lock::new(options.liar()),
        transfers: Lock::new(Transfers::new()),
        trace: options.trace,
        rmp: options.rmp,
        dma: unit.map(Watch::new),
        debugger,
        nested,
        iopm: iopm.start(),
        msrpm: msrpm.start(),
    };
    // SAFETY: fresh memory of the right size and alignment.
    unsafe { place.write(site) };
    // SAFETY: just written, never moved, never written again but through its atomics.
    Ok(unsafe { &*place })
}

/// Makes this CPU the first, and starts all others.
fn bring_up(
    site: &'static Site,
    own: &OwnTables,
    pool: &mut Pool,
    memory: &mut DirectMap,
) -> Result<Cpu, BootError> {
    let page = pool.take(PAGE, PAGE).ok_or(BootError::Memory)?;
    let idt = DirectMap::object(page).ok_or(BootError::Memory)?;
    // SAFETY: a fresh page.
    unsafe { trap::fill_idt(idt, cpu::CODE) };
    let idt = (idt.expose_provenance() as u64, page);

    let first = Cpu::new(0, site, pool).ok_or(BootError::Memory)?;
    // SAFETY: the first CPU's only call, on the relocated stack and the final tables.
    unsafe { first.activate() };
    // SAFETY: filled above, in the direct map.
    unsafe { trap::load_idt(idt.0, idt.1) };

    boot::place_trampoline(memory).ok_or(BootError::Memory)?;
    let mut start = |index, role, id, is_up: &dyn Fn() -> bool| {
        let cpu = Cpu::new(index, site, pool).ok_or(BootError::Memory)?;
        let home = pool
            .take(size_of::<Handover>() as u64, PAGE)
            .ok_or(BootError::Memory)?;
        let place = DirectMap::object::<Handover>(home).ok_or(BootError::Memory)?;
        // SAFETY: fresh memory of the right size and alignment.
        unsafe {
            place.write(Handover {
                role,
                index,
                cpu,
                site,
                idt,
            })
        };
        // SAFETY: just written, and never again.
        let handover = unsafe { &*place };
        let stack = STACKS + (index as u64 + 1) * STACK_SLOT;
        // SAFETY: the slot was mapped for this CPU; the boot part is scrubbed only later.
        unsafe { smp::start(handover, id, is_up, own.tables.root(), stack, memory) }
    };
    for (index, slot) in site.board.slots().enumerate().skip(1) {
        let is_up = || slot.state() != State::Absent;
        start(index, Role::Guest, slot.apic_id(), &is_up)?;
    }
    if let Some(debugger) = &site.debugger {
        let (index, id) = (debugger.cpus(), debugger.apic_id());
        start(index, Role::Watch, id, &|| debugger.is_up())?;
    }
    Ok(first)
}

/// Clears what firmware and L0's start left in the guest's memory.
fn scrub(layout: &Layout, memory: &mut DirectMap) -> Result<(), BootError> {
    let low = layout.guest.iter().next().ok_or(BootError::Memory)?;
    memory
        .zero(Hpa::ZERO, low.len_bytes())
        .map_err(|_| BootError::Memory)?;
    let loaded = boot::loaded().ok_or(BootError::Memory)?;
    memory
        .zero(loaded.start(), loaded.len_bytes())
        .map_err(|_| BootError::Memory)
}

fn check_cpu() -> Result<(), BootError> {
    let [highest, ..] = insn::cpuid(0x8000_0000, 0);
    let [_, _, features, _] = insn::cpuid(1, 0);
    let [_, _, extended, long] = insn::cpuid(0x8000_0001, 0);
    let [_, _, _, svm] = if highest >= 0x8000_000a {
        insn::cpuid(0x8000_000a, 0)
    } else {
        [0; 4]
    };
    for (there, what) in [
        (
            features & 1 << 21 != 0,
            "x2APIC (QEMU 9.0 is the oldest that has it)",
        ),
        (features & 1 << 30 != 0, "RDRAND"),
        (long & 1 << 26 != 0, "1 GiB pages"),
        (extended & 1 << 2 != 0, "SVM (-cpu max,+svm,+npt)"),
        (svm & 1 != 0, "nested paging (-cpu max,+svm,+npt)"),
    ] {
        if !there {
            return Err(BootError::Lacks(what));
        }
    }
    Ok(())
}

/// SeaBIOS leaves them open, at vectors 8 and up.
fn mask_old_interrupt_controllers() {
    insn::port_out(0x21, 1, 0xff);
    insn::port_out(0xa1, 1, 0xff);
}

fn or_end<T, E: fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fatal::end(&error),
    }
}

/// The image is refused.
fn refuse(error: &LoadError, console: &mut Console) -> ! {
    let _ = report::load_error(console, error);
    fatal::verdict(console, Ending::LoadError, super::cpu::Local::current());
    exit(Ending::LoadError)
}

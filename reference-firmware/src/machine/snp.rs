//! SEV-SNP: the page by which each CPU talks to the host, and memory that has to be taken into use.
//!
//! The window of the hand-off has a slot for the GHCB page of each CPU, and behind those a few more for each, through which
//! pages of the guest are reached. The SVSM's own memory is reached by its linear mapping.
#![expect(
    unsafe_code,
    reason = "shares memory with the host, and takes memory into use"
)]

use core::mem::ManuallyDrop;
use core::ptr::{NonNull, with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use svsm_irq::doorbell::DoorbellPage;
use svsm_mm::table::Processor as Tlb;
use svsm_mm::window::{TempWindow, Window};
use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange, PageSize};
use svsm_platform::cpu::insn;
use svsm_platform::cpu::msr::Msr;
use svsm_platform::encryption::{Encryption, Visibility};
use svsm_platform::level::Vmpl;
use svsm_platform::once::OnceCell;
use svsm_platform::percpu::CpuIndex;
use svsm_platform::seam::{PageState, Reason};
use svsm_platform::snp::insn::{Processor, RmpSize};
use svsm_platform::snp::vmsa::{LongMode, Vmsa};
use svsm_platform::snp::{
    self, CpuidPage, Error, GhcbPage, HvFeatures, MsrProtocol, Pages, Reach, SevFeatures,
    SevStatus, Terminator, VcpuOrder,
};
use svsm_stage2::handoff::{Handoff, WindowArea};

use super::Failure;
use crate::smp::MAX_CPUS;
use crate::{cpu, memory};

const PAGE: u64 = PageSize::Size4K.bytes();

/// The way to the host.
pub(crate) type Ghcb = snp::Ghcb<'static, Processor>;

/// What later stages need of the hand-off.
struct Machine {
    cpuid: CpuidPage<'static>,
    window: WindowArea,
    encryption: Encryption,
    linear: Linear,
    features: SevFeatures,
}

static MACHINE: OnceCell<Machine> = OnceCell::new();
/// A copy of the CPUID page: the page itself lies in low memory, which becomes the guest's.
static CPUID: OnceCell<[u8; PAGE as usize]> = OnceCell::new();
/// The address of each CPU's GHCB page; 0 if it has none yet.
static GHCBS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// The address of each CPU's doorbell; 0 if it has none.
static DOORBELLS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Features with which the SVSM's level can run.
const SUPPORTED: SevFeatures = SevFeatures::TRANSPARENT.union(SevFeatures::RESTRICTED_INJECTION);
/// What the host must be able to do.
const NEEDED: HvFeatures = HvFeatures::SNP.union(HvFeatures::AP_CREATION);

/// Makes the host answer, and takes the free memory of the private region into use: all but the first page, by which this CPU
/// talks to the host from now on.
pub(super) fn begin(handoff: &Handoff) -> Result<GpaRange, Failure> {
    protocol().sev_info()?.version()?;
    let host = protocol().features()?;
    let features = SevStatus::from_bits(insn::rdmsr(Msr::SEV_STATUS)).features();
    features.check(SUPPORTED).map_err(Failure::Features)?;
    let is_restricted = features.contains(SevFeatures::RESTRICTED_INJECTION);
    let mut needed = NEEDED;
    needed.set(HvFeatures::RESTRICTED_INJECTION, is_restricted);
    if !host.contains(needed) {
        return Err(Failure::Features(Reason::MissingFeature));
    }
    super::RESTRICTED.store(is_restricted, Ordering::Relaxed);
    let machine = know(handoff, features).ok_or(Failure::Image)?;
    let free = handoff.heap.gpa_range();
    let page = GpaRange::page_of(free.start(), PageSize::Size4K).ok_or(Failure::Image)?;
    let rest = GpaRange::from_bounds(page.end(), free.end()).ok_or(Failure::Image)?;
    // SAFETY: the page is of the free part of the private region, where no Rust object is yet.
    unsafe { protocol().change_page(page.start(), false) }?;
    assign(machine, CpuIndex::BOOT, page.start()).ok_or(Failure::Image)?;
    register(CpuIndex::BOOT)?;
    own_pages(machine)
        .make_private(rest)
        .map_err(|stopped| stopped.cause)?;
    Ok(rest)
}

fn know(handoff: &Handoff, features: SevFeatures) -> Option<&'static Machine> {
    let area = handoff.cpuid?;
    let at = with_exposed_provenance::<u8>(area.gva().as_u64() as usize);
    // SAFETY: the builder mapped the page read-only, it is private, and nobody writes it before there is a guest.
    let bytes = unsafe { core::slice::from_raw_parts(at, PAGE as usize) };
    let _ = CPUID.set(*bytes.first_chunk()?);
    let bytes = CPUID.value()?;
    let _ = MACHINE.set(Machine {
        cpuid: CpuidPage::new(bytes)?,
        window: handoff.window,
        encryption: handoff.run_time?.encryption,
        linear: Linear {
            gpa: GpaRange::from_bounds(handoff.tables.gpa(), handoff.heap.gpa_range().end())?,
            gva: handoff.tables.gva(),
        },
        features,
    });
    MACHINE.value()
}

/// Gives a CPU its page: `page` is shared with the host, and mapped in the CPU's slot.
fn assign(machine: &Machine, cpu: CpuIndex, page: Gpa) -> Option<()> {
    let slot = window(machine, cpu.as_u32().into(), 1)?;
    // SAFETY: nothing but GHCB pages is shown by these slots, and those are accessed as what they are.
    let shown = unsafe { slot.map(page, Visibility::Shared) }.ok()?;
    // It is shown for good.
    let _ = ManuallyDrop::new(shown);
    let _ = ManuallyDrop::new(slot);
    GHCBS
        .get(cpu.as_usize())?
        .store(page.as_u64(), Ordering::Release);
    Some(())
}

/// The window of `count` pages from slot `first` on.
fn window(machine: &Machine, first: u64, count: u32) -> Option<TempWindow<Tlb>> {
    let pages = machine.window.gva.checked_add(first * PAGE)?;
    let entries = machine.window.table.checked_add(first * 8)?;
    if first + u64::from(count) > machine.window.slots.into() {
        return None;
    }
    // SAFETY: the hand-off was checked: these entries translate these pages, and nothing is in them yet. Each slot is one CPU's.
    unsafe {
        TempWindow::new(
            pointer(entries)?.cast(),
            pointer(pages)?,
            count,
            machine.encryption,
            Tlb,
        )
    }
    .ok()
}

fn pointer(at: Gva) -> Option<NonNull<u8>> {
    NonNull::new(with_exposed_provenance_mut(at.as_u64() as usize))
}

/// Tells the host which page is this CPU's, which must be this one.
fn register(cpu: CpuIndex) -> Result<(), Error> {
    let page = GHCBS
        .get(cpu.as_usize())
        .and_then(|page| Gpa::new(page.load(Ordering::Acquire)))
        .ok_or(Error::Request)?;
    protocol().register_ghcb(page)
}

/// Makes this CPU, which has just started, able to talk to the host.
///
/// # Errors
/// The host does not take its page.
pub(crate) fn arrive(cpu: CpuIndex) -> Result<(), Error> {
    register(cpu)
}

const fn protocol() -> MsrProtocol<Processor> {
    MsrProtocol::new(Processor)
}

/// What ends the machine.
pub(super) const fn terminator() -> Terminator<Processor> {
    Terminator::new(Processor)
}

/// The way to the host from this CPU, once it has one.
pub(crate) fn ghcb() -> Option<Ghcb> {
    let cpu = cpu::index();
    let machine = MACHINE.value()?;
    let at = Gpa::new(GHCBS.get(cpu.as_usize())?.load(Ordering::Acquire))?;
    if at == Gpa::ZERO {
        return None;
    }
    let shown = machine
        .window
        .gva
        .checked_add(u64::from(cpu.as_u32()) * PAGE)?;
    // SAFETY: `assign` mapped the page there for good; it is made of atomics.
    let page = unsafe { pointer(shown)?.cast::<GhcbPage>().as_ref() };
    // SAFETY: `assign` and `register` made it this CPU's. Interrupts are masked wherever this level talks to the host, and
    // handlers of what cannot be masked do not, unless they end the machine; or that of #HV, where the CPU returns to a program
    // or has just come from one, and no exit is under way.
    Some(unsafe { Ghcb::new(page, at, Processor) })
}

/// What the processor can do.
pub(crate) fn cpuid() -> Option<CpuidPage<'static>> {
    MACHINE.value().map(|machine| machine.cpuid)
}

/// The SVSM's own page tables and free memory, where they are mapped for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    gpa: GpaRange,
    gva: Gva,
}

// SAFETY: the hand-off was checked: the range is mapped linearly and as private, in large pages where those fit.
unsafe impl Reach for Linear {
    fn reaches_large(&self) -> bool {
        true
    }

    fn reach<R>(&mut self, page: Gpa, size: RmpSize, run: impl FnOnce(Gva) -> R) -> Option<R> {
        let wanted = GpaRange::page_of(page, size.page_size())?;
        if !self.gpa.contains_range(&wanted) {
            return None;
        }
        let offset = page.checked_offset_from(self.gpa.start())?;
        Some(run(self.gva.checked_add(offset)?))
    }
}

/// Slots of the window through which a CPU reaches pages of the guest.
const OWN_SLOTS: u64 = MAX_CPUS as u64;

/// The window of this CPU, of one slot at [`own_slot`], for pages of the guest.
pub(crate) fn own_window() -> Option<TempWindow<Tlb>> {
    let machine = MACHINE.value()?;
    window(machine, OWN_SLOTS + u64::from(cpu::index().as_u32()), 1)
}

/// Where that window shows a page.
pub(crate) fn own_slot() -> Option<Gva> {
    let slot = OWN_SLOTS + u64::from(cpu::index().as_u32());
    MACHINE.value()?.window.gva.checked_add(slot * PAGE)
}

/// How page-table entries say private.
pub(crate) fn encryption() -> Option<Encryption> {
    MACHINE.value().map(|machine| machine.encryption)
}

/// What the guest runs with, which is what this level runs with: upstream hosts want equal features. But stock kernels refuse
/// restricted injection, which is for this level alone.
pub(crate) fn features() -> Option<SevFeatures> {
    let features = MACHINE.value()?.features;
    Some(features.difference(SevFeatures::RESTRICTED_INJECTION))
}

/// The page with which the host rings for this CPU, once there is one.
pub(crate) fn doorbell() -> Option<&'static DoorbellPage> {
    if !super::takes_bells() {
        return None;
    }
    let at = DOORBELLS
        .get(cpu::index().as_usize())?
        .load(Ordering::Relaxed);
    let at = NonNull::new(with_exposed_provenance_mut::<DoorbellPage>(at as usize))?;
    // SAFETY: `hang_doorbell` mapped a page there for good; it is made of atomics.
    Some(unsafe { at.as_ref() })
}

/// Gives the host a page with which to ring for this CPU, whose tables and handlers are in use.
///
/// # Errors
/// There is no memory, or the host does not take it.
pub(super) fn hang_doorbell() -> Result<(), Unshared> {
    let cpu = cpu::index();
    let place = DOORBELLS.get(cpu.as_usize());
    let place = place.ok_or(Unshared::Memory(svsm_mm::Error::Bug))?;
    let shared = share_at(FIRST_DOORBELL + u64::from(cpu.as_u32()), 1)?;
    let at = shared.gva.start().as_u64();
    let page = pointer(shared.gva.start()).ok_or(Unshared::Memory(svsm_mm::Error::Bug))?;
    // SAFETY: the page was mapped for this, and nobody has it yet; the host may write what it likes at any time.
    unsafe { page.cast::<[u64; 512]>().write_volatile([0; 512]) };
    place.store(at, Ordering::Relaxed);
    let host = ghcb().ok_or(Unshared::Snp(Error::Request))?;
    // SAFETY: the page is shared.
    unsafe { host.set_doorbell(shared.gpa) }.map_err(Unshared::Snp)
}

/// Runs a lower level on this CPU.
///
/// # Errors
/// There is none yet.
pub(crate) fn run_level(level: Vmpl) -> Result<(), Error> {
    ghcb().ok_or(Error::Request)?.run_vmpl(level)
}

/// Pages that are shared with the host, side by side, for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    gva: GvaRange,
    gpa: Gpa,
}

impl Shared {
    /// Where one of them is: for us, and for the host.
    pub(crate) fn page(&self, index: usize) -> Option<(Gva, Gpa)> {
        let offset = index as u64 * PAGE;
        let gva = self.gva.start().checked_add(offset)?;
        let gpa = self.gpa.checked_add(offset)?;
        self.gva.contains(gva).then_some((gva, gpa))
    }
}

/// Why nothing is shared.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum Unshared {
    /// There is no key to talk with.
    NoKey,
    /// There is no memory, or no room in the address space.
    Memory(svsm_mm::Error),
    /// The host or the processor refuses.
    Snp(Error),
}

/// Shares `count` pages with the host, which are cleared; called once.
///
/// # Errors
/// Why they are not shared.
pub(crate) fn share(count: usize) -> Result<Shared, Unshared> {
    share_at(0, count)
}

/// The first of the pages for doorbells, among those that are shared for good.
const FIRST_DOORBELL: u64 = 256;
// Behind 2 MiB there is the place of another CPU.
const _: () = assert!(FIRST_DOORBELL + MAX_CPUS as u64 <= 512);

/// The same, from the place with that number on, which nobody has.
fn share_at(place: u64, count: usize) -> Result<Shared, Unshared> {
    let machine = MACHINE.value().ok_or(Unshared::NoKey)?;
    let memory = memory::memory().map_err(Unshared::Memory)?;
    let bytes = count as u64 * PAGE;
    let gpa = memory.take_pages(count).map_err(Unshared::Memory)?;
    let bug = Unshared::Memory(svsm_mm::Error::Bug);
    let range = GpaRange::new(gpa, bytes).ok_or(bug)?;
    own_pages(machine)
        .make_shared(range)
        .map_err(|stopped| Unshared::Snp(stopped.cause))?;
    let gva = memory.map_shared(place, range).map_err(Unshared::Memory)?;
    Ok(Shared { gva, gpa })
}

/// Changes pages of the SVSM's own memory.
fn own_pages(machine: &Machine) -> Pages<'static, Processor, Linear> {
    // SAFETY: whoever is asked here to change a page holds its frame, or is the first to have it.
    unsafe { Pages::new(Processor, ghcb(), machine.linear) }
}

/// Has another CPU start at `start`, at this level. It gets the page `ghcb`, and starts from the save area `area`: two free pages
/// of the SVSM's own, which it keeps.
///
/// # Errors
/// What the host or the processor refuses. The pages are then nobody's.
pub(crate) fn start_cpu(
    cpu: CpuIndex,
    apic_id: u32,
    start: &LongMode,
    ghcb_page: Gpa,
    area: Gpa,
) -> Result<(), Error> {
    let machine = MACHINE.value().ok_or(Error::Request)?;
    let mut pages = own_pages(machine);
    let page = |page| GpaRange::page_of(page, PageSize::Size4K).ok_or(Error::Request);
    pages
        .make_shared(page(ghcb_page)?)
        .map_err(|stopped| stopped.cause)?;
    assign(machine, cpu, ghcb_page).ok_or(Error::Request)?;

    let image = Vmsa::long_mode(Vmpl::Vmpl0, machine.features, start);
    let offset = area.checked_offset_from(machine.linear.gpa.start());
    let at = offset
        .and_then(|offset| machine.linear.gva.checked_add(offset))
        .and_then(pointer)
        .ok_or(Error::NotMapped { page: area })?;
    // SAFETY: the page is the caller's to give, mapped, and as long as the image.
    unsafe { at.cast::<[u64; 512]>().write_volatile(*image.words()) };
    pages.adjust(
        area,
        RmpSize::Size4K,
        Vmpl::Vmpl1,
        svsm_platform::seam::Rights::empty(),
        true,
    )?;
    let order = VcpuOrder::Create(area);
    let host = ghcb().ok_or(Error::Request)?;
    // SAFETY: the state was just made for the entry of a CPU of this SVSM, which has its own stack.
    unsafe { host.create_vcpu(apic_id, Vmpl::Vmpl0, machine.features.bits(), order) }
}

/// The identity of the local APIC of this CPU, as the host tells it.
///
/// # Errors
/// It does not.
pub(crate) fn apic_id() -> Result<u32, Error> {
    use svsm_platform::seam::CpuidCall;

    let mut host = ghcb().ok_or(Error::Request)?;
    Ok(host.cpuid(0xb, 0)?.edx)
}

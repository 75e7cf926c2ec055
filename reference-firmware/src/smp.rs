//! The other CPUs.
#![expect(
    unsafe_code,
    reason = "other CPUs enter here, through a mailbox in low memory"
)]

use alloc::vec;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU64, Ordering};

use svsm_irq::apic::{ApicId, Command, StartPage, Target};
use svsm_platform::addr::{Gpa, Gva};
use svsm_platform::claim::Claim;
use svsm_platform::once::OnceCell;
use svsm_platform::percpu::CpuIndex;
use svsm_platform::snp::vmsa::LongMode;
use svsm_stage2::ApFault;
use svsm_stage2::ap::{ApStart, StartSignal, Timing};
use svsm_stage2::handoff::Handoff;
use svsm_stage2::layout;
use svsm_stage2::mailbox::{Mailbox, Order};
use svsm_stage2::params::{self, Madt};
use svsm_stage2::region::Parameter;

use crate::memory::{self, Stack};
use crate::{areas, clock, cpu, interrupt, machine};

/// More CPUs than this are left alone.
pub(crate) const MAX_CPUS: usize = 64;

/// The identities of the CPUs that run, by index.
static IDS: OnceCell<Vec<ApicId>> = OnceCell::new();
/// One bit for each CPU that runs.
static ARRIVED: AtomicU64 = AtomicU64::new(1);
const _: () = assert!(MAX_CPUS <= 64);

/// How many CPUs run.
pub(crate) fn online() -> usize {
    ARRIVED.load(Ordering::Acquire).count_ones() as usize
}

/// The identity of a CPU.
pub(crate) fn apic_id(cpu: CpuIndex) -> Option<ApicId> {
    IDS.value()?.get(cpu.as_usize()).copied()
}

/// The identities of all CPUs as numbers.
pub(crate) fn raw_ids() -> Vec<u32> {
    let ids = IDS.value().map_or(&[][..], Vec::as_slice);
    ids.iter().map(|id| id.as_u32()).collect()
}

/// The identity of this CPU as a number.
pub(crate) fn own_id() -> Option<u32> {
    apic_id(cpu::index()).map(ApicId::as_u32)
}

/// Reads which CPUs there are, this one first, and makes room for them.
///
/// # Errors
/// What the loader deposited is no list of processors, or this one is not in it, or there is no memory.
pub(crate) fn survey(handoff: &Handoff, own: ApicId) -> Result<usize, Failure> {
    let mut room = [0; MAX_CPUS];
    let listed = match area(handoff, Parameter::Madt) {
        Some(bytes) => Madt::parse(Claim::new(bytes)).map_err(Failure::Image)?,
        None => None,
    };
    let listed: Vec<ApicId> = match listed {
        Some(madt) => {
            let ids = madt.apic_ids(&mut room).map_err(Failure::Image)?;
            ids.iter().copied().map(ApicId::new).collect()
        }
        // Without a list, identities are taken to count from zero, as on every small machine.
        None => match area(handoff, Parameter::VpCount) {
            Some(bytes) => {
                let count = params::vp_count(Claim::new(bytes))
                    .map_err(Failure::Image)?
                    .get();
                (0..count).map(ApicId::new).take(MAX_CPUS).collect()
            }
            None => vec![own],
        },
    };
    // Who starts a CPU that it is itself is gone.
    if !listed.contains(&own) {
        return Err(Failure::NotListed(own));
    }
    let mut ids = vec![own];
    ids.extend(listed.into_iter().filter(|id| *id != own));
    let count = ids.len();
    cpu::make_room(count).map_err(Failure::Memory)?;
    let _ = IDS.set(ids);
    Ok(count)
}

/// Starts all other CPUs, one after the other. Answers how many did not come.
///
/// # Errors
/// There is no memory for one, or the image has no trampoline that can be reached.
pub(crate) fn start_others(handoff: &Handoff) -> Result<usize, Failure> {
    let ids = IDS.value().map_or(&[][..], Vec::as_slice);
    if machine::is_snp() {
        return start_others_by_host(ids);
    }
    let at = core::ptr::with_exposed_provenance::<Mailbox>(handoff.mailbox.gva().as_u64() as usize);
    // SAFETY: the builder mapped a cleared page for the mailbox, which is made of atomics; it stays for ever.
    let mailbox = unsafe { &*at };
    let mut start = ApStart::new(handoff, mailbox, Timing::USUAL);
    let cr3 = memory::memory().map_err(Failure::Memory)?.kernel_cr3();
    let entry = Gva::new((ap_entry as *const ()).addr() as u64)
        .ok_or(Failure::Memory(svsm_mm::Error::Bug))?;
    let mut missing = 0;
    for (index, id) in (0..).zip(ids).skip(1) {
        // The CPU keeps its stack for ever.
        let stack = ManuallyDrop::new(Stack::new().map_err(Failure::Memory)?);
        let order = Order {
            cr3: cr3.bits(),
            stack_top: stack.top(),
            entry,
            argument: index,
        };
        match start.start(id.as_u32(), &order, &mut Signal) {
            Ok(()) if arrives(index) => {}
            Ok(()) => {
                missing += 1;
                error!(public, "CPU {} does not arrive", index);
            }
            Err(error) => {
                missing += 1;
                error!(public, "CPU {} does not start: {}", index, error);
                // It holds the mailbox: no other can be told anything.
                if let svsm_stage2::Error::Ap {
                    fault: ApFault::Stuck,
                    ..
                } = error
                {
                    return Ok(ids.len() - online());
                }
            }
        }
    }
    Ok(missing)
}

/// The same where the host starts CPUs from save areas.
fn start_others_by_host(ids: &[ApicId]) -> Result<usize, Failure> {
    let memory = memory::memory().map_err(Failure::Memory)?;
    let bug = Failure::Memory(svsm_mm::Error::Bug);
    let entry = Gva::new((ap_entry as *const ()).addr() as u64).ok_or(bug)?;
    let mut missing = 0;
    for (index, id) in (0..).zip(ids).skip(1) {
        // The CPU keeps its stack for ever.
        let stack = ManuallyDrop::new(Stack::new().map_err(Failure::Memory)?);
        let start = LongMode {
            rip: entry.as_u64(),
            rsp: stack.top().as_u64(),
            rdi: u64::from(index),
            rsi: 0,
            cr3: memory.kernel_cr3().bits(),
            cr0: layout::ENTRY_CR0,
            cr4: layout::ENTRY_CR4,
            efer: layout::ENTRY_EFER,
        };
        let (ghcb, area) = memory.platform_pages().map_err(Failure::Memory)?;
        let cpu = CpuIndex::new(index);
        match machine::snp::start_cpu(cpu, id.as_u32(), &start, ghcb, area) {
            Ok(()) if arrives(index.into()) => {}
            Ok(()) => {
                missing += 1;
                error!(public, "CPU {} does not arrive", index);
            }
            Err(error) => {
                missing += 1;
                error!(public, "CPU {} does not start: {}", index, error);
            }
        }
    }
    Ok(missing)
}

/// Waits until a CPU says that it has arrived, for a second at most; the trampoline is its until then.
fn arrives(index: u64) -> bool {
    for _ in 0..1000 {
        if ARRIVED.load(Ordering::Acquire) >> index & 1 != 0 {
            return true;
        }
        clock::spin_us(1000);
    }
    false
}

/// Why CPUs were not started.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum Failure {
    /// What the loader deposited makes no sense.
    Image(svsm_stage2::Error),
    /// There is no memory.
    Memory(svsm_mm::Error),
    /// This CPU, which the host says is this one, is not among those that there are.
    NotListed(ApicId),
}

fn area(handoff: &Handoff, parameter: Parameter) -> Option<&'static [u8]> {
    // SAFETY: the area is one of the checked hand-off, and the builder maps parameters read-only.
    handoff
        .parameter(parameter)
        .map(|area| unsafe { areas::bytes(area) })
}

/// Interrupts that start CPUs, by the local APIC.
struct Signal;

impl StartSignal for Signal {
    type Error = interrupt::Error;

    fn init(&mut self, apic_id: u32) -> Result<(), Self::Error> {
        interrupt::send(Command::init(Target::One(ApicId::new(apic_id))))
    }

    fn startup(&mut self, apic_id: u32, page: Gpa) -> Result<(), Self::Error> {
        let Some(page) = StartPage::new(page) else {
            return Ok(());
        };
        // SAFETY: the page is the hand-off's trampoline, which leads to the mailbox and from there to `ap_entry`.
        let command = unsafe { Command::start_up(Target::One(ApicId::new(apic_id)), page) };
        interrupt::send(command)
    }

    fn wait(&mut self, microseconds: u32) {
        clock::spin_us(microseconds);
    }
}

/// Where the trampoline leads. RDI is the CPU's index, RSP its stack.
///
/// # Safety
/// Jumped to by the trampoline, in 64-bit mode with interrupts masked.
#[unsafe(naked)]
unsafe extern "sysv64" fn ap_entry() -> ! {
    naked_asm!("xor ebp, ebp", "call {begin}", "ud2", begin = sym begin)
}

extern "sysv64" fn begin(index: u64) -> ! {
    let index = CpuIndex::new(u32::try_from(index).unwrap_or(u32::MAX));
    // It must be the one that was started: what is kept for each CPU is found by this.
    let is_known = || match interrupt::set_up() {
        Ok(id) if Some(id) == apic_id(index) => true,
        Ok(id) => {
            error!(public, "CPU {=u32} says that it is {}", index.as_u32(), id);
            false
        }
        Err(error) => {
            error!(public, "CPU {=u32} has no APIC: {}", index.as_u32(), error);
            false
        }
    };
    match cpu::settle(index).is_ok() && machine::arrive(index) && is_known() {
        true => {
            ARRIVED.fetch_or(1 << index.as_u32(), Ordering::Release);
            info!(public, "CPU {} is up", index.as_u32());
            crate::user::work()
        }
        // Whoever waits for this CPU sees that it does not come.
        false => cpu::halt(),
    }
}

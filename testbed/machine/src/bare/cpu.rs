//! What each CPU has of its own: descriptor tables, stacks, control blocks, and a
//! record that its trap code finds through GS.
#![expect(unsafe_code, reason = "descriptor tables and per-CPU memory")]

use super::direct::DirectMap;
use super::insn::{self, rdmsr, wrmsr};
use super::machine::Site;
use crate::addr::{Hpa, PAGE};
use crate::pool::Pool;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const GS_BASE: u32 = 0xc000_0101;
const VM_HSAVE_PA: u32 = 0xc001_0117;
const SVME: u64 = 1 << 12;

/// The selector of L0's code.
pub(super) const CODE: u16 = 0x08;
const TSS: u16 = 0x18;
const TSS_BYTES: usize = 104;
/// Bytes of each stack for exceptions that need one of their own.
const TRAP_STACK: u64 = 2 * PAGE;

/// What the trap code knows of its CPU.
#[derive(Debug)]
pub(super) struct Local {
    index: usize,
    site: &'static Site,
    /// The interrupt that ended a sleep, plus 0x100; or zero.
    vector: AtomicU32,
    nmi: AtomicBool,
}

impl Local {
    /// The record of the CPU that runs this, once it has one.
    pub(super) fn current() -> Option<&'static Self> {
        let at = rdmsr(GS_BASE);
        let pointer = core::ptr::with_exposed_provenance::<Self>(usize::try_from(at).ok()?);
        // SAFETY: GS's base is zero from the entry code on, until `Cpu::activate` sets it to a
        // record that lives for ever; guests have a base of their own, which is swapped at entry
        // and exit.
        unsafe { pointer.as_ref() }
    }

    /// The CPU's number.
    pub(super) const fn index(&self) -> usize {
        self.index
    }

    /// What all CPUs share.
    pub(super) const fn site(&self) -> &'static Site {
        self.site
    }

    /// Notes the interrupt that ended a sleep.
    pub(super) fn record(&self, vector: u8) {
        self.vector
            .store(0x100 | u32::from(vector), Ordering::Relaxed);
    }

    /// Notes an NMI.
    pub(super) fn record_nmi(&self) {
        self.nmi.store(true, Ordering::Relaxed);
    }

    /// The interrupt that ended the last sleep.
    pub(super) fn take_vector(&self) -> Option<u8> {
        let value = self.vector.swap(0, Ordering::Relaxed);
        (value != 0).then_some((value & 0xff) as u8)
    }

    /// Whether an NMI was taken since the last call.
    pub(super) fn take_nmi(&self) -> bool {
        self.nmi.swap(false, Ordering::Relaxed)
    }
}

/// One CPU's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    /// Global descriptor table and task state, in one page.
    tables: *mut u64,
    local: *mut Local,
    host_save: Hpa,
    /// L0's own state for VMLOAD.
    pub(super) host: Hpa,
    /// The guest's control block.
    pub(super) vmcb: Hpa,
}

impl Cpu {
    /// Takes a CPU's memory from the pool and fills it.
    pub(super) fn new(index: usize, site: &'static Site, pool: &mut Pool) -> Option<Self> {
        let mut page = || pool.take(PAGE, PAGE);
        let [tables, local, host_save, host, vmcb] = [page()?, page()?, page()?, page()?, page()?];
        let tables_at = DirectMap::object::<[u64; 512]>(tables)?.cast::<u64>();
        // SAFETY: a fresh page.
        unsafe { tables_at.cast::<u8>().write_bytes(0, 4096) };
        let local_at = DirectMap::object::<Local>(local)?;
        // SAFETY: a fresh page, and from now on nothing but this record.
        unsafe {
            local_at.write(Local {
                index,
                site,
                vector: AtomicU32::new(0),
                nmi: AtomicBool::new(false),
            });
        }
        let cpu = Self {
            tables: tables_at,
            local: local_at,
            host_save: host_save.start(),
            host: host.start(),
            vmcb: vmcb.start(),
        };
        cpu.fill_tables(pool)?;
        Some(cpu)
    }

    /// The table: nothing, code, data, and a task state behind it in the same page.
    fn fill_tables(&self, pool: &mut Pool) -> Option<()> {
        const DESCRIPTORS: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
        let tss = self.tables.wrapping_add(16);
        let base = tss.expose_provenance() as u64;
        let limit = TSS_BYTES as u64 - 1;
        let low = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        for (slot, descriptor) in DESCRIPTORS.into_iter().chain([low, base >> 32]).enumerate() {
            // SAFETY: the first five words of a page of our own.
            unsafe { self.tables.wrapping_add(slot).write(descriptor) };
        }
        for stack in 0..3 {
            let memory = pool.take(TRAP_STACK, PAGE)?;
            let bottom = DirectMap::pointer(memory.start(), TRAP_STACK)?;
            let top = bottom.expose_provenance() as u64 + TRAP_STACK;
            // IST1 is at offset 36 of the task state, not a multiple of 8.
            let slot = tss.cast::<u8>().wrapping_add(36 + 8 * stack).cast::<u64>();
            // SAFETY: within the same page, behind the table.
            unsafe { slot.write_unaligned(top) };
        }
        // No I/O permission map.
        let map = tss.cast::<u8>().wrapping_add(102).cast::<u16>();
        // SAFETY: as above.
        unsafe { map.write_unaligned(104) };
        Some(())
    }

    /// Makes the running CPU this one: descriptor tables, record, SVM. Nothing but INIT
    /// disturbs L0 on it any more.
    ///
    /// # Safety
    /// Called once for each CPU, by the CPU itself, on its final stack and tables, with the
    /// interrupt descriptor table loaded after it.
    pub(super) unsafe fn activate(&self) {
        let gdt = self.tables.expose_provenance() as u64;
        let [a0, a1, a2, a3, a4, a5, a6, a7] = gdt.to_le_bytes();
        let pointer = [39, 0, a0, a1, a2, a3, a4, a5, a6, a7];
        // SAFETY: the table holds the three segments and the task state, and lives for ever.
        unsafe { load_tables(pointer.as_ptr()) };
        let local = self.local.expose_provenance() as u64;
        // SAFETY: L0's code does not use GS but for this record.
        unsafe { wrmsr(GS_BASE, local) };
        let efer = rdmsr(insn::EFER);
        // SAFETY: SVM was found in CPUID; switching it on changes nothing else.
        unsafe { wrmsr(insn::EFER, efer | SVME) };
        // SAFETY: a page that only the CPU uses from now on.
        unsafe { wrmsr(VM_HSAVE_PA, self.host_save.as_u64()) };
        insn::clgi();
        // SAFETY: a page that holds nothing but this state.
        unsafe { super::enter::save_host(self.host) };
    }
}

/// LGDT, a far return into the new code segment, and LTR.
#[unsafe(naked)]
unsafe extern "C" fn load_tables(pointer: *const u8) {
    naked_asm!(
        "lgdt [rdi]",
        "mov ax, 0x10",
        "mov ds, ax",
        "mov es, ax",
        "mov ss, ax",
        "xor eax, eax",
        "mov fs, ax",
        "mov gs, ax",
        "lldt ax",
        "mov ax, {tss}",
        "ltr ax",
        "pop rax",
        "push {code}",
        "push rax",
        "retfq",
        tss = const TSS,
        code = const CODE,
    )
}

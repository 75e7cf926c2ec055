//! Descriptor tables and exception stacks of one CPU.

use alloc::boxed::Box;
use alloc::vec;
use core::ptr::{self, NonNull};

use svsm_irq::{Exception, idt, ist};
use svsm_platform::addr::Gva;
use svsm_platform::cpu::descriptor::{GdtTable, IdtTable, Tss, TssLength};
use svsm_platform::cpu::insn;
use svsm_platform::once::OnceCell;

use crate::machine;
use crate::memory::Stack;
use crate::trap::{Handler, ProtectedHandler};

/// How many rings may come at the end of the handler of another one.
const NESTED_RINGS: usize = 3;

/// The gates, the same for all CPUs.
static IDT: OnceCell<Box<IdtTable>> = OnceCell::new();

/// What the descriptor-table registers of one CPU point to. Never freed, like the CPU.
#[derive(Debug)]
pub(crate) struct Tables {
    gdt: NonNull<GdtTable>,
    tss: NonNull<Tss>,
}

impl Tables {
    /// Tables for the CPU whose GS base is `gs_base` in kernel mode.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn new(gs_base: u64) -> svsm_mm::Result<&'static Self> {
        let tss = NonNull::from(Box::leak(Box::new(Tss::new())));
        let last = slot()?;
        for (exception, stack) in ist::STACKS {
            // The last thing that the handler of #HV does is to let the host ring again.
            let rings = exception == Exception::HV && machine::takes_bells();
            let mut chain = vec![slot()?];
            for _ in 0..if rings { NESTED_RINGS } else { 0 } {
                chain.push(slot()?);
            }
            // SAFETY: the segment lives for ever, and nobody else writes its exception stacks. The chain is new, `last` ends
            // chains of this CPU only, and `settle` has set GS base to this value for good.
            unsafe { ist::link(&chain, &last, tss, stack, gs_base) }
                .map_err(|_| svsm_mm::Error::Bug)?;
        }
        let base = gva(tss.as_ptr().addr())?;
        let gdt = NonNull::from(Box::leak(Box::new(
            GdtTable::new().with_tss(base, TssLength::PLAIN),
        )));
        let _ = idt();
        Ok(Box::leak(Box::new(Self { gdt, tss })))
    }

    /// Makes the processor use them.
    pub(super) fn load(&self) {
        let (Some(gdt), Some(idt)) = (
            Gva::new(self.gdt.as_ptr().addr() as u64),
            Gva::new(ptr::from_ref(idt()).addr() as u64),
        ) else {
            return;
        };
        // SAFETY: the table lives for ever and describes flat segments for the code and data in use.
        unsafe { insn::lgdt(&GdtTable::pointer(gdt)) };
        // SAFETY: the selector names the kernel's code segment of the table just loaded.
        unsafe { insn::load_cs(GdtTable::KERNEL_CODE) };
        // SAFETY: the selector names the kernel's data segment of that table.
        unsafe { insn::load_data_segments(GdtTable::KERNEL_DATA) };
        // SAFETY: the table lives for ever, and its gates lead to the entry code with stacks in the TSS.
        unsafe { insn::lidt(&IdtTable::pointer(idt)) };
        // SAFETY: the selector names the TSS of this CPU, which is not in use by another.
        unsafe { insn::ltr(GdtTable::TSS) };
    }

    /// Sets the stack on which an interrupt out of user mode starts.
    pub(crate) fn set_kernel_stack(&self, top: Gva) {
        // SAFETY: the TSS lives for ever; this CPU alone writes this part of it, with interrupts masked.
        unsafe { (*self.tss.as_ptr()).set_kernel_stack(top) };
    }
}

// SAFETY: the tables are used by the CPU that made them; others only hold the reference.
unsafe impl Sync for Tables {}

fn idt() -> &'static IdtTable {
    if IDT.value().is_none() {
        let mut table = Box::new(IdtTable::new());
        if machine::is_snp() {
            idt::fill::<ProtectedHandler>(&mut table);
        } else {
            idt::fill::<Handler>(&mut table);
        }
        // Another CPU may have been faster; its table is the same.
        let _ = IDT.set(table);
    }
    match IDT.value() {
        Some(table) => table,
        None => unreachable!("it was just set"),
    }
}

/// A stack for events of one kind.
fn slot() -> svsm_mm::Result<ist::Slot> {
    let stack = core::mem::ManuallyDrop::new(Stack::new()?);
    let start = ptr::with_exposed_provenance_mut::<u8>(stack.range().start().as_u64() as usize);
    let memory = NonNull::slice_from_raw_parts(
        NonNull::new(start).ok_or(svsm_mm::Error::Bug)?,
        stack.range().len_bytes() as usize,
    );
    // SAFETY: the stack is mapped in the kernel's half of every address space, and as it is never dropped, nobody else uses it.
    unsafe { ist::Slot::new(memory) }.map_err(|_| svsm_mm::Error::Bug)
}

fn gva(address: usize) -> svsm_mm::Result<Gva> {
    Gva::new(address as u64).ok_or(svsm_mm::Error::Bug)
}

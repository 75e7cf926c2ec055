//! The processor: its registers as types, and the instructions that reach them.
//!
//! Everything but [`insn`] is pure and runs anywhere; [`insn`] holds the instructions, one in each function.

pub mod cpuid; // what the processor can do
pub mod cr; // control registers, EFER, RFLAGS and XCR0 as flag words
pub mod descriptor; // GDT, IDT and TSS
#[cfg(target_arch = "x86_64")]
pub mod insn; // the instructions
pub mod msr; // numbers of model-specific registers
pub mod protection; // which protections to switch on: a plan, then its execution

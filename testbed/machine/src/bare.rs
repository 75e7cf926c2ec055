//! What needs the machine: start, CPUs, exceptions, and the run loop.
//!
//! The only unsafe code of the program is below this module, in leaves.

pub mod boot; // from QEMU's entry to the top of memory
mod console; // the second serial port, and QEMU's exit device
mod cpu; // what each CPU has of its own
mod direct; // all physical memory, mapped
mod enter; // VMRUN and what surrounds it
mod fatal; // the end when L0 itself fails
mod insn; // single instructions
mod machine; // from boot to the first guest instruction
mod run; // the run loop
mod smp; // the other CPUs
mod start_info; // what QEMU tells
mod trap; // L0's own exceptions and interrupts
mod watch; // the CPU of a debugger

pub use fatal::panicked;

//! The processor: its registers as types, and the instructions that reach them.

pub mod cpuid; // what the processor can do
pub mod msr; // model-specific registers

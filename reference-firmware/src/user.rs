//! User mode: processes of the archive's programs, and what they may ask of the kernel.

mod space; // the memory of a process

pub(crate) use space::{Space, SpaceError};

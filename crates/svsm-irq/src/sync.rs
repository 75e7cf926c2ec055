//! Atomics: the real ones, or loom's, which try all interleavings.

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        pub(crate) use loom::{
            hint::spin_loop,
            sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        };

        macro_rules! const_fn {
            ($(#[$attribute:meta])* pub fn $($rest:tt)+) => { $(#[$attribute])* pub fn $($rest)+ };
        }
    } else {
        pub(crate) use core::{
            hint::spin_loop,
            sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        };

        macro_rules! const_fn {
            ($(#[$attribute:meta])* pub fn $($rest:tt)+) => { $(#[$attribute])* pub const fn $($rest)+ };
        }
    }
}

/// The constructor is `const`, except under loom, whose atomics have none.
pub(crate) use const_fn;

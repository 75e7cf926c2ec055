//! Atomics and cells: the real ones, or loom's, which try all interleavings.

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        pub(crate) use loom::{
            cell::UnsafeCell,
            hint::spin_loop,
            sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
        };

        macro_rules! const_fn {
            ($(#[$attribute:meta])* pub fn $($rest:tt)+) => { $(#[$attribute])* pub fn $($rest)+ };
        }
    } else {
        pub(crate) use core::{
            hint::spin_loop,
            sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
        };

        /// The standard cell with loom's interface.
        pub(crate) struct UnsafeCell<T: ?Sized>(core::cell::UnsafeCell<T>);

        impl<T> UnsafeCell<T> {
            pub(crate) const fn new(value: T) -> Self {
                Self(core::cell::UnsafeCell::new(value))
            }

            pub(crate) fn into_inner(self) -> T {
                self.0.into_inner()
            }
        }

        impl<T: ?Sized> UnsafeCell<T> {
            pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
                f(self.0.get())
            }

            pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
                f(self.0.get())
            }
        }

        macro_rules! const_fn {
            ($(#[$attribute:meta])* pub fn $($rest:tt)+) => { $(#[$attribute])* pub const fn $($rest)+ };
        }
    }
}

/// A constructor that is `const`, except under loom, whose atomics have none.
pub(crate) use const_fn;

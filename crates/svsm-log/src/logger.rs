//! What a firmware (or a user process) supplies so that the macros work.
//!
//! No crate of this family has statics, so the firmware owns them: one [`Channel`] for all CPUs behind
//! its lock, one [`FrameStack`] for each CPU in its per-CPU area, and a [`Hook`] that finds both. Three
//! lines then make the logger and the macros:
//!
//! ```ignore
//! struct Log;                                    // a private type of the firmware
//! impl svsm_log::Hook for Log { /* see `Hook` */ }
//! svsm_log::define_defmt_logger!(Log);           // the `#[defmt::global_logger]`
//! svsm_log::define_log_macros!(crate::log::Log); // error! warn! info! debug! trace!
//!
//! info!(public, "{} CPUs are up", cpus);         // leaves the guest
//! info!("calling area of CPU {} at {:#x}", cpu, at);   // does not
//! ```
//!
//! Each binary that logs does this once: stage2 with one frame stack and no lock, the SVSM as above, a
//! process with [`Hook::submit`] being a system call. A process knows neither the channel nor its image
//! id: it hands raw frames and their class to the kernel, which stamps them with the CPU, the time and
//! the id it took from the ELF it loaded ([`ImageId::from_notes`](crate::ImageId::from_notes)) and
//! submits them.
//!
//! [`Channel`]: crate::Channel

use crate::{Class, Frame, FrameStack};

/// How the logger reaches the state that the firmware owns.
///
/// ```
/// use core::cell::RefCell;
/// use svsm_log::{Frame, FrameStack, Hook};
///
/// thread_local! {
///     // In a firmware: a field of the per-CPU area.
///     static FRAMES: RefCell<FrameStack<[u8; 512], ()>> =
///         const { RefCell::new(FrameStack::new([0; 512])) };
/// }
///
/// struct Log;
///
/// impl Hook for Log {
///     type Storage = [u8; 512];
///     type Saved = ();
///
///     fn mask() {}
///     fn restore(_: ()) {}
///
///     fn with<R>(run: impl FnOnce(&mut FrameStack<[u8; 512], ()>) -> R) -> Option<R> {
///         FRAMES.with(|frames| Some(run(&mut *frames.try_borrow_mut().ok()?)))
///     }
///
///     fn submit(frame: Frame<'_>) {
///         // In a firmware: lock the channel, then `submit` or `count_lost`.
///         println!("{frame:?}");
///     }
/// }
/// ```
pub trait Hook {
    /// Storage of the frame stack.
    type Storage: AsRef<[u8]> + AsMut<[u8]>;
    /// State of the interrupt flag, or `()` where there are no interrupts.
    type Saved: Copy;

    /// Keeps this CPU from switching to other code: masks interrupts, and says whether they were.
    fn mask() -> Self::Saved;

    /// Undoes [`mask`](Self::mask).
    fn restore(saved: Self::Saved);

    /// Runs `run` with the frame stack of this CPU, or returns `None` at once if that is in use: an
    /// exception that cannot be masked has hit in the middle of another `with`, and its frame is lost.
    fn with<R>(run: impl FnOnce(&mut FrameStack<Self::Storage, Self::Saved>) -> R) -> Option<R>;

    /// Takes a finished frame. Called within [`with`](Self::with), so whatever this logs is lost.
    fn submit(frame: Frame<'_>);
}

/// Runs `log`, one `defmt` macro without side effects in its arguments, under `class`.
///
/// Interrupts are masked meanwhile, so the class cannot leak into a frame of theirs; an exception that
/// cannot be masked must log through the macros of this crate, which set the class themselves.
pub fn scoped<H: Hook>(class: Class, log: impl FnOnce()) {
    let saved = H::mask();
    let before = H::with(|frames| frames.set_class(class));
    log();
    if let Some(before) = before {
        let _ = H::with(|frames| frames.set_class(before));
    }
    H::restore(saved);
}

/// What `defmt::Logger::acquire` does.
pub fn acquire<H: Hook>() {
    let saved = H::mask();
    match H::with(|frames| frames.begin(saved)) {
        Some(Ok(())) => {} // `release` restores
        Some(Err(saved)) => H::restore(saved),
        None => H::restore(saved),
    }
}

/// What `defmt::Logger::write` does.
pub fn write<H: Hook>(bytes: &[u8]) {
    // If `acquire` found the stack in use, then so does this: whoever uses it has been interrupted.
    let _ = H::with(|frames| frames.write(bytes));
}

/// What `defmt::Logger::release` does.
pub fn release<H: Hook>() {
    if let Some(saved) = H::with(|frames| frames.finish(H::submit)).flatten() {
        H::restore(saved);
    }
}

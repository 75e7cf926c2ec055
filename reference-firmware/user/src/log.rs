//! The log: records that the kernel stamps with this program's image id.

use svsm_log::{Class, Frame, FrameStack, Hook};
use svsm_platform::irq::NoIrq;
use svsm_platform::lock::SpinLock;
use svsm_syscall::abi::LOG_HANDLE;
use svsm_syscall::handle::Handle;

use crate::KERNEL;

svsm_log::define_defmt_logger!(Log);

type Frames = FrameStack<[u8; 512], ()>;

static FRAMES: SpinLock<Frames, NoIrq> = SpinLock::new(FrameStack::new([0; 512]), NoIrq);

/// Finds the logger's state for the macros.
#[derive(Debug)]
pub struct Log;

impl Hook for Log {
    type Storage = [u8; 512];
    type Saved = ();

    // A process has one thread, and nothing interrupts it.
    fn mask() {}

    fn restore((): ()) {}

    fn with<R>(run: impl FnOnce(&mut Frames) -> R) -> Option<R> {
        Some(run(&mut *FRAMES.try_lock()?))
    }

    fn submit(frame: Frame<'_>) {
        if let Some(bytes) = frame.bytes {
            // A log that the kernel does not take is no reason to stop.
            let _ = KERNEL.log_record(frame.class == Class::Public, bytes);
        }
    }
}

/// Writes text to the log, without a level and without `defmt`. It stays inside the machine.
pub fn text(text: &str) {
    let mut rest = text.as_bytes();
    while let Ok(taken @ 1..) = KERNEL.write(Handle::from_u32(LOG_HANDLE), rest) {
        rest = rest.get(taken..).unwrap_or_default();
    }
}

/// Says where this process panicked.
pub(crate) fn panicked(file: &str, line: u32) {
    svsm_log::log!(
        crate::log::Log,
        error,
        public,
        "panicked at {}:{}",
        file,
        line
    );
}

//! The log: one channel for stage2, the SVSM and its processes.
//!
//! `info!(public, "…")` leaves the machine, `info!("…")` stays in a ring inside of it. The class is decided where the message
//! is written, and what nobody marks is local.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use svsm_log::channel::LocalRecords;
use svsm_log::{Channel, Class, Frame, FrameStack, Hook, ImageId, Kind, Record, Stamp, Verdict};
use svsm_platform::cpu::insn;
use svsm_platform::irq::{IrqCtl, LocalIrq};
use svsm_platform::lock::SpinLock;
use svsm_platform::once::OnceCell;

use crate::machine::Console;
use crate::{areas, cpu};

svsm_log::define_defmt_logger!(Log);
svsm_log::define_log_macros!(crate::log::Log);

/// Bytes of local records that the SVSM remembers.
const RING_BYTES: usize = 16 << 10;

/// How often a panic tries the channel: about as long as the longest record takes.
const EMERGENCY_TRIES: u32 = 1 << 24;

/// The frames that a CPU is writing.
pub(crate) type Frames = FrameStack<[u8; 512], bool>;

static CHANNEL: SpinLock<Channel<Console, Vec<u8>>, LocalIrq> = SpinLock::new(
    Channel::new(Console::NONE, Vec::new(), LocalRecords::Kept),
    LocalIrq,
);
static DEBUG: AtomicBool = AtomicBool::new(false);
static IMAGE: OnceCell<ImageId> = OnceCell::new();

/// Opens the channel. Before this, nothing is logged.
pub(crate) fn open(console: Console, debug: bool) {
    let _ = IMAGE.set(ImageId::from_notes(areas::notes()).unwrap_or(ImageId::UNKNOWN));
    DEBUG.store(debug, Ordering::Relaxed);
    *CHANNEL.lock() = Channel::new(console, Vec::new(), shown(debug));
}

/// Starts to remember local records, once there is a heap; those from before are lost.
pub(crate) fn remember(console: Console, debug: bool) {
    let mut ring = Vec::new();
    if ring.try_reserve_exact(RING_BYTES).is_ok() {
        ring.resize(RING_BYTES, 0);
    }
    *CHANNEL.lock() = Channel::new(console, ring, shown(debug));
}

const fn shown(debug: bool) -> LocalRecords {
    if debug {
        LocalRecords::Shown
    } else {
        LocalRecords::Kept
    }
}

/// Ends the log with the firmware's own verdict.
pub(crate) fn verdict(verdict: Verdict) {
    CHANNEL
        .lock()
        .send(stamp(), |writer| writer.verdict(stamp(), verdict));
}

/// Takes a frame that a process wrote, under the process's own image id.
pub(crate) fn process_frame(image: ImageId, class: Class, frame: &[u8]) {
    let record = Record {
        stamp: Stamp { image, ..stamp() },
        class,
        kind: Kind::FRAME,
        payload: frame,
    };
    CHANNEL.lock().submit(&record);
}

/// Takes text that a process printed.
pub(crate) fn process_text(image: ImageId, class: Class, text: &str) {
    CHANNEL.lock().text(Stamp { image, ..stamp() }, class, text);
}

/// Runs `write` with the channel, for who must not wait for ever: a panic may have interrupted the holder of the lock. Then it
/// gets a channel of its own to the same port; a torn record costs less than a death without words.
///
/// `silence` stops the other CPUs. It comes after the lock, so that none of them is stopped while it holds it.
pub(crate) fn in_emergency(
    silence: impl FnOnce(),
    write: impl FnOnce(&mut Channel<Console, Vec<u8>>, Stamp),
) {
    for _ in 0..EMERGENCY_TRIES {
        if let Some(mut channel) = CHANNEL.try_lock() {
            silence();
            return write(&mut channel, stamp());
        }
        insn::pause();
    }
    silence();
    let debug = DEBUG.load(Ordering::Relaxed);
    let mut own = Channel::new(Console::open(), Vec::new(), shown(debug));
    write(&mut own, stamp());
}

fn stamp() -> Stamp {
    Stamp {
        cpu: u16::try_from(cpu::index().as_u32()).unwrap_or(u16::MAX),
        image: IMAGE.value().copied().unwrap_or(ImageId::UNKNOWN),
        time: insn::rdtsc(),
    }
}

/// Finds the state of the logger for the macros.
pub(crate) struct Log;

impl Hook for Log {
    type Storage = [u8; 512];
    type Saved = bool;

    fn mask() -> bool {
        LocalIrq.mask()
    }

    fn restore(saved: bool) {
        LocalIrq.restore(saved);
    }

    fn with<R>(run: impl FnOnce(&mut Frames) -> R) -> Option<R> {
        cpu::with_frames(run)
    }

    fn submit(frame: Frame<'_>) {
        let mut channel = CHANNEL.lock();
        match frame.bytes {
            Some(payload) => {
                channel.submit(&Record {
                    stamp: stamp(),
                    class: frame.class,
                    kind: Kind::FRAME,
                    payload,
                });
            }
            None => channel.count_lost(frame.class),
        }
    }
}

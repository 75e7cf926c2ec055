//! The end nobody wants: where it happened and who called leaves the machine, what it said does not.
#![expect(unsafe_code, reason = "follows frame pointers")]

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use svsm_log::{Class, Kind, PanicLocation, Record, StackTrace};
use svsm_platform::cpu::insn;
use svsm_platform::seam::{Reason, Terminate};

use crate::{cpu, interrupt, log, machine};

/// The first CPU that panics, plus one: the others stop, and a panic in here ends without words.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// Whether some CPU is ending the machine.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::Relaxed) != 0
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    insn::cli();
    let at = info.location().map_or(
        PanicLocation {
            file: "",
            line: 0,
            column: 0,
        },
        |location| PanicLocation {
            file: location.file(),
            line: location.line(),
            column: location.column(),
        },
    );
    let mut message = Text::new();
    // A message that is too long is cut.
    let _ = write!(message, "{}", info.message());
    end(at, message.as_str(), None, Backtrace::here())
}

/// Says what happened and ends the machine: place and addresses are for everyone, the message for whoever may read local
/// records. `at_instruction` is the instruction that an exception interrupted.
pub(crate) fn end(
    at: PanicLocation<'_>,
    message: &str,
    at_instruction: Option<u64>,
    trace: Backtrace,
) -> ! {
    // What rings from here on is for nobody.
    cpu::set_leaves(false);
    let me = cpu::index().as_u32().wrapping_add(1);
    match ENDING.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => log::in_emergency(interrupt::stop_others, |channel, stamp| {
            channel.send(stamp, |writer| writer.panic(stamp, at));
            let payload = message.as_bytes();
            channel.submit(&Record {
                stamp,
                class: Class::Local,
                kind: Kind::PANIC_MESSAGE,
                payload,
            });
            channel.send(stamp, |writer| match at_instruction {
                Some(rip) => writer.stack_trace_at(stamp, rip, trace),
                None => writer.stack_trace(stamp, trace),
            });
        }),
        // Another one is telling what happened to it.
        Err(other) if other != me => cpu::halt(),
        Err(_) => {}
    }
    machine::terminator().fatal(Reason::General)
}

/// Text on the stack, cut where it ends.
pub(crate) struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Text {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; 512],
            len: 0,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.bytes
            .get(..self.len)
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for character in text.chars() {
            let end = self.len + character.len_utf8();
            let room = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
            character.encode_utf8(room);
            self.len = end;
        }
        Ok(())
    }
}

/// Return addresses, by following frame pointers.
pub(crate) struct Backtrace {
    frame: u64,
    left: usize,
}

impl Backtrace {
    /// From the caller on.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        let frame: u64;
        // SAFETY: reads a register.
        unsafe {
            core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags))
        };
        Self {
            frame,
            left: StackTrace::MAX_ADDRESSES,
        }
    }

    /// From the frame of an interrupted function on.
    pub(crate) const fn from(frame: u64) -> Self {
        Self {
            frame,
            left: StackTrace::MAX_ADDRESSES,
        }
    }
}

impl Iterator for Backtrace {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        // Frames lie on kernel stacks, aligned, each above the one before; anything else ends the trace.
        let on_stack = crate::memory::is_kernel_stack(self.frame, 16);
        if !on_stack || !self.frame.is_multiple_of(8) {
            return None;
        }
        let at = core::ptr::with_exposed_provenance::<[u64; 2]>(self.frame as usize);
        // SAFETY: sixteen bytes from the frame on lie in a mapped kernel stack, aligned.
        let [next, address] = unsafe { at.read_volatile() };
        if next != 0 && next <= self.frame {
            self.left = 0;
        }
        self.frame = next;
        (address != 0).then_some(address)
    }
}

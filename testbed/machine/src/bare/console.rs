//! The second serial port, on which reports leave, and QEMU's exit device.

use super::insn::{port_in, port_out};
use crate::ending::Ending;
use crate::lock::Lock;
use core::fmt::{self, Write};

const COM2: u16 = 0x2f8;
const LINE_STATUS: u16 = COM2 + 5;
const TRANSMITTER_EMPTY: u32 = 1 << 5;
/// QEMU drains the port at once; if nobody ever does, reports are lost and the run still ends.
const PATIENCE: u32 = 1 << 20;
const EXIT_DEVICE: u16 = 0xf4;

/// One line at a time, whichever CPU writes it.
static WRITING: Lock<()> = Lock::new(());
/// How many bytes the port takes at once when it is empty.
const FIFO: usize = 16;

/// Writes a line, complete and alone.
pub(super) fn line(line: &dyn fmt::Display) {
    let guard = WRITING.lock();
    // A console that fails cannot be told anywhere.
    let _ = writeln!(Console, "{line}");
    drop(guard);
}

/// The port.
#[derive(Debug)]
pub(super) struct Console;

impl Console {
    /// Sets the port up: 115200 baud, 8 bits, no parity, no interrupts.
    pub(super) fn new() -> Self {
        for (register, value) in [
            (1, 0),
            (3, 0x80),
            (0, 1),
            (1, 0),
            (3, 0x03),
            (2, 0x07),
            (4, 0x03),
        ] {
            port_out(COM2 + register, 1, value);
        }
        Self
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunks(FIFO) {
            for _ in 0..PATIENCE {
                if port_in(LINE_STATUS, 1) & TRANSMITTER_EMPTY != 0 {
                    break;
                }
            }
            for byte in piece {
                port_out(COM2, 1, u32::from(*byte));
            }
        }
        Ok(())
    }
}

/// Ends QEMU.
pub(super) fn exit(ending: Ending) -> ! {
    port_out(EXIT_DEVICE, 4, u32::from(ending.exit_code()));
    // QEMU was started without the device: nothing more to say.
    super::insn::stop()
}

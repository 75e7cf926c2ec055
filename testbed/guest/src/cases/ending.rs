//! The ways to end.

use super::{Result, check};
use crate::bare::{self, apic, insn, say};

pub(super) fn triple_fault() -> Result {
    insn::triple_fault()
}

pub(super) fn triple_fault_ap() -> Result {
    bare::set_others(|| insn::triple_fault());
    apic::start(None);
    spin()
}

pub(super) fn reset(port: u16, value: u8) -> Result {
    insn::out8(port, value);
    Ok(())
}

pub(super) fn halted() -> Result {
    loop {
        insn::cli_hlt();
    }
}

pub(super) fn halted_all() -> Result {
    bare::set_others(|| {
        loop {
            insn::cli_hlt();
        }
    });
    apic::start(None);
    halted()
}

pub(super) fn spin() -> Result {
    say(format_args!("spins"));
    loop {
        core::hint::spin_loop();
    }
}

pub(super) fn bad_access() -> Result {
    bare::write(0x60_0000_1234, 1_u8);
    Ok(())
}

/// L0's serial port and QEMU's exit device are not there.
pub(super) fn report_ports() -> Result {
    insn::out8(0x2f8, b'!');
    check(
        "the second serial port answers",
        u64::from(insn::in8(0x2fd)),
        0xff,
    )?;
    insn::out8(0xf4, 0);
    // What only looks like a way out: another bit of the reset register, and PM1a without SLP_EN.
    insn::out8(0xcf9, 2);
    insn::out16(0x604, 0);
    Ok(())
}

//! QEMU's educational device, which copies between its own buffer and memory: what devices reach.

use super::{Failed, Result, check, wait};
use crate::bare::ghcb::{self, BUFFER, RAX, SCRATCH, event, page};
use crate::bare::{insn, read, write};
use crate::layout::SHARED;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Device and vendor.
const ID: u32 = 0x11e8_1234;
/// Memory and DMA on.
const COMMAND: u32 = 6;

const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const START: u64 = 0x98;
/// Where its buffer is, for itself.
const OWN: u64 = 0x4_0000;

/// The device, by the address of its registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edu(u64);

impl Edu {
    /// Finds the device and lets it use memory.
    pub(super) fn find() -> core::result::Result<Self, Failed> {
        let missing = Failed {
            what: "there is no such device",
            got: 0,
        };
        let device = (0..32)
            .find(|device| config(*device, 0) == ID)
            .ok_or(missing)?;
        set_config(device, 4, COMMAND);
        Ok(Self(u64::from(config(device, 0x10) & !0xf)))
    }

    /// Lets it read eight bytes of memory into its buffer.
    pub(super) fn fetch(self, from: u64) -> Result {
        self.copy(from, OWN, 0)
    }

    /// Lets it write them back somewhere else.
    pub(super) fn store(self, to: u64) -> Result {
        self.copy(OWN, to, 2)
    }

    fn copy(self, from: u64, to: u64, way: u64) -> Result {
        for (register, value) in [
            (SOURCE, from),
            (DESTINATION, to),
            (COUNT, 8),
            (START, 1 | way),
        ] {
            device_write(self.0 + register, value);
        }
        wait("the device does not end", || {
            device_read(self.0 + START) & 1 == 0
        })
    }
}

/// Lets the device bring a value to an address, by way of a mailbox that it reaches.
pub(super) fn stores(edu: Edu, mailbox: u64, at: u64, value: u64) -> Result {
    write(mailbox, value);
    edu.fetch(here(mailbox))?;
    edu.store(here(at))
}

/// The physical address behind one of this program's.
const fn here(at: u64) -> u64 {
    at & (SHARED - 1)
}

fn config(device: u32, offset: u32) -> u32 {
    port_out(CONFIG_ADDRESS, 1 << 31 | device << 11 | offset);
    port_in(CONFIG_DATA)
}

fn set_config(device: u32, offset: u32, value: u32) {
    port_out(CONFIG_ADDRESS, 1 << 31 | device << 11 | offset);
    port_out(CONFIG_DATA, value);
}

fn port_out(port: u16, value: u32) {
    if ghcb::is_up() {
        let info = u64::from(port) << 16 | 4 << 4;
        let _ = event(0x7b, info, 0, &[(RAX, value.into())]);
    } else {
        insn::out32(port, value);
    }
}

fn port_in(port: u16) -> u32 {
    if ghcb::is_up() {
        let info = u64::from(port) << 16 | 4 << 4 | 1;
        let value = event(0x7b, info, 0, &[(RAX, 0)]).rax.unwrap_or_default();
        (value & 0xffff_ffff) as u32
    } else {
        insn::in32(port)
    }
}

/// Reads a device's register.
pub(super) fn device_read(at: u64) -> u64 {
    if ghcb::is_up() {
        let _ = event(0x8000_0001, at, 8, &[(SCRATCH, page() + BUFFER)]);
        ghcb::field(BUFFER)
    } else {
        read(at)
    }
}

fn device_write(at: u64, value: u64) {
    if ghcb::is_up() {
        ghcb::set(BUFFER, value);
        let _ = event(0x8000_0002, at, 8, &[(SCRATCH, page() + BUFFER)]);
    } else {
        write(at, value);
    }
}

/// Without isolation, a device reaches all of the guest's memory, and nothing of the machine's own.
pub(super) fn native() -> Result {
    const MAILBOX: u64 = 0x100_0000;
    let edu = Edu::find()?;
    for at in [0x9_0000, 0x150_0000, (64 << 20) - 8] {
        write(at, 0_u64);
        stores(edu, MAILBOX, at, at ^ 0x5a5a)?;
        check("what the device wrote", read(at), at ^ 0x5a5a)?;
    }
    let own = 64 << 20;
    for at in [own, own + (1 << 20)] {
        write(MAILBOX, 0x1234_u64);
        edu.fetch(MAILBOX)?;
        edu.store(at)?;
        let_l0_look();
    }
    // What the device does not get, it does not bring either: it has what it had, or nothing.
    edu.fetch(own)?;
    let_l0_look();
    edu.store(MAILBOX + 8)?;
    let brought = read::<u64>(MAILBOX + 8);
    if brought != 0 {
        check("what the device brought", brought, 0x1234)?;
    }
    // Behind all memory.
    edu.store(own + (64 << 20))?;
    check("a transfer to the guest", transfer(MAILBOX).into(), 0)?;
    check("the device's id", u64::from(read::<u32>(MAILBOX) & 1), 1)?;
    check("a transfer to L0", transfer(own).into(), 1)?;
    check("a transfer across", transfer(own - 2).into(), 1)
}

/// The unit notes one refused access at a time, and L0 looks at exits, of which a device needs none.
fn let_l0_look() {
    let _ = insn::cpuid(0);
}

/// Lets the firmware configuration device bring four bytes of its id to memory, which is no matter of the bus. What became of it
/// comes back.
fn transfer(to: u64) -> u32 {
    const ORDER: u64 = 0x110_0000;
    const SELECT_AND_READ: u32 = 1 << 16 | 1 << 3 | 1 << 1;
    write(ORDER, SELECT_AND_READ.swap_bytes());
    write(ORDER + 4, 4_u32.swap_bytes());
    write(ORDER + 8, to.swap_bytes());
    insn::out32(0x514, 0);
    insn::out32(0x518, ((ORDER & 0xffff_ffff) as u32).swap_bytes());
    read::<u32>(ORDER).swap_bytes()
}

//! What an SNP guest needs to speak with its host: the instructions, and one page.
#![expect(unsafe_code, reason = "instructions that change who owns a page")]

use super::insn::{rdmsr, wrmsr};
use super::{read, write};
use crate::layout::SHARED;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// The register.
pub const GHCB: u32 = 0xc001_0130;
/// A 4 KiB page becomes private.
pub const PRIVATE: u64 = 1;
/// A page becomes shared.
pub const SHARE: u64 = 2;

static UP: AtomicBool = AtomicBool::new(false);

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);
// SAFETY: it is never reached through a reference, and one CPU at a time uses it.
unsafe impl Sync for Page {}
static PAGE: Page = Page(UnsafeCell::new([0; 4096]));

/// The page's address.
#[must_use]
pub fn page() -> u64 {
    PAGE.0.get().addr() as u64
}

/// Whether the guest has a page, which it has on SEV-SNP only.
#[must_use]
pub fn is_up() -> bool {
    UP.load(Ordering::Relaxed)
}

/// Makes the page shared and registers it.
pub(super) fn set_up() {
    let _ = pvalidate(page(), 0, 0);
    let _ = change(page(), SHARE);
    let _ = request(0x12 | page());
    UP.store(true, Ordering::Relaxed);
}

/// Says again which page it is, after a case that registered another.
pub fn register() {
    let _ = request(0x12 | page());
}

/// Makes a request in the register.
#[must_use]
pub fn request(value: u64) -> u64 {
    wrmsr(GHCB, value);
    vmgexit();
    rdmsr(GHCB)
}

/// `VMGEXIT`
pub fn vmgexit() {
    // SAFETY: the host answers in the register or in the page; the cases expect what it may do.
    unsafe { asm!(".byte 0xf3, 0x0f, 0x01, 0xd9", options(nostack)) };
}

/// Asks for one page to become private or shared; zero is success.
#[must_use]
pub fn change(gpa: u64, operation: u64) -> u64 {
    request(0x14 | gpa | operation << 52) >> 32
}

/// `PVALIDATE`: the code, and with bit 32 that nothing changed.
#[must_use]
pub fn pvalidate(at: u64, large: u64, validate: u64) -> u64 {
    let (code, carry): (u64, u8);
    // SAFETY: the cases change pages that hold nothing of the program.
    unsafe {
        asm!(".byte 0xf2, 0x0f, 0x01, 0xff", "setc {carry}", carry = out(reg_byte) carry,
            inout("rax") at => code, in("rcx") large, in("rdx") validate, options(nostack));
    }
    // The flag means something only where the instruction did something.
    if code == 0 {
        u64::from(carry) << 32
    } else {
        code
    }
}

/// `RMPADJUST`: the code.
#[must_use]
pub fn rmpadjust(at: u64, large: u64, attributes: u64) -> u64 {
    let code;
    // SAFETY: as above.
    unsafe {
        asm!(".byte 0xf3, 0x0f, 0x01, 0xfe", inout("rax") at => code, in("rcx") large,
            in("rdx") attributes, options(nostack));
    }
    code
}

/// `RMPQUERY`: the code, RCX and RDX.
#[must_use]
pub fn rmpquery(at: u64, level: u64) -> [u64; 3] {
    let (code, size, rights);
    // SAFETY: reads only.
    unsafe {
        asm!(".byte 0xf3, 0x0f, 0x01, 0xfd", inout("rax") at => code, inout("rcx") 7_u64 => size,
            inout("rdx") level => rights, options(nostack));
    }
    [code, size, rights]
}

/// What the host wrote into the page.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// `SW_EXITINFO1`
    pub info1: u64,
    /// `SW_EXITINFO2`
    pub info2: u64,
    /// RAX, if it is valid.
    pub rax: Option<u64>,
    /// RBX, if it is valid.
    pub rbx: Option<u64>,
    /// RDX, if it is valid.
    pub rdx: Option<u64>,
}

/// Offset of RAX in the page.
pub const RAX: u64 = 0x1f8;
/// Offset of RBX.
pub const RBX: u64 = 0x318;
/// Offset of RCX.
pub const RCX: u64 = 0x308;
/// Offset of RDX.
pub const RDX: u64 = 0x310;
/// Offset of the scratch area's address.
pub const SCRATCH: u64 = 0x3a8;
/// Offset of the buffer.
pub const BUFFER: u64 = 0x800;
const VALID: u64 = 0x3f0;

/// A field of the page.
#[must_use]
pub fn field(offset: u64) -> u64 {
    read(SHARED + page() + offset)
}

/// Writes a field of the page, without making it valid.
pub fn set(offset: u64, value: u64) {
    write(SHARED + page() + offset, value);
}

/// Makes a request in the page.
#[must_use]
pub fn event(code: u64, info1: u64, info2: u64, more: &[(u64, u64)]) -> Answer {
    set(VALID, 0);
    set(VALID + 8, 0);
    let fields = [(0x390, code), (0x398, info1), (0x3a0, info2)];
    for (offset, value) in fields.iter().chain(more) {
        set(*offset, *value);
        let bit = offset / 8;
        let word = VALID + bit / 64 * 8;
        set(word, field(word) | 1 << (bit % 64));
    }
    set(0xff8, 2 << 16);
    wrmsr(GHCB, page());
    vmgexit();
    let valid = |offset: u64| {
        let bit = offset / 8;
        (field(VALID + bit / 64 * 8) >> (bit % 64) & 1 != 0).then(|| field(offset))
    };
    Answer {
        info1: field(0x398),
        info2: field(0x3a0),
        rax: valid(RAX),
        rbx: valid(RBX),
        rdx: valid(RDX),
    }
}

/// OUT
pub(super) fn port_out(port: u16, size: u64, value: u64) {
    let _ = event(0x7b, u64::from(port) << 16 | size << 4, 0, &[(RAX, value)]);
}

/// OUTSB to the first serial port, as much as the buffer holds at once.
pub(super) fn print(text: &str) {
    for piece in text.as_bytes().chunks(512) {
        for (offset, byte) in (0..).zip(piece) {
            write(SHARED + page() + BUFFER + offset, *byte);
        }
        let string = 0x3f8 << 16 | 1 << 4 | 1 << 3 | 1 << 2;
        let scratch = (SCRATCH, page() + BUFFER);
        let _ = event(0x7b, string, piece.len() as u64, &[scratch]);
    }
}

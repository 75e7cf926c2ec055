//! From the first instruction to the end: memory, the page for talking to the host, and text.
#![expect(
    unsafe_code,
    reason = "entry code, page tables and privileged instructions"
)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::call::Svsm;
use crate::{figures, hostile, services, tpm};

const GHCB: u32 = 0xc001_0130;
const COM1: u64 = 0x3f8;
const PM1A_CONTROL: u64 = 0x604;
/// Where memory is seen as the host sees it.
const SHARED: u64 = 512 << 30;
/// Memory for tests, which holds nothing of the program: 64 MiB to 80 MiB.
pub(crate) const PLAYGROUND: core::ops::Range<u64> = 0x400_0000..0x500_0000;

global_asm!(
    r#"
    .section .head, "awx", @progbits
    .code64
    .skip 0x200
    .global start
start:
    lea rsp, [rip + stack_top]
    xor ebp, ebp
    mov rdi, rsi
    call {main}
    ud2

    .bss
    .balign 16
    .skip 0x10000
stack_top:
    "#,
    main = sym main,
);

#[repr(C, align(4096))]
pub(crate) struct Page(UnsafeCell<[u64; 512]>);
// SAFETY: pages are reached through pointers alone, and there is one CPU.
unsafe impl Sync for Page {}

impl Page {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new([0; 512]))
    }

    /// Its address, which is the same for the guest's page tables.
    pub(crate) fn at(&self) -> u64 {
        self.0.get().addr() as u64
    }
}

static ROOT: Page = Page::new();
static NEAR: Page = Page::new();
static FAR: Page = Page::new();
static GHCB_PAGE: Page = Page::new();
/// Not zero as soon as the page for talking to the host is shared.
static IS_UP: AtomicU64 = AtomicU64::new(0);

extern "C" fn main(parameters: u64) -> ! {
    map();
    let Some(mut svsm) = Svsm::find(parameters) else {
        // There is no way to say why.
        end(1);
    };
    share(&mut svsm);
    let mut line = [0; 256];
    let text = u64::from(read::<u32>(parameters + 0x228));
    for (offset, byte) in (0..).zip(line.iter_mut()) {
        let value: u8 = read(text + offset);
        if value == 0 {
            break;
        }
        *byte = value;
    }
    let words = core::str::from_utf8(&line).unwrap_or_default();
    let mut words = words.trim_end_matches('\0').split_ascii_whitespace();
    if words.all(|word| obey(&mut svsm, word)) {
        say(format_args!("caller: done"));
    }
    power_off()
}

/// Does what a word of the command line says. Answers whether it went well.
fn obey(svsm: &mut Svsm, word: &str) -> bool {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let value = value.parse().unwrap_or(0);
    let result = match name {
        "services" => services::look(svsm),
        "tpm" => tpm::try_out(svsm),
        "hostile" => hostile::storm(svsm, value),
        "seed" => {
            svsm.seed = value;
            Ok(())
        }
        "figures" => figures::measure(svsm, value.max(32)),
        // Words that loaders add for kernels.
        _ => Ok(()),
    };
    match result {
        Ok(()) => true,
        Err(reason) => {
            say(format_args!("caller: {word} failed: {reason}"));
            false
        }
    }
}

/// Maps all memory twice: as the guest's own, and as the host sees it.
fn map() {
    let old: u64;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr3", out(reg) old, options(nomem, nostack)) };
    // The tables lie below 4 GiB: what stands beside their address is the C-bit.
    let encrypted = old & 0x000f_ffff_0000_0000;
    const TABLE: u64 = 3;
    const LARGE: u64 = 0x83;
    for index in 0..512 {
        write(NEAR.at() + 8 * index, index << 30 | encrypted | LARGE);
        write(FAR.at() + 8 * index, index << 30 | LARGE);
    }
    write(ROOT.at(), NEAR.at() | encrypted | TABLE);
    write(ROOT.at() + 8, FAR.at() | encrypted | TABLE);
    let root = ROOT.at() | encrypted;
    // SAFETY: the new tables map everything that the program uses where it was, and is.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack)) };
}

/// Makes the page for talking to the host one that the host can read.
fn share(svsm: &mut Svsm) {
    let page = GHCB_PAGE.at();
    svsm.validate(page, false);
    let _ = request(0x14 | page | 2 << 52);
    let _ = request(0x12 | page);
    IS_UP.store(1, Ordering::Relaxed);
}

/// Makes a request of the host in the register.
pub(crate) fn request(value: u64) -> u64 {
    set_register(value);
    exit();
    let (low, high): (u64, u64);
    // SAFETY: reading changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") GHCB, out("rax") low, out("rdx") high, options(nomem, nostack))
    };
    high << 32 | low
}

/// Writes the register that says what an exit is for.
pub(crate) fn set_register(value: u64) {
    let (low, high) = (value & 0xffff_ffff, value >> 32);
    // SAFETY: writing it does nothing before the next exit.
    unsafe { asm!("wrmsr", in("ecx") GHCB, in("rax") low, in("rdx") high, options(nostack)) };
}

/// `VMGEXIT`
fn exit() {
    // SAFETY: the host answers in the register or in the page.
    unsafe { asm!("rep vmmcall", options(nostack)) };
}

/// A port access by the page: `SW_EXITINFO1`, `SW_EXITINFO2`, and RAX or the scratch area.
fn port(info1: u64, info2: u64, (field, value): (u64, u64)) {
    let page = SHARED + GHCB_PAGE.at();
    let (mut low, mut high) = (0_u64, 0_u64);
    for (offset, value) in [
        (0x390, 0x7b),
        (0x398, info1),
        (0x3a0, info2),
        (field, value),
    ] {
        write(page + offset, value);
        let bit = offset / 8;
        if bit < 64 {
            low |= 1 << bit;
        } else {
            high |= 1 << (bit - 64);
        }
    }
    write(page + 0x3f0, low);
    write(page + 0x3f8, high);
    write(page + 0xff8, 2_u64 << 16);
    set_register(GHCB_PAGE.at());
    exit();
}

/// Writes a line to the first serial port.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    // A serial port cannot fail.
    let _ = writeln!(Serial, "{text}");
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if IS_UP.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let buffer = GHCB_PAGE.at() + 0x800;
        for piece in text.as_bytes().chunks(512) {
            for (offset, byte) in (0..).zip(piece) {
                write(SHARED + buffer + offset, *byte);
            }
            let string = COM1 << 16 | 1 << 4 | 1 << 3 | 1 << 2;
            port(string, piece.len() as u64, (0x3a8, buffer));
        }
        Ok(())
    }
}

/// Reads memory at an address.
pub(crate) fn read<T: Copy>(at: u64) -> T {
    let pointer = core::ptr::with_exposed_provenance::<T>(usize::try_from(at).unwrap_or(0));
    // SAFETY: everything is mapped, one to one; what is read are numbers, of which any bytes are one.
    unsafe { pointer.read_unaligned() }
}

/// Writes memory at an address where no Rust object lies.
pub(crate) fn write<T: Copy>(at: u64, value: T) {
    let pointer = core::ptr::with_exposed_provenance_mut::<T>(usize::try_from(at).unwrap_or(0));
    // SAFETY: everything is mapped, one to one; callers write to pages of this module and to the playground.
    unsafe { pointer.write_unaligned(value) };
}

/// The first bytes of a page, which nobody writes while they are in use.
pub(crate) fn bytes(page: &'static Page, len: usize) -> &'static [u8] {
    let page: *const [u8; 4096] = page.0.get().cast();
    // SAFETY: callers look at an answer before they make the next call, and there is one CPU.
    let page = unsafe { &*page };
    page.get(..len).unwrap_or_default()
}

/// The time-stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: at CPL 0 it always works.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// ACPI S5.
fn power_off() -> ! {
    port(PM1A_CONTROL << 16 | 2 << 4, 0, (0x1f8, 0x2000));
    end(0)
}

/// Asks the host for the end of the machine.
fn end(reason: u64) -> ! {
    loop {
        let _ = request(0x100 | reason << 16);
    }
}

/// What the panic handler does.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    say(format_args!("caller: panicked: {info}"));
    power_off()
}

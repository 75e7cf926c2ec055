//! Exceptions and interrupts of the guests.
#![expect(unsafe_code, reason = "the interrupt descriptor table")]

use super::{apic, ghcb, power_off, say};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Where to go on after an exception that a probe expects; zero for none.
pub(super) static RESUME: AtomicU64 = AtomicU64::new(0);
/// The exception that a probe met, or all ones.
pub(super) static CAUGHT: AtomicU32 = AtomicU32::new(u32::MAX);

/// Its error code.
pub(super) static CODE: AtomicU64 = AtomicU64::new(0);

/// The error code of the exception that the last probe met.
#[must_use]
pub fn caught_code() -> u64 {
    CODE.load(Ordering::Relaxed)
}

/// How many NMIs were taken, by all CPUs together.
pub static NMIS: AtomicU32 = AtomicU32::new(0);
/// While set, the NMI handler does not return.
pub static HOLD_NMI: AtomicBool = AtomicBool::new(false);
/// While set, the NMI handler halts the CPU for good.
pub static STOP_BY_NMI: AtomicBool = AtomicBool::new(false);
/// How often the host rang (#HV), for all CPUs together.
pub static RINGS: AtomicU32 = AtomicU32::new(0);
/// How many interrupts were taken, by all CPUs together.
pub static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// While set, #VC and #HV are counted and nothing else.
static STORM: AtomicBool = AtomicBool::new(false);
static HITS: AtomicU64 = AtomicU64::new(0);
static HIT_AT: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

/// From now on #VC and #HV are counted.
pub fn begin_storm() {
    HITS.store(0, Ordering::SeqCst);
    STORM.store(true, Ordering::SeqCst);
}

/// Not any more: the instructions at which they came.
pub fn end_storm() -> impl Iterator<Item = u64> {
    STORM.store(false, Ordering::SeqCst);
    let count = usize::try_from(HITS.load(Ordering::SeqCst)).unwrap_or(0);
    HIT_AT
        .iter()
        .take(count)
        .map(|at| at.load(Ordering::SeqCst))
}

static IDT: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

global_asm!(
    r#"
    .text
    .balign 16
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    push vector
    jmp trap_common
    .set vector, vector + 1
    .endr
trap_common:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    cld
    mov rdi, rsp
    call {trap}
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    "#,
    trap = sym trap,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

#[repr(C)]
struct Frame {
    saved: [u64; 9],
    vector: u64,
    code: u64,
    rip: u64,
}

extern "C" fn trap(frame: &mut Frame) {
    match frame.vector {
        2 => {
            NMIS.fetch_add(1, Ordering::SeqCst);
            while STOP_BY_NMI.load(Ordering::SeqCst) {
                super::insn::cli_hlt();
            }
            while HOLD_NMI.load(Ordering::SeqCst) {
                core::hint::spin_loop();
            }
        }
        28 | 29 if STORM.load(Ordering::SeqCst) => {
            let number = HITS.fetch_add(1, Ordering::SeqCst);
            if let Some(place) = usize::try_from(number).ok().and_then(|at| HIT_AT.get(at)) {
                place.store(frame.rip, Ordering::SeqCst);
            }
        }
        28 => {
            RINGS.fetch_add(1, Ordering::SeqCst);
        }
        32.. => {
            INTERRUPTS.fetch_add(1, Ordering::SeqCst);
            // A guest of SEV-SNP has its host end it, when it does not use its page for something else.
            if !ghcb::is_up() {
                apic::end_of_interrupt();
            }
        }
        vector => {
            let resume = RESUME.swap(0, Ordering::Relaxed);
            if resume == 0 {
                say(format_args!(
                    "failed: exception {vector} with {:#x} at {:#x}",
                    frame.code, frame.rip
                ));
                power_off();
            }
            CODE.store(frame.code, Ordering::Relaxed);
            CAUGHT.store((vector & 0xff) as u32, Ordering::Relaxed);
            frame.rip = resume;
        }
    }
}

/// Fills the table and loads it. Every CPU does it, with the same values.
pub(super) fn load() {
    let stubs = (&raw const trap_stubs).addr() as u64;
    for (vector, gate) in (0..).zip(IDT.chunks_exact(2)) {
        let stub = stubs + 16 * vector;
        let low = stub & 0xffff | 8 << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48;
        for (word, value) in gate.iter().zip([low, stub >> 32]) {
            word.store(value, Ordering::Relaxed);
        }
    }
    let [a0, a1, a2, a3, a4, a5, a6, a7] = (IDT.as_ptr().addr() as u64).to_le_bytes();
    let pointer = [0xff, 0x0f, a0, a1, a2, a3, a4, a5, a6, a7];
    // SAFETY: the table is a static and complete.
    unsafe { asm!("lidt [{}]", in(reg) pointer.as_ptr(), options(readonly, nostack)) };
}

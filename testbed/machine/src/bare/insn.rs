//! Single instructions, one function each.
#![expect(unsafe_code, reason = "privileged instructions")]

use super::direct::DirectMap;
use crate::addr::Hpa;
use crate::personality::{FloatArea, Hardware};
use core::arch::{asm, global_asm};

/// EFER.
pub(super) const EFER: u32 = 0xc000_0080;
const APIC_BASE: u32 = 0x1b;
const TSC_AUX: u32 = 0xc000_0103;
/// The first of the APIC's registers.
const X2APIC: u32 = 0x800;
const X2APIC_ID: u32 = 0x802;
const X2APIC_SPURIOUS: u32 = 0x80f;
const X2APIC_ICR: u32 = 0x830;
const X2APIC_TIMER: u32 = 0x839;
/// The APIC is on, and in x2APIC mode.
const APIC_X2: u64 = 1 << 11 | 1 << 10;

/// IN.
pub(super) fn port_in(port: u16, size: u8) -> u32 {
    let value: u32;
    match size {
        1 => {
            let byte: u8;
            // SAFETY: reads a device register; ports are no memory, and L0 passes on what the
            // guest could do itself.
            unsafe {
                asm!("in al, dx", in("dx") port, out("al") byte, options(nomem, nostack, preserves_flags));
            }
            value = u32::from(byte);
        }
        2 => {
            let word: u16;
            // SAFETY: as above.
            unsafe {
                asm!("in ax, dx", in("dx") port, out("ax") word, options(nomem, nostack, preserves_flags));
            }
            value = u32::from(word);
        }
        _ => {
            // SAFETY: as above.
            unsafe {
                asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags));
            }
        }
    }
    value
}

/// OUT. The low bytes of `value` are written.
pub(super) fn port_out(port: u16, size: u8, value: u32) {
    let [b0, b1, ..] = value.to_le_bytes();
    match size {
        // SAFETY: writes a device register. Devices reach memory only by DMA, which is set up by
        // the guest with guest addresses, below or beside L0's part, as on the machine itself.
        1 => unsafe {
            asm!("out dx, al", in("dx") port, in("al") b0, options(nomem, nostack, preserves_flags));
        },
        // SAFETY: as above.
        2 => unsafe {
            asm!("out dx, ax", in("dx") port, in("ax") u16::from_le_bytes([b0, b1]), options(nomem, nostack, preserves_flags));
        },
        // SAFETY: as above.
        _ => unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags));
        },
    }
}

/// RDMSR.
pub(super) fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing. An MSR that does not exist raises #GP, which L0's IDT
    // turns into a report.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

unsafe extern "C" {
    /// RDMSR of an MSR whose value comes from a clock.
    ///
    /// # Safety
    /// The MSR exists.
    fn rdmsr_of_clock(msr: u32) -> u64;
}

// TCG refuses to look at its clock in the middle of a translated block while it counts
// instructions ("Bad icount read"), and does not know that RDMSR may look. With a breakpoint on
// the same page, even one that is never reached, it translates one instruction at a time; then
// every instruction may. DR0 is the guest's and stays as it was; L0's DR7 has nothing enabled.
global_asm!(
    r#"
    .text
    .balign 64
rdmsr_of_clock:
    mov r8, dr0
    lea rax, [rip + 2f]
    mov dr0, rax
    mov eax, 0x402
    mov dr7, rax
    mov ecx, edi
    rdmsr
    mov r9d, 0x400
    mov dr7, r9
    mov dr0, r8
    shl rdx, 32
    or rax, rdx
    ret
2:  ud2
    "#
);

/// WRMSR.
///
/// # Safety
/// The value must not take from L0 what its code relies on: its mode, its segments' bases,
/// its host save area.
pub(super) unsafe fn wrmsr(msr: u32, value: u64) {
    let (low, high) = ((value & 0xffff_ffff) as u32, (value >> 32) as u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// RDTSC.
pub(super) fn rdtsc() -> u64 {
    // SAFETY: L0 runs at CPL 0, where RDTSC always works.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// CPUID.
pub(super) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// CR2.
pub(super) fn cr2() -> u64 {
    let value: u64;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// CR4.
pub(super) fn cr4() -> u64 {
    let value: u64;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Lets FXSAVE and FXRSTOR move the SSE registers too.
pub(super) fn floats_on() {
    const OSFXSR: u64 = 1 << 9;
    let value = cr4() | OSFXSR;
    // SAFETY: only says what FXSAVE stores and that SSE may be used, which L0's code does not.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// FNINIT: the x87 state that a guest finds after reset. L0 itself uses no floating point.
pub(super) fn fninit() {
    // SAFETY: no code of L0 keeps anything in x87 registers (soft-float target).
    unsafe { asm!("fninit", options(nomem, nostack, preserves_flags)) };
}

/// CLI; HLT, for ever.
pub(super) fn stop() -> ! {
    loop {
        // SAFETY: the CPU does nothing more. An NMI may wake it; the loop goes on.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// CLGI: from now on nothing but INIT disturbs L0.
pub(super) fn clgi() {
    // SAFETY: SVM was enabled when the CPU was set up; masking events breaks no promise.
    unsafe { asm!("clgi", options(nostack, preserves_flags)) };
}

/// Lets a pending NMI in, which the trap code counts and drops.
pub(super) fn swallow_nmi() {
    // SAFETY: L0's IDT and stacks are in place; interrupts stay off (IF is clear).
    unsafe { asm!("stgi", "nop", "clgi", options(nostack, preserves_flags)) };
}

/// IRET to the next instruction: ends the masking of NMIs that a guest's handler left.
pub(super) fn unmask_nmis() {
    // SAFETY: returns to the label with the same stack, flags and segments.
    unsafe {
        asm!(
            "mov {stack}, rsp",
            "mov {segment:e}, ss",
            "push {segment}",
            "push {stack}",
            "pushfq",
            "mov {segment:e}, cs",
            "push {segment}",
            "lea {segment}, [rip + 2f]",
            "push {segment}",
            "iretq",
            "2:",
            stack = out(reg) _,
            segment = out(reg) _,
        );
    }
}

/// Switches the APIC on, in x2APIC mode. The guest finds it so.
pub(super) fn x2apic_on() {
    let base = rdmsr(APIC_BASE);
    // SAFETY: switching the APIC's mode on does not touch L0's state; no interrupt is let in.
    unsafe { wrmsr(APIC_BASE, base | APIC_X2) };
}

/// The APIC's id.
pub(super) fn apic_id() -> u32 {
    (rdmsr(X2APIC_ID) & 0xffff_ffff) as u32
}

/// Puts the APIC's registers back to what INIT makes of them, for a guest that starts anew.
pub(super) fn apic_reset() {
    const MASKED: u64 = 1 << 16;
    const LVT: [u32; 6] = [0x832, 0x833, 0x834, 0x835, 0x836, 0x837];
    const TIMER_COUNT: u32 = 0x838;
    const TASK_PRIORITY: u32 = 0x808;
    // While the APIC is off in software, its local vectors are masked and stay so.
    for (msr, value) in [
        (TIMER_COUNT, 0),
        (TASK_PRIORITY, 0),
        (X2APIC_SPURIOUS, 0xff),
    ] {
        // SAFETY: the registers belong to the guest's APIC; L0 takes no interrupt through it.
        unsafe { wrmsr(msr, value) };
    }
    for msr in LVT {
        // SAFETY: as above.
        unsafe { wrmsr(msr, MASKED) };
    }
}

/// Sends an interrupt command.
pub(super) fn send(command: u64) {
    // SAFETY: the command is either one of L0's own, or a guest's interrupt whose bits were
    // checked; L0 runs with the global interrupt flag clear and takes neither unasked.
    unsafe { wrmsr(X2APIC_ICR, command) };
}

/// Switches on the breakpoints that DR7 says, for the guest that is entered next.
pub(super) fn breakpoints_on(dr7: u64) {
    // SAFETY: an address may be one of L0's, between here and the end of the entry: the trap code then goes on there.
    unsafe { asm!("mov dr7, {}", in(reg) dr7, options(nomem, nostack, preserves_flags)) };
}

/// Switches all breakpoints off.
pub(super) fn breakpoints_off() {
    const EXACT: u64 = 1 << 9 | 1 << 8;
    const FIXED: u64 = 1 << 10;
    // TCG keeps what it looks for beside the register, and takes all of that anew where more than enables changes.
    for dr7 in [FIXED | EXACT, FIXED] {
        // SAFETY: no breakpoint is on afterwards.
        unsafe { asm!("mov dr7, {}", in(reg) dr7, options(nomem, nostack, preserves_flags)) };
    }
}

/// Starts this CPU's APIC timer: an interrupt with `vector` after each so many ticks.
pub(super) fn apic_timer_on(vector: u8, ticks: u32) {
    const SOFTWARE_ON: u64 = 1 << 8 | 0xff;
    const PERIODIC: u64 = 1 << 17;
    const DIVIDE_BY_ONE: u64 = 0b1011;
    for (msr, value) in [
        (X2APIC_SPURIOUS, SOFTWARE_ON),
        (0x83e, DIVIDE_BY_ONE),
        (0x832, PERIODIC | u64::from(vector)),
        (0x838, u64::from(ticks)),
    ] {
        // SAFETY: the registers belong to the APIC of a CPU that runs no guest, and every vector has a gate.
        unsafe { wrmsr(msr, value) };
    }
}

/// Ends the interrupt that this CPU's APIC sees in service.
pub(super) fn apic_end() {
    // SAFETY: only for a CPU that runs no guest, whose interrupts are L0's own.
    unsafe { wrmsr(0x80b, 0) };
}

/// The machine, for a personality.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bare;

impl Hardware for Bare {
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        port_in(port, size)
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        port_out(port, size, value);
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        cpuid(leaf, subleaf)
    }

    fn apic_base(&mut self) -> u64 {
        rdmsr(APIC_BASE)
    }

    fn apic_timer(&mut self) -> u64 {
        // SAFETY: the MSR exists on every CPU in x2APIC mode.
        unsafe { rdmsr_of_clock(X2APIC_TIMER) }
    }

    fn send(&mut self, command: u64) {
        send(command);
    }

    fn apic_read(&mut self, register: u8) -> Option<u64> {
        match register {
            // Id, version, task and processor priority, logical id, spurious vector, in-service, trigger mode and
            // request registers, error status, command, local vectors, initial count, divider.
            0x02 | 0x03 | 0x08 | 0x0a | 0x0d | 0x0f..=0x28 | 0x30 | 0x32..=0x38 | 0x3e => {
                Some(rdmsr(X2APIC + u32::from(register)))
            }
            0x39 => Some(self.apic_timer()),
            _ => None,
        }
    }

    fn apic_write(&mut self, register: u8, value: u64) -> bool {
        // Task priority, end of interrupt, spurious vector, error status, local vectors, initial count, divider,
        // interrupt to oneself. The upper half of each is reserved.
        let known = matches!(
            register,
            0x08 | 0x0b | 0x0f | 0x28 | 0x32..=0x38 | 0x3e | 0x3f
        );
        if !known || value >> 32 != 0 {
            return false;
        }
        // SAFETY: the APIC is the guest's; L0 takes no interrupt through it.
        unsafe { wrmsr(X2APIC + u32::from(register), value) };
        true
    }

    fn device_read(&mut self, at: Hpa, size: u8) -> u64 {
        let Some(from) = DirectMap::device_pointer(at, u64::from(size)) else {
            return u64::MAX;
        };
        match size {
            // SAFETY: mapped by the final tables, on which L0 is before it asks any device (`boot::relocate`); the caller asks for
            // device windows only, where a read has no other demands.
            1 => u64::from(unsafe { from.read_volatile() }),
            // SAFETY: as above; devices take unaligned accesses or answer as they like.
            2 => u64::from(unsafe { from.cast::<u16>().read_volatile() }),
            // SAFETY: as above.
            4 => u64::from(unsafe { from.cast::<u32>().read_volatile() }),
            // SAFETY: as above.
            _ => unsafe { from.cast::<u64>().read_volatile() },
        }
    }

    fn device_write(&mut self, at: Hpa, size: u8, value: u64) {
        let Some(to) = DirectMap::device_pointer(at, u64::from(size)) else {
            return;
        };
        let [b0, b1, ..] = value.to_le_bytes();
        match size {
            // SAFETY: mapped by the final tables, as above; the caller asks for device windows only, which hold nothing of L0's.
            1 => unsafe { to.write_volatile(b0) },
            // SAFETY: as above.
            2 => unsafe {
                to.cast::<u16>()
                    .write_volatile(u16::from_le_bytes([b0, b1]))
            },
            // SAFETY: as above.
            4 => unsafe {
                to.cast::<u32>()
                    .write_volatile((value & 0xffff_ffff) as u32)
            },
            // SAFETY: as above.
            _ => unsafe { to.cast::<u64>().write_volatile(value) },
        }
    }

    fn save_floats(&mut self, into: &mut FloatArea) {
        // SAFETY: 512 bytes, aligned to 16; CR4.OSFXSR is set (`floats_on`).
        unsafe { asm!("fxsave64 [{}]", in(reg) into, options(nostack, preserves_flags)) };
    }

    fn load_floats(&mut self, from: &FloatArea) {
        // SAFETY: as above; the control word for SSE was checked where the area came from. L0 keeps nothing in these
        // registers (soft-float target).
        unsafe { asm!("fxrstor64 [{}]", in(reg) from, options(nostack, preserves_flags)) };
    }

    fn tsc_aux(&mut self) -> u32 {
        (rdmsr(TSC_AUX) & 0xffff_ffff) as u32
    }

    fn set_tsc_aux(&mut self, value: u32) {
        // SAFETY: only RDTSCP and RDPID look at it, and L0 uses neither.
        unsafe { wrmsr(TSC_AUX, u64::from(value)) };
    }

    fn debug_registers(&mut self) -> [u64; 4] {
        let (a, b, c, d);
        // SAFETY: reading changes nothing; L0 sets no breakpoints.
        unsafe {
            asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
                out(reg) a, out(reg) b, out(reg) c, out(reg) d, options(nomem, nostack));
        }
        [a, b, c, d]
    }

    fn set_debug_registers(&mut self, [a, b, c, d]: [u64; 4]) {
        // SAFETY: L0 runs with DR7 as VMRUN left it, without breakpoints, so that no address means anything to it.
        unsafe {
            asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
                in(reg) a, in(reg) b, in(reg) c, in(reg) d, options(nomem, nostack));
        }
    }

    fn random(&mut self) -> u64 {
        let (value, good): (u64, u8);
        // SAFETY: the CPU has it (`check_cpu`), and it changes nothing but flags.
        unsafe {
            asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) good, options(nomem, nostack))
        };
        // It does not run dry under QEMU; should it, the keys of a test are those of a clock.
        if good != 0 { value } else { rdtsc() }
    }

    fn report(&mut self, line: &dyn core::fmt::Display) {
        super::console::line(line);
    }
}

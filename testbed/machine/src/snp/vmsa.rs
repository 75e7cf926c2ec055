//! Between a virtual CPU's save area in guest memory and the control block that runs it (24593, appendix B, "VMSA").
//!
//! The first part of the area is laid out like the control block's: segments, control registers, system-call
//! registers. What follows are the registers that the world switch of hardware keeps in the area, and of L0 elsewhere.

use crate::personality::{FloatArea, Hardware};
use crate::vcpu::{SVME, Vcpu};
use crate::vmcb::Save;
use svsm_sim::vmsa::{Processor, Refusal, SevFeatures, TweakBitmap, Vmsa};
use zerocopy::{FromBytes, IntoBytes};

/// A save area as bytes.
pub type Area = [u8; 4096];

/// Up to here, and with these offsets, a save area is like a control block's.
const COMMON: usize = 0x270;
const VMPL: usize = 0xca;
const EFER: usize = 0xd0;
const TSC_AUX: usize = 0x2ec;
const SEV_FEATURES: usize = 0x3b0;
const VINTR_CTRL: usize = 0x3b8;
const VIRTUAL_TOM: usize = 0x3c8;
const DEBUG: usize = 0x180;
const TSC_SCALE: usize = 0x2f0;
const TSC_OFFSET: usize = 0x2f8;
const EXIT_INT_INFO: usize = 0x3a0;
const EVENT_INJ: usize = 0x3e0;

/// A time-stamp counter that runs as the machine's does: QEMU's CPU has no other.
const SCALE_OF_ONE: u64 = 1 << 32;
/// Which registers are blinded where a save area asks for it.
pub const BLINDED: TweakBitmap = TweakBitmap::REGISTERS;

/// The fields of `VINTR_CTRL` that a control block has at the same places: priorities and the interrupt that waits.
const VIRTUAL_INTERRUPT: u64 = 0x1f_01ff;
const V_TPR_AND_IRQ: u64 = 0x1ff;
/// Physical interrupts are masked by L0's flag and not by the guest's, and CR8 is the virtual priority.
const V_INTR_MASKING: u32 = 1 << 24;
const RCX: usize = 0x308;
const X87: usize = 0x400;

/// The processor that this machine is.
const PROCESSOR: Processor = Processor {
    features: SevFeatures::SNP_ACTIVE
        .union(SevFeatures::VTOM)
        .union(SevFeatures::RESTRICTED_INJECTION)
        .union(SevFeatures::ALTERNATE_INJECTION)
        .union(SevFeatures::DEBUG_SWAP)
        .union(SevFeatures::SECURE_TSC)
        .union(SevFeatures::VMSA_REG_PROT),
    allowed: None,
    // All that QEMU's CPU has, LA57 aside.
    cr4: 0x00f7_efff,
    // SCE, LME, LMA, NXE, SVME, FFXSR.
    efer: 1 | 1 << 8 | 1 << 10 | 1 << 11 | SVME | 1 << 14,
    physical_bits: 52,
};

/// Why VMRUN refuses a save area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Its contents.
    Refused(Refusal),
    /// The level in the area is not the one that it was registered for.
    Level(u8),
    /// A time-stamp counter with a pace of its own.
    TscScale(u64),
}

/// What a save area says beside registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `SEV_FEATURES`.
    pub features: SevFeatures,
    /// `VIRTUAL_TOM`, where the feature is on.
    pub vtom: Option<u64>,
}

/// The area's `SEV_FEATURES`.
#[must_use]
pub fn features(area: &Area) -> u64 {
    word(area, SEV_FEATURES)
}

/// Whether VMRUN would take the area for `level`.
///
/// # Errors
/// See [`Invalid`].
pub fn check(area: &Area, level: u8) -> Result<Facts, Invalid> {
    let vmsa: &Vmsa = zerocopy::transmute_ref!(area);
    vmsa.check(&PROCESSOR).map_err(Invalid::Refused)?;
    if vmsa.vmpl != level {
        return Err(Invalid::Level(vmsa.vmpl));
    }
    let scale = word(area, TSC_SCALE);
    if vmsa.features().contains(SevFeatures::SECURE_TSC) && scale != SCALE_OF_ONE {
        return Err(Invalid::TscScale(scale));
    }
    Ok(facts(area))
}

/// What an area says, whether or not it would run.
#[must_use]
pub fn facts(area: &Area) -> Facts {
    let features = SevFeatures::from_bits_retain(features(area));
    let vtom = features.contains(SevFeatures::VTOM);
    Facts {
        features,
        vtom: vtom.then(|| word(area, VIRTUAL_TOM)),
    }
}

/// Makes blinded registers readable, where the area asks for protection.
pub fn reveal(area: &mut Area) {
    let vmsa: &mut Vmsa = zerocopy::transmute_mut!(area);
    vmsa.tweak(&BLINDED);
}

/// Blinds the registers with a new nonce, where the area asks for protection.
pub fn blind(area: &mut Area, nonce: u64) {
    let vmsa: &mut Vmsa = zerocopy::transmute_mut!(area);
    vmsa.protect(&BLINDED, nonce);
}

/// Loads an area: what hardware does at VMRUN. Its registers must be readable.
pub fn load(area: &Area, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) {
    let mut save = vcpu.vmcb.save.clone();
    if let (Some(to), Some(from)) = (save.as_mut_bytes().get_mut(..COMMON), area.get(..COMMON)) {
        to.copy_from_slice(from);
    }
    vcpu.vmcb.save = save;
    let mut registers = [0; 15];
    for (at, register) in (RCX..).step_by(8).zip(registers.iter_mut()) {
        *register = word(area, at);
    }
    // RCX, RDX, RBX, nothing (RSP has its place above), RBP, RSI, RDI, R8 to R15.
    let [rcx, rdx, rbx, _, rbp, rsi, rdi, rest @ ..] = registers;
    let gprs = &mut vcpu.gprs;
    (gprs.rcx, gprs.rdx, gprs.rbx, gprs.rbp) = (rcx, rdx, rbx, rbp);
    (gprs.rsi, gprs.rdi, gprs.r8_to_r15) = (rsi, rdi, rest);
    let interrupt = word(area, VINTR_CTRL);
    let control = &mut vcpu.vmcb.control;
    control.int_state = interrupt >> 10 & 1;
    (control.int_ctl, control.event, control.tsc_offset) = (0, 0, 0);
    let features = facts(area).features;
    if features.contains(SevFeatures::ALTERNATE_INJECTION) {
        control.int_ctl = (interrupt & VIRTUAL_INTERRUPT) as u32 | V_INTR_MASKING;
        control.int_vector = (interrupt >> 32 & 0xff) as u32;
        control.event = word(area, EVENT_INJ);
    }
    if features.contains(SevFeatures::SECURE_TSC) {
        control.tsc_offset = word(area, TSC_OFFSET);
    }
    if features.contains(SevFeatures::DEBUG_SWAP) {
        let registers = [0, 8, 16, 24].map(|at| word(area, DEBUG + at));
        hardware.set_debug_registers(registers);
    }
    hardware.set_tsc_aux((word(area, TSC_AUX & !7) >> 32) as u32);
    hardware.load_floats(&floats(area));
}

/// Stores the registers back: what hardware does at every exit. Bits that software clears to stop the virtual CPU
/// stay as they are in memory.
pub fn store(area: &mut Area, vcpu: &Vcpu<'_>, hardware: &mut impl Hardware) {
    let svme = word(area, EFER) & SVME;
    let vmpl = area.get(VMPL).copied().unwrap_or_default();
    let bytes = vcpu.vmcb.save.as_bytes();
    if let (Some(to), Some(from)) = (area.get_mut(..COMMON), bytes.get(..COMMON)) {
        to.copy_from_slice(from);
    }
    put(area, EFER, vcpu.vmcb.save.efer & !SVME | svme);
    if let Some(byte) = area.get_mut(VMPL) {
        *byte = vmpl;
    }
    let gprs = &vcpu.gprs;
    let low = [gprs.rcx, gprs.rdx, gprs.rbx];
    let high = [gprs.rbp, gprs.rsi, gprs.rdi];
    let pieces = [
        (RCX, &low[..]),
        (RCX + 32, &high),
        (RCX + 56, &gprs.r8_to_r15),
    ];
    for (start, values) in pieces {
        for (at, value) in (start..).step_by(8).zip(values) {
            put(area, at, *value);
        }
    }
    let features = facts(area).features;
    let control = &vcpu.vmcb.control;
    let mut interrupt = word(area, VINTR_CTRL) & !(1 << 10);
    if features.contains(SevFeatures::ALTERNATE_INJECTION) {
        interrupt = interrupt & !V_TPR_AND_IRQ | u64::from(control.int_ctl) & V_TPR_AND_IRQ;
        put(area, EXIT_INT_INFO, control.exit_int_info);
        // It is in the guest, or comes again by what was just stored.
        put(area, EVENT_INJ, control.event);
    }
    if features.contains(SevFeatures::DEBUG_SWAP) {
        let registers = hardware.debug_registers();
        for (at, value) in (DEBUG..).step_by(8).zip(registers) {
            put(area, at, value);
        }
    }
    put(
        area,
        VINTR_CTRL,
        interrupt | (vcpu.vmcb.control.int_state & 1) << 10,
    );
    let aux = word(area, TSC_AUX & !7) & 0xffff_ffff;
    put(
        area,
        TSC_AUX & !7,
        aux | u64::from(hardware.tsc_aux()) << 32,
    );
    let mut image = FloatArea::ZERO;
    hardware.save_floats(&mut image);
    put_floats(area, &image);
}

/// The floating-point registers as FXRSTOR takes them.
fn floats(area: &Area) -> FloatArea {
    let mut image = FloatArea::ZERO;
    let half = |at: usize| word(area, at & !7) >> (at % 8 * 8) & 0xffff;
    let bytes = &mut image.0;
    let mut set = |at: usize, value: &[u8]| {
        if let Some(to) = bytes.get_mut(at..at + value.len()) {
            to.copy_from_slice(value);
        }
    };
    let low = |value: u64| [(value & 0xff) as u8, (value >> 8 & 0xff) as u8];
    set(0, &low(half(X87 + 0x10))); // control word
    set(2, &low(half(X87 + 0x0e))); // status word
    set(4, &[abridged(half(X87 + 0x0c))]);
    set(6, &low(half(X87 + 0x12))); // opcode
    set(8, &word(area, X87 + 0x18).to_le_bytes()); // instruction pointer
    set(16, &word(area, X87).to_le_bytes()); // data pointer
    // Reserved bits would make FXRSTOR fault.
    let mxcsr = word(area, X87 + 8) & 0xffff;
    set(24, &mxcsr.to_le_bytes()[..4]);
    for (register, from) in area
        .get(0x420..0x470)
        .unwrap_or_default()
        .chunks_exact(10)
        .enumerate()
    {
        set(32 + register * 16, from);
    }
    set(160, area.get(0x470..0x570).unwrap_or_default());
    image
}

fn put_floats(area: &mut Area, image: &FloatArea) {
    let bytes = &image.0;
    let get = |at: usize| {
        let mut word = [0; 8];
        if let Some(from) = bytes.get(at..at + 8) {
            word.copy_from_slice(from);
        }
        u64::from_le_bytes(word)
    };
    let first = get(0);
    let tags = full_tags((first >> 32 & 0xff) as u8, bytes);
    put(area, X87, get(16));
    let status = first >> 16 & 0xffff;
    put(
        area,
        X87 + 8,
        get(24) & 0xffff_ffff | u64::from(tags) << 32 | status << 48,
    );
    let segments = word(area, X87 + 0x10) & !0xffff_ffff;
    put(
        area,
        X87 + 0x10,
        segments | first & 0xffff | (first >> 48) << 16,
    );
    put(area, X87 + 0x18, get(8));
    for register in 0..8 {
        let from = bytes.get(32 + register * 16..42 + register * 16);
        let to = area.get_mut(0x420 + register * 10..0x42a + register * 10);
        if let (Some(from), Some(to)) = (from, to) {
            to.copy_from_slice(from);
        }
    }
    if let (Some(from), Some(to)) = (bytes.get(160..416), area.get_mut(0x470..0x570)) {
        to.copy_from_slice(from);
    }
}

/// FXSAVE has a bit for each register that is not empty, instead of a tag of two.
pub(crate) fn abridged(tags: u64) -> u8 {
    (0..8).fold(0, |bits, register| {
        let used = tags >> (2 * register) & 3 != 3;
        bits | u8::from(used) << register
    })
}

/// The tags that the registers' contents amount to.
pub(crate) fn full_tags(used: u8, image: &[u8; 512]) -> u16 {
    let top = image.get(3).map_or(0, |high| high >> 3 & 7);
    (0..8).fold(0, |tags, register: u8| {
        // Registers are stored from the top of the stack on, tags by their number.
        let at = 32 + usize::from(register.wrapping_sub(top) & 7) * 16;
        let tag = if used >> register & 1 == 0 {
            3
        } else {
            match image.get(at..at + 10) {
                Some(&[m0, m1, m2, m3, m4, m5, m6, m7, e0, e1]) => {
                    let mantissa = u64::from_le_bytes([m0, m1, m2, m3, m4, m5, m6, m7]);
                    tag(u16::from_le_bytes([e0, e1]) & 0x7fff, mantissa)
                }
                _ => 3,
            }
        };
        tags | tag << (2 * register)
    })
}

/// 0: a number, 1: zero, 2: anything special.
const fn tag(exponent: u16, mantissa: u64) -> u16 {
    match (exponent, mantissa) {
        (0, 0) => 1,
        (0 | 0x7fff, _) => 2,
        _ if mantissa >> 63 == 0 => 2,
        _ => 0,
    }
}

fn word(area: &Area, at: usize) -> u64 {
    area.get(at..)
        .and_then(|rest| u64::read_from_prefix(rest).ok())
        .map_or(0, |(value, _)| value)
}

fn put(area: &mut Area, at: usize, value: u64) {
    if let Some(to) = area.get_mut(at..at + 8) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

const _: () = assert!(size_of::<Save>() >= COMMON);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personality::fake::Fake;
    use crate::vmcb::Vmcb;

    fn area() -> Box<Area> {
        let mut area = Box::new([0; 4096]);
        // Every byte of the registers tells where it is.
        for (at, byte) in area.iter_mut().enumerate().take(0x670) {
            *byte = u8::try_from(at % 251).unwrap();
        }
        put(&mut area, EFER, SVME | 0x500);
        put(&mut area, SEV_FEATURES, SevFeatures::SNP_ACTIVE.bits());
        area[VMPL] = 2;
        // Tags that fit the registers, and the top of the stack at register 0.
        put(&mut area, X87 + 8, 0x1f80 | 0xffff << 32);
        area
    }

    #[test]
    fn what_is_loaded_is_stored_back() {
        let before = area();
        let mut vmcb = Box::new(Vmcb::zeroed());
        let mut vcpu = Vcpu::new(&mut vmcb);
        let mut fake = Fake::default();
        load(&before, &mut vcpu, &mut fake);
        assert_eq!(vcpu.vmcb.save.rip, word(&before, 0x178));
        assert_eq!(vcpu.gprs.rcx, word(&before, 0x308));
        assert_eq!(vcpu.gprs.rbp, word(&before, 0x328));
        assert_eq!(vcpu.gprs.r8_to_r15[7], word(&before, 0x378));
        assert_eq!(fake.floats.0[160..176], before[0x470..0x480]);

        let mut after = before.clone();
        after[..COMMON].fill(0);
        put(&mut after, EFER, SVME);
        after[VMPL] = 2;
        after[0x308..0x380].fill(0);
        after[0x420..0x570].fill(0);
        store(&mut after, &vcpu, &mut fake);
        for at in (0..0x670).step_by(8) {
            // RSP and one word of registers have no place among the general ones.
            if at == 0x320 {
                continue;
            }
            assert_eq!(word(&after, at), word(&before, at), "{at:#x}");
        }
    }

    #[test]
    fn a_stopped_cpu_stays_stopped() {
        let mut stopped = area();
        let mut vmcb = Box::new(Vmcb::zeroed());
        let mut vcpu = Vcpu::new(&mut vmcb);
        load(&stopped, &mut vcpu, &mut Fake::default());
        put(&mut stopped, EFER, 0x500);
        store(&mut stopped, &vcpu, &mut Fake::default());
        assert_eq!(word(&stopped, EFER) & SVME, 0);
    }

    #[test]
    fn areas_for_other_levels_and_machines_are_refused() {
        let mut area = Box::new([0; 4096]);
        area.copy_from_slice(Vmsa::reset(0xffff_fff0, 0, SevFeatures::SNP_ACTIVE).as_bytes());
        area[VMPL] = 2;
        assert_eq!(check(&area, 2).unwrap().vtom, None);
        assert_eq!(check(&area, 1), Err(Invalid::Level(2)));
        put(&mut area, SEV_FEATURES, 0);
        assert!(matches!(check(&area, 2), Err(Invalid::Refused(_))));
        put(&mut area, SEV_FEATURES, 1 | 1 << 8);
        assert!(matches!(check(&area, 2), Err(Invalid::Refused(_))));
        put(&mut area, SEV_FEATURES, 1 | 1 << 9);
        assert_eq!(check(&area, 2), Err(Invalid::TscScale(0)));
        put(&mut area, TSC_SCALE, SCALE_OF_ONE);
        assert!(check(&area, 2).is_ok());
        put(&mut area, SEV_FEATURES, 3);
        put(&mut area, VIRTUAL_TOM, 1 << 46);
        assert_eq!(check(&area, 2).unwrap().vtom, Some(1 << 46));
    }

    #[test]
    fn features_move_what_they_protect() {
        let mut before = area();
        let features = SevFeatures::SNP_ACTIVE
            | SevFeatures::ALTERNATE_INJECTION
            | SevFeatures::SECURE_TSC
            | SevFeatures::DEBUG_SWAP
            | SevFeatures::VMSA_REG_PROT;
        put(&mut before, SEV_FEATURES, features.bits());
        put(&mut before, VINTR_CTRL, 0x45 << 32 | 1 << 20 | 1 << 8 | 3);
        put(&mut before, EVENT_INJ, 0x8000_0031);
        let mut vmcb = Box::new(Vmcb::zeroed());
        let mut vcpu = Vcpu::new(&mut vmcb);
        let mut fake = Fake::default();
        load(&before, &mut vcpu, &mut fake);
        let control = &mut vcpu.vmcb.control;
        assert_eq!(control.int_ctl & 0x1f_01ff, 1 << 20 | 1 << 8 | 3);
        assert_eq!((control.int_vector, control.event), (0x45, 0x8000_0031));
        assert_eq!(control.tsc_offset, word(&before, TSC_OFFSET));
        assert_eq!(fake.debug[0], word(&before, DEBUG));
        // Taken by the guest.
        (control.int_ctl, control.event) = (7, 0);
        let mut after = before.clone();
        store(&mut after, &vcpu, &mut fake);
        assert_eq!(word(&after, VINTR_CTRL) & 0x1ff, 7);
        assert_eq!(word(&after, EVENT_INJ), 0);
        let rip = word(&after, 0x178);
        blind(&mut after, 0x5eed);
        assert_eq!(word(&after, 0x178), rip ^ 0x5eed);
        reveal(&mut after);
        assert_eq!(word(&after, 0x178), rip);
    }

    #[test]
    fn tags_follow_from_the_contents() {
        let mut image = FloatArea::ZERO;
        // Register 0 (top of stack): 1.0; register 1: zero; register 2: infinity; the others empty.
        image.0[39] = 0x80;
        image.0[40..42].copy_from_slice(&0x3fff_u16.to_le_bytes());
        image.0[71] = 0x80;
        image.0[72..74].copy_from_slice(&0x7fff_u16.to_le_bytes());
        assert_eq!(full_tags(0b111, &image.0), 0xffe4);
        assert_eq!(abridged(0xffe4), 0b111);
        assert_eq!(abridged(0x5555), 0xff);
    }
}

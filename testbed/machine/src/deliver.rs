//! Exceptions delivered in software.
//!
//! QEMU's CPU pushes no error code with an injected #VC, so L0 does what the CPU would do: it reads the gate, finds
//! the stack and pushes the frame (24593, "Exceptions and interrupts"). In 64-bit mode, and in 32-bit mode without a
//! change of level, which is what firmware needs before it gets to 64 bits.

use crate::addr::Gpa;
use crate::phys::GuestMemory;
use crate::vmcb::{Save, Segment};
use crate::walk;
use core::fmt;

const LMA: u64 = 1 << 10;
const PE: u64 = 1;
const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
const NT: u64 = 1 << 14;
const RF: u64 = 1 << 16;
const VM: u64 = 1 << 17;

/// Why an exception could not be delivered; hardware would go on to a double fault, and from there to shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeliverable {
    /// The descriptor table has no gate for the vector, or one that is not present or of the wrong kind.
    Gate,
    /// The gate's code segment cannot be used.
    CodeSegment,
    /// The task state has no stack, or one that is no address.
    Stack,
    /// The memory of a table or of the stack is not mapped.
    Memory,
    /// The CPU is in a mode in which L0 delivers nothing: real mode, or a change of level in 32 bits.
    Mode,
}

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gate => "there is no gate for it",
            Self::CodeSegment => "the gate's code segment cannot be used",
            Self::Stack => "the task state has no stack for it",
            Self::Memory => "a table or the stack is not mapped",
            Self::Mode => "the CPU is in a mode that has no such exceptions",
        })
    }
}

impl core::error::Error for Undeliverable {}

/// Delivers an exception, with an error code if it has one.
///
/// # Errors
/// See [`Undeliverable`]; the registers are as before, the stack may be written.
pub fn exception(
    save: &mut Save,
    vector: u8,
    code: Option<u32>,
    c_bit: u64,
    memory: &mut impl GuestMemory,
) -> Result<(), Undeliverable> {
    if save.efer & LMA != 0 {
        long(save, vector, code, c_bit, memory)
    } else if save.cr0 & PE != 0 && save.rflags & VM == 0 {
        protected(save, vector, code, c_bit, memory)
    } else {
        Err(Undeliverable::Mode)
    }
}

/// A gate: where it leads.
struct Gate {
    offset: u64,
    selector: u16,
    ist: u8,
    /// An interrupt gate clears IF, a trap gate does not.
    interrupt: bool,
}

impl Gate {
    fn decode(low: u64) -> Result<Self, Undeliverable> {
        let kind = low >> 40 & 0x1f;
        if low >> 47 & 1 == 0 || (kind != 0xe && kind != 0xf) {
            return Err(Undeliverable::Gate);
        }
        Ok(Self {
            offset: low & 0xffff | low >> 32 & 0xffff_0000,
            selector: (low >> 16 & 0xffff) as u16,
            ist: (low >> 32 & 7) as u8,
            interrupt: kind == 0xe,
        })
    }
}

fn long(
    save: &mut Save,
    vector: u8,
    code: Option<u32>,
    c_bit: u64,
    memory: &mut impl GuestMemory,
) -> Result<(), Undeliverable> {
    let at = u64::from(vector) * 16;
    if at + 15 > u64::from(save.idtr.limit) {
        return Err(Undeliverable::Gate);
    }
    let low = read(save, save.idtr.base.wrapping_add(at), c_bit, memory)?;
    let high = read(save, save.idtr.base.wrapping_add(at + 8), c_bit, memory)?;
    let gate = Gate::decode(low)?;
    let target = gate.offset | high << 32;
    let descriptor = code_segment(save, gate.selector, c_bit, memory)?;
    let level = (descriptor >> 45 & 3) as u8;
    let conforming = descriptor >> 42 & 1 != 0;
    let level = if conforming { save.cpl } else { level };
    // The L bit, without D; and nobody is called downwards.
    if descriptor >> 53 & 3 != 1 || level > save.cpl {
        return Err(Undeliverable::CodeSegment);
    }

    let stack = match (gate.ist, level < save.cpl) {
        (0, false) => save.rsp,
        (0, true) => task_state(save, 4 + 8 * u64::from(level), c_bit, memory)?,
        (ist, _) => task_state(save, 0x1c + 8 * u64::from(ist), c_bit, memory)?,
    };
    let frame = [
        u64::from(save.ss.selector),
        save.rsp,
        save.rflags,
        u64::from(save.cs.selector),
        save.rip,
    ];
    let mut at = stack & !0xf;
    for word in frame.into_iter().chain(code.map(u64::from)) {
        at = at.wrapping_sub(8);
        write(save, at, &word.to_le_bytes(), c_bit, memory)?;
    }

    if level < save.cpl {
        // A null selector, whose only attribute is the level.
        save.ss = Segment {
            selector: u16::from(level),
            attributes: u16::from(level) << 5,
            limit: 0,
            base: 0,
        };
    }
    save.cs = segment(gate.selector & !3 | u16::from(level), descriptor);
    save.cpl = level;
    save.rsp = at;
    save.rip = target;
    save.rflags &= !(TF | NT | RF | VM | if gate.interrupt { IF } else { 0 });
    Ok(())
}

fn protected(
    save: &mut Save,
    vector: u8,
    code: Option<u32>,
    c_bit: u64,
    memory: &mut impl GuestMemory,
) -> Result<(), Undeliverable> {
    let at = u64::from(vector) * 8;
    if at + 7 > u64::from(save.idtr.limit) {
        return Err(Undeliverable::Gate);
    }
    let gate = Gate::decode(read(save, save.idtr.base.wrapping_add(at), c_bit, memory)?)?;
    let descriptor = code_segment(save, gate.selector, c_bit, memory)?;
    let level = (descriptor >> 45 & 3) as u8;
    if level != save.cpl || save.ss.attributes & Segment::BIG == 0 {
        return Err(Undeliverable::Mode);
    }
    let mut at = save.rsp & 0xffff_ffff;
    let frame = [save.rflags, u64::from(save.cs.selector), save.rip];
    for word in frame.into_iter().chain(code.map(u64::from)) {
        at = at.wrapping_sub(4) & 0xffff_ffff;
        let [b0, b1, b2, b3, ..] = word.to_le_bytes();
        let linear = save.ss.base.wrapping_add(at) & 0xffff_ffff;
        write(save, linear, &[b0, b1, b2, b3], c_bit, memory)?;
    }
    save.cs = segment(gate.selector & !3 | u16::from(level), descriptor);
    save.rsp = at;
    save.rip = gate.offset;
    save.rflags &= !(TF | NT | RF | VM | if gate.interrupt { IF } else { 0 });
    Ok(())
}

/// The descriptor of a code segment of the global table.
fn code_segment(
    save: &Save,
    selector: u16,
    c_bit: u64,
    memory: &impl GuestMemory,
) -> Result<u64, Undeliverable> {
    let at = u64::from(selector & !7);
    // Nothing of today keeps its handlers' segment in a local table.
    if at == 0 || selector & 4 != 0 || at + 7 > u64::from(save.gdtr.limit) {
        return Err(Undeliverable::CodeSegment);
    }
    let descriptor = read(save, save.gdtr.base.wrapping_add(at), c_bit, memory)?;
    // Present, not a system segment, executable.
    if descriptor >> 43 & 3 == 3 && descriptor >> 47 & 1 == 1 {
        Ok(descriptor)
    } else {
        Err(Undeliverable::CodeSegment)
    }
}

/// A stack pointer of the task state.
fn task_state(
    save: &Save,
    offset: u64,
    c_bit: u64,
    memory: &impl GuestMemory,
) -> Result<u64, Undeliverable> {
    if offset + 7 > u64::from(save.tr.limit) {
        return Err(Undeliverable::Stack);
    }
    let stack = read(save, save.tr.base.wrapping_add(offset), c_bit, memory)?;
    let canonical = matches!(stack >> 47, 0 | 0x1_ffff);
    if canonical {
        Ok(stack)
    } else {
        Err(Undeliverable::Stack)
    }
}

/// A descriptor as the control block holds it.
const fn segment(selector: u16, descriptor: u64) -> Segment {
    let attributes = descriptor >> 40 & 0xff | descriptor >> 44 & 0xf00;
    let limit = descriptor & 0xffff | descriptor >> 32 & 0xf_0000;
    let limit = if descriptor >> 55 & 1 != 0 {
        limit << 12 | 0xfff
    } else {
        limit
    };
    Segment {
        selector,
        attributes: (attributes & 0xfff) as u16,
        limit: (limit & 0xffff_ffff) as u32,
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
    }
}

fn read(
    save: &Save,
    linear: u64,
    c_bit: u64,
    memory: &impl GuestMemory,
) -> Result<u64, Undeliverable> {
    let mut word = [0; 8];
    for (offset, byte) in (0..).zip(word.iter_mut()) {
        let at = place(save, linear.wrapping_add(offset), c_bit, memory)?;
        memory
            .read(at, core::slice::from_mut(byte))
            .map_err(|_| Undeliverable::Memory)?;
    }
    Ok(u64::from_le_bytes(word))
}

fn write(
    save: &Save,
    linear: u64,
    bytes: &[u8],
    c_bit: u64,
    memory: &mut impl GuestMemory,
) -> Result<(), Undeliverable> {
    // Stacks are aligned to their words, so that none crosses a page.
    let at = place(save, linear, c_bit, memory)?;
    memory.write(at, bytes).map_err(|_| Undeliverable::Memory)
}

fn place(
    save: &Save,
    linear: u64,
    c_bit: u64,
    memory: &impl GuestMemory,
) -> Result<Gpa, Undeliverable> {
    walk::leaf(save, linear, c_bit, memory)
        .map(|leaf| leaf.gpa)
        .filter(|gpa| gpa.as_u64() < 1 << 52)
        .ok_or(Undeliverable::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phys::{Memory, fake::Ram};
    use crate::vmcb::Vmcb;

    const C: u64 = 1 << 51;
    const CODE: u64 = 0x00af_9b00_0000_ffff;

    fn put(ram: &mut Ram, at: u64, value: u64) {
        ram.write(Gpa::new(at).unwrap(), &value.to_le_bytes())
            .unwrap();
    }

    fn get(ram: &Ram, at: u64) -> u64 {
        ram.read_u64(Gpa::new(at).unwrap()).unwrap()
    }

    /// 2 MiB mapped one to one, tables from 0x1000; GDT at 0x5000, IDT at 0x6000, TSS at 0x8000.
    fn guest(ist: u64) -> (Ram, Save) {
        let mut ram = Ram::new(0x20_000);
        ram.0.fill(0);
        put(&mut ram, 0x1000, 0x2007 | C);
        put(&mut ram, 0x2000, 0x3007 | C);
        put(&mut ram, 0x3000, 0x87 | C);
        put(&mut ram, 0x5008, CODE);
        let gate = 0x1234 | 0x8 << 16 | (ist | 0x8e00) << 32;
        put(&mut ram, 0x6000 + 29 * 16, gate);
        put(&mut ram, 0x6000 + 29 * 16 + 8, 0xffff_8000);
        put(&mut ram, 0x8004, 0x9000);
        put(&mut ram, 0x8024, 0xa008);
        let mut save = Vmcb::zeroed().save;
        (save.cr0, save.cr3, save.cr4) = (1 << 31 | 1, 0x1000 | C, 1 << 5);
        (save.efer, save.rflags) = (LMA, 0x2 | IF | RF);
        save.gdtr = Segment::table(0x5000, 0xffff);
        save.idtr = Segment::table(0x6000, 0xfff);
        save.tr = Segment {
            limit: 0x67,
            base: 0x8000,
            ..Segment::table(0, 0)
        };
        (save.cs.selector, save.ss.selector) = (0x10, 0x18);
        (save.rip, save.rsp) = (0x4444, 0xb01c);
        (ram, save)
    }

    #[test]
    fn a_gate_leads_to_its_handler_on_the_same_stack() {
        let (mut ram, mut save) = guest(0);
        exception(&mut save, 29, Some(0x72), C, &mut ram).unwrap();
        assert_eq!(save.rip, 0xffff_8000_0000_1234);
        assert_eq!(save.rsp, 0xb010 - 48);
        assert_eq!((save.cs.selector, save.cs.attributes), (8, 0xa9b));
        assert_eq!(save.rflags, 2);
        let frame: Vec<u64> = (0..6).map(|i| get(&ram, save.rsp + 8 * i)).collect();
        assert_eq!(frame, [0x72, 0x4444, 0x10, 2 | IF | RF, 0xb01c, 0x18]);
    }

    #[test]
    fn user_mode_gets_the_stack_of_its_level_or_of_the_gate() {
        for (ist, top) in [(0, 0x9000), (1, 0xa000)] {
            let (mut ram, mut save) = guest(ist);
            save.cpl = 3;
            exception(&mut save, 29, Some(0x72), C, &mut ram).unwrap();
            assert_eq!(save.rsp, top - 48);
            assert_eq!((save.cpl, save.ss.selector, save.ss.attributes), (0, 0, 0));
        }
    }

    #[test]
    fn what_cannot_be_delivered_changes_no_register() {
        let (mut ram, before) = guest(2);
        let attempt = |ram: &mut Ram, mut save: Save, vector| {
            let result = exception(&mut save, vector, None, C, ram);
            assert_eq!(save.rip, before.rip);
            result
        };
        // IST 2 is zero, so the frame would go to the end of the address space.
        assert_eq!(
            attempt(&mut ram, before.clone(), 29),
            Err(Undeliverable::Memory)
        );
        assert_eq!(
            attempt(&mut ram, before.clone(), 30),
            Err(Undeliverable::Gate)
        );
        let mut short = before.clone();
        short.tr.limit = 0x20;
        assert_eq!(attempt(&mut ram, short, 29), Err(Undeliverable::Stack));
        let mut real = before.clone();
        (real.efer, real.cr0) = (0, 0);
        assert_eq!(attempt(&mut ram, real, 29), Err(Undeliverable::Mode));
        put(&mut ram, 0x5008, CODE & !(1 << 47));
        assert_eq!(
            attempt(&mut ram, before.clone(), 29),
            Err(Undeliverable::CodeSegment)
        );
    }

    #[test]
    fn thirty_two_bit_handlers_get_a_short_frame() {
        let mut ram = Ram::new(0x10_000);
        ram.0.fill(0);
        put(&mut ram, 0x5010, 0x00cf_9b00_0000_ffff);
        put(
            &mut ram,
            0x6000 + 29 * 8,
            0x1234 | 0x10 << 16 | 0x8e00 << 32,
        );
        let mut save = Vmcb::zeroed().save;
        (save.cr0, save.rip, save.rsp, save.rflags) = (PE, 0x777, 0x9000, 2);
        save.gdtr = Segment::table(0x5000, 0x17);
        save.idtr = Segment::table(0x6000, 0xff);
        save.ss.attributes = 0xc93;
        save.cs.selector = 0x10;
        exception(&mut save, 29, Some(0x7c), C, &mut ram).unwrap();
        assert_eq!((save.rip, save.rsp), (0x1234, 0x9000 - 16));
        assert_eq!(get(&ram, 0x8ff0), 0x777 << 32 | 0x7c);
        assert_eq!(get(&ram, 0x8ff8), 2 << 32 | 0x10);
    }
}

//! A virtual CPU: its control block and the registers that VMRUN does not switch.

use crate::vmcb::{Event, Segment, Vmcb};
use igvm_defs::IgvmNativeVpContextX64;

/// EFER.LME, LMA and SVME.
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
/// Secure virtual machine enable: VMRUN demands it, and the guest never sees it.
pub const SVME: u64 = 1 << 12;
const CR0_PG: u64 = 1 << 31;

const RESET_PAT: u64 = 0x0007_0406_0007_0406;
const RESET_DR6: u64 = 0xffff_0ff0;
const RESET_DR7: u64 = 0x400;
const RESET_CR0: u64 = 0x6000_0010;
/// RFLAGS bit 1 is always set.
const RESET_RFLAGS: u64 = 2;
const IF: u64 = 1 << 9;

/// General-purpose registers in encoding order. RAX and RSP live in the control block;
/// their places here are not used.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Gprs {
    /// Not used: see [`Vcpu::rax`].
    pub unused_rax: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RBX.
    pub rbx: u64,
    /// Not used: in the control block.
    pub unused_rsp: u64,
    /// RBP.
    pub rbp: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// R8 to R15.
    pub r8_to_r15: [u64; 8],
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu<'a> {
    /// The control block.
    pub vmcb: &'a mut Vmcb,
    /// The other registers.
    pub gprs: Gprs,
}

impl<'a> Vcpu<'a> {
    /// A CPU whose registers are all zero.
    pub fn new(vmcb: &'a mut Vmcb) -> Self {
        Self {
            vmcb,
            gprs: Gprs::default(),
        }
    }

    /// Puts the CPU into the state of a VP context; what it does not say is as after reset.
    pub fn start(&mut self, context: &IgvmNativeVpContextX64) {
        self.reset();
        self.gprs = Gprs {
            rcx: context.rcx,
            rdx: context.rdx,
            rbx: context.rbx,
            rbp: context.rbp,
            rsi: context.rsi,
            rdi: context.rdi,
            r8_to_r15: [
                context.r8,
                context.r9,
                context.r10,
                context.r11,
                context.r12,
                context.r13,
                context.r14,
                context.r15,
            ],
            ..Gprs::default()
        };
        let data = Segment {
            selector: context.data_selector,
            attributes: attributes(context.data_attributes),
            limit: context.data_limit,
            base: u64::from(context.data_base),
        };
        let save = &mut self.vmcb.save;
        save.rax = context.rax;
        save.rsp = context.rsp;
        save.rip = context.rip;
        save.rflags = context.rflags | RESET_RFLAGS;
        save.cs = Segment {
            selector: context.code_selector,
            attributes: attributes(context.code_attributes),
            limit: context.code_limit,
            base: u64::from(context.code_base),
        };
        (save.ds, save.es, save.ss, save.fs) = (data, data, data, data);
        save.gs = Segment {
            base: context.gs_base,
            ..data
        };
        save.gdtr = Segment::table(context.gdtr_base, context.gdtr_limit);
        save.idtr = Segment::table(context.idtr_base, context.idtr_limit);
        save.cr0 = context.cr0;
        save.cr3 = context.cr3;
        save.cr4 = context.cr4;
        // Contexts differ in whether LMA is written down; it follows from LME and PG.
        let long = if context.efer & LME != 0 && context.cr0 & CR0_PG != 0 {
            LMA
        } else {
            0
        };
        save.efer = context.efer & !LMA | long | SVME;
        save.cpl = (data.attributes >> 5 & 3) as u8;
    }

    /// Puts the CPU where a start-up message sends it: real mode, at the start of a page below 1 MiB.
    pub fn start_up(&mut self, page: u8) {
        self.reset();
        let page = u16::from(page);
        self.vmcb.save.cs.selector = page << 8;
        self.vmcb.save.cs.base = u64::from(page) << 12;
        self.vmcb.save.rip = 0;
    }

    /// The state after INIT, except that CS and RIP are whatever comes next.
    fn reset(&mut self) {
        self.gprs = Gprs::default();
        let data = Segment {
            selector: 0,
            attributes: 0x93,
            limit: 0xffff,
            base: 0,
        };
        let control = &mut self.vmcb.control;
        (control.event, control.int_state, control.int_ctl) = (0, 0, 0);
        let save = &mut self.vmcb.save;
        *save = Vmcb::zeroed().save;
        (save.es, save.ss, save.ds, save.fs, save.gs) = (data, data, data, data, data);
        save.cs = Segment {
            attributes: 0x9b,
            ..data
        };
        save.gdtr = Segment::table(0, 0xffff);
        save.idtr = Segment::table(0, 0xffff);
        save.ldtr = Segment {
            attributes: 0x82,
            ..data
        };
        save.tr = Segment {
            attributes: 0x8b,
            ..data
        };
        save.efer = SVME;
        save.cr0 = RESET_CR0;
        save.dr6 = RESET_DR6;
        save.dr7 = RESET_DR7;
        save.rflags = RESET_RFLAGS;
        save.pat = RESET_PAT;
    }

    /// RAX.
    #[must_use]
    pub const fn rax(&self) -> u64 {
        self.vmcb.save.rax
    }

    /// A general register by its number in instructions.
    #[must_use]
    pub fn register(&self, number: u8) -> u64 {
        let gprs = &self.gprs;
        match number & 15 {
            0 => self.vmcb.save.rax,
            1 => gprs.rcx,
            2 => gprs.rdx,
            3 => gprs.rbx,
            4 => self.vmcb.save.rsp,
            5 => gprs.rbp,
            6 => gprs.rsi,
            7 => gprs.rdi,
            high => gprs
                .r8_to_r15
                .get(usize::from(high - 8))
                .copied()
                .unwrap_or_default(),
        }
    }

    /// Whether the code segment is a 64-bit one.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        let save = &self.vmcb.save;
        save.efer & LMA != 0 && save.cs.attributes & Segment::LONG != 0
    }

    /// EDX:EAX, as RDMSR and WRMSR use them.
    #[must_use]
    pub const fn edx_eax(&self) -> u64 {
        self.gprs.rdx << 32 | self.vmcb.save.rax & 0xffff_ffff
    }

    /// Sets RAX and RDX to the halves of a value, as RDMSR does.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.vmcb.save.rax = value & 0xffff_ffff;
        self.gprs.rdx = value >> 32;
    }

    /// Whether the guest takes interrupts.
    #[must_use]
    pub const fn interrupts_on(&self) -> bool {
        self.vmcb.save.rflags & IF != 0
    }

    /// Goes on behind an instruction of `bytes`.
    pub const fn skip(&mut self, bytes: u64) {
        self.go_on(self.vmcb.save.rip.wrapping_add(bytes));
    }

    /// Goes on at `rip`, behind an instruction that was carried out here.
    pub const fn go_on(&mut self, rip: u64) {
        self.vmcb.save.rip = rip;
        self.vmcb.control.int_state = 0;
    }

    /// Makes an interrupt pending: the guest takes it as soon as it takes interrupts at all.
    pub const fn raise(&mut self, vector: u8) {
        const V_IRQ: u32 = 1 << 8;
        const IGNORE_TPR: u32 = 1 << 20;
        self.vmcb.control.int_ctl = V_IRQ | IGNORE_TPR;
        self.vmcb.control.int_vector = vector as u32;
    }

    /// The interrupt that is pending, if one is.
    #[must_use]
    pub const fn pending_interrupt(&self) -> Option<u8> {
        let control = &self.vmcb.control;
        if control.int_ctl & 1 << 8 != 0 {
            Some((control.int_vector & 0xff) as u8)
        } else {
            None
        }
    }

    /// Makes the event pending again whose delivery the exit interrupted, if it did.
    ///
    /// TCG tells all that is no INT instruction as an exception, so the vector says what it was. An interrupt becomes
    /// pending, since TCG may deliver an injected one a second time; it was being delivered, so it still can be. An INT
    /// instruction is executed again.
    pub const fn deliver_again(&mut self) {
        const VALID: u64 = 1 << 31;
        const NMI: u64 = VALID | 2 << 8 | 2;
        let control = &mut self.vmcb.control;
        let event = control.exit_int_info;
        if event & VALID == 0 {
            return;
        }
        control.exit_int_info = 0;
        match (event >> 8 & 7, event & 0xff) {
            (2, _) | (3, 2) => control.event = NMI,
            (0, vector) | (3, vector @ 32..) => self.raise((vector & 0xff) as u8),
            (3, _) => control.event = event,
            _ => {}
        }
    }

    /// Injects an event at the next entry.
    pub const fn inject(&mut self, event: Event) {
        self.vmcb.control.event = event.encode();
    }
}

/// Descriptor-style attributes (bits 8 to 11 unused) to those of a control block.
const fn attributes(descriptor: u16) -> u16 {
    descriptor & 0xff | descriptor >> 4 & 0xf00
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn interrupted_deliveries_are_taken_up_again() {
        let mut vmcb = Box::new(Vmcb::zeroed());
        let mut vcpu = Vcpu::new(&mut vmcb);
        let mut after = |info: u64| {
            let control = &mut vcpu.vmcb.control;
            (control.event, control.int_ctl, control.exit_int_info) = (0, 0, info);
            vcpu.deliver_again();
            (vcpu.vmcb.control.event, vcpu.pending_interrupt())
        };
        let page_fault = 7 << 32 | 0x8000_0b0e;
        assert_eq!(after(page_fault), (page_fault, None));
        assert_eq!(after(0x8000_0330), (0, Some(0x30)));
        assert_eq!(after(0x8000_0030), (0, Some(0x30)));
        assert_eq!(after(0x8000_0302), (0x8000_0202, None));
        assert_eq!(after(0x8000_0480), (0, None));
        assert_eq!(after(0x0000_0330), (0, None));
    }

    #[test]
    fn a_context_is_started_exactly() {
        let mut vmcb = Box::new(Vmcb::zeroed());
        let mut vcpu = Vcpu::new(&mut vmcb);
        let mut context = IgvmNativeVpContextX64::new_zeroed();
        context.rdi = 7;
        context.r15 = 15;
        context.code_attributes = 0xa09b;
        context.data_attributes = 0xc0f3;
        context.gs_base = 0x1_0000_0000;
        context.cr0 = CR0_PG | 1;
        context.efer = LME;
        vcpu.start(&context);
        assert_eq!((vcpu.gprs.rdi, vcpu.gprs.r8_to_r15[7]), (7, 15));
        assert_eq!(vcpu.vmcb.save.cs.attributes, 0xa9b);
        assert_eq!(vcpu.vmcb.save.gs.base, 0x1_0000_0000);
        assert_eq!(vcpu.vmcb.save.gs.attributes, 0xcf3);
        assert_eq!(vcpu.vmcb.save.efer, LME | LMA | SVME);
        assert_eq!(vcpu.vmcb.save.cpl, 3);
        assert_eq!(vcpu.vmcb.save.rflags, 2);
    }

    #[test]
    fn a_start_up_message_means_real_mode() {
        let mut vmcb = Box::new(Vmcb::zeroed());
        let mut vcpu = Vcpu::new(&mut vmcb);
        vcpu.vmcb.control.int_state = 1;
        vcpu.gprs.rbx = 1;
        vcpu.start_up(0x9f);
        assert_eq!(vcpu.vmcb.save.cs.base, 0x9_f000);
        assert_eq!(vcpu.vmcb.save.cs.selector, 0x9f00);
        assert_eq!(vcpu.vmcb.save.efer, SVME);
        assert_eq!((vcpu.gprs.rbx, vcpu.vmcb.control.int_state), (0, 0));
    }
}

extern crate std;

use super::*;
use crate::cpu::cr::{Cr0, Cr4};
use proptest::prelude::*;
use std::{format, string::ToString};

const SNP: SevFeatures = SevFeatures::SNP_ACTIVE;

fn guest() -> Vmsa {
    Vmsa::reset_vector(0xffff_fff0, 0x00a0_0f11, Vmpl::Vmpl2, SNP)
}

#[test]
fn guest_cannot_have_a_cpu_above_itself() {
    let level = |level, caller| {
        let mut vmsa = guest();
        vmsa.vmpl = level;
        vmsa.check_for_guest(caller, SNP)
    };
    assert_eq!(level(2, Vmpl::Vmpl2), Ok(Vmpl::Vmpl2));
    assert_eq!(level(3, Vmpl::Vmpl2), Ok(Vmpl::Vmpl3));
    for refused in [0, 1, 4, 0xff] {
        assert_eq!(level(refused, Vmpl::Vmpl2), Err(Refused::Level(refused)));
    }
    assert_eq!(level(0, Vmpl::Vmpl0), Err(Refused::Level(0)));
}

#[test]
fn guest_cannot_change_what_protects_it() {
    let mut vmsa = guest();
    for features in [
        SevFeatures::empty(),
        SNP | SevFeatures::VTOM,
        SNP | SevFeatures::from_bits_retain(1 << 40),
    ] {
        vmsa.sev_features = U64::new(features.bits());
        assert_eq!(
            vmsa.check_for_guest(Vmpl::Vmpl1, SNP),
            Err(Refused::Features(features))
        );
        assert!(vmsa.check_for_guest(Vmpl::Vmpl1, features).is_ok());
    }
}

#[test]
fn save_areas_that_do_not_run_are_refused() {
    let mut vmsa = guest();
    vmsa.efer = U64::new(0xd01);
    assert_eq!(
        vmsa.check_for_guest(Vmpl::Vmpl1, SNP),
        Err(Refused::NotRunnable)
    );
    let mut vmsa = guest();
    vmsa.vintr_ctrl = U64::new(VintrCtrl::BUSY.bits());
    assert_eq!(vmsa.check_for_guest(Vmpl::Vmpl1, SNP), Err(Refused::Busy));
}

#[test]
fn no_save_area_begins_a_large_page() {
    let place = |page| may_be_save_area(Gpa::new(page).unwrap());
    assert!(!place(0) && !place(0x20_0000) && !place(0x4000_0000));
    assert!(place(0x1000) && place(0x20_1000) && place(0x1f_f000));
    assert!(!place(0x20_1008));
}

#[test]
fn long_mode_is_switched_on_whatever_the_rest_is() {
    let start = LongMode {
        rip: 1,
        rsp: 2,
        rdi: 3,
        rsi: 4,
        cr3: 1 << 51 | 0x1000,
        cr0: Cr0::empty(),
        cr4: Cr4::empty(),
        efer: Efer::empty(),
    };
    let features = SNP | SevFeatures::RESTRICTED_INJECTION;
    let vmsa = Vmsa::long_mode(Vmpl::Vmpl2, features, &start);
    let word = |offset: usize| vmsa.words()[offset / 8];
    assert_eq!(word(0x10), 0xffff_ffff_0a9b_0008);
    assert_eq!(word(0x20), 0xffff_ffff_0c93_0010);
    assert_eq!(word(0x90), 0x0000_ffff_008b_0000);
    assert_eq!((word(0xc8), word(0xd0)), (2 << 16, 0x1500));
    assert_eq!((word(0x158), word(0x148)), (0x8000_0001, 0x20));
    assert_eq!((word(0x150), word(0x170)), (1 << 51 | 0x1000, 2));
    assert_eq!((word(0x178), word(0x1d8)), (1, 2));
    assert_eq!((word(0x338), word(0x330)), (3, 4));
    assert_eq!((word(0x3b0), word(0x408)), (0b1001, 0x1f80));
}

#[test]
fn fields_lie_where_the_manual_has_them() {
    let mut vmsa = guest();
    vmsa.r9 = U64::new(0x1234_5678_9abc_def0);
    assert_eq!(vmsa.get(Field::R9), 0x1234_5678_9abc_def0);
    assert_eq!(vmsa.get(Field::LEVELS), 2 << 16);
    for (field, offset) in [
        (Field::LEVELS, 0xc8),
        (Field::EFER, 0xd0),
        (Field::RAX, 0x1f8),
        (Field::RCX, 0x308),
        (Field::R9, 0x348),
        (Field::VINTR_CTRL, 0x3b8),
        (Field::GUEST_EXITCODE, 0x3c0),
        (Field::EVENTINJ, 0x3e0),
        (Field::MXCSR, 0x408),
        (Field::X87_FCW, 0x410),
    ] {
        assert_eq!((field.offset(), field.word()), (offset, offset / 8));
    }
}

#[test]
fn calls_are_read_and_answered_in_the_same_registers() {
    let mut vmsa = guest();
    vmsa.rcx = U64::new(0x1000);
    let mut call = vmsa.call_registers();
    assert_eq!((call.rcx, call.rdx), (0x1000, 0x00a0_0f11));
    (call.rax, call.r8, call.r9) = (0x8000_0001, 8, 9);
    vmsa.set_call_registers(call);
    let bytes = vmsa.as_bytes();
    assert_eq!(bytes[0x1f8..0x1fc], [1, 0, 0, 0x80]);
    assert_eq!((bytes[0x308 + 1], bytes[0x340], bytes[0x348]), (0x10, 8, 9));
    assert_eq!(vmsa.call_registers(), call);
}

#[test]
fn exits_are_read_where_the_processor_puts_them() {
    let mut bytes = [0; 4096];
    bytes[0x3c0..0x3c2].copy_from_slice(&[3, 4]);
    bytes[0x390] = 1;
    bytes[0x398] = 2;
    bytes[0x3a0..0x3a4].copy_from_slice(&[14, 3 | 8, 0, 0x80]);
    bytes[0x3a8] = 4;
    let vmsa = Vmsa::read_from_bytes(&bytes).unwrap();
    let exit = vmsa.exit();
    assert_eq!(exit.code, ExitCode::VMGEXIT);
    assert_eq!((exit.info1, exit.info2, exit.next_rip), (1, 2, 4));
    assert_eq!(Some(exit.int_info), Event::exception(14, Some(0)));
}

#[test]
fn waiting_interrupts_have_the_priority_of_their_vector() {
    let vintr = VintrCtrl::from_bits_retain(0x5 | 1 << 26).with_vector(0xec);
    assert_eq!(vintr.vector(), Some(0xec));
    assert_eq!(vintr.bits(), 0xec << 32 | 1 << 26 | 0xe << 16 | 1 << 8 | 5);
    assert_eq!(vintr.with_vector(0x31).vector(), Some(0x31));
    assert_eq!(vintr.without_vector().bits(), 1 << 26 | 5);
    assert_eq!(
        (vintr.without_vector().vector(), vintr.task_priority()),
        (None, 5)
    );
}

#[test]
fn events_that_cannot_be_are_not_made() {
    assert_eq!(Event::exception(2, None), None);
    assert_eq!(Event::exception(32, None), None);
    assert_eq!(Event::interrupt(0xef).bits(), 0x8000_00ef);
    assert_eq!(Event::nmi().bits(), 0x8000_0202);
    let fault = Event::exception(13, Some(0x18)).unwrap();
    assert_eq!(fault.bits(), 0x18_8000_0b0d);
    assert_eq!((fault.kind(), fault.error_code()), (3, Some(0x18)));
    assert!(!Event::NONE.is_valid());
}

#[test]
fn registers_are_not_printed() {
    let mut vmsa = guest();
    vmsa.rax = U64::new(0x005e_c2e7);
    let text = format!("{vmsa:?} {:?}", vmsa.exit());
    assert!(
        !text.contains("5ec2e7") && !text.contains(&0x005e_c2e7_u64.to_string()),
        "{text}"
    );
}

proptest! {
    #[test]
    fn tweak_undoes_itself_and_leaves_plain_save_areas_alone(
        protected in any::<bool>(),
        nonce in any::<u64>(),
        rax in any::<u64>(),
        bitmap in any::<[u8; 32]>(),
    ) {
        let mut vmsa = guest();
        vmsa.rax = U64::new(rax);
        vmsa.reg_prot_nonce = U64::new(nonce);
        if protected {
            vmsa.sev_features = U64::new((SNP | SevFeatures::VMSA_REG_PROT).bits());
        }
        let mut map = TweakBitmap([0; 64]);
        map.0[..32].copy_from_slice(&bitmap);
        // RAX is blinded; nonce and features never are.
        map.0[0x1f8 / 64] |= 1 << 7;
        map.0[0x300 / 64] &= !1;
        map.0[0x3b0 / 64] &= !(1 << 6);
        let clear = vmsa.clone();
        prop_assert_eq!(map.mask(Field::RAX, nonce), nonce);
        vmsa.tweak(&map);
        let expected = if protected { rax ^ nonce } else { rax };
        prop_assert_eq!(vmsa.rax.get(), expected);
        prop_assert_eq!(protected && nonce != 0, vmsa != clear);
        vmsa.tweak(&map);
        prop_assert_eq!(vmsa, clear);
    }
}

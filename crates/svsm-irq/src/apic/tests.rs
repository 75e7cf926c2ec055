use core::num::NonZeroU32;

use super::{
    Apic, ApicErrors, ApicId, Command, Divide, LocalApic, ModeError, Register, Target, TimerMode,
    X2Apic,
    model::{GeneralProtection, Model},
};
use crate::Vector;

const SPURIOUS: Vector = Vector::LAST;

fn vector(number: u8) -> Vector {
    Vector::new(number).unwrap()
}

fn enabled(model: &mut Model) -> Apic<X2Apic<&mut Model>> {
    let mut apic = Apic::new(X2Apic::enable(model).unwrap());
    apic.enable(SPURIOUS).unwrap();
    apic
}

#[test]
fn every_mode_leads_to_x2apic() {
    for mode in [0b00_u64, 0b10, 0b11] {
        let mut model = Model {
            base: 0xfee0_0000 | mode << 10,
            ..Model::default()
        };
        X2Apic::enable(&mut model).unwrap();
        assert_eq!(model.base, 0xfee0_0000 | 0b11 << 10);
    }
}

#[test]
fn a_base_register_that_ignores_us_is_an_error() {
    struct Deaf;
    impl svsm_platform::seam::MsrCall for Deaf {
        type Error = ();
        fn msr_read(&mut self, _: svsm_platform::cpu::msr::Msr) -> Result<u64, ()> {
            Ok(1 << 11)
        }
        fn msr_write(&mut self, _: svsm_platform::cpu::msr::Msr, _: u64) -> Result<(), ()> {
            Ok(())
        }
    }
    assert_eq!(
        X2Apic::enable(Deaf).err(),
        Some(ModeError::Refused(1 << 11))
    );
}

#[test]
fn enabling_masks_what_a_loader_left() {
    let mut model = Model::in_xapic_mode();
    (model.lvt, model.tpr, model.initial) = ([0x31; 4], 0xf0, 5);
    let mut apic = enabled(&mut model);
    assert_eq!(apic.id(), Ok(ApicId::new(7)));
    assert_eq!((model.svr, model.tpr, model.initial), (0x1ff, 0, 0));
    assert!(model.lvt[0] & model.lvt[1] & model.lvt[2] & model.lvt[3] & 1 << 16 != 0);
}

#[test]
fn an_interrupt_goes_from_request_to_service_to_end() {
    let mut model = Model::in_xapic_mode();
    enabled(&mut model).send_to_self(vector(0x41)).unwrap();
    assert_eq!(
        Apic::new(X2Apic::new(&mut model)).is_requested(vector(0x41)),
        Ok(true)
    );
    assert_eq!(model.take(), Some(0x41));
    let mut apic = Apic::new(X2Apic::new(&mut model));
    assert_eq!(apic.is_requested(vector(0x41)), Ok(false));
    assert_eq!(apic.is_in_service(vector(0x41)), Ok(true));
    apic.eoi().unwrap();
    assert_eq!(apic.is_in_service(vector(0x41)), Ok(false));
}

#[test]
fn an_interrupt_of_the_class_in_service_waits_for_its_end() {
    let mut model = Model::in_xapic_mode();
    enabled(&mut model);
    model.request(0x48);
    assert_eq!(model.take(), Some(0x48));
    model.request(0x4f);
    assert_eq!(model.take(), None);
    Apic::new(X2Apic::new(&mut model)).eoi().unwrap();
    assert_eq!(model.take(), Some(0x4f));
}

#[test]
fn commands_go_out_as_one_write() {
    let mut model = Model::in_xapic_mode();
    let command = Command::nmi(Target::One(ApicId::new(3)));
    enabled(&mut model).send(command).unwrap();
    assert_eq!(model.sent, [command.as_u64()]);
}

#[test]
fn errors_are_told_once() {
    let mut model = Model::in_xapic_mode();
    enabled(&mut model);
    model.pending_errors = 1 << 5;
    let mut apic = Apic::new(X2Apic::new(&mut model));
    assert_eq!(apic.errors(), Ok(ApicErrors::SEND_ILLEGAL_VECTOR));
    assert_eq!(apic.errors(), Ok(ApicErrors::empty()));
}

#[test]
fn the_timer_is_set_as_its_mode_says() {
    let mut model = Model::in_xapic_mode();
    let count = NonZeroU32::new(1000).unwrap();
    for (mode, lvt, initial) in [
        (TimerMode::OneShot(count), 0x40, 1000),
        (TimerMode::Periodic(count), 0x2_0040, 1000),
        (TimerMode::Deadline, 0x4_0040, 0),
    ] {
        enabled(&mut model)
            .start_timer(vector(0x40), mode, Divide::By16)
            .unwrap();
        assert_eq!(
            (model.lvt[0], model.initial, model.divide),
            (lvt, initial, 0b0011)
        );
    }
    let mut apic = Apic::new(X2Apic::new(&mut model));
    apic.access().set_deadline(99).unwrap();
    apic.stop_timer().unwrap();
    assert_eq!(
        (model.deadline, model.lvt[0], model.initial),
        (99, 1 << 16, 0)
    );
}

#[test]
fn counting_starts_at_zero() {
    let mut model = Model::in_xapic_mode();
    enabled(&mut model).start_counting(Divide::By1).unwrap();
    model.current -= 1234;
    assert_eq!(Apic::new(X2Apic::new(&mut model)).counted(), Ok(1234));
}

#[test]
fn registers_that_x2apic_lacks_are_refused_by_the_model() {
    let mut model = Model::in_xapic_mode();
    let refused = X2Apic::new(&mut model).read(Register::ID);
    assert_eq!(
        refused,
        Err(GeneralProtection(svsm_platform::cpu::msr::Msr::new(0x802)))
    );
}

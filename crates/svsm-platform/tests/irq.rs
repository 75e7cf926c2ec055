//! The contract of interrupt masking, against controls that keep and break it.

use core::cell::Cell;

use svsm_platform::{conformance, irq::IrqCtl};

#[derive(Default)]
struct Flag(Cell<bool>);

impl IrqCtl for Flag {
    type State = bool;

    fn mask(&self) -> bool {
        self.0.replace(true)
    }

    fn restore(&self, masked: bool) {
        self.0.set(masked);
    }
}

#[test]
fn control_that_keeps_the_state_conforms() {
    conformance::irq_ctl(&Flag::default(), |flag| flag.0.get());
}

#[test]
#[should_panic(expected = "ended the outer masking")]
fn control_that_always_unmasks_does_not_conform() {
    #[derive(Default)]
    struct Forgetful(Flag);

    impl IrqCtl for Forgetful {
        type State = ();

        fn mask(&self) {
            let _ = self.0.mask();
        }

        fn restore(&self, (): ()) {
            self.0.restore(false);
        }
    }

    conformance::irq_ctl(&Forgetful::default(), |flag| flag.0.0.get());
}

//! Faults that were expected: from the exception table to the landing.

use svsm_platform::{addr::Gva, frame::TrapFrame, seam::FaultTable};

use crate::{Cause, Exception};

bitflags::bitflags! {
    /// The error code of #PF (AMD APM volume 2, section 8.4.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PageFault: u64 {
        /// The page was there, but not for this.
        const PRESENT = 1 << 0;
        /// It was a write.
        const WRITE = 1 << 1;
        /// It came from user mode.
        const USER = 1 << 2;
        /// A table entry has a reserved bit set.
        const RESERVED = 1 << 3;
        /// It was an instruction fetch.
        const FETCH = 1 << 4;
        /// A protection key forbids it.
        const PROTECTION_KEY = 1 << 5;
        /// It was a shadow-stack access.
        const SHADOW_STACK = 1 << 6;
        /// The enclave page cache forbids it.
        const SGX = 1 << 15;
        /// The reverse map table forbids it.
        const RMP = 1 << 31;
        // The processor may say more.
        const _ = !0;
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for PageFault {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "PageFault({=u64:#x})", self.bits());
    }
}

/// The error code of #VC for a page that has not been validated, or no longer is (AMD APM volume 2,
/// "Page Validation").
const PAGE_NOT_VALIDATED: u64 = 0x404;

/// Sends kernel code that was allowed to fault to its landing. `true` if it was: then return from
/// the exception.
///
/// Only #PF and #GP land (a non-canonical address raises the latter), #VC where SEV-SNP says so of a
/// page that nobody has validated, and only out of kernel mode: a user program has no say in our
/// table.
///
/// A handler asks this before it looks for any other cause:
///
/// ```
/// use svsm_irq::{entry::TrapFrame, fault};
/// use svsm_platform::fault::FaultEntries;
///
/// fn handle(frame: &mut TrapFrame, expected: &FaultEntries) {
///     if fault::land(frame, expected) {
///         return;
///     }
///     // a fault that nobody expected
/// }
/// ```
pub fn land(frame: &mut TrapFrame, table: &impl FaultTable) -> bool {
    if frame.from_user() {
        return false;
    }
    match Cause::of(frame.vector) {
        Some(Cause::Exception(Exception::PF | Exception::GP)) => {}
        Some(Cause::Exception(Exception::VC)) if frame.error_code == PAGE_NOT_VALIDATED => {}
        _ => return false,
    }
    let landing = Gva::new(frame.rip).and_then(|rip| table.landing(rip));
    if let Some(landing) = landing {
        frame.rip = landing.as_u64();
    }
    landing.is_some()
}

#[cfg(test)]
mod tests {
    use svsm_platform::{addr::Gva, frame::TrapFrame, seam::FaultTable};

    use super::land;

    struct One;

    impl FaultTable for One {
        fn landing(&self, fault: Gva) -> Option<Gva> {
            (fault.as_u64() == 0x1000).then(|| Gva::new(0x2000).unwrap())
        }
    }

    fn fault(vector: u64, cs: u64, rip: u64) -> TrapFrame {
        TrapFrame {
            vector,
            cs,
            rip,
            ..TrapFrame::default()
        }
    }

    #[test]
    fn expected_faults_of_the_kernel_land() {
        for vector in [13, 14] {
            let mut frame = fault(vector, 0x08, 0x1000);
            assert!(land(&mut frame, &One));
            assert_eq!(frame.rip, 0x2000);
        }
    }

    #[test]
    fn pages_that_nobody_validated_land() {
        let with_code = |error_code| TrapFrame {
            error_code,
            ..fault(29, 0x08, 0x1000)
        };
        assert!(land(&mut with_code(0x404), &One));
        // What a host intercepts is no fault.
        assert!(!land(&mut with_code(0x7b), &One));
        assert!(!land(&mut with_code(0x400), &One));
    }

    #[test]
    fn nothing_else_lands() {
        let others = [
            (14, 0x33, 0x1000),
            (14, 0x08, 0x1001),
            (6, 0x08, 0x1000),
            (14, 0x08, 1 << 63),
        ];
        for (vector, cs, rip) in others {
            let mut frame = fault(vector, cs, rip);
            assert!(!land(&mut frame, &One));
            assert_eq!(frame.rip, rip);
        }
    }
}

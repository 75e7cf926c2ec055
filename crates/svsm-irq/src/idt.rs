//! Which vector enters where, on which stack, and who may raise it.

use svsm_platform::{
    addr::Gva,
    cpu::descriptor::{IdtEntry, IdtTable},
    level::Cpl,
};

use crate::{
    Cause, Exception, Vector,
    entry::{STUB_BYTES, TrapHandler, entries},
    ist,
};

/// Fills a table with gates for all 256 vectors, which lead to `H`.
///
/// All are interrupt gates, so handlers start with interrupts masked. Programs may raise two of
/// them by themselves: #BP (`int3`) and [`Vector::SYSCALL`]. The exceptions of
/// [`Exception::AT_ANY_INSTRUCTION`] start on the stacks of [`crate::ist`].
///
/// ```
/// use svsm_irq::{entry::{GsBase, TrapFrame, TrapHandler}, idt};
/// use svsm_platform::cpu::descriptor::IdtTable;
///
/// # enum Firmware {}
/// # impl TrapHandler for Firmware {
/// #     const GS_BASE: GsBase = GsBase::Msr;
/// #     fn handle(_: &mut TrapFrame) {}
/// #     fn lost(_: &TrapFrame) -> ! { loop {} }
/// # }
/// let mut table = IdtTable::new();
/// idt::fill::<Firmware>(&mut table);
/// // then, once stacks and task-state segment are in place: LIDT with `IdtTable::pointer`
/// ```
pub fn fill<H: TrapHandler>(table: &mut IdtTable) {
    // The stubs begin at the first boundary, should a linker place the function off it.
    let first = (entries::<H> as *const ())
        .addr()
        .next_multiple_of(STUB_BYTES);
    for vector in 0..=u8::MAX {
        let stub = first + usize::from(vector) * STUB_BYTES;
        if let Some(stub) = Gva::new(stub as u64) {
            table.set(vector, gate(vector, stub));
        }
    }
}

/// The gate of a vector whose stub is there.
fn gate(vector: u8, stub: Gva) -> IdtEntry {
    let gate = IdtEntry::interrupt(stub);
    match Cause::of(vector.into()) {
        Some(Cause::Exception(exception)) => match ist::stack_of(exception) {
            Some(stack) => gate.on_stack(stack),
            None if exception == Exception::BP => gate.open_to(Cpl::Ring3),
            None => gate,
        },
        Some(Cause::Interrupt(Vector::SYSCALL)) => gate.open_to(Cpl::Ring3),
        _ => gate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{GsBase, TrapFrame};

    enum Nobody {}

    impl TrapHandler for Nobody {
        const GS_BASE: GsBase = GsBase::Msr;

        fn handle(_: &mut TrapFrame) {}

        fn lost(_: &TrapFrame) -> ! {
            std::process::abort()
        }
    }

    #[test]
    fn every_vector_has_a_stub_of_its_own() {
        let mut table = IdtTable::new();
        fill::<Nobody>(&mut table);
        let first = table.entry(0).handler();
        assert_eq!(first, (entries::<Nobody> as *const ()).addr() as u64);
        for vector in 0..=u8::MAX {
            assert!(table.entry(vector).is_present());
            assert_eq!(
                table.entry(vector).handler(),
                first + u64::from(vector) * 16
            );
        }
    }

    #[test]
    fn stubs_push_their_vector_and_an_error_code_where_the_processor_does_not() {
        let code = entries::<Nobody> as *const u8;
        #[expect(unsafe_code, reason = "reads code")]
        let byte = |at: usize| {
            // SAFETY: the 256 stubs take 4096 bytes.
            unsafe { code.wrapping_add(at).read() }
        };
        const PUSH_BYTE: u8 = 0x6a;
        const PUSH_DWORD: u8 = 0x68;
        for vector in 0..=u8::MAX {
            let mut at = usize::from(vector) * STUB_BYTES;
            if !Exception::new(vector).is_some_and(Exception::has_error_code) {
                assert_eq!((byte(at), byte(at + 1)), (PUSH_BYTE, 0), "vector {vector}");
                at += 2;
            }
            let push = if vector < 0x80 { PUSH_BYTE } else { PUSH_DWORD };
            assert_eq!((byte(at), byte(at + 1)), (push, vector), "vector {vector}");
        }
    }

    #[test]
    fn programs_raise_breakpoints_and_system_calls_only() {
        let stub = Gva::new(0x1000).unwrap();
        for vector in 0..=u8::MAX {
            let open = gate(vector, stub) == gate(vector, stub).open_to(Cpl::Ring3);
            assert_eq!(open, vector == 3 || vector == 0x80, "vector {vector}");
        }
    }
}

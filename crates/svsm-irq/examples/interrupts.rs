//! What a firmware does with an interrupt, on a local APIC that is a few lines of this example.
//!
//! `cargo run -p svsm-irq --example interrupts`

use core::convert::Infallible;

use svsm_irq::{
    Vector,
    apic::{Apic, Command, LocalApic, Register, Target},
    dispatch::{DispatchTable, Outcome},
    policy::{AllowList, InjectionPolicy, Source},
};

/// Takes everything, and has in service what it was told.
#[derive(Default)]
struct Pretended {
    in_service: Option<Vector>,
}

impl LocalApic for Pretended {
    type Error = Infallible;

    fn read(&mut self, register: Register) -> Result<u32, Infallible> {
        let vector = self.in_service.map_or(0, Vector::as_u8);
        let word = Register::ISR.offset() + u16::from(vector / 32) * 0x10;
        Ok(u32::from(register.offset() == word) << (vector % 32))
    }

    fn write(&mut self, register: Register, value: u32) -> Result<(), Infallible> {
        if register == Register::EOI {
            self.in_service = None;
        }
        println!("  apic: {register:?} = {value:#x}");
        Ok(())
    }

    fn send(&mut self, command: Command) -> Result<(), Infallible> {
        println!("  apic: sends {command:?}");
        Ok(())
    }
}

/// What the firmware's handlers work on.
#[derive(Default)]
struct Ticks(u64);

fn tick(ticks: &mut Ticks, _: Vector) {
    ticks.0 += 1;
}

/// The part of the trap handler that is about interrupts.
fn interrupt(
    vector: Vector,
    apic: &mut Apic<Pretended>,
    policy: &mut AllowList,
    table: &mut DispatchTable<Ticks>,
    ticks: &mut Ticks,
) -> Result<(), Infallible> {
    // The processor does not say where a vector came from, but the local APIC knows its own.
    let source = if apic.is_in_service(vector)? {
        Source::Apic
    } else {
        Source::Injected
    };
    if policy.accepts(vector, source) && table.dispatch(ticks, vector) == Outcome::Unclaimed {
        println!("  nobody handles {vector}");
    }
    if source == Source::Apic {
        apic.eoi()?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut apic = Apic::new(Pretended::default());
    apic.enable(Vector::LAST)?;

    let (mut policy, mut table, mut ticks) =
        (AllowList::new(), DispatchTable::new(), Ticks::default());
    let timer = table.claim_any(4, tick)?;
    policy.allow(timer, Source::Apic);

    println!("the timer fires:");
    apic.access().in_service = Some(timer);
    interrupt(timer, &mut apic, &mut policy, &mut table, &mut ticks)?;

    println!("the host injects the same vector:");
    interrupt(timer, &mut apic, &mut policy, &mut table, &mut ticks)?;

    println!(
        "{} tick, {} dropped",
        ticks.0,
        policy.dropped(Source::Injected)
    );
    apic.send(Command::nmi(Target::Others))?;
    Ok(())
}

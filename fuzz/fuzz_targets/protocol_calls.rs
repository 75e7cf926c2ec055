//! What a guest calls, with what it wrote into its memory before: no call reaches what is not the guest's, whatever it is
//! answered, and the SVSM's own memory and everybody's registers stay as they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{GUEST, Map, Model, SMALL, SVSM, gpa};
use svsm_platform::irq::NoIrq;
use svsm_platform::level::Vmpl;
use svsm_protocol::attest::{
    Attestation, Attested, Evidence, Evidencer, Guid, NoReport, Scratch, Sha512,
};
use svsm_protocol::vtpm::{Desk, NotTaken, Tpm, Vtpm};
use svsm_protocol::{Core, Dispatcher, Protocol, Registers, Registry, Vcpu};
use svsm_sim::rmp::Access;

/// Few: what a call says of memory does not depend on how much there is.
const LARGE_PAGES: u64 = 2;

#[path = "../../crates/svsm-protocol/tests/protocols/model.rs"]
#[expect(dead_code, reason = "tests use all of it")]
mod model;

const FEATURES: u64 = 1;
const FIRST_AREA: u64 = SVSM.start + SMALL;
const PROCESSORS: [u32; 2] = [0, 4];

/// Takes its decisions from the input; zeros when that is at its end.
struct Input<'i>(&'i [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// An address: mostly one of few pages, so that calls meet; and any.
    fn address(&mut self) -> u64 {
        match self.byte() {
            kind @ 0..0xc0 => u64::from(kind % 32) * SMALL,
            0xc0..0xd0 => SVSM.start + u64::from(self.byte()) * SMALL / 8,
            0xd0..0xe0 => GUEST.end - u64::from(self.byte()),
            0xe0..0xf0 => u64::from(self.byte() % 32) * SMALL + u64::from(self.byte()) * 16,
            _ => self.word(),
        }
    }
}

/// A security processor, a hash and a service, of which none fails.
struct Honest;

impl Evidencer for Honest {
    fn evidence(
        &mut self,
        data: &[u8; 64],
        report: &mut [u8],
        certificates: Option<&mut [u8]>,
    ) -> Result<Evidence, NoReport> {
        report[..64].copy_from_slice(data);
        Ok(Evidence {
            report_bytes: 0x4a0,
            certificate_bytes: certificates.map_or(0, |certificates| certificates.len()),
        })
    }
}

impl Sha512 for Honest {
    fn digest(&self, parts: [&[u8]; 2]) -> [u8; 64] {
        [parts
            .concat()
            .iter()
            .fold(1, |sum: u8, byte| sum.wrapping_mul(31) ^ byte); 64]
    }
}

impl Attested for Honest {
    fn guid(&self) -> Guid {
        Guid::VTPM
    }

    fn manifest(&self, _: u32, out: &mut [u8]) -> Option<usize> {
        out.get_mut(..4)?.copy_from_slice(b"said");
        Some(4)
    }
}

/// A TPM that answers with the command, after as many pieces of time as the command's first byte says.
#[derive(Default)]
struct Echo {
    left: u8,
    command: Vec<u8>,
}

impl Tpm for &mut Echo {
    fn submit(&mut self, _: u8, command: &[u8]) -> Result<(), NotTaken> {
        if self.left > 0 {
            return Err(NotTaken::AtWork);
        }
        self.command = command.to_vec();
        self.left = command.first().map_or(0, |first| first % 4);
        Ok(())
    }

    fn lend_time(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    fn take(&mut self, to: &mut [u8]) -> Result<usize, NotTaken> {
        if self.left > 0 {
            return Err(NotTaken::AtWork);
        }
        to[..self.command.len()].copy_from_slice(&self.command);
        Ok(self.command.len())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut model = Model::new();
    let (desk, mut tpm) = (Desk::new(NoIrq), Echo::default());
    let mut slots = [None; 6];
    let registry = Registry::new(&mut slots, &PROCESSORS, FEATURES, NoIrq);
    let first = Vcpu {
        processor: PROCESSORS[0],
        level: Vmpl::Vmpl2,
        save_area: gpa(FIRST_AREA),
        calling_area: gpa(3 * SMALL),
        is_first: true,
    };
    registry.add_first(first).expect("there is room");
    let svsm =
        usize::try_from(SVSM.start).expect("small")..usize::try_from(SVSM.end).expect("small");
    let before = model.bytes[svsm.clone()].to_vec();
    while !input.0.is_empty() {
        // The guest writes, where it may.
        let at = input.address();
        let len = usize::from(input.byte() % 128);
        let inside = at
            .checked_add(len as u64)
            .is_some_and(|end| end <= GUEST.end);
        let (written, rest) = input.0.split_at(len.min(input.0.len()));
        if inside
            && model.may(2, at, Access::WRITE)
            && model.may(2, at + len as u64 - u64::from(len > 0), Access::WRITE)
        {
            model.put(at, written);
        }
        input.0 = rest;
        if input.byte() % 4 == 0
            && inside
            && at.is_multiple_of(SMALL)
            && model.may(2, at, Access::WRITE)
        {
            model.save_area(at, input.byte() % 4, 0x1000, FEATURES);
        }
        // It calls.
        let processor = PROCESSORS[usize::from(input.byte() % 2)];
        let Some(caller) = registry.of_processor(processor) else {
            continue;
        };
        let mut registers = Registers {
            rax: u64::from(input.byte() % 4) << 32 | u64::from(input.byte() % 10),
            rcx: input.address(),
            rdx: input.address(),
            r8: u64::from(input.byte() % 6),
            r9: 0,
        };
        let other: Vec<_> = PROCESSORS
            .iter()
            .filter_map(|id| registry.of_processor(*id))
            .map(|vcpu| vcpu.save_area.as_u64())
            .collect();
        let mut scratch = [0; 4096];
        let (mut manifest, mut report, mut certificates) = ([0; 4096], [0; 4096], [0; 4096]);
        match registers.rax >> 32 {
            1 => {
                let mut attestation = Attestation::new(
                    &registry,
                    (&Map, &mut model),
                    (Honest, Honest),
                    &[&Honest],
                    Scratch {
                        manifest: &mut manifest,
                        report: &mut report,
                        certificates: &mut certificates,
                    },
                );
                dispatch(&mut attestation, &mut registers);
            }
            2 => {
                let mut vtpm = Vtpm::new(
                    (&desk, &mut tpm),
                    &registry,
                    (&Map, &mut model),
                    caller,
                    &mut scratch,
                );
                dispatch(&mut vtpm, &mut registers);
            }
            _ => {
                let mut core = Core::new(&registry, &Map, &mut model, caller);
                dispatch(&mut core, &mut registers);
            }
        }
        assert_eq!(registers.rax >> 32, 0);
        assert!(
            model.bytes[svsm.clone()] == before[..],
            "the SVSM's memory changed"
        );
        for level in 1..4 {
            assert!(
                SVSM.step_by(4096)
                    .all(|page| !model.may(level, page, Access::READ))
            );
            for area in &other {
                let is_one = registry.has_save_area(gpa(*area));
                assert!(!is_one || !model.may(level, *area, Access::WRITE));
            }
        }
        assert!((0..32).all(|page| !model.may(1, page * SMALL, Access::READ)));
    }
});

fn dispatch(protocol: &mut dyn Protocol, registers: &mut Registers) {
    if let Ok(mut dispatcher) = Dispatcher::new([protocol]) {
        dispatcher.dispatch(registers);
    }
}

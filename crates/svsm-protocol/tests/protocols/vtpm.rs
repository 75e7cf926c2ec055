//! The vTPM protocol: whose command the TPM works on, and what becomes of the buffer.

use crate::model::{GUEST, Map, Model, SMALL, SVSM, gpa};
use proptest::prelude::*;
use svsm_platform::irq::NoIrq;
use svsm_platform::level::Vmpl;
use svsm_protocol::vtpm::{Desk, MAX_COMMAND_BYTES, MAX_RESPONSE_BYTES, NotTaken, Tpm, Vtpm};
use svsm_protocol::{CallId, Core, Dispatcher, Protocol, ProtocolId, Registers, Registry, Vcpu};

const SUCCESS: u64 = 0;
const INCOMPLETE: u64 = 0x8000_0000;
const UNSUPPORTED_CALL: u64 = 0x8000_0002;
const INVALID_PARAMETER: u64 = 0x8000_0005;
const BUSY: u64 = 0x8000_0007;

const FEATURES: u64 = 1;
const BUFFER: u64 = 0x8000;
const OTHER_BUFFER: u64 = 0xa000;
/// Save areas of the guest's first and second processor.
const AREAS: [u64; 2] = [SVSM.start + SMALL, 0x2_0000];

/// A TPM that answers with the command it got and how many there were, after so many pieces of time.
#[derive(Default)]
struct Slow {
    pieces: usize,
    left: usize,
    submitted: u8,
    response: Option<Vec<u8>>,
    is_gone: bool,
}

impl Tpm for &mut Slow {
    fn submit(&mut self, locality: u8, command: &[u8]) -> Result<(), NotTaken> {
        assert_eq!(locality, 0);
        if self.is_gone {
            return Err(NotTaken::Gone);
        }
        if self.left > 0 {
            return Err(NotTaken::AtWork);
        }
        self.submitted += 1;
        self.left = self.pieces;
        self.response = Some([&[self.submitted], command].concat());
        Ok(())
    }

    fn lend_time(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    fn take(&mut self, to: &mut [u8]) -> Result<usize, NotTaken> {
        if self.is_gone {
            return Err(NotTaken::Gone);
        }
        if self.left > 0 {
            return Err(NotTaken::AtWork);
        }
        let response = self.response.take().unwrap();
        let len = response.len().min(MAX_RESPONSE_BYTES);
        to[..len].copy_from_slice(&response[..len]);
        Ok(len)
    }
}

struct Bench<'m> {
    model: Model,
    registry: Registry<'m, NoIrq>,
    desk: Desk<NoIrq>,
    tpm: Slow,
}

impl<'m> Bench<'m> {
    fn new(slots: &'m mut [Option<Vcpu>], pieces: usize) -> Self {
        let registry = Registry::new(slots, &[0, 1], FEATURES, NoIrq);
        let first = Vcpu {
            processor: 0,
            level: Vmpl::Vmpl2,
            save_area: gpa(AREAS[0]),
            calling_area: gpa(0x3000),
            is_first: true,
        };
        registry.add_first(first).unwrap();
        let mut bench = Self {
            model: Model::new(),
            registry,
            desk: Desk::new(NoIrq),
            tpm: Slow {
                pieces,
                ..Slow::default()
            },
        };
        bench.model.save_area(AREAS[1], 2, 0x1000, FEATURES);
        assert_eq!(bench.core(2, AREAS[1], 0x4000, 1), SUCCESS);
        bench
    }

    /// A call of the core protocol by the first processor.
    fn core(&mut self, call: u64, rcx: u64, rdx: u64, r8: u64) -> u64 {
        let caller = self.registry.of_processor(0).unwrap();
        let mut core = Core::new(&self.registry, &Map, &mut self.model, caller);
        let mut registers = Registers {
            rax: call,
            rcx,
            rdx,
            r8,
            r9: 0,
        };
        Dispatcher::new([&mut core as &mut dyn Protocol])
            .unwrap()
            .dispatch(&mut registers);
        registers.rax
    }

    fn call_by(&mut self, processor: u32, call: u32, rcx: u64) -> Registers {
        let caller = self.registry.of_processor(processor).unwrap();
        let mut scratch = [0; 4096];
        let mut vtpm = Vtpm::new(
            (&self.desk, &mut self.tpm),
            &self.registry,
            (&Map, &mut self.model),
            caller,
            &mut scratch,
        );
        let id = CallId {
            protocol: ProtocolId::VTPM,
            call,
        };
        let mut registers = Registers {
            rax: id.to_rax(),
            rcx,
            rdx: 5,
            r8: 6,
            r9: 7,
        };
        Dispatcher::new([&mut vtpm as &mut dyn Protocol])
            .unwrap()
            .dispatch(&mut registers);
        registers
    }

    fn command(&mut self, processor: u32, buffer: u64) -> u64 {
        self.call_by(processor, 1, buffer).rax
    }

    fn request(&mut self, at: u64, command: u32, locality: u8, size: u32, bytes: &[u8]) {
        let header = [&command.to_le_bytes()[..], &[locality], &size.to_le_bytes()].concat();
        self.model.put(at, &header);
        self.model.put(at + 9, bytes);
    }

    fn send(&mut self, at: u64, bytes: &[u8]) {
        self.request(at, 8, 0, u32::try_from(bytes.len()).unwrap(), bytes);
    }

    fn response(&self, at: u64) -> &[u8] {
        let at = usize::try_from(at).unwrap();
        let size = u32::from_le_bytes(self.model.bytes[at..at + 4].try_into().unwrap());
        &self.model.bytes[at + 4..at + 4 + usize::try_from(size).unwrap()]
    }
}

fn slots() -> [Option<Vcpu>; 6] {
    [None; 6]
}

#[test]
fn a_guest_learns_what_the_tpm_takes() {
    let mut slots = slots();
    let answer = Bench::new(&mut slots, 1).call_by(0, 0, 1);
    assert_eq!((answer.rax, answer.rcx, answer.rdx), (SUCCESS, 0x100, 0));
    let alone = svsm_vtpm::protocol::QUERY_ANSWER;
    assert_eq!((answer.rcx, answer.rdx), (alone.commands, alone.features));
    assert_eq!(
        Bench::new(&mut [None; 6], 1).call_by(0, 2, 1).rax,
        UNSUPPORTED_CALL
    );
}

#[test]
fn a_quick_command_is_answered_in_one_call() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 1);
    bench.send(BUFFER, b"abc");
    assert_eq!(bench.command(0, BUFFER), SUCCESS);
    assert_eq!(bench.response(BUFFER), b"\x01abc");
}

#[test]
fn a_slow_command_leaves_the_buffer_alone_until_it_is_done() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 4);
    bench.send(BUFFER, b"abc");
    let before = bench.model.bytes.clone();
    for _ in 0..3 {
        let answer = bench.call_by(0, 1, BUFFER);
        assert_eq!(
            (answer.rax, answer.rcx, answer.rdx),
            (INCOMPLETE, BUFFER, 5)
        );
        assert!(bench.model.bytes == before);
    }
    // What stands in the buffer by now is nobody's command any more.
    bench.send(BUFFER, b"xyz");
    assert_eq!(bench.command(0, BUFFER), SUCCESS);
    assert_eq!(bench.response(BUFFER), b"\x01abc");
    assert_eq!(bench.tpm.submitted, 1);
}

#[test]
fn others_wait_and_lend_their_time() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 3);
    bench.send(BUFFER, b"abc");
    bench.send(OTHER_BUFFER, b"def");
    assert_eq!(bench.command(0, BUFFER), INCOMPLETE);
    assert_eq!(bench.command(1, OTHER_BUFFER), BUSY);
    assert_eq!(bench.command(1, BUFFER), BUSY);
    // It is done by now, but the response is not theirs.
    assert_eq!(bench.command(1, BUFFER), BUSY);
    assert_eq!(bench.command(0, BUFFER), SUCCESS);
    assert_eq!(bench.response(BUFFER), b"\x01abc");
    while bench.command(1, OTHER_BUFFER) == INCOMPLETE {}
    assert_eq!(bench.response(OTHER_BUFFER), b"\x02def");
}

#[test]
fn who_asks_for_something_else_has_given_up() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 2);
    bench.send(BUFFER, b"abc");
    bench.send(OTHER_BUFFER, b"def");
    assert_eq!(bench.command(0, BUFFER), INCOMPLETE);
    assert_eq!(bench.command(0, OTHER_BUFFER), BUSY);
    assert_eq!(bench.command(0, OTHER_BUFFER), INCOMPLETE);
    assert_eq!(bench.command(0, OTHER_BUFFER), SUCCESS);
    assert_eq!(bench.response(OTHER_BUFFER), b"\x02def");
}

#[test]
fn a_processor_that_is_gone_holds_nobody_up() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 2);
    bench.send(BUFFER, b"abc");
    bench.send(OTHER_BUFFER, b"def");
    assert_eq!(bench.command(1, BUFFER), INCOMPLETE);
    assert_eq!(bench.command(0, OTHER_BUFFER), BUSY);
    assert_eq!(bench.command(0, OTHER_BUFFER), BUSY);
    assert_eq!(bench.core(3, AREAS[1], 0, 0), SUCCESS);
    assert_eq!(bench.command(0, OTHER_BUFFER), INCOMPLETE);
    assert_eq!(bench.command(0, OTHER_BUFFER), SUCCESS);
    assert_eq!(bench.response(OTHER_BUFFER), b"\x02def");
}

#[test]
fn a_tpm_that_is_gone_answers_as_a_broken_one() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 5);
    bench.send(BUFFER, b"abc");
    assert_eq!(bench.command(0, BUFFER), INCOMPLETE);
    bench.tpm.is_gone = true;
    for _ in 0..2 {
        bench.send(BUFFER, b"abc");
        assert_eq!(bench.command(0, BUFFER), SUCCESS);
        assert_eq!(bench.response(BUFFER), b"\x80\x01\0\0\0\x0a\0\0\x01\x01");
        assert_eq!(bench.response(BUFFER), svsm_vtpm::Tpm::failure());
    }
}

#[test]
fn requests_that_make_no_sense_reach_no_tpm() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 1);
    let most = u32::try_from(MAX_COMMAND_BYTES).unwrap();
    for (command, locality, size, code) in [
        (0, 0, 3, INVALID_PARAMETER),
        (31, 0, 3, INVALID_PARAMETER),
        (u32::MAX, 0, 3, INVALID_PARAMETER),
        (1, 0, 3, UNSUPPORTED_CALL),
        (20, 0, 3, UNSUPPORTED_CALL),
        (8, 1, 3, INVALID_PARAMETER),
        (8, 0, most + 1, INVALID_PARAMETER),
        (8, 0, u32::MAX, INVALID_PARAMETER),
    ] {
        bench.request(BUFFER, command, locality, size, b"abc");
        assert_eq!(
            bench.command(0, BUFFER),
            code,
            "{command} {locality} {size}"
        );
    }
    for buffer in [
        0,
        AREAS[0],
        AREAS[1],
        AREAS[1] - 4,
        SVSM.start,
        GUEST.end - 1,
        u64::MAX,
    ] {
        assert_eq!(bench.command(0, buffer), INVALID_PARAMETER, "{buffer:#x}");
    }
    assert_eq!(bench.tpm.submitted, 0);
}

#[test]
fn the_longest_command_fits_and_may_cross_pages() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 1);
    let command = vec![0x5a; MAX_COMMAND_BYTES];
    for buffer in [BUFFER, BUFFER + 0x7fd] {
        bench.send(buffer, &command);
        assert_eq!(bench.command(0, buffer), SUCCESS);
        assert_eq!(bench.response(buffer)[1..], command[..]);
    }
}

#[test]
fn no_response_is_written_into_registers() {
    let mut slots = slots();
    let mut bench = Bench::new(&mut slots, 2);
    bench.send(BUFFER, b"abc");
    assert_eq!(bench.command(0, BUFFER), INCOMPLETE);
    // Meanwhile another processor makes the buffer a save area.
    bench.model.save_area(BUFFER, 2, 0x1000, FEATURES);
    assert_eq!(bench.core(2, BUFFER, 0x6000, 1), SUCCESS);
    let before = bench.model.bytes.clone();
    assert_eq!(bench.command(0, BUFFER), INVALID_PARAMETER);
    assert!(bench.model.bytes == before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A TPM that is asked without this crate reads requests by checks of its own (`svsm-vtpm` depends on none of ours): a guest
    /// must not see which of the two it has.
    #[test]
    fn the_tpm_of_ours_reads_requests_alike(
        platform in prop_oneof![4 => Just(8), 2 => 0..40_u32, 1 => any::<u32>()],
        locality in prop_oneof![4 => Just(0), 1 => any::<u8>()],
        size in prop_oneof![4 => 0..4200_u32, 1 => Just(4087), 1 => Just(4088), 1 => any::<u32>()],
    ) {
        let mut slots = slots();
        let mut bench = Bench::new(&mut slots, 1);
        let text: Vec<_> = (0..=u8::MAX).cycle().take(MAX_COMMAND_BYTES).collect();
        bench.request(BUFFER, platform, locality, size, &text);
        let at = usize::try_from(BUFFER).unwrap();
        let buffer: [u8; svsm_vtpm::protocol::BUFFER_BYTES] = bench.model.bytes[at..][..4096].try_into().unwrap();
        match svsm_vtpm::protocol::Request::read(&buffer) {
            Ok(request) => {
                prop_assert_eq!(bench.command(0, BUFFER), SUCCESS);
                prop_assert_eq!(&bench.response(BUFFER)[1..], request.command);
            }
            Err(refused) => {
                prop_assert_eq!(bench.command(0, BUFFER), u64::from(refused.code()));
                prop_assert_eq!(bench.tpm.submitted, 0);
            }
        }
    }

    #[test]
    fn every_command_is_answered_once_and_to_who_sent_it(
        pieces in 1..4_usize,
        calls in proptest::collection::vec((0..2_u32, 0..2_u64), 1..60),
    ) {
        let mut slots = slots();
        let mut bench = Bench::new(&mut slots, pieces);
        let buffer = |processor: u32, which: u64| BUFFER + u64::from(processor) * 0x4000 + which * 0x1000;
        let mut number = 0_u32;
        for processor in 0..2 {
            for which in 0..2 {
                bench.send(buffer(processor, which), &number.to_be_bytes());
            }
        }
        for (processor, which) in calls {
            let at = buffer(processor, which);
            match bench.command(processor, at) {
                SUCCESS => {
                    let sent = u32::from_be_bytes(bench.response(at)[1..].try_into().unwrap());
                    prop_assert!(sent <= number);
                    number += 1;
                    bench.send(at, &number.to_be_bytes());
                }
                INCOMPLETE | BUSY => {}
                code => prop_assert!(false, "code {:#x}", code),
            }
        }
        // Whoever goes on long enough is served.
        let mut served = [0; 2];
        for _ in 0..20 {
            for processor in [0, 1] {
                if bench.command(processor, buffer(processor, 0)) == SUCCESS {
                    served[usize::try_from(processor).unwrap()] += 1;
                    bench.send(buffer(processor, 0), &number.to_be_bytes());
                }
            }
        }
        prop_assert!(served[0] > 0 && served[1] > 0, "{:?}", served);
    }
}

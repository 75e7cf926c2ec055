//! The attestation protocol: what is signed, where it goes, and where it does not.

use crate::model::{GUEST, Map, Model, SMALL, SVSM, gpa};
use proptest::prelude::*;
use svsm_platform::irq::NoIrq;
use svsm_platform::level::Vmpl;
use svsm_protocol::attest::{
    Attestation, Attested, Evidence, Evidencer, Guid, NoReport, Scratch, Sha512,
};
use svsm_protocol::{Dispatcher, Protocol, Registers, Registry, Vcpu};

const SUCCESS: u64 = 0;
const UNSUPPORTED_PROTOCOL: u64 = 0x8000_0001;
const UNSUPPORTED_CALL: u64 = 0x8000_0002;
const INVALID_ADDRESS: u64 = 0x8000_0003;
const INVALID_PARAMETER: u64 = 0x8000_0005;
const INVALID_REQUEST: u64 = 0x8000_0006;
const BUSY: u64 = 0x8000_0007;

const OPERATION: u64 = 0x5000;
const NONCE: u64 = 0x5100;
const REPORT: u64 = 0x8000;
const MANIFEST: u64 = 0xa000;
const CERTIFICATES: u64 = 0xc000;
const SAVE_AREA: u64 = 0x2_0000;
const REPORT_BYTES: usize = 0x4a0;

/// A hash by which a test sees what went in: the number of bytes of each part, and the first of them.
struct Lengths;

impl Sha512 for Lengths {
    fn digest(&self, parts: [&[u8]; 2]) -> [u8; 64] {
        let mut digest = [0; 64];
        for (to, part) in digest.chunks_mut(32).zip(parts) {
            to[0] = u8::try_from(part.len()).unwrap();
            let shown = part.len().min(31);
            to[1..=shown].copy_from_slice(&part[..shown]);
        }
        digest
    }
}

/// A security processor whose report is the data it was asked to sign, and whose certificate is one word.
struct Signer {
    refusal: Option<NoReport>,
    asked: usize,
}

impl Evidencer for &mut Signer {
    fn evidence(
        &mut self,
        data: &[u8; 64],
        report: &mut [u8],
        certificates: Option<&mut [u8]>,
    ) -> Result<Evidence, NoReport> {
        self.asked += 1;
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        report[..64].copy_from_slice(data);
        let certificate_bytes = certificates.map_or(0, |certificates| {
            certificates[..4].copy_from_slice(b"cert");
            4
        });
        Ok(Evidence {
            report_bytes: REPORT_BYTES,
            certificate_bytes,
        })
    }
}

/// A service that says one word, in version 0 alone.
struct Word;

impl Attested for Word {
    fn guid(&self) -> Guid {
        Guid::VTPM
    }

    fn manifest(&self, version: u32, out: &mut [u8]) -> Option<usize> {
        (version == 0).then(|| out[..4].copy_from_slice(b"word"))?;
        Some(4)
    }
}

struct Ask {
    report: (u64, u32),
    nonce: (u64, u16),
    manifest: (u64, u32),
    certificates: (u64, u32),
    service: Option<(Guid, u32)>,
}

impl Ask {
    const fn services() -> Self {
        Self {
            report: (REPORT, 4096),
            nonce: (NONCE, 3),
            manifest: (MANIFEST, 4096),
            certificates: (CERTIFICATES, 4096),
            service: None,
        }
    }

    const fn single() -> Self {
        Self {
            service: Some((Guid::VTPM, 0)),
            ..Self::services()
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let buffer = |(at, bytes): (u64, u32)| {
            let (at, bytes) = (at.to_le_bytes(), bytes.to_le_bytes());
            [&at[..], &bytes, &[0; 4]].concat()
        };
        let mut wire = buffer(self.report);
        wire.extend(self.nonce.0.to_le_bytes());
        wire.extend(self.nonce.1.to_le_bytes());
        wire.extend([0; 6]);
        wire.extend(buffer(self.manifest));
        wire.extend(buffer(self.certificates));
        if let Some((guid, version)) = self.service {
            wire.extend(guid.0);
            wire.extend(version.to_le_bytes());
            wire.extend([0; 4]);
        }
        wire
    }
}

struct Bench {
    model: Model,
    signer: Signer,
}

impl Bench {
    fn new() -> Self {
        Self {
            model: Model::new(),
            signer: Signer {
                refusal: None,
                asked: 0,
            },
        }
    }

    fn ask(&mut self, ask: &Ask) -> Registers {
        self.model.put(NONCE, b"abc");
        self.model.put(OPERATION, &ask.bytes());
        self.call(u64::from(ask.service.is_some()), OPERATION)
    }

    fn call(&mut self, call: u64, rcx: u64) -> Registers {
        let mut slots = [None; 2];
        let registry = Registry::new(&mut slots, &[0], 1, NoIrq);
        let first = Vcpu {
            processor: 0,
            level: Vmpl::Vmpl2,
            save_area: gpa(SAVE_AREA),
            calling_area: gpa(0x3000),
            is_first: true,
        };
        registry.add_first(first).unwrap();
        let (mut manifest, mut report, mut certificates) = ([0; 4096], [0; 4096], [0; 4096]);
        let mut protocol = Attestation::new(
            &registry,
            (&Map, &mut self.model),
            (&mut self.signer, Lengths),
            &[&Word],
            Scratch {
                manifest: &mut manifest,
                report: &mut report,
                certificates: &mut certificates,
            },
        );
        let mut registers = Registers {
            rax: 1 << 32 | call,
            rcx,
            rdx: 5,
            r8: 6,
            r9: 7,
        };
        Dispatcher::new([&mut protocol as &mut dyn Protocol])
            .unwrap()
            .dispatch(&mut registers);
        registers
    }

    fn at(&self, at: u64, len: usize) -> &[u8] {
        let at = usize::try_from(at).unwrap();
        &self.model.bytes[at..at + len]
    }
}

#[test]
fn the_report_covers_nonce_and_manifest() {
    let mut bench = Bench::new();
    let answer = bench.ask(&Ask::services());
    let manifest_bytes = 24 + 24 + 4;
    assert_eq!(
        (answer.rax, answer.rcx, answer.rdx, answer.r8),
        (SUCCESS, manifest_bytes, 4, REPORT_BYTES as u64)
    );
    let manifest = bench.at(MANIFEST, 52);
    assert_eq!(&manifest[48..], b"word");
    let signed = bench.at(REPORT, 64);
    assert_eq!(signed[..4], [3, b'a', b'b', b'c']);
    assert_eq!(signed[32], 52);
    assert_eq!(signed[33..], manifest[..31]);
    assert_eq!(bench.at(CERTIFICATES, 4), b"cert");
}

#[test]
fn one_service_speaks_for_itself() {
    let mut bench = Bench::new();
    let answer = bench.ask(&Ask::single());
    assert_eq!((answer.rax, answer.rcx), (SUCCESS, 4));
    assert_eq!(bench.at(MANIFEST, 4), b"word");
    let unknown = Ask {
        service: Some((Guid([9; 16]), 0)),
        ..Ask::services()
    };
    assert_eq!(bench.ask(&unknown).rax, UNSUPPORTED_PROTOCOL);
    let newer = Ask {
        service: Some((Guid::VTPM, 1)),
        ..Ask::services()
    };
    assert_eq!(bench.ask(&newer).rax, INVALID_PARAMETER);
    assert_eq!(bench.call(2, OPERATION).rax, UNSUPPORTED_CALL);
}

#[test]
fn buffers_that_are_too_small_are_told_their_size_and_left_alone() {
    for (report, manifest, certificates, asked) in [
        (0x49f, 4096, 4096, 0),
        (4096, 51, 4096, 0),
        (4096, 4096, 3, 1),
    ] {
        let mut bench = Bench::new();
        let before = bench.model.bytes.clone();
        let answer = bench.ask(&Ask {
            report: (REPORT, report),
            manifest: (MANIFEST, manifest),
            certificates: (CERTIFICATES, certificates),
            ..Ask::services()
        });
        assert_eq!(answer.rax, INVALID_PARAMETER);
        assert_eq!((answer.rcx, answer.r8), (52, REPORT_BYTES as u64));
        assert_eq!(bench.signer.asked, asked);
        let buffers = 0x8000..0xd000;
        assert!(bench.model.bytes[buffers.clone()] == before[buffers]);
    }
}

#[test]
fn without_a_buffer_for_them_certificates_are_not_asked_for() {
    let mut bench = Bench::new();
    let answer = bench.ask(&Ask {
        certificates: (0, 0),
        ..Ask::services()
    });
    assert_eq!((answer.rax, answer.rdx), (SUCCESS, 0));
}

#[test]
fn a_security_processor_that_refuses_is_named() {
    for (refusal, code) in [(NoReport::Busy, BUSY), (NoReport::Refused, INVALID_REQUEST)] {
        let mut bench = Bench::new();
        bench.signer.refusal = Some(refusal);
        let answer = bench.ask(&Ask::services());
        assert_eq!((answer.rax, answer.rcx, answer.rdx), (code, OPERATION, 5));
    }
}

#[test]
fn nothing_is_written_where_the_guest_may_not() {
    for at in [SVSM.start, SAVE_AREA, GUEST.end, SAVE_AREA - SMALL, 1 << 60] {
        let two_pages = 0x1001;
        for ask in [
            Ask {
                report: (at, two_pages),
                ..Ask::services()
            },
            Ask {
                manifest: (at, two_pages),
                ..Ask::services()
            },
            Ask {
                certificates: (at, two_pages),
                ..Ask::services()
            },
            Ask {
                nonce: (at, 4096),
                ..Ask::services()
            },
        ] {
            let mut bench = Bench::new();
            // One page before the save area is the guest's, and enough for a nonce.
            if ask.nonce.0 == SAVE_AREA - SMALL {
                continue;
            }
            assert_eq!(bench.ask(&ask).rax, INVALID_ADDRESS, "{at:#x}");
            assert_eq!(bench.signer.asked, 0);
        }
    }
}

#[test]
fn structures_that_make_no_sense_are_refused() {
    let mut bench = Bench::new();
    for ask in [
        Ask {
            nonce: (NONCE, 0),
            ..Ask::services()
        },
        Ask {
            nonce: (NONCE, 4096),
            ..Ask::services()
        },
        Ask {
            report: (REPORT + 8, 4096),
            ..Ask::services()
        },
    ] {
        assert_eq!(bench.ask(&ask).rax, INVALID_PARAMETER);
    }
    let whole = Ask::single().bytes();
    // Reserved bytes: after the nonce's size, after the size of each buffer, and after the service's version.
    for reserved in [0xc, 0x1a, 0x1f, 0x2c, 0x3c, 0x54] {
        let mut bytes = whole.clone();
        bytes[reserved] = 1;
        bench.model.put(OPERATION, &bytes);
        assert_eq!(
            bench.call(1, OPERATION).rax,
            INVALID_PARAMETER,
            "{reserved:#x}"
        );
    }
    bench.model.put(OPERATION, &whole);
    for at in [OPERATION + 4, 0x5fc8] {
        assert_eq!(bench.call(1, at).rax, INVALID_PARAMETER);
    }
    for at in [SVSM.start, SAVE_AREA] {
        assert_eq!(bench.call(1, at).rax, INVALID_ADDRESS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_asked_for_the_svsm_and_registers_stay_as_they_are(
        places in proptest::array::uniform4(prop_oneof![0..SVSM.end, any::<u64>(), Just(SAVE_AREA), Just(REPORT)]),
        sizes in proptest::array::uniform3(prop_oneof![0..0x3000_u32, any::<u32>()]),
        nonce: u16,
        single: bool,
    ) {
        let mut bench = Bench::new();
        let range = |range: core::ops::Range<u64>| {
            usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
        };
        let kept = [range(SVSM), range(SAVE_AREA..SAVE_AREA + SMALL)];
        let before = kept.clone().map(|range| bench.model.bytes[range].to_vec());
        bench.ask(&Ask {
            report: (places[0], sizes[0]),
            nonce: (places[3], nonce),
            manifest: (places[1], sizes[1]),
            certificates: (places[2], sizes[2]),
            service: single.then_some((Guid::VTPM, 0)),
        });
        for (range, before) in kept.into_iter().zip(before) {
            prop_assert!(bench.model.bytes[range] == before[..]);
        }
    }
}

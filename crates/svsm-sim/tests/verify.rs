//! Reports that hold, and every way in which they do not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use p384::ecdsa::SigningKey;
use proptest::prelude::*;
use svsm_sim::cpuid::Registers;
use svsm_sim::curve::WireSignature;
use svsm_sim::endorsement::{Endorsement, root_certificate};
use svsm_sim::launch::{Chip, Guest, PlatformInfo, Policy, Start, Tcb};
use svsm_sim::processor::{Header, MessageType, SecurityProcessor};
use svsm_sim::report::{Report, ReportVersion};
use svsm_sim::secrets::Vmpck;
use svsm_sim::verify::{Chain, Expected, Link, Reason, Unusable, verify};
use svsm_sim::vmsa::TweakBitmap;
use zerocopy::{FromBytes, IntoBytes};

const TCB: Tcb = Tcb {
    boot_loader: 3,
    tee: 0,
    snp: 8,
    microcode: 215,
};

fn chip(id: u8) -> Chip<fn(u32, u32) -> Registers> {
    Chip {
        host: |_, _| Registers {
            eax: 0x00a0_0f11,
            ..Registers::default()
        },
        abi: (1, 55),
        build: 7,
        mitigations: 0,
        info: PlatformInfo::SMT,
        vmsa_tweak_bitmap: TweakBitmap::REGISTERS,
        tsc_khz: 2_000_000,
        tsc_factor: 200,
        tcb: TCB,
        id: [id; 64],
    }
}

/// A report as a guest of a machine gets it, and what the host hands out with it.
fn evidence(policy: Policy) -> (Report, Vec<u8>) {
    let chip = chip(0xc1);
    let endorsement = Endorsement::new(&chip);
    let mut guest = Guest::new();
    let start = Start {
        asid: 1,
        policy,
        gosvw: [0; 16],
        tsc_khz: 0,
    };
    guest
        .launch_start(&chip, &start, &mut |bytes: &mut [u8]| bytes.fill(9))
        .unwrap();
    guest.launch_finish(None, [0xda; 32], false).unwrap();
    let mut question = [0xdd; 0x60];
    question[0x40..].fill(0);
    question[0x40] = 1;
    let mut header = Header::new(MessageType::ReportRequest.number(), 1, 1, 0, 0x60);
    header.seal(&Vmpck([9; 32]), &mut question).unwrap();
    let (mut request, mut response) = ([0; 4096], [0; 4096]);
    request[..0x60].copy_from_slice(header.as_bytes());
    request[0x60..0xc0].copy_from_slice(&question);
    let processor = SecurityProcessor {
        chip: &chip,
        endorsement: &endorsement,
        report_version: ReportVersion::V3,
    };
    guest.answer(&processor, &request, &mut response).unwrap();
    let (header, rest) = Header::read_from_prefix(&response).unwrap();
    let mut body = rest[..0x4c0].to_vec();
    header.open(&Vmpck([9; 32]), &mut body).unwrap();
    let mut table = vec![0; 4096];
    endorsement.certificate_table(&mut table).unwrap();
    (Report::read_from_bytes(&body[0x20..]).unwrap(), table)
}

/// Says the same, changed, with a signature that fits.
fn resigned(mut report: Report, change: impl FnOnce(&mut Report)) -> Report {
    change(&mut report);
    let endorsement = Endorsement::new(&chip(0xc1));
    report.signature = WireSignature::sign(endorsement.vcek(), report.signed_part());
    report
}

fn judge(report: &Report, table: &[u8], expected: &Expected) -> Result<(), Reason> {
    let chain = Chain::from_table(table)?;
    verify(
        report.as_bytes(),
        &chain,
        root_certificate().der(),
        expected,
    )
    .map(|_| ())
}

#[test]
fn an_honest_report_holds() {
    let (report, table) = evidence(Policy::DEFAULT);
    let expected = Expected {
        measurement: Some([0; 48]),
        report_data: Some([0xdd; 64]),
        host_data: Some([0xda; 32]),
        vmpl: Some(1),
        least_tcb: Some(Tcb { snp: 7, ..TCB }),
        debug: false,
    };
    assert_eq!(judge(&report, &table, &expected), Ok(()));
    assert_eq!(judge(&report, &table, &Expected::ANY), Ok(()));
}

#[test]
fn what_the_reader_expects_must_be_there() {
    let (report, table) = evidence(Policy::DEFAULT);
    let any = Expected::ANY;
    let cases = [
        (
            Expected {
                measurement: Some([1; 48]),
                ..any
            },
            Reason::Measurement,
        ),
        (
            Expected {
                report_data: Some([0; 64]),
                ..any
            },
            Reason::ReportData,
        ),
        (
            Expected {
                host_data: Some([0; 32]),
                ..any
            },
            Reason::HostData,
        ),
        (
            Expected {
                vmpl: Some(0),
                ..any
            },
            Reason::Vmpl(1),
        ),
        (
            Expected {
                least_tcb: Some(Tcb {
                    microcode: 216,
                    ..TCB
                }),
                ..any
            },
            Reason::OldTcb,
        ),
    ];
    for (expected, reason) in cases {
        assert_eq!(judge(&report, &table, &expected), Err(reason));
    }
}

#[test]
fn a_guest_that_the_host_may_debug_is_nobody_s_secret_keeper() {
    let (report, table) = evidence(Policy::DEFAULT | Policy::DEBUG);
    assert_eq!(judge(&report, &table, &Expected::ANY), Err(Reason::Debug));
    let tolerant = Expected {
        debug: true,
        ..Expected::ANY
    };
    assert_eq!(judge(&report, &table, &tolerant), Ok(()));
}

#[test]
fn the_form_of_a_report_is_checked_before_anything_else() {
    let (report, table) = evidence(Policy::DEFAULT);
    let judge =
        |change: fn(&mut Report)| judge(&resigned(report.clone(), change), &table, &Expected::ANY);
    assert_eq!(judge(|_| ()), Ok(()));
    assert_eq!(
        judge(|report| report.version = 1.into()),
        Err(Reason::Version(1))
    );
    assert_eq!(
        judge(|report| report.version = 6.into()),
        Err(Reason::Version(6))
    );
    assert_eq!(
        judge(|report| report.signature_algorithm = 2.into()),
        Err(Reason::SignatureAlgorithm(2))
    );
    assert_eq!(
        judge(|report| report.flags = (1 << 2).into()),
        Err(Reason::SigningKey(1))
    );
    assert_eq!(
        judge(|report| report.cpuid_family = 0x1a),
        Err(Reason::TcbLayout(0x1a))
    );
    assert_eq!(
        judge(|report| report.reported_tcb = (1 << 24).into()),
        Err(Reason::TcbLayout(0x19))
    );
    assert_eq!(
        judge(|report| report.reported_tcb = 0.into()),
        Err(Reason::CertificateTcb)
    );
    assert_eq!(
        judge(|report| report.chip_id = [0; 64]),
        Err(Reason::ChipId)
    );
    assert_eq!(
        judge(|report| report.policy = 0.into()),
        Err(Reason::Policy)
    );
    let chain = Chain::from_table(&table).unwrap();
    let short = verify(
        &report.as_bytes()[1..],
        &chain,
        root_certificate().der(),
        &Expected::ANY,
    );
    assert_eq!(short.unwrap_err(), Reason::Length);
}

#[test]
fn chains_that_do_not_lead_to_the_root_are_refused() {
    let (report, table) = evidence(Policy::DEFAULT);
    let chain = Chain::from_table(&table).unwrap();
    let root = root_certificate();
    let judge = |chain: Chain<'_>, root: &[u8]| {
        verify(report.as_bytes(), &chain, root, &Expected::ANY)
            .map(|_| ())
            .unwrap_err()
    };
    // A leaf is no root, and no authority.
    assert_eq!(judge(chain, chain.vcek), Reason::Chain(Link::Ark));
    assert_eq!(judge(chain, chain.ask), Reason::Chain(Link::Ark));
    assert_eq!(
        judge(
            Chain {
                ask: chain.vcek,
                ..chain
            },
            root.der()
        ),
        Reason::Chain(Link::Ask)
    );
    assert_eq!(
        judge(
            Chain {
                ask: root.der(),
                ..chain
            },
            root.der()
        ),
        Reason::Chain(Link::Vcek)
    );
    let other = Endorsement::new(&chip(0xc2)).vcek_certificate();
    assert_eq!(
        judge(
            Chain {
                vcek: other.der(),
                ..chain
            },
            root.der()
        ),
        Reason::ChipId
    );
    let malformed = Reason::Certificate(Link::Ask, Unusable::Malformed);
    assert_eq!(
        judge(
            Chain {
                ask: &chain.ask[..40],
                ..chain
            },
            root.der()
        ),
        malformed
    );
    // Signed by other means, as AMD's own are: sha384WithRSA in place of ecdsa-with-SHA384 would be longer, SHA-256 is not.
    let mut means = chain.ask.to_vec();
    let sha384 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
    for at in 0..means.len() - 8 {
        if means[at..at + 8] == sha384 {
            means[at + 7] = 2;
        }
    }
    let algorithm = Reason::Certificate(Link::Ask, Unusable::Algorithm);
    assert_eq!(
        judge(
            Chain {
                ask: &means,
                ..chain
            },
            root.der()
        ),
        algorithm
    );
}

#[test]
fn a_signature_by_another_key_is_wrong() {
    let (mut report, table) = evidence(Policy::DEFAULT);
    let key = SigningKey::from_slice(&[3; 48]).unwrap();
    report.signature = WireSignature::sign(&key, report.signed_part());
    assert_eq!(
        judge(&report, &table, &Expected::ANY),
        Err(Reason::Signature)
    );
}

#[test]
fn tables_that_lie_are_refused() {
    let (_, table) = evidence(Policy::DEFAULT);
    assert_eq!(Chain::from_table(&[]), Err(Reason::Table));
    assert_eq!(
        Chain::from_table(&[0; 24]),
        Err(Reason::Missing(Link::Vcek))
    );
    assert_eq!(Chain::from_table(&table[..48]), Err(Reason::Table));
    let mut beyond = table.clone();
    beyond[20..24].fill(0xff);
    assert_eq!(Chain::from_table(&beyond), Err(Reason::Table));
    let mut unknown = table.clone();
    unknown[24] ^= 1;
    assert_eq!(Chain::from_table(&unknown), Err(Reason::Missing(Link::Ask)));
}

#[test]
fn every_byte_counts() {
    let (report, table) = evidence(Policy::DEFAULT);
    let chain = Chain::from_table(&table).unwrap();
    let root = root_certificate();
    let judge = |report: &[u8], vcek: &[u8], ask: &[u8]| {
        verify(report, &Chain { vcek, ask }, root.der(), &Expected::ANY).is_ok()
    };
    // Behind R and S of a report there is nothing that is signed.
    let report = report.as_bytes();
    let (signed, rest) = report.split_at(0x330);
    assert!(judge(report, chain.vcek, chain.ask));
    let changed = |whole: &[u8], at: usize| {
        let mut copy = whole.to_vec();
        copy[at] ^= 1 << (at % 8);
        copy
    };
    // Each byte of the signatures, where numbers have more than one encoding to try, and some of the others.
    for at in (0..0x2a0).step_by(29).chain((0x2a0..0x330).step_by(3)) {
        let report = [changed(signed, at), rest.to_vec()].concat();
        assert!(!judge(&report, chain.vcek, chain.ask), "report {at:#x}");
    }
    for at in (0..chain.vcek.len())
        .step_by(11)
        .chain(chain.vcek.len() - 104..chain.vcek.len())
    {
        assert!(
            !judge(report, &changed(chain.vcek, at), chain.ask),
            "VCEK {at:#x}"
        );
    }
    for at in (0..chain.ask.len()).step_by(11) {
        assert!(
            !judge(report, chain.vcek, &changed(chain.ask, at)),
            "ASK {at:#x}"
        );
    }
}

proptest! {
    /// Nothing that anybody writes makes the reader stumble.
    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..0x500)) {
        let chain = Chain { vcek: &noise, ask: &noise };
        prop_assert!(verify(&noise, &chain, &noise, &Expected::ANY).is_err());
        prop_assert!(Chain::from_table(&noise).is_err());
    }
}

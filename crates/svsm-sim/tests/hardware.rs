//! A report that real hardware made reads and verifies like one of ours.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use p384::ecdsa::VerifyingKey;
use svsm_sim::endorsement::root_certificate;
use svsm_sim::launch::{Policy, Tcb};
use svsm_sim::report::Report;
use svsm_sim::verify::{Chain, Expected, Link, Reason, Unusable, verify};
use zerocopy::{FromBytes, IntoBytes};

const VCEK: &[u8] = include_bytes!("data/vcek-milan.der");

fn report() -> Report {
    let text = include_str!("data/report-milan.hex").trim();
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
    Report::read_from_bytes(&bytes).unwrap()
}

/// The key is the one point of the curve in the certificate: a string of 97 bytes, not compressed.
fn key() -> VerifyingKey {
    let start = VCEK
        .windows(4)
        .position(|bytes| bytes == [0x03, 0x62, 0x00, 0x04])
        .unwrap();
    VerifyingKey::from_sec1_bytes(VCEK.get(start + 3..start + 100).unwrap()).unwrap()
}

#[test]
fn the_fields_of_a_real_report_are_where_we_look_for_them() {
    let report = report();
    assert_eq!(
        (
            report.version.get(),
            report.signature_algorithm.get(),
            report.signing_key()
        ),
        (2, 1, 0)
    );
    assert!(Policy::from_bits_retain(report.policy.get()).contains(Policy::RESERVED_ONE));
    assert!(Tcb::from_u64(report.reported_tcb.get()).is_some());
    assert_eq!(report.report_id_ma, [0xff; 32]);
    assert_eq!(report.signature.reserved, [0; 368]);
    // The certificate has the name of the chip in it, as it is.
    assert!(VCEK.windows(64).any(|bytes| bytes == report.chip_id));
}

#[test]
fn the_signature_of_a_real_report_holds() {
    let (mut report, key) = (report(), key());
    assert!(report.signature.verifies(&key, report.signed_part()));
    report.report_data = [0x5a; 64];
    assert!(!report.signature.verifies(&key, report.signed_part()));
}

#[test]
fn a_chain_with_rsa_in_it_ends_with_a_reason() {
    let root = root_certificate();
    let chain = Chain {
        vcek: VCEK,
        ask: root.der(),
    };
    let refused = verify(report().as_bytes(), &chain, root.der(), &Expected::ANY).unwrap_err();
    assert_eq!(
        refused,
        Reason::Certificate(Link::Vcek, Unusable::Algorithm)
    );
}

//! A report that real hardware made reads and verifies like one of ours.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use p384::ecdsa::VerifyingKey;
use svsm_sim::endorsement::root_certificate;
use svsm_sim::launch::{Policy, Tcb};
use svsm_sim::report::Report;
use svsm_sim::verify::{Chain, Expected, Link, Reason, Unusable, verify};
use zerocopy::{FromBytes, IntoBytes};

const VCEK: &[u8] = include_bytes!("data/vcek-milan.der");
const ASK: &[u8] = include_bytes!("data/ask-milan.der");
const ARK: &[u8] = include_bytes!("data/ark-milan.der");

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
fn a_real_report_is_believed_for_the_sake_of_its_maker() {
    let chain = Chain {
        vcek: VCEK,
        ask: ASK,
    };
    let believed = verify(report().as_bytes(), &chain, ARK, &Expected::ANY);
    assert_eq!(believed.as_ref().map(|report| report.vmpl.get()), Ok(0));
    assert_eq!(believed.unwrap(), report());
    let mut forged = report();
    forged.measurement[0] ^= 1;
    let refused = verify(forged.as_bytes(), &chain, ARK, &Expected::ANY);
    assert_eq!(refused.unwrap_err(), Reason::Signature);
}

/// Every part of each certificate that is signed or signs.
#[test]
fn real_certificates_with_another_bit_are_refused() {
    for (link, whole) in [(Link::Vcek, VCEK), (Link::Ask, ASK), (Link::Ark, ARK)] {
        // The end of the certificate is in its signature, its middle is in what is signed.
        for at in [whole.len() - 1, whole.len() - 500, whole.len() / 3] {
            let mut other = whole.to_vec();
            *other.get_mut(at).unwrap() ^= 1;
            let pick = |which: Link, real| if which == link { &*other } else { real };
            let chain = Chain {
                vcek: pick(Link::Vcek, VCEK),
                ask: pick(Link::Ask, ASK),
            };
            let root = pick(Link::Ark, ARK);
            let refused = verify(report().as_bytes(), &chain, root, &Expected::ANY);
            assert!(
                matches!(refused, Err(Reason::Chain(_) | Reason::Certificate(..))),
                "{link} {at}: {refused:?}"
            );
        }
    }
}

#[test]
fn a_real_chain_does_not_lead_to_another_root() {
    let root = root_certificate();
    let refused = |ask, root| {
        let chain = Chain { vcek: VCEK, ask };
        verify(report().as_bytes(), &chain, root, &Expected::ANY).unwrap_err()
    };
    assert_eq!(refused(ASK, root.der()), Reason::Chain(Link::Ask));
    assert_eq!(refused(root.der(), root.der()), Reason::Chain(Link::Vcek));
    assert_eq!(refused(ARK, ARK), Reason::Chain(Link::Vcek));
    // The chip's key signs reports and no certificates.
    assert_eq!(refused(VCEK, ARK), Reason::Chain(Link::Ask));
    assert_eq!(refused(ASK, VCEK), Reason::Chain(Link::Ark));
    assert_eq!(
        refused(&ASK[..700], ARK),
        Reason::Certificate(Link::Ask, Unusable::Malformed)
    );
}

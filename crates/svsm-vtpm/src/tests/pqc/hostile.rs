//! Commands that were cut, lengthened and changed.

use std::{vec, vec::Vec};

use super::{
    super::bench::{Bench, OWNER},
    NULL, creation, dsa, field, hash_dsa, kem, public_of, sized, started,
};
use crate::Rc;

/// A command that succeeds as long as nothing ran: code, handles, how many of them are authorized, parameters.
type Sample = (u16, Vec<u32>, usize, Vec<u8>);

fn run(bench: &mut Bench, sample: &Sample, params: &[u8]) -> (Rc, Vec<u8>) {
    let (code, handles, auths, _) = sample;
    bench.run(*code, handles, &vec![&b""[..]; *auths], params)
}

fn handle(response: &[u8]) -> u32 {
    u32::from_be_bytes(response[..4].try_into().unwrap())
}

/// Commands with ML-KEM.
fn of_kem(bench: &mut Bench) -> Vec<Sample> {
    let (key, response) = bench.create_primary(OWNER, &kem(1));
    let public = sized(public_of(&response));
    let encapsulated = bench.ok(0x1A7, &[key], &[]);
    let mut rest = &encapsulated[..];
    let ciphertext = {
        field(&mut rest);
        sized(field(&mut rest))
    };
    let external = [&[0, 0], &public[..], &NULL.to_be_bytes()].concat();
    vec![
        (0x1A7, vec![key], 0, vec![]),
        (0x1A8, vec![key], 1, ciphertext),
        (0x167, vec![], 0, external),
        (0x131, vec![OWNER], 1, creation(&kem(1))),
    ]
}

/// Commands with ML-DSA that take what was hashed elsewhere, and those that start sequences.
fn of_dsa(bench: &mut Bench, template: &[u8], digest_len: usize) -> Vec<Sample> {
    let (key, response) = bench.create_primary(OWNER, template);
    let public = sized(public_of(&response));
    let digest = sized(&vec![7; digest_len]);
    let ticket = [&[0x80, 0x24][..], &NULL.to_be_bytes(), &[0, 0]].concat();
    let signing = [&sized(b"")[..], &digest, &ticket].concat();
    let (rc, response) = bench.run(0x1A6, &[key], &[b""], &signing);
    assert_eq!(rc, Rc::SUCCESS);
    let signature = &response[4..response.len() - 5];
    let verifying = [&sized(b"")[..], &digest, signature].concat();
    let external = [&[0, 0], &public[..], &NULL.to_be_bytes()].concat();
    vec![
        (0x1A6, vec![key], 1, signing),
        (0x1A5, vec![key], 0, verifying),
        (0x1AA, vec![key], 0, [sized(b""), sized(b"of")].concat()),
        (
            0x1A9,
            vec![key],
            0,
            [sized(b""), sized(b""), sized(b"of")].concat(),
        ),
        (0x167, vec![], 0, external),
        (0x131, vec![OWNER], 1, creation(template)),
    ]
}

/// Commands that end sequences.
fn of_sequences(bench: &mut Bench) -> Vec<Sample> {
    let (key, _) = bench.create_primary(OWNER, &dsa(1, 0));
    let start = [sized(b""), sized(b"")].concat();
    let signing = handle(&bench.ok(0x1AA, &[key], &start));
    let (_, response) = bench.run(0x1A4, &[signing, key], &[b"", b""], &sized(b"message"));
    let signature = response[4..response.len() - 10].to_vec();
    let signing = handle(&bench.ok(0x1AA, &[key], &start));
    let start = [&start[..], &sized(b"")].concat();
    let verifying = handle(&bench.ok(0x1A9, &[key], &start));
    bench.ok_auth(0x15C, &[verifying], &sized(b"message"));
    vec![
        (0x1A4, vec![signing, key], 2, sized(b"message")),
        (0x1A3, vec![verifying, key], 1, signature),
    ]
}

/// Drops what a command that succeeded left in the TPM.
fn tidy(bench: &mut Bench, code: u16, response: &[u8]) {
    if matches!(code, 0x167 | 0x131 | 0x1A9 | 0x1AA) {
        bench.ok(0x165, &[], &response[..4]);
    }
}

/// Every sample is refused if it is cut or too long, and no change of a byte stops the TPM; at last the sample still succeeds.
fn torture(bench: &mut Bench, samples: &[Sample]) {
    let mut state = 1_u32;
    for sample in samples {
        let (code, _, _, params) = sample;
        let step = params.len() / 100 + 1;
        for len in (0..params.len()).step_by(step) {
            let (rc, _) = run(bench, sample, &params[..len]);
            assert_ne!(rc, Rc::SUCCESS, "{code:#X} cut to {len}");
        }
        let (rc, _) = run(bench, sample, &[params, &[0][..]].concat());
        assert_eq!(rc, Rc::SIZE, "{code:#X}");
        // What was signed is over, whatever it was.
        let repeatable = *code != 0x1A4;
        for at in (0..params.len()).step_by(step).filter(|_| repeatable) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut changed = params.clone();
            changed[at] ^= 1 << (state >> 29);
            let (rc, response) = run(bench, sample, &changed);
            assert_ne!(rc, Rc::FAILURE, "{code:#X} changed at {at}");
            if rc == Rc::SUCCESS {
                tidy(bench, *code, &response);
            }
        }
        let (rc, response) = run(bench, sample, params);
        assert_eq!(rc, Rc::SUCCESS, "{code:#X}");
        tidy(bench, *code, &response);
    }
}

#[test]
fn cut_and_changed_commands_are_answered() {
    let mut bench = started();
    let samples = of_kem(&mut bench);
    torture(&mut bench, &samples);
    for (template, len) in [(dsa(1, 1), 64), (hash_dsa(1, 0x0B), 32)] {
        let mut bench = started();
        let samples = of_dsa(&mut bench, &template, len);
        torture(&mut bench, &samples);
    }
    let mut bench = started();
    let samples = of_sequences(&mut bench);
    torture(&mut bench, &samples);
}

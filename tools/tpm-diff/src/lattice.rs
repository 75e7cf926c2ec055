//! Commands with post-quantum keys: ML-KEM and ML-DSA of all sizes, made, used and loaded, so that a storm has some to damage.

use crate::{
    generate::{plain, sized},
    rng::Rng,
};

/// Objects, of which the first is the likeliest key, and sequences, which come after it.
const KEYS: [u32; 6] = [
    0x8000_0000,
    0x8000_0000,
    0x8000_0000,
    0x8000_0001,
    0x8000_0002,
    0x8100_0001,
];
const SEQUENCES: [u32; 5] = [
    0x8000_0002,
    0x8000_0002,
    0x8000_0001,
    0x8000_0001,
    0x8000_0000,
];
/// Bytes of the ciphertexts of ML-KEM; more often those of the set that there is more often.
const CIPHERTEXTS: [usize; 5] = [768, 768, 768, 1088, 1568];
/// Bytes of the signatures of ML-DSA.
const SIGNATURES: [usize; 3] = [2420, 3309, 4627];
const PUBLIC_KEYS: [usize; 6] = [800, 1184, 1568, 1312, 1952, 2592];
/// `TPM_ALG_MLDSA` and `TPM_ALG_HASH_MLDSA` with SHA-256.
const SCHEMES: [&[u8]; 2] = [&[0, 0xA1], &[0, 0xA2, 0, 0x0B]];

/// A whole command, with any object for its key.
pub(crate) fn command(rng: &mut Rng) -> Vec<u8> {
    let key = rng.pick(&KEYS);
    let sequence = rng.pick(&SEQUENCES);
    let context = some(rng, &[0, 0, 0, 1, 2, 255, 256]);
    let data = some(rng, &[0, 4, 32, 64, 1024]);
    let digest = some(rng, &[32, 32, 48, 64]);
    match rng.below(13) {
        0..=2 => {
            let params = [
                &[0, 4, 0, 0, 0, 0],
                &sized(&template(rng, &[]))[..],
                &[0; 6],
            ]
            .concat();
            let hierarchy = rng.pick(&[0x4000_0001, 0x4000_0007, 0x4000_000B]);
            plain(0x131, &[hierarchy], 1, &params)
        }
        3 => {
            let unique = some(rng, &PUBLIC_KEYS);
            let public = sized(&template(rng, &unique));
            plain(
                0x167,
                &[],
                0,
                &[&[0, 0], &public[..], &[0x40, 0, 0, 7]].concat(),
            )
        }
        4 => plain(0x1A7, &[key], 0, &[]),
        5 => plain(0x1A8, &[key], 1, &sized(&some(rng, &CIPHERTEXTS))),
        6 => plain(0x1AA, &[key], 0, &[&[0, 0], &sized(&context)[..]].concat()),
        7 => plain(0x1A9, &[key], 0, &[&[0; 4], &sized(&context)[..]].concat()),
        8 => plain(0x15C, &[sequence], 1, &sized(&data)),
        9 => plain(0x1A4, &[sequence, key], 2, &sized(&data)),
        10 => plain(0x1A3, &[sequence, key], 1, &signature(rng)),
        11 => {
            // No ticket.
            let ticket = [0x80, 0x24, 0x40, 0, 0, 7, 0, 0];
            let params = [&sized(&context)[..], &sized(&digest), &ticket].concat();
            plain(0x1A6, &[key], 1, &params)
        }
        _ => {
            let params = [sized(&context), sized(&digest), signature(rng)].concat();
            plain(0x1A5, &[key], 0, &params)
        }
    }
}

/// A public area with this public key.
fn template(rng: &mut Rng, unique: &[u8]) -> Vec<u8> {
    let set = rng.pick(&[0, 1, 1, 2, 3, 4]);
    let (alg, used_for, params): (u8, u8, Vec<u8>) = match rng.below(4) {
        0 => (0xA0, 2, vec![0, 0x10, 0, set]),
        1 => (0xA0, 3, vec![0, 6, 0, 128, 0, 0x43, 0, set]),
        2 => (0xA1, 4, vec![0, set, rng.pick(&[0, 1])]),
        _ => (0xA2, 4, vec![0, set, 0, 0x0B]),
    };
    // Who is loaded from outside is not fixed.
    let fixed = if unique.is_empty() { 0x72 } else { 0x40 };
    let head = [0, alg, 0, 0x0B, 0, used_for, 0, fixed, 0, 0];
    [&head, &params[..], &sized(unique)].concat()
}

fn signature(rng: &mut Rng) -> Vec<u8> {
    let scheme = rng.pick(&SCHEMES);
    [scheme, &sized(&some(rng, &SIGNATURES))].concat()
}

/// Noise, as long as one of these.
fn some(rng: &mut Rng, lengths: &[usize]) -> Vec<u8> {
    let len = rng.pick(lengths);
    (0..len).map(|_| rng.next().to_be_bytes()[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compare::code_of, generate, ours::Ours};

    #[test]
    fn each_command_succeeds_now_and_then_if_it_can() {
        let run = || {
            let mut ours = Ours::reproducible().unwrap();
            ours.begin(1).unwrap();
            for command in generate::preamble() {
                ours.execute_from(0, &command).unwrap();
            }
            let mut rng = Rng::new(1);
            let mut done = std::collections::BTreeSet::new();
            for n in 0..4000 {
                let command = command(&mut rng);
                let code = u16::from_be_bytes([command[8], command[9]]);
                if code_of(ours.execute_from(0, &command).unwrap()) == 0 {
                    done.insert(code);
                }
                // Room for others.
                let flushed = rng.pick(&SEQUENCES).to_be_bytes();
                if n % 3 == 0 {
                    ours.execute_from(0, &plain(0x165, &[], 0, &flushed))
                        .unwrap();
                }
            }
            done
        };
        let thread = std::thread::Builder::new().stack_size(16 << 20);
        let done = thread.spawn(run).unwrap().join().unwrap();
        // All but what fits together too seldom, a sequence and its own key, and what noise cannot pass for, signatures.
        let wanted = [0x131, 0x167, 0x1A7, 0x1A8, 0x1AA, 0x1A9, 0x15C, 0x1A6];
        let missing: Vec<_> = wanted.iter().filter(|code| !done.contains(code)).collect();
        assert!(missing.is_empty(), "{missing:#x?}");
    }
}

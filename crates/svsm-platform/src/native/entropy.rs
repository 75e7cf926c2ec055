use crate::{Error, Result, cpu::cpuid::Features, seam::Entropy};

/// The processor's sources of random words; each may have none right now.
pub trait RandomWords {
    /// A word of the entropy source.
    fn seed(&mut self) -> Option<u64>;

    /// A word of the generator behind it.
    fn random(&mut self) -> Option<u64>;
}

/// RDSEED and RDRAND, where the processor has them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct RandomInsn {
    features: Features,
}

#[cfg(target_arch = "x86_64")]
impl RandomInsn {
    /// Uses what is among `features`.
    #[must_use]
    pub const fn new(features: Features) -> Self {
        Self { features }
    }
}

#[cfg(target_arch = "x86_64")]
impl RandomWords for RandomInsn {
    fn seed(&mut self) -> Option<u64> {
        self.features
            .contains(Features::RDSEED)
            .then(crate::cpu::insn::rdseed)?
    }

    fn random(&mut self) -> Option<u64> {
        self.features
            .contains(Features::RDRAND)
            .then(crate::cpu::insn::rdrand)?
    }
}

/// How often to ask for a seed: other CPUs may drain the source, and it needs a while to fill.
const SEED_TRIES: u32 = 128;
/// How often to ask for a random word: ten failures mean that the generator is broken (Intel Digital Random Number Generator
/// Software Implementation Guide, "Retry Recommendations").
const RANDOM_TRIES: u32 = 10;

/// Random bytes from the processor: seeds if there are any, else words of its generator.
///
/// A processor can be broken and claim success, as some have after sleep, with all bits set. Such words, and one that comes
/// twice in a row, count as failures.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorEntropy<W> {
    words: W,
    last: Option<u64>,
}

impl<W: RandomWords> ProcessorEntropy<W> {
    /// Takes words from `words`.
    #[must_use]
    pub const fn new(words: W) -> Self {
        Self { words, last: None }
    }

    fn word(&mut self) -> Result<u64> {
        for attempt in 0..SEED_TRIES + RANDOM_TRIES {
            let word = if attempt < SEED_TRIES {
                self.words.seed()
            } else {
                self.words.random()
            };
            match word {
                Some(0 | u64::MAX) | None => {}
                Some(word) if self.last == Some(word) => {}
                Some(word) => {
                    self.last = Some(word);
                    return Ok(word);
                }
            }
            core::hint::spin_loop();
        }
        Err(Error::NoEntropy)
    }
}

impl<W: RandomWords> Entropy for ProcessorEntropy<W> {
    type Error = Error;

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.word()?.to_le_bytes();
            for (byte, random) in chunk.iter_mut().zip(word) {
                *byte = random;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers in order, again and again.
    struct Script {
        seeds: &'static [Option<u64>],
        randoms: &'static [Option<u64>],
        asked: (usize, usize),
    }

    impl Script {
        fn new(
            seeds: &'static [Option<u64>],
            randoms: &'static [Option<u64>],
        ) -> ProcessorEntropy<Self> {
            ProcessorEntropy::new(Self {
                seeds,
                randoms,
                asked: (0, 0),
            })
        }
    }

    impl RandomWords for Script {
        fn seed(&mut self) -> Option<u64> {
            self.asked.0 += 1;
            self.seeds[(self.asked.0 - 1) % self.seeds.len()]
        }

        fn random(&mut self) -> Option<u64> {
            self.asked.1 += 1;
            self.randoms[(self.asked.1 - 1) % self.randoms.len()]
        }
    }

    #[test]
    fn seeds_fill_every_byte() {
        let mut entropy = Script::new(
            &[
                None,
                Some(0x0807_0605_0403_0201),
                Some(0x1817_1615_1413_1211),
            ],
            &[None],
        );
        let mut bytes = [0; 11];
        entropy.fill(&mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13]);
    }

    #[test]
    fn generator_helps_out_where_there_are_no_seeds() {
        let mut bytes = [0; 8];
        Script::new(&[None], &[None, Some(1)])
            .fill(&mut bytes)
            .unwrap();
        assert_eq!(bytes, 1_u64.to_le_bytes());
    }

    #[test]
    fn broken_processors_are_errors_after_a_bounded_time() {
        for broken in [&[None], &[Some(u64::MAX)], &[Some(0)]] {
            let mut entropy = Script::new(broken, broken);
            assert_eq!(entropy.fill(&mut [0; 8]), Err(Error::NoEntropy));
            assert_eq!(entropy.words.asked, (128, 10));
        }
        let mut entropy = Script::new(&[Some(7)], &[Some(7)]);
        assert_eq!(entropy.fill(&mut [0; 16]), Err(Error::NoEntropy));
    }
}

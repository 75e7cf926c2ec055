//! What takes longer than a step: the search for RSA keys, and self-tests.
//!
//! A handler that needs a key asks for it. If it is not there, the handler ends with [`Stop::Work`] before it has changed anything;
//! the engine then searches, step by step, and runs the handler again, which finds the key.

use super::{Core, selftest::Tests};
use crate::{
    crypto::{
        RsaKey,
        drbg::{Drbg, Generator},
        keygen::RsaSearch,
    },
    rc::Stop,
};

/// Long work for the command in progress.
#[derive(Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "there is one, in the TPM itself")]
pub(crate) enum Work {
    #[default]
    Idle,
    /// A search that draws from the TPM's generator, or from one that a seed determines.
    Rsa(RsaSearch, Option<Drbg>),
    Done(RsaKey),
    /// Self-tests that are still to be done.
    Test(Tests),
}

impl Core<'_> {
    /// An RSA key: random, or the one that `seeded` determines.
    pub(crate) fn rsa_key(
        &mut self,
        bits: u16,
        e: u32,
        seeded: Option<&Drbg>,
    ) -> Result<RsaKey, Stop> {
        match core::mem::take(&mut self.work) {
            Work::Done(key) => Ok(key),
            Work::Idle => {
                self.seed()?;
                self.work = Work::Rsa(RsaSearch::new(bits, e), seeded.cloned());
                Err(Stop::Work)
            }
            searching @ (Work::Rsa(..) | Work::Test(_)) => {
                self.work = searching;
                Err(Stop::Work)
            }
        }
    }

    /// Does one step of the work; whether there is more to do.
    pub(crate) fn work_step(&mut self) -> bool {
        if let Work::Test(tests) = self.work {
            let left = self.test_step(tests);
            self.work = if left.is_empty() {
                Work::Idle
            } else {
                Work::Test(left)
            };
            return !left.is_empty();
        }
        let Work::Rsa(search, seeded) = &mut self.work else {
            return false;
        };
        let drbg = seeded.as_mut().unwrap_or(&mut self.drbg);
        let found = search.step(
            self.crypto,
            &mut Generator {
                drbg,
                crypto: self.crypto,
            },
        );
        match found {
            Some(key) => {
                self.work = Work::Done(key);
                false
            }
            None => true,
        }
    }
}

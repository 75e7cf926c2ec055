//! Self-tests (Part 1, clause 12.3; Part 3, clause 10): known answers, one algorithm a step, before its first use since the power came.

#[cfg(feature = "pqc")]
mod lattice; // ML-KEM, ML-DSA
mod vectors;

use bitflags::bitflags;

use super::{Core, work::Work};
use crate::{
    alg::{Alg, Curve, HashAlg, Mode},
    crypto::{
        Crypto, EccNumber, Stream,
        cmac::Cmac,
        drbg::{Drbg, Generator},
        kdf,
    },
    rc::{Rc, Stop, ensure},
    structures::public::{Params, Public},
};
#[cfg(all(test, feature = "rustcrypto"))]
pub(crate) use vectors::{DRBG_ENTROPY, DRBG_OUTPUT};

bitflags! {
    /// Tests, each of one algorithm.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Tests: u16 {
        const SHA1 = 1 << 0;
        const SHA256 = 1 << 1;
        const SHA384 = 1 << 2;
        const SHA512 = 1 << 3;
        const HMAC = 1 << 4;
        const KDF = 1 << 5;
        const AES = 1 << 6;
        const CMAC = 1 << 7;
        const DRBG = 1 << 8;
        const RSA = 1 << 9;
        const P256 = 1 << 10;
        const P384 = 1 << 11;
        const P521 = 1 << 12;
        const BNP256 = 1 << 13;
        #[cfg(feature = "pqc")]
        const MLKEM = 1 << 14;
        #[cfg(feature = "pqc")]
        const MLDSA = 1 << 15;

        /// What no command can do without: tested before startup.
        const BASE = (1 << 9) - 1;
        const CURVES = 0b1111 << 10;
    }
}

impl Tests {
    /// What an algorithm consists of.
    pub(crate) const fn of_alg(alg: Alg) -> Self {
        match alg {
            Alg::SHA1 => Self::SHA1,
            Alg::SHA256 => Self::SHA256,
            Alg::SHA384 => Self::SHA384,
            Alg::SHA512 => Self::SHA512,
            Alg::HMAC | Alg::XOR | Alg::KEYEDHASH | Alg::MGF1 => Self::HMAC,
            Alg::KDF1_SP800_56A | Alg::KDF2 | Alg::KDF1_SP800_108 => Self::KDF,
            Alg::AES | Alg::SYMCIPHER | Alg::CTR | Alg::OFB | Alg::CBC | Alg::CFB | Alg::ECB => {
                Self::AES
            }
            Alg::CMAC => Self::CMAC,
            Alg::RSA | Alg::RSASSA | Alg::RSAPSS | Alg::RSAES | Alg::OAEP => Self::RSA,
            Alg::ECC | Alg::ECDSA | Alg::ECDH | Alg::ECDAA | Alg::ECSCHNORR => Self::CURVES,
            #[cfg(feature = "pqc")]
            Alg::MLKEM => Self::MLKEM,
            #[cfg(feature = "pqc")]
            Alg::MLDSA | Alg::HASH_MLDSA => Self::MLDSA,
            _ => Self::empty(),
        }
    }

    pub(crate) const fn of_curve(curve: Curve) -> Self {
        match curve {
            Curve::P256 => Self::P256,
            Curve::P384 => Self::P384,
            Curve::P521 => Self::P521,
            Curve::BnP256 => Self::BNP256,
        }
    }

    /// What the use of a key asks for beyond [`Tests::BASE`].
    pub(crate) const fn of_key(public: &Public) -> Self {
        match public.params {
            Params::Rsa { .. } => Self::RSA,
            Params::Ecc { curve, .. } => Self::of_curve(curve),
            Params::Lattice(params) => Self::of_alg(params.alg()),
            _ => Self::empty(),
        }
    }
}

impl Core<'_> {
    /// Makes sure that these algorithms have passed their tests. If not, the handler is run again when they have.
    pub(crate) fn require(&mut self, tests: Tests) -> Result<(), Stop> {
        let missing = tests.difference(self.tested);
        if missing.is_empty() {
            return Ok(());
        }
        ensure(!self.failed, Rc::FAILURE)?;
        self.work = Work::Test(missing);
        Err(Stop::Work)
    }

    /// All tests, also those that were passed before (SelfTest with fullTest).
    pub(crate) fn test_all_anew(&mut self) -> Result<(), Stop> {
        if !self.testing_all {
            self.testing_all = true;
            self.tested = Tests::empty();
        }
        self.require(self.all_tests())?;
        self.testing_all = false;
        Ok(())
    }

    /// The tests of everything that this TPM has.
    pub(crate) fn all_tests(&self) -> Tests {
        #[cfg(feature = "pqc")]
        if !self.has_lattices() {
            return Tests::all().difference(Tests::MLKEM.union(Tests::MLDSA));
        }
        Tests::all()
    }

    fn passes(&self, test: Tests) -> bool {
        #[cfg(feature = "pqc")]
        if Tests::MLKEM.union(Tests::MLDSA).contains(test) {
            return self
                .lattices
                .is_some_and(|lattices| lattice::passes(self.crypto, lattices, test));
        }
        passes(self.crypto, test)
    }

    /// Whether algorithms that passed their tests elsewhere do so here.
    pub(super) fn pass_anew(&self, tests: Tests) -> bool {
        tests.iter().all(|test| self.passes(test))
    }

    /// Does the first of some tests and gives the others; none after a failure, which ends everything.
    pub(super) fn test_step(&mut self, tests: Tests) -> Tests {
        let Some(test) = tests.iter().next() else {
            return Tests::empty();
        };
        if self.passes(test) {
            self.tested |= test;
            tests.difference(test)
        } else {
            self.failed = true;
            Tests::empty()
        }
    }
}

fn passes(crypto: &dyn Crypto, test: Tests) -> bool {
    let hash = |alg, known: &[u8]| crypto.hash(alg, &[b"a", b"bc"]).as_slice() == known;
    match test {
        Tests::SHA1 => hash(HashAlg::Sha1, vectors::SHA1),
        Tests::SHA256 => hash(HashAlg::Sha256, vectors::SHA256),
        Tests::SHA384 => hash(HashAlg::Sha384, vectors::SHA384),
        Tests::SHA512 => hash(HashAlg::Sha512, vectors::SHA512),
        Tests::HMAC => {
            let mac = crypto.hmac(
                HashAlg::Sha256,
                b"Jefe",
                &[b"what do ya want ", b"for nothing?"],
            );
            mac.as_slice() == vectors::HMAC
        }
        Tests::KDF => {
            let key: [u8; 32] = core::array::from_fn(|n| u8::try_from(n).unwrap_or(0));
            let mut out = [0; 32];
            let context: [&[u8]; 2] = [b"ab", b"cd"];
            kdf::kdfa(
                crypto,
                HashAlg::Sha256,
                &key,
                "SELF-TEST",
                context,
                256,
                &mut out,
            );
            out == vectors::KDFA
        }
        Tests::AES => aes(crypto),
        Tests::CMAC => {
            let [key, known] = vectors::CMAC;
            Cmac::new().finish(crypto, key) == known
        }
        Tests::DRBG => {
            let mut drbg = Drbg::new(crypto, vectors::DRBG_ENTROPY);
            let mut out = [0; 64];
            drbg.generate(crypto, &mut out);
            drbg.generate(crypto, &mut out);
            out == *vectors::DRBG_OUTPUT
        }
        Tests::RSA => rsa(crypto).unwrap_or(false),
        Tests::P256 => curve(crypto, Curve::P256, vectors::P256).unwrap_or(false),
        Tests::P384 => curve(crypto, Curve::P384, vectors::P384).unwrap_or(false),
        Tests::P521 => curve(crypto, Curve::P521, vectors::P521).unwrap_or(false),
        Tests::BNP256 => curve(crypto, Curve::BnP256, vectors::BNP256).unwrap_or(false),
        _ => false,
    }
}

fn aes(crypto: &dyn Crypto) -> bool {
    let plain: [u8; 16] = core::array::from_fn(|n| u8::try_from(n * 0x11).unwrap_or(0));
    let key: [u8; 32] = core::array::from_fn(|n| u8::try_from(n).unwrap_or(0));
    vectors::AES.iter().zip([16, 32]).all(|(known, len)| {
        let mut block = plain;
        let key = key.get(..len).unwrap_or_default();
        crypto.encrypt(Mode::Ecb, key, &mut [0; 16], &mut block);
        let encrypts = block == *known;
        crypto.decrypt(Mode::Ecb, key, &mut [0; 16], &mut block);
        encrypts && block == plain
    })
}

/// The private operation gives the known signature, and the public one takes it back.
fn rsa(crypto: &dyn Crypto) -> Option<bool> {
    let key = crypto.complete(vectors::RSA_N, 65537, vectors::RSA_P)?;
    // Blinding does not change the result, so these bits need not be random.
    let mut drbg = Drbg::new(crypto, vectors::DRBG_ENTROPY);
    let blinding: &mut dyn Stream = &mut Generator {
        drbg: &mut drbg,
        crypto,
    };
    let signed = crypto.private(&key, vectors::RSA_X, blinding)?;
    let back = crypto.public(vectors::RSA_N, 65537, vectors::RSA_S)?;
    Some(signed.as_slice() == vectors::RSA_S && back.as_slice() == vectors::RSA_X)
}

/// The product with the generator is the known point, and scalars can be inverted.
fn curve(crypto: &dyn Crypto, curve: Curve, known: [&[u8]; 3]) -> Option<bool> {
    let [scalar, x, y] = known;
    let scalar = EccNumber::new(scalar)?;
    let point = crypto.mul(curve, &scalar, None)?;
    let mut one = EccNumber::zeroed(curve.bytes());
    *one.as_mut_slice().last_mut()? = 1;
    let zero = EccNumber::zeroed(curve.bytes());
    let inverse = crypto.invert(curve, &scalar)?;
    let product = crypto.mul_add(curve, &scalar, &inverse, &zero);
    Some(point.x.as_slice() == x && point.y.as_slice() == y && product == one)
}

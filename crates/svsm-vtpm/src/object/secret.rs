//! Secrets that one party sends to the holder of a key: salts, seeds of duplication and of credentials (Part 1, annexes B.10 and C.6).

use zeroize::Zeroize;

use crate::{
    alg::{Curve, HashAlg},
    bytes::Bytes,
    crypto::{Digest, EccNumber, Point, RsaNumber, draw_scalar, kdf, padding},
    rc::{Rc, ensure},
    state::{Core, entity::Entity, object::Object, object::rsa_exponent},
    structures::{
        lattice::ENCRYPTED_MAX,
        public::{Params, Public, Unique},
    },
    wire::{Reader, Writer},
};

/// An encrypted secret: a number of an RSA key, a point, or a ciphertext of ML-KEM.
pub(crate) type Encrypted = Bytes<ENCRYPTED_MAX>;
/// The longest one without ML-KEM: a number of RSA-4096.
const CLASSIC_MAX: usize = 512;

/// `TPM2B_ENCRYPTED_SECRET`.
pub(crate) fn read_encrypted(r: &mut Reader<'_>) -> Result<Encrypted, Rc> {
    let max = if r.lattices() {
        ENCRYPTED_MAX
    } else {
        CLASSIC_MAX
    };
    Encrypted::new(r.sized(max)?).ok_or(Rc::SIZE)
}

/// What a secret is for: the label of its derivation, with the zero that OAEP takes along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label(&'static str);

impl Label {
    pub(crate) const SECRET: Self = Self("SECRET\0");
    pub(crate) const DUPLICATE: Self = Self("DUPLICATE\0");
    pub(crate) const IDENTITY: Self = Self("IDENTITY\0");

    pub(super) fn without_zero(self) -> &'static str {
        self.0.trim_end_matches('\0')
    }
}

/// The x coordinate at the curve's full length.
fn padded(curve: Curve, number: &EccNumber) -> EccNumber {
    let mut number = number.clone();
    number.pad_front(curve.bytes());
    number
}

fn derive(
    core: &Core<'_>,
    hash: HashAlg,
    curve: Curve,
    z: &Point,
    label: Label,
    ephemeral: &Point,
    fixed: &Point,
) -> Digest {
    let mut secret = Digest::zeroed(hash.digest_len());
    let mut shared = padded(curve, &z.x);
    kdf::kdfe(
        core.crypto,
        hash,
        shared.as_slice(),
        label.without_zero(),
        [
            padded(curve, &ephemeral.x).as_slice(),
            padded(curve, &fixed.x).as_slice(),
        ],
        u32::try_from(hash.digest_len() * 8).unwrap_or(0),
        secret.as_mut_slice(),
    );
    shared.zeroize();
    secret
}

impl Core<'_> {
    /// The secret that was encrypted to an object.
    pub(crate) fn secret_decrypt(
        &mut self,
        object: &Object,
        label: Label,
        encrypted: &Encrypted,
    ) -> Result<Digest, Rc> {
        let hash = object.public.name_alg.ok_or(Rc::KEY)?;
        let sensitive = object.sensitive.as_ref().ok_or(Rc::KEY)?;
        match (&object.public.params, &object.public.unique, &object.rsa) {
            (Params::Rsa { .. }, _, Some(key)) => {
                ensure(encrypted.len() == key.n.len(), Rc::SIZE)?;
                let crypto = self.crypto;
                let block = crypto
                    .private(key, encrypted.as_slice(), &mut self.generator()?)
                    .ok_or(Rc::VALUE)?;
                let mut secret = padding::oaep_decode(crypto, hash, label.0.as_bytes(), block)?;
                let fits = secret.len() <= hash.digest_len();
                let result = Digest::new(secret.as_slice()).filter(|_| fits);
                secret.zeroize();
                result.ok_or(Rc::VALUE)
            }
            (Params::Ecc { curve, .. }, Unique::Ecc(own), _) => {
                let mut r = Reader::new(encrypted.as_slice());
                let ephemeral: Point = r.read()?;
                ensure(r.is_empty(), Rc::SIZE)?;
                let mut d: EccNumber = sensitive.secret.resized();
                d.pad_front(curve.bytes());
                let z = self.crypto.mul(*curve, &d, Some(&ephemeral));
                d.zeroize();
                let z = z.ok_or(Rc::ECC_POINT)?;
                Ok(derive(self, hash, *curve, &z, label, &ephemeral, own))
            }
            (Params::Lattice(params), ..) => {
                self.kem_secret_decrypt(object, *params, label, encrypted)
            }
            _ => Err(Rc::KEY),
        }
    }

    /// A fresh secret, and what of it is sent to the holder of a key.
    pub(crate) fn secret_encrypt(
        &mut self,
        public: &Public,
        label: Label,
    ) -> Result<(Digest, Encrypted), Rc> {
        let hash = public.name_alg.ok_or(Rc::KEY)?;
        let crypto = self.crypto;
        match (&public.params, &public.unique) {
            (Params::Rsa { exponent, .. }, Unique::Rsa(n)) => {
                let secret: Digest = self.random_bytes(hash.digest_len())?;
                let block: RsaNumber = padding::oaep_encode(
                    crypto,
                    hash,
                    label.0.as_bytes(),
                    secret.as_slice(),
                    &mut self.generator()?,
                    n.len(),
                )?;
                let encrypted = crypto
                    .public(n.as_slice(), rsa_exponent(*exponent), block.as_slice())
                    .ok_or(Rc::KEY)?;
                Ok((secret, encrypted.resized()))
            }
            (Params::Ecc { curve, .. }, Unique::Ecc(other)) => {
                let mut k = draw_scalar(crypto, *curve, &mut self.generator()?);
                let ephemeral = crypto.mul(*curve, &k, None).ok_or(Rc::KEY)?;
                let z = crypto.mul(*curve, &k, Some(other));
                k.zeroize();
                let secret = derive(
                    self,
                    hash,
                    *curve,
                    &z.ok_or(Rc::KEY)?,
                    label,
                    &ephemeral,
                    other,
                );
                let mut buffer = [0; 2 * (2 + 66)];
                let mut w = Writer::new(&mut buffer);
                w.put(&ephemeral)?;
                let encrypted = Encrypted::new(w.written()).ok_or(Rc::SIZE)?;
                Ok((secret, encrypted))
            }
            (Params::Lattice(params), Unique::Lattice(key)) => {
                self.kem_secret_encrypt(*params, key, hash, label)
            }
            _ => Err(Rc::KEY),
        }
    }

    /// The salt of a session, decrypted with the key that StartAuthSession names (clause 11.1).
    pub(crate) fn session_salt(
        &mut self,
        key: Entity,
        encrypted: &Encrypted,
    ) -> Result<Digest, Rc> {
        use crate::structures::attributes::ObjectAttributes as A;

        let object = self.object_of(key).ok_or(Rc::KEY.handle(1))?.clone();
        ensure(object.public.is_asymmetric(), Rc::KEY.handle(1))?;
        ensure(!encrypted.is_empty(), Rc::VALUE.param(2))?;
        ensure(object.sensitive.is_some(), Rc::HANDLE.handle(1))?;
        ensure(object.has(A::DECRYPT), Rc::ATTRIBUTES.handle(1))?;
        self.secret_decrypt(&object, Label::SECRET, encrypted)
            .map_err(|_| Rc::VALUE.param(2))
    }
}

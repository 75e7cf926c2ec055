//! Private areas on their way: the inner wrapping of duplicates, the outer one of everything, and credentials (Part 1, clauses 22 to 24).

use zeroize::Zeroize;

use crate::{
    alg::{HashAlg, Mode},
    bytes::Bytes,
    crypto::{Crypto, Digest, kdf},
    rc::{Rc, ensure},
    state::{Core, object::Object},
    structures::{
        public::Name,
        scheme::Cipher,
        sensitive::{SENSITIVE_MAX, Sensitive},
    },
    wire::{Reader, Writer},
};

/// `TPM2B_PRIVATE`: two digests, a start value, and a sensitive area.
pub(crate) type Private = Bytes<{ 2 * 66 + 18 + 2 + SENSITIVE_MAX }>;

/// Who protects: the algorithm, the seed and the cipher of a parent.
pub(crate) struct Guard<'a> {
    pub(crate) hash: HashAlg,
    pub(crate) seed: &'a [u8],
    pub(crate) cipher: Cipher,
}

impl<'a> Guard<'a> {
    /// A loaded storage parent, by its own seed.
    pub(crate) fn of_parent(parent: &'a Object) -> Result<Self, Rc> {
        let sensitive = parent.sensitive.as_ref().ok_or(Rc::TYPE)?;
        Self::new(parent, sensitive.seed.as_slice())
    }

    /// A storage key, by a seed that was sent to it.
    pub(crate) fn new(key: &Object, seed: &'a [u8]) -> Result<Self, Rc> {
        Ok(Self {
            hash: key.public.name_alg.ok_or(Rc::TYPE)?,
            seed,
            cipher: key.public.params.symmetric().ok_or(Rc::SYMMETRIC)?,
        })
    }

    fn crypt(&self, crypto: &dyn Crypto, name: &Name, iv: [u8; 16], data: &mut [u8], on: bool) {
        let mut key = [0; 32];
        let bits = u32::from(self.cipher.bits);
        let Some(key_bytes) = key.get_mut(..self.cipher.key_len()) else {
            return;
        };
        let context = [name.as_slice(), &[]];
        kdf::kdfa(
            crypto, self.hash, self.seed, "STORAGE", context, bits, key_bytes,
        );
        let mut iv = iv;
        if on {
            crypto.encrypt(Mode::Cfb, key_bytes, &mut iv, data);
        } else {
            crypto.decrypt(Mode::Cfb, key_bytes, &mut iv, data);
        }
        key.zeroize();
    }

    fn integrity(&self, crypto: &dyn Crypto, name: &Name, data: &[u8]) -> Digest {
        let len = self.hash.digest_len();
        let mut key = Digest::zeroed(len);
        let bits = u32::try_from(len * 8).unwrap_or(0);
        kdf::kdfa(
            crypto,
            self.hash,
            self.seed,
            "INTEGRITY",
            [&[], &[]],
            bits,
            key.as_mut_slice(),
        );
        let code = crypto.hmac(self.hash, key.as_slice(), &[data, name.as_slice()]);
        key.zeroize();
        code
    }

    /// Encrypts and authenticates; with a start value before the data if there is one.
    pub(crate) fn wrap(
        &self,
        crypto: &dyn Crypto,
        name: &Name,
        iv: Option<[u8; 16]>,
        data: &[u8],
    ) -> Result<Private, Rc> {
        let mut body = Private::EMPTY;
        if let Some(iv) = iv {
            body.extend(&16u16.to_be_bytes())?;
            body.extend(&iv)?;
        }
        let at = body.len();
        body.extend(data)?;
        let secret = body.as_mut_slice().get_mut(at..).unwrap_or_default();
        self.crypt(crypto, name, iv.unwrap_or_default(), secret, true);
        let code = self.integrity(crypto, name, body.as_slice());
        let mut out = Private::EMPTY;
        out.extend(&u16::try_from(code.len()).unwrap_or(0).to_be_bytes())?;
        out.extend(code.as_slice())?;
        out.extend(body.as_slice())?;
        Ok(out)
    }

    /// The reverse.
    pub(crate) fn unwrap(
        &self,
        crypto: &dyn Crypto,
        name: &Name,
        has_iv: bool,
        wrapped: &[u8],
    ) -> Result<Private, Rc> {
        let mut r = Reader::new(wrapped);
        let code: Digest = r.read()?;
        ensure(
            code == self.integrity(crypto, name, r.rest()),
            Rc::INTEGRITY,
        )?;
        let mut iv = [0; 16];
        if has_iv {
            let given: Bytes<16> = r.read()?;
            ensure(given.len() == 16, Rc::SIZE)?;
            iv.copy_from_slice(given.as_slice());
        }
        let mut data = Private::new(r.rest()).ok_or(Rc::SIZE)?;
        self.crypt(crypto, name, iv, data.as_mut_slice(), false);
        Ok(data)
    }
}

/// A sensitive area with its size before it.
fn sized_sensitive(sensitive: &Sensitive) -> Result<Private, Rc> {
    let mut out = Private::zeroed(2 + SENSITIVE_MAX);
    let mut w = Writer::new(out.as_mut_slice());
    w.sized_as(sensitive)?;
    let len = w.len();
    out.resize(len);
    Ok(out)
}

fn read_sized_sensitive(mut r: Reader<'_>) -> Result<Sensitive, Rc> {
    let sensitive = r.sized_as()?;
    ensure(r.is_empty(), Rc::SIZE)?;
    Ok(sensitive)
}

/// The integrity of a sensitive area inside a duplicate.
fn inner_integrity(crypto: &dyn Crypto, hash: HashAlg, data: &[u8], name: &Name) -> Digest {
    crypto.hash(hash, &[data, name.as_slice()])
}

impl Core<'_> {
    /// What the caller keeps of a child of `parent` (`TPM2B_PRIVATE`).
    pub(crate) fn sensitive_to_private(
        &mut self,
        sensitive: &Sensitive,
        name: &Name,
        parent: &Object,
    ) -> Result<Private, Rc> {
        let mut iv = [0; 16];
        self.random(&mut iv)?;
        let mut plain = sized_sensitive(sensitive)?;
        let private = Guard::of_parent(parent)?.wrap(self.crypto, name, Some(iv), plain.as_slice());
        plain.zeroize();
        private
    }

    /// The reverse.
    pub(crate) fn private_to_sensitive(
        &self,
        private: &[u8],
        name: &Name,
        parent: &Object,
    ) -> Result<Sensitive, Rc> {
        let mut plain = Guard::of_parent(parent)?.unwrap(self.crypto, name, true, private)?;
        let sensitive =
            read_sized_sensitive(Reader::sent_to(self.has_lattices(), plain.as_slice()));
        plain.zeroize();
        sensitive
    }

    /// A duplicate: wrapped for somebody who knows the inner key, and for a new parent.
    pub(crate) fn sensitive_to_duplicate(
        &self,
        sensitive: &Sensitive,
        object: (HashAlg, &Name),
        inner: Option<(Cipher, &[u8])>,
        outer: Option<&Guard<'_>>,
    ) -> Result<Private, Rc> {
        let (hash, name) = object;
        let mut data = sized_sensitive(sensitive)?;
        if let Some((_, key)) = inner {
            let digest = inner_integrity(self.crypto, hash, data.as_slice(), name);
            let mut inner = Private::EMPTY;
            inner.extend(&u16::try_from(digest.len()).unwrap_or(0).to_be_bytes())?;
            inner.extend(digest.as_slice())?;
            inner.extend(data.as_slice())?;
            self.crypto
                .encrypt(Mode::Cfb, key, &mut [0; 16], inner.as_mut_slice());
            data.zeroize();
            data = inner;
        }
        match outer {
            Some(guard) => guard.wrap(self.crypto, name, None, data.as_slice()),
            None => Ok(data),
        }
    }

    /// The reverse.
    pub(crate) fn duplicate_to_sensitive(
        &self,
        duplicate: &[u8],
        object: (HashAlg, &Name),
        inner: Option<(Cipher, &[u8])>,
        outer: Option<&Guard<'_>>,
    ) -> Result<Sensitive, Rc> {
        let (hash, name) = object;
        let mut data = match outer {
            Some(guard) => guard.unwrap(self.crypto, name, false, duplicate)?,
            None => Private::new(duplicate).ok_or(Rc::SIZE)?,
        };
        let mut plain: &[u8] = data.as_slice();
        if let Some((_, key)) = inner {
            self.crypto
                .decrypt(Mode::Cfb, key, &mut [0; 16], data.as_mut_slice());
            let mut r = Reader::new(data.as_slice());
            let digest: Digest = r.read()?;
            plain = r.rest();
            let expected = inner_integrity(self.crypto, hash, plain, name);
            ensure(digest == expected, Rc::INTEGRITY)?;
        }
        let sensitive = read_sized_sensitive(Reader::sent_to(self.has_lattices(), plain));
        data.zeroize();
        sensitive
    }
}

/// Hides a credential from everybody but the TPM that has both the key and the named object (Part 1, clause 24).
pub(crate) fn credential_wrap(
    crypto: &dyn Crypto,
    guard: &Guard<'_>,
    name: &Name,
    credential: &Digest,
) -> Result<Private, Rc> {
    let mut plain: Bytes<66> = Bytes::EMPTY;
    plain.extend(&u16::try_from(credential.len()).unwrap_or(0).to_be_bytes())?;
    plain.extend(credential.as_slice())?;
    guard.wrap(crypto, name, None, plain.as_slice())
}

/// The credential.
pub(crate) fn credential_unwrap(
    crypto: &dyn Crypto,
    guard: &Guard<'_>,
    name: &Name,
    blob: &[u8],
) -> Result<Digest, Rc> {
    let plain = guard.unwrap(crypto, name, false, blob)?;
    let mut r = Reader::new(plain.as_slice());
    let credential: Digest = r.read()?;
    ensure(r.is_empty(), Rc::SIZE)?;
    ensure(credential.len() <= guard.hash.digest_len(), Rc::SIZE)?;
    Ok(credential)
}

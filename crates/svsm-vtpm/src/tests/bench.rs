//! A TPM on a bench: leaked memory, deterministic entropy, and short ways to say commands.

use std::{
    boxed::Box,
    sync::{Arc, Mutex},
    vec,
    vec::Vec,
};

use crate::{
    Clock, NvStore, ObjectSlot, Progress, Random, Rc, SeamError, Seams, SessionSlot, Storage, Tpm,
    crypto::{Crypto, RustCrypto},
};

/// Entropy that is the same in every run: what it fills begins with a count.
#[derive(Clone)]
pub(crate) struct Counting(pub(crate) Arc<Mutex<u8>>);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        let mut next = self.0.lock().unwrap();
        for byte in out {
            *byte = *next;
            *next = next.wrapping_mul(37).wrapping_add(11);
        }
        Ok(())
    }
}

/// A clock that the test sets.
#[derive(Clone, Default)]
pub(crate) struct Hands(pub(crate) Arc<Mutex<u64>>);

impl Clock for Hands {
    fn now_ms(&mut self) -> u64 {
        *self.0.lock().unwrap()
    }
}

/// A store that shows what it holds.
#[derive(Clone, Default)]
pub(crate) struct Shelf(pub(crate) Arc<Mutex<Option<Vec<u8>>>>);

impl NvStore for Shelf {
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, SeamError> {
        let image = self.0.lock().unwrap();
        let Some(image) = image.as_ref() else {
            return Ok(None);
        };
        into.get_mut(..image.len())
            .ok_or(SeamError::StoreSize)?
            .copy_from_slice(image);
        Ok(Some(image.len()))
    }

    fn commit(&mut self, _: u64, image: &[u8]) -> Result<(), SeamError> {
        *self.0.lock().unwrap() = Some(image.to_vec());
        Ok(())
    }
}

pub(crate) struct Bench {
    pub(crate) tpm: Tpm<'static>,
    pub(crate) clock: Hands,
    pub(crate) entropy: Counting,
}

impl Bench {
    /// A TPM that was just powered on.
    pub(crate) fn powered(shelf: &Shelf) -> Self {
        Self::made_of(shelf, &RustCrypto, 4096, |_| {})
    }

    /// A TPM with post-quantum keys and buffers of this length, that was just powered on.
    #[cfg(feature = "pqc")]
    pub(crate) fn with_lattices(shelf: &Shelf, buffers: usize) -> Self {
        Self::made_of(shelf, &RustCrypto, buffers, |tpm| {
            tpm.set_lattices(&RustCrypto)
        })
    }

    /// A TPM with another provider.
    pub(crate) fn with_crypto(crypto: &'static dyn Crypto) -> Self {
        Self::made_of(&Shelf::default(), crypto, 4096, |_| {})
    }

    /// A TPM that was prepared before the power came.
    pub(crate) fn prepared(shelf: &Shelf, prepare: impl FnOnce(&mut Tpm<'static>)) -> Self {
        Self::made_of(shelf, &RustCrypto, 4096, prepare)
    }

    fn made_of(
        shelf: &Shelf,
        crypto: &'static dyn Crypto,
        buffers: usize,
        prepare: impl FnOnce(&mut Tpm<'static>),
    ) -> Self {
        let clock = Hands::default();
        let entropy = Counting(Arc::new(Mutex::new(1)));
        let mut tpm = Tpm::new(
            Seams {
                crypto,
                random: Box::leak(Box::new(entropy.clone())),
                clock: Box::leak(Box::new(clock.clone())),
                store: Box::leak(Box::new(shelf.clone())),
            },
            Storage {
                command: vec![0; buffers].leak(),
                response: vec![0; buffers].leak(),
                objects: (0..6).map(|_| ObjectSlot::EMPTY).collect::<Vec<_>>().leak(),
                sessions: (0..3)
                    .map(|_| SessionSlot::EMPTY)
                    .collect::<Vec<_>>()
                    .leak(),
                nv: vec![0; Storage::NV_HEAD + 64 * 1024].leak(),
            },
        )
        .unwrap();
        prepare(&mut tpm);
        tpm.power_on().unwrap();
        Self {
            tpm,
            clock,
            entropy,
        }
    }

    /// A TPM after Startup(CLEAR).
    pub(crate) fn started() -> Self {
        let mut it = Self::powered(&Shelf::default());
        it.ok(0x144, &[], &[0, 0]);
        it
    }

    /// Runs a command with empty passwords for its handles if `auths` is not 0; gives code and what follows it.
    pub(crate) fn run(
        &mut self,
        code: u16,
        handles: &[u32],
        auths: &[&[u8]],
        params: &[u8],
    ) -> (Rc, Vec<u8>) {
        let mut body = Vec::new();
        handles.iter().for_each(|h| body.extend(h.to_be_bytes()));
        if !auths.is_empty() {
            let mut area = Vec::new();
            for auth in auths {
                area.extend([0x40, 0, 0, 9, 0, 0, 1]);
                area.extend(u16::try_from(auth.len()).unwrap().to_be_bytes());
                area.extend(*auth);
            }
            body.extend(u32::try_from(area.len()).unwrap().to_be_bytes());
            body.extend(area);
        }
        body.extend(params);
        let mut command = vec![0x80, if auths.is_empty() { 1 } else { 2 }];
        command.extend(u32::try_from(10 + body.len()).unwrap().to_be_bytes());
        command.extend(u32::from(code).to_be_bytes());
        command.extend(body);
        self.raw(0, &command)
    }

    pub(crate) fn raw(&mut self, locality: u8, command: &[u8]) -> (Rc, Vec<u8>) {
        self.tpm.submit(locality, command).unwrap();
        while self.tpm.step() == Progress::Pending {}
        let response = self.tpm.response().unwrap();
        let size = u32::from_be_bytes(response[2..6].try_into().unwrap());
        assert_eq!(size as usize, response.len());
        (
            Rc::from_u32(u32::from_be_bytes(response[6..10].try_into().unwrap())),
            response[10..].to_vec(),
        )
    }

    /// Runs a command that must succeed, without sessions.
    pub(crate) fn ok(&mut self, code: u16, handles: &[u32], params: &[u8]) -> Vec<u8> {
        let (rc, rest) = self.run(code, handles, &[], params);
        assert_eq!(rc, Rc::SUCCESS, "{rc}");
        rest
    }

    /// Runs a command that must succeed, with one empty password.
    pub(crate) fn ok_auth(&mut self, code: u16, handles: &[u32], params: &[u8]) -> Vec<u8> {
        let (rc, rest) = self.run(code, handles, &[&[]], params);
        assert_eq!(rc, Rc::SUCCESS, "{rc}");
        rest
    }

    /// CreatePrimary below a hierarchy; gives handle and response parameters.
    pub(crate) fn create_primary(&mut self, hierarchy: u32, public: &[u8]) -> (u32, Vec<u8>) {
        let mut params = vec![0, 4, 0, 0, 0, 0];
        params.extend(u16::try_from(public.len()).unwrap().to_be_bytes());
        params.extend(public);
        params.extend([0, 0, 0, 0, 0, 0]);
        let rest = self.ok_auth(0x131, &[hierarchy], &params);
        (
            u32::from_be_bytes(rest[..4].try_into().unwrap()),
            rest[8..].to_vec(),
        )
    }
}

pub(crate) const OWNER: u32 = 0x4000_0001;

/// The template of an ECC P-256 storage key.
pub(crate) const ECC_STORAGE: &[u8] =
    b"\0\x23\0\x0B\0\x03\0\x72\0\0\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10\0\0\0\0";

/// The template of an RSA-2048 storage key.
pub(crate) const RSA_STORAGE: &[u8] =
    b"\0\x01\0\x0B\0\x03\0\x72\0\0\0\x06\0\x80\0\x43\0\x10\x08\0\0\0\0\0\0\0";

/// The template of an unrestricted ECDSA P-256 key.
pub(crate) const ECC_SIGNING: &[u8] =
    b"\0\x23\0\x0B\0\x04\0\x72\0\0\0\x10\0\x18\0\x0B\0\x03\0\x10\0\0\0\0";

/// The template of an unrestricted RSASSA key of 1024 bits.
pub(crate) const RSA_SIGNING: &[u8] =
    b"\0\x01\0\x0B\0\x04\0\x72\0\0\0\x10\0\x14\0\x0B\x04\0\0\0\0\0\0\0";

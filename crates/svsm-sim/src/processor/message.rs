//! What wraps a message: a header in the clear, a tag, and a payload that only guest and security processor can read.

use crate::secrets::Vmpck;
use crate::status::Status;
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, Key, KeyInit, Tag};
use core::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header of a message.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// The tag in the first 16 bytes, zeros after it.
    pub authtag: [u8; 32],
    /// The number of the message under its key; also the nonce.
    pub sequence: U64,
    /// Zero.
    pub reserved_28: U64,
    /// 1: AES-256-GCM. From here on the tag covers the header.
    pub algorithm: u8,
    /// 1.
    pub header_version: u8,
    /// 60h.
    pub header_size: U16,
    /// [`MessageType`], or one more for an answer.
    pub message_type: u8,
    /// The version of the payload.
    pub message_version: u8,
    /// The length of the payload in bytes.
    pub message_size: U16,
    /// Zero.
    pub reserved_38: U32,
    /// Which key.
    pub vmpck: u8,
    /// Zero.
    pub reserved_3d: [u8; 35],
}
const _: () = assert!(size_of::<Header>() == Header::LEN);

impl Header {
    /// Its length.
    pub const LEN: usize = 0x60;
    /// As long as a payload can be.
    pub const MAX_PAYLOAD: usize = 4096 - Self::LEN;

    /// A header for a payload of `len` bytes.
    #[must_use]
    pub fn new(message_type: u8, version: u8, sequence: u64, vmpck: u8, len: u16) -> Self {
        let mut header: Self = FromZeros::new_zeroed();
        header.sequence = U64::new(sequence);
        header.algorithm = 1;
        header.header_version = 1;
        header.header_size = U16::new(0x60);
        header.message_type = message_type;
        header.message_version = version;
        header.message_size = U16::new(len);
        header.vmpck = vmpck;
        header
    }

    /// What the tag covers beside the payload.
    fn associated_data(&self) -> &[u8] {
        self.as_bytes()
            .get(offset_of!(Self, algorithm)..)
            .unwrap_or_default()
    }

    /// The sequence number, which never comes twice under a key.
    fn nonce(&self) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = self.sequence.get().to_le_bytes();
        [a, b, c, d, e, f, g, h, 0, 0, 0, 0]
    }

    /// Encrypts `payload` and writes the tag.
    ///
    /// # Errors
    /// [`Status::InvalidParam`] where the payload is longer than the cipher allows, which no page is.
    pub fn seal(&mut self, key: &Vmpck, payload: &mut [u8]) -> Result<(), Status> {
        let tag = cipher(key)
            .encrypt_inout_detached(&self.nonce().into(), self.associated_data(), payload.into())
            .map_err(|_| Status::InvalidParam)?;
        for (to, from) in self.authtag.iter_mut().zip(tag) {
            *to = from;
        }
        Ok(())
    }

    /// Decrypts `payload`.
    ///
    /// # Errors
    /// [`Status::BadMeasurement`] if tag, header and payload do not belong together under this key.
    pub fn open(&self, key: &Vmpck, payload: &mut [u8]) -> Result<(), Status> {
        let mut tag = Tag::default();
        for (to, from) in tag.iter_mut().zip(self.authtag) {
            *to = from;
        }
        cipher(key)
            .decrypt_inout_detached(
                &self.nonce().into(),
                self.associated_data(),
                payload.into(),
                &tag,
            )
            .map_err(|_| Status::BadMeasurement)
    }
}

fn cipher(key: &Vmpck) -> Aes256Gcm {
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(key.0))
}

/// What a guest can ask. An answer's type is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// Check a CPUID table.
    CpuidRequest = 1,
    /// Derive a key.
    KeyRequest = 3,
    /// Report.
    ReportRequest = 5,
    /// Tell of the time stamp counter.
    TscInfoRequest = 17,
}

impl MessageType {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl TryFrom<u8> for MessageType {
    type Error = Status;

    /// Messages of migration are not answered, nor is what no specification names.
    fn try_from(number: u8) -> Result<Self, Status> {
        Ok(match number {
            1 => Self::CpuidRequest,
            3 => Self::KeyRequest,
            5 => Self::ReportRequest,
            17 => Self::TscInfoRequest,
            _ => return Err(Status::InvalidParam),
        })
    }
}

/// A request that came from the guest, in order.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) header: Header,
    payload: [u8; Header::MAX_PAYLOAD],
}

impl Request {
    /// Reads a page and checks what wraps the message, in the firmware's order.
    pub(super) fn open(
        page: &[u8; 4096],
        keys: &[Vmpck; 4],
        counts: &[u64; 4],
    ) -> Result<Self, Status> {
        let (header, rest) = Header::read_from_prefix(page).map_err(|_| Status::InvalidParam)?;
        let mut payload = [0; Header::MAX_PAYLOAD];
        payload.copy_from_slice(rest);
        let size = usize::from(header.message_size.get());
        let sane = header.algorithm == 1
            && header.header_version == 1
            && usize::from(header.header_size.get()) == Header::LEN
            && size != 0
            // Blocks of 16, but the second version of a key request is half a block longer.
            && size.is_multiple_of(8);
        let index = usize::from(header.vmpck);
        let (Some(key), Some(count), true) = (keys.get(index), counts.get(index), sane) else {
            return Err(Status::InvalidParam);
        };
        let ciphertext = payload.get_mut(..size).ok_or(Status::InvalidParam)?;
        header.open(key, ciphertext)?;
        // Two numbers must be left: this one, and the answer's.
        if *count >= u64::MAX - 2 || header.sequence.get() != *count + 1 {
            return Err(Status::AeadOverflow);
        }
        Ok(Self { header, payload })
    }

    /// Which key it came under.
    pub(super) fn key_index(&self) -> usize {
        usize::from(self.header.vmpck)
    }

    /// The first `len` bytes of what was asked, if there are so many, and its version is `versions` at most.
    pub(super) fn payload(&self, len: usize, versions: u8) -> Result<&[u8], Status> {
        let known = (1..=versions).contains(&self.header.message_version);
        if !known || usize::from(self.header.message_size.get()) < len {
            return Err(Status::InvalidParam);
        }
        self.payload.get(..len).ok_or(Status::InvalidParam)
    }

    /// Writes the answer: `len` bytes of `payload`, under the same key and the next number.
    pub(super) fn answer(
        &self,
        keys: &[Vmpck; 4],
        payload: &Payload,
        len: usize,
        page: &mut [u8; 4096],
    ) -> Result<(), Status> {
        let key = keys.get(self.key_index()).ok_or(Status::InvalidParam)?;
        let mut header = Header::new(
            self.header.message_type + 1,
            1,
            self.header.sequence.get() + 1,
            self.header.vmpck,
            u16::try_from(len).map_err(|_| Status::InvalidParam)?,
        );
        let mut ciphertext = payload.0;
        let body = ciphertext.get_mut(..len).ok_or(Status::InvalidParam)?;
        header.seal(key, body)?;
        let bytes = header.as_bytes().iter().chain(body.iter());
        for (to, from) in page.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(())
    }
}

/// An answer in the making: zeros until somebody says more.
#[derive(Debug)]
pub(super) struct Payload([u8; Header::MAX_PAYLOAD]);

impl Payload {
    pub(super) const fn new() -> Self {
        Self([0; Header::MAX_PAYLOAD])
    }

    /// Writes bytes at an offset. What would not fit into a page is not written; no answer is that long.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    }

    /// The status is the first field of all answers.
    pub(super) fn status(&mut self, status: Status) {
        self.put(0, &status.code().to_le_bytes());
    }
}

use core::{mem::offset_of, ops::Range};

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{Aead, AeadError, Question, ResponsePage};
use crate::{level::Vmpl, snp::secrets::Vmpck};

/// What a guest can ask. The type of an answer is one more (56860, "Message Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum MessageType {
    /// MSG_KEY_REQ: derive a key.
    Key = 3,
    /// MSG_REPORT_REQ: report.
    Report = 5,
    /// MSG_TSC_INFO_REQ: tell of the time-stamp counter.
    TscInfo = 17,
}

const ALGO_AES_256_GCM: u8 = 1;
const HDR_VERSION: u8 = 1;
const HDR_SIZE: u16 = 0x60;
/// The longest that we ask: MSG_TSC_INFO_REQ.
const MAX_QUESTION: usize = 128;

/// The header of a message (56860, "Message Header Format").
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    authtag: [u8; 16],
    reserved_10: [u8; 16],
    msg_seqno: U64,
    reserved_28: U64,
    algo: u8,
    hdr_version: u8,
    hdr_size: U16,
    msg_type: u8,
    msg_version: u8,
    msg_size: U16,
    reserved_38: U32,
    msg_vmpck: u8,
    reserved_3d: [u8; 35],
}
const _: () = {
    assert!(size_of::<Header>() == HDR_SIZE as usize);
    assert!(offset_of!(Header, algo) == 0x30);
};

impl Header {
    /// What the tag covers besides the payload: all from the algorithm on. The number is the nonce.
    fn associated(&self) -> &[u8] {
        self.as_bytes()
            .get(offset_of!(Self, algo)..)
            .unwrap_or_default()
    }

    fn nonce(&self) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = self.msg_seqno.get().to_le_bytes();
        [a, b, c, d, e, f, g, h, 0, 0, 0, 0]
    }

    /// Decrypts the answer to `request` in `page` and answers with the place of its payload; `None` if it is no such answer.
    pub(super) fn open(
        request: &Sealed,
        aead: &impl Aead,
        key: &Vmpck,
        page: &mut ResponsePage,
    ) -> Option<Range<usize>> {
        let (header, rest) = page.split_first_chunk_mut::<{ HDR_SIZE as usize }>()?;
        let header = Self::read_from_bytes(header).ok()?;
        if !header.answers(&request.header) {
            return None;
        }
        let size = usize::from(header.msg_size.get());
        let payload = rest.get_mut(..size)?;
        let (nonce, tag) = (header.nonce(), header.authtag);
        aead.open(key.expose(), &nonce, header.associated(), payload, &tag)
            .ok()?;
        let start = usize::from(HDR_SIZE);
        Some(start..start.checked_add(size)?)
    }

    /// Whether it is the header of the answer to `request`, as far as can be seen from outside.
    fn answers(&self, request: &Self) -> bool {
        // Answers to younger versions of a question may still be of the first.
        let version = self.msg_version == 1 || self.msg_version == request.msg_version;
        Some(self.msg_seqno.get()) == request.msg_seqno.get().checked_add(1)
            && self.algo == ALGO_AES_256_GCM
            && self.hdr_version == HDR_VERSION
            && self.hdr_size.get() == HDR_SIZE
            && Some(self.msg_type) == request.msg_type.checked_add(1)
            && version
            && self.msg_vmpck == request.msg_vmpck
    }
}

/// A message in the form in which the host sees it: private memory until then, and afterwards no secret.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Sealed {
    header: Header,
    payload: [u8; MAX_QUESTION],
}

impl Sealed {
    /// The question, not yet encrypted; `None` if it is too long.
    pub(super) fn new(question: &Question<'_>, level: Vmpl, number: u32) -> Option<Self> {
        let mut message = Self::new_zeroed();
        message
            .payload
            .get_mut(..question.payload.len())?
            .copy_from_slice(question.payload);
        let header = &mut message.header;
        header.msg_seqno = U64::new(number.into());
        header.algo = ALGO_AES_256_GCM;
        header.hdr_version = HDR_VERSION;
        header.hdr_size = U16::new(HDR_SIZE);
        header.msg_type = question.kind as u8;
        header.msg_version = question.version;
        header.msg_size = U16::new(question.payload.len().try_into().ok()?);
        header.msg_vmpck = level.as_u8();
        Some(message)
    }

    /// Encrypts it.
    pub(super) fn seal(&mut self, aead: &impl Aead, key: &Vmpck) -> Result<(), AeadError> {
        let Self { header, payload } = self;
        let size = usize::from(header.msg_size.get());
        let text = payload.get_mut(..size).ok_or(AeadError)?;
        header.authtag = aead.seal(key.expose(), &header.nonce(), header.associated(), text)?;
        Ok(())
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        // Numbers are made of 32 bits.
        self.header.msg_seqno.get().try_into().unwrap_or(u32::MAX)
    }

    /// What the host is shown; the page is zero behind it.
    pub(super) fn bytes(&self) -> &[u8] {
        let len = usize::from(HDR_SIZE) + usize::from(self.header.msg_size.get());
        self.as_bytes().get(..len).unwrap_or_default()
    }
}

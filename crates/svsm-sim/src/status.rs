//! How the security processor answers the host (56860, "Status Codes").

use core::fmt;

/// Why a command did nothing. Success is `Ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Status {
    /// `INVALID_GUEST_STATE`: the guest is not where this command finds it.
    InvalidGuestState = 0x02,
    /// `POLICY_FAILURE`: the guest's policy and the machine do not go together.
    PolicyFailure = 0x07,
    /// `INVALID_ADDRESS`: there is no such memory.
    InvalidAddress = 0x09,
    /// `BAD_SIGNATURE`
    BadSignature = 0x0a,
    /// `BAD_MEASUREMENT`: not the image that its owner signed, or a message with a wrong tag.
    BadMeasurement = 0x0b,
    /// `INVALID_PARAM`
    InvalidParam = 0x16,
    /// `INVALID_PAGE_SIZE`
    InvalidPageSize = 0x19,
    /// `INVALID_PAGE_STATE`
    InvalidPageState = 0x1a,
    /// `INVALID_PAGE_OWNER`: the page is another guest's.
    InvalidPageOwner = 0x1c,
    /// `AEAD_OFLOW`: a message is out of sequence, or the sequence is used up.
    AeadOverflow = 0x1d,
    /// `INVALID_KEY`: the key that was asked for is not there or not allowed.
    InvalidKey = 0x27,
}

impl Status {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidGuestState => "the guest's state does not allow the command",
            Self::PolicyFailure => "the guest's policy forbids it",
            Self::InvalidAddress => "there is no such memory",
            Self::BadSignature => "the signature is wrong",
            Self::BadMeasurement => "the measurement is not the expected one",
            Self::InvalidParam => "a parameter is wrong",
            Self::InvalidPageSize => "the page has the wrong size",
            Self::InvalidPageState => "the page has the wrong state",
            Self::InvalidPageOwner => "the page is another guest's",
            Self::AeadOverflow => "the message is out of sequence",
            Self::InvalidKey => "the key is not available",
        })
    }
}

impl core::error::Error for Status {}

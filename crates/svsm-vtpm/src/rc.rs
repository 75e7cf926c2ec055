//! Response codes (TPM 2.0 Library, Part 2, clause 6.6).

use core::fmt;

/// A response code. Format-one codes say which parameter, handle or session they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rc(u32);

macro_rules! codes {
    ($($name:ident = $value:expr),* $(,)?) => {
        #[expect(missing_docs, reason = "the specification's names, without TPM_RC_")]
        impl Rc { $(pub const $name: Self = Self($value);)* }

        impl Rc {
            /// The specification's name of the code, without `TPM_RC_` and without its number.
            pub fn name(self) -> &'static str {
                match self.base() {
                    $(Self::$name => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

codes! {
    SUCCESS = 0, BAD_TAG = 0x01E,
    // Format zero, version one: about the whole command or the TPM.
    INITIALIZE = 0x100, FAILURE = 0x101, SEQUENCE = 0x103, PRIVATE = 0x10B, HMAC = 0x119,
    DISABLED = 0x120, EXCLUSIVE = 0x121, AUTH_TYPE = 0x124, AUTH_MISSING = 0x125, POLICY = 0x126,
    PCR = 0x127, PCR_CHANGED = 0x128, UPGRADE = 0x12D, TOO_MANY_CONTEXTS = 0x12E,
    AUTH_UNAVAILABLE = 0x12F, REBOOT = 0x130, UNBALANCED = 0x131, COMMAND_SIZE = 0x142,
    COMMAND_CODE = 0x143, AUTHSIZE = 0x144, AUTH_CONTEXT = 0x145, NV_RANGE = 0x146, NV_SIZE = 0x147,
    NV_LOCKED = 0x148, NV_AUTHORIZATION = 0x149, NV_UNINITIALIZED = 0x14A, NV_SPACE = 0x14B,
    NV_DEFINED = 0x14C, BAD_CONTEXT = 0x150, CPHASH = 0x151, PARENT = 0x152, NEEDS_TEST = 0x153,
    NO_RESULT = 0x154, SENSITIVE = 0x155, READ_ONLY = 0x156,
    // Format one: about one parameter, handle or session.
    ASYMMETRIC = 0x081, ATTRIBUTES = 0x082, HASH = 0x083, VALUE = 0x084, HIERARCHY = 0x085,
    KEY_SIZE = 0x087, MGF = 0x088, MODE = 0x089, TYPE = 0x08A, HANDLE = 0x08B, KDF = 0x08C,
    RANGE = 0x08D, AUTH_FAIL = 0x08E, NONCE = 0x08F, PP = 0x090, SCHEME = 0x092, SIZE = 0x095,
    SYMMETRIC = 0x096, TAG = 0x097, SELECTOR = 0x098, INSUFFICIENT = 0x09A, SIGNATURE = 0x09B,
    KEY = 0x09C, POLICY_FAIL = 0x09D, INTEGRITY = 0x09F, TICKET = 0x0A0, RESERVED_BITS = 0x0A1,
    BAD_AUTH = 0x0A2, EXPIRED = 0x0A3, POLICY_CC = 0x0A4, BINDING = 0x0A5, CURVE = 0x0A6,
    ECC_POINT = 0x0A7, PARMS = 0x0AA, EXT_MU = 0x0AB, ONE_SHOT_SIGNATURE = 0x0AC,
    SIGN_CONTEXT_KEY = 0x0AD, CHANNEL = 0x0B0, CHANNEL_KEY = 0x0B1,
    // Format zero, severity warning.
    CONTEXT_GAP = 0x901, OBJECT_MEMORY = 0x902, SESSION_MEMORY = 0x903, MEMORY = 0x904,
    SESSION_HANDLES = 0x905, OBJECT_HANDLES = 0x906, LOCALITY = 0x907, YIELDED = 0x908,
    CANCELED = 0x909, TESTING = 0x90A, REFERENCE_H0 = 0x910, REFERENCE_S0 = 0x918,
    NV_RATE = 0x920, LOCKOUT = 0x921, RETRY = 0x922, NV_UNAVAILABLE = 0x923,
}

impl Rc {
    const FORMAT_ONE: u32 = 0x80;
    const PARAMETER: u32 = 0x40;
    const SESSION: u32 = 0x800;
    const NUMBERED: u32 = 0xF40;

    /// The code with this value on the wire.
    pub const fn from_u32(value: u32) -> Self {
        Self(value)
    }

    /// Its value on the wire.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The code without the number of its parameter, handle or session.
    pub const fn base(self) -> Self {
        if self.0 & Self::FORMAT_ONE != 0 {
            Self(self.0 & !Self::NUMBERED)
        } else if self.0 & !7 == Self::REFERENCE_H0.0 {
            Self::REFERENCE_H0
        } else if self.0 & !7 == Self::REFERENCE_S0.0 {
            Self::REFERENCE_S0
        } else {
            self
        }
    }

    /// Says that the code is about parameter `n` (from 1), if it can say so and does not yet.
    pub const fn param(self, n: u32) -> Self {
        self.numbered(Self::PARAMETER | n << 8)
    }

    /// Says that the code is about handle `n` (from 1).
    pub const fn handle(self, n: u32) -> Self {
        if self.0 == Self::REFERENCE_H0.0 {
            Self(self.0 + n.saturating_sub(1))
        } else {
            self.numbered(n << 8)
        }
    }

    /// Says that the code is about session `n` (from 1).
    pub const fn session(self, n: u32) -> Self {
        if self.0 == Self::REFERENCE_S0.0 {
            Self(self.0 + n.saturating_sub(1))
        } else {
            self.numbered(Self::SESSION | n << 8)
        }
    }

    const fn numbered(self, number: u32) -> Self {
        if self.0 & Self::FORMAT_ONE != 0 && self.0 & Self::NUMBERED == 0 {
            Self(self.0 | number)
        } else {
            self
        }
    }
}

impl fmt::Display for Rc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0 >> 8 & 0xF;
        write!(f, "{:#05x} {}", self.0, self.name())?;
        match self.0 {
            c if c & Self::FORMAT_ONE == 0 || c & Self::NUMBERED == 0 => Ok(()),
            c if c & Self::PARAMETER != 0 => write!(f, " of parameter {number}"),
            c if c & Self::SESSION != 0 => write!(f, " of session {}", number & 7),
            _ => write!(f, " of handle {number}"),
        }
    }
}

impl core::error::Error for Rc {}

/// Why a command handler ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The command failed.
    Code(Rc),
    /// The command asked for long work; run it again when that is done.
    Work,
}

impl From<Rc> for Stop {
    fn from(code: Rc) -> Self {
        Self::Code(code)
    }
}

/// Numbers the error of a check after the parameter, handle or session that was checked.
pub(crate) trait About<T> {
    fn param(self, n: u32) -> Result<T, Rc>;
    fn handle(self, n: u32) -> Result<T, Rc>;
    fn session(self, n: u32) -> Result<T, Rc>;
}

impl<T> About<T> for Result<T, Rc> {
    fn param(self, n: u32) -> Self {
        self.map_err(|rc| rc.param(n))
    }

    fn handle(self, n: u32) -> Self {
        self.map_err(|rc| rc.handle(n))
    }

    fn session(self, n: u32) -> Self {
        self.map_err(|rc| rc.session(n))
    }
}

/// `Ok` if `held`, else the code.
pub(crate) const fn ensure(held: bool, otherwise: Rc) -> Result<(), Rc> {
    if held { Ok(()) } else { Err(otherwise) }
}

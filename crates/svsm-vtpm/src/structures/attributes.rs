//! Attribute words: objects, sessions, NV indices, localities, commands.

use bitflags::bitflags;

use crate::{
    rc::Rc,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

bitflags! {
    /// `TPMA_OBJECT`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct ObjectAttributes: u32 {
        const FIXED_TPM = 1 << 1;
        const ST_CLEAR = 1 << 2;
        const FIXED_PARENT = 1 << 4;
        const SENSITIVE_DATA_ORIGIN = 1 << 5;
        const USER_WITH_AUTH = 1 << 6;
        const ADMIN_WITH_POLICY = 1 << 7;
        const NO_DA = 1 << 10;
        const ENCRYPTED_DUPLICATION = 1 << 11;
        const RESTRICTED = 1 << 16;
        const DECRYPT = 1 << 17;
        /// Signs, or, for a symmetric cipher, encrypts.
        const SIGN = 1 << 18;
        const X509_SIGN = 1 << 19;
    }

    /// `TPMA_SESSION`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct SessionAttributes: u8 {
        const CONTINUE = 1 << 0;
        const AUDIT_EXCLUSIVE = 1 << 1;
        const AUDIT_RESET = 1 << 2;
        const DECRYPT = 1 << 5;
        const ENCRYPT = 1 << 6;
        const AUDIT = 1 << 7;
    }

    /// `TPMA_NV`, without the index type in bits 4 to 7.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct NvAttributes: u32 {
        const PP_WRITE = 1 << 0;
        const OWNER_WRITE = 1 << 1;
        const AUTH_WRITE = 1 << 2;
        const POLICY_WRITE = 1 << 3;
        const TYPE = 0xF << 4;
        const POLICY_DELETE = 1 << 10;
        const WRITE_LOCKED = 1 << 11;
        const WRITE_ALL = 1 << 12;
        const WRITE_DEFINE = 1 << 13;
        const WRITE_ST_CLEAR = 1 << 14;
        const GLOBAL_LOCK = 1 << 15;
        const PP_READ = 1 << 16;
        const OWNER_READ = 1 << 17;
        const AUTH_READ = 1 << 18;
        const POLICY_READ = 1 << 19;
        const NO_DA = 1 << 25;
        const ORDERLY = 1 << 26;
        const CLEAR_ST_CLEAR = 1 << 27;
        const READ_LOCKED = 1 << 28;
        const WRITTEN = 1 << 29;
        const PLATFORM_CREATE = 1 << 30;
        const READ_ST_CLEAR = 1 << 31;
    }
}

macro_rules! checked {
    ($($t:ty: $bits:ty),*) => { $(
        impl Unmarshal for $t {
            fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
                Self::from_bits(r.read::<$bits>()?).ok_or(Rc::RESERVED_BITS)
            }
        }
        impl Marshal for $t {
            fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
                w.put(&self.bits())
            }
        }
    )* };
}
checked!(ObjectAttributes: u32, SessionAttributes: u8, NvAttributes: u32);

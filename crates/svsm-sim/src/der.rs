//! As much of DER as certificates need (ITU-T X.690): a writer for ours and a reader for anybody's.

#[cfg(feature = "verify")]
pub(crate) mod read;
#[cfg(feature = "processor")]
pub(crate) mod write;

/// Tags.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    #[cfg(feature = "processor")]
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    #[cfg(feature = "processor")]
    pub(crate) const IA5_STRING: u8 = 0x16;
    #[cfg(feature = "processor")]
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const SEQUENCE: u8 = 0x30;
    #[cfg(feature = "processor")]
    pub(crate) const SET: u8 = 0x31;
    /// The version of a certificate.
    pub(crate) const VERSION: u8 = 0xa0;
    /// The extensions of a certificate.
    pub(crate) const EXTENSIONS: u8 = 0xa3;
}

/// Object identifiers, encoded.
pub(crate) mod oid {
    /// id-ecPublicKey
    pub(crate) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// secp384r1
    pub(crate) const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    /// ecdsa-with-SHA384
    pub(crate) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
    /// rsaEncryption
    #[cfg(feature = "verify")]
    pub(crate) const RSA_ENCRYPTION: &[u8] =
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    #[cfg(feature = "processor")]
    pub(crate) const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
    #[cfg(feature = "processor")]
    pub(crate) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    #[cfg(feature = "processor")]
    pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    /// Extensions of a VCEK's certificate (57230, "VCEK Certificate").
    #[cfg(feature = "processor")]
    pub(crate) const STRUCTURE_VERSION: &[u8] =
        &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01, 0x01];
    #[cfg(feature = "processor")]
    pub(crate) const PRODUCT_NAME: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01, 0x02];
    /// With one more number: a security version.
    pub(crate) const SPL: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01, 0x03];
    pub(crate) const HARDWARE_ID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01, 0x04];
}

/// Security versions as certificates number them.
pub(crate) mod spl {
    pub(crate) const BOOT_LOADER: u8 = 1;
    pub(crate) const TEE: u8 = 2;
    pub(crate) const SNP: u8 = 3;
    #[cfg(feature = "processor")]
    pub(crate) const RESERVED: [u8; 4] = [4, 5, 6, 7];
    pub(crate) const MICROCODE: u8 = 8;
}

//! The structures of Part 2 that commands carry: bytes as specified on one side, checked values on the other.

pub(crate) mod attest; // TPMS_ATTEST, TPMS_CREATION_DATA, tickets
pub(crate) mod attributes; // TPMA_*
pub(crate) mod der; // certificates
#[cfg_attr(not(feature = "pqc"), path = "structures/no_lattice.rs")]
pub(crate) mod lattice; // keys and signatures of ML-KEM and ML-DSA
pub(crate) mod nv; // TPMS_NV_PUBLIC
pub(crate) mod pcr; // TPML_PCR_SELECTION
pub(crate) mod public; // TPMT_PUBLIC
pub(crate) mod scheme; // symmetric definitions, signing, decryption and key derivation schemes
pub(crate) mod sensitive; // TPMT_SENSITIVE, TPMS_SENSITIVE_CREATE
pub(crate) mod signature; // TPMT_SIGNATURE

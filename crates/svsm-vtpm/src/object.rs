//! Objects: the rules they obey, how they are made, and how they leave the TPM and come back.

pub(crate) mod create; // keys and data, new or from a seed
#[cfg_attr(not(feature = "pqc"), path = "object/no_lattice.rs")]
mod lattice; // keys of ML-KEM and ML-DSA
pub(crate) mod protect; // private areas: inner and outer wrapping, credentials
pub(crate) mod rules; // which public areas make sense
pub(crate) mod secret; // secrets exchanged by means of a key
pub(crate) mod store; // objects and sessions as bytes

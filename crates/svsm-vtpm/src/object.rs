//! Objects: the rules they obey, how they are made, and how they leave the TPM and come back.

pub(crate) mod secret; // secrets exchanged by means of a key
pub(crate) mod store; // objects and sessions as bytes

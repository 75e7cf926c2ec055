//! The endorsement key that the SVSM's attestation report vouches for.

use alloc::vec::Vec;

use svsm_vtpm::Tpm;

/// `TPM2_Startup(CLEAR)`
const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0c\0\0\x01\x44\0\0";

/// `TPM2_CreatePrimary` in the endorsement hierarchy with the template for P-256 (TCG EK Credential Profile, "Template L-2"):
/// what other software makes of this template is the same key.
const CREATE: &[&[u8]] = &[
    b"\x80\x02\0\0\0\xa3\0\0\x01\x31\x40\x00\x00\x0b", // session tag, size, command, TPM_RH_ENDORSEMENT
    b"\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0",             // the empty password
    b"\0\x04\0\0\0\0",                                 // no authorization value, no data
    b"\0\x7a\0\x23\0\x0b\0\x03\0\xb2",                 // size, TPM_ALG_ECC, SHA-256, attributes
    b"\0\x20",                                         // PolicyA
    b"\x83\x71\x97\x67\x44\x84\xb3\xf8\x1a\x90\xcc\x8d\x46\xa5\xd7\x24",
    b"\xfd\x52\xd7\x6e\x06\x52\x0b\x64\xf2\xa1\xda\x1b\x33\x14\x69\xaa",
    b"\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10", // AES-128 CFB, no scheme, P-256, no KDF
    b"\0\x20",
    &[0; 32],
    b"\0\x20",
    &[0; 32],
    b"\0\0\0\0\0\0", // no outside information, no PCRs
];

/// The public part of the key, as `TPMT_PUBLIC`; `None` if there is none. The TPM has been started afterwards.
pub(super) fn public(tpm: &mut Tpm<'_>) -> Option<Vec<u8>> {
    succeeds(tpm.execute(0, STARTUP).ok()?)?;
    let response = tpm.execute(0, &CREATE.concat()).ok()?;
    succeeds(response)?;
    // Header (10), handle (4), size of the parameters (4), size of the public area (2), public area.
    let (size, rest) = response.get(18..)?.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*size)))
        .map(<[u8]>::to_vec)
}

fn succeeds(response: &[u8]) -> Option<()> {
    (response.get(6..10)? == [0; 4]).then_some(())
}

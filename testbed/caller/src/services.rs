//! Which services there are, and what they say of themselves.

use crate::bare::{Page, read, say, write};
use crate::call::{ATTEST, CORE, QUERY, SUCCESS, Svsm, VTPM};
use crate::tpm;

static OPERATION: Page = Page::new();
static REPORT: Page = Page::new();
static MANIFEST: Page = Page::new();

/// The vTPM's name in the attestation protocol, c476f1eb-0123-45a5-9641-b4e7dde5bfe3 (58019).
const VTPM_NAME: [u8; 16] = [
    0xeb, 0xf1, 0x76, 0xc4, 0x23, 0x01, 0xa5, 0x45, 0x96, 0x41, 0xb4, 0xe7, 0xdd, 0xe5, 0xbf, 0xe3,
];
const NONCE: u64 = 0x80;

pub(crate) fn look(svsm: &mut Svsm) -> Result<(), &'static str> {
    for (protocol, versions) in [
        (CORE, 1 << 32 | 1),
        (ATTEST, 1 << 32 | 1),
        (VTPM, 1 << 32 | 1),
        (3, 0),
        (4, 0),
        (0x8000_0000, 0),
    ] {
        let ([code, seen, ..], _) = svsm.call(CORE, QUERY, [protocol << 32 | 1, 0, 0, 0]);
        if code != SUCCESS || seen != versions {
            return Err("versions of a protocol");
        }
    }
    let key = attested_key(svsm)?;
    let made = tpm::endorsement_key(svsm)?;
    if key != made.as_slice() {
        return Err("the attested key is not the TPM's");
    }
    say(format_args!(
        "caller: services: the report vouches for the endorsement key that the TPM makes"
    ));
    tpm::change_endorsement(svsm)?;
    let key = attested_key(svsm)?;
    if key == made.as_slice() || key != tpm::endorsement_key(svsm)?.as_slice() {
        return Err("the attested key does not follow the TPM's");
    }
    say(format_args!(
        "caller: services: the report follows a change of the endorsement seed"
    ));
    Ok(())
}

/// The key that the SVSM's report vouches for.
fn attested_key(svsm: &mut Svsm) -> Result<&'static [u8], &'static str> {
    let at = OPERATION.at();
    for (offset, value) in [
        (0x00, REPORT.at()),
        (0x08, 4096),
        (0x10, at + NONCE),
        (0x18, 32),
        (0x20, MANIFEST.at()),
        (0x28, 4096),
        (0x30, 0),
        (0x38, 0),
    ] {
        write(at + offset, value);
    }
    write(at + 0x40, VTPM_NAME);
    write(at + 0x50, 0_u64);
    write(at + NONCE, [0x5a_u8; 32]);
    let ([code, bytes, ..], _) = svsm.call(ATTEST, 1, [at, 0, 0, 0]);
    if code != SUCCESS || bytes == 0 || bytes > 4096 {
        return Err("the attestation of the TPM");
    }
    // VMPL of the report, and its data.
    if read::<u32>(REPORT.at() + 0x30) != 0 || read::<[u8; 64]>(REPORT.at() + 0x50) == [0; 64] {
        return Err("the report");
    }
    let len = usize::try_from(bytes).map_err(|_| "the manifest's size")?;
    Ok(crate::bare::bytes(&MANIFEST, len))
}

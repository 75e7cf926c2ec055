//! Commands to the TPM.

use crate::bare::{Page, bytes, read, say, ticks, write};
use crate::call::{SUCCESS, Svsm, VTPM};

static BUFFER: Page = Page::new();

const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0c\0\0\x01\x44\0\0";
const RANDOM: &[u8] = b"\x80\x01\0\0\0\x0c\0\0\x01\x7b\0\x10";
/// PCR 16, bank SHA-256.
const READ_PCR: &[u8] = b"\x80\x01\0\0\0\x14\0\0\x01\x7e\0\0\0\x01\0\x0b\x03\0\0\x01";
const EXTEND_PCR: &[u8] =
    b"\x80\x02\0\0\0\x41\0\0\x01\x82\0\0\0\x10\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\
    \0\0\0\x01\0\x0b0123456789abcdef0123456789abcdef";
/// A command code that no TPM has.
const NO_COMMAND: &[u8] = b"\x80\x01\0\0\0\x0a\0\0\x7f\xff";

/// `TPM2_CreatePrimary` of an endorsement key, up to the template's own parameters: session tag, size, command, hierarchy;
/// the empty password; no data; size of the template.
const fn create(size: u8, template: u8) -> [u8; 35] {
    let mut head = *b"\x80\x02\0\0\0\0\0\0\x01\x31\x40\0\0\x0b\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\0\x04\0\0\0\0\0\0";
    head[5] = size;
    head[34] = template;
    head
}

const POLICY: &[u8] = b"\0\x20\x83\x71\x97\x67\x44\x84\xb3\xf8\x1a\x90\xcc\x8d\x46\xa5\xd7\x24\
    \xfd\x52\xd7\x6e\x06\x52\x0b\x64\xf2\xa1\xda\x1b\x33\x14\x69\xaa";

/// The public part of the endorsement key for P-256, as the TPM makes it.
pub(crate) fn endorsement_key(svsm: &mut Svsm) -> Result<Key, &'static str> {
    start(svsm)?;
    let parts: [&[u8]; 8] = [
        &create(0xa3, 0x7a),
        b"\0\x23\0\x0b\0\x03\0\xb2",
        POLICY,
        b"\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10\0\x20",
        &[0; 32],
        b"\0\x20",
        &[0; 32],
        &[0; 6],
    ];
    let (response, _) = send(svsm, &parts)?;
    let public = response.get(18..).ok_or("the key")?;
    let (size, public) = public.split_first_chunk().ok_or("the key")?;
    let len = usize::from(u16::from_be_bytes(*size));
    let mut key = Key {
        bytes: [0; 256],
        len,
    };
    let place = key.bytes.get_mut(..len).ok_or("the key's size")?;
    place.copy_from_slice(public.get(..len).ok_or("the key's size")?);
    flush(svsm)?;
    Ok(key)
}

/// `TPM2_ChangeEPS`, by the platform's empty password: another seed, so another endorsement key.
pub(crate) fn change_endorsement(svsm: &mut Svsm) -> Result<(), &'static str> {
    let command = b"\x80\x02\0\0\0\x1b\0\0\x01\x24\x40\0\0\x0c\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0";
    send(svsm, &[command]).map(drop)
}

/// The public part of a key.
pub(crate) struct Key {
    bytes: [u8; 256],
    len: usize,
}

impl Key {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

pub(crate) fn try_out(svsm: &mut Svsm) -> Result<(), &'static str> {
    let ([code, commands, features, ..], _) = svsm.call(VTPM, 0, [0; 4]);
    if (code, commands, features) != (SUCCESS, 1 << 8, 0) {
        return Err("what the TPM takes");
    }
    start(svsm)?;
    let mut drawn = [[0; 16]; 2];
    for random in &mut drawn {
        let (response, _) = send(svsm, &[RANDOM])?;
        *random = *response.last_chunk().ok_or("random bytes")?;
    }
    if drawn[0] == drawn[1] {
        return Err("random bytes that come twice");
    }
    let pcr = |svsm: &mut Svsm| -> Result<[u8; 32], &'static str> {
        let (response, _) = send(svsm, &[READ_PCR])?;
        response.last_chunk().copied().ok_or("a PCR")
    };
    let before = pcr(svsm)?;
    send(svsm, &[EXTEND_PCR])?;
    if before != [0; 32] || pcr(svsm)? == before {
        return Err("a PCR that does not change");
    }
    if send(svsm, &[NO_COMMAND]).is_ok()
        || svsm.call(VTPM, 1, [BUFFER.at() + 1, 0, 0, 0]).0[0] == SUCCESS
    {
        return Err("a command that makes no sense");
    }
    // RSA-2048: a search that takes many steps, so the SVSM comes back before it is done.
    let parts: [&[u8]; 6] = [
        &create(0x63, 0x3a),
        b"\0\x01\0\x0b\0\x03\0\xb2",
        POLICY,
        b"\0\x06\0\x80\0\x43\0\x10\x08\0\0\0\0\0",
        b"\0\0",
        &[0; 6],
    ];
    let before = ticks();
    let (response, again) = send(svsm, &parts)?;
    let bytes = response.len();
    if again == 0 {
        return Err("a key that was there at once");
    }
    flush(svsm)?;
    say(format_args!(
        "caller: tpm: an RSA key of {bytes} bytes took {} calls and {} ticks",
        again + 1,
        ticks() - before
    ));
    Ok(())
}

/// `TPM2_Startup`, which may be done only once after power came.
fn start(svsm: &mut Svsm) -> Result<(), &'static str> {
    let (_, code, _) = exchange(svsm, &[STARTUP])?;
    match code {
        // TPM_RC_INITIALIZE
        0 | 0x100 => Ok(()),
        _ => Err("the TPM's startup"),
    }
}

/// `TPM2_FlushContext` of the first transient object.
fn flush(svsm: &mut Svsm) -> Result<(), &'static str> {
    send(svsm, &[b"\x80\x01\0\0\0\x0e\0\0\x01\x65\x80\0\0\0"]).map(drop)
}

/// Sends a command that must succeed.
fn send(svsm: &mut Svsm, parts: &[&[u8]]) -> Result<(&'static [u8], u64), &'static str> {
    match exchange(svsm, parts)? {
        (response, 0, again) => Ok((response, again)),
        _ => Err("a response code"),
    }
}

/// Sends a command. Answers with the response, its code, and how often the call was repeated.
pub(crate) fn exchange(
    svsm: &mut Svsm,
    parts: &[&[u8]],
) -> Result<(&'static [u8], u32, u64), &'static str> {
    let at = BUFFER.at();
    let mut len = 0_u32;
    for byte in parts.iter().copied().flatten() {
        write(at + 9 + u64::from(len), *byte);
        len += 1;
    }
    write(at, 8_u32);
    write(at + 4, 0_u8);
    write(at + 5, len);
    let ([code, ..], again) = svsm.call(VTPM, 1, [at, 0, 0, 0]);
    if code != SUCCESS {
        return Err("a call of the TPM");
    }
    let len = usize::try_from(read::<u32>(at)).map_err(|_| "a response's size")?;
    let response = bytes(&BUFFER, len + 4)
        .get(4..)
        .ok_or("a response's size")?;
    let code = response.get(6..).and_then(|rest| rest.first_chunk());
    let code = code.ok_or("a response without a code")?;
    Ok((response, u32::from_be_bytes(*code), again))
}

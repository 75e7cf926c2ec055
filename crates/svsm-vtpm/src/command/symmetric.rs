//! Symmetric primitives (clause 15), but for hashes.

use super::{Call, hash_hmac::BUFFER_MAX};
use crate::{
    alg::{Alg, Mode},
    bytes::Bytes,
    rc::{Rc, Stop, ensure},
    state::Core,
    structures::{attributes::ObjectAttributes as A, public::Params, scheme::KeyMode},
    wire::Reader,
};

/// `TPMI_ALG_CIPHER_MODE+`.
fn read_mode(r: &mut Reader<'_>) -> Result<Option<Mode>, Rc> {
    match r.read::<Alg>()? {
        Alg::NULL => Ok(None),
        alg => Mode::from_alg(alg).map(Some).ok_or(Rc::MODE),
    }
}

/// TPM2_EncryptDecrypt (clause 15.2).
pub(crate) fn encrypt_decrypt(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let decrypt: bool = call.param()?;
    let mode = call.param_with(read_mode)?;
    let iv: Bytes<16> = call.param()?;
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    call.end()?;
    crypt(core, call, decrypt, mode, &iv, data, [2, 3, 4])
}

/// TPM2_EncryptDecrypt2 (clause 15.3).
pub(crate) fn encrypt_decrypt2(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    let decrypt: bool = call.param()?;
    let mode = call.param_with(read_mode)?;
    let iv: Bytes<16> = call.param()?;
    call.end()?;
    crypt(core, call, decrypt, mode, &iv, data, [3, 4, 1])
}

/// Both, with the numbers of the parameters for mode, start value and data.
fn crypt(
    core: &Core<'_>,
    call: &mut Call<'_>,
    decrypt: bool,
    asked: Option<Mode>,
    iv: &Bytes<16>,
    data: &[u8],
    numbers: [u32; 3],
) -> Result<(), Stop> {
    let [mode_at, iv_at, data_at] = numbers;
    let object = core.object_of(call.entity(0)).ok_or(Rc::KEY.handle(1))?;
    let Params::SymCipher(cipher) = object.public.params else {
        return Err(Rc::KEY.handle(1).into());
    };
    ensure(!object.has(A::RESTRICTED), Rc::ATTRIBUTES.handle(1))?;
    let needed = if decrypt { A::DECRYPT } else { A::SIGN };
    ensure(object.has(needed), Rc::ATTRIBUTES.handle(1))?;
    let mode = match (cipher.mode, asked) {
        (KeyMode::Any, Some(asked)) => asked,
        (KeyMode::Chained(own), asked) if asked.is_none_or(|asked| asked == own) => own,
        (KeyMode::Cmac, _) => return Err(Rc::MODE.handle(1).into()),
        _ => return Err(Rc::MODE.param(mode_at).into()),
    };
    let iv_len = if mode == Mode::Ecb { 0 } else { 16 };
    ensure(iv.len() == iv_len, Rc::SIZE.param(iv_at))?;
    let blocks = matches!(mode, Mode::Ecb | Mode::Cbc);
    ensure(
        !blocks || data.len().is_multiple_of(16),
        Rc::SIZE.param(data_at),
    )?;
    let key = object.sensitive.as_ref().ok_or(Rc::KEY.handle(1))?;
    let mut chain = [0; 16];
    chain
        .iter_mut()
        .zip(iv.as_slice())
        .for_each(|(to, from)| *to = *from);
    call.out.sized(data)?;
    let out = call.out.written_mut().get_mut(2..).unwrap_or_default();
    if decrypt {
        core.crypto
            .decrypt(mode, key.secret.as_slice(), &mut chain, out);
    } else {
        core.crypto
            .encrypt(mode, key.secret.as_slice(), &mut chain, out);
    }
    Ok(call.out.sized(chain.get(..iv_len).unwrap_or_default())?)
}

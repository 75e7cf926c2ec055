//! Key encapsulation (version 1.85, clauses 14.10 and 14.11), of which this TPM has ML-KEM.

use zeroize::Zeroizing;

use super::Call;
use crate::{
    crypto::{KEM_SEED_LEN, KemCiphertext, KemSet},
    rc::{Rc, Stop, ensure},
    state::{Core, entity::Entity, object::Object},
    structures::{
        attributes::ObjectAttributes as A,
        lattice::{LatticeKey, LatticeParams},
        public::{Params, Unique},
    },
};

/// The parameter set and the public key of a key that may be used so.
fn kem_key<'c>(
    core: &'c Core<'_>,
    entity: Entity,
) -> Result<(&'c Object, KemSet, &'c LatticeKey), Rc> {
    let object = core.object_of(entity).ok_or(Rc::KEY.handle(1))?;
    let (Params::Lattice(LatticeParams::Kem { set, .. }), Unique::Lattice(key)) =
        (&object.public.params, &object.public.unique)
    else {
        return Err(Rc::KEY.handle(1));
    };
    let may = object.has(A::DECRYPT) && !object.has(A::RESTRICTED);
    ensure(may, Rc::ATTRIBUTES.handle(1))?;
    Ok((object, *set, key))
}

/// TPM2_Encapsulate (clause 14.10).
pub(crate) fn encapsulate(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    // Nothing is drawn for a key that may not be used so.
    kem_key(core, call.entity(0))?;
    let mut random = Zeroizing::new([0; 32]);
    core.random(&mut *random)?;
    let (_, set, key) = kem_key(core, call.entity(0))?;
    let encapsulated = core.lattices()?.encapsulate(set, key.as_slice(), &random);
    let (shared, ciphertext) = encapsulated.ok_or(Rc::KEY.handle(1))?;
    let shared = Zeroizing::new(shared);
    call.out.sized(&*shared)?;
    Ok(call.put(&ciphertext)?)
}

/// TPM2_Decapsulate (clause 14.11).
pub(crate) fn decapsulate(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let ciphertext: KemCiphertext = call.param()?;
    call.end()?;
    let (object, set, _) = kem_key(core, call.entity(0))?;
    let sensitive = object.sensitive.as_ref().ok_or(Rc::KEY.handle(1))?;
    let seed: &[u8; KEM_SEED_LEN] = sensitive
        .secret
        .as_slice()
        .first_chunk()
        .ok_or(Rc::KEY.handle(1))?;
    // Whether a ciphertext of the right length is right, nobody is told (FIPS 203, section 6.3).
    let shared = core
        .lattices()?
        .decapsulate(set, seed, ciphertext.as_slice())
        .ok_or(Rc::SIZE.param(1))?;
    let shared = Zeroizing::new(shared);
    Ok(call.out.sized(&*shared)?)
}

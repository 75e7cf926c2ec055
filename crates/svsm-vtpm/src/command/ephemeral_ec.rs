//! Ephemeral keys: commitments for anonymous signatures and two-phase exchanges (clause 19; clause 14.7).

use super::{Call, asymmetric::exchange_key};
use crate::{
    alg::{Alg, Curve, HashAlg},
    bytes::Bytes,
    crypto::{EccNumber, Point, kdf},
    rc::{Rc, Stop, ensure},
    state::{Core, entity::Entity, selftest::Tests},
    structures::{
        attributes::ObjectAttributes as A,
        public::{Params, Unique},
        scheme::Scheme,
    },
};

/// Commitments that can be outstanding (`TPM_PT_SPLIT_MAX`).
pub(crate) const COMMITMENTS: u64 = 64;

impl Core<'_> {
    /// The scalar of a commitment, which the key and the counter determine until the next reset.
    fn commitment(&self, curve: Curve, name: &[u8], counter: u64) -> EccNumber {
        let mut buffer = [0u8; 72];
        let len = curve.bytes() + 6;
        let out = buffer.get_mut(..len.min(72)).unwrap_or_default();
        let bits = u32::try_from(out.len() * 8).unwrap_or(0);
        kdf::kdfa(
            self.crypto,
            HashAlg::Sha512,
            self.reset.commit_nonce.as_slice(),
            "ECDAA Commit",
            [name, &counter.to_be_bytes()],
            bits,
            out,
        );
        // The first of them that is a scalar; nearly always that is the first.
        let mut k =
            EccNumber::new(out.get(..curve.bytes()).unwrap_or_default()).unwrap_or_default();
        if curve == Curve::P521
            && let Some(first) = k.as_mut_slice().first_mut()
        {
            *first &= 1;
        }
        self.crypto.reduce(curve, k.as_slice())
    }

    /// Makes the next commitment and gives its counter.
    fn new_commitment(&mut self, curve: Curve, name: &[u8]) -> (EccNumber, u16) {
        let counter = self.reset.commit_counter;
        self.reset.commit_counter += 1;
        self.mark_commitment(counter, true);
        (
            self.commitment(curve, name, counter),
            (counter & 0xFFFF) as u16,
        )
    }

    fn mark_commitment(&mut self, counter: u64, open: bool) {
        let place = (counter % COMMITMENTS) as usize;
        if let Some(octet) = self.reset.commit_used.get_mut(place / 8) {
            *octet = *octet & !(1 << (place % 8)) | u8::from(open) << (place % 8);
        }
    }

    /// The scalar of a commitment that was not used yet; it cannot be used again, as that would give the key away.
    pub(crate) fn take_commitment(
        &mut self,
        entity: Entity,
        counter: u16,
    ) -> Result<EccNumber, Rc> {
        let object = self.object_of(entity).ok_or(Rc::KEY)?;
        let Params::Ecc { curve, .. } = object.public.params else {
            return Err(Rc::KEY);
        };
        let name = object.name.clone();
        // The full counter: the latest that ends like this.
        let next = self.reset.commit_counter;
        let mut full = next & !0xFFFF | u64::from(counter);
        if full >= next {
            full = full.checked_sub(0x1_0000).ok_or(Rc::VALUE)?;
        }
        ensure(next - full <= COMMITMENTS, Rc::VALUE)?;
        let place = (full % COMMITMENTS) as usize;
        let open = self
            .reset
            .commit_used
            .get(place / 8)
            .is_some_and(|o| o & 1 << (place % 8) != 0);
        ensure(open, Rc::VALUE)?;
        self.mark_commitment(full, false);
        Ok(self.commitment(curve, name.as_slice(), full))
    }
}

/// TPM2_Commit (clause 19.2).
pub(crate) fn commit(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let p1: Point = call.param_with(|r| {
        // A point of size zero is allowed, and means none.
        let len = u16::from_be_bytes(*r.rest().first_chunk().ok_or(Rc::INSUFFICIENT)?);
        if len == 0 {
            r.read::<u16>().map(|_| Point::default())
        } else {
            r.sized_as()
        }
    })?;
    let s2: Bytes<128> = call.param()?;
    let y2: EccNumber = call.param()?;
    call.end()?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::KEY.handle(1))?;
    let (Params::Ecc { scheme, curve, .. }, Unique::Ecc(_)) =
        (&object.public.params, &object.public.unique)
    else {
        return Err(Rc::KEY.handle(1).into());
    };
    let (scheme, curve) = (*scheme, *curve);
    ensure(matches!(scheme, Scheme::EcDaa(..)), Rc::SCHEME.handle(1))?;
    ensure(object.has(A::SIGN), Rc::ATTRIBUTES.handle(1))?;
    let hash = object.public.name_alg.ok_or(Rc::KEY.handle(1))?;
    let sensitive = object.sensitive.clone().ok_or(Rc::KEY.handle(1))?;
    let name = object.name.clone();
    let mut d: EccNumber = sensitive.secret.resized();
    d.pad_front(curve.bytes());
    ensure(s2.is_empty() == y2.is_empty(), Rc::SIZE.param(3))?;
    let crypto = core.crypto;
    let has_p1 = !(p1.x.is_empty() && p1.y.is_empty());
    if has_p1 {
        ensure(crypto.contains(curve, &p1), Rc::ECC_POINT.param(1))?;
    }
    let p2 = if s2.is_empty() {
        None
    } else {
        let x = crypto.hash(hash, &[s2.as_slice()]);
        let mut x: EccNumber = x.resized();
        x.pad_front(curve.bytes());
        let point = Point { x, y: y2 };
        ensure(crypto.contains(curve, &point), Rc::ECC_POINT.param(2))?;
        Some(point)
    };
    let (r, counter) = core.new_commitment(curve, name.as_slice());
    let (mut k, mut l, mut e) = (Point::default(), Point::default(), Point::default());
    if let Some(p2) = &p2 {
        k = crypto.mul(curve, &d, Some(p2)).ok_or(Rc::NO_RESULT)?;
        l = crypto.mul(curve, &r, Some(p2)).ok_or(Rc::NO_RESULT)?;
    }
    if has_p1 {
        e = crypto.mul(curve, &r, Some(&p1)).ok_or(Rc::NO_RESULT)?;
    } else if p2.is_none() {
        e = crypto.mul(curve, &r, None).ok_or(Rc::NO_RESULT)?;
    }
    for point in [k, l, e] {
        call.out.sized_as(&point)?;
    }
    Ok(call.put(&counter)?)
}

/// TPM2_EC_Ephemeral (clause 19.3).
pub(crate) fn ephemeral(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let curve: Curve = call.param()?;
    call.end()?;
    core.require(Tests::of_curve(curve))?;
    // Not bound to a key: the curve stands for a name.
    let (k, counter) = core.new_commitment(curve, &curve.id().to_be_bytes());
    let point = core.crypto.mul(curve, &k, None).ok_or(Rc::NO_RESULT)?;
    call.out.sized_as(&point)?;
    Ok(call.put(&counter)?)
}

/// TPM2_ZGen_2Phase (clause 14.7).
pub(crate) fn zgen_2phase(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let static_point: Point = call.param_with(|r| r.sized_as())?;
    let ephemeral_point: Point = call.param_with(|r| r.sized_as())?;
    let scheme = call.param_with(|r| {
        let alg = r.read::<Alg>()?;
        ensure(alg == Alg::ECDH, Rc::SCHEME).map(|()| alg)
    })?;
    let counter: u16 = call.param()?;
    call.end()?;
    let _ = scheme;
    let (curve, d) = exchange_key(core, call.entity(0))?;
    let crypto = core.crypto;
    ensure(
        crypto.contains(curve, &static_point),
        Rc::ECC_POINT.param(1),
    )?;
    ensure(
        crypto.contains(curve, &ephemeral_point),
        Rc::ECC_POINT.param(2),
    )?;
    let full = u64::from(counter);
    let place = (full % COMMITMENTS) as usize;
    let open = core
        .reset
        .commit_used
        .get(place / 8)
        .is_some_and(|o| o & 1 << (place % 8) != 0);
    ensure(open && full < core.reset.commit_counter, Rc::VALUE.param(4))?;
    core.mark_commitment(full, false);
    let k = core.commitment(curve, &curve.id().to_be_bytes(), full);
    let z1 = crypto
        .mul(curve, &d, Some(&static_point))
        .ok_or(Rc::NO_RESULT)?;
    let z2 = crypto
        .mul(curve, &k, Some(&ephemeral_point))
        .ok_or(Rc::NO_RESULT)?;
    call.out.sized_as(&z1)?;
    Ok(call.out.sized_as(&z2)?)
}

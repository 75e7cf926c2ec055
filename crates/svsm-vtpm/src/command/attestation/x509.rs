//! TPM2_CertifyX509 (clause 18.8): completes and signs a certificate of a key in the TPM.

use crate::{
    bytes::Bytes,
    command::{
        Call,
        attestation::read_scheme,
        signing::{is_signing_key, select_scheme},
    },
    rc::{About, Rc, Stop, ensure},
    state::{
        Core,
        object::{Object, rsa_exponent},
    },
    structures::{
        attributes::ObjectAttributes as A,
        der::{self, Builder, Element},
        public::{Params, Unique},
        scheme::Scheme,
    },
};

/// `TPM2B_MAX_BUFFER`.
const BUFFER_MAX: usize = 1024;
/// Octets of a serial number (RFC 5280 allows 20).
const SERIAL_LEN: usize = 20;

/// The caller's part of a certificate.
struct Partial<'a> {
    /// The signature's algorithm, if the caller wrote it.
    algorithm: Option<Element<'a>>,
    issuer: Element<'a>,
    validity: Element<'a>,
    subject: Element<'a>,
    extensions: Element<'a>,
}

pub(crate) fn certify_x509(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let _reserved: Bytes<64> = call.param()?;
    let asked = read_scheme(call)?;
    let partial: Bytes<BUFFER_MAX> = call.param()?;
    call.end()?;

    let object = core.object_of(call.entity(0)).ok_or(Rc::KEY.handle(1))?;
    let signer = core.object_of(call.entity(1)).ok_or(Rc::KEY.handle(2))?;
    ensure(is_signing_key(signer), Rc::KEY.handle(2))?;
    let scheme = select_scheme(signer, asked).param(2)?;
    let hash = scheme.hash().ok_or(Rc::SCHEME.param(2))?;
    ensure(is_encodable(object), Rc::ASYMMETRIC.handle(1))?;
    let partial = read_partial(partial.as_slice()).param(3)?;
    let digests = partial.algorithm.is_some() || algorithm_is_known(signer, scheme);
    ensure(digests, Rc::SCHEME.handle(2))?;
    match check_extensions(object, &partial.extensions) {
        Err(Rc::ATTRIBUTES) => return Err(Rc::ATTRIBUTES.handle(1).into()),
        other => other.param(3)?,
    }

    // From the end of the certificate to its beginning, as DER is built.
    let mut room = [0; BUFFER_MAX];
    let mut added = Builder::new(&mut room);
    let end = added.mark();
    public_key(&mut added, object)?;
    let key_start = added.mark();
    if partial.algorithm.is_none() {
        signing_algorithm(&mut added, scheme)?;
    }
    let tail = added.since(end);
    let (own_algorithm, key) = tail
        .split_at_checked(key_start - added.mark())
        .ok_or(Rc::FAILURE)?;
    let algorithm = partial.algorithm.map_or(own_algorithm, |a| a.whole);
    let parts = [
        algorithm,
        partial.issuer.whole,
        partial.validity.whole,
        partial.subject.whole,
        key,
        partial.extensions.whole,
    ];
    let [algorithm, issuer, validity, subject, key, extensions] = parts;
    // The serial number depends on everything else, and on which keys these are: it is the same only for the same certificate.
    let serial_alg = signer.public.name_alg.ok_or(Rc::HASH.handle(2))?;
    let mut serial = core.crypto.hash(
        serial_alg,
        &[
            algorithm,
            issuer,
            validity,
            subject,
            key,
            extensions,
            signer.name.as_slice(),
            object.name.as_slice(),
        ],
    );
    serial.resize(SERIAL_LEN);
    // Positive, and 20 octets at most.
    if let Some(first) = serial.as_mut_slice().first_mut() {
        *first &= 0x7F;
    }

    let mut head_room = [0; 64];
    let mut head = Builder::new(&mut head_room);
    let head_end = head.mark();
    head.integer(serial.as_slice())?;
    let version = head.mark();
    head.integer(&[2])?;
    head.wrap(der::explicit(0), version)?;
    let fields = head.since(head_end);
    let len = fields.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut outer_room = [0; 4];
    let mut outer = Builder::new(&mut outer_room);
    let outer_end = outer.mark();
    outer.head(der::SEQUENCE, len)?;
    let digest = core.crypto.hash(
        hash,
        &[
            outer.since(outer_end),
            fields,
            algorithm,
            issuer,
            validity,
            subject,
            key,
            extensions,
        ],
    );
    added.push(fields)?;
    added.wrap(der::SEQUENCE, end)?;

    let signature = core.sign(call.entity(1), scheme, digest.as_slice())?;
    call.out.sized(added.since(end))?;
    call.put(&digest)?;
    Ok(call.put(&signature)?)
}

fn read_partial(bytes: &[u8]) -> Result<Partial<'_>, Rc> {
    let mut rest = bytes;
    let outer = der::next(&mut rest).map_err(|_| Rc::SIZE)?;
    ensure(outer.tag == der::SEQUENCE && rest.is_empty(), Rc::SIZE)?;
    let mut sequences = [None; 4];
    let mut count = 0;
    let mut extensions = None;
    let mut rest = outer.contents;
    while !rest.is_empty() {
        let element = der::next(&mut rest)?;
        if element.tag == der::SEQUENCE {
            *sequences.get_mut(count).ok_or(Rc::VALUE)? = Some(element);
            count += 1;
        } else {
            ensure(element.tag == der::explicit(3), Rc::VALUE)?;
            ensure(extensions.replace(element).is_none(), Rc::VALUE)?;
        }
    }
    let (algorithm, issuer, validity, subject) = match sequences {
        [Some(issuer), Some(validity), Some(subject), None] => (None, issuer, validity, subject),
        [algorithm, Some(issuer), Some(validity), Some(subject)] => {
            (algorithm, issuer, validity, subject)
        }
        _ => return Err(Rc::VALUE),
    };
    Ok(Partial {
        algorithm,
        issuer,
        validity,
        subject,
        extensions: extensions.ok_or(Rc::VALUE)?,
    })
}

/// The bits of the extension with this identifier, if it is there.
fn extension_bits(extensions: &[u8], oid: &[u8]) -> Result<Option<u32>, Rc> {
    let mut rest = extensions;
    while !rest.is_empty() {
        let extension = der::next(&mut rest)?;
        ensure(extension.tag == der::SEQUENCE, Rc::VALUE)?;
        let Some(mut fields) = extension.contents.strip_prefix(oid) else {
            continue;
        };
        // "Critical" may come first.
        while !fields.is_empty() {
            let field = der::next(&mut fields)?;
            if field.tag == der::OCTET_STRING {
                let mut inner = field.contents;
                let value = der::bits(&der::next(&mut inner)?)?;
                ensure(inner.is_empty(), Rc::VALUE)?;
                return Ok(Some(value));
            }
        }
        return Err(Rc::VALUE);
    }
    Ok(None)
}

/// What a certificate says of a key must be true of it (Part 3, table of key usages).
fn check_extensions(object: &Object, extensions: &Element<'_>) -> Result<(), Rc> {
    /// The n-th bit of `KeyUsage`.
    const fn bit(n: u32) -> u32 {
        1 << (31 - n)
    }
    const SIGNING: u32 = bit(0) | bit(5) | bit(6);
    const DECRYPTING: u32 = bit(2) | bit(3) | bit(4) | bit(7) | bit(8);
    const NON_REPUDIATION: u32 = bit(1);
    const KEY_AGREEMENT: u32 = bit(4);

    let mut rest = extensions.contents;
    let list = der::next(&mut rest)?;
    ensure(list.tag == der::SEQUENCE && rest.is_empty(), Rc::VALUE)?;
    if let Some(attributes) = extension_bits(list.contents, der::oid::TPMA_OBJECT)? {
        ensure(
            attributes == object.public.attributes.bits(),
            Rc::ATTRIBUTES,
        )?;
    }
    let usage = extension_bits(list.contents, der::oid::KEY_USAGE)?.ok_or(Rc::VALUE)?;
    let fits = [
        (SIGNING, A::SIGN),
        (DECRYPTING, A::DECRYPT),
        (NON_REPUDIATION, A::FIXED_TPM),
        (KEY_AGREEMENT, A::RESTRICTED),
    ]
    .iter()
    .all(|(bits, attribute)| usage & bits == 0 || object.has(*attribute));
    ensure(fits, Rc::ATTRIBUTES)
}

fn is_encodable(object: &Object) -> bool {
    match object.public.params {
        Params::Rsa { .. } => true,
        Params::Ecc { curve, .. } => der::curve_oid(curve).is_some(),
        _ => false,
    }
}

/// `SubjectPublicKeyInfo`.
fn public_key(out: &mut Builder<'_>, object: &Object) -> Result<(), Rc> {
    let end = out.mark();
    match (&object.public.params, &object.public.unique) {
        (Params::Rsa { exponent, .. }, Unique::Rsa(n)) => {
            out.integer(&rsa_exponent(*exponent).to_be_bytes())?;
            out.integer(n.as_slice())?;
            out.wrap(der::SEQUENCE, end)?;
            out.push(&[0])?;
            out.wrap(der::BIT_STRING, end)?;
            out.algorithm(der::oid::RSA_ENCRYPTION, true)?;
        }
        (Params::Ecc { curve, .. }, Unique::Ecc(point)) => {
            for number in [&point.y, &point.x] {
                let mut number = number.clone();
                number.pad_front(curve.bytes());
                out.push(number.as_slice())?;
            }
            out.push(&[0, 4])?;
            out.wrap(der::BIT_STRING, end)?;
            let mark = out.mark();
            out.push(der::curve_oid(*curve).ok_or(Rc::ASYMMETRIC)?)?;
            out.push(der::oid::EC_PUBLIC_KEY)?;
            out.wrap(der::SEQUENCE, mark)?;
        }
        _ => return Err(Rc::ASYMMETRIC),
    }
    out.wrap(der::SEQUENCE, end)
}

const fn algorithm_is_known(signer: &Object, scheme: Scheme) -> bool {
    matches!(
        signer.public.params,
        Params::Rsa { .. } | Params::Ecc { .. }
    ) && matches!(
        scheme,
        Scheme::RsaSsa(_) | Scheme::RsaPss(_) | Scheme::EcDsa(_)
    )
}

/// `AlgorithmIdentifier` of a signature (RFC 4055, RFC 5758).
fn signing_algorithm(out: &mut Builder<'_>, scheme: Scheme) -> Result<(), Rc> {
    match scheme {
        Scheme::RsaSsa(hash) => out.algorithm(der::rsassa_oid(hash), true),
        Scheme::EcDsa(hash) => out.algorithm(der::ecdsa_oid(hash), false),
        Scheme::RsaPss(hash) => {
            let end = out.mark();
            let salt = u8::try_from(hash.digest_len()).map_err(|_| Rc::SIZE)?;
            let mark = out.mark();
            out.integer(&[salt])?;
            out.wrap(der::explicit(2), mark)?;
            let mark = out.mark();
            out.algorithm(der::hash_oid(hash), true)?;
            out.push(der::oid::MGF1)?;
            out.wrap(der::SEQUENCE, mark)?;
            out.wrap(der::explicit(1), mark)?;
            let mark = out.mark();
            out.algorithm(der::hash_oid(hash), true)?;
            out.wrap(der::explicit(0), mark)?;
            out.wrap(der::SEQUENCE, end)?;
            out.push(der::oid::RSA_PSS)?;
            out.wrap(der::SEQUENCE, end)
        }
        _ => Err(Rc::SCHEME),
    }
}

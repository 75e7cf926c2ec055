//! Commands: mostly well formed, with handles that may name something, parameters of the right types and any values, and some
//! damage.

use svsm_vtpm::crypto::{HashAlg, Hashing, RustCrypto};

use crate::rng::Rng;

/// A kind of parameter, from which values are drawn.
#[derive(Clone, Copy)]
enum P {
    /// A byte, a flag, numbers.
    U8,
    Flag,
    U16,
    U32,
    U64,
    /// Sized bytes: few, like a digest, a nonce.
    Bytes,
    Digest,
    /// A hash algorithm, or none.
    Hash,
    /// A handle of a hierarchy, a context, a persistent object, a PCR.
    Hierarchy,
    Context,
    Persistent,
    Pcr,
    /// Lists and structures.
    Digests,
    DigestList,
    Pcrs,
    Sym,
    SymObject,
    SigScheme,
    RsaScheme,
    Public,
    NvPublic,
    Sensitive,
    External,
    Ticket(u16),
    Codes,
    Command,
    Curve,
    Mode,
    Parms,
    Signature,
    Point,
    Operation,
    Su,
    SessionType,
    Capability,
    Name,
}

/// A kind of handle.
#[derive(Clone, Copy)]
enum H {
    /// A hierarchy, an object, a PCR, an NV index, a session of a kind, or nothing.
    Hier,
    Obj,
    Pcr,
    Nv,
    Auth,
    Policy,
    Hmac,
    Any,
}

struct Shape {
    code: u16,
    /// How many handles need an authorization.
    auths: usize,
    handles: &'static [H],
    params: &'static [P],
}

const fn shape(code: u16, auths: usize, handles: &'static [H], params: &'static [P]) -> Shape {
    Shape {
        code,
        auths,
        handles,
        params,
    }
}

static SHAPES: &[Shape] = &[
    shape(0x121, 1, &[H::Hier], &[P::Hierarchy, P::Flag]),
    shape(0x127, 1, &[H::Hier], &[P::Flag]),
    shape(0x126, 1, &[H::Hier], &[]),
    shape(0x129, 1, &[H::Hier], &[P::Bytes]),
    shape(0x12C, 1, &[H::Hier], &[P::Digest, P::Hash, P::Pcr]),
    shape(0x12E, 1, &[H::Hier], &[P::Digest, P::Hash]),
    shape(0x130, 1, &[H::Hier], &[P::U8]),
    shape(0x128, 1, &[H::Hier], &[P::U64]),
    shape(0x139, 1, &[H::Hier], &[]),
    shape(0x13C, 1, &[H::Pcr], &[P::Bytes]),
    shape(0x13D, 1, &[H::Pcr], &[]),
    shape(0x182, 1, &[H::Pcr], &[P::Digests]),
    shape(0x17E, 0, &[], &[P::Pcrs]),
    shape(0x183, 1, &[H::Pcr], &[P::Bytes]),
    shape(0x142, 0, &[], &[P::DigestList]),
    shape(0x143, 0, &[], &[P::Flag]),
    shape(0x144, 0, &[], &[P::Su]),
    shape(0x145, 0, &[], &[P::Su]),
    shape(0x146, 0, &[], &[P::Bytes]),
    shape(0x17B, 0, &[], &[P::U16]),
    shape(0x17C, 0, &[], &[]),
    shape(0x17D, 0, &[], &[P::Bytes, P::Hash, P::Hierarchy]),
    shape(0x181, 0, &[], &[]),
    shape(0x18A, 0, &[], &[P::Parms]),
    shape(0x17A, 0, &[], &[P::Capability, P::U32, P::U32]),
    shape(0x186, 0, &[], &[P::Bytes, P::Hash]),
    shape(0x15C, 1, &[H::Obj], &[P::Bytes]),
    shape(0x13E, 1, &[H::Obj], &[P::Bytes, P::Hierarchy]),
    shape(0x185, 2, &[H::Pcr, H::Obj], &[P::Bytes]),
    shape(0x155, 1, &[H::Obj], &[P::Bytes, P::Hash]),
    shape(0x15B, 1, &[H::Obj], &[P::Bytes, P::Hash]),
    shape(0x165, 0, &[], &[P::Context]),
    shape(0x162, 0, &[H::Any], &[]),
    shape(
        0x176,
        0,
        &[H::Obj, H::Any],
        &[P::Digest, P::Bytes, P::SessionType, P::Sym, P::Hash],
    ),
    shape(
        0x176,
        0,
        &[H::Any, H::Any],
        &[P::Digest, P::Bytes, P::SessionType, P::Sym, P::Hash],
    ),
    shape(0x180, 0, &[H::Policy], &[]),
    shape(0x120, 1, &[H::Hier, H::Obj], &[P::Persistent]),
    shape(0x173, 0, &[H::Obj], &[]),
    shape(0x167, 0, &[], &[P::External, P::Hierarchy]),
    shape(0x167, 0, &[], &[P::External, P::Hierarchy]),
    shape(
        0x131,
        1,
        &[H::Hier],
        &[P::Sensitive, P::Public, P::Bytes, P::Pcrs],
    ),
    shape(
        0x153,
        1,
        &[H::Obj],
        &[P::Sensitive, P::Public, P::Bytes, P::Pcrs],
    ),
    shape(0x157, 1, &[H::Obj], &[P::Bytes, P::Public]),
    shape(0x15E, 1, &[H::Obj], &[]),
    shape(0x150, 1, &[H::Obj, H::Obj], &[P::Bytes]),
    shape(0x14B, 1, &[H::Obj, H::Obj], &[P::Bytes, P::SymObject]),
    shape(
        0x156,
        1,
        &[H::Obj],
        &[P::Bytes, P::Public, P::Bytes, P::Bytes, P::SymObject],
    ),
    shape(0x147, 2, &[H::Obj, H::Obj], &[P::Bytes, P::Bytes]),
    shape(0x168, 0, &[H::Obj], &[P::Bytes, P::Name]),
    shape(0x174, 0, &[H::Obj], &[P::Bytes, P::RsaScheme, P::Bytes]),
    shape(0x159, 1, &[H::Obj], &[P::Bytes, P::RsaScheme, P::Bytes]),
    shape(0x163, 0, &[H::Obj], &[]),
    shape(0x154, 1, &[H::Obj], &[P::Point]),
    shape(0x178, 0, &[], &[P::Curve]),
    shape(0x164, 1, &[H::Obj], &[P::Flag, P::Mode, P::Bytes, P::Bytes]),
    shape(0x193, 1, &[H::Obj], &[P::Bytes, P::Flag, P::Mode, P::Bytes]),
    shape(
        0x15D,
        1,
        &[H::Obj],
        &[P::Digest, P::SigScheme, P::Ticket(0x8024)],
    ),
    shape(0x177, 0, &[H::Obj], &[P::Digest, P::Signature]),
    shape(0x158, 1, &[H::Obj], &[P::Bytes, P::SigScheme, P::Pcrs]),
    shape(0x148, 2, &[H::Obj, H::Obj], &[P::Bytes, P::SigScheme]),
    shape(
        0x14A,
        1,
        &[H::Obj, H::Obj],
        &[P::Bytes, P::Digest, P::SigScheme, P::Ticket(0x8021)],
    ),
    shape(0x14C, 2, &[H::Hier, H::Obj], &[P::Bytes, P::SigScheme]),
    shape(
        0x14D,
        2,
        &[H::Hier, H::Obj, H::Hmac],
        &[P::Bytes, P::SigScheme],
    ),
    shape(0x133, 2, &[H::Hier, H::Obj], &[P::Bytes, P::SigScheme]),
    shape(0x140, 1, &[H::Hier], &[P::Hash, P::Codes, P::Codes]),
    shape(0x13F, 1, &[H::Hier], &[P::U32]),
    shape(0x12D, 1, &[H::Hier], &[P::Codes, P::Codes]),
    shape(0x12A, 1, &[H::Hier], &[P::Bytes, P::NvPublic]),
    shape(0x12A, 1, &[H::Hier], &[P::Bytes, P::NvPublic]),
    shape(0x12A, 1, &[H::Hier], &[P::Bytes, P::NvPublic]),
    shape(0x122, 1, &[H::Hier, H::Nv], &[]),
    shape(0x11F, 2, &[H::Nv, H::Hier], &[]),
    shape(0x134, 1, &[H::Auth, H::Nv], &[]),
    shape(0x135, 1, &[H::Auth, H::Nv], &[P::U64]),
    shape(0x136, 1, &[H::Auth, H::Nv], &[P::Bytes]),
    shape(0x137, 1, &[H::Auth, H::Nv], &[P::Bytes, P::U16]),
    shape(0x137, 1, &[H::Auth, H::Nv], &[P::Bytes, P::U16]),
    shape(0x138, 1, &[H::Auth, H::Nv], &[]),
    shape(0x132, 1, &[H::Hier], &[]),
    shape(0x13B, 1, &[H::Nv], &[P::Bytes]),
    shape(0x14E, 1, &[H::Auth, H::Nv], &[P::U16, P::U16]),
    shape(0x14F, 1, &[H::Auth, H::Nv], &[]),
    shape(0x169, 0, &[H::Nv], &[]),
    shape(
        0x184,
        2,
        &[H::Obj, H::Auth, H::Nv],
        &[P::Bytes, P::SigScheme, P::U16, P::U16],
    ),
    shape(
        0x149,
        1,
        &[H::Auth, H::Nv, H::Policy],
        &[P::Bytes, P::U16, P::Operation],
    ),
    shape(0x192, 1, &[H::Auth, H::Nv, H::Policy], &[]),
    shape(
        0x151,
        1,
        &[H::Any, H::Policy],
        &[P::Bytes, P::Bytes, P::Bytes, P::U32],
    ),
    shape(
        0x160,
        0,
        &[H::Obj, H::Policy],
        &[P::Bytes, P::Bytes, P::Bytes, P::U32, P::Signature],
    ),
    shape(
        0x16A,
        0,
        &[H::Policy],
        &[P::Digest, P::Bytes, P::Name, P::Ticket(0x8022)],
    ),
    shape(0x16B, 0, &[H::Policy], &[]),
    shape(0x16C, 0, &[H::Policy], &[P::Command]),
    shape(0x16D, 0, &[H::Policy], &[P::Bytes, P::U16, P::Operation]),
    shape(0x16E, 0, &[H::Policy], &[P::Digest]),
    shape(0x16F, 0, &[H::Policy], &[P::U8]),
    shape(0x170, 0, &[H::Policy], &[P::Digest]),
    shape(0x171, 0, &[H::Policy], &[P::DigestList]),
    shape(
        0x172,
        0,
        &[H::Policy],
        &[P::Bytes, P::Bytes, P::Bytes, P::Name, P::Ticket(0x8023)],
    ),
    shape(0x17F, 0, &[H::Policy], &[P::Digest, P::Pcrs]),
    shape(0x187, 0, &[H::Policy], &[]),
    shape(0x188, 0, &[H::Policy], &[P::Name, P::Name, P::Flag]),
    shape(0x189, 0, &[H::Policy], &[]),
    shape(0x18C, 0, &[H::Policy], &[]),
    shape(0x18F, 0, &[H::Policy], &[P::Flag]),
    shape(0x190, 0, &[H::Policy], &[P::Digest]),
    shape(0x18E, 0, &[], &[P::Curve]),
    shape(0x191, 1, &[H::Obj], &[P::Sensitive, P::Public]),
];

/// A response without what is not determined: the PCR update counter.
pub(crate) fn determined(code: u32, response: &[u8]) -> Vec<u8> {
    let mut response = response.to_vec();
    if code == 0x17E {
        response.iter_mut().skip(10).take(4).for_each(|b| *b = 0);
    }
    response
}

/// Commands of which the whole response is determined.
pub(crate) fn is_determined(code: u32) -> bool {
    matches!(
        code,
        0x17E | 0x13C | 0x14E | 0x169 | 0x189 | 0x178 | 0x173 | 0x167 | 0x193 | 0x164
    )
}

/// Puts both TPMs into the same state.
pub(crate) fn preamble() -> Vec<Vec<u8>> {
    let mut da = Vec::new();
    for n in [5u32, 100_000, 100_000] {
        da.extend(n.to_be_bytes());
    }
    vec![
        command(0x144, &[], 0, &[], &[0, 0]),
        command(0x13A, &[0x4000_000A], 1, &[&[]], &da),
    ]
}

fn command(
    code: u16,
    handles: &[u32],
    auths: usize,
    passwords: &[&[u8]],
    params: &[u8],
) -> Vec<u8> {
    let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    if auths > 0 {
        let mut area = Vec::new();
        for password in passwords.iter().take(auths) {
            area.extend([0x40, 0, 0, 9, 0, 0, 1]);
            area.extend(sized(password));
        }
        body.extend(u32::try_from(area.len()).unwrap_or(0).to_be_bytes());
        body.extend(area);
    }
    body.extend(params);
    let mut out = vec![0x80, if auths > 0 { 2 } else { 1 }];
    out.extend(u32::try_from(body.len() + 10).unwrap_or(0).to_be_bytes());
    out.extend(u32::from(code).to_be_bytes());
    out.extend(body);
    out
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len())
        .unwrap_or(0)
        .to_be_bytes()
        .to_vec();
    out.extend(bytes);
    out
}

/// Draws commands.
pub(crate) struct Generator {
    rng: Rng,
}

const OBJECTS: [u32; 6] = [
    0x8000_0000,
    0x8000_0001,
    0x8000_0002,
    0x8000_0000,
    0x4000_0007,
    0x8100_0001,
];
const HIERARCHIES: [u32; 6] = [
    0x4000_0001,
    0x4000_000B,
    0x4000_000C,
    0x4000_0007,
    0x4000_000A,
    0x4000_0001,
];
const INDICES: [u32; 4] = [0x0150_0000, 0x0150_0001, 0x0150_0002, 0x0180_0000];
const PCRS: [u32; 6] = [0, 16, 23, 20, 17, 0x4000_0007];
const HASHES: [u16; 6] = [0x0B, 0x0B, 4, 0x0C, 0x0D, 0x10];
const PASSWORDS: [&[u8]; 6] = [b"", b"", b"", b"", b"pw", b"a\0"];

impl Generator {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
        }
    }

    /// Takes note of a response; nothing is needed of it so far.
    pub(crate) fn learn(&mut self, _: u32, _: &[u8]) {}

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let Some(shape) = SHAPES.get(self.rng.below(SHAPES.len())) else {
            return Vec::new();
        };
        let handles: Vec<u32> = shape.handles.iter().map(|h| self.handle(*h)).collect();
        let params: Vec<u8> = shape.params.iter().flat_map(|p| self.param(*p)).collect();
        let auths = if self.rng.one_in(30) {
            self.rng.below(4)
        } else {
            shape.auths
        };
        let passwords = [(); 3].map(|()| self.rng.pick(&PASSWORDS));
        let mut bytes = command(shape.code, &handles, auths, &passwords, &params);
        if self.rng.one_in(12) {
            self.damage(&mut bytes);
        }
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        match self.rng.below(4) {
            0 => {
                let len = 10 + self.rng.below(bytes.len().saturating_sub(9));
                bytes.truncate(len);
            }
            1 => bytes.push(0),
            _ => {
                let at = 10 + self.rng.below(bytes.len().saturating_sub(10));
                let value = self.rng.next().to_be_bytes()[0];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
        let size = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
        if !self.rng.one_in(5) {
            bytes
                .iter_mut()
                .skip(2)
                .zip(size)
                .for_each(|(to, from)| *to = from);
        }
    }

    fn handle(&mut self, kind: H) -> u32 {
        if self.rng.one_in(40) {
            return self.rng.pick(&[
                0x4000_0009,
                0x8000_0005,
                0x0200_0000,
                0x0300_0001,
                0x1234_5678,
                24,
            ]);
        }
        match kind {
            H::Hier => self.rng.pick(&HIERARCHIES),
            H::Obj => self.rng.pick(&OBJECTS),
            H::Pcr => self.rng.pick(&PCRS),
            H::Nv => self.rng.pick(&INDICES),
            H::Auth => {
                let kind = if self.rng.one_in(2) {
                    &INDICES[..]
                } else {
                    &HIERARCHIES[..]
                };
                self.rng.pick(kind)
            }
            H::Policy => self
                .rng
                .pick(&[0x0300_0000, 0x0300_0001, 0x0300_0002, 0x0300_0000]),
            H::Hmac => self.rng.pick(&[0x0200_0000, 0x0200_0001, 0x0200_0002]),
            H::Any => {
                let kind =
                    self.rng
                        .pick(&[H::Hier as u8, H::Obj as u8, H::Pcr as u8, H::Nv as u8, 9]);
                match kind {
                    0 => self.rng.pick(&HIERARCHIES),
                    1 => self.rng.pick(&OBJECTS),
                    2 => self.rng.pick(&PCRS),
                    3 => self.rng.pick(&INDICES),
                    _ => 0x4000_0007,
                }
            }
        }
    }

    fn bytes(&mut self, lens: &[usize]) -> Vec<u8> {
        let len = self.rng.pick(lens);
        let value = self.rng.pick(&[0u8, 1, 0xA5, 0xFF]);
        vec![value; len]
    }

    fn hash(&mut self) -> [u8; 2] {
        self.rng.pick(&HASHES).to_be_bytes()
    }

    fn param(&mut self, kind: P) -> Vec<u8> {
        match kind {
            P::U8 => vec![self.rng.pick(&[0u8, 1, 2, 3, 4, 8, 32, 253, 255])],
            P::Flag => vec![self.rng.pick(&[0, 1, 0, 1, 0, 1, 2])],
            P::U16 => self
                .rng
                .pick(&[0u16, 1, 2, 8, 16, 32, 100, 1024, 1025, 0xFFFF])
                .to_be_bytes()
                .to_vec(),
            P::U32 => self
                .rng
                .pick(&[
                    0u32,
                    0,
                    0,
                    1,
                    2,
                    10,
                    0xFFFF_FF9C,
                    0x4000_0000,
                    0x8000_0000,
                    0x100,
                ])
                .to_be_bytes()
                .to_vec(),
            P::U64 => self
                .rng
                .pick(&[1 << 33, 1 << 34, u64::MAX])
                .to_be_bytes()
                .to_vec(),
            P::Bytes => sized(&self.bytes(&[
                0, 0, 0, 1, 2, 8, 16, 20, 32, 33, 64, 65, 128, 256, 1024, 1025,
            ])),
            P::Digest => sized(&self.bytes(&[32, 32, 32, 20, 48, 64, 0, 16, 65])),
            P::Hash => {
                if self.rng.one_in(15) {
                    vec![0, 0x12]
                } else {
                    self.hash().to_vec()
                }
            }
            P::Hierarchy => self
                .rng
                .pick(&[
                    0x4000_0001u32,
                    0x4000_0007,
                    0x4000_0007,
                    0x4000_000B,
                    0x4000_000C,
                    0x4000_000D,
                    0x4000_0009,
                ])
                .to_be_bytes()
                .to_vec(),
            P::Context => self
                .rng
                .pick(&[
                    0x8000_0000u32,
                    0x8000_0001,
                    0x8000_0002,
                    0x0300_0000,
                    0x0300_0001,
                    0x0200_0000,
                    0x0200_0001,
                    0x8100_0001,
                ])
                .to_be_bytes()
                .to_vec(),
            P::Persistent => self
                .rng
                .pick(&[0x8100_0001u32, 0x8100_0002, 0x8180_0000, 0x8000_0000])
                .to_be_bytes()
                .to_vec(),
            P::Pcr => self.rng.pick(&PCRS).to_be_bytes().to_vec(),
            P::Digests => {
                let count = self.rng.below(4);
                let mut out = u32::try_from(count).unwrap_or(0).to_be_bytes().to_vec();
                for _ in 0..count {
                    let (alg, len) =
                        self.rng
                            .pick(&[(0x0Bu16, 32), (4, 20), (0x0C, 48), (0x0D, 64), (0x10, 0)]);
                    out.extend(alg.to_be_bytes());
                    out.extend(vec![7; len]);
                }
                out
            }
            P::DigestList => {
                let count = self.rng.pick(&[0u32, 1, 2, 2, 3, 8, 9]);
                let mut out = count.to_be_bytes().to_vec();
                for _ in 0..count {
                    let digest = self.bytes(&[32, 32, 20]);
                    out.extend(sized(&digest));
                }
                out
            }
            P::Pcrs => {
                let count = self.rng.pick(&[0u32, 1, 1, 1, 2, 4]);
                let mut out = count.to_be_bytes().to_vec();
                for _ in 0..count {
                    out.extend(self.hash());
                    let octets = self.rng.pick(&[3u8, 3, 3, 3, 3, 2, 4]);
                    out.push(octets);
                    for _ in 0..octets {
                        out.push(self.rng.pick(&[0, 1, 0x80, 0xFF]));
                    }
                }
                out
            }
            P::Sym => self
                .rng
                .pick::<&[u8]>(&[
                    b"\0\x10",
                    b"\0\x10",
                    b"\0\x06\0\x80\0\x43",
                    b"\0\x06\0\x80\0\x42",
                    b"\0\x0A\0\x0B",
                    b"\0\x07",
                ])
                .to_vec(),
            P::SymObject => self
                .rng
                .pick::<&[u8]>(&[
                    b"\0\x10",
                    b"\0\x06\0\x80\0\x43",
                    b"\0\x06\x01\0\0\x43",
                    b"\0\x06\0\x80\0\x42",
                    b"\0\x0A\0\x0B",
                ])
                .to_vec(),
            P::SigScheme => self
                .rng
                .pick::<&[u8]>(&[
                    b"\0\x10",
                    b"\0\x10",
                    b"\0\x14\0\x0B",
                    b"\0\x16\0\x0B",
                    b"\0\x18\0\x0B",
                    b"\0\x1C\0\x0B",
                    b"\0\x05\0\x0B",
                    b"\0\x18\0\x10",
                    b"\0\x15",
                ])
                .to_vec(),
            P::RsaScheme => self
                .rng
                .pick::<&[u8]>(&[
                    b"\0\x10",
                    b"\0\x15",
                    b"\0\x17\0\x0B",
                    b"\0\x14\0\x0B",
                    b"\0\x17\0\x10",
                ])
                .to_vec(),
            P::Public => {
                let public = self.public();
                sized(&public)
            }
            P::NvPublic => {
                let index = self.rng.pick(&INDICES);
                let mut out = index.to_be_bytes().to_vec();
                out.extend(self.hash());
                let mut attributes = self.rng.pick(&[
                    0x0004_0004u32,
                    0x0006_0006,
                    0x000F_000F,
                    0x0202_0002,
                    0x0204_0004,
                    0x8006_4006,
                    0x0006_2006,
                    0x4001_0001,
                    0x0006_8006,
                    0x0C06_0006,
                ]);
                attributes |= self
                    .rng
                    .pick(&[0u32, 0, 0x10, 0x20, 0x40, 0x80, 0x90, 0x30]);
                if self.rng.one_in(6) {
                    attributes ^= 1 << self.rng.below(32);
                }
                out.extend(attributes.to_be_bytes());
                let policy = self.bytes(&[0, 0, 0, 32, 20]);
                out.extend(sized(&policy));
                out.extend(
                    self.rng
                        .pick(&[8u16, 8, 8, 32, 20, 0, 1, 2048, 64])
                        .to_be_bytes(),
                );
                sized(&out)
            }
            P::Sensitive => {
                let auth = self.bytes(&[0, 0, 4, 32, 33]);
                let data = self.bytes(&[0, 0, 0, 16, 32, 128]);
                let mut out = sized(&auth);
                out.extend(sized(&data));
                sized(&out)
            }
            P::External => self.external(),
            P::Ticket(tag) => {
                let tag = if self.rng.one_in(10) { 0x8021u16 } else { tag };
                let mut out = tag.to_be_bytes().to_vec();
                out.extend(
                    self.rng
                        .pick(&[0x4000_0007u32, 0x4000_0007, 0x4000_0001, 0x4000_000A])
                        .to_be_bytes(),
                );
                let digest = self.bytes(&[0, 0, 32, 64]);
                out.extend(sized(&digest));
                out
            }
            P::Codes => {
                let count = self.rng.pick(&[0u32, 0, 1, 2]);
                let mut out = count.to_be_bytes().to_vec();
                for _ in 0..count {
                    out.extend(self.param(P::Command));
                }
                out
            }
            P::Command => u32::from(self.rng.pick(&[
                0x14Eu16, 0x137, 0x15E, 0x15D, 0x147, 0x150, 0x126, 0x12D, 0x140, 0x12F, 0,
            ]))
            .to_be_bytes()
            .to_vec(),
            P::Curve => self
                .rng
                .pick(&[3u16, 4, 5, 0x10, 0, 7])
                .to_be_bytes()
                .to_vec(),
            P::Mode => self
                .rng
                .pick(&[0x10u16, 0x43, 0x42, 0x40, 0x41, 0x44, 0x06])
                .to_be_bytes()
                .to_vec(),
            P::Parms => {
                let public = self.public();
                // Type and parameters, without what is between them.
                let mut out = public.get(..2).unwrap_or_default().to_vec();
                out.extend(public.get(10..).unwrap_or_default());
                out.truncate(out.len().min(2 + self.rng.below(24)));
                out
            }
            P::Signature => {
                let mut out = self
                    .rng
                    .pick::<&[u8]>(&[
                        b"\0\x18\0\x0B",
                        b"\0\x14\0\x0B",
                        b"\0\x16\0\x0B",
                        b"\0\x05\0\x0B",
                        b"\0\x10",
                        b"\0\x1C\0\x0B",
                        b"\0\x18\0\x10",
                    ])
                    .to_vec();
                match out.get(1) {
                    Some(0x05) => out.extend([9; 32]),
                    Some(0x14 | 0x16) => out.extend(sized(&self.bytes(&[256, 256, 128, 0]))),
                    Some(0x10) => {}
                    _ => {
                        let (r, s) = (self.bytes(&[32, 32, 0]), self.bytes(&[32, 32, 31]));
                        out.extend(sized(&r));
                        out.extend(sized(&s));
                    }
                }
                out
            }
            P::Point => {
                let mut out = if self.rng.one_in(2) {
                    let mut point = sized(&GX);
                    point.extend(sized(&GY));
                    point
                } else {
                    let (x, y) = (self.bytes(&[32, 0, 66]), self.bytes(&[32, 0, 66]));
                    let mut point = sized(&x);
                    point.extend(sized(&y));
                    point
                };
                if self.rng.one_in(10) {
                    out.push(0);
                }
                sized(&out)
            }
            P::Operation => self
                .rng
                .pick(&[0u16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
                .to_be_bytes()
                .to_vec(),
            P::Su => self.rng.pick(&[0u16, 1, 2]).to_be_bytes().to_vec(),
            P::SessionType => vec![self.rng.pick(&[0u8, 1, 1, 3, 1, 2])],
            P::Capability => self
                .rng
                .pick(&[0u32, 1, 3, 4, 5, 7, 9, 0xB, 0x100])
                .to_be_bytes()
                .to_vec(),
            P::Name => {
                let mut name = self
                    .rng
                    .pick::<&[u8]>(&[b"\0\x0B", b"", b"\0\x04", b"\x40\0\0\x01"])
                    .to_vec();
                if name.len() == 2 {
                    name.extend(self.bytes(&[32, 20, 32]));
                }
                sized(&name)
            }
        }
    }

    /// A template: type, name algorithm, attributes, policy, parameters, unique.
    fn public(&mut self) -> Vec<u8> {
        const PARAMETERS: [&[u8]; 14] = [
            b"\0\x23\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x18\0\x0B\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x10\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x19\0\x0B\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x10\0\x04\0\x20\0\x0B\0\0\0\0",
            b"\0\x25\0\x06\0\x80\0\x43\0\0",
            b"\0\x25\0\x06\x01\0\0\x10\0\0",
            b"\0\x25\0\x06\0\x80\0\x42\0\0",
            b"\0\x08\0\x10\0\0",
            b"\0\x08\0\x05\0\x0B\0\0",
            b"\0\x08\0\x0A\0\x0B\0\x22\0\0",
            b"\0\x08\0\x0A\0\x0B\0\x20\0\0",
            b"\0\x08\0\x05\0\x10\0\0",
            b"\0\x23\0\x10\0\x1A\0\x0B\0\0\0\x03\0\x10\0\0\0\0",
        ];
        let parameters = self.rng.pick(&PARAMETERS);
        let mut out = parameters.get(..2).unwrap_or_default().to_vec();
        out.extend(self.hash());
        let mut attributes = self.rng.pick(&[
            0x0003_0072u32,
            0x0003_0072,
            0x0004_0072,
            0x0005_0072,
            0x0002_0072,
            0x0000_0052,
            0x0006_0072,
            0x0000_0040,
            0x0002_0040,
            0x0004_0040,
            0x0003_0060,
        ]);
        if self.rng.one_in(6) {
            attributes ^= 1 << self.rng.below(20);
        }
        out.extend(attributes.to_be_bytes());
        let policy = self.bytes(&[0, 0, 0, 0, 32]);
        out.extend(sized(&policy));
        out.extend(parameters.get(2..).unwrap_or_default());
        out
    }

    /// Sensitive and public parts for LoadExternal, of keys that everybody knows.
    fn external(&mut self) -> Vec<u8> {
        let with_secret = self.rng.one_in(2);
        let attributes = self.rng.pick(&[
            0x0004_0040u32,
            0x0002_0040,
            0x0006_0040,
            0x0004_0440,
            0x0003_0040,
            0x0005_0040,
            0x0000_0040,
            0x0004_0042,
            0x0002_00C0,
        ]);
        let alg = self.hash();
        let hash = match alg[1] {
            4 => HashAlg::Sha1,
            0x0C => HashAlg::Sha384,
            0x0D => HashAlg::Sha512,
            _ => HashAlg::Sha256,
        };
        let seed = if self.rng.one_in(3) {
            vec![]
        } else {
            vec![3; hash.digest_len()]
        };
        let auth = self.rng.pick(&PASSWORDS);
        let (kind, parameters, unique, secret, seed): (u8, &[u8], Vec<u8>, Vec<u8>, Vec<u8>) =
            match self.rng.below(5) {
                0 => {
                    let scheme: &[u8] = self.rng.pick(&[
                        &b"\0\x10\0\x10\x08\0\0\0\0\0"[..],
                        b"\0\x10\0\x14\0\x0B\x08\0\0\0\0\0",
                        b"\0\x10\0\x17\0\x0B\x08\0\0\0\0\0",
                        b"\0\x06\0\x80\0\x43\0\x10\x08\0\0\0\0\0",
                        b"\0\x10\0\x16\0\x0B\x08\0\0\0\0\x03",
                    ]);
                    (1, scheme, sized(&RSA_N), RSA_P.to_vec(), vec![])
                }
                1 | 2 => {
                    let scheme: &[u8] = self.rng.pick(&[
                        &b"\0\x10\0\x10\0\x03\0\x10"[..],
                        b"\0\x10\0\x18\0\x0B\0\x03\0\x10",
                        b"\0\x10\0\x1C\0\x0B\0\x03\0\x10",
                        b"\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10",
                        b"\0\x10\0\x19\0\x0B\0\x03\0\x10",
                    ]);
                    let mut point = sized(&GX);
                    point.extend(sized(&GY));
                    let mut one = vec![0; 31];
                    one.push(1);
                    (0x23, scheme, point, one, vec![])
                }
                3 => {
                    let scheme: &[u8] =
                        self.rng
                            .pick(&[&b"\0\x10"[..], b"\0\x05\0\x0B", b"\0\x0A\0\x0B\0\x22"]);
                    let secret = self.bytes(&[32, 16, 64, 128]);
                    let unique = RustCrypto.hash(hash, &[&seed, &secret]);
                    (0x08, scheme, sized(unique.as_slice()), secret, seed)
                }
                _ => {
                    let scheme: &[u8] = self.rng.pick(&[
                        &b"\0\x06\0\x80\0\x43"[..],
                        b"\0\x06\0\x80\0\x10",
                        b"\0\x06\0\x80\0\x42",
                    ]);
                    let secret = self.bytes(&[16, 16, 16, 32]);
                    let unique = RustCrypto.hash(hash, &[&seed, &secret]);
                    (0x25, scheme, sized(unique.as_slice()), secret, seed)
                }
            };
        let mut public = vec![0, kind];
        public.extend(alg);
        public.extend(attributes.to_be_bytes());
        public.extend([0, 0]);
        public.extend(parameters);
        public.extend(unique);
        let mut out = if with_secret {
            let mut sensitive = vec![0, kind];
            sensitive.extend(sized(auth));
            sensitive.extend(sized(&seed));
            sensitive.extend(sized(&secret));
            sized(&sensitive)
        } else {
            vec![0, 0]
        };
        out.extend(sized(&public));
        out
    }
}

/// The generator of P-256: the key of the scalar 1.
const GX: [u8; 32] =
    *b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\
      \x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96";
const GY: [u8; 32] =
    *b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\
      \x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";

/// An RSA key that everybody knows.
const RSA_P: [u8; 128] =
    *b"\xfe\xed\x37\x37\xe1\x27\x9d\xda\x5c\xbe\x8a\x80\x75\x2b\x6e\xab\x1b\x13\xc9\x5d\
      \x56\x42\xf6\x98\xb8\x01\x2f\xac\x14\xd8\xfb\xf7\x89\x21\xcc\xe2\x35\x68\xbd\xb1\
      \x7f\xeb\x59\x13\x9b\x95\x97\x78\xac\xa2\x02\xc5\x63\xc5\x98\x4e\xe3\x73\x39\xce\
      \x1a\x94\xf4\x0d\x27\x0d\x1f\x2b\x25\x51\xc0\x61\x35\x1f\x06\x2c\x23\xdf\x16\xe5\
      \x90\xa0\x37\x57\x3b\x29\x79\xe2\x2d\x3d\xc8\xe9\xb3\xb4\x1d\x13\xd8\x87\xb0\x92\
      \xf3\xb0\x05\x7b\x25\x76\x11\x13\x89\x86\xa7\xda\xbe\x4a\xdb\xae\xc1\x40\x99\xca\
      \x3e\x63\x13\x18\xf4\x4b\xf0\xfd";
const RSA_N: [u8; 256] =
    *b"\xc6\xc7\xd1\xf3\xba\x91\x39\xf8\x68\x11\x81\x7a\xe9\x89\x48\x0c\xad\xc0\x09\xc6\
      \xce\xb9\x92\xbc\xf9\xfa\x91\x66\xf4\xe1\xe9\x7a\x30\x97\x55\x92\xf6\xa8\x3d\x04\
      \x72\xd9\x01\x6e\x5b\xbb\x0d\xf9\xc2\x50\x0a\x02\x8a\x5a\x48\x3f\x15\x5c\xd7\xb5\
      \x23\x52\x45\xf7\xd2\x56\xbf\x66\xf5\x2b\x7d\x7a\x44\x06\xc0\x27\xa9\x23\xff\xb5\
      \x32\x73\x93\xc0\x7e\xb7\x2c\x05\x02\x63\x7c\x6b\x1d\xef\x37\x4b\x95\xa1\x30\x63\
      \x6b\xb5\x5b\x6a\xe7\x3b\xa2\x93\x3f\x33\x16\x78\x52\xd4\xd8\x7a\x1a\xce\xfb\x14\
      \x2e\x6a\x72\xb5\x75\x1b\x7d\x2e\x72\x83\xf3\x64\x19\x9f\x08\x8e\x58\x20\x29\x1e\
      \x28\x44\x02\xb1\xc0\xcb\x3f\xa4\x4f\x08\x53\x76\xc2\x1a\xb1\x48\x1e\xa7\x9a\xd7\
      \x5f\x7c\x2d\xff\x78\xfa\xe6\x3e\x74\xfa\x74\xa5\xab\xdd\x3f\x41\x6c\xf5\x38\x3b\
      \xd4\x04\xf5\xc9\x71\xc7\x1d\xb4\xbe\x37\x5d\x90\xe2\x55\xa6\x72\x52\x27\xd4\x40\
      \xe5\xdf\xed\x66\xe1\x7f\xcd\x38\xe0\x7f\x91\x40\x5e\x98\xc5\x33\x3b\x4c\x28\xde\
      \xdb\x43\x2f\x39\x71\x34\xf1\x4b\x5b\x1c\x81\x0d\x26\x26\xcd\x14\x38\xe0\xc1\x41\
      \x62\xf4\xae\x0a\xd6\x98\x2a\xb8\x9b\xd6\x03\x57\x10\x26\x8a\xb7";

//! Commands: mostly well formed, with handles that may name something, parameters of the right types and any values, and some
//! damage.

pub(crate) mod external; // whole keys that everybody knows
mod keys; // templates, and keys that everybody knows
mod params; // values of parameters
mod shape; // what commands look like

use std::collections::BTreeSet;

use crate::rng::Rng;
use shape::{H, SHAPES};

/// Puts both TPMs into the same state.
pub(crate) fn preamble() -> Vec<Vec<u8>> {
    let mut da = Vec::new();
    for n in [5u32, 100_000, 100_000] {
        da.extend(n.to_be_bytes());
    }
    vec![
        command(0x144, &[], 0, &[], &[0, 0]),
        command(0x13A, &[0x4000_000A], 1, &[(0x4000_0009, 1, &[])], &da),
    ]
}

/// An authorization: session, attributes, and a password or what stands for an HMAC.
type Session<'a> = (u32, u8, &'a [u8]);

fn command(
    code: u16,
    handles: &[u32],
    auths: usize,
    sessions: &[Session<'_>],
    params: &[u8],
) -> Vec<u8> {
    let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    if auths > 0 {
        let mut area = Vec::new();
        for (session, attributes, secret) in sessions.iter().take(auths) {
            area.extend(session.to_be_bytes());
            area.extend([0, 0, *attributes]);
            area.extend(sized(secret));
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

/// A command whose authorizations are empty passwords.
pub(crate) fn plain(code: u16, handles: &[u32], auths: usize, params: &[u8]) -> Vec<u8> {
    let password: Session<'_> = (0x4000_0009, 1, &[]);
    command(code, handles, auths, &[password; 3], params)
}

/// Bytes with their length before them.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
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
    /// Handles of objects that the TPM itself made: the two TPMs' keys differ.
    made: BTreeSet<u32>,
}

/// Commands of which the whole response is determined.
const fn is_determined(code: u32) -> bool {
    matches!(
        code,
        0x17E | 0x13C | 0x14E | 0x155 | 0x169 | 0x189 | 0x178 | 0x173 | 0x167 | 0x193 | 0x164
    )
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes)
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
            made: BTreeSet::new(),
        }
    }

    /// Takes note of what our TPM answered.
    pub(crate) fn learn(&mut self, command: &[u8], response: &[u8]) {
        if u32_at(response, 6) != 0 {
            return;
        }
        match u32_at(command, 6) {
            // CreatePrimary, CreateLoaded.
            0x131 | 0x191 => {
                self.made.insert(u32_at(response, 10));
            }
            0x167 => {
                self.made.remove(&u32_at(response, 10));
            }
            // EvictControl: the persistent handle ends the command.
            0x120 => {
                let persistent = u32_at(command, command.len().saturating_sub(4));
                if self.made.contains(&u32_at(command, 14)) {
                    self.made.insert(persistent);
                } else {
                    self.made.remove(&persistent);
                }
            }
            _ => {}
        }
    }

    /// Whether two successful responses to a command agree in all that is determined.
    pub(crate) fn agree(&self, command: &[u8], here: &[u8], there: &[u8]) -> bool {
        let code = u32_at(command, 6);
        if !is_determined(code) {
            return true;
        }
        let without = match code {
            // The update counter, which each of the two counts on from its manufacture.
            0x17E => 10..14,
            // A key of its own: header, type, attributes and policy agree, and the length does.
            0x173 if self.made.contains(&u32_at(command, 10)) => 22..here.len().max(22),
            // Keys of its own encrypt and authenticate otherwise.
            0x155 | 0x193 | 0x164 if self.made.contains(&u32_at(command, 10)) => {
                10..here.len().max(10)
            }
            // After a part of a block, the specification's CFB fills the vector with zeros, and libtpms with what is left of the key stream.
            0x193 | 0x164 => {
                let data = here
                    .get(14..16)
                    .map_or(0, |n| n.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
                match data % 16 {
                    0 => 0..0,
                    part => 18 + data + part..18 + data + 16,
                }
            }
            _ => 0..0,
        };
        here.len() == there.len()
            && here
                .iter()
                .zip(there)
                .enumerate()
                .all(|(at, (a, b))| a == b || without.contains(&at))
    }

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
        let sessions = [(); 3].map(|()| self.session());
        let mut bytes = command(shape.code, &handles, auths, &sessions, &params);
        if self.rng.one_in(12) {
            self.damage(&mut bytes);
        }
        bytes
    }

    /// A password, as a rule; sometimes a session, which is there or not.
    fn session(&mut self) -> Session<'static> {
        let secret = self.rng.pick(&PASSWORDS);
        match self.rng.below(12) {
            0 => {
                let handle = self.rng.pick(&[0x0300_0000, 0x0300_0001, 0x0300_0002]);
                let attributes = self.rng.pick(&[0, 1, 1, 0x21, 0x41, 0x81, 0x02, 0x08]);
                let secret = if self.rng.one_in(3) { secret } else { b"" };
                (handle, attributes, secret)
            }
            1 if self.rng.one_in(3) => (0x0200_0000, self.rng.pick(&[0, 1]), secret),
            _ => (0x4000_0009, u8::from(!self.rng.one_in(20)), secret),
        }
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
}

//! Values of parameters.

use super::{
    Generator, HASHES, INDICES, PCRS,
    keys::{GX, GY},
    shape::P,
    sized,
};

impl Generator {
    pub(super) fn bytes(&mut self, lens: &[usize]) -> Vec<u8> {
        let len = self.rng.pick(lens);
        let value = self.rng.pick(&[0u8, 1, 0xA5, 0xFF]);
        vec![value; len]
    }

    pub(super) fn hash(&mut self) -> [u8; 2] {
        self.rng.pick(&HASHES).to_be_bytes()
    }

    pub(super) fn param(&mut self, kind: P) -> Vec<u8> {
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
                    // Not there, or no hash.
                    vec![0, self.rng.pick(&[0x12, 0x3F])]
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
                    b"\0\x06\0\x80\0\x3F",
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
                .pick(&[0x10u16, 0x43, 0x42, 0x40, 0x41, 0x44, 0x3F, 0x06])
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
}

//! Keys: templates, and keys that everybody knows.

use svsm_vtpm::crypto::{HashAlg, Hashing, RustCrypto};

use super::{Generator, PASSWORDS, sized};

impl Generator {
    /// A template: type, name algorithm, attributes, policy, parameters, unique.
    pub(super) fn public(&mut self) -> Vec<u8> {
        const PARAMETERS: [&[u8]; 15] = [
            b"\0\x23\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x18\0\x0B\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x10\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x19\0\x0B\0\x03\0\x10\0\0\0\0",
            b"\0\x23\0\x10\0\x10\0\x04\0\x20\0\x0B\0\0\0\0",
            b"\0\x25\0\x06\0\x80\0\x43\0\0",
            b"\0\x25\0\x06\x01\0\0\x10\0\0",
            b"\0\x25\0\x06\0\x80\0\x42\0\0",
            b"\0\x25\0\x06\0\x80\0\x3F\0\0",
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
    pub(super) fn external(&mut self) -> Vec<u8> {
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
                        b"\0\x06\0\x80\0\x3F",
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
pub(super) const GX: [u8; 32] =
    *b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\
      \x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96";
pub(super) const GY: [u8; 32] =
    *b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\
      \x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";

/// An RSA key that everybody knows.
pub(super) const RSA_P: [u8; 128] =
    *b"\xfe\xed\x37\x37\xe1\x27\x9d\xda\x5c\xbe\x8a\x80\x75\x2b\x6e\xab\x1b\x13\xc9\x5d\
      \x56\x42\xf6\x98\xb8\x01\x2f\xac\x14\xd8\xfb\xf7\x89\x21\xcc\xe2\x35\x68\xbd\xb1\
      \x7f\xeb\x59\x13\x9b\x95\x97\x78\xac\xa2\x02\xc5\x63\xc5\x98\x4e\xe3\x73\x39\xce\
      \x1a\x94\xf4\x0d\x27\x0d\x1f\x2b\x25\x51\xc0\x61\x35\x1f\x06\x2c\x23\xdf\x16\xe5\
      \x90\xa0\x37\x57\x3b\x29\x79\xe2\x2d\x3d\xc8\xe9\xb3\xb4\x1d\x13\xd8\x87\xb0\x92\
      \xf3\xb0\x05\x7b\x25\x76\x11\x13\x89\x86\xa7\xda\xbe\x4a\xdb\xae\xc1\x40\x99\xca\
      \x3e\x63\x13\x18\xf4\x4b\xf0\xfd";
pub(super) const RSA_N: [u8; 256] =
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

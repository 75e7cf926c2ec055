//! QEMU's firmware configuration device, from a guest's side: files that the host has for firmware (QEMU, "QEMU Firmware
//! Configuration (fw_cfg) Device").
//!
//! All of it is the host's word.

/// The port of the selector, 16 bits.
pub const SELECTOR: u16 = 0x510;
/// The port of the data, bytes.
pub const DATA: u16 = 0x511;

/// The key of the device's signature.
const SIGNATURE: u16 = 0x00;
/// The key of the directory.
const DIRECTORY: u16 = 0x19;
const RECORD: usize = 64;
const NAME: usize = 8;
/// Records that are read together: not more than an exit of SEV-SNP carries.
const AT_ONCE: usize = 16;
/// More files than any QEMU has.
const MAX_FILES: u32 = 1024;

/// The device's two ports.
pub trait Ports {
    /// Why the host was not asked, or did not answer.
    type Error;

    /// Writes [`SELECTOR`]: the first byte of that item comes next.
    ///
    /// # Errors
    /// Why it was not written.
    fn select(&mut self, key: u16) -> Result<(), Self::Error>;

    /// Reads [`DATA`] so often. Behind an item's end there are zeros.
    ///
    /// # Errors
    /// Why it was not read.
    fn read(&mut self, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// A file's name: at most 55 bytes, the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; Self::BYTES]);

impl Name {
    /// Bytes that a name takes.
    pub const BYTES: usize = 56;

    /// That name; what does not fit is not there, and no file has such a name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; Self::BYTES];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self(bytes)
    }

    /// The name in these bytes, up to the first zero.
    #[must_use]
    pub fn of(bytes: &[u8; Self::BYTES]) -> Self {
        let mut name = *bytes;
        let mut is_over = false;
        for byte in &mut name {
            is_over |= *byte == 0;
            if is_over {
                *byte = 0;
            }
        }
        Self(name)
    }

    /// Whether it has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.0, [0, ..])
    }
}

/// A file of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    key: u16,
    bytes: u32,
}

impl File {
    /// How many bytes the host says that it has.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.bytes
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// The device.
#[derive(Debug)]
pub struct FwCfg<P>(P);

impl<P: Ports> FwCfg<P> {
    /// Looks for the device; `None` if there is none at these ports.
    ///
    /// # Errors
    /// Those of the ports.
    pub fn find(mut ports: P) -> Result<Option<Self>, P::Error> {
        let mut signature = [0; 4];
        ports.select(SIGNATURE)?;
        ports.read(&mut signature)?;
        Ok((signature == *b"QEMU").then_some(Self(ports)))
    }

    /// Looks for a file; `None` if there is none of that name among the first 1024.
    ///
    /// # Errors
    /// Those of the ports.
    pub fn file(&mut self, name: Name) -> Result<Option<File>, P::Error> {
        let mut count = [0; 4];
        self.0.select(DIRECTORY)?;
        self.0.read(&mut count)?;
        let count = u32::from_be_bytes(count).min(MAX_FILES);
        let mut records = [[0; RECORD]; AT_ONCE];
        let mut left = usize::try_from(count).unwrap_or_default();
        while left > 0 {
            let now = records.get_mut(..left.min(AT_ONCE)).unwrap_or_default();
            self.0.read(now.as_flattened_mut())?;
            if let Some(file) = now.iter().find_map(|record| named(record, name)) {
                return Ok(Some(file));
            }
            left -= now.len();
        }
        Ok(None)
    }

    /// Reads a file's first bytes, as many as `into` has.
    ///
    /// # Errors
    /// Those of the ports.
    pub fn read(&mut self, file: File, into: &mut [u8]) -> Result<(), P::Error> {
        self.0.select(file.key)?;
        self.0.read(into)
    }
}

/// The file of a record, if it has that name.
fn named(record: &[u8; RECORD], name: Name) -> Option<File> {
    let [s0, s1, s2, s3, k0, k1, ..] = *record;
    let found = record.get(NAME..).and_then(<[u8]>::first_chunk)?;
    (Name::of(found) == name).then_some(File {
        key: u16::from_be_bytes([k0, k1]),
        bytes: u32::from_be_bytes([s0, s1, s2, s3]),
    })
}

#[cfg(test)]
pub(crate) mod made {
    use super::*;
    use std::vec::Vec;

    /// A device in memory.
    #[derive(Default)]
    pub(crate) struct Device {
        files: Vec<(Vec<u8>, Vec<u8>)>,
        item: Vec<u8>,
        at: usize,
    }

    impl Device {
        pub(crate) fn with(mut self, name: &str, contents: &[u8]) -> Self {
            self.files
                .push((name.as_bytes().to_vec(), contents.to_vec()));
            self
        }
    }

    impl Ports for Device {
        type Error = ();

        fn select(&mut self, key: u16) -> Result<(), ()> {
            self.at = 0;
            self.item = match key {
                SIGNATURE => b"QEMU".to_vec(),
                DIRECTORY => {
                    let count = u32::try_from(self.files.len()).unwrap();
                    let mut bytes = count.to_be_bytes().to_vec();
                    for ((name, contents), key) in self.files.iter().zip(0x20_u16..) {
                        let start = bytes.len();
                        bytes.extend(u32::try_from(contents.len()).unwrap().to_be_bytes());
                        bytes.extend(key.to_be_bytes());
                        bytes.extend([0, 0]);
                        bytes.extend(name);
                        bytes.resize(start + RECORD, 0);
                    }
                    bytes
                }
                key => {
                    let file = key.checked_sub(0x20).map(usize::from);
                    let file = file.and_then(|file| self.files.get(file));
                    file.map(|(_, contents)| contents.clone())
                        .unwrap_or_default()
                }
            };
            Ok(())
        }

        fn read(&mut self, into: &mut [u8]) -> Result<(), ()> {
            for byte in into {
                *byte = self.item.get(self.at).copied().unwrap_or(0);
                self.at += 1;
            }
            Ok(())
        }
    }

    /// No device at all.
    pub(crate) struct Nothing;

    impl Ports for Nothing {
        type Error = ();

        fn select(&mut self, _: u16) -> Result<(), ()> {
            Ok(())
        }

        fn read(&mut self, into: &mut [u8]) -> Result<(), ()> {
            into.fill(0xff);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made::{Device, Nothing};
    use super::*;

    #[test]
    fn files_are_found_by_their_names_and_read_whole() {
        let device = Device::default()
            .with("etc/one", b"first")
            .with("etc/two", b"");
        let mut device = FwCfg::find(device).unwrap().unwrap();
        let one = device.file(Name::new("etc/one")).unwrap().unwrap();
        assert_eq!((one.len(), one.is_empty()), (5, false));
        let mut bytes = [9; 7];
        device.read(one, &mut bytes).unwrap();
        assert_eq!(&bytes, b"first\0\0");
        assert!(
            device
                .file(Name::new("etc/two"))
                .unwrap()
                .unwrap()
                .is_empty()
        );
        assert_eq!(device.file(Name::new("etc/on")), Ok(None));
        assert_eq!(device.file(Name::new("etc/one ")), Ok(None));
        assert_eq!(device.file(Name::new(&"x".repeat(80))), Ok(None));
    }

    #[test]
    fn no_device_is_no_error() {
        assert!(FwCfg::find(Nothing).unwrap().is_none());
    }

    #[test]
    fn names_end_at_their_first_zero() {
        let mut bytes = [0; Name::BYTES];
        bytes[..6].copy_from_slice(b"ab\0cde");
        assert_eq!(Name::of(&bytes), Name::new("ab"));
        assert!(Name::of(&[0; Name::BYTES]).is_empty());
        let long = [b'y'; Name::BYTES];
        assert_ne!(Name::of(&long), Name::new("y"));
    }
}

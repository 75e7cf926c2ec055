//! A Linux kernel as distributions ship it: a `bzImage` (Linux/x86 boot protocol).

use crate::error::{Error, Result};

/// Where the 64-bit entry is, from the kernel's first byte in memory on.
pub const ENTRY_64: u64 = 0x200;

/// The oldest boot protocol that says whether there is a 64-bit entry.
const OLDEST: u16 = 0x020c;
const HEADER: usize = 0x1f1;

/// A kernel whose header was checked.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The setup header, as it goes into the boot parameters.
    header: &'a [u8],
    /// What goes into memory.
    payload: &'a [u8],
    /// Where it wants to be.
    preferred: u64,
    /// How much memory it uses from there on before it has looked at the memory map.
    init_size: u64,
    command_line_size: usize,
}

impl<'a> Kernel<'a> {
    /// Checks a file.
    ///
    /// # Errors
    /// [`Error::NotAKernel`], [`Error::Protocol`], [`Error::Not64Bit`] or [`Error::Placement`].
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        let byte = |at: usize| file.get(at).copied().ok_or(Error::NotAKernel);
        let word = |at: usize| Ok(u16::from_le_bytes([byte(at)?, byte(at + 1)?]));
        let long =
            |at: usize| Ok::<_, Error>(u64::from(word(at)?) | u64::from(word(at + 2)?) << 16);
        if word(0x1fe)? != 0xaa55 || file.get(0x202..0x206) != Some(b"HdrS") {
            return Err(Error::NotAKernel);
        }
        let version = word(0x206)?;
        if version < OLDEST {
            return Err(Error::Protocol(version));
        }
        if word(0x236)? & 1 == 0 {
            return Err(Error::Not64Bit);
        }
        let end = 0x202 + usize::from(byte(0x201)?);
        let header = file.get(HEADER..end.max(0x268)).ok_or(Error::NotAKernel)?;
        let sectors = match byte(0x1f1)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let payload = file
            .get((sectors + 1) * 512..)
            .filter(|payload| !payload.is_empty())
            .ok_or(Error::NotAKernel)?;
        let (preferred, alignment) = (long(0x258)? | long(0x25c)? << 32, long(0x230)?);
        let init_size = long(0x260)?;
        let aligned = alignment.is_power_of_two() && preferred & (alignment - 1) == 0;
        if !aligned || init_size == 0 || preferred < 1 << 20 || preferred >> 32 != 0 {
            return Err(Error::Placement);
        }
        Ok(Self {
            header,
            payload,
            preferred,
            init_size,
            command_line_size: usize::try_from(long(0x238)?).map_err(|_| Error::Placement)?,
        })
    }

    /// The setup header: bytes from offset 0x1F1 of the file and of the boot parameters on.
    #[must_use]
    pub const fn header(&self) -> &'a [u8] {
        self.header
    }

    /// What goes into memory, at [`preferred`](Self::preferred).
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The address where it wants to be, in bytes.
    #[must_use]
    pub const fn preferred(&self) -> u64 {
        self.preferred
    }

    /// Bytes of memory that it uses there while it starts.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.init_size.max(self.payload.len() as u64)
    }

    /// Bytes of command line that it takes, the closing zero not counted.
    #[must_use]
    pub const fn command_line_size(&self) -> usize {
        self.command_line_size
    }
}

#[cfg(test)]
pub(crate) mod made {
    use std::vec;
    use std::vec::Vec;

    /// A file that says what a kernel says.
    pub(crate) fn kernel(payload: usize) -> Vec<u8> {
        let mut file = vec![0_u8; 1024 + payload];
        let fields: [(usize, &[u8]); 11] = [
            (0x1f1, &[1]),
            (0x1fe, &[0x55, 0xaa]),
            (0x201, &[0x6a]),
            (0x202, b"HdrS"),
            (0x206, &[0x0f, 0x02]),
            (0x230, &0x20_0000_u32.to_le_bytes()),
            (0x234, &[1]),
            (0x236, &[1, 0]),
            (0x238, &2047_u32.to_le_bytes()),
            (0x258, &0x100_0000_u64.to_le_bytes()),
            (0x260, &0x10_0000_u32.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            file[at..at + bytes.len()].copy_from_slice(bytes);
        }
        file[1024..].fill(0xcc);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_kernel_says_where_it_goes() {
        let file = made::kernel(5000);
        let kernel = Kernel::parse(&file).unwrap();
        assert_eq!(kernel.preferred(), 0x100_0000);
        assert_eq!(kernel.payload().len(), 5000);
        assert_eq!(kernel.memory(), 0x10_0000);
        assert_eq!(kernel.command_line_size(), 2047);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let refused = |at: usize, byte: u8| {
            let mut file = made::kernel(16);
            file[at] = byte;
            Kernel::parse(&file).unwrap_err()
        };
        assert_eq!(refused(0x1fe, 0), Error::NotAKernel);
        assert_eq!(refused(0x202, 0), Error::NotAKernel);
        assert_eq!(refused(0x206, 0x0b), Error::Protocol(0x020b));
        assert_eq!(refused(0x236, 0), Error::Not64Bit);
        assert_eq!(refused(0x1f1, 200), Error::NotAKernel);
        assert_eq!(refused(0x258, 1), Error::Placement);
        assert_eq!(Kernel::parse(&[]).unwrap_err(), Error::NotAKernel);
    }

    proptest! {
        #[test]
        fn no_file_makes_it_stumble(changes in prop::collection::vec((0_usize..0x300, any::<u8>()), 0..20), cut in 0_usize..2000) {
            let mut file: Vec<u8> = made::kernel(1000);
            for (at, byte) in changes {
                file[at] = byte;
            }
            file.truncate(cut);
            let _ = Kernel::parse(&file);
        }
    }
}

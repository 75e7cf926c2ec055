//! The guest as a file that a loader takes for a Linux kernel (Linux/x86 boot protocol, version 2.15).

use core::fmt;

use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;

/// Sectors of 512 bytes before what goes into memory: the boot sector and one of setup.
const HEAD_BYTES: usize = 2 * 512;
/// Memory beyond the program's own, for a stack that grows.
const SPARE_BYTES: u64 = 1 << 20;

/// Why a program is no such guest.
#[derive(Debug)]
pub enum Error {
    /// It is no ELF file.
    Elf(elf::ParseError),
    /// It is not one piece of memory below 4 GiB.
    Shape,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(error) => error.fmt(f),
            Self::Shape => f.write_str("the program is not one piece of memory below 4 GiB"),
        }
    }
}

impl core::error::Error for Error {}

impl From<elf::ParseError> for Error {
    fn from(error: elf::ParseError) -> Self {
        Self::Elf(error)
    }
}

/// Makes the file of a linked program.
///
/// # Errors
/// [`Error`].
pub fn kernel(program: &[u8]) -> Result<Vec<u8>, Error> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(program)?;
    let segments = elf.segments().ok_or(Error::Shape)?;
    let mut pieces = segments.iter().filter(|segment| segment.p_type == PT_LOAD);
    let (Some(piece), None) = (pieces.next(), pieces.next()) else {
        return Err(Error::Shape);
    };
    let size = u32::try_from(piece.p_memsz + SPARE_BYTES).map_err(|_| Error::Shape)?;
    let payload = elf.segment_data(&piece)?;
    let mut file = vec![0; HEAD_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = file.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0x1f1, &[1]); // sectors of setup
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x6a]); // a jump over the header, whose length is its second byte
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]); // loaded high
    put(0x230, &0x20_0000_u32.to_le_bytes()); // alignment
    put(0x236, &1_u16.to_le_bytes()); // there is a 64-bit entry
    put(0x238, &2047_u32.to_le_bytes()); // command line
    put(0x258, &piece.p_vaddr.to_le_bytes());
    put(0x260, &size.to_le_bytes());
    file.extend(payload);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of one piece.
    fn program(pieces: u16) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [0x100_0000_u64, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64, 56, pieces, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        for _ in 0..pieces {
            file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
            for word in [0x200_u64, 0x100_0000, 0x100_0000, 0x10, 0x2000, 0x1000] {
                file.extend(word.to_le_bytes());
            }
        }
        file.resize(0x200, 0);
        file.extend([0xcc; 0x10]);
        file
    }

    #[test]
    fn a_loader_takes_it_for_a_kernel() {
        let file = kernel(&program(1)).unwrap();
        let seen = svsm_guest::kernel::Kernel::parse(&file).unwrap();
        assert_eq!(seen.preferred(), 0x100_0000);
        assert_eq!(seen.payload(), [0xcc; 0x10]);
        assert_eq!(seen.memory(), 0x2000 + SPARE_BYTES);
    }

    #[test]
    fn what_is_no_such_program_is_refused() {
        assert!(matches!(kernel(b"no program"), Err(Error::Elf(_))));
        assert!(matches!(kernel(&program(2)), Err(Error::Shape)));
    }
}

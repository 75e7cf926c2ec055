//! ELF files as tests want them, right or wrong.

/// A program header and the bytes that it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) address: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) memory_bytes: u64,
}

pub(crate) const LOAD: u32 = 1;
pub(crate) const NOTE: u32 = 4;
pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXECUTE: u32 = 1;

/// A loadable segment.
pub(crate) fn load(flags: u32, address: u64, data: &[u8], memory_bytes: u64) -> Header {
    Header {
        kind: LOAD,
        flags,
        address,
        data: data.to_vec(),
        memory_bytes,
    }
}

/// A note with a build id.
pub(crate) fn build_id(id: &[u8]) -> Header {
    let mut data = Vec::new();
    for word in [4, u32::try_from(id.len()).unwrap(), 3] {
        data.extend(word.to_le_bytes());
    }
    data.extend(b"GNU\0");
    data.extend(id);
    let memory_bytes = data.len() as u64;
    Header {
        kind: NOTE,
        flags: READ,
        address: 0,
        data,
        memory_bytes,
    }
}

/// An ELF file with its segments' bytes one after the other.
pub(crate) fn file(entry: u64, headers: &[Header]) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend(2u16.to_le_bytes()); // ET_EXEC
    out.extend(62u16.to_le_bytes()); // x86-64
    out.extend(1u32.to_le_bytes());
    out.extend(entry.to_le_bytes());
    out.extend(64u64.to_le_bytes()); // program headers
    out.extend(0u64.to_le_bytes()); // no sections
    out.extend(0u32.to_le_bytes());
    for field in [64, 56, u16::try_from(headers.len()).unwrap(), 64, 0, 0] {
        out.extend(field.to_le_bytes());
    }
    let mut offset = out.len() as u64 + 56 * headers.len() as u64;
    for header in headers {
        out.extend(header.kind.to_le_bytes());
        out.extend(header.flags.to_le_bytes());
        for field in [
            offset,
            header.address,
            header.address,
            header.data.len() as u64,
            header.memory_bytes,
            4,
        ] {
            out.extend(field.to_le_bytes());
        }
        offset += header.data.len() as u64;
    }
    for header in headers {
        out.extend(&header.data);
    }
    out
}

/// A program with code, constants and variables in pages of their own.
pub(crate) fn program(base: u64) -> Vec<u8> {
    file(
        base + 0x10,
        &[
            load(READ | EXECUTE, base, &[0xf4; 0x20], 0x20),
            load(READ, base + 0x1000, b"constants", 9),
            load(READ | WRITE, base + 0x2000, b"variables", 0x1800),
            build_id(&[0xab; 20]),
        ],
    )
}

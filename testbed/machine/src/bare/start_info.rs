//! What QEMU tells a program that it starts by PVH.

use super::direct::DirectMap;
use super::machine::BootError;
use crate::addr::{Hpa, HpaRange};
use crate::layout::MapEntry;
use crate::phys::Memory;

const MAGIC: u64 = 0x336e_c578;
const LONGEST_COMMAND_LINE: usize = 2048;
const MAP_ENTRIES: usize = 128;

/// What QEMU told us, copied.
#[derive(Debug)]
pub(super) struct Given {
    command_line: [u8; LONGEST_COMMAND_LINE],
    command_line_len: usize,
    /// Where the image file is.
    pub(super) image: HpaRange,
    /// Where the firmware's tables begin.
    pub(super) rsdp: u64,
    map: [MapEntry; MAP_ENTRIES],
    map_len: usize,
}

impl Given {
    /// Reads the PVH start info (version 1).
    pub(super) fn read(at: u64, memory: &DirectMap) -> Result<Self, BootError> {
        let word = |at: u64| {
            Hpa::new(at)
                .and_then(|at| memory.read_u64(at).ok())
                .ok_or(BootError::StartInfo)
        };
        if word(at)? & 0xffff_ffff != MAGIC {
            return Err(BootError::StartInfo);
        }
        let modules = word(at + 8)? >> 32;
        let module = word(at + 16)?;
        let image = match modules {
            0 => return Err(BootError::NoImage),
            _ => Hpa::new(word(module)?)
                .and_then(|start| HpaRange::new(start, word(module + 8).ok()?))
                .ok_or(BootError::NoImage)?,
        };
        let mut given = Self {
            command_line: [0; LONGEST_COMMAND_LINE],
            command_line_len: 0,
            image,
            rsdp: word(at + 32)?,
            map: [MapEntry {
                start: 0,
                bytes: 0,
                kind: 0,
            }; MAP_ENTRIES],
            map_len: 0,
        };
        let line = word(at + 24)?;
        loop {
            let mut byte = [0];
            let here = Hpa::new(line + given.command_line_len as u64);
            here.and_then(|at| memory.read(at, &mut byte).ok())
                .ok_or(BootError::CommandLine)?;
            if line == 0 || byte == [0] {
                break;
            }
            let place = given.command_line.get_mut(given.command_line_len);
            [*place.ok_or(BootError::CommandLine)?] = byte;
            given.command_line_len += 1;
        }
        let (map, count) = (word(at + 40)?, word(at + 48)? & 0xffff_ffff);
        for (index, entry) in (0..count).zip(given.map.iter_mut()) {
            let at = map + 24 * index;
            let kind = (word(at + 16)? & 0xffff_ffff) as u32;
            *entry = MapEntry {
                start: word(at)?,
                bytes: word(at + 8)?,
                kind,
            };
            given.map_len += 1;
        }
        Ok(given)
    }

    /// The command line.
    pub(super) fn command_line(&self) -> Result<&str, BootError> {
        let text = self
            .command_line
            .get(..self.command_line_len)
            .unwrap_or_default();
        core::str::from_utf8(text).map_err(|_| BootError::CommandLine)
    }

    /// The memory map.
    pub(super) fn map(&self) -> &[MapEntry] {
        self.map.get(..self.map_len).unwrap_or_default()
    }
}

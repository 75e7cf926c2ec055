//! The identity of a program, as the log names it.

use svsm_log::ImageId;

/// The id of an ELF file, from its notes; unknown if it has none.
pub(crate) fn id_of(file: &[u8]) -> ImageId {
    let notes = || {
        let elf = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(file).ok()?;
        elf.segments()?
            .iter()
            .filter(|segment| segment.p_type == elf::abi::PT_NOTE)
            .find_map(|segment| {
                let start = usize::try_from(segment.p_offset).ok()?;
                let len = usize::try_from(segment.p_filesz).ok()?;
                ImageId::from_notes(file.get(start..start.checked_add(len)?)?)
            })
    };
    notes().unwrap_or(ImageId::UNKNOWN)
}

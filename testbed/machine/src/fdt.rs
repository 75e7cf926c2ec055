//! A flattened device tree of the machine (Devicetree Specification 0.4, chapter 5).

use crate::addr::GpaRange;
use igvm_defs::dt::IGVM_DT_IGVM_TYPE_PROPERTY;

const MAGIC: u32 = 0xd00d_feed;
const HEADER: usize = 40;
/// The empty list of reserved memory.
const RESERVED: usize = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// The names of all properties, as the tree's block of strings holds them.
const STRINGS: &[&str] = &[
    "#address-cells",
    "#size-cells",
    "bootargs",
    "device_type",
    "reg",
    "status",
    IGVM_DT_IGVM_TYPE_PROPERTY,
];

/// A tree with the CPUs, all memory and the command line; `None` if the buffer is too small.
pub fn machine(
    apic_ids: &[u32],
    memory: impl Iterator<Item = GpaRange>,
    command_line: &str,
    buffer: &mut [u8],
) -> Option<usize> {
    let mut tree = Tree {
        buffer,
        end: HEADER + RESERVED,
    };
    tree.buffer.get_mut(..tree.end)?.fill(0);
    tree.begin("", None)?;
    tree.words("#address-cells", &[2])?;
    tree.words("#size-cells", &[2])?;

    tree.begin("chosen", None)?;
    tree.text("bootargs", command_line)?;
    tree.word(END_NODE)?;

    tree.begin("cpus", None)?;
    tree.words("#address-cells", &[1])?;
    tree.words("#size-cells", &[0])?;
    for id in apic_ids {
        tree.begin("cpu", Some(u64::from(*id)))?;
        tree.text("device_type", "cpu")?;
        tree.words("reg", &[*id])?;
        tree.text("status", "okay")?;
        tree.word(END_NODE)?;
    }
    tree.word(END_NODE)?;

    for range in memory {
        let (start, bytes) = (range.start().as_u64(), range.len_bytes());
        tree.begin("memory", Some(start))?;
        tree.text("device_type", "memory")?;
        tree.words("reg", &[high(start), low(start), high(bytes), low(bytes)])?;
        tree.words(IGVM_DT_IGVM_TYPE_PROPERTY, &[0])?;
        tree.word(END_NODE)?;
    }
    tree.word(END_NODE)?;
    tree.word(END)?;
    tree.finish()
}

const fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

const fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// A tree in the making. Every method answers `None` when the buffer is full.
struct Tree<'a> {
    buffer: &'a mut [u8],
    end: usize,
}

impl Tree<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.end.checked_add(bytes.len())?;
        self.buffer.get_mut(self.end..end)?.copy_from_slice(bytes);
        self.end = end;
        Some(())
    }

    fn align(&mut self) -> Option<()> {
        let end = self.end.next_multiple_of(4);
        self.buffer.get_mut(self.end..end)?.fill(0);
        self.end = end;
        Some(())
    }

    fn word(&mut self, word: u32) -> Option<()> {
        self.put(&word.to_be_bytes())
    }

    fn begin(&mut self, name: &str, unit: Option<u64>) -> Option<()> {
        self.word(BEGIN_NODE)?;
        self.put(name.as_bytes())?;
        if let Some(unit) = unit {
            self.put(b"@")?;
            let digits = (u64::BITS - unit.leading_zeros()).div_ceil(4).max(1);
            for digit in (0..digits).rev() {
                let value = (unit >> (4 * digit) & 15) as u32;
                let [character, ..] = u32::from(char::from_digit(value, 16)?).to_le_bytes();
                self.put(&[character])?;
            }
        }
        self.put(&[0])?;
        self.align()
    }

    fn property(&mut self, name: &str, bytes: usize) -> Option<()> {
        let mut offset = 0;
        for known in STRINGS {
            if *known == name {
                self.word(PROPERTY)?;
                self.word(u32::try_from(bytes).ok()?)?;
                return self.word(offset);
            }
            offset += u32::try_from(known.len()).ok()? + 1;
        }
        None
    }

    fn words(&mut self, name: &str, words: &[u32]) -> Option<()> {
        self.property(name, words.len() * 4)?;
        words.iter().try_for_each(|word| self.word(*word))
    }

    fn text(&mut self, name: &str, text: &str) -> Option<()> {
        self.property(name, text.len() + 1)?;
        self.put(text.as_bytes())?;
        self.put(&[0])?;
        self.align()
    }

    fn finish(mut self) -> Option<usize> {
        let strings = self.end;
        for name in STRINGS {
            self.put(name.as_bytes())?;
            self.put(&[0])?;
        }
        let total = self.end;
        let structure = HEADER + RESERVED;
        let fields = [
            MAGIC,
            u32::try_from(total).ok()?,
            u32::try_from(structure).ok()?,
            u32::try_from(strings).ok()?,
            u32::try_from(HEADER).ok()?,
            // The format's version, the oldest compatible one, the booting CPU.
            17,
            16,
            0,
            u32::try_from(total - strings).ok()?,
            u32::try_from(strings - structure).ok()?,
        ];
        self.end = 0;
        fields.iter().try_for_each(|field| self.word(*field))?;
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_its_nodes() {
        let ram = [GpaRange::from_u64(0x10_0000, 0x1_2340_0000).unwrap()];
        let mut buffer = [0xcc; 2048];
        let len = machine(&[0, 255], ram.into_iter(), "x y", &mut buffer).unwrap();
        let tree = &buffer[..len];
        assert_eq!(tree[..4], MAGIC.to_be_bytes());
        assert_eq!(tree[4..8], u32::try_from(len).unwrap().to_be_bytes());
        for part in [
            "cpu@0\0",
            "cpu@ff\0",
            "memory@100000\0",
            "x y\0",
            "microsoft,igvm-type\0",
        ] {
            assert!(
                tree.windows(part.len()).any(|w| w == part.as_bytes()),
                "{part}"
            );
        }
        for short in 0..len {
            assert_eq!(
                machine(&[0, 255], ram.into_iter(), "x y", &mut buffer[..short]),
                None
            );
        }
    }
}

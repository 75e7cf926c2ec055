//! ACPI tables for the guest: the least that is valid (ACPI specification 6.5, chapter 5).

use crate::addr::GpaRange;

const IO_APIC: u32 = 0xfec0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Ids up to here have entries of the old kind.
const LAST_OLD_ID: u32 = 254;
const ENABLED: u32 = 1;

/// The multiple APIC description table (5.2.12), as QEMU's q35 is wired.
pub fn madt(apic_ids: &[u32], buffer: &mut [u8]) -> Option<usize> {
    let mut table = Table::new(b"APIC", 5, buffer)?;
    table.put(&LOCAL_APIC.to_le_bytes())?;
    // A PC with two old interrupt controllers.
    table.put(&1_u32.to_le_bytes())?;
    for (uid, id) in (0_u32..).zip(apic_ids) {
        if *id <= LAST_OLD_ID {
            let [uid, ..] = uid.to_le_bytes();
            let [id, ..] = id.to_le_bytes();
            table.put(&[0, 8, uid, id])?;
            table.put(&ENABLED.to_le_bytes())?;
        } else {
            table.put(&[9, 16, 0, 0])?;
            table.words(&[*id, ENABLED, uid])?;
        }
    }
    table.put(&[1, 12, 0, 0])?;
    table.words(&[IO_APIC, 0])?;
    // The timer arrives at input 2; PCI interrupts are level-triggered and active high.
    for (irq, input, flags) in [
        (0_u8, 2, 0_u16),
        (5, 5, 13),
        (9, 9, 13),
        (10, 10, 13),
        (11, 11, 13),
    ] {
        table.put(&[2, 10, 0, irq])?;
        table.words(&[input])?;
        table.put(&flags.to_le_bytes())?;
    }
    // LINT1 of every CPU is the NMI.
    table.put(&[4, 6, 0xff, 0, 0, 1])?;
    table.finish()
}

/// The system resource affinity table (5.2.16): everything in domain 0.
pub fn srat(
    apic_ids: &[u32],
    memory: impl Iterator<Item = GpaRange>,
    buffer: &mut [u8],
) -> Option<usize> {
    let mut table = Table::new(b"SRAT", 3, buffer)?;
    table.words(&[1, 0, 0])?;
    for id in apic_ids {
        table.put(&[2, 24, 0, 0])?;
        table.words(&[0, *id, ENABLED, 0, 0])?;
    }
    for range in memory {
        table.put(&[1, 40, 0, 0, 0, 0, 0, 0])?;
        table.put(&range.start().as_u64().to_le_bytes())?;
        table.put(&range.len_bytes().to_le_bytes())?;
        table.words(&[0, ENABLED, 0, 0])?;
    }
    table.finish()
}

/// The system locality distance table (5.2.17): one domain, near itself.
pub fn slit(buffer: &mut [u8]) -> Option<usize> {
    let mut table = Table::new(b"SLIT", 1, buffer)?;
    table.put(&1_u64.to_le_bytes())?;
    table.put(&[10])?;
    table.finish()
}

/// The processor properties topology table (5.2.30): one package with all CPUs.
pub fn pptt(apic_ids: &[u32], buffer: &mut [u8]) -> Option<usize> {
    const PACKAGE: u32 = 1;
    const ID_VALID_AND_LEAF: u32 = 1 << 1 | 1 << 3;
    let mut table = Table::new(b"PPTT", 3, buffer)?;
    let package = u32::try_from(table.end).ok()?;
    table.put(&[0, 20, 0, 0])?;
    table.words(&[PACKAGE, 0, 0, 0])?;
    for (uid, _) in (0_u32..).zip(apic_ids) {
        table.put(&[0, 20, 0, 0])?;
        table.words(&[ID_VALID_AND_LEAF, package, uid, 0])?;
    }
    table.finish()
}

/// A table in the making. Every method answers `None` when the buffer is full.
struct Table<'a> {
    buffer: &'a mut [u8],
    end: usize,
}

impl<'a> Table<'a> {
    fn new(signature: &[u8; 4], revision: u8, buffer: &'a mut [u8]) -> Option<Self> {
        let mut table = Self { buffer, end: 0 };
        table.put(signature)?;
        // Length and checksum come last.
        table.put(&[0, 0, 0, 0, revision, 0])?;
        table.put(b"SVSM  MACHINE ")?;
        table.words(&[1])?;
        table.put(b"SVSM")?;
        table.words(&[1])?;
        Some(table)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.end.checked_add(bytes.len())?;
        self.buffer.get_mut(self.end..end)?.copy_from_slice(bytes);
        self.end = end;
        Some(())
    }

    fn words(&mut self, words: &[u32]) -> Option<()> {
        words
            .iter()
            .try_for_each(|word| self.put(&word.to_le_bytes()))
    }

    fn finish(self) -> Option<usize> {
        let length = u32::try_from(self.end).ok()?;
        let table = self.buffer.get_mut(..self.end)?;
        table.get_mut(4..8)?.copy_from_slice(&length.to_le_bytes());
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        *table.get_mut(9)? = sum.wrapping_neg();
        Some(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_right_sum_and_length() {
        let ids = [0, 1, 300];
        let ram = [GpaRange::from_u64(0, 0x1000).unwrap()];
        let mut buffer = [0xcc; 1024];
        let check = |len: Option<usize>, buffer: &[u8], expected: usize| {
            let table = &buffer[..len.unwrap()];
            assert_eq!(table.len(), expected);
            assert_eq!(table[4..8], u32::try_from(expected).unwrap().to_le_bytes());
            assert_eq!(
                table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
                0
            );
        };
        let len = madt(&ids, &mut buffer);
        check(len, &buffer, 44 + 2 * 8 + 16 + 12 + 5 * 10 + 6);
        let len = srat(&ids, ram.into_iter(), &mut buffer);
        check(len, &buffer, 48 + 3 * 24 + 40);
        let len = slit(&mut buffer);
        check(len, &buffer, 36 + 9);
        let len = pptt(&ids, &mut buffer);
        check(len, &buffer, 36 + 4 * 20);
    }

    #[test]
    fn a_buffer_that_is_too_small_is_no_panic() {
        let mut buffer = [0; 200];
        for len in 0..110 {
            assert_eq!(madt(&[0, 1], &mut buffer[..len]), None);
        }
    }
}

use super::{GdtTable, Ist, PRESENT, RING_3, TablePointer, len_u16};
use crate::{addr::Gva, level::Cpl};

/// An entry of an IDT: where the CPU goes for one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct IdtEntry {
    low: u64,
    high: u64,
}

const _: () = assert!(size_of::<IdtEntry>() == 16);

impl IdtEntry {
    /// No handler: the vector raises #NP or #GP instead.
    pub const MISSING: Self = Self { low: 0, high: 0 };

    /// A gate that masks interrupts; only the processor and ring 0 may go through.
    #[must_use]
    pub const fn interrupt(handler: Gva) -> Self {
        let at = handler.as_u64();
        let selector = GdtTable::KERNEL_CODE.0 as u64;
        let low = at & 0xffff | selector << 16 | 0xe << 40 | PRESENT | (at >> 16 & 0xffff) << 48;
        Self {
            low,
            high: at >> 32,
        }
    }

    /// A gate that leaves interrupts as they are.
    #[must_use]
    pub const fn trap(handler: Gva) -> Self {
        let Self { low, high } = Self::interrupt(handler);
        Self {
            low: low | 1 << 40,
            high,
        }
    }

    /// The same gate, entered on a stack of the TSS.
    #[must_use]
    pub const fn on_stack(self, ist: Ist) -> Self {
        Self {
            low: self.low & !(7 << 32) | (ist.as_u8() as u64) << 32,
            ..self
        }
    }

    /// The same gate, which code in `ring` and below may raise by INT.
    #[must_use]
    pub const fn open_to(self, ring: Cpl) -> Self {
        Self {
            low: self.low & !RING_3 | (ring.as_u8() as u64) << 45,
            ..self
        }
    }

    /// Whether there is a handler.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.low & PRESENT != 0
    }

    /// The handler's address, as a plain number.
    #[must_use]
    pub const fn handler(self) -> u64 {
        self.low & 0xffff | (self.low >> 48) << 16 | self.high << 32
    }
}

/// An IDT with an entry for each vector; exactly one page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(4096))]
pub struct IdtTable([IdtEntry; 256]);

const _: () = assert!(size_of::<IdtTable>() == 4096);

#[expect(
    clippy::indexing_slicing,
    reason = "there are as many entries as vectors"
)]
impl IdtTable {
    /// No handlers.
    #[must_use]
    pub const fn new() -> Self {
        Self([IdtEntry::MISSING; 256])
    }

    /// Sets the entry of a vector.
    pub const fn set(&mut self, vector: u8, entry: IdtEntry) {
        self.0[vector as usize] = entry;
    }

    /// The entry of a vector.
    #[must_use]
    pub const fn entry(&self, vector: u8) -> IdtEntry {
        self.0[vector as usize]
    }

    /// What LIDT needs, if the table lies at `at`.
    #[must_use]
    pub const fn pointer(at: Gva) -> TablePointer {
        TablePointer {
            limit: len_u16::<Self>() - 1,
            base: at.as_u64(),
        }
    }
}

impl Default for IdtTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gva(value: u64) -> Gva {
        Gva::new(value).unwrap()
    }

    #[test]
    fn gates_hold_their_parts() {
        let handler = gva(0xffff_ffff_8012_3456);
        let gate = IdtEntry::interrupt(handler)
            .on_stack(Ist::new(3).unwrap())
            .open_to(Cpl::Ring3);
        assert_eq!(
            gate,
            IdtEntry {
                low: 0x8012_ee03_0008_3456,
                high: 0xffff_ffff
            }
        );
        assert_eq!(gate.handler(), handler.as_u64());
        assert_eq!(IdtEntry::trap(handler).low >> 40 & 0xf, 0xf);
        assert!(gate.is_present() && !IdtEntry::MISSING.is_present());
    }
}

//! The guest's memory as one of its CPUs sees it: through its own page tables, and with the rights of its level.

use super::Frozen;
use crate::addr::{Gpa, Hpa};
use crate::memory::{Guest, GuestMap};
use crate::phys::HostMemory;
use crate::snp::fault::{self, Answer, Attempt};
use crate::snp::nested::Mode;
use crate::snp::shared::{ASID, Shared};
use crate::walk;
use svsm_sim::rmp::{Caller, Vmpl};

const PG: u64 = 1 << 31;

/// The guest's memory.
#[derive(Debug)]
pub struct View<'a, M> {
    /// Where it lies.
    pub map: &'a GuestMap,
    /// Whose it is, on SEV-SNP.
    pub snp: Option<&'a Shared<'a>>,
    /// The machine's memory.
    pub memory: M,
}

impl<M: HostMemory> View<'_, M> {
    /// Reads from a linear address on. Says how many bytes the CPU could read.
    pub fn read(&mut self, cpu: &Frozen, linear: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = linear.wrapping_add(done as u64);
            let count = in_page(at).min(rest.len());
            let piece = rest.get_mut(..count).unwrap_or_default();
            let home = self.home(cpu, at, false);
            if home.is_none_or(|home| self.memory.read(home, piece).is_err()) {
                break;
            }
            done += count;
        }
        done
    }

    /// Writes from a linear address on, to pages that the CPU's tables may protect but its level may write. Says whether
    /// all of it was written.
    pub fn write(&mut self, cpu: &Frozen, linear: u64, bytes: &[u8]) -> bool {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = linear.wrapping_add(done as u64);
            let count = in_page(at).min(rest.len());
            let piece = rest.get(..count).unwrap_or_default();
            let home = self.home(cpu, at, true);
            if home.is_none_or(|home| self.memory.write(home, piece).is_err()) {
                return false;
            }
            done += count;
        }
        true
    }

    /// Where in the machine's memory a linear address is.
    fn home(&mut self, cpu: &Frozen, linear: u64, write: bool) -> Option<Hpa> {
        let bit = self.snp.map_or(0, |shared| shared.encryption.bit());
        let guest = Guest::new(self.map, &mut self.memory);
        let leaf = walk::leaf(&cpu.save, linear, bit, &guest)?;
        let Some(shared) = self.snp else {
            return self.map.resolve(leaf.gpa).map(|(home, _)| home);
        };
        let paged = cpu.save.cr0 & PG != 0;
        let raw = leaf.gpa.as_u64() | if leaf.private && paged { bit } else { 0 };
        let attempt = Attempt {
            raw,
            write,
            fetch: false,
            table: false,
            cpl: 0,
        };
        let caller = Caller {
            asid: ASID,
            vmpl: Vmpl::new(cpu.level?)?,
        };
        let mode = if paged { Mode::Paged } else { Mode::Unpaged };
        let owned = shared.state.lock();
        let answer = fault::judge(
            attempt,
            caller,
            mode,
            shared.encryption,
            self.map,
            &owned.rmp,
        );
        match answer {
            // Of what is mapped, only RAM can be looked at without a guest noticing.
            Answer::Map { .. } => {
                let gpa = Gpa::new(shared.encryption.place(raw).gpa)?;
                self.map.resolve(gpa).map(|(home, _)| home)
            }
            Answer::Share | Answer::Exception(_) | Answer::Violation(_) | Answer::Nothing => None,
        }
    }
}

/// Bytes up to the end of the page.
fn in_page(at: u64) -> usize {
    usize::try_from(4096 - (at & 0xfff)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::HpaRange;
    use crate::layout::{Layout, MapEntry};
    use crate::loader::Backed;
    use crate::phys::fake::Ram;
    use crate::pool::Pool;

    #[test]
    fn memory_ends_where_the_tables_do() {
        let ram = [MapEntry {
            start: 0,
            bytes: 48 << 20,
            kind: 1,
        }];
        let layout = Layout::new(&ram, Some(32 << 20)).unwrap();
        let mut pool = Pool::new(layout.own, HpaRange::from_u64(0, 0).unwrap());
        let map = GuestMap::new(&layout, &Backed::new(), &mut pool, &mut Ram::new(0)).unwrap();
        let mut memory = Ram::new(0x8000);
        memory.0[..0x5000].fill(0);
        for (at, entry) in [
            (0x1000, 0x2003_u64),
            (0x2000, 0x3003),
            (0x3000, 0x4003),
            (0x4000, 0x5001),
        ] {
            memory.0[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        }
        let mut view = View {
            map: &map,
            snp: None,
            memory,
        };
        let mut cpu = Frozen::empty();
        (cpu.save.cr0, cpu.save.cr3, cpu.save.cr4, cpu.save.efer) = (PG, 0x1000, 0x20, 1 << 10);
        // The page is mapped, read-only, and the next is not.
        assert!(view.write(&cpu, 0xffc, &[1, 2, 3, 4]));
        assert!(!view.write(&cpu, 0xffc, &[0; 5]));
        let mut bytes = [0xff; 8];
        assert_eq!(view.read(&cpu, 0xffe, &mut bytes), 2);
        assert_eq!(bytes[..3], [0, 0, 0xff]);
        assert_eq!(view.read(&cpu, 0x1000, &mut bytes), 0);
    }
}

//! The launch of an SNP guest: what the host and the security processor do before the first instruction.

use super::cpuid;
use super::shared::{ASID, C_BIT, Ownership};
use crate::addr::{Gpa, GpaRange, PAGE};
use crate::loader::{Launch, PageKind, Reason};
use crate::memory::GuestMap;
use crate::personality::Hardware;
use crate::phys::GuestMemory;
use crate::range_set::RangeSet;
use svsm_sim::rmp::{HostFailure, NewState, PageSize, State};
use svsm_sim::secrets::{Secrets, SecretsPage, Vmpck};
use svsm_sim::vmsa::TweakBitmap;
use zerocopy::IntoBytes;

/// A launch under way.
#[derive(Debug)]
pub struct Launcher<'a, 'm, H> {
    owned: &'a mut Ownership<'m>,
    map: &'a GuestMap,
    hardware: &'a mut H,
    shared: RangeSet<Gpa, 64>,
}

impl<'a, 'm, H: Hardware> Launcher<'a, 'm, H> {
    /// A launch of the guest whose memory `map` describes.
    pub const fn new(owned: &'a mut Ownership<'m>, map: &'a GuestMap, hardware: &'a mut H) -> Self {
        Self {
            owned,
            map,
            hardware,
            shared: RangeSet::new(),
        }
    }

    /// What the security processor tells nobody but the guest.
    fn secrets(&mut self) -> Secrets {
        let [signature, ..] = cpuid::answer(1, 0, C_BIT, self.hardware);
        let mut key = || {
            let mut bytes = [0; 32];
            for word in bytes.chunks_exact_mut(8) {
                word.copy_from_slice(&self.hardware.random().to_le_bytes());
            }
            Vmpck(bytes)
        };
        Secrets {
            signature,
            gosvw: [0; 16],
            vmpck: [key(), key(), key(), key()],
            vmsa_tweak_bitmap: TweakBitmap::NONE,
            tsc_factor: 0,
        }
    }

    /// Gives the guest all memory that the image did not fill, for it to validate; in pages of 2 MiB where it can be.
    ///
    /// # Errors
    /// The table does not take a page, which is a mistake of this program.
    pub fn finish(self) -> Result<(), HostFailure> {
        const LARGE: u64 = 2 << 20;
        for (range, home) in self.map.ranges() {
            let (start, bytes) = (range.start().as_u64(), range.len_bytes());
            let mut offset = 0;
            while offset < bytes {
                let (gpa, spa) = (start + offset, home.as_u64() + offset);
                let fits = (gpa | spa).is_multiple_of(LARGE) && bytes - offset >= LARGE;
                let (size, step) = if fits && self.is_free(gpa, spa, LARGE) {
                    (PageSize::Size2M, LARGE)
                } else {
                    (PageSize::Size4K, PAGE)
                };
                if self.is_free(gpa, spa, step) {
                    let new = NewState::guest(ASID, gpa, size);
                    self.owned.rmp.rmpupdate(spa, new)?;
                }
                offset += step;
            }
        }
        Ok(())
    }

    /// Whether nothing of a piece of memory is anybody's yet.
    fn is_free(&self, gpa: u64, spa: u64, bytes: u64) -> bool {
        let is_hosts = |spa: u64| {
            let entry = self.owned.rmp.entry(spa);
            entry.is_some_and(|entry| entry.state() == State::Hypervisor)
        };
        let is_shared = |gpa: u64| Gpa::new(gpa).is_none_or(|gpa| self.shared.contains(gpa));
        let mut pages = (0..bytes).step_by(4096);
        pages.all(|offset| is_hosts(spa + offset) && !is_shared(gpa + offset))
    }
}

impl<H: Hardware> Launch for Launcher<'_, '_, H> {
    fn page(
        &mut self,
        gpa: Gpa,
        kind: PageKind,
        memory: &mut impl GuestMemory,
    ) -> Result<(), Reason> {
        let missing = Reason::NoMemory(gpa.as_u64());
        let (home, _) = self.map.resolve(gpa).ok_or(missing)?;
        match kind {
            PageKind::Shared => {
                let range = GpaRange::new(gpa, PAGE).ok_or(missing)?;
                return self.shared.insert(range).map_err(|_| Reason::TooManyRanges);
            }
            PageKind::Cpuid => {
                let mut page = [0; 4096];
                cpuid::fill(&mut page, C_BIT, self.hardware);
                memory.write(gpa, &page).map_err(|_| missing)?;
            }
            PageKind::Secrets => {
                let page = SecretsPage::fill(&self.secrets());
                memory.write(gpa, page.as_bytes()).map_err(|_| missing)?;
            }
            PageKind::Normal | PageKind::Unmeasured | PageKind::Vmsa => {}
        }
        let refused = |failure: HostFailure| Reason::Launch {
            gpa: gpa.as_u64(),
            status: failure as u32,
        };
        let spa = home.as_u64();
        let rmp = &mut self.owned.rmp;
        rmp.rmpupdate(
            spa,
            NewState::pre_guest(ASID, gpa.as_u64(), PageSize::Size4K),
        )
        .map_err(refused)?;
        rmp.launch_update(spa, ASID, kind == PageKind::Vmsa)
            .map_err(refused)
    }
}

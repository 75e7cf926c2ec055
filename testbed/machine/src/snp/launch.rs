//! The launch of an SNP guest: what the host and the security processor do before the first instruction.

use super::cpuid;
use super::shared::{ASID, C_BIT, Ownership};
use crate::addr::{Gpa, GpaRange, Hpa, PAGE};
use crate::loader::{Launch, PageKind, Reason};
use crate::memory::GuestMap;
use crate::personality::Hardware;
use crate::phys::GuestMemory;
use crate::range_set::RangeSet;
use igvm_defs::{
    IGVM_VHS_SNP_ID_BLOCK, IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY, IGVM_VHS_SNP_ID_BLOCK_SIGNATURE,
};
use svsm_sim::cpuid::{Host, Registers};
use svsm_sim::curve::{WireKey, WireSignature};
use svsm_sim::launch::{
    Chip, Guest, IdAuth, IdBlock, Identity, Measurement, PageType, PlatformInfo, Policy, Start,
    Tcb, Update,
};
use svsm_sim::rmp::{HostFailure, NewState, PageSize, State};
use svsm_sim::status::Status;
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

/// The processor of this machine, as the security processor knows it.
#[derive(Clone, Copy, Debug)]
pub struct Processor<H>(pub H);

impl<H: Hardware + Clone> Host for Processor<H> {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers {
        let mut hardware = self.0.clone();
        let [eax, ebx, ecx, edx] = cpuid::answer(leaf, subleaf, C_BIT, &mut hardware);
        Registers { eax, ebx, ecx, edx }
    }
}

/// The chip that this machine is: a name and versions of its own, which no real one has.
#[must_use]
pub fn chip<H>(hardware: H) -> Chip<Processor<H>> {
    let mut id = [0; 64];
    let name = b"software machine";
    for (to, from) in id.iter_mut().zip(name) {
        *to = *from;
    }
    Chip {
        host: Processor(hardware),
        abi: (1, 55),
        build: 1,
        mitigations: 0,
        info: PlatformInfo::SMT,
        vmsa_tweak_bitmap: super::vmsa::BLINDED,
        tsc_khz: 1_000_000,
        tsc_factor: 0,
        tcb: Tcb {
            boot_loader: 4,
            tee: 0,
            snp: 22,
            microcode: 213,
        },
        id,
    }
}

/// A launch under way.
#[derive(Debug)]
pub struct Launcher<'a, 'm, H> {
    owned: &'a mut Ownership<'m>,
    map: &'a GuestMap,
    chip: Chip<Processor<H>>,
    hardware: &'a mut H,
    guest: Guest,
    shared: RangeSet<Gpa, 64>,
}

impl<'a, 'm, H: Hardware + Clone> Launcher<'a, 'm, H> {
    /// Starts the launch of the guest whose memory `map` describes.
    ///
    /// # Errors
    /// [`Reason::LaunchStart`]: the policy and this machine do not go together.
    pub fn new(
        owned: &'a mut Ownership<'m>,
        map: &'a GuestMap,
        hardware: &'a mut H,
        policy: u64,
    ) -> Result<Self, Reason> {
        let chip = chip(hardware.clone());
        let mut guest = Guest::new();
        let start = Start {
            asid: ASID,
            policy: Policy::from_bits_retain(policy),
            gosvw: [0; 16],
            tsc_khz: 0,
        };
        guest
            .launch_start(&chip, &start, &mut |bytes| fill(hardware, bytes))
            .map_err(|status| Reason::LaunchStart(status.code()))?;
        Ok(Self {
            owned,
            map,
            chip,
            hardware,
            guest,
            shared: RangeSet::new(),
        })
    }

    /// Gives the guest all memory that the image did not fill, for it to validate; in pages of 2 MiB where it can be.
    ///
    /// The launch digest comes back.
    ///
    /// # Errors
    /// [`Reason::LaunchFinish`]: the identity is not that of what was launched; or the table does not take a page, which
    /// is a mistake of this program.
    pub fn finish(mut self, id: Option<&IGVM_VHS_SNP_ID_BLOCK>) -> Result<Measurement, Reason> {
        let failed = |status: Status| Reason::LaunchFinish(status.code());
        let identity = id.map(|id| identity(id, self.guest.policy()));
        let identity = identity.as_ref().map(|(block, auth, author)| Identity {
            block,
            auth,
            author: *author,
        });
        self.guest
            .launch_finish(identity, [0; 32], false)
            .map_err(failed)?;
        self.give_rest()
            .map_err(|failure| Reason::LaunchFinish(failure as u32))?;
        let digest = self.guest.measurement();
        self.owned.guest = self.guest;
        Ok(digest)
    }

    fn give_rest(&mut self) -> Result<(), HostFailure> {
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

impl<H: Hardware + Clone> Launch for Launcher<'_, '_, H> {
    fn page(
        &mut self,
        gpa: Gpa,
        kind: PageKind,
        memory: &mut impl GuestMemory,
    ) -> Result<(), Reason> {
        let missing = Reason::NoMemory(gpa.as_u64());
        let (home, _) = self.map.resolve(gpa).ok_or(missing)?;
        let mut page = [0; 4096];
        memory.read(gpa, &mut page).map_err(|_| missing)?;
        let page_type = match kind {
            PageKind::Shared => {
                let range = GpaRange::new(gpa, PAGE).ok_or(missing)?;
                return self.shared.insert(range).map_err(|_| Reason::TooManyRanges);
            }
            PageKind::Cpuid => {
                cpuid::fill(&mut page, C_BIT, self.hardware);
                PageType::Cpuid
            }
            PageKind::Secrets => PageType::Secrets,
            PageKind::Normal => PageType::Normal,
            PageKind::Unmeasured => PageType::Unmeasured,
            PageKind::Vmsa => PageType::Vmsa,
        };
        self.update(gpa, home, page_type, &mut page)
            .map_err(|status| Reason::Launch {
                gpa: gpa.as_u64(),
                status,
            })?;
        memory.write(gpa, &page).map_err(|_| missing)
    }
}

impl<H: Hardware + Clone> Launcher<'_, '_, H> {
    fn update(
        &mut self,
        gpa: Gpa,
        home: Hpa,
        page_type: PageType,
        page: &mut [u8; 4096],
    ) -> Result<(), u32> {
        let spa = home.as_u64();
        let new = NewState::pre_guest(ASID, gpa.as_u64(), PageSize::Size4K);
        let rmp = &mut self.owned.rmp;
        rmp.rmpupdate(spa, new).map_err(|failure| failure as u32)?;
        let hardware = &mut *self.hardware;
        let entropy = &mut |bytes: &mut [u8]| fill(hardware, bytes);
        let update = Update::new(page_type);
        self.guest
            .launch_update(&self.chip, rmp, spa, &update, page, entropy)
            .map_err(Status::code)
    }
}

fn fill(hardware: &mut impl Hardware, bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(8) {
        for (to, from) in piece.iter_mut().zip(hardware.random().to_le_bytes()) {
            *to = from;
        }
    }
}

/// What an image says of who made it, as the security processor takes it.
fn identity(id: &IGVM_VHS_SNP_ID_BLOCK, policy: Policy) -> (IdBlock, IdAuth, bool) {
    let signature = |signature: &IGVM_VHS_SNP_ID_BLOCK_SIGNATURE| {
        let mut wire = WireSignature::new_zeroed();
        (wire.r, wire.s) = (signature.r_comp, signature.s_comp);
        wire
    };
    let key = |key: &IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY| {
        let mut wire = WireKey::new_zeroed();
        (wire.curve, wire.x, wire.y) = (U32::new(key.curve), key.qx, key.qy);
        wire
    };
    let block = IdBlock {
        launch_digest: id.ld,
        family_id: id.family_id,
        image_id: id.image_id,
        version: U32::new(id.version),
        guest_svn: U32::new(id.guest_svn),
        policy: U64::new(policy.bits()),
    };
    let mut auth = IdAuth::new_zeroed();
    auth.id_key_algorithm = U32::new(id.id_key_algorithm);
    auth.author_key_algorithm = U32::new(id.author_key_algorithm);
    auth.id_block_signature = signature(&id.id_key_signature);
    auth.id_key = key(&id.id_public_key);
    auth.id_key_signature = signature(&id.author_key_signature);
    auth.author_key = key(&id.author_public_key);
    (block, auth, id.author_key_enabled != 0)
}

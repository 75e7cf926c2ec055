//! A guest as the security processor knows it, and the commands that bring it to life.

use super::identity::{Identity, Proven};
use super::{Measurement, PageType, PlatformInfo, Policy};
use crate::cpuid::{CpuidPage, Host};
use crate::rmp::{PageSize, Permissions, Rmp, State};
use crate::secrets::{Secrets, SecretsPage, Vmpck};
use crate::status::Status;
use crate::vmsa::{SevFeatures, TweakBitmap, Vmsa};
use core::fmt;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

/// Security versions of the parts of a machine, as one number (56860, "TCB_VERSION", family 19h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tcb {
    /// Of the security processor's boot loader.
    pub boot_loader: u8,
    /// Of its operating system.
    pub tee: u8,
    /// Of the SNP firmware.
    pub snp: u8,
    /// Of the microcode.
    pub microcode: u8,
}

impl Tcb {
    /// As one number.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        u64::from_le_bytes([
            self.boot_loader,
            self.tee,
            0,
            0,
            0,
            0,
            self.snp,
            self.microcode,
        ])
    }

    /// From one number; `None` where reserved bytes are not zero.
    #[must_use]
    pub const fn from_u64(number: u64) -> Option<Self> {
        match number.to_le_bytes() {
            [boot_loader, tee, 0, 0, 0, 0, snp, microcode] => Some(Self {
                boot_loader,
                tee,
                snp,
                microcode,
            }),
            _ => None,
        }
    }

    /// Whether no part is newer than that of `other`.
    #[must_use]
    pub const fn within(self, other: Self) -> bool {
        self.boot_loader <= other.boot_loader
            && self.tee <= other.tee
            && self.snp <= other.snp
            && self.microcode <= other.microcode
    }
}

/// A machine as its security processor knows it. `H` is its main processor, as CPUID shows it.
#[derive(Clone, Debug)]
pub struct Chip<H> {
    /// What CPUID says.
    pub host: H,
    /// The version of the firmware's interface, major and minor.
    pub abi: (u8, u8),
    /// The firmware's build.
    pub build: u8,
    /// Mitigations that the firmware applies.
    pub mitigations: u64,
    /// What the machine is like.
    pub info: PlatformInfo,
    /// Which quadwords of save areas it blinds under register protection.
    pub vmsa_tweak_bitmap: TweakBitmap,
    /// The mean frequency of the time stamp counter.
    pub tsc_khz: u32,
    /// How much slower that is than nominal, in hundred-thousandths.
    pub tsc_factor: u32,
    /// Security versions of what runs.
    pub tcb: Tcb,
    /// The machine's name.
    pub id: [u8; 64],
}

impl<H: Host> Chip<H> {
    /// The processor's signature.
    pub(crate) fn signature(&self) -> u32 {
        self.host.cpuid(1, 0).eax
    }

    /// What a guest's time stamp counter runs at, as a multiple of the machine's with 32 binary places. A guest that asks
    /// for nothing gets the machine's own.
    pub(crate) fn tsc_scale(&self, guest_khz: u32) -> u64 {
        match (guest_khz, self.tsc_khz) {
            (0, _) | (_, 0) => 1 << 32,
            (guest, machine) => (u64::from(guest) << 32) / u64::from(machine),
        }
    }
}

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestState {
    /// It has a context and nothing else.
    Init,
    /// Pages are added.
    Launch,
    /// It runs.
    Running,
}

/// What a host says when it starts a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Under which number the guest's pages are in the reverse map table.
    pub asid: u32,
    /// What the guest demands.
    pub policy: Policy,
    /// What the host's system works around.
    pub gosvw: [u8; 16],
    /// The frequency of the guest's time stamp counter under Secure TSC; 0 for the machine's.
    pub tsc_khz: u32,
}

/// One page of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// What it is.
    pub page_type: PageType,
    /// What VMPL1, VMPL2 and VMPL3 may do with it.
    pub permissions: [Permissions; 3],
}

impl Update {
    /// A page of which lower levels have nothing, as all known hosts launch them.
    #[must_use]
    pub const fn new(page_type: PageType) -> Self {
        Self {
            page_type,
            permissions: [Permissions::empty(); 3],
        }
    }
}

/// Keys of a guest.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) vmpck: [Vmpck; 4],
    /// Root of keys that move with the guest. Nothing migrates here, so it is only ever this machine's.
    pub(crate) vmrk: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What the security processor keeps of a guest (56860, "Guest Context").
#[derive(Clone, Debug)]
pub struct Guest {
    state: GuestState,
    pub(crate) start: Start,
    pub(crate) measurement: Measurement,
    pub(crate) keys: Keys,
    /// Sequence number of the last answer under each key.
    #[cfg_attr(
        not(feature = "processor"),
        expect(dead_code, reason = "only messages count")
    )]
    pub(crate) message_counts: [u64; 4],
    pub(crate) report_id: [u8; 32],
    pub(crate) launch_tcb: Tcb,
    pub(crate) launch_mitigations: u64,
    pub(crate) identity: Option<Proven>,
    pub(crate) host_data: [u8; 32],
    /// Whether the guest may not use what is derived from the chip's own key.
    pub(crate) vcek_disabled: bool,
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// A guest about which nothing is known (`SNP_GCTX_CREATE`).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: GuestState::Init,
            start: Start {
                asid: 0,
                policy: Policy::empty(),
                gosvw: [0; 16],
                tsc_khz: 0,
            },
            measurement: Measurement::NOTHING,
            keys: Keys {
                vmpck: [Vmpck([0; 32]); 4],
                vmrk: [0; 32],
            },
            message_counts: [0; 4],
            report_id: [0; 32],
            launch_tcb: Tcb {
                boot_loader: 0,
                tee: 0,
                snp: 0,
                microcode: 0,
            },
            launch_mitigations: 0,
            identity: None,
            host_data: [0; 32],
            vcek_disabled: false,
        }
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn state(&self) -> GuestState {
        self.state
    }

    /// The launch digest so far, or for good.
    #[must_use]
    pub const fn measurement(&self) -> Measurement {
        self.measurement
    }

    /// What it demands.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.start.policy
    }

    /// Starts the launch (`SNP_LAUNCH_START` and `SNP_ACTIVATE`). `entropy` fills keys and names.
    ///
    /// # Errors
    /// [`Status::InvalidGuestState`] for a second start, [`Status::PolicyFailure`] where machine and policy do not go
    /// together, [`Status::InvalidParam`] for ASID 0, which is the host's.
    pub fn launch_start<H: Host>(
        &mut self,
        chip: &Chip<H>,
        start: &Start,
        entropy: &mut impl FnMut(&mut [u8]),
    ) -> Result<(), Status> {
        self.expect(GuestState::Init)?;
        if start.asid == 0 {
            return Err(Status::InvalidParam);
        }
        start.policy.check(chip.abi, chip.info)?;
        for key in &mut self.keys.vmpck {
            entropy(&mut key.0);
        }
        entropy(&mut self.keys.vmrk);
        entropy(&mut self.report_id);
        self.start = *start;
        self.launch_tcb = chip.tcb;
        self.launch_mitigations = chip.mitigations;
        self.state = GuestState::Launch;
        Ok(())
    }

    /// Adds the page at `spa`, which the host has prepared with `RMPUPDATE` (`SNP_LAUNCH_UPDATE`). `page` holds what the
    /// host wrote there and, afterwards, what the guest will find. `entropy` is asked for a nonce where a save area wants
    /// register protection.
    ///
    /// # Errors
    /// The page and the measurement stay as they were, but a CPUID page that is refused ([`Status::InvalidParam`]) comes
    /// back corrected. [`Status::InvalidPageState`], [`Status::InvalidPageSize`] and [`Status::InvalidPageOwner`] where the
    /// reverse map table does not show a page of this launch.
    pub fn launch_update<H: Host>(
        &mut self,
        chip: &Chip<H>,
        rmp: &mut Rmp<'_>,
        spa: u64,
        update: &Update,
        page: &mut [u8; 4096],
        entropy: &mut impl FnMut(&mut [u8]),
    ) -> Result<(), Status> {
        let entry = *rmp.entry(spa).ok_or(Status::InvalidAddress)?;
        if !PageSize::Size4K.aligns(spa) {
            return Err(Status::InvalidAddress);
        }
        if entry.state() != State::PreGuest {
            return Err(Status::InvalidPageState);
        }
        if entry.size() != PageSize::Size4K {
            return Err(Status::InvalidPageSize);
        }
        self.expect(GuestState::Launch)?;
        if entry.asid() != self.start.asid {
            return Err(Status::InvalidPageOwner);
        }
        let given = *page;
        match update.page_type {
            PageType::Normal | PageType::Unmeasured => {}
            PageType::Zero => page.fill(0),
            PageType::Vmsa => self.prepare_vmsa(chip, page, entropy)?,
            PageType::Secrets => *page = self.secrets(chip),
            PageType::Cpuid => CpuidPage::mut_from_bytes(page)
                .map_err(|_| Status::InvalidParam)?
                .sanitize(&chip.host)
                .map_err(|_| Status::InvalidParam)?,
        }
        let vmsa = update.page_type == PageType::Vmsa;
        rmp.launch_page(spa, self.start.asid, vmsa, update.permissions)
            .map_err(|_| Status::InvalidPageState)?;
        let permissions = update.permissions.map(|rights| rights.bits());
        self.measurement
            .add_page(update.page_type, entry.gpa(), permissions, &given);
        Ok(())
    }

    /// Ends the launch (`SNP_LAUNCH_FINISH`). `host_data` is what the host adds to all reports; `vcek_disabled` takes from
    /// the guest what is derived from the chip's key.
    ///
    /// # Errors
    /// The guest stays where it was. [`Status::BadMeasurement`], [`Status::PolicyFailure`] and [`Status::BadSignature`]
    /// where the identity does not hold, [`Status::InvalidGuestState`] if nothing is being launched.
    pub fn launch_finish(
        &mut self,
        identity: Option<Identity<'_>>,
        host_data: [u8; 32],
        vcek_disabled: bool,
    ) -> Result<(), Status> {
        self.expect(GuestState::Launch)?;
        self.identity = identity
            .map(|identity| identity.check(&self.measurement, self.start.policy))
            .transpose()?;
        self.host_data = host_data;
        self.vcek_disabled = vcek_disabled;
        self.state = GuestState::Running;
        Ok(())
    }

    pub(crate) fn expect(&self, state: GuestState) -> Result<(), Status> {
        if self.state == state {
            Ok(())
        } else {
            Err(Status::InvalidGuestState)
        }
    }

    /// Secure TSC and register protection, where the save area asks for them.
    fn prepare_vmsa<H: Host>(
        &self,
        chip: &Chip<H>,
        page: &mut [u8; 4096],
        entropy: &mut impl FnMut(&mut [u8]),
    ) -> Result<(), Status> {
        let vmsa = Vmsa::mut_from_bytes(page).map_err(|_| Status::InvalidParam)?;
        if vmsa.features().contains(SevFeatures::SECURE_TSC) {
            vmsa.tsc_scale = U64::new(chip.tsc_scale(self.start.tsc_khz));
            vmsa.tsc_offset = U64::new(0);
        }
        if vmsa.features().contains(SevFeatures::VMSA_REG_PROT) {
            let mut nonce = [0; 8];
            entropy(&mut nonce);
            vmsa.protect(&chip.vmsa_tweak_bitmap, u64::from_le_bytes(nonce));
        }
        Ok(())
    }

    fn secrets<H: Host>(&self, chip: &Chip<H>) -> [u8; 4096] {
        let filled = SecretsPage::fill(&Secrets {
            signature: chip.signature(),
            gosvw: self.start.gosvw,
            vmpck: self.keys.vmpck,
            vmsa_tweak_bitmap: chip.vmsa_tweak_bitmap,
            tsc_factor: chip.tsc_factor,
        });
        let mut page = [0; 4096];
        page.copy_from_slice(filled.as_bytes());
        page
    }
}

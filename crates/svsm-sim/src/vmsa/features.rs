//! Words of the save area in which each bit means something.

bitflags::bitflags! {
    /// What makes one virtual processor differ from another: `SEV_FEATURES` (24593, "SEV_FEATURES field").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SevFeatures: u64 {
        /// SEV-SNP protects this processor.
        const SNP_ACTIVE = 1 << 0;
        /// An address boundary, and not the C-bit, says what is private.
        const VTOM = 1 << 1;
        /// A #VC becomes an exit whose cause the save area holds.
        const REFLECT_VC = 1 << 2;
        /// The host may inject #HV and nothing else.
        const RESTRICTED_INJECTION = 1 << 3;
        /// Interrupts come from the save area, not from the host's control block.
        const ALTERNATE_INJECTION = 1 << 4;
        /// Debug registers are saved and restored in full.
        const DEBUG_SWAP = 1 << 5;
        /// The host's sampling stops while the guest runs.
        const PREVENT_HOST_IBS = 1 << 6;
        /// Branch targets of others do not steer this guest.
        const SNP_BTB_ISOLATION = 1 << 7;
        /// Rights over supervisor shadow stacks are checked.
        const VMPL_SSS = 1 << 8;
        /// The time stamp counter follows the save area, not the host.
        const SECURE_TSC = 1 << 9;
        /// `VMGEXIT` takes a parameter.
        const VMGEXIT_PARAMETER = 1 << 10;
        /// Performance counters belong to the guest.
        const PMC_VIRTUALIZATION = 1 << 11;
        /// Sampling belongs to the guest.
        const IBS_VIRTUALIZATION = 1 << 12;
        /// The guest chooses intercepts of lower levels.
        const GUEST_INTERCEPT_CONTROL = 1 << 13;
        /// Registers at rest are blinded with a nonce.
        const VMSA_REG_PROT = 1 << 14;
        /// The sibling thread must idle.
        const SMT_PROTECTION = 1 << 15;
        /// The interrupt controller's registers are in a private page.
        const SECURE_AVIC = 1 << 16;
        /// Branch predictors are flushed at each entry.
        const IBPB_ON_ENTRY = 1 << 21;
    }
}

bitflags::bitflags! {
    /// `VINTR_CTRL` of the save area: interrupts under alternate injection, and the mark of a processor that runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct VintrCtrl: u64 {
        /// The virtual task priority.
        const V_TPR = 0xff;
        /// An interrupt waits.
        const V_IRQ = 1 << 8;
        /// The virtual global interrupt flag.
        const V_GIF = 1 << 9;
        /// The processor is in an interrupt shadow.
        const INT_SHADOW = 1 << 10;
        /// An NMI waits.
        const V_NMI = 1 << 11;
        /// NMIs are blocked.
        const V_NMI_MASK = 1 << 12;
        /// The priority of the interrupt that waits.
        const V_INTR_PRIO = 0xf << 16;
        /// That priority is ignored.
        const V_IGN_TPR = 1 << 20;
        /// Virtual NMIs are in use.
        const V_NMI_ENABLE = 1 << 26;
        /// The vector of the interrupt that waits.
        const V_INTR_VECTOR = 0xff << 32;
        /// The save area is loaded in a processor; `VMRUN` refuses it.
        const BUSY = 1 << 63;
    }
}

impl VintrCtrl {
    /// The vector of the interrupt that waits, where one does.
    #[must_use]
    pub const fn vector(self) -> Option<u8> {
        if self.contains(Self::V_IRQ) {
            let [_, _, _, _, vector, ..] = self.bits().to_le_bytes();
            Some(vector)
        } else {
            None
        }
    }

    /// The virtual task priority, 0 to 15.
    #[must_use]
    pub const fn tpr(self) -> u8 {
        let [tpr, ..] = self.bits().to_le_bytes();
        tpr & 0xf
    }

    /// Whether the interrupt that waits outranks the task priority.
    #[must_use]
    pub const fn outranks(self) -> bool {
        let [_, _, priority, ..] = self.bits().to_le_bytes();
        self.contains(Self::V_IRQ)
            && (self.contains(Self::V_IGN_TPR) || priority & 0xf > self.tpr())
    }
}

/// An event to inject, in the format of `EVENTINJ` and `EXITINTINFO` (24593, "Event Injection").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Injected(pub u64);

impl Injected {
    /// Bit 31: there is an event.
    const VALID: u64 = 1 << 31;
    /// Bit 11: the upper half is its error code.
    const ERROR_CODE: u64 = 1 << 11;

    /// Whether there is an event at all.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        let [vector, ..] = self.0.to_le_bytes();
        vector
    }

    /// Its type: 0 interrupt, 2 NMI, 3 exception, 4 software interrupt.
    #[must_use]
    pub const fn kind(self) -> u8 {
        let [_, kind, ..] = self.0.to_le_bytes();
        kind & 7
    }

    /// The error code that it pushes, where it pushes one.
    #[must_use]
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & Self::ERROR_CODE == 0 {
            return None;
        }
        let [_, _, _, _, a, b, c, d] = self.0.to_le_bytes();
        Some(u32::from_le_bytes([a, b, c, d]))
    }

    /// Whether hardware can inject it: absent, or of a known type, and if an exception then one that is an exception.
    #[must_use]
    pub const fn is_legal(self) -> bool {
        !self.is_valid()
            || match self.kind() {
                0 | 2 | 4 => true,
                3 => self.vector() < 32 && self.vector() != 2,
                _ => false,
            }
    }
}

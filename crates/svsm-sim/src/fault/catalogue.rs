//! Every fault: its name, what it does, what it takes and what must come of it.

use core::fmt;

bitflags::bitflags! {
    /// What an event gives a host the opportunity to lie about. An event is an exit of a virtual CPU that the host answers;
    /// events are numbered through a run from zero.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Occasions: u32 {
        /// The guest is entered again: true of every event, so that nobody has to say it.
        const ENTRY = 1 << 0;
        /// The guest made a request through its page, and finds a reply there.
        const REPLY = 1 << 1;
        /// The reply has registers that the guest is to read.
        const REGISTERS = 1 << 2;
        /// The guest made a request through the GHCB register.
        const MSR_PROTOCOL = 1 << 3;
        /// A list of page-state changes.
        const PAGE_STATE_LIST = 1 << 4;
        /// Any page-state change, one page or a list.
        const PAGE_STATE = 1 << 5;
        /// CPUID, answered by the host.
        const CPUID = 1 << 6;
        /// A port, device memory or an MSR is read.
        const DEVICE_READ = 1 << 7;
        /// A message for the security processor.
        const GUEST_REQUEST = 1 << 8;
        /// A virtual CPU is created.
        const AP_CREATION = 1 << 9;
        /// Another level is to be run.
        const RUN_VMPL = 1 << 10;
        /// The guest has a private page that was named to the host, and that it can take away.
        const PRIVATE_PAGE = 1 << 11;
        /// The guest takes interrupts.
        const INTERRUPTIBLE = 1 << 12;
        /// The virtual CPU has a doorbell page.
        const DOORBELL = 1 << 13;
        /// There are other virtual CPUs, whose exits can be answered first.
        const OTHERS = 1 << 14;
        /// The features of the host are asked for.
        const FEATURES = 1 << 15;
    }
}

bitflags::bitflags! {
    /// Where a fault means something.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Platforms: u8 {
        /// A machine without isolation.
        const NATIVE = 1 << 0;
        /// AMD SEV-SNP.
        const SNP = 1 << 1;
    }
}

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Who owns a page, when the guest asked for a change.
    PageState,
    /// Who owns a page, when it did not.
    Memory,
    /// What the host answers.
    Reply,
    /// Interrupts and exceptions.
    Injection,
    /// When things happen, and in which order.
    Time,
    /// The channel to the security processor.
    Messages,
    /// Virtual CPUs.
    Cpus,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::PageState,
        Self::Memory,
        Self::Reply,
        Self::Injection,
        Self::Time,
        Self::Messages,
        Self::Cpus,
    ];

    /// Its name, which stands for all its faults on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PageState => "page-state",
            Self::Memory => "memory",
            Self::Reply => "reply",
            Self::Injection => "injection",
            Self::Time => "time",
            Self::Messages => "messages",
            Self::Cpus => "cpus",
        }
    }
}

/// What a guest must make of a fault. Whatever it is, a guest must not crash, and must not go on with a wrong value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// A host may do this: the guest must reach the same end as without it.
    Tolerated,
    /// The guest must see through it. If it matters to the guest, it ends by its own request; if not, it goes on.
    Detected,
    /// No guest can help it: whether it ends, waits for ever or goes on, it only must not crash.
    Denied,
}

impl Expected {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tolerated => "tolerated",
            Self::Detected => "detected",
            Self::Denied => "denied",
        }
    }
}

/// What the catalogue says about a fault.
struct Facts {
    name: &'static str,
    about: &'static str,
    class: Class,
    platforms: Platforms,
    occasions: Occasions,
    expected: Expected,
}

macro_rules! catalogue {
    ($($fault:ident $name:literal $class:ident [$($platform:ident)+] [$($occasion:ident)+] $expected:ident $about:literal)+) => {
        /// A way to lie.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Fault {
            $(#[doc = concat!("`", $name, "`: ", $about, ".")] $fault,)+
        }

        impl Fault {
            /// All of them, in the catalogue's order.
            pub const ALL: &'static [Self] = &[$(Self::$fault,)+];

            const fn facts(self) -> Facts {
                match self {
                    $(Self::$fault => Facts {
                        name: $name,
                        about: $about,
                        class: Class::$class,
                        platforms: Platforms::empty()$(.union(Platforms::$platform))+,
                        occasions: Occasions::empty()$(.union(Occasions::$occasion))+,
                        expected: Expected::$expected,
                    },)+
                }
            }
        }
    };
}

catalogue! {
    EarlyPsc "early-psc" PageState [SNP] [PAGE_STATE_LIST] Tolerated
        "stops within a list of page-state changes, and says so by its progress"
    PartialPsc "partial-psc" PageState [SNP] [PAGE_STATE_LIST] Detected
        "makes only the first of a list's page-state changes, and reports all as made"
    PscBackwards "psc-backwards" PageState [SNP] [PAGE_STATE_LIST] Detected
        "reports less progress in a list than there was before"
    PscRewrite "psc-rewrite" PageState [SNP] [PAGE_STATE_LIST] Detected
        "changes the guest's list of page-state changes after the fact"
    PscWrongSize "psc-wrong-size" PageState [SNP] [PAGE_STATE_LIST] Tolerated
        "hands out pages of 4 KiB where one of 2 MiB was asked for"
    PscRefused "psc-refused" PageState [SNP] [PAGE_STATE] Denied
        "refuses a page-state change"
    PscElsewhere "psc-elsewhere" PageState [SNP] [PAGE_STATE] Detected
        "makes no page-state change, and reports it as made"

    Remap "remap" Memory [SNP] [PRIVATE_PAGE] Detected
        "takes a private page away and puts another with the same content in its place"
    Replay "replay" Memory [SNP] [PRIVATE_PAGE] Detected
        "takes a private page away and puts one with old content in its place"
    Smash "smash" Memory [SNP] [PRIVATE_PAGE] Tolerated
        "splits a private page of 2 MiB into small ones"

    JunkOutput "junk-output" Reply [SNP] [REPLY] Tolerated
        "leaves junk, marked as valid, in registers that the event does not return"
    JunkBuffer "junk-buffer" Reply [SNP] [REPLY] Tolerated
        "leaves junk in the shared buffer behind what the event returns"
    WrongExitInfo "wrong-exit-info" Reply [SNP] [REPLY] Detected
        "answers with a result that the protocol does not know"
    WrongException "wrong-exception" Reply [SNP] [REPLY] Detected
        "tells the guest to raise an exception that no host may ask for"
    MissingOutput "missing-output" Reply [SNP] [REGISTERS] Detected
        "returns registers without marking them as valid"
    RefusedExit "refused-exit" Reply [SNP] [REPLY] Detected
        "calls a well-formed request malformed"
    SpuriousReturn "spurious-return" Reply [SNP] [REPLY MSR_PROTOCOL] Detected
        "returns from VMGEXIT without having done or answered anything"
    WrongMsrResponse "wrong-msr-response" Reply [SNP] [MSR_PROTOCOL] Detected
        "answers a request of the MSR protocol with the response to another"
    LyingCpuid "lying-cpuid" Reply [NATIVE SNP] [CPUID] Detected
        "answers CPUID with junk where the guest has no better source"
    LyingDevice "lying-device" Reply [SNP] [DEVICE_READ] Tolerated
        "answers a read of a port, of device memory or of an MSR with junk"
    LyingFeatures "lying-features" Reply [SNP] [FEATURES] Detected
        "claims features that it lacks, and denies those that it has"

    StrayInterrupt "stray-interrupt" Injection [NATIVE SNP] [INTERRUPTIBLE] Tolerated
        "injects an external interrupt with a vector that nobody allowed"
    ForbiddenVector "forbidden-vector" Injection [NATIVE SNP] [INTERRUPTIBLE] Tolerated
        "injects an external interrupt with a vector that belongs to an exception"
    StrayNmi "stray-nmi" Injection [NATIVE SNP] [ENTRY] Tolerated
        "injects an NMI"
    StrayVc "stray-vc" Injection [SNP] [ENTRY] Detected
        "injects #VC with a code that does not fit the instruction"
    StrayDoorbell "stray-doorbell" Injection [SNP] [DOORBELL] Tolerated
        "injects #HV with nothing on the doorbell page"
    DoorbellJunk "doorbell-junk" Injection [SNP] [DOORBELL] Tolerated
        "writes junk to the doorbell page, its vector included"
    LostInterrupt "lost-interrupt" Injection [SNP] [INTERRUPTIBLE] Denied
        "drops an interrupt that was due"

    DelayedExit "delayed-exit" Time [NATIVE SNP] [ENTRY] Tolerated
        "takes long to answer an exit"
    ReorderedExits "reordered-exits" Time [NATIVE SNP] [OTHERS] Tolerated
        "answers an exit only after others of other CPUs that came later"
    Reset "reset" Time [NATIVE SNP] [ENTRY] Denied
        "ends the run as if somebody had pressed the button"

    TamperedRequest "tampered-request" Messages [SNP] [GUEST_REQUEST] Detected
        "changes a message on its way to the security processor"
    TamperedResponse "tampered-response" Messages [SNP] [GUEST_REQUEST] Detected
        "changes a message on its way back from the security processor"
    ReplayedResponse "replayed-response" Messages [SNP] [GUEST_REQUEST] Detected
        "hands out the security processor's previous response again"
    BusyProcessor "busy-processor" Messages [SNP] [GUEST_REQUEST] Tolerated
        "says that the security processor is busy"

    ApRefused "ap-refused" Cpus [SNP] [AP_CREATION] Denied
        "refuses to create a virtual CPU"
    ApIdle "ap-idle" Cpus [SNP] [AP_CREATION] Denied
        "reports a virtual CPU as created and never runs it"
    RunVmplElsewhere "run-vmpl-elsewhere" Cpus [SNP] [RUN_VMPL] Tolerated
        "returns to the caller at once instead of running the level that was asked for"
}

// A set of faults is one word.
const _: () = assert!(Fault::ALL.len() <= 64);

impl Fault {
    /// Its name: lower case, with hyphens; it never changes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What the host does, in a line: a sentence without subject and full stop.
    #[must_use]
    pub const fn about(self) -> &'static str {
        self.facts().about
    }

    /// What it is about.
    #[must_use]
    pub const fn class(self) -> Class {
        self.facts().class
    }

    /// Where it means something.
    #[must_use]
    pub const fn platforms(self) -> Platforms {
        self.facts().platforms
    }

    /// What it can be done at: any of these.
    #[must_use]
    pub const fn occasions(self) -> Occasions {
        self.facts().occasions
    }

    /// What must come of it.
    #[must_use]
    pub const fn expected(self) -> Expected {
        self.facts().expected
    }

    /// The fault with that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// Its place in the catalogue.
    pub(super) const fn index(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

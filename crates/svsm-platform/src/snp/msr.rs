//! Requests that fit into the GHCB MSR: what works before there is a page to share (56421, "GHCB MSR Protocol").

use super::{Error, HvFeatures, Refusal, insn::Insn};
use crate::{
    addr::{Gpa, PageSize},
    level::Vmpl,
};

const SEV_INFO: u64 = 0x002;
const SEV_INFO_IS: u64 = 0x001;
const CPUID: u64 = 0x004;
const PREFERRED_GHCB: u64 = 0x010;
const REGISTER_GHCB: u64 = 0x012;
const PAGE_STATE: u64 = 0x014;
const RUN_VMPL: u64 = 0x016;
const FEATURES: u64 = 0x080;
const TERMINATE: u64 = 0x100;

/// Selects the request and the answer.
const INFO: u64 = 0xfff;
/// The page of an address.
const PAGE: u64 = 0x000f_ffff_ffff_f000;

/// The version of the protocol that this code speaks.
pub const VERSION: u16 = 2;

/// How often a host may return without having done anything.
pub(super) const PATIENCE: u32 = 16;

/// What the host says about its SEV and its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SevInfo {
    /// The newest version of the protocol that it speaks.
    pub newest: u16,
    /// The oldest one.
    pub oldest: u16,
    /// Where it says the C-bit is. The CPUID page knows better.
    pub c_bit: u8,
}

impl SevInfo {
    /// The version that both sides speak.
    ///
    /// # Errors
    /// [`Error::ProtocolVersion`] if there is none.
    pub const fn version(&self) -> Result<u16, Error> {
        if self.oldest <= VERSION && VERSION <= self.newest {
            Ok(VERSION)
        } else {
            Err(Error::ProtocolVersion)
        }
    }
}

/// A register of CPUID's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Why the machine shall end: a set of reasons, and a reason of that set. It is all that the host gets to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Termination {
    /// The set: 0 is the protocol's own, 1 is Linux's.
    pub set: u8,
    /// The reason in it.
    pub code: u8,
}

/// The protocol over an instruction leaf.
#[derive(Clone, Copy, Debug)]
pub struct MsrProtocol<I>(I);

impl<I: Insn> MsrProtocol<I> {
    /// The protocol, spoken by `insn`.
    #[must_use]
    pub const fn new(insn: I) -> Self {
        Self(insn)
    }

    /// Asks; a host that returns without an answer is asked again.
    fn ask(&self, request: u64, answer: u64) -> Result<u64, Error> {
        for _ in 0..PATIENCE {
            // SAFETY: all requests here ask for a word, but two: a page-state change, whose caller vouches for the page, and
            // the run of another level, which has only the memory that it was given.
            #[expect(unsafe_code, reason = "asks the host")]
            let found = unsafe { self.0.vmgexit(request) };
            if found & INFO == answer {
                return Ok(found & !INFO);
            }
            if found != request {
                return Err(Error::Answer {
                    request: request & INFO,
                });
            }
        }
        Err(Error::NoAnswer {
            request: request & INFO,
        })
    }

    /// Asks which versions the host speaks.
    ///
    /// # Errors
    /// It does not say.
    pub fn sev_info(&self) -> Result<SevInfo, Error> {
        let [_, _, _, c_bit, old0, old1, new0, new1] =
            self.ask(SEV_INFO, SEV_INFO_IS)?.to_le_bytes();
        Ok(SevInfo {
            newest: u16::from_le_bytes([new0, new1]),
            oldest: u16::from_le_bytes([old0, old1]),
            c_bit,
        })
    }

    /// Asks what the host can do.
    ///
    /// # Errors
    /// It does not say.
    pub fn features(&self) -> Result<HvFeatures, Error> {
        let bits = self.ask(FEATURES, FEATURES | 1)?;
        Ok(HvFeatures::from_bits_retain(bits >> 12))
    }

    /// Asks for a register of a CPUID leaf, subleaf 0; the answer is the host's word.
    ///
    /// # Errors
    /// It does not say.
    pub fn cpuid(&self, leaf: u32, register: CpuidRegister) -> Result<u32, Error> {
        let which = (register as u64) << 30;
        let answer = self.ask(u64::from(leaf) << 32 | which | CPUID, CPUID | 1)?;
        let [_, _, _, _, value @ ..] = answer.to_le_bytes();
        Ok(u32::from_le_bytes(value))
    }

    /// Asks where the host wants the GHCB page; `None` if anywhere.
    ///
    /// # Errors
    /// It does not say, or names no address.
    pub fn preferred_ghcb(&self) -> Result<Option<Gpa>, Error> {
        match self.ask(PREFERRED_GHCB, PREFERRED_GHCB | 1)? {
            anywhere if anywhere == !INFO => Ok(None),
            place => Gpa::new(place).map(Some).ok_or(Error::Answer {
                request: PREFERRED_GHCB,
            }),
        }
    }

    /// Registers the page of this CPU and level: the only one that the host will look at.
    ///
    /// # Errors
    /// The host wants another one.
    pub fn register_ghcb(&self, page: Gpa) -> Result<(), Error> {
        let answer = self.ask(page.as_u64() & PAGE | REGISTER_GHCB, REGISTER_GHCB | 1)?;
        if answer & PAGE == page.as_u64() {
            Ok(())
        } else {
            Err(Error::Refused {
                request: REGISTER_GHCB,
                refusal: Refusal::Code(answer >> 12),
            })
        }
    }

    /// Asks the host to make a 4 KiB page private or shared. What PVALIDATE has to do is not done here.
    ///
    /// # Errors
    /// The host says that it did not. Then it is not known whether it did.
    ///
    /// # Safety
    /// Rust code relies on nothing in the page.
    #[expect(unsafe_code, reason = "takes a page away")]
    pub unsafe fn change_page(&self, page: Gpa, private: bool) -> Result<(), Error> {
        if !page.is_aligned(PageSize::Size4K) {
            return Err(Error::Unaligned);
        }
        let operation = if private { 1_u64 } else { 2 };
        let request = operation << 52 | page.as_u64() & PAGE | PAGE_STATE;
        done(PAGE_STATE, self.ask(request, PAGE_STATE | 1)?)
    }

    /// Runs a lower level on this CPU until it or the host wants this one again. That it ran is not said.
    ///
    /// # Errors
    /// There is no such level.
    pub fn run_vmpl(&self, level: Vmpl) -> Result<(), Error> {
        let request = u64::from(level.as_u8()) << 32 | RUN_VMPL;
        done(RUN_VMPL, self.ask(request, RUN_VMPL | 1)?)
    }

    /// Asks the host to end the machine. A host that does not is asked again, for ever.
    pub fn terminate(&self, why: Termination) -> ! {
        let request = u64::from(why.code) << 16 | u64::from(why.set & 0xf) << 12 | TERMINATE;
        loop {
            // SAFETY: nothing runs after this but this.
            #[expect(unsafe_code, reason = "asks the host")]
            let _ = unsafe { self.0.vmgexit(request) };
            core::hint::spin_loop();
        }
    }
}

/// The upper half of an answer is an error code.
const fn done(request: u64, answer: u64) -> Result<(), Error> {
    match answer >> 32 {
        0 => Ok(()),
        code => Err(Error::Refused {
            request,
            refusal: Refusal::Code(code),
        }),
    }
}

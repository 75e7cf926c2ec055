//! A call as it arrives in the registers of a guest processor.

use core::fmt;

/// Names a family of calls. Anybody may define one, so this is a number and no enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ProtocolId(u32);

impl ProtocolId {
    /// Core services.
    pub const CORE: Self = Self(0);
    /// Attestation.
    pub const ATTEST: Self = Self(1);
    /// Virtual TPM.
    pub const VTPM: Self = Self(2);
    /// APIC emulation.
    pub const APIC: Self = Self(3);
    /// UEFI management mode.
    pub const UEFI_MM: Self = Self(4);

    /// The protocol with that number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ProtocolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protocol {:#x}", self.0)
    }
}

/// A call of the core protocol (58019, "Core Protocol"), by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CoreCall(pub u32);

impl CoreCall {
    /// `SVSM_CORE_REMAP_CA`
    pub const REMAP_CA: Self = Self(0);
    /// `SVSM_CORE_PVALIDATE`
    pub const PVALIDATE: Self = Self(1);
    /// `SVSM_CORE_CREATE_VCPU`
    pub const CREATE_VCPU: Self = Self(2);
    /// `SVSM_CORE_DELETE_VCPU`
    pub const DELETE_VCPU: Self = Self(3);
    /// `SVSM_CORE_DEPOSIT_MEM`
    pub const DEPOSIT_MEM: Self = Self(4);
    /// `SVSM_CORE_WITHDRAW_MEM`
    pub const WITHDRAW_MEM: Self = Self(5);
    /// `SVSM_CORE_QUERY_PROTOCOL`
    pub const QUERY_PROTOCOL: Self = Self(6);
    /// `SVSM_CORE_CONFIGURE_VTOM`
    pub const CONFIGURE_VTOM: Self = Self(7);
}

/// A protocol and a call of it, as they stand in RAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CallId {
    /// Which protocol.
    pub protocol: ProtocolId,
    /// Which of its calls.
    pub call: u32,
}

impl CallId {
    /// Reads RAX: protocol in the upper, call in the lower half.
    #[must_use]
    pub const fn from_rax(rax: u64) -> Self {
        let [p0, p1, p2, p3, c0, c1, c2, c3] = rax.to_be_bytes();
        Self {
            protocol: ProtocolId(u32::from_be_bytes([p0, p1, p2, p3])),
            call: u32::from_be_bytes([c0, c1, c2, c3]),
        }
    }

    /// What the guest puts into RAX.
    #[must_use]
    pub fn to_rax(self) -> u64 {
        u64::from(self.protocol.0) << 32 | u64::from(self.call)
    }
}

/// The registers of the guest that a call concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The call; afterwards the result.
    pub rax: u64,
    /// First argument.
    pub rcx: u64,
    /// Second argument.
    pub rdx: u64,
    /// Third argument.
    pub r8: u64,
    /// Fourth argument.
    pub r9: u64,
}

/// Arguments of a call, of which a protocol may change those that the specification says it answers in.
///
/// They are the guest's words: claims, whatever they look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// First argument.
    pub rcx: u64,
    /// Second argument.
    pub rdx: u64,
    /// Third argument.
    pub r8: u64,
    /// Fourth argument.
    pub r9: u64,
}

impl Registers {
    /// Which call it is.
    #[must_use]
    pub const fn call(&self) -> CallId {
        CallId::from_rax(self.rax)
    }

    /// The arguments.
    #[must_use]
    pub const fn arguments(&self) -> Arguments {
        Arguments {
            rcx: self.rcx,
            rdx: self.rdx,
            r8: self.r8,
            r9: self.r9,
        }
    }

    pub(crate) fn answer(&mut self, result: crate::ResultCode, arguments: Arguments) {
        let Arguments { rcx, rdx, r8, r9 } = arguments;
        *self = Self {
            rax: u64::from(result),
            rcx,
            rdx,
            r8,
            r9,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rax_round_trips(rax in any::<u64>()) {
            prop_assert_eq!(CallId::from_rax(rax).to_rax(), rax);
        }
    }

    #[test]
    fn the_protocol_is_the_upper_half() {
        let id = CallId::from_rax(0x0000_0002_0000_0001);
        assert_eq!(
            id,
            CallId {
                protocol: ProtocolId::VTPM,
                call: 1
            }
        );
    }
}

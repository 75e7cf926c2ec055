//! From a call to the service that answers it.

use crate::{Arguments, CoreCall, ProtocolId, Registers, ResultCode};
use core::fmt;

/// The versions of a protocol that a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Versions {
    minimum: u32,
    maximum: u32,
}

impl Versions {
    /// All from `minimum` to `maximum`; `None` if that is none.
    #[must_use]
    pub const fn new(minimum: u32, maximum: u32) -> Option<Self> {
        if minimum <= maximum {
            Some(Self { minimum, maximum })
        } else {
            None
        }
    }

    /// One version.
    #[must_use]
    pub const fn only(version: u32) -> Self {
        Self {
            minimum: version,
            maximum: version,
        }
    }

    /// Whether `version` is one of them.
    #[must_use]
    pub const fn contains(self, version: u32) -> bool {
        self.minimum <= version && version <= self.maximum
    }
}

/// What a call answers: a code that ends it well, or one that does not.
///
/// Both reach the guest in the same register; the two sides let a service use `?`.
pub type Outcome = Result<ResultCode, ResultCode>;

/// A family of calls that a guest can make.
pub trait Protocol {
    /// Its number.
    fn id(&self) -> ProtocolId;

    /// The versions that it speaks.
    fn versions(&self) -> Versions;

    /// Answers a call; `arguments` go back to the guest as they are left.
    ///
    /// # Errors
    /// The failure that the guest is told. Its arguments then go back as they came, so that a failed call can be repeated.
    fn call(&mut self, call: u32, arguments: &mut Arguments) -> Outcome;
}

/// Finds the service for a call. Knows none of them.
pub struct Dispatcher<'p, const N: usize> {
    protocols: [&'p mut dyn Protocol; N],
}

impl<'p, const N: usize> Dispatcher<'p, N> {
    /// A dispatcher for these services.
    ///
    /// # Errors
    /// Two of them claim the same number.
    pub fn new(protocols: [&'p mut dyn Protocol; N]) -> Result<Self, DuplicateProtocol> {
        for (index, protocol) in protocols.iter().enumerate() {
            let id = protocol.id();
            if protocols
                .iter()
                .take(index)
                .any(|earlier| earlier.id() == id)
            {
                return Err(DuplicateProtocol(id));
            }
        }
        Ok(Self { protocols })
    }

    /// Answers the call that `registers` hold, in those registers.
    pub fn dispatch(&mut self, registers: &mut Registers) {
        let id = registers.call();
        let before = registers.arguments();
        let mut arguments = before;
        let outcome =
            if id.protocol == ProtocolId::CORE && CoreCall(id.call) == CoreCall::QUERY_PROTOCOL {
                arguments.rcx = self.query(arguments.rcx);
                Ok(ResultCode::SUCCESS)
            } else {
                match self.find(id.protocol) {
                    Some(protocol) => protocol.call(id.call, &mut arguments),
                    // The core protocol is always there, if only to be asked for others.
                    None if id.protocol == ProtocolId::CORE => Err(ResultCode::UNSUPPORTED_CALL),
                    None => Err(ResultCode::UNSUPPORTED_PROTOCOL),
                }
            };
        match outcome {
            Ok(code) => registers.answer(code, arguments),
            Err(code) => registers.answer(code, before),
        }
    }

    /// `SVSM_CORE_QUERY_PROTOCOL`: protocol and wanted version in, zero or maximum and minimum out.
    fn query(&mut self, rcx: u64) -> u64 {
        // The same halves as in a call.
        let asked = crate::CallId::from_rax(rcx);
        let versions = match self.find(asked.protocol) {
            Some(protocol) => Some(protocol.versions()),
            // What answers this is version 1 of the core protocol.
            None if asked.protocol == ProtocolId::CORE => Some(Versions::only(1)),
            None => None,
        };
        match versions {
            Some(versions) if versions.contains(asked.call) => {
                u64::from(versions.maximum) << 32 | u64::from(versions.minimum)
            }
            _ => 0,
        }
    }

    fn find(&mut self, id: ProtocolId) -> Option<&mut dyn Protocol> {
        for protocol in &mut self.protocols {
            if protocol.id() == id {
                return Some(*protocol);
            }
        }
        None
    }
}

impl<const N: usize> fmt::Debug for Dispatcher<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.protocols.iter().map(|protocol| protocol.id()))
            .finish()
    }
}

/// Two services claim the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DuplicateProtocol(pub ProtocolId);

impl fmt::Display for DuplicateProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two services answer {}", self.0)
    }
}

impl core::error::Error for DuplicateProtocol {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CallId;
    use proptest::prelude::*;

    struct Echo {
        id: u32,
        versions: Versions,
    }

    impl Protocol for Echo {
        fn id(&self) -> ProtocolId {
            ProtocolId::new(self.id)
        }

        fn versions(&self) -> Versions {
            self.versions
        }

        fn call(&mut self, call: u32, arguments: &mut Arguments) -> Outcome {
            arguments.r9 = 7;
            if call == 1 {
                Ok(ResultCode::SUCCESS)
            } else {
                Err(ResultCode::UNSUPPORTED_CALL)
            }
        }
    }

    fn ask(protocols: [&mut dyn Protocol; 1], rax: u64, rcx: u64) -> Registers {
        let mut registers = Registers {
            rax,
            rcx,
            rdx: 2,
            r8: 3,
            r9: 4,
        };
        Dispatcher::new(protocols).unwrap().dispatch(&mut registers);
        registers
    }

    const QUERY: u64 = 6;

    #[test]
    fn a_failed_call_leaves_the_arguments_alone() {
        let mut echo = Echo {
            id: 2,
            versions: Versions::only(1),
        };
        let rax = CallId {
            protocol: ProtocolId::VTPM,
            call: 9,
        }
        .to_rax();
        let after = ask([&mut echo], rax, 1);
        assert_eq!(
            after,
            Registers {
                rax: 0x8000_0002,
                rcx: 1,
                rdx: 2,
                r8: 3,
                r9: 4
            }
        );
        let rax = CallId {
            protocol: ProtocolId::VTPM,
            call: 1,
        }
        .to_rax();
        assert_eq!(ask([&mut echo], rax, 1).r9, 7);
    }

    #[test]
    fn what_nobody_offers_is_named_as_such() {
        let mut echo = Echo {
            id: 2,
            versions: Versions::only(1),
        };
        assert_eq!(
            ask([&mut echo], 5 << 32, 0).rax,
            u64::from(ResultCode::UNSUPPORTED_PROTOCOL)
        );
        assert_eq!(
            ask([&mut echo], 0, 0).rax,
            u64::from(ResultCode::UNSUPPORTED_CALL)
        );
    }

    #[test]
    fn two_services_cannot_have_one_number() {
        let (mut one, mut two) = (
            Echo {
                id: 2,
                versions: Versions::only(1),
            },
            Echo {
                id: 2,
                versions: Versions::only(2),
            },
        );
        let error = Dispatcher::new([&mut one as &mut dyn Protocol, &mut two]).unwrap_err();
        assert_eq!(error, DuplicateProtocol(ProtocolId::VTPM));
    }

    proptest! {
        #[test]
        fn a_query_answers_the_range_exactly_for_its_versions(low in 0..10_u32, more in 0..10_u32, asked in 0..25_u32) {
            let mut echo = Echo { id: 2, versions: Versions::new(low, low + more).unwrap() };
            let after = ask([&mut echo], QUERY, 2 << 32 | u64::from(asked));
            prop_assert_eq!(after.rax, 0);
            let expected =
                if (low..=low + more).contains(&asked) { u64::from(low + more) << 32 | u64::from(low) } else { 0 };
            prop_assert_eq!(after.rcx, expected);
            prop_assert_eq!((after.rdx, after.r8, after.r9), (2, 3, 4));
        }

        #[test]
        fn no_call_whatever_its_registers_panics(rax in any::<u64>(), rcx in any::<u64>()) {
            let mut echo = Echo { id: 2, versions: Versions::only(1) };
            let after = ask([&mut echo], rax, rcx);
            // The upper half of RAX never leaks what was in it.
            prop_assert_eq!(after.rax >> 32, 0);
        }
    }
}

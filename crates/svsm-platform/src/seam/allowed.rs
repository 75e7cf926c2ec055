use core::{fmt, ops::RangeInclusive};

use super::{MsrCall, PortCall, Width};
use crate::cpu::msr::Msr;

/// What may be asked of the host. Lists, so that they can be constants which a reviewer reads.
#[derive(Clone, Copy, Debug)]
pub struct AllowList<'a> {
    /// Ports to read and write.
    pub ports: &'a [RangeInclusive<u16>],
    /// Registers to read and write.
    pub msrs: &'a [RangeInclusive<Msr>],
}

impl AllowList<'_> {
    fn has_ports(&self, port: u16, width: Width) -> bool {
        let last = port.checked_add(width.bytes() - 1);
        // All bytes of one access in one entry: the next port may be another device's.
        last.is_some_and(|last| {
            self.ports
                .iter()
                .any(|ports| ports.contains(&port) && ports.contains(&last))
        })
    }

    fn has_msr(&self, msr: Msr) -> bool {
        self.msrs.iter().any(|msrs| msrs.contains(&msr))
    }
}

/// Why a call behind an [`Allowed`] did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Denied<E> {
    /// It is not on the list.
    NotListed,
    /// It is, and failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for Denied<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListed => f.write_str("not on the list of allowed host calls"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error> core::error::Error for Denied<E> {}

/// Calls to the host that pass a list, which stays as it was set up.
///
/// Whoever gets this instead of the host itself cannot be talked into anything else: not by a guest whose requests it
/// forwards, nor by a mistake of its own.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a, H> {
    host: H,
    list: AllowList<'a>,
}

impl<'a, H> Allowed<'a, H> {
    /// Lets what is on `list` through to `host`.
    #[must_use]
    pub const fn new(host: H, list: AllowList<'a>) -> Self {
        Self { host, list }
    }
}

impl<H: PortCall> PortCall for Allowed<'_, H> {
    type Error = Denied<H::Error>;

    fn port_read(&mut self, port: u16, width: Width) -> Result<u32, Self::Error> {
        if !self.list.has_ports(port, width) {
            return Err(Denied::NotListed);
        }
        self.host.port_read(port, width).map_err(Denied::Failed)
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), Self::Error> {
        if !self.list.has_ports(port, width) {
            return Err(Denied::NotListed);
        }
        self.host
            .port_write(port, width, value)
            .map_err(Denied::Failed)
    }

    fn port_read_bytes(&mut self, port: u16, bytes: &mut [u8]) -> Result<(), Self::Error> {
        if !self.list.has_ports(port, Width::Byte) {
            return Err(Denied::NotListed);
        }
        self.host
            .port_read_bytes(port, bytes)
            .map_err(Denied::Failed)
    }

    fn port_write_bytes(&mut self, port: u16, bytes: &[u8]) -> Result<(), Self::Error> {
        if !self.list.has_ports(port, Width::Byte) {
            return Err(Denied::NotListed);
        }
        self.host
            .port_write_bytes(port, bytes)
            .map_err(Denied::Failed)
    }
}

impl<H: MsrCall> MsrCall for Allowed<'_, H> {
    type Error = Denied<H::Error>;

    fn msr_read(&mut self, msr: Msr) -> Result<u64, Self::Error> {
        if !self.list.has_msr(msr) {
            return Err(Denied::NotListed);
        }
        self.host.msr_read(msr).map_err(Denied::Failed)
    }

    fn msr_write(&mut self, msr: Msr, value: u64) -> Result<(), Self::Error> {
        if !self.list.has_msr(msr) {
            return Err(Denied::NotListed);
        }
        self.host.msr_write(msr, value).map_err(Denied::Failed)
    }
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use super::*;

    struct Anything;

    impl PortCall for Anything {
        type Error = Infallible;

        fn port_read(&mut self, _: u16, _: Width) -> Result<u32, Infallible> {
            Ok(1)
        }

        fn port_write(&mut self, _: u16, _: Width, _: u32) -> Result<(), Infallible> {
            Ok(())
        }
    }

    impl MsrCall for Anything {
        type Error = Infallible;

        fn msr_read(&mut self, _: Msr) -> Result<u64, Infallible> {
            Ok(1)
        }

        fn msr_write(&mut self, _: Msr, _: u64) -> Result<(), Infallible> {
            Ok(())
        }
    }

    const LIST: AllowList<'_> = AllowList {
        ports: &[0x3f8..=0x3ff, 0xffff..=0xffff],
        msrs: &[Msr::TSC..=Msr::TSC],
    };

    #[test]
    fn only_listed_ports_pass_with_all_their_bytes() {
        let mut host = Allowed::new(Anything, LIST);
        assert_eq!(host.port_read(0x3f8, Width::Dword), Ok(1));
        assert_eq!(host.port_read(0x3ff, Width::Byte), Ok(1));
        assert_eq!(
            host.port_write(0x3ff, Width::Word, 0),
            Err(Denied::NotListed)
        );
        assert_eq!(
            host.port_write(0xcf9, Width::Byte, 6),
            Err(Denied::NotListed)
        );
        assert_eq!(host.port_write_bytes(0xcf9, &[6]), Err(Denied::NotListed));
        let mut bytes = [0; 2];
        let denied = host.port_read_bytes(0xcf9, &mut bytes);
        assert_eq!((denied, bytes), (Err(Denied::NotListed), [0; 2]));
        assert_eq!(host.port_read_bytes(0x3f8, &mut bytes), Ok(()));
        assert_eq!(host.port_write_bytes(0x3f8, &[6, 6]), Ok(()));
        // The last port has no successor to wrap to.
        assert_eq!(host.port_read(0xffff, Width::Byte), Ok(1));
        assert_eq!(host.port_read(0xffff, Width::Word), Err(Denied::NotListed));
    }

    #[test]
    fn only_listed_registers_pass() {
        let mut host = Allowed::new(Anything, LIST);
        assert_eq!(host.msr_read(Msr::TSC), Ok(1));
        assert_eq!(host.msr_write(Msr::EFER, 0), Err(Denied::NotListed));
    }
}

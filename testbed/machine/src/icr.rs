//! The interrupt command register: what one CPU asks the others for.

/// The bits of the register that exist.
pub const DEFINED: u64 = 0xffff_ffff_000c_cfff;

/// The x2APIC interrupt command register (MSR 0x830), taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is sent.
    pub message: Message,
    /// To whom.
    pub destination: Destination,
}

/// What an interrupt command sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// An interrupt with a vector (fixed or to the lowest priority).
    Interrupt,
    /// A non-maskable interrupt.
    Nmi,
    /// Back to the state after reset, waiting for a start-up message.
    Init,
    /// Start in real mode at this page number below 1 MiB.
    StartUp(u8),
    /// Nothing that a CPU of today reacts to.
    Nothing,
}

/// Whom an interrupt command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The sender.
    Oneself,
    /// Everybody.
    All,
    /// Everybody but the sender.
    Others,
    /// The CPU with this APIC id.
    Id(u32),
    /// The CPUs of a cluster (high half) with these positions in it (low half).
    Logical(u32),
}

impl Command {
    /// Takes a value written to the register apart.
    #[must_use]
    pub const fn decode(value: u64) -> Self {
        let low = value & 0xffff_ffff;
        let to = (value >> 32) as u32;
        let asserted = low & 1 << 14 != 0;
        let level = low & 1 << 15 != 0;
        let message = match low >> 8 & 7 {
            0 | 1 => Message::Interrupt,
            4 => Message::Nmi,
            // The de-assert message of old protocols has had no effect since the Pentium 4.
            5 if level && !asserted => Message::Nothing,
            5 => Message::Init,
            6 => Message::StartUp((low & 0xff) as u8),
            _ => Message::Nothing,
        };
        let destination = match low >> 18 & 3 {
            1 => Destination::Oneself,
            2 => Destination::All,
            3 => Destination::Others,
            _ if to == u32::MAX => Destination::All,
            _ if low & 1 << 11 != 0 => Destination::Logical(to),
            _ => Destination::Id(to),
        };
        Self {
            message,
            destination,
        }
    }
}

impl Destination {
    /// Whether the CPU with APIC id `id` is meant when the one with `sender` asks.
    #[must_use]
    pub const fn matches(self, id: u32, sender: u32) -> bool {
        match self {
            Self::Oneself => id == sender,
            Self::All => true,
            Self::Others => id != sender,
            Self::Id(to) => id == to,
            Self::Logical(to) => id >> 4 == to >> 16 && to & 1 << (id & 15) != 0,
        }
    }
}

/// The register's value for an NMI to one CPU.
#[must_use]
pub const fn nmi_to(id: u32) -> u64 {
    (id as u64) << 32 | 1 << 14 | 4 << 8
}

/// The register's value for an INIT to one CPU.
#[must_use]
pub const fn init_to(id: u32) -> u64 {
    (id as u64) << 32 | 1 << 14 | 5 << 8
}

/// The register's value for a start-up message to one CPU.
#[must_use]
pub const fn start_up_to(id: u32, page: u8) -> u64 {
    (id as u64) << 32 | 1 << 14 | 6 << 8 | page as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_apart() {
        let decode = Command::decode;
        assert_eq!(decode(nmi_to(3)).message, Message::Nmi);
        assert_eq!(decode(init_to(3)).destination, Destination::Id(3));
        assert_eq!(decode(start_up_to(1, 0x8)).message, Message::StartUp(8));
        assert_eq!(decode(0x0000_c500).message, Message::Init);
        assert_eq!(decode(0x0000_8500).message, Message::Nothing);
        assert_eq!(decode(0x000c_40fb).destination, Destination::Others);
        assert_eq!(decode(0x0004_0000).destination, Destination::Oneself);
        assert_eq!(decode(u64::MAX << 32).destination, Destination::All);
    }

    #[test]
    fn logical_destinations_are_clusters_of_sixteen() {
        let to = Destination::Logical(0x1_0005);
        let met: Vec<u32> = (0..40).filter(|&id| to.matches(id, 0)).collect();
        assert_eq!(met, [16, 18]);
        assert!(!Destination::Others.matches(4, 4));
        assert!(Destination::Oneself.matches(4, 4));
    }
}

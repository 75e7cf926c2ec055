//! Transfers by DMA, as a guest asks for them: L0 carries them out, to shared memory.

/// A transfer that a guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Where the guest describes it, in shared memory.
    pub at: u64,
}

/// What a guest says of a transfer: control word, length and address, in big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    control: u32,
    /// How many bytes.
    pub bytes: u32,
    /// Where they go.
    pub address: u64,
}

impl Order {
    const READ: u32 = 1 << 1;
    const SKIP: u32 = 1 << 2;
    const SELECT: u32 = 1 << 3;
    const WRITE: u32 = 1 << 4;
    /// How long it is.
    pub const BYTES: usize = 16;
    /// The most bytes of one: more than any kernel has.
    pub const MOST: u32 = 256 << 20;
    /// The control word of one that failed.
    pub const FAILED: [u8; 4] = 1_u32.to_be_bytes();
    /// The control word of one that is done.
    pub const DONE: [u8; 4] = [0; 4];

    /// Reads one.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, address @ ..] = *bytes;
        Self {
            control: u32::from_be_bytes([a, b, c, d]),
            bytes: u32::from_be_bytes([e, f, g, h]),
            address: u64::from_be_bytes(address),
        }
    }

    /// The item that it selects first.
    #[must_use]
    pub const fn selects(&self) -> Option<u16> {
        if self.control & Self::SELECT != 0 {
            Some((self.control >> 16) as u16)
        } else {
            None
        }
    }

    /// Whether it reads.
    #[must_use]
    pub const fn reads(&self) -> bool {
        self.control & Self::READ != 0
    }

    /// Whether it skips.
    #[must_use]
    pub const fn skips(&self) -> bool {
        self.control & Self::SKIP != 0
    }

    /// Whether it writes, which no guest may.
    #[must_use]
    pub const fn writes(&self) -> bool {
        self.control & Self::WRITE != 0
    }
}

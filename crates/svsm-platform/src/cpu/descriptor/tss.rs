use core::fmt;

use super::len_u16;
use crate::addr::Gva;

/// One of the seven stacks that a TSS offers to exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ist(u8);

impl Ist {
    /// The stack of that number, 1 to 7.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= 7 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The plain number, 1 to 7.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }
}

/// How much of a TSS the processor may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TssLength(u16);

impl TssLength {
    /// A [`Tss`] alone: no port is open to ring 3.
    pub const PLAIN: Self = Self(len_u16::<Tss>());
    /// A [`TssWithPorts`].
    pub const WITH_PORTS: Self = Self(len_u16::<TssWithPorts>());

    /// The last byte that belongs to it.
    pub(super) const fn limit(self) -> u64 {
        self.0 as u64 - 1
    }
}

/// A task-state segment: the stacks that the processor switches to.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
pub struct Tss {
    reserved_0: u32,
    rsp: [u64; 3],
    reserved_28: u64,
    ist: [u64; 7],
    reserved_92: u64,
    reserved_100: u16,
    io_map_base: u16,
}

const _: () = assert!(size_of::<Tss>() == 104);
const _: () = assert!(core::mem::offset_of!(Tss, rsp) == 4);
const _: () = assert!(core::mem::offset_of!(Tss, ist) == 36);
const _: () = assert!(core::mem::offset_of!(Tss, io_map_base) == 102);

impl Tss {
    /// Where RSP0 stands: entry code that switches stacks itself reads it from there.
    pub const RSP0_OFFSET: usize = core::mem::offset_of!(Self, rsp);

    /// No stacks, no ports.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            reserved_0: 0,
            rsp: [0; 3],
            reserved_28: 0,
            ist: [0; 7],
            reserved_92: 0,
            reserved_100: 0,
            io_map_base: len_u16::<Self>(), // behind the limit: no map
        }
    }

    /// Where the entry of an exception stack stands, for entry code that moves it; not a multiple of 8.
    #[must_use]
    pub const fn ist_offset(ist: Ist) -> usize {
        core::mem::offset_of!(Self, ist) + (ist.as_u8() as usize - 1) * 8
    }

    /// Sets the stack on which ring 0 starts when it is entered from ring 3; `top` is where it grows from.
    pub const fn set_kernel_stack(&mut self, top: Gva) {
        self.rsp = [top.as_u64(), 0, 0];
    }

    /// Sets one of the stacks for exceptions; `top` is where it grows from.
    #[expect(
        clippy::indexing_slicing,
        reason = "`Ist` is 1 to 7, and there are seven"
    )]
    pub const fn set_ist(&mut self, ist: Ist, top: Gva) {
        let mut stacks = self.ist;
        stacks[ist.as_u8() as usize - 1] = top.as_u64();
        self.ist = stacks;
    }

    /// The stack on which ring 0 starts.
    #[must_use]
    pub const fn kernel_stack(&self) -> u64 {
        let [rsp0, _, _] = self.rsp;
        rsp0
    }
}

impl Default for Tss {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rsp, ist) = (self.rsp, self.ist);
        f.debug_struct("Tss")
            .field("rsp", &rsp)
            .field("ist", &ist)
            .finish_non_exhaustive()
    }
}

/// A TSS with an I/O permission bitmap, which can open single ports to ring 3.
#[derive(Clone)]
#[repr(C, packed(4))]
pub struct TssWithPorts {
    /// The TSS proper.
    pub tss: Tss,
    closed: [u8; 8192],
    // The processor reads two bytes for every port, also for the last one; the other three fill the alignment.
    end: [u8; 4],
}

impl TssWithPorts {
    /// No stacks, and all ports closed.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tss: Tss::new(),
            closed: [0xff; 8192],
            end: [0xff; 4],
        }
    }

    /// Opens a port to ring 3, or closes it.
    #[expect(clippy::indexing_slicing, reason = "an eighth of all ports is 8192")]
    pub const fn set_port(&mut self, port: u16, open: bool) {
        let bit = 1 << (port & 7);
        let byte = &mut self.closed[port as usize >> 3];
        *byte = if open { *byte & !bit } else { *byte | bit };
    }
}

impl Default for TssWithPorts {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TssWithPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TssWithPorts")
            .field("tss", &self.tss)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gva(value: u64) -> Gva {
        Gva::new(value).unwrap()
    }

    #[test]
    fn ports_are_closed_until_opened() {
        let mut tss = TssWithPorts::new();
        tss.set_port(0x3f8, true);
        assert_eq!(
            tss.closed
                .iter()
                .map(|byte| byte.count_zeros())
                .sum::<u32>(),
            1
        );
        assert_eq!(tss.closed[0x3f8 / 8], 0xfe);
        tss.set_port(0x3f8, false);
        assert!(tss.closed.iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn stacks_land_in_their_slots() {
        let mut tss = Tss::new();
        tss.set_kernel_stack(gva(0x1000));
        tss.set_ist(Ist::new(1).unwrap(), gva(0x2000));
        tss.set_ist(Ist::new(7).unwrap(), gva(0x8000));
        assert_eq!(tss.kernel_stack(), 0x1000);
        assert_eq!({ tss.ist }, [0x2000, 0, 0, 0, 0, 0, 0x8000]);
        assert_eq!(Tss::ist_offset(Ist::new(1).unwrap()), 36);
        assert_eq!(Tss::ist_offset(Ist::new(7).unwrap()), 84);
        assert!(Ist::new(0).is_none() && Ist::new(8).is_none());
    }
}

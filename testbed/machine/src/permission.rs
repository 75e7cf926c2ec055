//! The permission maps: which ports and which MSRs make the guest exit.

/// The size of the I/O permission map. Its last page only serves accesses past port 0xffff.
pub const IO_BYTES: usize = 3 * 4096;
/// The size of the MSR permission map.
pub const MSR_BYTES: usize = 2 * 4096;

/// The I/O permission map: one bit for each port, three pages.
#[derive(Debug)]
pub struct IoPermissions<'a>(&'a mut [u8; IO_BYTES]);

impl<'a> IoPermissions<'a> {
    /// A map that lets every port through.
    pub fn open(map: &'a mut [u8; IO_BYTES]) -> Self {
        map.fill(0);
        Self(map)
    }

    /// Makes every access of every port exit.
    pub fn guard_all(&mut self) {
        self.0.fill(0xff);
    }

    /// Makes every access exit that touches `port`.
    pub fn guard(&mut self, port: u16) {
        if let Some(byte) = self.0.get_mut(usize::from(port / 8)) {
            *byte |= 1 << (port % 8);
        }
    }
}

/// The MSR permission map: two bits for each MSR of three ranges, two pages.
#[derive(Debug)]
pub struct MsrPermissions<'a>(&'a mut [u8; MSR_BYTES]);

impl<'a> MsrPermissions<'a> {
    /// A map that lets every MSR of the three ranges through; all others exit always.
    pub fn open(map: &'a mut [u8; MSR_BYTES]) -> Self {
        map.fill(0);
        Self(map)
    }

    /// Makes every access of every MSR exit.
    pub fn guard_all(&mut self) {
        self.0.fill(0xff);
    }

    /// Lets RDMSR and WRMSR of `msr` through, if it is in one of the three ranges.
    pub fn let_through(&mut self, msr: u32) {
        for bit in [0, 1] {
            if let Some((byte, mask)) = self.place(msr, bit) {
                *byte &= !mask;
            }
        }
    }

    /// Makes RDMSR of `msr` exit.
    pub fn guard_read(&mut self, msr: u32) {
        self.set(msr, 0);
    }

    /// Makes WRMSR of `msr` exit.
    pub fn guard_write(&mut self, msr: u32) {
        self.set(msr, 1);
    }

    fn set(&mut self, msr: u32, bit: u32) {
        if let Some((byte, mask)) = self.place(msr, bit) {
            *byte |= mask;
        }
    }

    /// The byte and the bit in it that stand for reads (0) or writes (1) of an MSR.
    fn place(&mut self, msr: u32, bit: u32) -> Option<(&mut u8, u8)> {
        let base = match msr {
            0..=0x1fff => 0,
            0xc000_0000..=0xc000_1fff => 0x2000,
            0xc001_0000..=0xc001_1fff => 0x4000,
            _ => return None,
        };
        let at = (base + (msr & 0x1fff)) * 2 + bit;
        let byte = self.0.get_mut(usize::try_from(at / 8).ok()?)?;
        Some((byte, 1 << (at % 8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_manual_has_them() {
        let mut map = [0xff; MSR_BYTES];
        let mut permissions = MsrPermissions::open(&mut map);
        permissions.guard_write(0x830);
        permissions.guard_read(0xc000_0080);
        permissions.guard_write(0xc001_0117);
        permissions.guard_write(0x4000_0000);
        assert_eq!(map[0x830 / 4], 2);
        assert_eq!(map[0x800 + 0x80 / 4], 1);
        assert_eq!(map[0x1000 + 0x117 / 4], 2 << (0x117 % 4 * 2));
        assert_eq!(map.iter().map(|b| b.count_ones()).sum::<u32>(), 3);

        let mut map = [0; IO_BYTES];
        IoPermissions::open(&mut map).guard(0xffff);
        assert_eq!(map[0x1fff], 0x80);
    }
}

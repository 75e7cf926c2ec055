//! Breakpoints and watchpoints, of which a CPU has four (AMD64 Architecture Programmer's Manual, volume 2, "Breakpoints").

/// What an access is that stops a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It executes the instruction there; it stops before it.
    Execute,
    /// It writes; it stops behind the instruction that does.
    Write,
    /// It reads or writes.
    ReadOrWrite,
}

/// A breakpoint or watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The linear address, the same for all levels and address spaces.
    pub at: u64,
    /// What stops there.
    pub access: Access,
    /// Bytes: 1, 2, 4 or 8, and 1 where instructions stop.
    pub bytes: u64,
}

/// What stopped a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit(pub Point);

/// All of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points([Option<Point>; 4]);

impl Points {
    /// None.
    pub const NONE: Self = Self([None; 4]);

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// Adds one. Says whether a register was left for it, and its length and alignment are those of a CPU's.
    pub fn add(&mut self, point: Point) -> bool {
        let fits = matches!(point.bytes, 1 | 2 | 4 | 8) && point.at.is_multiple_of(point.bytes);
        if !fits {
            return false;
        }
        if self.0.contains(&Some(point)) {
            return true;
        }
        let free = self.0.iter_mut().find(|slot| slot.is_none());
        free.map(|slot| *slot = Some(point)).is_some()
    }

    /// Takes one away. Says whether it was there.
    pub fn remove(&mut self, point: Point) -> bool {
        let slot = self.0.iter_mut().find(|slot| **slot == Some(point));
        slot.map(|slot| *slot = None).is_some()
    }

    /// DR0 to DR3.
    #[must_use]
    pub fn addresses(&self) -> [u64; 4] {
        self.0.map(|slot| slot.map_or(0, |point| point.at))
    }

    /// DR7: global, exact.
    #[must_use]
    pub fn control(&self) -> u64 {
        const FIXED: u64 = 1 << 10;
        let fields = self.0.iter().zip(0..).filter_map(|(slot, index)| {
            let point = (*slot)?;
            let access = match point.access {
                Access::Execute => 0,
                Access::Write => 1,
                Access::ReadOrWrite => 3,
            };
            let length = match point.bytes {
                2 => 1,
                4 => 3,
                8 => 2,
                _ => 0,
            };
            Some(2 << (2 * index) | (access | length << 2) << (16 + 4 * index))
        });
        fields.fold(FIXED, |all: u64, field: u64| all | field)
    }

    /// What stopped a CPU whose next instruction is at `next`, and whose DR6 is this.
    #[must_use]
    pub fn hit(&self, next: u64, dr6: u64) -> Option<Hit> {
        let is_hit = |point: &Point, index: u32| match point.access {
            Access::Execute => point.at == next,
            Access::Write | Access::ReadOrWrite => dr6 >> index & 1 != 0,
        };
        self.0
            .iter()
            .zip(0..)
            .find_map(|(slot, index)| slot.filter(|point| is_hit(point, index)).map(Hit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn code(at: u64) -> Point {
        Point {
            at,
            access: Access::Execute,
            bytes: 1,
        }
    }

    #[test]
    fn there_are_four() {
        let mut points = Points::NONE;
        for at in 1..=4 {
            assert!(points.add(code(at)));
        }
        assert!(points.add(code(2)) && !points.add(code(5)));
        assert!(points.remove(code(2)) && !points.remove(code(2)));
        assert!(points.add(code(5)));
        assert_eq!(points.addresses(), [1, 5, 3, 4]);
        assert_eq!(points.control(), 0x4aa);
    }

    #[test]
    fn watchpoints_are_encoded_as_the_manual_has_them() {
        let mut points = Points::NONE;
        let watch = Point {
            at: 0x1008,
            access: Access::Write,
            bytes: 8,
        };
        assert!(points.add(code(0x77)) && points.add(watch));
        assert_eq!(points.control(), 0x90_040a);
        assert_eq!(points.hit(0x2000, 2), Some(Hit(watch)));
        assert_eq!(points.hit(0x77, 0), Some(Hit(code(0x77))));
        assert_eq!(points.hit(0x2000, 1), None);
        assert!(!points.add(Point { bytes: 3, ..watch }));
        assert!(!points.add(Point {
            at: 0x1004,
            ..watch
        }));
    }
}

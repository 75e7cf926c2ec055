//! Which number means what: exceptions, and the vectors that interrupts may use.

use core::fmt;

/// A vector that an interrupt of this paravisor may use: 32 to 255.
///
/// The 32 vectors below belong to the processor. An interrupt that arrives on one of them is either
/// a mistake or somebody who wants an exception handler to run at a time of their choosing, so this
/// type does not hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Vector(u8);

impl Vector {
    /// The lowest vector that is not the processor's own.
    pub const FIRST: Self = Self(32);
    /// The highest vector. Firmware customarily makes it the spurious-interrupt vector.
    pub const LAST: Self = Self(255);
    /// The vector of the `int 0x80` system call.
    pub const SYSCALL: Self = Self(0x80);
    /// How many vectors there are.
    pub const COUNT: usize = 224;

    /// The vector with that number, if interrupts may use it.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number >= Self::FIRST.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Its priority class. The local APIC delivers a vector only if its class is above the one
    /// being served.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 4
    }

    /// How many vectors lie between [`Vector::FIRST`] and this one.
    #[must_use]
    pub const fn index(self) -> usize {
        // Widening only; `From` is not const.
        (self.0 - Self::FIRST.0) as usize
    }

    /// All vectors, ascending.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + Clone {
        (Self::FIRST.0..=Self::LAST.0).map(Self)
    }
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector {}", self.0)
    }
}

/// A vector that a guest's interrupt controller may raise: 31 to 255.
///
/// A guest's doorbell page can present vector 31, though this paravisor itself never uses it: a
/// hand-off that starts at 32 loses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct GuestVector(u8);

impl GuestVector {
    /// The lowest vector that a guest may be given.
    pub const FIRST: Self = Self(31);

    /// The vector with that number, if a guest may be given it.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number >= Self::FIRST.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }
}

impl From<Vector> for GuestVector {
    fn from(vector: Vector) -> Self {
        Self(vector.0)
    }
}

/// One of the 32 vectors that the processor keeps for itself (AMD APM volume 2, section 8.2; Intel
/// SDM volume 3, section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Exception(u8);

/// What an exception says about the instruction it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ExceptionKind {
    /// The saved address is that of the instruction, which may run again.
    Fault,
    /// The saved address is that of the next instruction.
    Trap,
    /// The saved state can't be trusted.
    Abort,
    /// It has nothing to do with an instruction (NMI, #HV).
    Interrupt,
}

impl Exception {
    /// Division by zero, or a quotient that does not fit.
    pub const DE: Self = Self(0);
    /// Debug: a single step or a breakpoint register.
    pub const DB: Self = Self(1);
    /// Non-maskable interrupt.
    pub const NMI: Self = Self(2);
    /// The instruction `int3`.
    pub const BP: Self = Self(3);
    /// The instruction `into`.
    pub const OF: Self = Self(4);
    /// The instruction `bound`.
    pub const BR: Self = Self(5);
    /// An instruction that does not exist.
    pub const UD: Self = Self(6);
    /// The floating-point unit is off.
    pub const NM: Self = Self(7);
    /// An exception while another was being delivered.
    pub const DF: Self = Self(8);
    /// A task-state segment that can't be used.
    pub const TS: Self = Self(10);
    /// A segment that is not present.
    pub const NP: Self = Self(11);
    /// A stack segment, or a stack address that is not canonical.
    pub const SS: Self = Self(12);
    /// General protection.
    pub const GP: Self = Self(13);
    /// A page is not there, or not for this access.
    pub const PF: Self = Self(14);
    /// An x87 floating-point error.
    pub const MF: Self = Self(16);
    /// An unaligned access, where that was forbidden.
    pub const AC: Self = Self(17);
    /// Machine check.
    pub const MC: Self = Self(18);
    /// A SIMD floating-point error.
    pub const XM: Self = Self(19);
    /// Virtualization: something that the TDX module leaves to the TD.
    pub const VE: Self = Self(20);
    /// Control protection: a return or a branch to where none may go.
    pub const CP: Self = Self(21);
    /// Hypervisor injection: the doorbell of restricted injection (SEV-SNP).
    pub const HV: Self = Self(28);
    /// VMM communication: something that SEV-ES leaves to the guest.
    pub const VC: Self = Self(29);
    /// Security: INIT was redirected.
    pub const SX: Self = Self(30);

    /// How many vectors are the processor's own.
    pub const COUNT: usize = 32;

    /// One bit for each exception that pushes an error code.
    ///
    /// The entry code is assembled from this word, so that it can't disagree with
    /// [`Exception::has_error_code`].
    pub const WITH_ERROR_CODE: u32 = 1 << Self::DF.0
        | 1 << Self::TS.0
        | 1 << Self::NP.0
        | 1 << Self::SS.0
        | 1 << Self::GP.0
        | 1 << Self::PF.0
        | 1 << Self::AC.0
        | 1 << Self::CP.0
        | 1 << Self::VC.0
        | 1 << Self::SX.0;

    /// One bit for each exception that can come at any instruction, even where the stack or the GS
    /// base is still the user's.
    ///
    /// They get a stack of their own from the interrupt stack table, see [`crate::ist`]. #DB is
    /// among them because a data breakpoint on the operand of `mov ss` is only delivered after the
    /// `syscall` that follows it (CVE-2018-8897).
    pub const AT_ANY_INSTRUCTION: u32 = 1 << Self::DB.0
        | 1 << Self::NMI.0
        | 1 << Self::DF.0
        | 1 << Self::MC.0
        | 1 << Self::HV.0
        | 1 << Self::VC.0;

    /// The exception with that number.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 32 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Whether the processor pushes an error code for it.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        Self::WITH_ERROR_CODE >> self.0 & 1 != 0
    }

    /// Whether it can come at any instruction, and so takes a stack from the interrupt stack table.
    #[must_use]
    pub const fn at_any_instruction(self) -> bool {
        Self::AT_ANY_INSTRUCTION >> self.0 & 1 != 0
    }

    /// What it says about the instruction it names.
    #[must_use]
    pub const fn kind(self) -> ExceptionKind {
        match self {
            Self::DF | Self::MC => ExceptionKind::Abort,
            Self::NMI | Self::HV => ExceptionKind::Interrupt,
            // #DB is a fault for instruction breakpoints and a trap for all else: DR6 tells.
            Self::DB | Self::BP | Self::OF => ExceptionKind::Trap,
            _ => ExceptionKind::Fault,
        }
    }

    /// How manuals write it.
    #[must_use]
    pub const fn mnemonic(self) -> &'static str {
        match self {
            Self::DE => "#DE",
            Self::DB => "#DB",
            Self::NMI => "NMI",
            Self::BP => "#BP",
            Self::OF => "#OF",
            Self::BR => "#BR",
            Self::UD => "#UD",
            Self::NM => "#NM",
            Self::DF => "#DF",
            Self::TS => "#TS",
            Self::NP => "#NP",
            Self::SS => "#SS",
            Self::GP => "#GP",
            Self::PF => "#PF",
            Self::MF => "#MF",
            Self::AC => "#AC",
            Self::MC => "#MC",
            Self::XM => "#XM",
            Self::VE => "#VE",
            Self::CP => "#CP",
            Self::HV => "#HV",
            Self::VC => "#VC",
            Self::SX => "#SX",
            _ => "reserved",
        }
    }
}

impl fmt::Debug for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exception({} {})", self.0, self.mnemonic())
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            "reserved" => write!(f, "reserved exception {}", self.0),
            name => f.write_str(name),
        }
    }
}

/// Why a vector's handler runs, as far as the number can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Cause {
    /// The processor raised an exception.
    Exception(Exception),
    /// An interrupt arrived, or an `int` instruction asked for this vector.
    Interrupt(Vector),
}

impl Cause {
    /// What the vector number in a trap frame stands for; `None` for a number that no vector has.
    #[must_use]
    pub fn of(vector: u64) -> Option<Self> {
        let number = u8::try_from(vector).ok()?;
        match Vector::new(number) {
            Some(vector) => Some(Self::Interrupt(vector)),
            None => Exception::new(number).map(Self::Exception),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Exception, GuestVector, Vector};

    #[test]
    fn interrupts_never_use_the_processors_vectors() {
        for number in 0..=u8::MAX {
            assert_eq!(Vector::new(number).is_some(), number >= 32);
            assert_eq!(GuestVector::new(number).is_some(), number >= 31);
        }
        assert_eq!(Vector::all().count(), Vector::COUNT);
        assert!(
            Vector::all()
                .enumerate()
                .all(|(index, vector)| vector.index() == index)
        );
    }

    #[test]
    fn every_number_has_exactly_one_cause() {
        for number in 0..=255 {
            match Cause::of(number).unwrap() {
                Cause::Exception(exception) => assert_eq!(u64::from(exception.as_u8()), number),
                Cause::Interrupt(vector) => assert_eq!(u64::from(vector.as_u8()), number),
            }
        }
        assert_eq!(Cause::of(256), None);
    }

    #[test]
    fn exceptions_with_an_error_code_are_those_of_the_manual() {
        let with: std::vec::Vec<u8> = (0..32)
            .filter(|&n| Exception::new(n).unwrap().has_error_code())
            .collect();
        assert_eq!(with, [8, 10, 11, 12, 13, 14, 17, 21, 29, 30]);
    }
}

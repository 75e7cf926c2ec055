//! Calls that no kernel makes. What they name is the SVSM's, or nobody's, or the playground's, and never what this program
//! needs to go on; whatever they are answered, the SVSM must be there afterwards.

use core::ops::Range;

use crate::bare::{PLAYGROUND, read, say, write};
use crate::call::{
    ATTEST, CORE, CREATE, DELETE, DEPOSIT, INCOMPLETE, PVALIDATE, QUERY, REMAP, SUCCESS, Svsm,
    VTPM, WITHDRAW,
};
use crate::tpm;

const PAGE: u64 = 4096;
const LARGE: u64 = 2 << 20;

/// Pages of the playground, each for one thing: what one call leaves behind is never read as something else by another, so no call
/// takes away what this program writes to.
mod place {
    use core::ops::Range;

    use super::{LARGE, PAGE, PLAYGROUND};

    const fn pages(first: u64, count: u64) -> Range<u64> {
        let start = PLAYGROUND.start + first * PAGE;
        start..start + count * PAGE
    }

    /// Calling areas.
    pub(super) const AREAS: Range<u64> = pages(0, 8);
    /// Lists of pages.
    pub(super) const LISTS: Range<u64> = pages(16, 16);
    /// What to attest.
    pub(super) const OPERATIONS: Range<u64> = pages(32, 16);
    /// Commands.
    pub(super) const COMMANDS: Range<u64> = pages(48, 16);
    /// Registers of virtual CPUs.
    pub(super) const REGISTERS: Range<u64> = pages(64, 16);
    /// Where only the SVSM writes.
    pub(super) const BUFFERS: Range<u64> = pages(128, 256);
    /// What is validated and taken back, and what nobody reads or writes.
    pub(super) const TARGETS: Range<u64> = PLAYGROUND.start + LARGE..PLAYGROUND.end;
}

/// Calls that are counted by how they were answered: well, not yet, or not at all.
#[derive(Default)]
struct Tally {
    served: u64,
    incomplete: u64,
    refused: u64,
}

pub(crate) fn storm(svsm: &mut Svsm, count: u64) -> Result<(), &'static str> {
    let mut storm = Storm {
        random: Random(svsm.seed.wrapping_mul(2).wrapping_add(1)),
        created: [false; 16],
    };
    let mut tally = Tally::default();
    for number in 1..=count {
        let (protocol, call) = storm.whom();
        let arguments = storm.arguments(svsm, protocol, call);
        let [code, ..] = svsm.call_once(protocol, call, arguments);
        match code {
            u64::MAX => return Err("a call that was not looked at"),
            0..0x4000_0000 => tally.served += 1,
            INCOMPLETE => tally.incomplete += 1,
            _ => tally.refused += 1,
        }
        if code == SUCCESS && protocol == CORE {
            storm.note(svsm, call, arguments[0]);
        }
        if number % 50_000 == 0 {
            say(format_args!("caller: hostile: {number} of {count} calls"));
        }
    }
    say(format_args!(
        "caller: hostile: {count} calls: {} served, {} incomplete, {} refused",
        tally.served, tally.incomplete, tally.refused
    ));
    still_served(svsm)
}

/// Whether the SVSM still does what it should.
fn still_served(svsm: &mut Svsm) -> Result<(), &'static str> {
    let ([code, versions, ..], _) = svsm.call(CORE, QUERY, [1, 0, 0, 0]);
    if (code, versions) != (SUCCESS, 1 << 32 | 1) {
        return Err("the core protocol's versions afterwards");
    }
    // A page that no call of the storm can have made a save area.
    let page = PLAYGROUND.end;
    if svsm.validate(page, false) != SUCCESS || svsm.validate(page, true) != SUCCESS {
        return Err("validation afterwards");
    }
    if read::<[u64; 512]>(page) != [0; 512] {
        return Err("a page that comes back with contents");
    }
    let ([code, seen, ..], _) = svsm.call(CORE, QUERY, [VTPM << 32 | 1, 0, 0, 0]);
    if (code, seen) == (SUCCESS, 0) {
        return Ok(());
    }
    const RANDOM: &[u8] = b"\x80\x01\0\0\0\x0c\0\0\x01\x7b\0\x10";
    match tpm::exchange(svsm, &[RANDOM])? {
        // Some call may have been a startup; none can have broken the TPM.
        (_, 0 | 0x100, _) => Ok(()),
        _ => Err("the TPM afterwards"),
    }
}

/// A generator of calls, and what they did.
struct Storm {
    random: Random,
    /// Which pages of [`place::REGISTERS`] this program can't write now.
    created: [bool; 16],
}

impl Storm {
    /// Which call: those that exist, more often than those that don't.
    fn whom(&mut self) -> (u64, u64) {
        let random = &mut self.random;
        match random.below(16) {
            0..9 => (CORE, random.below(9)),
            9..11 => (ATTEST, random.below(3)),
            11..14 => (VTPM, random.below(3)),
            14 => (3 + random.below(4), random.below(12)),
            _ => (
                3 + (random.next() & 0x7fff_ffff),
                random.next() & 0xffff_ffff,
            ),
        }
    }

    /// What the call names, prepared so that some of it is almost right.
    fn arguments(&mut self, svsm: &Svsm, protocol: u64, call: u64) -> [u64; 4] {
        let kind = match (protocol, call) {
            (CORE, REMAP) => place::AREAS,
            (CORE, PVALIDATE | DEPOSIT | WITHDRAW) => place::LISTS,
            (CORE, CREATE | DELETE) => place::REGISTERS,
            (ATTEST, _) => place::OPERATIONS,
            (VTPM, _) => place::COMMANDS,
            _ => place::BUFFERS,
        };
        let at = self.page(kind.clone());
        match (protocol, call) {
            (CORE, PVALIDATE | DEPOSIT | WITHDRAW) => self.list(svsm, at),
            (CORE, CREATE) => self.registers(at),
            (ATTEST, _) => self.operation(svsm, at),
            (VTPM, _) => self.command(at),
            _ => {}
        }
        let first = match self.random.below(8) {
            0 => self.beyond(svsm),
            // Registers and calling areas are whole pages, or refused.
            1 => at + self.random.below(PAGE),
            _ => at,
        };
        let second = match self.random.below(4) {
            0 => self.beyond(svsm),
            _ => self.page(place::BUFFERS),
        };
        [first, second, self.random.below(4), self.random.next()]
    }

    /// What a call that went well means for later ones.
    fn note(&mut self, svsm: &mut Svsm, call: u64, first: u64) {
        let index = first.wrapping_sub(place::REGISTERS.start) / PAGE;
        let created = usize::try_from(index)
            .ok()
            .and_then(|index| self.created.get_mut(index));
        match (call, created) {
            (REMAP, _) => svsm.area = first,
            (CREATE, Some(created)) => *created = true,
            (DELETE, Some(created)) => *created = false,
            _ => {}
        }
    }

    /// A list of pages, with a header that may be wrong.
    fn list(&mut self, svsm: &Svsm, at: u64) {
        let count = self.random.below(8);
        let next = match self.random.below(4) {
            0 => self.random.below(10),
            _ => 0,
        };
        write(at, count | next << 16);
        for index in 0..count {
            let (target, size) = match self.random.below(16) {
                0 => (self.beyond(svsm) & !0xfff, 0),
                1 => (place::TARGETS.start, 1),
                2 => (self.page(place::TARGETS), 1 + self.random.below(3)),
                _ => (self.page(place::TARGETS), 0),
            };
            // A large page must not reach beyond what is for this.
            let target = match size {
                1 => target.min(place::TARGETS.end - LARGE),
                _ => target,
            };
            let reserved = u64::from(self.random.below(32) == 0) << 4;
            let flags = self.random.below(4) << 2 | reserved | size;
            write(at + 8 + 8 * index, target | flags);
        }
    }

    /// Registers of a virtual CPU, almost right.
    fn registers(&mut self, at: u64) {
        let index = usize::try_from((at - place::REGISTERS.start) / PAGE).unwrap_or(0);
        if self.created.get(index) != Some(&false) {
            return;
        }
        let level = self.random.below(4).to_le_bytes();
        write(at + 0xca, level[0]);
        let efer = match self.random.below(4) {
            0 => self.random.next(),
            _ => 0x1500,
        };
        write(at + 0xd0, efer);
        let features = match self.random.below(4) {
            0 => self.random.next(),
            _ => 1,
        };
        write(at + 0x3b0, features);
    }

    /// What to attest and where to put it.
    fn operation(&mut self, svsm: &Svsm, at: u64) {
        // Report, nonce, manifest, certificates: an address and a size each; then a service.
        for word in 0..11 {
            let value = match (word % 2, self.random.below(8)) {
                (_, 0) => self.beyond(svsm),
                (0, _) => self.page(place::BUFFERS),
                _ => self.random.below(0x2000),
            };
            write(at + 8 * word, value);
        }
    }

    /// A command to the TPM.
    fn command(&mut self, at: u64) {
        let platform_command = match self.random.below(8) {
            0 => self.random.next() & 0xffff_ffff,
            1 => self.random.below(32),
            _ => 8,
        };
        let size = self.random.below(64);
        let claimed = match self.random.below(8) {
            0 => self.random.next() & 0xffff_ffff,
            _ => size,
        };
        write(
            at,
            platform_command | u64::from(self.random.below(16) == 0) << 32,
        );
        write(at + 5, claimed);
        write(at + 9, *b"\x80\x01\0\0\0");
        write(at + 14, size.to_le_bytes()[0]);
        let code = u32::try_from(0x11f + self.random.below(0x80)).unwrap_or(0);
        write(at + 15, code.swap_bytes());
        write(at + 19, self.random.next());
    }

    fn page(&mut self, of: Range<u64>) -> u64 {
        of.start + PAGE * self.random.below((of.end - of.start) / PAGE)
    }

    /// An address at which something could go wrong for the SVSM, and nothing for this program.
    fn beyond(&mut self, svsm: &Svsm) -> u64 {
        match self.random.below(5) {
            0 => svsm.base + PAGE * self.random.below(0x400),
            1 => u64::MAX - self.random.below(PAGE),
            2 => svsm.base << self.random.below(24),
            3 => self.random.next() | svsm.base,
            _ => svsm.base + self.random.below(PAGE),
        }
    }
}

/// `xorshift64*` (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

//! Pages that change hands because the guest asks for it (56421, "Page state change").

use super::super::Snp;
use super::super::shared::{ASID, Ownership};
use crate::addr::{Gpa, Hpa, PAGE};
use crate::board::{Board, Operation as Counted};
use crate::liar::Effect;
use crate::personality::Hardware;
use crate::phys::HostMemory;
use svsm_sim::fault::{Fault, Fired};
use svsm_sim::ghcb::{Change, EntryError, List, Malformed, Operation, Reply, Snapshot};
use svsm_sim::rmp::{NewState, PageSize, State};

impl<'m, M: HostMemory> Snp<'_, 'm, M> {
    /// One change, by the register. Says whether it was made, or is said to have been.
    pub(super) fn change_one(
        &mut self,
        change: Change,
        board: &Board,
        hardware: &mut impl Hardware,
    ) -> bool {
        if self.lies(Fault::PscRefused).is_some() {
            return false;
        }
        if self.lies(Fault::PscElsewhere).is_some() {
            return true;
        }
        let shared = self.shared;
        let mut owned = shared.state.lock();
        let done = self.change(change, &mut owned, hardware);
        drop(owned);
        count(board, self.cpu);
        if done == Some(true) {
            self.leave_all(board, hardware);
        }
        done.is_some()
    }

    /// What the lie that is told makes of a list.
    fn list_lie(&mut self, list: List) -> ListLie {
        let Some(fired) = self.lie else {
            return ListLie::default();
        };
        let lie = ListLie::new(&fired, list);
        if lie.goes_on {
            self.liar.lock().owed = Some(fired);
        }
        self.effect = lie.pointless.map(Effect::Nothing);
        lie
    }

    /// A list of changes in the page's buffer.
    pub(super) fn change_list(
        &mut self,
        gpa: u64,
        buffer: u64,
        page: &Snapshot,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Reply {
        let word = |offset: u64| {
            let mut word = [0; 8];
            let bytes = page.buffer(buffer + offset, 8)?;
            word.copy_from_slice(bytes);
            Some(u64::from_le_bytes(word))
        };
        let Some(header) = word(0) else {
            return Reply::malformed(Malformed::Scratch);
        };
        let mut list = match List::decode(header) {
            Ok(list) => list,
            Err(error) => return Reply::with_info2(error.word()),
        };
        let lie = self.list_lie(list);
        let (mut result, mut stale) = (0, false);
        while let Some((number, offset)) = list.next() {
            if lie.stops_at == Some(number) {
                break;
            }
            let Some(entry) = word(offset) else {
                result = EntryError::Invalid.word();
                break;
            };
            let change = match Change::decode(entry) {
                Ok(change) => change,
                Err(error) => {
                    result = error.word();
                    break;
                }
            };
            let done = if lie.refuses_at == Some(number) {
                None
            } else if lie.skips_from.is_some_and(|first| number >= first) {
                Some(false)
            } else {
                let shared = self.shared;
                let mut owned = shared.state.lock();
                self.change(change, &mut owned, hardware)
            };
            match done {
                Some(known) => stale |= known,
                None => {
                    result = EntryError::generic();
                    break;
                }
            }
            let mut finished = Change::finished(entry);
            if lie.rewrites == Some(number) {
                finished ^= lie.other_frame;
            }
            self.put(gpa.wrapping_add(buffer + offset), &finished.to_le_bytes());
            list.advance();
            count(board, self.cpu);
        }
        let header = match lie.claims {
            Some(number) => list.header() & !0xffff | u64::from(number),
            None => list.header(),
        };
        let [a, b, c, d, ..] = header.to_le_bytes();
        self.put(gpa.wrapping_add(buffer), &[a, b, c, d]);
        if stale {
            self.leave_all(board, hardware);
        }
        Reply::with_info2(result)
    }

    /// Makes a page private or shared. `None`: it cannot be; otherwise whether other CPUs may know it as it was.
    fn change(
        &mut self,
        change: Change,
        owned: &mut Ownership<'m>,
        hardware: &mut impl Hardware,
    ) -> Option<bool> {
        let bytes = if change.large {
            PageSize::Size2M.bytes()
        } else {
            PAGE
        };
        let start = change.gpa.checked_add(u64::from(change.done) * PAGE)?;
        let end = change.gpa.checked_add(bytes)?;
        let mut stale = false;
        match change.operation {
            Operation::Private
                if change.large && change.done == 0 && self.lies(Fault::PscWrongSize).is_none() =>
            {
                let home = self.home(change.gpa)?;
                let whole = home.is_aligned(bytes)
                    && (0..bytes).step_by(4096).all(|offset| {
                        let entry = owned.rmp.entry(home.as_u64() + offset);
                        self.home(change.gpa + offset).map(Hpa::as_u64)
                            == Some(home.as_u64() + offset)
                            && entry.is_some_and(|entry| entry.state() == State::Hypervisor)
                    });
                if whole {
                    return self.give(change.gpa, home, PageSize::Size2M, owned, hardware);
                }
                for gpa in (start..end).step_by(4096) {
                    stale |= self.give_small(gpa, owned, hardware)?;
                }
            }
            Operation::Private => {
                for gpa in (start..end).step_by(4096) {
                    stale |= self.give_small(gpa, owned, hardware)?;
                }
            }
            Operation::Shared => {
                for gpa in (start..end).step_by(4096) {
                    stale |= self.take(gpa, self.home(gpa)?, owned, hardware)?;
                }
            }
            Operation::Smash => stale = self.split(change.gpa, self.home(change.gpa)?, owned)?,
            // Whether pages are joined is for the host to say, and this one does not.
            Operation::Unsmash => {}
        }
        Some(stale)
    }

    fn home(&self, gpa: u64) -> Option<Hpa> {
        self.shared
            .map
            .resolve(Gpa::new(gpa)?)
            .map(|(home, _)| home)
    }

    /// A page for the guest to validate; one that it has already stays as it is.
    fn give(
        &mut self,
        gpa: u64,
        home: Hpa,
        size: PageSize,
        owned: &mut Ownership<'m>,
        hardware: &mut impl Hardware,
    ) -> Option<bool> {
        if owned.rmp.entry(home.as_u64())?.state() != State::Hypervisor {
            return Some(false);
        }
        let new = NewState::guest(ASID, gpa, size);
        let encryption = self.shared.encryption;
        let known = owned.assign(gpa, home, new, encryption, &mut self.memory, hardware)?;
        self.liar.lock().name(gpa);
        Some(known)
    }

    fn give_small(
        &mut self,
        gpa: u64,
        owned: &mut Ownership<'m>,
        hardware: &mut impl Hardware,
    ) -> Option<bool> {
        self.give(gpa, self.home(gpa)?, PageSize::Size4K, owned, hardware)
    }

    /// A page that the guest uses as shared without having asked for it. `None`: it cannot be; otherwise whether other CPUs may
    /// know it as it was.
    pub(in super::super) fn share(
        &mut self,
        gpa: u64,
        owned: &mut Ownership<'m>,
        hardware: &mut impl Hardware,
    ) -> Option<bool> {
        let page = gpa & !(PAGE - 1);
        self.take(page, self.home(page)?, owned, hardware)
    }

    /// A page back from the guest.
    fn take(
        &mut self,
        gpa: u64,
        home: Hpa,
        owned: &mut Ownership<'m>,
        hardware: &mut impl Hardware,
    ) -> Option<bool> {
        let entry = owned.rmp.entry(home.as_u64())?;
        if entry.state() == State::Hypervisor {
            return Some(false);
        }
        let mut stale = false;
        if entry.size() == PageSize::Size2M {
            stale = self.split(gpa, home, owned)?;
        }
        let (encryption, new) = (self.shared.encryption, NewState::HYPERVISOR);
        let known = owned.assign(gpa, home, new, encryption, &mut self.memory, hardware)?;
        Some(stale | known)
    }

    fn split(&mut self, gpa: u64, home: Hpa, owned: &mut Ownership<'m>) -> Option<bool> {
        let large = !(PageSize::Size2M.bytes() - 1);
        if owned.rmp.entry(home.as_u64())?.size() != PageSize::Size2M {
            return Some(false);
        }
        owned.rmp.psmash(home.as_u64() & large).ok()?;
        let encryption = self.shared.encryption;
        owned
            .forget(gpa & large, PageSize::Size2M, encryption, &mut self.memory)
            .ok()
    }

    /// Takes a private page away and puts another in its place, with the same content or with what it held when the guest
    /// got it; or splits a large one.
    pub(in super::super) fn swap(
        &mut self,
        fired: &Fired,
        board: &Board,
        hardware: &mut impl Hardware,
    ) -> Effect {
        let shared = self.shared;
        let mut owned = shared.state.lock();
        let small = fired.fault != Fault::Smash;
        let Some((gpa, home)) = self.victim(fired.choice, &owned, small) else {
            return Effect::Nothing(if small {
                "no page that the guest named is its own any more"
            } else {
                "no page that the guest named is a large one"
            });
        };
        let mut content = [0; 4096];
        let done = match fired.fault {
            Fault::Smash => self.split(gpa, home, &mut owned),
            fault => {
                let read = self.memory.read(home, &mut content).ok();
                let taken = read.and_then(|()| self.take(gpa, home, &mut owned, hardware));
                let given = self.give(gpa, home, PageSize::Size4K, &mut owned, hardware);
                if fault == Fault::Remap {
                    let back = self.memory.write(home, &content);
                    back.ok().and(taken).and(given)
                } else {
                    taken.and(given)
                }
            }
        };
        drop(owned);
        // Whoever knows the page must see that it is gone.
        self.leave_all(board, hardware);
        match done {
            Some(_) => Effect::Page(gpa),
            None => Effect::Nothing("the page cannot be taken away"),
        }
    }

    /// A page that was named, is the guest's and holds no save area: any, or only a large one.
    pub(in super::super) fn victim(
        &self,
        choice: u64,
        owned: &Ownership<'m>,
        any: bool,
    ) -> Option<(u64, Hpa)> {
        let named = |gpa: u64| {
            let home = self.home(gpa)?;
            let entry = owned.rmp.entry(home.as_u64())?;
            let state = matches!(entry.state(), State::GuestValid | State::GuestInvalid);
            let fits = any || entry.size() == PageSize::Size2M;
            (state && fits && !entry.is_vmsa()).then_some((gpa, home))
        };
        let liar = self.liar.lock();
        liar.named(choice).find_map(named)
    }
}

fn count(board: &Board, cpu: usize) {
    if let Some(slot) = board.slot(cpu) {
        slot.counters.count(Counted::PageState, 1);
    }
}

/// What a lie makes of a list.
#[derive(Clone, Copy, Debug, Default)]
struct ListLie {
    /// The entry before which the host stops.
    stops_at: Option<u16>,
    /// The first entry that is not carried out but reported as done.
    skips_from: Option<u16>,
    /// The entry that is refused.
    refuses_at: Option<u16>,
    /// The entry that is changed after the fact.
    rewrites: Option<u16>,
    /// What is changed about it.
    other_frame: u64,
    /// The progress that is reported instead of the real one.
    claims: Option<u16>,
    /// The lie is told at the next list of the guest.
    goes_on: bool,
    /// Why there is nothing to lie about.
    pointless: Option<&'static str>,
}

impl ListLie {
    fn new(fired: &Fired, list: List) -> Self {
        let header = list.header();
        let (current, end) = ((header & 0xffff) as u16, (header >> 16 & 0xffff) as u16);
        let count = (end + 1).saturating_sub(current);
        let any = current.saturating_add((fired.below(0, count.into()) & 0xffff) as u16);
        let honest = Self::default();
        match fired.fault {
            Fault::EarlyPsc => Self {
                stops_at: Some(any),
                ..honest
            },
            Fault::PartialPsc if count < 2 => Self {
                pointless: Some("the list has one entry left"),
                ..honest
            },
            Fault::PartialPsc => Self {
                skips_from: Some(current.saturating_add(1)),
                ..honest
            },
            Fault::PscElsewhere => Self {
                skips_from: Some(0),
                ..honest
            },
            Fault::PscRefused => Self {
                refuses_at: Some(any),
                ..honest
            },
            Fault::PscRewrite => Self {
                rewrites: Some(any),
                other_frame: 0x1000 << fired.below(1, 8),
                ..honest
            },
            // There is progress to take back.
            Fault::PscBackwards if current > 0 => Self {
                stops_at: Some(current),
                claims: Some(current - 1),
                ..honest
            },
            // There is none yet: some is made, to be taken back at the next call.
            Fault::PscBackwards if end > 0 => Self {
                stops_at: Some(current + 1),
                goes_on: true,
                ..honest
            },
            // One entry, done and not reported.
            Fault::PscBackwards => Self {
                claims: Some(current),
                ..honest
            },
            _ => honest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lie(fault: Fault, current: u64, end: u64) -> ListLie {
        let fired = Fired {
            fault,
            event: 3,
            choice: 77,
        };
        ListLie::new(&fired, List::decode(current | end << 16).unwrap())
    }

    #[test]
    fn progress_is_made_before_it_is_taken_back() {
        let first = lie(Fault::PscBackwards, 0, 4);
        assert_eq!((first.stops_at, first.goes_on), (Some(1), true));
        let second = lie(Fault::PscBackwards, 1, 4);
        assert_eq!((second.claims, second.goes_on), (Some(0), false));
    }

    #[test]
    fn a_lie_is_about_an_entry_of_the_list() {
        for end in 0..20 {
            for current in 0..=end {
                let entry = lie(Fault::PscRefused, current, end).refuses_at.unwrap();
                assert!((current..=end).contains(&u64::from(entry)));
                assert!(lie(Fault::EarlyPsc, current, end).stops_at.is_some());
            }
        }
        // All of it is done already.
        assert_eq!(lie(Fault::PscRewrite, 5, 4).rewrites, Some(5));
        assert!(lie(Fault::PartialPsc, 4, 4).pointless.is_some());
        assert_eq!(lie(Fault::PartialPsc, 0, 4).skips_from, Some(1));
    }
}

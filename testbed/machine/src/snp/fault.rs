//! What becomes of an access that the nested tables do not allow.

use super::nested::{Encryption, Mode, leaf_flags};
use crate::addr::{Gpa, Hpa};
use crate::memory::GuestMap;
use crate::paging::Flags;
use svsm_sim::rmp::{Access, Caller, Fault, Mapping, PageSize, Rmp, State};

/// An access that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address, with whatever says how it is meant.
    pub raw: u64,
    /// A write.
    pub write: bool,
    /// An instruction fetch.
    pub fetch: bool,
    /// An access to the guest's page tables.
    pub table: bool,
    /// The ring of the code.
    pub cpl: u8,
}

impl Attempt {
    /// Takes the error code of a nested fault apart.
    #[must_use]
    pub const fn decode(raw: u64, code: u64, cpl: u8) -> Self {
        Self {
            raw,
            write: code & 1 << 1 != 0,
            fetch: code & FETCH != 0,
            table: code & TABLE != 0,
            cpl,
        }
    }

    /// The rights that the access needs.
    const fn access(&self) -> Access {
        if self.fetch && self.cpl == 3 {
            Access::EXECUTE_USER
        } else if self.fetch {
            Access::EXECUTE_SUPERVISOR
        } else if self.write {
            Access::WRITE
        } else {
            Access::READ
        }
    }
}

/// Whether an error code is of an access that is private whatever the guest's tables say: to those tables themselves, or a fetch.
#[must_use]
pub const fn is_forced(code: u64) -> bool {
    code & (FETCH | TABLE) != 0
}

const FETCH: u64 = 1 << 4;
const TABLE: u64 = 1 << 33;

/// The answer to an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is allowed: map it like this.
    Map {
        /// The first address of the page, with whatever says how it is meant.
        raw: u64,
        /// The memory behind it.
        home: Hpa,
        /// The size of the page.
        size: PageSize,
        /// What is allowed.
        flags: Flags,
        /// Until the next exit that is not of such an access: a name for private memory that only fetches, or walks of the guest's
        /// tables, may use.
        once: bool,
    },
    /// The page is private, and nobody has taken it into use yet: the host makes it shared, as KVM does, and the guest tries again.
    Share,
    /// To the guest: #VC with this code.
    Exception(u32),
    /// To the host: the guest did what no guest that obeys the rules does, or the host broke them.
    Violation(Fault),
    /// A private access to what is no memory, or a shared one to private memory.
    Nothing,
}

/// #VC: an access to memory that is emulated.
pub const NESTED_FAULT: u32 = 0x400;
/// #VC: an access to a page that was not validated.
pub const NOT_VALIDATED: u32 = 0x404;

/// Video memory.
const VIDEO: core::ops::Range<u64> = 0xa_0000..0xc_0000;
/// Firmware's memory below 1 MiB, which a guest may read.
const ROMS: core::ops::Range<u64> = 0xc_0000..0x10_0000;

/// Judges an access.
#[must_use]
pub fn judge(
    attempt: Attempt,
    caller: Caller,
    mode: Mode,
    encryption: Encryption,
    map: &GuestMap,
    rmp: &Rmp<'_>,
) -> Answer {
    let place = encryption.place(attempt.raw);
    // Hardware walks the guest's tables and fetches code as private memory, and does everything so without paging.
    let forced = attempt.table || attempt.fetch || mode == Mode::Unpaged;
    let private = place.private || forced;
    let page = place.gpa & !0xfff;
    let Some((home, _)) = Gpa::new(page).and_then(|gpa| map.resolve(gpa)) else {
        return beside_memory(attempt.raw, place.gpa, place.private);
    };
    if !private {
        return match rmp.entry(home.as_u64()).map(svsm_sim::rmp::Entry::state) {
            Some(State::Hypervisor) => Answer::Map {
                raw: attempt.raw & !0xfff,
                home,
                size: PageSize::Size4K,
                flags: Flags::NESTED | Flags::NO_EXECUTE,
                once: false,
            },
            Some(State::GuestInvalid) => Answer::Share,
            _ => Answer::Nothing,
        };
    }

    let size = rmp
        .entry(home.as_u64())
        .map_or(PageSize::Size4K, svsm_sim::rmp::Entry::size);
    let mapping = Mapping {
        spa: home.as_u64(),
        gpa: page,
        size,
    };
    match rmp.access(caller, mapping, attempt.access()) {
        Ok(()) => {
            let start = !(size.bytes() - 1);
            let permissions = rmp
                .entry(home.as_u64())
                .map_or(Access::empty(), |entry| entry.permissions(caller.vmpl));
            let alias = !place.private && mode == Mode::Paged;
            Answer::Map {
                raw: attempt.raw & if alias { !0xfff } else { start },
                home: if alias {
                    home
                } else {
                    Hpa::new(home.as_u64() & start).unwrap_or(home)
                },
                size: if alias { PageSize::Size4K } else { size },
                flags: match (alias, attempt.fetch) {
                    (false, _) => leaf_flags(permissions),
                    // Data under this name is not private: reads cannot be told from fetches, but writes can.
                    (true, true) => leaf_flags(permissions) - Flags::WRITE,
                    (true, false) => leaf_flags(permissions) | Flags::NO_EXECUTE,
                },
                once: alias,
            }
        }
        Err(Fault::NotValidated) => Answer::Exception(NOT_VALIDATED),
        Err(fault) => Answer::Violation(fault),
    }
}

/// An access to an address without RAM: a device, which the guest must ask the host for.
const fn beside_memory(raw: u64, gpa: u64, private: bool) -> Answer {
    if private {
        return Answer::Nothing;
    }
    if gpa >= ROMS.start && gpa < ROMS.end && gpa >= VIDEO.end {
        return match Hpa::new(gpa & !0xfff) {
            Some(home) => Answer::Map {
                raw: raw & !0xfff,
                home,
                size: PageSize::Size4K,
                flags: Flags::PRESENT.union(Flags::USER).union(Flags::NO_EXECUTE),
                once: false,
            },
            None => Answer::Nothing,
        };
    }
    Answer::Exception(NESTED_FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::HpaRange;
    use crate::layout::{Layout, MapEntry};
    use crate::loader::Backed;
    use crate::phys::fake::Ram;
    use crate::pool::Pool;
    use svsm_sim::rmp::{Entry, NewState, Permissions, Vmpl};

    const C: Encryption = Encryption::CBit(1 << 51);
    const PRIVATE: u64 = 1 << 51;
    const VMPL0: Caller = Caller {
        asid: 1,
        vmpl: Vmpl::VMPL0,
    };
    const VMPL2: Caller = Caller {
        asid: 1,
        vmpl: Vmpl::VMPL2,
    };

    fn map() -> GuestMap {
        let ram = [MapEntry {
            start: 0,
            bytes: 48 << 20,
            kind: 1,
        }];
        let layout = Layout::new(&ram, Some(32 << 20)).unwrap();
        let mut pool = Pool::new(layout.own, HpaRange::from_u64(0, 0).unwrap());
        GuestMap::new(&layout, &Backed::new(), &mut pool, &mut Ram::new(0)).unwrap()
    }

    /// Page 5 is valid, page 6 is not, page 7 is shared, 2 MiB from 0x20_0000 on are valid as one page.
    fn entries() -> Vec<Entry> {
        let mut entries = vec![Entry::HYPERVISOR; 8192];
        let mut rmp = Rmp::new(&mut entries);
        for page in [5, 6] {
            let gpa = page << 12;
            rmp.rmpupdate(gpa, NewState::guest(1, gpa, PageSize::Size4K))
                .unwrap();
        }
        let large = NewState::guest(1, 0x20_0000, PageSize::Size2M);
        rmp.rmpupdate(0x20_0000, large).unwrap();
        for (gpa, size) in [(0x5000, PageSize::Size4K), (0x20_0000, PageSize::Size2M)] {
            let at = Mapping {
                spa: gpa,
                gpa,
                size,
            };
            let _ = rmp.pvalidate(VMPL0, at, size, true).unwrap().unwrap();
        }
        entries
    }

    fn attempt(raw: u64) -> Attempt {
        Attempt {
            raw,
            write: false,
            fetch: false,
            table: false,
            cpl: 0,
        }
    }

    fn ask(attempt: Attempt, caller: Caller, mode: Mode) -> Answer {
        let mut entries = entries();
        judge(attempt, caller, mode, C, &map(), &Rmp::new(&mut entries))
    }

    #[test]
    fn private_memory_is_mapped_as_its_rights_say() {
        let page = attempt(PRIVATE | 0x5123);
        let Answer::Map {
            raw,
            home,
            flags,
            once,
            ..
        } = ask(page, VMPL0, Mode::Paged)
        else {
            panic!("not mapped")
        };
        assert_eq!((raw, home.as_u64()), (PRIVATE | 0x5000, 0x5000));
        assert_eq!((flags, once), (Flags::NESTED, false));
        assert_eq!(
            ask(page, VMPL2, Mode::Paged),
            Answer::Violation(Fault::Permission)
        );
        let large = attempt(PRIVATE | 0x20_1234);
        let Answer::Map { raw, size, .. } = ask(large, VMPL0, Mode::Paged) else {
            panic!("not mapped")
        };
        assert_eq!((raw, size), (PRIVATE | 0x20_0000, PageSize::Size2M));
    }

    #[test]
    fn what_is_not_valid_is_an_exception_and_what_is_shared_a_violation() {
        let paged = |raw| ask(attempt(raw), VMPL0, Mode::Paged);
        assert_eq!(paged(PRIVATE | 0x6000), Answer::Exception(NOT_VALIDATED));
        assert_eq!(paged(PRIVATE | 0x7000), Answer::Violation(Fault::NotOwned));
        // A page in use is not lost by an access that is meant for another one.
        assert_eq!(paged(0x5000), Answer::Nothing);
        assert_eq!(paged(0x6000), Answer::Share);
        let Answer::Map { flags, .. } = paged(0x7000) else {
            panic!("not mapped")
        };
        assert!(flags.contains(Flags::NO_EXECUTE | Flags::WRITE));
        let fetch = Attempt {
            fetch: true,
            ..attempt(0x7000)
        };
        // No shared page is ever executed: the fetch is a private access.
        let not_owned = Answer::Violation(Fault::NotOwned);
        assert_eq!(ask(fetch, VMPL0, Mode::Paged), not_owned);
        let fetch = Attempt {
            raw: 0x5000,
            ..fetch
        };
        let Answer::Map { flags, once, .. } = ask(fetch, VMPL0, Mode::Paged) else {
            panic!("not mapped")
        };
        assert!(once && !flags.intersects(Flags::WRITE | Flags::NO_EXECUTE));
    }

    #[test]
    fn walks_and_code_without_paging_are_private() {
        let table = Attempt {
            table: true,
            write: true,
            ..attempt(0x5000)
        };
        let Answer::Map {
            raw, once, flags, ..
        } = ask(table, VMPL0, Mode::Paged)
        else {
            panic!("not mapped")
        };
        assert_eq!((raw, once), (0x5000, true));
        assert!(flags.contains(Flags::NO_EXECUTE));
        let unpaged = ask(
            Attempt {
                fetch: true,
                ..attempt(0x5000)
            },
            VMPL0,
            Mode::Unpaged,
        );
        assert!(matches!(
            unpaged,
            Answer::Map {
                once: false,
                flags: Flags::NESTED,
                ..
            }
        ));
        assert_eq!(
            ask(attempt(0x7000), VMPL0, Mode::Unpaged),
            Answer::Violation(Fault::NotOwned)
        );
    }

    #[test]
    fn devices_are_asked_for() {
        for gpa in [0xfee0_0000, 0xb_8000, 1 << 40] {
            assert_eq!(
                ask(attempt(gpa), VMPL0, Mode::Paged),
                Answer::Exception(NESTED_FAULT)
            );
        }
        assert_eq!(
            ask(attempt(PRIVATE | 0xfee0_0000), VMPL0, Mode::Paged),
            Answer::Nothing
        );
        let Answer::Map { flags, .. } = ask(attempt(0xf_0000), VMPL0, Mode::Paged) else {
            panic!("not mapped")
        };
        assert!(!flags.contains(Flags::WRITE));
    }

    #[test]
    fn rights_count_for_each_level() {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries);
        let at = Mapping {
            spa: 0x5000,
            gpa: 0x5000,
            size: PageSize::Size4K,
        };
        rmp.rmpadjust(
            VMPL0,
            at,
            PageSize::Size4K,
            Vmpl::VMPL2,
            Permissions::READ,
            false,
        )
        .unwrap()
        .unwrap();
        let ask = |attempt| judge(attempt, VMPL2, Mode::Paged, C, &map(), &rmp);
        let read = attempt(PRIVATE | 0x5000);
        assert!(matches!(ask(read), Answer::Map { flags, .. } if !flags.contains(Flags::WRITE)));
        let write = Attempt {
            write: true,
            ..read
        };
        assert_eq!(ask(write), Answer::Violation(Fault::Permission));
        let fetch = Attempt {
            fetch: true,
            ..read
        };
        assert_eq!(ask(fetch), Answer::Violation(Fault::Permission));
    }
}

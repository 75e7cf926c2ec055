extern crate std;

use super::*;
use crate::handoff::{Staged, tests::sample};
use crate::region::Area;
use core::cell::RefCell;
use proptest::prelude::*;
use sha2::Digest;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;
use svsm_mm::window::HostMemory;

/// What a host can do while it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Honest,
    /// Changes each page right after it was copied.
    ChangesAfterwards,
    /// Does not give the private page with this index.
    Keeps(usize),
    /// Puts another page where the private page with this index was.
    Swaps(usize),
}

const SOURCE: u64 = 0x90_0000_0000;
const TARGET: u64 = 0x80_0004_0000;

struct Machine {
    host: Host,
    shared: Vec<u8>,
    private: BTreeMap<u64, Contents>,
}

/// The index of a page from `base` on; none that a test uses if it lies before.
fn index(page: Gpa, base: u64) -> usize {
    usize::try_from(page.as_u64().wrapping_sub(base) / PAGE as u64).unwrap()
}

impl Memory for Machine {
    type Error = &'static str;

    fn fetch(&mut self, shared: Gpa, into: &mut Contents) -> Result<(), Self::Error> {
        let start = index(shared, SOURCE) * PAGE;
        let page = self
            .shared
            .get_mut(start..start + PAGE)
            .ok_or("not shared")?;
        into.copy_from_slice(page);
        if self.host == Host::ChangesAfterwards {
            page.fill(0xee);
        }
        Ok(())
    }

    fn accept(&mut self, private: Gpa) -> Result<(), Self::Error> {
        if self.host == Host::Keeps(index(private, TARGET)) {
            return Err("kept");
        }
        match self.private.insert(private.as_u64(), [0xaa; PAGE]) {
            None => Ok(()),
            Some(_) => Err("accepted twice"),
        }
    }

    fn write(&mut self, private: Gpa, contents: &Contents) -> Result<(), Self::Error> {
        let page = self.private.get_mut(&private.as_u64());
        *page.ok_or("not accepted")? = *contents;
        Ok(())
    }

    fn read(&mut self, private: Gpa, into: &mut Contents) -> Result<(), Self::Error> {
        *into = *self.private.get(&private.as_u64()).ok_or("not accepted")?;
        if self.host == Host::Swaps(index(private, TARGET)) {
            into[7] ^= 1;
        }
        Ok(())
    }
}

/// A hand-off with a staged archive, and the machine on which it arrives, with junk behind it.
fn arrival(archive: &[u8], host: Host) -> (Handoff, Machine) {
    let mut handoff = sample();
    let len_bytes = archive.len() as u64;
    let old = handoff.archive.unwrap();
    handoff.archive = Some(
        Area::new(
            crate::region::Region::Archive,
            Gpa::new(TARGET).unwrap(),
            old.gva(),
            len_bytes,
        )
        .unwrap(),
    );
    let mut shared = archive.to_vec();
    shared.resize(archive.len().next_multiple_of(PAGE), 0x77);
    handoff.staged = Some(Staged {
        source: GpaRange::new(Gpa::new(SOURCE).unwrap(), shared.len() as u64).unwrap(),
        digest: sha2::Sha384::digest(archive).into(),
    });
    handoff.check().unwrap();
    let machine = Machine {
        host,
        shared,
        private: BTreeMap::new(),
    };
    (handoff, machine)
}

fn copy(machine: &Machine) -> Vec<u8> {
    machine.private.values().flatten().copied().collect()
}

proptest! {
    #[test]
    fn what_arrives_is_the_archive_and_zeros(archive in prop::collection::vec(any::<u8>(), 1..20_000)) {
        for host in [Host::Honest, Host::ChangesAfterwards] {
            let (handoff, mut machine) = arrival(&archive, host);
            let pages = archive.len().div_ceil(PAGE);
            prop_assert_eq!(receive(&handoff, &mut machine, sha2::Sha384::new()), Ok(pages as u64));
            let copy = copy(&machine);
            prop_assert_eq!(copy.len(), pages * PAGE);
            prop_assert_eq!(&copy[..archive.len()], &archive[..]);
            prop_assert!(copy[archive.len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn one_other_bit_is_found_and_nothing_is_left(at in 0_usize..9000, bit in 0_u32..8) {
        let archive = vec![0x5a; 9000];
        let (handoff, mut machine) = arrival(&archive, Host::Honest);
        machine.shared[at] ^= 1 << bit;
        prop_assert_eq!(receive(&handoff, &mut machine, sha2::Sha384::new()), Err(Refused::Digest(Payload::Archive)));
        prop_assert!(copy(&machine).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn the_copy_is_checked_and_not_what_was_written() {
    let (handoff, mut machine) = arrival(&[1; 9000], Host::Swaps(1));
    let refused = receive(&handoff, &mut machine, sha2::Sha384::new()).unwrap_err();
    assert_eq!(refused, Refused::Digest(Payload::Archive));
    assert_eq!(refused.blame(), Some(Blame::Host));
}

#[test]
fn a_page_out_of_reach_is_named() {
    let (handoff, mut machine) = arrival(&[1; 9000], Host::Keeps(2));
    let page = Gpa::new(TARGET + 0x2000).unwrap();
    let refused = receive(&handoff, &mut machine, sha2::Sha384::new()).unwrap_err();
    assert_eq!(
        refused,
        Refused::Page {
            payload: Payload::Archive,
            page,
            cause: "kept"
        }
    );
    let text = std::format!("{refused}");
    assert_eq!(text, "page 0x8000042000 of the staged archive: kept");
    let (handoff, mut machine) = arrival(&[1; 9000], Host::Honest);
    machine.shared.truncate(PAGE);
    let refused = receive(&handoff, &mut machine, sha2::Sha384::new()).unwrap_err();
    assert!(matches!(
        refused,
        Refused::Page {
            cause: "not shared",
            ..
        }
    ));
}

#[test]
fn an_archive_that_is_loaded_is_left_alone() {
    let (mut handoff, mut machine) = arrival(&[1; 9000], Host::Honest);
    handoff.staged = None;
    assert_eq!(receive(&handoff, &mut machine, sha2::Sha384::new()), Ok(0));
    assert!(machine.private.is_empty());
}

/// A hand-off with a staged SVSM whose every page is its number, and the machine on which it arrives.
fn svsm_arrival() -> (Handoff, Machine) {
    let mut handoff = sample();
    let pages = handoff.svsm_pages().count();
    let shared: Vec<u8> = (0..pages)
        .flat_map(|page| [u8::try_from(page).unwrap(); PAGE])
        .collect();
    handoff.staged_svsm = Some(Staged {
        source: GpaRange::new(Gpa::new(SOURCE).unwrap(), shared.len() as u64).unwrap(),
        digest: sha2::Sha384::digest(&shared).into(),
    });
    handoff.check().unwrap();
    let machine = Machine {
        host: Host::ChangesAfterwards,
        shared,
        private: BTreeMap::new(),
    };
    (handoff, machine)
}

#[test]
fn an_svsm_goes_to_its_segments_and_tables() {
    let (handoff, mut machine) = svsm_arrival();
    let _in_place = receive_svsm(&handoff, &mut machine, sha2::Sha384::new()).unwrap();
    assert_eq!(machine.private.len(), handoff.svsm_pages().count());
    for (number, page) in handoff.svsm_pages().enumerate() {
        let expected = [u8::try_from(number).unwrap(); PAGE];
        assert_eq!(machine.private[&page.as_u64()], expected, "{page}");
    }
    let loaded = InPlace::loaded(&handoff).unwrap_err();
    assert_eq!(
        loaded,
        Error::Region {
            region: Region::SvsmStaging,
            fault: Fault::Missing
        }
    );
}

#[test]
fn an_svsm_that_was_changed_is_refused_and_cleared() {
    let (handoff, mut machine) = svsm_arrival();
    machine.shared[PAGE * 3 + 5] ^= 0x10;
    let refused = receive_svsm(&handoff, &mut machine, sha2::Sha384::new()).unwrap_err();
    assert_eq!(refused, Refused::Digest(Payload::Svsm));
    assert_eq!(
        std::format!("{}", refused),
        "the staged SVSM is not what the image says"
    );
    assert!(copy(&machine).iter().all(|byte| *byte == 0));
}

#[test]
fn an_svsm_that_is_loaded_is_left_alone() {
    let (mut handoff, mut machine) = svsm_arrival();
    handoff.staged_svsm = None;
    let _in_place = receive_svsm(&handoff, &mut machine, sha2::Sha384::new()).unwrap();
    assert!(machine.private.is_empty());
    assert!(InPlace::loaded(&handoff).is_ok());
}

#[test]
fn a_window_shows_both_sides() {
    let range = GpaRange::new(Gpa::new(SOURCE).unwrap(), 4 * PAGE as u64).unwrap();
    let accepted = RefCell::new(Vec::new());
    let accept = |_: &HostMemory, page: Gpa| {
        accepted.borrow_mut().push(page);
        Ok::<(), svsm_mm::Error>(())
    };
    // SAFETY: the memory is the test's own.
    #[expect(unsafe_code, reason = "makes the memory")]
    let mut memory = unsafe { Windowed::new(HostMemory::new(range), accept) };
    let page = range.start();
    let (mut before, mut after) = ([1; PAGE], [1; PAGE]);
    memory.accept(page).unwrap();
    memory.fetch(page, &mut before).unwrap();
    memory.write(page, &[7; PAGE]).unwrap();
    memory.read(page, &mut after).unwrap();
    assert_eq!((before, after), ([0; PAGE], [7; PAGE]));
    let beyond = range.end();
    assert!(memory.read(beyond, &mut after).is_err());
    assert!(memory.fetch(beyond, &mut after).is_err());
    assert!(memory.write(beyond, &before).is_err());
    drop(memory);
    assert_eq!(accepted.into_inner(), [page]);
}

//! Every cut of a commit, and everything that a host may do to sectors.
#![cfg(feature = "rustcrypto")]

use std::{vec, vec::Vec};

use super::*;
use crate::crypto::RustCrypto;

const SECTOR: usize = 64;
const COUNT: usize = 8;
const KEY: [u8; 32] = [0x4B; 32];

/// Sectors that remember what was written since the last flush.
#[derive(Clone)]
struct Disk {
    stable: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
    /// Whether a flush does its work; without, a test plays all that may have happened.
    flushes: bool,
}

impl Disk {
    fn new() -> Self {
        Self {
            stable: vec![0; SECTOR * COUNT],
            unflushed: Vec::new(),
            flushes: true,
        }
    }
}

impl Sectors for Disk {
    fn sector_len(&self) -> usize {
        SECTOR
    }
    fn count(&self) -> usize {
        COUNT
    }
    fn read(&mut self, sector: usize, into: &mut [u8]) -> Result<(), SeamError> {
        into.copy_from_slice(&self.stable[sector * SECTOR..][..SECTOR]);
        Ok(())
    }
    fn write(&mut self, sector: usize, from: &[u8]) -> Result<(), SeamError> {
        self.unflushed.push((sector, from.to_vec()));
        Ok(())
    }
    fn flush(&mut self) -> Result<(), SeamError> {
        if self.flushes {
            for (sector, bytes) in self.unflushed.drain(..) {
                self.stable[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Witness(u64);

impl Freshness for Witness {
    fn newest(&mut self) -> Result<Option<u64>, SeamError> {
        Ok(Some(self.0))
    }
    fn confirm(&mut self, generation: u64) -> Result<(), SeamError> {
        self.0 = generation;
        Ok(())
    }
}

fn with<T>(
    disk: &mut Disk,
    witness: &mut dyn Freshness,
    key: &[u8; 32],
    f: impl FnOnce(&mut Slots<'_>) -> T,
) -> T {
    let mut scratch = [0; SECTOR];
    f(&mut Slots::new(&RustCrypto, disk, witness, key, &mut scratch).unwrap())
}

fn load(disk: &mut Disk, witness: &mut dyn Freshness) -> Result<Option<Vec<u8>>, SeamError> {
    with(disk, witness, &KEY, |slots| {
        let mut image = vec![0; 256];
        let len = slots.load(&mut image)?;
        Ok(len.map(|len| image[..len].to_vec()))
    })
}

fn commit(disk: &mut Disk, witness: &mut dyn Freshness, generation: u64, image: &[u8]) {
    with(disk, witness, &KEY, |slots| {
        slots.load(&mut [0; 256]).unwrap();
        slots.commit(generation, image).unwrap();
    });
}

fn image(generation: u64) -> Vec<u8> {
    (0..150 + usize::try_from(generation).unwrap())
        .map(|n| u8::try_from(n).unwrap() ^ u8::try_from(generation).unwrap())
        .collect()
}

/// All that may be on the disk after a cut: any subset of the sectors, and any one of them torn at any byte.
fn after_cut(disk: &Disk) -> impl Iterator<Item = Disk> {
    let writes = disk.unflushed.len();
    (0..1usize << writes).flat_map(move |subset| {
        (0..writes).flat_map(move |torn| {
            (0..SECTOR).map(move |at| {
                let mut cut = disk.clone();
                for (n, (sector, bytes)) in cut.unflushed.drain(..).enumerate() {
                    let whole = subset & 1 << n != 0;
                    let len = if n == torn {
                        at
                    } else {
                        SECTOR * usize::from(whole)
                    };
                    cut.stable[sector * SECTOR..][..len].copy_from_slice(&bytes[..len]);
                }
                cut.flushes = true;
                cut
            })
        })
    })
}

#[test]
fn a_cut_at_any_byte_leaves_the_old_image_or_the_new_one() {
    let mut disk = Disk::new();
    for generation in 1..4 {
        let before = load(&mut disk, &mut Unwitnessed).unwrap();
        let mut unsure = disk.clone();
        unsure.flushes = false;
        commit(
            &mut unsure,
            &mut Unwitnessed,
            generation,
            &image(generation),
        );
        assert_eq!(unsure.unflushed.len(), 4);
        for mut cut in after_cut(&unsure) {
            let found = load(&mut cut, &mut Unwitnessed).unwrap();
            assert!(found == before || found == Some(image(generation)));
            // And it goes on from there.
            commit(&mut cut, &mut Unwitnessed, generation + 1, b"next");
            assert_eq!(load(&mut cut, &mut Unwitnessed).unwrap().unwrap(), b"next");
        }
        commit(&mut disk, &mut Unwitnessed, generation, &image(generation));
        assert_eq!(
            load(&mut disk, &mut Unwitnessed).unwrap(),
            Some(image(generation))
        );
    }
}

#[test]
fn an_image_that_was_put_back_is_refused_if_somebody_remembers() {
    let (mut disk, mut witness) = (Disk::new(), Witness::default());
    commit(&mut disk, &mut witness, 1, &image(1));
    let mut old = disk.clone();
    commit(&mut disk, &mut witness, 2, &image(2));
    assert_eq!(load(&mut disk, &mut witness), Ok(Some(image(2))));
    assert_eq!(
        load(&mut old, &mut witness),
        Err(SeamError::StoreRolledBack)
    );
    assert_eq!(
        load(&mut Disk::new(), &mut witness),
        Err(SeamError::StoreRolledBack)
    );
    // Nobody knows: then it does not show.
    assert_eq!(load(&mut old, &mut Unwitnessed), Ok(Some(image(1))));
}

#[test]
fn a_cut_before_the_confirmation_is_no_rollback() {
    let (mut disk, mut witness) = (Disk::new(), Witness::default());
    commit(&mut disk, &mut witness, 1, &image(1));
    commit(&mut disk, &mut Unwitnessed, 2, &image(2));
    assert_eq!(load(&mut disk, &mut witness), Ok(Some(image(2))));
    assert_eq!(witness.0, 2);
}

#[test]
fn a_changed_bit_or_another_key_is_noticed() {
    let mut disk = Disk::new();
    commit(&mut disk, &mut Unwitnessed, 1, &image(1));
    let used = SECTOR + image(1).len();
    for at in (0..PREFIX_LEN + CODE_LEN).chain(SECTOR..used) {
        let mut changed = disk.clone();
        changed.stable[at] ^= 0x10;
        let found = load(&mut changed, &mut Unwitnessed);
        assert!(
            matches!(found, Ok(None) | Err(SeamError::StoreNewer)),
            "{at}"
        );
    }
    commit(&mut disk, &mut Unwitnessed, 2, &image(2));
    let foreign = with(&mut disk, &mut Unwitnessed, &[1; 32], |slots| {
        slots.load(&mut [0; 256])
    });
    assert_eq!(foreign, Err(SeamError::StoreBroken));
    // What is on the disk says nothing of the image.
    let plain = image(2);
    assert!(!disk.stable.windows(16).any(|w| w == &plain[..16]));
}

#[test]
fn a_newer_layout_and_an_image_without_room_are_refused() {
    let mut disk = Disk::new();
    commit(&mut disk, &mut Unwitnessed, 1, &image(1));
    disk.stable[9] = 2;
    assert_eq!(
        load(&mut disk, &mut Unwitnessed),
        Err(SeamError::StoreNewer)
    );
    let mut disk = Disk::new();
    let result = with(&mut disk, &mut Unwitnessed, &KEY, |slots| {
        assert_eq!(slots.capacity(), 3 * SECTOR);
        slots.commit(1, &[0; 3 * SECTOR + 1])
    });
    assert_eq!(result, Err(SeamError::StoreSize));
}

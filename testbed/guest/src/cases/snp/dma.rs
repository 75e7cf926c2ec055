//! What devices reach (24593, "RMP and VMPL access checks"): what they write to a guest's pages does not arrive, and of what they
//! read there they learn nothing.

use super::super::edu::{Edu, device_read, stores};
use super::messages::list;
use super::{Clause, FREE, Result, check, own, try_all};
use crate::bare::ghcb::{self, change, pvalidate};
use crate::bare::{read, write};
use crate::layout::{SECRETS, SHARED};

/// A page of its own for each clause.
const fn page(n: u64) -> u64 {
    FREE + (30 << 20) + n * 0x1000
}

/// A page through which values go to the device and come back.
const MAILBOX: u64 = page(0);
const LARGE: u64 = FREE + (28 << 20);
const SECRET: u64 = 0x5ec_4e7;

/// Makes a page shared, and clears it.
fn share(at: u64) -> Result {
    check("page-state change", change(at, ghcb::SHARE), 0)?;
    write(SHARED + at, 0_u64);
    Ok(())
}

/// Makes a page the guest's again, and puts a secret into it.
fn take(at: u64) -> Result {
    check("page-state change", change(at, ghcb::PRIVATE), 0)?;
    hide(at)
}

fn hide(at: u64) -> Result {
    own(at)?;
    write(at, SECRET);
    Ok(())
}

/// Lets the device write to a page.
fn store(at: u64, value: u64) -> Result {
    stores(Edu::find()?, SHARED + MAILBOX, at, value)
}

/// What the device knows after it read a page.
fn fetch(at: u64) -> core::result::Result<u64, super::Failed> {
    let edu = Edu::find()?;
    // Something else than the secret, which it would bring if it did not read at all.
    write(SHARED + MAILBOX, 0x1111_u64);
    edu.fetch(MAILBOX)?;
    edu.fetch(at)?;
    edu.store(MAILBOX)?;
    Ok(read(SHARED + MAILBOX))
}

pub(in super::super) fn devices() -> Result {
    share(MAILBOX)?;
    try_all(&[CLAUSES])
}

const CLAUSES: &[Clause] = &[
    ("a device writes to a page of the host's", || {
        share(page(1))?;
        store(page(1), 0x1234)?;
        check("the page", read(SHARED + page(1)), 0x1234)
    }),
    ("a device reads a page of the host's", || {
        share(page(2))?;
        write(SHARED + page(2), 0x4321_u64);
        check("what it read", fetch(page(2))?, 0x4321)
    }),
    (
        "what a device writes to a page of the guest's is lost",
        || {
            hide(page(3))?;
            store(page(3), 0x1234)?;
            check("the page", read(page(3)), SECRET)
        },
    ),
    ("of a page of the guest's a device learns nothing", || {
        hide(page(4))?;
        check("the secret", u64::from(fetch(page(4))? == SECRET), 0)?;
        let secret: u64 = read(SECRETS + 0x20);
        check("the key", u64::from(fetch(SECRETS + 0x20)? == secret), 0)
    }),
    ("a page that becomes the guest's goes out of reach", || {
        share(page(5))?;
        // Whoever remembers translations has this one.
        store(page(5), 0x1234)?;
        check("before", read(SHARED + page(5)), 0x1234)?;
        take(page(5))?;
        store(page(5), 0x4321)?;
        check("the page", read(page(5)), SECRET)?;
        check("the secret", u64::from(fetch(page(5))? == SECRET), 0)
    }),
    ("a page that becomes the host's comes into reach", || {
        hide(page(6))?;
        store(page(6), 0x1234)?;
        check("before", read(page(6)), SECRET)?;
        check("PVALIDATE", pvalidate(page(6), 0, 0), 0)?;
        share(page(6))?;
        store(page(6), 0x4321)?;
        check("the page", read(SHARED + page(6)), 0x4321)
    }),
    ("its neighbours stay out of reach", || {
        hide(page(7))?;
        share(page(8))?;
        hide(page(9))?;
        for at in [page(7), page(8), page(9)] {
            store(at, 0x1234)?;
        }
        check("before", read(page(7)), SECRET)?;
        check("the page", read(SHARED + page(8)), 0x1234)?;
        check("behind", read(page(9)), SECRET)
    }),
    ("all of a large page goes out of reach at once", || {
        for at in (LARGE..LARGE + (2 << 20)).step_by(4096) {
            check("page-state change", change(at, ghcb::SHARE), 0)?;
        }
        let at = LARGE + 0x12_3000;
        store(at, 0x1234)?;
        check("before", read(SHARED + at), 0x1234)?;
        let large = LARGE | ghcb::PRIVATE << 52 | 1 << 56;
        check("the list", list(0, &[large]).info2, 0)?;
        check("PVALIDATE", pvalidate(LARGE, 1, 1), 0)?;
        write(at, SECRET);
        store(at, 0x4321)?;
        check("the page", read(at), SECRET)
    }),
    ("where the checks are made is not to be seen", || {
        check("a register", device_read(0xfed9_0000), u64::MAX)
    }),
];

//! `PVALIDATE`, `RMPADJUST`, `RMPQUERY`, and pages that change hands (24594; 24593, "Reverse map table").

use super::{Clause, FREE, check, exits, own};
use crate::bare::ghcb::{self, change, pvalidate, rmpadjust, rmpquery};
use crate::bare::insn;
use crate::bare::{read, write};
use crate::layout::{C_BIT, SHARED};

/// Bit 32: the carry flag.
const SAME: u64 = 1 << 32;
const SIZE_MISMATCH: u64 = 6;
const LARGE: u64 = 2 << 20;

/// The *n*-th large page from [`FREE`] on, so that no two clauses meet.
const fn large(n: u64) -> u64 {
    FREE + n * LARGE
}

/// A small page in the last large pages of the machine's first 64 MiB.
const fn small(n: u64) -> u64 {
    FREE + (16 << 20) + n * 0x1000
}

pub(super) const CLAUSES: &[Clause] = &[
    ("memory that was not validated raises an exception", || {
        exits("a read", insn::try_read(small(0)), 0x404)?;
        exits("a write", insn::try_write(small(0)), 0x404)
    }),
    ("validated memory is the guest's", || {
        check("PVALIDATE", pvalidate(small(0), 0, 1), 0)?;
        write(small(0), 0x1234_u64);
        check("memory", read(small(0)), 0x1234)
    }),
    ("validating twice shows in the carry flag", || {
        own(small(1))?;
        check("PVALIDATE", pvalidate(small(1), 0, 1), SAME)
    }),
    ("so does giving up twice", || {
        check("PVALIDATE", pvalidate(small(2), 0, 0), SAME)
    }),
    ("what is given up raises an exception again", || {
        own(small(3))?;
        check("PVALIDATE", pvalidate(small(3), 0, 0), 0)?;
        exits("a read", insn::try_read(small(3)), 0x404)
    }),
    ("pages of the image are valid from the start", || {
        check("PVALIDATE", pvalidate(0x20_0000, 0, 1), SAME)
    }),
    ("large pages are validated at once", || {
        check("PVALIDATE", pvalidate(large(0), 1, 1), 0)?;
        write(large(0) + LARGE - 8, 7_u64);
        check("memory", read(large(0) + LARGE - 8), 7)?;
        check("again", pvalidate(large(0), 1, 1), SAME)
    }),
    ("small pages are no large one", || {
        // The image filled part of these 2 MiB.
        check("PVALIDATE", pvalidate(0x20_0000, 1, 1), SIZE_MISMATCH)
    }),
    (
        "a small page of a large one makes the host split it",
        || {
            check("PVALIDATE", pvalidate(large(1) + 0x3000, 0, 1), 0)?;
            write(large(1) + 0x3000, 5_u64);
            check("memory", read(large(1) + 0x3000), 5)?;
            exits("its neighbour", insn::try_read(large(1) + 0x4000), 0x404)?;
            check("now small", pvalidate(large(1), 1, 1), SIZE_MISMATCH)
        },
    ),
    ("splitting keeps what was validated", || {
        check("PVALIDATE", pvalidate(large(2), 1, 1), 0)?;
        write(large(2) + 0x5000, 9_u64);
        check("one less", pvalidate(large(2) + 0x3000, 0, 0), 0)?;
        check("memory", read(large(2) + 0x5000), 9)?;
        exits("the one", insn::try_read(large(2) + 0x3000), 0x404)
    }),
    ("a large page begins where large pages begin", || {
        check("PVALIDATE", pvalidate(large(3) + 0x1000, 1, 1), 1)
    }),
    ("PVALIDATE looks at the lowest bits only", || {
        check("validated", pvalidate(small(4), 0xfe, 0xff), 0)?;
        check("again", pvalidate(small(4), 0, 1), SAME)
    }),
    ("PVALIDATE of what is not mapped is a page fault", || {
        let raised = insn::try_pvalidate(3 << 39);
        check("the vector", raised.map_or(0, u64::from), 14)
    }),
    ("PVALIDATE needs a private mapping", || {
        check("PVALIDATE", pvalidate(SHARED + small(16), 0, 1), 1)
    }),
    ("VMPL0 may do everything and others nothing", || {
        own(small(5))?;
        for level in 1..4 {
            let [code, size, rights] = rmpquery(small(5), level);
            check("RMPQUERY", code, 0)?;
            check("size", size, 0)?;
            check("rights", rights, level)?;
        }
        Ok(())
    }),
    ("rights are granted level by level", || {
        own(small(6))?;
        check("RMPADJUST", rmpadjust(small(6), 0, 2 | 0x3 << 8), 0)?;
        check("VMPL2", rmpquery(small(6), 2)[2], 2 | 0x3 << 8)?;
        check("VMPL1", rmpquery(small(6), 1)[2], 1)
    }),
    ("each grant replaces the one before", || {
        own(small(7))?;
        check("RMPADJUST", rmpadjust(small(7), 0, 1 | 0xf << 8), 0)?;
        check("RMPADJUST", rmpadjust(small(7), 0, 1 | 0x1 << 8), 0)?;
        check("VMPL1", rmpquery(small(7), 1)[2], 1 | 0x1 << 8)
    }),
    ("nobody changes their own rights", || {
        own(small(8))?;
        check("RMPADJUST", rmpadjust(small(8), 0, 0xf << 8), 2)?;
        check("RMPQUERY", rmpquery(small(8), 0)[0], 2)
    }),
    ("RMPADJUST refuses bits that mean nothing", || {
        own(small(9))?;
        check("bit 17", rmpadjust(small(9), 0, 1 | 1 << 17), 1)?;
        check("level 4", rmpadjust(small(9), 0, 4), 1)?;
        check("shadow stacks", rmpadjust(small(9), 0, 1 | 0x10 << 8), 1)
    }),
    ("rights need a validated page", || {
        exits("RMPADJUST", insn::try_rmpadjust(small(10)), 0x404)
    }),
    ("rights of a large page are for all of it", || {
        check("PVALIDATE", pvalidate(large(4), 1, 1), 0)?;
        check("RMPADJUST", rmpadjust(large(4), 1, 1 | 0x7 << 8), 0)?;
        check("within", rmpquery(large(4) + 0x7000, 1)[2], 1 | 0x7 << 8)?;
        check("size", rmpquery(large(4) + 0x7000, 1)[1], 1)
    }),
    ("giving rights to part of a large page splits it", || {
        check("PVALIDATE", pvalidate(large(5), 1, 1), 0)?;
        check(
            "RMPADJUST",
            rmpadjust(large(5) + 0x1000, 0, 1 | 0xf << 8),
            0,
        )?;
        check("the part", rmpquery(large(5) + 0x1000, 1)[2], 1 | 0xf << 8)?;
        check("the rest", rmpquery(large(5) + 0x2000, 1)[2], 1)?;
        check("size", rmpquery(large(5) + 0x2000, 1)[1], 0)
    }),
    ("a large grant does not fit small pages", || {
        check("RMPADJUST", rmpadjust(0x20_0000, 1, 1), SIZE_MISMATCH)
    }),
    ("a save area is marked as one", || {
        own(small(11))?;
        check("RMPADJUST", rmpadjust(small(11), 0, 1 | 1 << 16), 0)?;
        check("marked", rmpquery(small(11), 1)[2], 1 | 1 << 16)?;
        check("RMPADJUST", rmpadjust(small(11), 0, 1), 0)?;
        check("not any more", rmpquery(small(11), 1)[2], 1)
    }),
    ("a page becomes shared, and its contents noise", || {
        own(small(12))?;
        write(small(12), 0x5ec2e7_u64);
        let _ = pvalidate(small(12), 0, 0);
        check("change", change(small(12), ghcb::SHARE), 0)?;
        let seen: u64 = read(SHARED + small(12));
        check("plain text", u64::from(seen == 0x5ec2e7), 0)?;
        write(SHARED + small(12), 0x77_u64);
        check("shared memory", read(SHARED + small(12)), 0x77)
    }),
    ("a shared page comes back without being valid", || {
        check("change", change(small(13), ghcb::SHARE), 0)?;
        check("change", change(small(13), ghcb::PRIVATE), 0)?;
        exits("a read", insn::try_read(small(13)), 0x404)?;
        own(small(13))?;
        write(small(13), 3_u64);
        check("memory", read(small(13)), 3)
    }),
    ("sharing forgets validation and rights", || {
        own(small(14))?;
        check("RMPADJUST", rmpadjust(small(14), 0, 1 | 0xf << 8), 0)?;
        check("change", change(small(14), ghcb::SHARE), 0)?;
        check("change", change(small(14), ghcb::PRIVATE), 0)?;
        check("PVALIDATE", pvalidate(small(14), 0, 1), 0)?;
        check("VMPL1", rmpquery(small(14), 1)[2], 1)
    }),
    ("a private page stays private when asked again", || {
        own(small(15))?;
        write(small(15), 11_u64);
        check("change", change(small(15), ghcb::PRIVATE), 0)?;
        check("memory", read(small(15)), 11)
    }),
    ("sharing a small page splits a large one", || {
        check("PVALIDATE", pvalidate(large(6), 1, 1), 0)?;
        write(large(6) + 0x2000, 21_u64);
        check("change", change(large(6) + 0x1000, ghcb::SHARE), 0)?;
        check("its neighbour", read(large(6) + 0x2000), 21)?;
        write(SHARED + large(6) + 0x1000, 1_u64);
        check("size", pvalidate(large(6), 1, 0), SIZE_MISMATCH)
    }),
    ("a host shares what is used as shared and by nobody", || {
        // Half of a large page is left private.
        write(SHARED + large(7) + 0x1000, 0x77_u64);
        check("memory", read(SHARED + large(7) + 0x1000), 0x77)?;
        exits("its neighbour", insn::try_read(large(7)), 0x404)?;
        check("change", change(large(7) + 0x1000, ghcb::PRIVATE), 0)?;
        exits("a read", insn::try_read(large(7) + 0x1000), 0x404)
    }),
    (
        "tables are private, whatever they say of themselves",
        || {
            let (_, tables, _) = insn::control_registers();
            let root = tables & !C_BIT & !0xfff;
            // A second name for all memory near, by entries without the bit, under a root without it.
            let near: u64 = read(root);
            write(root + 3 * 8, near & !C_BIT);
            own(small(8))?;
            write(small(8), 0x88_u64);
            // SAFETY: the first entry is as before.
            #[expect(unsafe_code, reason = "changes page tables")]
            let seen = unsafe { insn::with_cr3(root, || read((3 << 39) + small(8))) };
            write(root + 3 * 8, 0_u64);
            check("memory", seen, 0x88)
        },
    ),
    ("code is private, whatever its pages say", || {
        // SAFETY: all memory is mapped there a second time.
        #[expect(unsafe_code, reason = "calls by another address")]
        unsafe {
            insn::call_through(SHARED);
        }
        Ok(())
    }),
    ("what is not memory does not change hands", || {
        check(
            "change",
            u64::from(change(0xfec0_0000, ghcb::SHARE) != 0),
            1,
        )
    }),
];

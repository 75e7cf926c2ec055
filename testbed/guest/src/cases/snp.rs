//! SEV-SNP, a clause of its specifications each: what the architecture and the host promise a guest at VMPL0.

mod dma; // what devices reach
mod door; // restricted injection
mod figures; // what things cost
mod levels; // several levels, and other CPUs
mod lies; // a host that lies
mod mail; // messages to the security processor
mod messages; // the host's answers in the page
mod ownership; // who owns a page
mod storm; // exceptions at every instruction

use super::{Failed, Result, check};
use crate::bare::ghcb::{self, GHCB, change, pvalidate, request};
use crate::bare::insn::{self, rdmsr};
use crate::bare::trap::caught_code;
use crate::bare::{read, say};
use crate::layout::{CPUID, SECRETS, SHARED};

/// A clause: its name, and what shows it.
type Clause = (&'static str, fn() -> Result);

const VC: Option<u8> = Some(29);

/// RAM that the image left alone: not validated, in pages of 2 MiB from here on.
const FREE: u64 = 0x100_0000;

/// Everything that a guest survives, one after the other.
pub(super) fn all() -> Result {
    try_all(&[
        EXITS,
        ownership::CLAUSES,
        messages::REGISTER,
        messages::PAGE,
        levels::CLAUSES,
        levels::FEATURE_CLAUSES,
    ])
}

fn try_all(groups: &[&[Clause]]) -> Result {
    let mut failures = 0;
    let mut count = 0_u64;
    for (name, clause) in groups.iter().copied().flatten() {
        count += 1;
        match clause() {
            Ok(()) => say(format_args!("clause {name} ... ok")),
            Err(reason) => {
                failures += 1;
                say(format_args!("clause {name} ... FAILED: {reason}"));
            }
        }
    }
    say(format_args!("{count} clauses, {failures} failed"));
    check("clauses failed", failures, 0)
}

pub(super) use dma::devices;
pub(super) use door::{door, door_of_others};
pub(super) use figures::figures;
pub(super) use levels::{
    bells, equal_features, in_use, lower_level_writes, other_cpus, ready as another_level,
};
pub(super) use lies::show as lie;
pub(super) use storm::{storm, storm_in_ring3};

/// Ends in a violation: a private access to a page that the host has.
pub(super) fn private_access_to_shared() -> Result {
    let at = FREE + (60 << 12);
    let _ = change(at, ghcb::SHARE);
    insn::try_read(at).map_or(Ok(()), |_| {
        Err(Failed {
            what: "it became an exception",
            got: 0,
        })
    })
}

/// Ends: a shared access to a page that the guest has.
pub(super) fn shared_access_to_private() -> Result {
    check("PVALIDATE", pvalidate(FREE, 1, 1), 0)?;
    let _ = read::<u8>(SHARED + FREE);
    Ok(())
}

/// Ends at the guest's own request.
pub(super) fn terminate() -> Result {
    let _ = request(0x100 | 2 << 12 | 0x42 << 16);
    Ok(())
}

/// An instruction that must raise #VC with this code.
fn exits(what: &'static str, got: Option<u8>, code: u64) -> Result {
    if got != VC {
        return Err(Failed {
            what,
            got: got.map_or(u64::MAX, u64::from),
        });
    }
    check(what, caught_code(), code)
}

/// What a guest must help with, and how it is told (24593, "Types of exits").
const EXITS: &[Clause] = &[
    ("CPUID is an exit that the guest handles", || {
        exits("CPUID", insn::try_cpuid(), 0x72)
    }),
    ("so is IN", || exits("IN", insn::try_in(), 0x7b)),
    ("so is RDMSR of what is not in the save area", || {
        exits("RDMSR", insn::try_rdmsr(0x1b), 0x7c)
    }),
    ("so is WRMSR", || {
        exits("WRMSR", insn::try_wrmsr(0x1b, 0), 0x7c)
    }),
    ("so is RDMSR beyond the permission map", || {
        exits("RDMSR", insn::try_rdmsr(0x4000_0000), 0x7c)
    }),
    ("so is WBINVD", || exits("WBINVD", insn::try_wbinvd(), 0x89)),
    ("so is INVD", || exits("INVD", insn::try_invd(), 0x76)),
    ("so is RDPMC", || exits("RDPMC", insn::try_rdpmc(), 0x6f)),
    ("so is MONITOR", || {
        exits("MONITOR", insn::try_monitor(), 0x8a)
    }),
    ("so is MWAIT", || exits("MWAIT", insn::try_mwait(), 0x8b)),
    ("so is VMMCALL without a prefix", || {
        exits("VMMCALL", insn::try_vmmcall(), 0x81)
    }),
    ("device memory is emulated by the guest", || {
        exits("a read", insn::try_read(SHARED + 0xfec0_0000), 0x400)?;
        exits("a write", insn::try_write(SHARED + 0xb_8000), 0x400)
    }),
    ("MSRs of the save area do not exit", || {
        for msr in [0x174, 0x277, 0xc000_0081, 0xc000_0082, 0xc000_0102] {
            check("RDMSR", insn::try_rdmsr(msr).map_or(0, u64::from), 0)?;
        }
        Ok(())
    }),
    ("SVM's instructions are undefined", || {
        check("VMRUN", insn::try_vmrun().map_or(0, u64::from), 6)
    }),
    ("a host's instructions on the table are undefined", || {
        check(
            "RMPUPDATE",
            insn::try_rmpupdate(FREE).map_or(0, u64::from),
            6,
        )
    }),
    ("SEV_STATUS says what is on", || {
        check("SEV_STATUS", rdmsr(0xc001_0131), 0b111)
    }),
    ("SEV_STATUS cannot be written", || {
        let raised = insn::try_wrmsr(0xc001_0131, 7);
        check("WRMSR", raised.map_or(0, u64::from), 13)
    }),
    ("EFER hides that SVM is on below", || {
        check("EFER", rdmsr(0xc000_0080) & 1 << 12, 0)
    }),
    ("the CPUID page names the C-bit", || {
        let [_, ebx, _, _] = cpuid_page(0x8000_001f).ok_or(Failed {
            what: "no leaf",
            got: 0,
        })?;
        check("the C-bit", u64::from(ebx & 0x3f), 51)?;
        check("levels", u64::from(ebx >> 12 & 0xf), 4)
    }),
    ("the CPUID page has no more than 64 entries", || {
        let count: u32 = read(CPUID);
        check("too many", u64::from(count > 64 || count == 0), 0)
    }),
    (
        "XSAVE is hidden, since compacted XSAVE is not there",
        || {
            let [_, _, ecx, _] = cpuid_page(1).unwrap_or_default();
            check("XSAVE and AVX", u64::from(ecx & (1 << 26 | 1 << 28)), 0)
        },
    ),
    ("the secrets page has a key for each level", || {
        for level in 0..4 {
            let key: [u64; 4] = read(SECRETS + 0x20 + 32 * level);
            check("a key of zeros", u64::from(key == [0; 4]), 0)?;
        }
        Ok(())
    }),
    ("the secrets page names no SVSM", || {
        check("SVSM_SIZE", read(SECRETS + 0x148), 0)
    }),
    ("INVLPGB and TLBSYNC are there", || {
        check("INVLPGB", insn::try_invlpgb().map_or(0, u64::from), 0)
    }),
    ("the GHCB register is the guest's own", || {
        let before = rdmsr(GHCB);
        insn::wrmsr(GHCB, 0x1234_5000);
        let after = rdmsr(GHCB);
        insn::wrmsr(GHCB, before);
        check("the register", after, 0x1234_5000)
    }),
];

/// A leaf of the CPUID page.
fn cpuid_page(leaf: u32) -> Option<[u32; 4]> {
    let count: u32 = read(CPUID);
    (0..u64::from(count.min(64)))
        .map(|entry| CPUID + 16 + 48 * entry)
        .find(|at| read::<u32>(*at) == leaf)
        .map(|at| read(at + 24))
}

/// Makes a page of 4 KiB the guest's, validated.
fn own(at: u64) -> Result {
    let code = pvalidate(at, 0, 1);
    check("PVALIDATE", code & 0xffff_ffff, 0)
}

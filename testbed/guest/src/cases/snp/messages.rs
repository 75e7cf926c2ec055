//! What the host answers (56421).

use super::{Clause, FREE, Result, check, exits};
use crate::bare::ghcb::{
    self, BUFFER, GHCB, RAX, RBX, RCX, RDX, SCRATCH, event, page, pvalidate, request,
};
use crate::bare::insn;
use crate::bare::{read, write};
use crate::layout::SHARED;

/// A page whose state the lists below change.
const fn listed(n: u64) -> u64 {
    FREE + (20 << 20) + n * 0x1000
}

const fn large(n: u64) -> u64 {
    FREE + (24 << 20) + (n << 21)
}

/// An answer must say that the request was malformed in this way.
fn malformed(answer: ghcb::Answer, code: u64) -> Result {
    check("SW_EXITINFO1", answer.info1, 2)?;
    check("SW_EXITINFO2", answer.info2, code)
}

fn done(answer: ghcb::Answer) -> Result {
    check("SW_EXITINFO1", answer.info1, 0)
}

/// Puts a list of page-state changes into the buffer and sends it.
pub(super) fn list(current: u64, entries: &[u64]) -> ghcb::Answer {
    let end = entries.len() as u64 - 1;
    ghcb::set(BUFFER, current | end << 16);
    for (index, entry) in (1..).zip(entries) {
        ghcb::set(BUFFER + 8 * index, *entry);
    }
    event(0x8000_0010, 0, 0, &[(SCRATCH, page() + BUFFER)])
}

const fn entry(gpa: u64, operation: u64) -> u64 {
    gpa | operation << 52
}

/// The protocol of the register.
pub(super) const REGISTER: &[Clause] = &[
    (
        "the host speaks versions 1 and 2 and knows the C-bit",
        || check("answer", request(0x002), 0x0002_0001_3300_0001),
    ),
    ("CPUID is there before there is a page", || {
        let answer = request(0x8000_001f << 32 | 1 << 30 | 4);
        check("code", answer & 0xfff, 5)?;
        check("register", answer >> 30 & 3, 1)?;
        check("the C-bit", answer >> 32 & 0x3f, 51)
    }),
    ("the host has no wish where the page is", || {
        check("answer", request(0x010), !0xfff | 0x11)
    }),
    ("a page is registered by its own address", || {
        check("answer", request(0x12 | page()), 0x13 | page())
    }),
    ("what is no memory is not registered", || {
        let answer = request(0x12 | 0xfec0_0000);
        ghcb::register();
        check("answer", answer, !0xfff | 0x13)
    }),
    ("the host says what it can do", || {
        let answer = request(0x080);
        check("code", answer & 0xfff, 0x81)?;
        check("SNP, creation, levels", answer >> 12 & 0x23, 0x23)
    }),
    ("unknown requests leave the register as it is", || {
        check("answer", request(0xabc), 0xabc)
    }),
    ("there is no level without a save area", || {
        check("answer", request(3 << 32 | 0x16), 1 << 32 | 0x17)
    }),
    ("a page can be given up", || {
        let answer = request(0x018);
        let unregistered = event(0x8000_fffd, 0, 0, &[]);
        ghcb::register();
        check("answer", answer, 0x19)?;
        malformed(unregistered, 1)
    }),
    ("start-up messages start nobody", || {
        check("answer", request(0x006), 0x007)
    }),
];

/// The protocol of the page.
pub(super) const PAGE: &[Clause] = &[
    ("CPUID in the page is that of the register", || {
        let answer = event(0x72, 0, 0, &[(RAX, 0x8000_001f), (RCX, 0)]);
        done(answer)?;
        check("the C-bit", answer.rbx.unwrap_or_default() & 0x3f, 51)
    }),
    ("CPUID without a subleaf is malformed", || {
        malformed(event(0x72, 0, 0, &[(RAX, 0)]), 4)
    }),
    ("CPUID of leaf 13 needs XCR0", || {
        malformed(event(0x72, 0, 0, &[(RAX, 13), (RCX, 0)]), 4)
    }),
    ("there is no such event", || {
        malformed(event(0x1234, 0, 0, &[]), 6)
    }),
    ("pages for other uses are malformed", || {
        ghcb::set(0xff8, 2 << 16 | 7 << 32);
        // The field is beside the version, which the request sets alone.
        write(SHARED + page() + 0xffc, 7_u32);
        insn::wrmsr(GHCB, page());
        ghcb::vmgexit();
        let answer = (ghcb::field(0x398), ghcb::field(0x3a0));
        ghcb::set(0xff8, 2 << 16);
        check("SW_EXITINFO1", answer.0, 2)?;
        check("SW_EXITINFO2", answer.1, 2)
    }),
    ("MSRs of the APIC are the host's", || {
        let answer = event(0x7c, 0, 0, &[(RCX, 0x802)]);
        done(answer)?;
        check("the id", answer.rax.unwrap_or(1), 0)
    }),
    ("MSRs that nobody has are a protection fault", || {
        let answer = event(0x7c, 0, 0, &[(RCX, 0x1234_5678)]);
        check("SW_EXITINFO1", answer.info1, 1)?;
        check("SW_EXITINFO2", answer.info2, 0x8000_0b0d)
    }),
    ("a write of an MSR needs its value", || {
        malformed(event(0x7c, 1, 0, &[(RCX, 0x808), (RAX, 0)]), 4)
    }),
    ("the APIC's registers keep what is written", || {
        done(event(0x7c, 1, 0, &[(RCX, 0x808), (RAX, 0x20), (RDX, 0)]))?;
        let answer = event(0x7c, 0, 0, &[(RCX, 0x808)]);
        done(event(0x7c, 1, 0, &[(RCX, 0x808), (RAX, 0), (RDX, 0)]))?;
        check("task priority", answer.rax.unwrap_or_default(), 0x20)
    }),
    ("ports are read in their size", || {
        let answer = event(0x7b, 0x3fd << 16 | 1 << 4 | 1, 0, &[]);
        done(answer)?;
        check("more than a byte", answer.rax.unwrap_or(u64::MAX) >> 8, 0)
    }),
    ("a port of three bytes is malformed", || {
        malformed(event(0x7b, 0x3fd << 16 | 3 << 4 | 1, 0, &[]), 5)
    }),
    ("strings go through the page's own buffer", || {
        let string = 0x3f8 << 16 | 1 << 4 | 1 << 2;
        malformed(event(0x7b, string, 1, &[(SCRATCH, FREE)]), 3)?;
        malformed(event(0x7b, string, 2033, &[(SCRATCH, page() + BUFFER)]), 3)
    }),
    ("L0's own ports are an empty bus", || {
        let answer = event(0x7b, 0xf4 << 16 | 1 << 4 | 1, 0, &[]);
        check("the port", answer.rax.unwrap_or_default(), 0xff)
    }),
    ("device memory is read through the buffer", || {
        // The I/O APIC's version register.
        ghcb::set(BUFFER, 1);
        let scratch = (SCRATCH, page() + BUFFER);
        done(event(0x8000_0002, 0xfec0_0000, 4, &[scratch]))?;
        done(event(0x8000_0001, 0xfec0_0010, 4, &[scratch]))?;
        check("the version", ghcb::field(BUFFER) & 0xff, 0x20)
    }),
    ("device memory has sizes", || {
        let scratch = (SCRATCH, page() + BUFFER);
        malformed(event(0x8000_0001, 0xfec0_0000, 3, &[scratch]), 5)
    }),
    ("device memory is no way to the guest's own", || {
        let scratch = (SCRATCH, page() + BUFFER);
        ghcb::set(BUFFER, 0);
        done(event(0x8000_0001, 0x20_0000, 8, &[scratch]))?;
        check("what is there", ghcb::field(BUFFER), u64::MAX)
    }),
    ("the APIC's window is the APIC", || {
        let scratch = (SCRATCH, page() + BUFFER);
        done(event(0x8000_0001, 0xfee0_0030, 4, &[scratch]))?;
        check("the version", ghcb::field(BUFFER) & 0xf0, 0x10)
    }),
    ("a list changes many pages at once", || {
        let entries = [entry(listed(0), 2), entry(listed(1), 2)];
        let answer = list(0, &entries);
        done(answer)?;
        check("SW_EXITINFO2", answer.info2, 0)?;
        check("progress", ghcb::field(BUFFER), 2 | 1 << 16)?;
        for page in [listed(0), listed(1)] {
            write(SHARED + page, 1_u8);
        }
        Ok(())
    }),
    ("a list goes on where it stopped", || {
        let answer = list(1, &[entry(listed(2), 2), entry(listed(3), 2)]);
        check("SW_EXITINFO2", answer.info2, 0)?;
        write(SHARED + listed(3), 1_u8);
        // The first was not touched: it is private and not valid.
        exits("a read", insn::try_read(listed(2)), 0x404)
    }),
    ("finished entries say so", || {
        done(list(0, &[entry(listed(4), 2)]))?;
        check("the entry", ghcb::field(BUFFER + 8) & 0xfff, 1)
    }),
    ("a list of more than 253 is none", || {
        ghcb::set(BUFFER, 253 << 16);
        let answer = event(0x8000_0010, 0, 0, &[(SCRATCH, page() + BUFFER)]);
        check("SW_EXITINFO2", answer.info2, 1 << 32 | 1)
    }),
    ("an entry without a known change is none", || {
        let answer = list(0, &[entry(listed(5), 2), entry(listed(6), 9)]);
        check("SW_EXITINFO2", answer.info2, 1 << 32 | 2)?;
        // What came before it is done.
        check("progress", ghcb::field(BUFFER) & 0xffff, 1)?;
        write(SHARED + listed(5), 1_u8);
        Ok(())
    }),
    ("a large entry that is not aligned is none", || {
        let answer = list(0, &[entry(listed(7), 2) | 1 << 56]);
        check("SW_EXITINFO2", answer.info2, 1 << 32 | 2)
    }),
    ("large pages go and come back whole", || {
        check("away", list(0, &[entry(large(0), 2) | 1 << 56]).info2, 0)?;
        write(SHARED + large(0) + 0x1f_f000, 1_u8);
        check("back", list(0, &[entry(large(0), 1) | 1 << 56]).info2, 0)?;
        check("PVALIDATE", pvalidate(large(0), 1, 1), 0)
    }),
    ("a half finished large page is finished", || {
        let half = entry(large(1), 2) | 1 << 56 | 256;
        check("the rest", list(0, &[half]).info2, 0)?;
        write(SHARED + large(1) + 0x1f_f000, 1_u8);
        exits("the first half", insn::try_read(large(1)), 0x404)
    }),
    ("the host splits a page when asked", || {
        check("split", list(0, &[entry(large(2), 3) | 1 << 56]).info2, 0)?;
        check("PVALIDATE", pvalidate(large(2), 1, 1), 6)
    }),
    ("splitting a small page is no change", || {
        let answer = list(0, &[entry(listed(8), 3)]);
        check("SW_EXITINFO2", answer.info2, 1 << 32 | 2)
    }),
    ("what is not memory cannot be changed", || {
        let answer = list(0, &[entry(0xfec0_0000, 2)]);
        check("SW_EXITINFO2", answer.info2, 0x100 << 32)
    }),
    ("the host says in the page what it can do", || {
        let answer = event(0x8000_fffd, 0, 0, &[]);
        check("the same", answer.info2, request(0x080) >> 12)
    }),
    ("the list of APIC ids says how long it is", || {
        let answer = event(0x8000_0017, 0, 0, &[(RAX, 0)]);
        done(answer)?;
        check("pages", answer.rax.unwrap_or_default(), 1)
    }),
    ("the list of APIC ids is there for who has room", || {
        check("change", ghcb::change(listed(9), ghcb::SHARE), 0)?;
        let answer = event(0x8000_0017, listed(9), 0, &[(RAX, 1)]);
        done(answer)?;
        let count: u32 = read(SHARED + listed(9));
        check("CPUs", u64::from(count > 0 && count <= 64), 1)
    }),
    ("there is no list in the guest's own memory", || {
        malformed(event(0x8000_0017, 0x20_0000, 0, &[(RAX, 1)]), 5)
    }),
    ("a request and its response are two pages", || {
        malformed(event(0x8000_0011, listed(10), listed(10), &[]), 5)?;
        malformed(event(0x8000_0011, listed(10) + 8, listed(11), &[]), 5)
    }),
    ("a request in the guest's own memory is refused", || {
        check("change", ghcb::change(listed(13), ghcb::SHARE), 0)?;
        malformed(event(0x8000_0011, 0x20_0000, listed(13), &[]), 5)?;
        malformed(event(0x8000_0011, listed(13), 0x20_0000, &[]), 5)
    }),
    ("an extended request names its data", || {
        malformed(event(0x8000_0012, listed(10), listed(11), &[]), 4)?;
        malformed(
            event(0x8000_0012, listed(10), listed(11), &[(RAX, 8), (RBX, 1)]),
            5,
        )
    }),
    ("a doorbell needs restricted injection", || {
        check("none", event(0x8000_0014, 0, 0, &[]).info2, u64::MAX)?;
        malformed(event(0x8000_0014, 1, listed(12), &[]), 5)
    }),
    (
        "cache instructions and DR7 need nothing of the host",
        || {
            for code in [0x76, 0x89, 0x8a, 0x8b, 0x27] {
                done(event(code, 0, 0, &[]))?;
            }
            done(event(0x37, 0, 0, &[(RAX, 0x400)]))
        },
    ),
    ("a hypercall needs RAX and the ring", || {
        malformed(event(0x81, 0, 0, &[(RAX, 1)]), 4)
    }),
    ("there are no hypercalls", || {
        // CPL is a byte within the field at 0xC8.
        let answer = event(0x81, 0, 0, &[(RAX, 1), (0xc8, 0)]);
        done(answer)?;
        check(
            "RAX",
            answer.rax.unwrap_or_default(),
            0u64.wrapping_sub(1000),
        )
    }),
    ("a level that cannot be is malformed", || {
        malformed(event(0x8000_0018, 7, 0, &[]), 5)
    }),
    ("a level without a save area is malformed", || {
        malformed(event(0x8000_0018, 3, 0, &[]), 5)
    }),
    ("the level that runs may ask for itself", || {
        done(event(0x8000_0018, 0, 0, &[]))
    }),
];

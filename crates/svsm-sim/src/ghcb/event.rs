//! What a guest asks for in its page: an event with all that belongs to it, or the reason why it is none (56421,
//! "Guest exits").

use super::msr::Termination;
use super::page::{Snapshot, field};

/// Why a request is none: the code in `SW_EXITINFO2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Malformed {
    /// The page was not registered.
    NotRegistered = 1,
    /// The page is used for something else.
    Usage = 2,
    /// The scratch area is not in the page's buffer.
    Scratch = 3,
    /// A field that the event needs is not valid.
    MissingInput = 4,
    /// A field has a value that the event does not allow.
    InvalidInput = 5,
    /// There is no such event.
    Event = 6,
}

/// An access to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The port.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// IN instead of OUT.
    pub input: bool,
    /// For INS and OUTS: how often, and where in the page the data is.
    pub string: Option<(u64, u64)>,
    /// What OUT writes.
    pub value: u32,
}

/// A virtual CPU that the host shall run, or run no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApCreation {
    /// To be run after the next INIT, from this save area.
    OnInit(u64),
    /// To be run now, from this save area.
    Now(u64),
    /// No more.
    Destroy,
}

/// What a guest wants of its #HV doorbell page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// Where the host would like it.
    Preferred,
    /// This is the page.
    Set(u64),
    /// Which is the page?
    Query,
    /// None any more.
    Clear,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// DR7 is read; the guest has its own copy.
    ReadDr7,
    /// DR7 is written.
    WriteDr7(u64),
    /// RDTSC
    Rdtsc,
    /// RDPMC of this counter.
    Rdpmc(u32),
    /// CPUID
    Cpuid {
        /// EAX
        leaf: u32,
        /// ECX
        subleaf: u32,
        /// XCR0, for leaf 0xD.
        xcr0: Option<u64>,
        /// `IA32_XSS`, for leaf 0xD, subleaf 1.
        xss: Option<u64>,
    },
    /// INVD
    Invd,
    /// IN, OUT, INS or OUTS.
    Io(IoAccess),
    /// RDMSR
    ReadMsr(u32),
    /// WRMSR
    WriteMsr(u32, u64),
    /// VMMCALL, with RAX and CPL.
    Vmmcall(u64, u8),
    /// RDTSCP
    Rdtscp,
    /// WBINVD
    Wbinvd,
    /// MONITOR
    Monitor,
    /// MWAIT
    Mwait,
    /// Reads device memory.
    ReadMmio {
        /// The guest physical address.
        gpa: u64,
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
        /// Where in the page the data goes.
        buffer: u64,
    },
    /// Writes device memory.
    WriteMmio {
        /// The guest physical address.
        gpa: u64,
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
        /// The data.
        value: u64,
    },
    /// An NMI's handler is done.
    NmiComplete,
    /// Waits for a start-up message.
    ApResetHold,
    /// The jump table for the other CPUs: its address, or `None` to ask for it.
    ApJumpTable(Option<u64>),
    /// A list of page-state changes; where in the page it is.
    PageState {
        /// The offset of the list.
        buffer: u64,
    },
    /// A message to the security processor.
    GuestRequest {
        /// The page with the request.
        request: u64,
        /// The page for the response.
        response: u64,
        /// For the extended request: the pages for certificates, and how many they are.
        data: Option<(u64, u64)>,
    },
    /// A virtual CPU of another CPU.
    ApCreation {
        /// What to do.
        what: ApCreation,
        /// At which level.
        vmpl: u8,
        /// On which CPU.
        apic_id: u32,
        /// The features that its save area must have.
        features: u64,
    },
    /// The doorbell page.
    Doorbell(Doorbell),
    /// An interrupt command, in x2APIC form.
    Ipi(u64),
    /// The list of APIC ids, into this many pages.
    ApicIds {
        /// The first page.
        buffer: u64,
        /// How many pages there are.
        pages: u64,
    },
    /// Run this level.
    RunVmpl(u8),
    /// What the host can do.
    Features,
    /// End the guest.
    Terminate(Termination),
    /// The guest met an exit that it does not know: its code and its information.
    Unsupported(u64, u64),
}

impl Event {
    /// What the page at `gpa` asks for.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn decode(page: &Snapshot, gpa: u64) -> Result<Self, Malformed> {
        use Malformed::{Event as NoEvent, InvalidInput, MissingInput, Usage};
        if page.usage() != 0 {
            return Err(Usage);
        }
        let need = |offset| page.field(offset).ok_or(MissingInput);
        let code = need(field::EXIT_CODE)?;
        let info1 = need(field::EXIT_INFO1)?;
        let info2 = need(field::EXIT_INFO2)?;
        let low = |value: u64| (value & 0xffff_ffff) as u32;
        let page_aligned = |at: u64| {
            if at & 0xfff == 0 {
                Ok(at)
            } else {
                Err(InvalidInput)
            }
        };
        Ok(match code {
            0x27 => Self::ReadDr7,
            0x37 => Self::WriteDr7(need(field::RAX)?),
            0x6e => Self::Rdtsc,
            0x6f => Self::Rdpmc(low(need(field::RCX)?)),
            0x72 => {
                let (leaf, subleaf) = (low(need(field::RAX)?), low(need(field::RCX)?));
                if leaf == 0xd {
                    need(field::XCR0)?;
                }
                Self::Cpuid {
                    leaf,
                    subleaf,
                    xcr0: page.field(field::XCR0),
                    xss: page.field(field::XSS),
                }
            }
            0x76 => Self::Invd,
            0x7b => Self::Io(io(page, gpa, info1, info2)?),
            0x7c => {
                let msr = low(need(field::RCX)?);
                match info1 {
                    0 => Self::ReadMsr(msr),
                    1 => {
                        let (rax, rdx) = (need(field::RAX)?, need(field::RDX)?);
                        Self::WriteMsr(msr, rdx << 32 | rax & 0xffff_ffff)
                    }
                    _ => return Err(InvalidInput),
                }
            }
            0x81 => {
                let [cpl, ..] = (need(field::CPL)? >> 24).to_le_bytes();
                Self::Vmmcall(need(field::RAX)?, cpl)
            }
            0x87 => Self::Rdtscp,
            0x89 => Self::Wbinvd,
            0x8a => Self::Monitor,
            0x8b => Self::Mwait,
            0x8000_0001 | 0x8000_0002 => {
                let size = match info2 {
                    1 | 2 | 4 | 8 => info2,
                    _ => return Err(InvalidInput),
                };
                let buffer = scratch(page, gpa, size)?;
                let bytes = page.buffer(buffer, size).ok_or(Malformed::Scratch)?;
                let mut word = [0; 8];
                for (to, from) in word.iter_mut().zip(bytes) {
                    *to = *from;
                }
                let size = (size & 0xf) as u8;
                if code == 0x8000_0001 {
                    Self::ReadMmio {
                        gpa: info1,
                        size,
                        buffer,
                    }
                } else {
                    Self::WriteMmio {
                        gpa: info1,
                        size,
                        value: u64::from_le_bytes(word),
                    }
                }
            }
            0x8000_0003 => Self::NmiComplete,
            0x8000_0004 => Self::ApResetHold,
            0x8000_0005 => match info1 {
                0 => Self::ApJumpTable(Some(info2)),
                1 => Self::ApJumpTable(None),
                _ => return Err(InvalidInput),
            },
            0x8000_0010 => Self::PageState {
                buffer: scratch(page, gpa, 8)?,
            },
            0x8000_0011 | 0x8000_0012 => {
                let (request, response) = (page_aligned(info1)?, page_aligned(info2)?);
                if request == response {
                    return Err(InvalidInput);
                }
                let data = if code == 0x8000_0012 {
                    let at = page_aligned(need(field::RAX)?)?;
                    Some((at, need(field::RBX)?))
                } else {
                    None
                };
                Self::GuestRequest {
                    request,
                    response,
                    data,
                }
            }
            0x8000_0013 => {
                let what = match info1 & 0xffff {
                    0 => ApCreation::OnInit(page_aligned(info2)?),
                    1 => ApCreation::Now(page_aligned(info2)?),
                    2 => ApCreation::Destroy,
                    _ => return Err(InvalidInput),
                };
                Self::ApCreation {
                    what,
                    vmpl: (info1 >> 16 & 0xf) as u8,
                    apic_id: (info1 >> 32) as u32,
                    features: match what {
                        ApCreation::Destroy => 0,
                        _ => need(field::RAX)?,
                    },
                }
            }
            0x8000_0014 => Self::Doorbell(match info1 {
                0 => Doorbell::Preferred,
                1 => Doorbell::Set(page_aligned(info2)?),
                2 => Doorbell::Query,
                3 => Doorbell::Clear,
                _ => return Err(InvalidInput),
            }),
            0x8000_0015 => Self::Ipi(info1),
            0x8000_0017 => Self::ApicIds {
                buffer: page_aligned(info1)?,
                pages: need(field::RAX)?,
            },
            0x8000_0018 => Self::RunVmpl(match info1 & 0xffff_ffff {
                level @ 0..4 => (level & 3) as u8,
                _ => return Err(InvalidInput),
            }),
            0x8000_fffd => Self::Features,
            0x8000_fffe => Self::Terminate(Termination {
                set: (info1 & 0xf) as u8,
                reason: (info1 >> 4 & 0xff) as u8,
            }),
            0x8000_ffff => Self::Unsupported(info1, info2),
            _ => return Err(NoEvent),
        })
    }
}

/// The offset of the scratch area in the page.
fn scratch(page: &Snapshot, gpa: u64, bytes: u64) -> Result<u64, Malformed> {
    let at = page.field(field::SCRATCH).ok_or(Malformed::MissingInput)?;
    let offset = at.checked_sub(gpa).ok_or(Malformed::Scratch)?;
    page.buffer(offset, bytes)
        .map(|_| offset)
        .ok_or(Malformed::Scratch)
}

fn io(page: &Snapshot, gpa: u64, info1: u64, info2: u64) -> Result<IoAccess, Malformed> {
    let size = match info1 >> 4 & 7 {
        1 => 1,
        2 => 2,
        4 => 4,
        _ => return Err(Malformed::InvalidInput),
    };
    let input = info1 & 1 != 0;
    let string = if info1 & 1 << 2 != 0 {
        let bytes = info2.checked_mul(size).ok_or(Malformed::InvalidInput)?;
        Some((info2, scratch(page, gpa, bytes)?))
    } else {
        None
    };
    let value = if input || string.is_some() {
        0
    } else {
        page.field(field::RAX).ok_or(Malformed::MissingInput)? & (u64::MAX >> (64 - 8 * size))
    };
    Ok(IoAccess {
        port: (info1 >> 16 & 0xffff) as u16,
        size: (size & 7) as u8,
        input,
        string,
        value: (value & 0xffff_ffff) as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::super::page::build;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    const GPA: u64 = 0x7000;

    fn decode(
        code: u64,
        info1: u64,
        info2: u64,
        more: &[(usize, u64)],
    ) -> Result<Event, Malformed> {
        let mut fields = vec![
            (field::EXIT_CODE, code),
            (field::EXIT_INFO1, info1),
            (field::EXIT_INFO2, info2),
        ];
        fields.extend_from_slice(more);
        Event::decode(&Snapshot::new(build::page(&fields)), GPA)
    }

    #[test]
    fn events_need_their_inputs() {
        let rax = (field::RAX, 0x1234_5678_9abc_def0);
        let rcx = (field::RCX, 5);
        assert_eq!(decode(0x72, 0, 0, &[rax]), Err(Malformed::MissingInput));
        assert!(matches!(
            decode(0x72, 0, 0, &[rax, rcx]),
            Ok(Event::Cpuid {
                leaf: 0x9abc_def0,
                subleaf: 5,
                xcr0: None,
                ..
            })
        ));
        assert_eq!(
            decode(0x7c, 1, 0, &[rcx, rax]),
            Err(Malformed::MissingInput)
        );
        let rdx = (field::RDX, 1);
        assert_eq!(
            decode(0x7c, 1, 0, &[rcx, rax, rdx]),
            Ok(Event::WriteMsr(5, 0x1_9abc_def0))
        );
        assert_eq!(decode(0x7c, 2, 0, &[rcx]), Err(Malformed::InvalidInput));
        assert_eq!(decode(0x99, 0, 0, &[]), Err(Malformed::Event));
        let page = Snapshot::new(build::page(&[(field::EXIT_CODE, 0x72)]));
        assert_eq!(Event::decode(&page, GPA), Err(Malformed::MissingInput));
    }

    #[test]
    fn ports_are_accessed_in_their_size() {
        let rax = (field::RAX, 0xffff_ff41);
        let out = decode(0x7b, 0x3f8 << 16 | 1 << 4, 0, &[rax]).unwrap();
        let Event::Io(io) = out else {
            panic!("{out:?}")
        };
        assert_eq!((io.port, io.size, io.value), (0x3f8, 1, 0x41));
        assert_eq!(
            decode(0x7b, 3 << 4, 0, &[rax]),
            Err(Malformed::InvalidInput)
        );
        let scratch = (field::SCRATCH, GPA + 0x800);
        let string = 0x3f8 << 16 | 1 << 4 | 1 << 2;
        assert!(decode(0x7b, string, 2032, &[scratch]).is_ok());
        assert_eq!(
            decode(0x7b, string, 2033, &[scratch]),
            Err(Malformed::Scratch)
        );
        assert_eq!(decode(0x7b, string, 1, &[]), Err(Malformed::MissingInput));
    }

    #[test]
    fn device_memory_goes_through_the_pages_own_buffer() {
        let inside = (field::SCRATCH, GPA + 0xfe8);
        assert!(decode(0x8000_0001, 0xfec0_0000, 8, &[inside]).is_ok());
        for scratch in [GPA + 0xfe9, GPA, 0, u64::MAX] {
            assert_eq!(
                decode(0x8000_0001, 0xfec0_0000, 8, &[(field::SCRATCH, scratch)]),
                Err(Malformed::Scratch)
            );
        }
        assert_eq!(
            decode(0x8000_0002, 0, 3, &[inside]),
            Err(Malformed::InvalidInput)
        );
    }

    #[test]
    fn a_request_and_its_response_are_two_pages() {
        assert_eq!(
            decode(0x8000_0011, 0x5000, 0x5000, &[]),
            Err(Malformed::InvalidInput)
        );
        assert_eq!(
            decode(0x8000_0011, 0x5008, 0x6000, &[]),
            Err(Malformed::InvalidInput)
        );
        assert!(decode(0x8000_0011, 0x5000, 0x6000, &[]).is_ok());
        assert_eq!(
            decode(0x8000_0012, 0x5000, 0x6000, &[]),
            Err(Malformed::MissingInput)
        );
    }

    #[test]
    fn virtual_cpus_are_created_for_a_level() {
        let info1 = 7 << 32 | 2 << 16 | 1;
        let made = decode(0x8000_0013, info1, 0x9000, &[(field::RAX, 1)]);
        let expected = Event::ApCreation {
            what: ApCreation::Now(0x9000),
            vmpl: 2,
            apic_id: 7,
            features: 1,
        };
        assert_eq!(made, Ok(expected));
        assert!(decode(0x8000_0013, 2, 0, &[]).is_ok());
    }

    proptest! {
        #[test]
        fn no_page_makes_the_host_leave_its_buffer(
            code in prop_oneof![any::<u64>(), 0x60_u64..0x90, 0x8000_0000_u64..0x8000_0020],
            info1: u64,
            info2 in prop_oneof![any::<u64>(), 0_u64..4096],
            scratch in prop_oneof![any::<u64>(), GPA..GPA + 0x1000],
        ) {
            let event = decode(code, info1, info2, &[(field::SCRATCH, scratch), (field::RAX, 1)]);
            if let Ok(Event::Io(IoAccess { string: Some((count, at)), size, .. })) = event {
                prop_assert!(at >= 0x800 && at + count * u64::from(size) <= 0xff0);
            }
            if let Ok(Event::ReadMmio { size, buffer, .. }) = event {
                prop_assert!(buffer >= 0x800 && buffer + u64::from(size) <= 0xff0);
            }
        }
    }
}

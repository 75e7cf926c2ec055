//! The page through which a guest and its host talk, and the exits made with it (56421, "GHCB Save Area" and "SMP Booting",
//! protocol version 2).
//!
//! The host reads and writes the page at any time, so it is made of atomics and never borrowed as memory. Each exit shows the
//! host the fields that it needs and clears them when it is over; each field of an answer is read once, and only if the host
//! says that it is there.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{
    Error, HvFeatures, Refusal,
    insn::Insn,
    msr::{PATIENCE, VERSION},
};
use crate::{addr::Gpa, level::Vmpl};

mod calls; // ports, registers, devices

const WORDS: usize = 512;
const BUFFER: usize = 0x800 / 8;
/// Size of the buffer that comes with the page.
pub const BUFFER_BYTES: usize = 2032;
const BITMAP: usize = 0x3f0 / 8;
/// Two reserved bytes, the version, and the usage, which is zero.
const TRAILER: usize = 0xff8 / 8;

/// A field that a request or an answer may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Field {
    Rax = 0x1f8,
    Rcx = 0x308,
    Rdx = 0x310,
    Rbx = 0x318,
    ExitCode = 0x390,
    ExitInfo1 = 0x398,
    ExitInfo2 = 0x3a0,
    Scratch = 0x3a8,
    Xcr0 = 0x3e8,
    Xss = 0x140,
}

impl Field {
    /// Its word in the page, which is also its bit in the bitmap.
    const fn index(self) -> usize {
        self as usize / 8
    }
}

mod code {
    pub(super) const RDTSC: u64 = 0x6e;
    pub(super) const CPUID: u64 = 0x72;
    pub(super) const IOIO: u64 = 0x7b;
    pub(super) const MSR: u64 = 0x7c;
    pub(super) const MMIO_READ: u64 = 0x8000_0001;
    pub(super) const MMIO_WRITE: u64 = 0x8000_0002;
    pub(super) const PAGE_STATE: u64 = 0x8000_0010;
    pub(super) const GUEST_REQUEST: u64 = 0x8000_0011;
    pub(super) const EXTENDED_GUEST_REQUEST: u64 = 0x8000_0012;
    pub(super) const AP_CREATION: u64 = 0x8000_0013;
    pub(super) const HV_DOORBELL: u64 = 0x8000_0014;
    pub(super) const HV_IPI: u64 = 0x8000_0015;
    pub(super) const APIC_IDS: u64 = 0x8000_0017;
    pub(super) const RUN_VMPL: u64 = 0x8000_0018;
    pub(super) const FEATURES: u64 = 0x8000_fffd;
}

/// The memory of a GHCB page: one for each CPU, shared with the host.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct GhcbPage([AtomicU64; WORDS]);

const _: () = assert!(size_of::<GhcbPage>() == 4096);

impl GhcbPage {
    /// A cleared page.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn load(&self, index: usize) -> u64 {
        self.0
            .get(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, index: usize, value: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(value, Ordering::Release);
        }
    }
}

impl Default for GhcbPage {
    fn default() -> Self {
        Self::new()
    }
}

/// The error word of a guest request; zero if all is well (56421, "SNP Guest Request").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct GuestRequestStatus {
    /// The security processor's code.
    pub firmware: u32,
    /// The host's code: 1 for a buffer that is too small, 2 for busy.
    pub host: u32,
    /// How many pages the certificates need, where the buffer was too small.
    pub pages: u64,
}

/// What becomes of a save area (56421, "SNP AP Creation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum VcpuOrder {
    /// Use it from the next INIT on, or, where the level does not run, at the next switch to it.
    CreateOnInit(Gpa),
    /// Run it now.
    Create(Gpa),
    /// Stop to use the one of that level.
    Destroy,
}

/// A GHCB page in use by one CPU at one level.
#[derive(Debug)]
pub struct Ghcb<'p, I> {
    page: &'p GhcbPage,
    at: Gpa,
    insn: I,
}

impl<I: Copy> Clone for Ghcb<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: Copy> Copy for Ghcb<'_, I> {}

impl<'p, I: Insn> Ghcb<'p, I> {
    /// Talks through `page`, which is at `at`.
    ///
    /// # Safety
    /// - The page is mapped as shared at its address, the host has it as a shared page at `at`, and it is registered for this CPU
    ///   and level ([`MsrProtocol::register_ghcb`](super::MsrProtocol::register_ghcb)).
    /// - No other CPU talks through it, and no handler that interrupts this value's methods does, unless it never returns.
    #[expect(unsafe_code, reason = "trusts that the page is shared")]
    #[must_use]
    pub const unsafe fn new(page: &'p GhcbPage, at: Gpa, insn: I) -> Self {
        Self { page, at, insn }
    }

    /// The page's address.
    #[must_use]
    pub const fn gpa(&self) -> Gpa {
        self.at
    }

    /// Makes an exit and answers with the fields that the host returned.
    ///
    /// # Safety
    /// As [`Insn::vmgexit`].
    #[expect(unsafe_code, reason = "asks the host")]
    unsafe fn exit(
        &self,
        code: u64,
        info1: u64,
        info2: u64,
        fields: &[(Field, u64)],
    ) -> Result<Answer<'p>, Error> {
        let page = self.page;
        let always = [
            (Field::ExitCode, code),
            (Field::ExitInfo1, info1),
            (Field::ExitInfo2, info2),
        ];
        let mut bitmap = 0_u128;
        for &(field, value) in always.iter().chain(fields) {
            bitmap |= 1 << field.index();
            page.store(field.index(), value);
        }
        let [low, high] = halves(bitmap);
        page.store(BITMAP, low);
        page.store(BITMAP + 1, high);
        page.store(TRAILER, u64::from(VERSION) << 16);
        let mut answered = Err(Error::NoAnswer { request: code });
        for _ in 0..PATIENCE {
            // SAFETY: the page is shared by who made this value, and the caller vouches for what is asked.
            let _ = unsafe { self.insn.vmgexit(self.at.as_u64()) };
            let found = [page.load(BITMAP), page.load(BITMAP + 1)];
            // The code is never part of an answer: while it is marked, the host has not looked.
            if found != [low, high] {
                answered = Ok(u128::from(found[0]) | u128::from(found[1]) << 64);
                break;
            }
        }
        let result = answered.and_then(|valid| Self::judge(page, code, valid));
        // What was shown is taken back. Fields of the answer stay until they are read.
        let answer_fields = [Field::Rax, Field::Rbx, Field::Rcx, Field::Rdx];
        for (field, _) in always.iter().chain(fields) {
            let read_later = answer_fields.contains(field) || matches!(field, Field::ExitInfo2);
            if result.is_err() || !read_later {
                page.store(field.index(), 0);
            }
        }
        result
    }

    fn judge(page: &'p GhcbPage, request: u64, valid: u128) -> Result<Answer<'p>, Error> {
        let answer = Answer {
            page,
            valid,
            request,
        };
        let info1 = page.load(Field::ExitInfo1.index());
        let refused = |refusal| Err(Error::Refused { request, refusal });
        match info1 & 0xffff_ffff {
            0 => Ok(answer),
            1 => {
                let event = page.load(Field::ExitInfo2.index());
                // Valid, an exception, and one of the two that make sense.
                match (event & 0x8000_0700, event & 0xff) {
                    (0x8000_0300, vector @ (6 | 13)) => {
                        refused(Refusal::Exception(if vector == 6 { 6 } else { 13 }))
                    }
                    _ => Err(Error::Answer { request }),
                }
            }
            2 => {
                let [b0, b1, b2, b3, ..] = page.load(Field::ExitInfo2.index()).to_le_bytes();
                refused(Refusal::Malformed(u32::from_le_bytes([b0, b1, b2, b3])))
            }
            _ => Err(Error::Answer { request }),
        }
    }

    /// Makes an exit that asks for no more than a device's or register's state.
    fn ask(
        &self,
        code: u64,
        info1: u64,
        info2: u64,
        fields: &[(Field, u64)],
    ) -> Result<Answer<'p>, Error> {
        // SAFETY: no memory changes hands by the events that use this.
        #[expect(unsafe_code, reason = "asks the host")]
        unsafe {
            self.exit(code, info1, info2, fields)
        }
    }

    /// The page's buffer, in the host's eyes.
    const fn scratch(&self) -> (Field, u64) {
        (Field::Scratch, self.at.as_u64() + 0x800)
    }

    /// Asks what the host can do.
    ///
    /// # Errors
    /// It does not say.
    pub fn features(&self) -> Result<HvFeatures, Error> {
        let answer = self.ask(code::FEATURES, 0, 0, &[])?;
        Ok(HvFeatures::from_bits_retain(answer.info2()))
    }

    /// Asks for the time-stamp counter, where the instruction is intercepted; the answer is the host's word.
    ///
    /// # Errors
    /// It does not say.
    pub fn rdtsc(&self) -> Result<u64, Error> {
        let answer = self.ask(code::RDTSC, 0, 0, &[])?;
        let (low, high) = (answer.get(Field::Rax)?, answer.get(Field::Rdx)?);
        Ok(high << 32 | low & 0xffff_ffff)
    }

    fn fill_buffer(&self, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).take(BUFFER_BYTES / 8).enumerate() {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.page.store(BUFFER + index, u64::from_le_bytes(word));
        }
    }

    /// Reads each byte of the buffer's beginning once.
    fn empty_buffer(&self, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_mut(8).take(BUFFER_BYTES / 8).enumerate() {
            let word = self.page.load(BUFFER + index).to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(word) {
                *to = from;
            }
        }
    }

    fn clear_buffer(&self, len: usize) {
        for index in 0..len.div_ceil(8).min(BUFFER_BYTES / 8) {
            self.page.store(BUFFER + index, 0);
        }
    }

    /// Has the host work on a list of page-state changes, whose entries are `words`; calls `seen` with the header and each entry
    /// after that, in order, as the host left them.
    ///
    /// # Errors
    /// The host refuses the list. How far it came is in what `seen` saw.
    ///
    /// # Safety
    /// Rust code relies on nothing in the pages of the list.
    #[expect(unsafe_code, reason = "takes pages away")]
    pub(super) unsafe fn change_pages(
        &self,
        header: u64,
        words: &[u64],
        mut seen: impl FnMut(usize, u64),
    ) -> Result<(), Error> {
        self.page.store(BUFFER, header);
        for (index, word) in words.iter().enumerate() {
            self.page.store(BUFFER + 1 + index, *word);
        }
        // SAFETY: the caller vouches for the pages.
        let answer = unsafe { self.exit(code::PAGE_STATE, 0, 0, &[self.scratch()]) };
        for index in 0..=words.len() {
            seen(index, self.page.load(BUFFER + index));
        }
        self.clear_buffer((words.len() + 1) * 8);
        match answer?.info2() {
            0 => Ok(()),
            code => Err(Error::Refused {
                request: code::PAGE_STATE,
                refusal: Refusal::Code(code),
            }),
        }
    }

    /// Has the security processor answer the message in the page at `request` with one in the page at `response`.
    ///
    /// # Errors
    /// The host did not pass it on.
    ///
    /// # Safety
    /// Both pages are shared, and so are the `pages` pages from `certificates` on.
    #[expect(unsafe_code, reason = "the host writes the pages")]
    pub unsafe fn guest_request(
        &self,
        request: Gpa,
        response: Gpa,
        certificates: Option<(Gpa, u64)>,
    ) -> Result<GuestRequestStatus, Error> {
        let (event, extra) = match certificates {
            None => (code::GUEST_REQUEST, [(Field::Rax, 0), (Field::Rbx, 0)]),
            Some((at, pages)) => (
                code::EXTENDED_GUEST_REQUEST,
                [(Field::Rax, at.as_u64()), (Field::Rbx, pages)],
            ),
        };
        let fields = if certificates.is_some() {
            extra.as_slice()
        } else {
            &[]
        };
        // SAFETY: the caller vouches for the pages.
        let answer = unsafe { self.exit(event, request.as_u64(), response.as_u64(), fields) }?;
        let [f0, f1, f2, f3, h0, h1, h2, h3] = answer.info2().to_le_bytes();
        let host = u32::from_le_bytes([h0, h1, h2, h3]);
        let pages = if host == 1 && certificates.is_some() {
            answer.get(Field::Rbx)?
        } else {
            0
        };
        Ok(GuestRequestStatus {
            firmware: u32::from_le_bytes([f0, f1, f2, f3]),
            host,
            pages,
        })
    }

    /// Has the host create or destroy the virtual CPU of a level, on the processor with that APIC id.
    ///
    /// # Errors
    /// The host refuses.
    ///
    /// # Safety
    /// The save area holds a state from which the level may run: code of a lower level touches only what it was given, and code
    /// of this level finds its stack and page tables.
    #[expect(unsafe_code, reason = "starts code")]
    pub unsafe fn create_vcpu(
        &self,
        apic_id: u32,
        level: Vmpl,
        features: u64,
        order: VcpuOrder,
    ) -> Result<(), Error> {
        let (kind, area) = match order {
            VcpuOrder::CreateOnInit(area) => (0, area),
            VcpuOrder::Create(area) => (1, area),
            VcpuOrder::Destroy => (2, Gpa::ZERO),
        };
        let info1 = u64::from(apic_id) << 32 | u64::from(level.as_u8()) << 16 | kind;
        let fields = [(Field::Rax, features)];
        // SAFETY: the caller vouches for the save area.
        unsafe { self.exit(code::AP_CREATION, info1, area.as_u64(), &fields) }.map(drop)
    }

    /// Runs a lower level on this CPU, until it or the host wants this one again.
    ///
    /// # Errors
    /// There is no such level.
    pub fn run_vmpl(&self, level: Vmpl) -> Result<(), Error> {
        self.ask(code::RUN_VMPL, level.as_u8().into(), 0, &[])
            .map(drop)
    }

    /// Gives the host the page in which it announces events to a CPU with restricted injection.
    ///
    /// # Errors
    /// The host refuses, or takes another page.
    ///
    /// # Safety
    /// The page is shared.
    #[expect(unsafe_code, reason = "the host writes the page")]
    pub unsafe fn set_doorbell(&self, page: Gpa) -> Result<(), Error> {
        // SAFETY: the caller vouches for the page.
        let answer = unsafe { self.exit(code::HV_DOORBELL, 1, page.as_u64(), &[]) }?;
        if answer.info2() == page.as_u64() {
            Ok(())
        } else {
            Err(Error::Answer {
                request: code::HV_DOORBELL,
            })
        }
    }

    /// Sends an interrupt to CPUs at this level; `icr` as the x2APIC's register has it.
    ///
    /// # Errors
    /// The host refuses.
    pub fn send_ipi(&self, icr: u64) -> Result<(), Error> {
        self.ask(code::HV_IPI, icr, 0, &[]).map(drop)
    }

    /// Has the host write the list of APIC ids into `pages` pages from `at` on: a count and the ids, 32 bits each. Answers how
    /// many pages it needs; if those are more, nothing is written.
    ///
    /// # Errors
    /// The host refuses.
    ///
    /// # Safety
    /// The pages are shared.
    #[expect(unsafe_code, reason = "the host writes the pages")]
    pub unsafe fn apic_ids(&self, at: Gpa, pages: u64) -> Result<u64, Error> {
        let fields = [(Field::Rax, pages)];
        // SAFETY: the caller vouches for the pages.
        unsafe { self.exit(code::APIC_IDS, at.as_u64(), 0, &fields) }?.get(Field::Rax)
    }
}

/// An answer, whose fields are read once.
struct Answer<'p> {
    page: &'p GhcbPage,
    valid: u128,
    request: u64,
}

impl Answer<'_> {
    /// A field that the host says is there.
    fn get(&self, field: Field) -> Result<u64, Error> {
        if self.valid >> field.index() & 1 == 0 {
            return Err(Error::Answer {
                request: self.request,
            });
        }
        Ok(self.page.load(field.index()))
    }

    /// The second word of exit information, which every answer has.
    fn info2(&self) -> u64 {
        self.page.load(Field::ExitInfo2.index())
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        for field in [
            Field::Rax,
            Field::Rbx,
            Field::Rcx,
            Field::Rdx,
            Field::ExitInfo2,
        ] {
            self.page.store(field.index(), 0);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
const fn halves(bitmap: u128) -> [u64; 2] {
    [bitmap as u64, (bitmap >> 64) as u64]
}

//! Messages through a GHCB: what the host is shown, and what of its pages is copied.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unsafe_code,
    reason = "what fails here is the test; a host in it that reads and writes shared pages"
)]

#[path = "support/exits.rs"]
mod exits;

use core::cell::RefCell;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use exits::{Exits, OnlyExits};
use svsm_platform::{
    addr::Gpa,
    snp::{
        Error, Ghcb, GhcbMessenger, GhcbPage, SharedPage, ghcb::GuestRequestStatus,
        message::GuestRequest,
    },
};

const GHCB: u64 = 0x1000;
const REQUEST: u64 = 0x2000;
const RESPONSE: u64 = 0x3000;
const CERTIFICATES: u64 = 0x8000;

/// All pages of the guest that its host sees.
#[derive(Default)]
struct Memory {
    ghcb: GhcbPage,
    request: SharedPage,
    response: SharedPage,
    certificates: [SharedPage; 2],
}

/// What the host was asked: exit code, both infos, RAX and RBX, and the page of the request.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    fields: [u64; 5],
    request: Vec<u8>,
}

/// A host that notes what it is asked, fills all pages, and answers with INFO2 and RBX.
struct Host<'m> {
    memory: &'m Memory,
    info2: u64,
    rbx: u64,
    seen: RefCell<Vec<Seen>>,
}

/// The words of a page, which both sides use as atomics.
fn words<P>(page: &P) -> &[AtomicU64; 512] {
    assert_eq!(size_of::<P>(), 4096);
    // SAFETY: both kinds of page are 512 atomics, and live as long as the reference.
    unsafe { &*ptr::from_ref(page).cast() }
}

fn bytes(page: &[AtomicU64; 512]) -> Vec<u8> {
    let words = page.iter().map(|word| word.load(Ordering::SeqCst));
    words.flat_map(u64::to_le_bytes).collect()
}

fn fill(page: &[AtomicU64; 512], byte: u8) {
    for word in page {
        word.store(u64::from_le_bytes([byte; 8]), Ordering::SeqCst);
    }
}

impl Exits for Host<'_> {
    fn exit(&self, request: u64) -> u64 {
        assert_eq!(request, GHCB);
        let ghcb = words(&self.memory.ghcb);
        let field = |offset: usize| ghcb[offset / 8].load(Ordering::SeqCst);
        let response = words(&self.memory.response);
        assert_eq!(bytes(response), [0; 4096], "an old answer is still there");
        self.seen.borrow_mut().push(Seen {
            fields: [0x390, 0x398, 0x3a0, 0x1f8, 0x318].map(field),
            request: bytes(words(&self.memory.request)),
        });
        fill(response, 0xaa);
        for page in &self.memory.certificates {
            fill(words(page), 0xcc);
        }
        ghcb[0x398 / 8].store(0, Ordering::SeqCst);
        ghcb[0x3a0 / 8].store(self.info2, Ordering::SeqCst);
        ghcb[0x318 / 8].store(self.rbx, Ordering::SeqCst);
        // INFO1, INFO2 and RBX are valid; the code is not any more.
        ghcb[0x3f0 / 8].store(0, Ordering::SeqCst);
        ghcb[0x3f8 / 8].store(0, Ordering::SeqCst);
        for offset in [0x398, 0x3a0, 0x318] {
            let bit = offset / 8;
            ghcb[0x3f0 / 8 + bit / 64].fetch_or(1 << (bit % 64), Ordering::SeqCst);
        }
        request
    }
}

fn pass(
    memory: &Memory,
    answer: (u64, u64),
    certificates: Option<&mut [u8]>,
) -> (Result<GuestRequestStatus, Error>, Vec<u8>, Vec<Seen>) {
    let host = Host {
        memory,
        info2: answer.0,
        rbx: answer.1,
        seen: RefCell::default(),
    };
    let at = |address| Gpa::new(address).unwrap();
    // SAFETY: the pages are shared with the host above and with nobody else.
    let ghcb = unsafe { Ghcb::new(&memory.ghcb, at(GHCB), OnlyExits(&host)) };
    let request = (&memory.request, at(REQUEST));
    // SAFETY: as above.
    let messenger = unsafe { GhcbMessenger::new(ghcb, request, (&memory.response, at(RESPONSE))) };
    // SAFETY: as above.
    let mut messenger =
        unsafe { messenger.with_certificates(&memory.certificates, at(CERTIFICATES)) };
    let mut response = [0; 4096];
    let status = messenger.pass(&[1; 11], &mut response, certificates);
    (status, response.to_vec(), host.seen.take())
}

/// The page of the request as the host must see it.
fn shown() -> Vec<u8> {
    [vec![1; 11], vec![0; 4096 - 11]].concat()
}

#[test]
fn plain_requests_show_two_pages() {
    let memory = Memory::default();
    fill(words(&memory.request), 0xff);
    fill(words(&memory.response), 0xff);
    let (status, response, seen) = pass(&memory, (0, 0), None);
    let expected = GuestRequestStatus {
        firmware: 0,
        host: 0,
        pages: 0,
    };
    assert_eq!(status, Ok(expected));
    assert_eq!(response, [0xaa; 4096]);
    let expected = Seen {
        fields: [0x8000_0011, REQUEST, RESPONSE, 0, 0],
        request: shown(),
    };
    assert_eq!(seen, [expected]);
}

#[test]
fn no_more_certificates_are_copied_than_fit_and_were_offered() {
    for (len, pages, copied) in [
        (0, 0, 0),
        (4095, 0, 0),
        (4096, 1, 4096),
        (8191, 1, 4096),
        (3 * 4096, 2, 2 * 4096),
    ] {
        let memory = Memory::default();
        let mut buffer = vec![0xff; len];
        let (status, _, seen) = pass(&memory, (0, 0), Some(&mut buffer));
        assert!(status.is_ok());
        let fields = [0x8000_0012, REQUEST, RESPONSE, CERTIFICATES, pages];
        assert_eq!(seen[0].fields, fields, "{len}");
        assert!(buffer[..copied].iter().all(|byte| *byte == 0xcc));
        assert!(buffer[copied..].iter().all(|byte| *byte == 0), "{len}");
    }
}

#[test]
fn error_words_are_told_apart() {
    let memory = Memory::default();
    let status = |info2, certificates| pass(&memory, (info2, 5), certificates).0.unwrap();
    let word = |host, firmware, pages| GuestRequestStatus {
        firmware,
        host,
        pages,
    };
    assert_eq!(status(1 << 32, Some(&mut [])), word(1, 0, 5));
    assert_eq!(status(1 << 32, None), word(1, 0, 0));
    assert_eq!(status(2 << 32, None), word(2, 0, 0));
    assert_eq!(status(0x16, None), word(0, 0x16, 0));
    assert_eq!(status(u64::MAX, None), word(u32::MAX, u32::MAX, 0));
}

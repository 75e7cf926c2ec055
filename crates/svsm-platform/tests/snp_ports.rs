//! Ports through a GHCB, many bytes in one exit.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unsafe_code,
    reason = "what fails here is the test; a host in it that reads and writes a shared page"
)]

#[path = "support/exits.rs"]
mod exits;

use core::cell::RefCell;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use exits::{Exits, OnlyExits};
use svsm_platform::{
    addr::Gpa,
    seam::PortCall,
    snp::{Ghcb, GhcbPage, ghcb::BUFFER_BYTES},
};

const GHCB: u64 = 0x1000;
const BUFFER: usize = 0x800;

/// A host with a device of so many bytes, which are 0, 1, 2 and so on, and take what is written.
struct Host<'m> {
    page: &'m GhcbPage,
    /// Both infos of each exit.
    seen: RefCell<Vec<[u64; 2]>>,
    device: RefCell<(u8, Vec<u8>)>,
    is_deaf: bool,
}

impl<'m> Host<'m> {
    fn of(page: &'m GhcbPage) -> Self {
        Self {
            page,
            seen: RefCell::default(),
            device: RefCell::default(),
            is_deaf: false,
        }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert_eq!(size_of::<GhcbPage>(), 4096);
        // SAFETY: the page is 512 atomics, and lives as long as this.
        let words: &[AtomicU64; 512] = unsafe { &*ptr::from_ref(self.page).cast() };
        &words[index]
    }

    fn field(&self, offset: usize) -> u64 {
        self.word(offset / 8).load(Ordering::SeqCst)
    }

    fn byte(&self, index: usize) -> u8 {
        let at = BUFFER + index;
        self.field(at).to_le_bytes()[at % 8]
    }

    fn set_byte(&self, index: usize, byte: u8) {
        let at = BUFFER + index;
        let mut bytes = self.field(at).to_le_bytes();
        bytes[at % 8] = byte;
        self.word(at / 8)
            .store(u64::from_le_bytes(bytes), Ordering::SeqCst);
    }
}

impl Exits for Host<'_> {
    fn exit(&self, request: u64) -> u64 {
        let [code, info1, info2, scratch] = [0x390, 0x398, 0x3a0, 0x3a8].map(|at| self.field(at));
        assert_eq!((code, scratch), (0x7b, GHCB + BUFFER as u64));
        self.seen.borrow_mut().push([info1, info2]);
        let count = usize::try_from(info2).unwrap();
        let (next, written) = &mut *self.device.borrow_mut();
        for index in 0..count {
            if info1 & 1 == 0 {
                written.push(self.byte(index));
            } else {
                self.set_byte(index, *next);
                *next = next.wrapping_add(1);
            }
        }
        self.word(0x398 / 8)
            .store(u64::from(self.is_deaf), Ordering::SeqCst);
        self.word(0x3a0 / 8).store(0, Ordering::SeqCst);
        // Both infos are valid.
        self.word(0x3f0 / 8).store(0, Ordering::SeqCst);
        let infos = 1 << (0x398 / 8 - 64) | 1 << (0x3a0 / 8 - 64);
        self.word(0x3f8 / 8).store(infos, Ordering::SeqCst);
        request
    }
}

fn ghcb<'m>(host: &'m Host<'m>) -> Ghcb<'m, OnlyExits<'m, Host<'m>>> {
    // SAFETY: the page is shared with the host above and with nobody else.
    unsafe { Ghcb::new(host.page, Gpa::new(GHCB).unwrap(), OnlyExits(host)) }
}

fn buffer(host: &Host<'_>) -> Vec<u8> {
    (0..BUFFER_BYTES).map(|index| host.byte(index)).collect()
}

#[test]
fn bytes_come_and_go_a_buffer_at_a_time() {
    let page = GhcbPage::new();
    let host = Host::of(&page);
    let mut bytes = vec![0xee; BUFFER_BYTES + 3];
    ghcb(&host).port_read_bytes(0x511, &mut bytes).unwrap();
    let counted = (0..bytes.len()).map(|n| u8::try_from(n % 256).unwrap());
    assert!(bytes.iter().copied().eq(counted));
    // REP INSB and REP OUTSB with 64-bit addresses: the segment is ES or DS.
    let read = 0x511_u64 << 16 | 0x21d;
    let most = BUFFER_BYTES as u64;
    assert_eq!(host.seen.take(), [[read, most], [read, 3]]);

    ghcb(&host).port_write_bytes(0x402, &bytes).unwrap();
    let write = 0x402_u64 << 16 | 0xe1c;
    assert_eq!(host.seen.take(), [[write, most], [write, 3]]);
    assert_eq!(host.device.borrow().1, bytes);
    // Nothing stays in the host's sight.
    assert_eq!(buffer(&host), vec![0; BUFFER_BYTES]);
}

#[test]
fn what_was_not_read_is_not_answered() {
    let page = GhcbPage::new();
    let host = Host {
        is_deaf: true,
        ..Host::of(&page)
    };
    let mut bytes = [0xee; 8];
    assert!(ghcb(&host).port_read_bytes(0x511, &mut bytes).is_err());
    assert_eq!(bytes, [0xee; 8]);
    assert_eq!(buffer(&host), vec![0; BUFFER_BYTES]);
    ghcb(&host).port_read_bytes(0x511, &mut []).unwrap();
    assert_eq!(host.seen.borrow().len(), 1);
}

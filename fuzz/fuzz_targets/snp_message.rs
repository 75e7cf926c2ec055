//! A guest's channel to its security processor, through a host that does what the input says: no two messages have one number,
//! only answers that were sealed for a message are believed, what is found in them lies inside of them, and a channel that is
//! still open works once the host is honest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use svsm_platform::level::Vmpl;
use svsm_platform::snp::ghcb::GuestRequestStatus;
use svsm_platform::snp::message::{AesGcm, Channel, Error, GuestRequest, ResponsePage};
use svsm_platform::snp::report::{
    AttestationReport, Certificates, ChipKey, KeyRequest, ReportRequest,
};
use svsm_platform::snp::secrets::Vmpck;
use svsm_sim::processor::Header;
use svsm_sim::secrets;
use zerocopy::{FromBytes, IntoBytes};

const KEY: [u8; 32] = [9; 32];

/// Takes its decisions from the input; zeros when that is at its end.
struct Host<'i> {
    input: &'i [u8],
    honest: bool,
    /// Each message by its number.
    seen: BTreeMap<u64, Vec<u8>>,
    last: ResponsePage,
    /// Whether the answer that it gave last is an authentic one, as given.
    authentic: bool,
}

impl Host<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.input.split_first().unwrap_or((&0, &[]));
        self.input = rest;
        *first
    }

    fn take(&mut self) -> Vec<u8> {
        let len = usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % 4001;
        let (taken, rest) = self.input.split_at(len.min(self.input.len()));
        self.input = rest;
        taken.to_vec()
    }

    fn answer(&mut self, message: &[u8], payload: &[u8], response: &mut ResponsePage) {
        let (asked, _) = Header::read_from_prefix(message).expect("a whole header");
        let mut header = Header::new(
            asked.message_type + 1,
            1,
            asked.sequence.get() + 1,
            asked.vmpck,
            payload.len().try_into().expect("shorter than a page"),
        );
        let mut body = payload.to_vec();
        header
            .seal(&secrets::Vmpck(KEY), &mut body)
            .expect("shorter than a page");
        response.fill(0);
        response[..Header::LEN].copy_from_slice(header.as_bytes());
        response[Header::LEN..][..body.len()].copy_from_slice(&body);
    }
}

fn said(host: u32, firmware: u32, pages: u64) -> GuestRequestStatus {
    GuestRequestStatus {
        firmware,
        host,
        pages,
    }
}

impl GuestRequest for Host<'_> {
    type Error = ();

    fn pass(
        &mut self,
        message: &[u8],
        response: &mut ResponsePage,
        certificates: Option<&mut [u8]>,
    ) -> Result<GuestRequestStatus, ()> {
        let number = u64::from_le_bytes(message[0x20..0x28].try_into().expect("eight bytes"));
        let first = self.seen.entry(number).or_insert_with(|| message.to_vec());
        assert_eq!(first, message, "two messages have one number");
        self.authentic = false;
        if self.honest {
            self.answer(message, &[0; 128], response);
            self.authentic = true;
            return Ok(said(0, 0, 0));
        }
        if let Some(buffer) = certificates {
            let table = self.take();
            buffer.fill(0);
            let len = table.len().min(buffer.len());
            buffer[..len].copy_from_slice(&table[..len]);
        }
        match self.byte() % 8 {
            0 => {
                let payload = self.take();
                self.answer(message, &payload, response);
                self.last = *response;
                self.authentic = true;
            }
            1 => {
                let junk = self.take();
                response.fill(0);
                response[..junk.len()].copy_from_slice(&junk);
            }
            2 => return Ok(said(2, 0, 0)),
            3 => return Ok(said(1, 0, self.byte().into())),
            4 => return Ok(said(self.byte().into(), self.byte().into(), 0)),
            5 => return Err(()),
            6 => {
                let payload = self.take();
                self.answer(message, &payload, response);
                let at = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
                let change = self.byte();
                response[at % 4096] ^= change;
                // Only these bytes may change, and what follows the payload.
                let free =
                    (0x10..0x20).contains(&(at % 4096)) || (0x28..0x30).contains(&(at % 4096));
                let behind = at % 4096 >= Header::LEN + payload.len();
                self.authentic = change == 0 || free || behind;
            }
            _ => *response = self.last,
        }
        Ok(said(0, 0, 0))
    }

    fn wait(&mut self, _: u8) -> bool {
        self.byte() & 1 == 1
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut host = Host {
        input: bytes,
        honest: false,
        seen: BTreeMap::new(),
        last: [0; 4096],
        authentic: false,
    };
    let key = || Vmpck::new(&KEY).expect("not all zeros");
    let mut channel = Channel::new(Vmpl::Vmpl1, key(), AesGcm);
    let mut page = [0; 4096];
    while !host.input.is_empty() {
        let was_open = channel.is_open();
        let before = channel.last_number();
        let kind = host.byte() % 5;
        let result = match kind {
            0 | 1 => {
                let request = ReportRequest {
                    data: [host.byte(); 64],
                    level: Vmpl::Vmpl2,
                    signer: ChipKey::Any,
                };
                let mut buffer = [0; 4096];
                let certificates = (kind == 1).then_some(buffer.as_mut_slice());
                let report = channel.report(&request, &mut host, certificates, &mut page);
                if let Ok(report) = report {
                    assert!(report.len() >= AttestationReport::LEN && report.len() <= 4000 - 0x20);
                    let _ = AttestationReport::view(report);
                    if let Ok(found) = Certificates::parse(&buffer) {
                        let used = found.as_bytes().len();
                        assert!(found.iter().all(|(_, data)| data.len() <= used));
                    }
                }
                report.map(drop)
            }
            2 => {
                let request = KeyRequest::new(Vmpl::Vmpl1).with_guest_svn(host.byte().into());
                let mut derived = [0; 32];
                let result = channel.derive_key(&request, &mut host, &mut page, &mut derived);
                assert!(page == [0; 4096] || result.is_err());
                result
            }
            3 => channel.tsc_info(&mut host, &mut page).map(drop),
            _ => channel.finish(&mut host, &mut page),
        };
        if channel.last_number() != before {
            assert!(was_open);
        }
        match result {
            // The last one asks nothing if nothing waits.
            Ok(()) => assert!(host.authentic || kind == 4),
            Err(Error::Busy) => assert!(channel.is_open() && channel.is_pending()),
            Err(Error::CertificateSpace { .. } | Error::Status(_) | Error::Malformed) => {
                assert!(host.authentic && channel.is_open());
            }
            Err(Error::Closed) => assert!(!channel.is_open()),
            Err(_) => assert!(was_open && !channel.is_open()),
        }
    }
    host.honest = true;
    let info = channel.tsc_info(&mut host, &mut page);
    assert_eq!(info.is_ok(), channel.is_open());
});

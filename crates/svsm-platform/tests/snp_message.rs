//! Messages to the security processor: against the simulator's, and past a host that lies.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use svsm_platform::{
    Blame,
    level::Vmpl,
    seam::{Hertz, Report as _},
    snp::{
        ghcb::GuestRequestStatus,
        message::{AesGcm, Channel, Error, GuestRequest, ResponsePage},
        report::{
            AttestationReport, Attester, Certificates, ChipKey, Guid, KeyFields, KeyRequest,
            ReportRequest, TscInfo,
        },
        secrets::Vmpck,
    },
};
use svsm_sim::{
    cpuid::Registers,
    endorsement::Endorsement,
    launch::{Chip, Guest, PlatformInfo, Policy, Start, Tcb},
    processor::{Header, SecurityProcessor},
    report::{Report, ReportVersion},
    secrets,
    vmsa::TweakBitmap,
};
use zerocopy::{FromBytes, IntoBytes};

/// What the host does with a message.
#[derive(Clone, Debug)]
enum Act {
    /// Has it answered.
    Carry,
    /// Says that it is busy.
    Busy,
    /// Has it answered, and says that it is busy.
    Steal,
    /// Says that the certificates need so many pages.
    Small(u64),
    /// Refuses with these codes.
    Refuse(u32, u32),
    /// Has it answered, and changes a byte of the answer.
    Flip(usize),
    /// Answers something.
    Junk(u8),
    /// Answers what it answered last.
    Replay,
    /// Fails.
    Fail,
}

type Fixed = fn(u32, u32) -> Registers;

/// A machine, its host, and a guest.
struct Host {
    chip: Chip<Fixed>,
    endorsement: Endorsement,
    version: ReportVersion,
    guest: Guest,
    acts: VecDeque<Act>,
    /// Whether the guest waits while the host is busy.
    patient: bool,
    shown: u32,
    /// Each message that the host saw, by its number.
    seen: BTreeMap<u64, Vec<u8>>,
    last: ResponsePage,
}

impl Host {
    fn new(acts: &[Act]) -> Self {
        let chip: Chip<Fixed> = Chip {
            host: |_, _| Registers {
                eax: 0x00a0_0f11,
                ..Registers::default()
            },
            abi: (1, 55),
            build: 7,
            mitigations: 0b101,
            info: PlatformInfo::SMT,
            vmsa_tweak_bitmap: TweakBitmap::REGISTERS,
            tsc_khz: 2_000_000,
            tsc_factor: 200,
            tcb: Tcb {
                boot_loader: 3,
                tee: 0,
                snp: 8,
                microcode: 115,
            },
            id: [0xc1; 64],
        };
        let mut guest = Guest::new();
        let start = Start {
            asid: 1,
            policy: Policy::DEFAULT,
            gosvw: [0; 16],
            tsc_khz: 1_000_000,
        };
        let mut fills = 0;
        let mut entropy = |bytes: &mut [u8]| {
            fills += 1;
            bytes.fill(fills);
        };
        guest.launch_start(&chip, &start, &mut entropy).unwrap();
        guest.launch_finish(None, [0xda; 32], false).unwrap();
        Self {
            endorsement: Endorsement::new(&chip),
            chip,
            version: ReportVersion::V5,
            guest,
            acts: acts.iter().cloned().collect(),
            patient: false,
            shown: 0,
            seen: BTreeMap::new(),
            last: [0; 4096],
        }
    }

    fn carry(&mut self, message: &[u8], response: &mut ResponsePage) -> GuestRequestStatus {
        let processor = SecurityProcessor {
            chip: &self.chip,
            endorsement: &self.endorsement,
            report_version: self.version,
        };
        let mut page = [0; 4096];
        page[..message.len()].copy_from_slice(message);
        match self.guest.answer(&processor, &page, response) {
            Ok(()) => {
                self.last = *response;
                said(0, 0)
            }
            Err(status) => said(0, status.code()),
        }
    }
}

fn said(host: u32, firmware: u32) -> GuestRequestStatus {
    GuestRequestStatus {
        firmware,
        host,
        pages: 0,
    }
}

impl GuestRequest for Host {
    type Error = u8;

    fn pass(
        &mut self,
        message: &[u8],
        response: &mut ResponsePage,
        certificates: Option<&mut [u8]>,
    ) -> Result<GuestRequestStatus, u8> {
        self.shown += 1;
        // The one thing that must never happen: two messages under one number.
        let number = u64::from_le_bytes(message[0x20..0x28].try_into().unwrap());
        let first = self.seen.entry(number).or_insert_with(|| message.to_vec());
        assert_eq!(first, message, "two messages have the number {number}");
        match self.acts.pop_front().unwrap_or(Act::Carry) {
            Act::Carry => {
                if let Some(buffer) = certificates
                    && let Err(needed) = self.endorsement.certificate_table(buffer)
                {
                    let pages = needed.div_ceil(4096).try_into().unwrap();
                    return Ok(GuestRequestStatus {
                        pages,
                        ..said(1, 0)
                    });
                }
                Ok(self.carry(message, response))
            }
            Act::Busy => Ok(said(2, 0)),
            Act::Steal => {
                self.carry(message, response);
                Ok(said(2, 0))
            }
            Act::Small(pages) => Ok(GuestRequestStatus {
                pages,
                ..said(1, 0)
            }),
            Act::Refuse(host, firmware) => Ok(said(host, firmware)),
            Act::Flip(at) => {
                let status = self.carry(message, response);
                response[at % 4096] ^= 0x40;
                Ok(status)
            }
            Act::Junk(byte) => {
                response.fill(byte);
                Ok(said(0, 0))
            }
            Act::Replay => {
                *response = self.last;
                Ok(said(0, 0))
            }
            Act::Fail => Err(7),
        }
    }

    fn wait(&mut self, _: u8) -> bool {
        self.patient
    }
}

fn channel(level: Vmpl) -> Channel<AesGcm> {
    Channel::new(level, Vmpck::new(&[level.as_u8() + 1; 32]).unwrap(), AesGcm)
}

fn request(byte: u8) -> ReportRequest {
    ReportRequest {
        data: [byte; 64],
        level: Vmpl::Vmpl2,
        signer: ChipKey::Any,
    }
}

/// Asks for a report over `byte`.
fn ask(channel: &mut Channel<AesGcm>, host: &mut Host, byte: u8) -> Result<u8, Error<u8>> {
    let mut page = [0; 4096];
    let report = channel.report(&request(byte), host, None, &mut page)?;
    Ok(AttestationReport::view(report).unwrap().report_data[63])
}

#[test]
fn reports_of_all_versions_are_read() {
    for version in [
        ReportVersion::V2,
        ReportVersion::V3,
        ReportVersion::V4,
        ReportVersion::V5,
    ] {
        let mut host = Host::new(&[]);
        host.version = version;
        let (mut channel, mut page) = (channel(Vmpl::Vmpl1), [0; 4096]);
        let bytes = channel
            .report(&request(0xdd), &mut host, None, &mut page)
            .unwrap();
        let ours = AttestationReport::view(bytes).unwrap();
        let theirs = Report::read_from_bytes(bytes).unwrap();
        assert_eq!(ours.version.get(), version.number());
        assert_eq!(ours.vmpl.get(), 2);
        assert_eq!(ours.report_data, [0xdd; 64]);
        assert_eq!(ours.measurement, host.guest.measurement().0);
        assert_eq!((ours.chip_id, ours.host_data), ([0xc1; 64], [0xda; 32]));
        assert_eq!(ours.reported_tcb, theirs.reported_tcb);
        assert_eq!(ours.cpuid_family, theirs.cpuid_family);
        assert_eq!(ours.current_mit_vector, theirs.current_mitigations);
        assert_eq!(ours.signature, theirs.signature.as_bytes());
        assert_eq!(channel.last_number(), 2);
    }
}

#[test]
fn nobody_speaks_for_a_level_above() {
    let mut host = Host::new(&[]);
    let (mut channel, mut page) = (channel(Vmpl::Vmpl3), [0; 4096]);
    assert_eq!(
        channel.report(&request(1), &mut host, None, &mut page),
        Err(Error::Request)
    );
    let key = KeyRequest::new(Vmpl::Vmpl0);
    let derived = channel.derive_key(&key, &mut host, &mut page, &mut [0; 32]);
    assert_eq!(derived, Err(Error::Request));
    assert_eq!((host.shown, channel.is_open()), (0, true));
}

#[test]
fn keys_depend_on_what_they_are_bound_to() {
    let mut host = Host::new(&[]);
    let (mut channel, mut page) = (channel(Vmpl::Vmpl0), [0; 4096]);
    let mut key = |request: KeyRequest| {
        let mut key = [0; 32];
        channel.derive_key(&request, &mut host, &mut page, &mut key)?;
        assert_eq!(page, [0; 4096]);
        Ok::<_, Error<u8>>(key)
    };
    let plain = KeyRequest::new(Vmpl::Vmpl0);
    let requests = [
        plain,
        KeyRequest::new(Vmpl::Vmpl1),
        plain.from_migration_key(),
        plain.bound_to(KeyFields::MEASUREMENT),
        plain.bound_to(KeyFields::MEASUREMENT | KeyFields::POLICY),
        plain.with_guest_svn(0),
        plain.with_tcb_version(2),
        plain.with_launch_mitigations(0b100),
    ];
    let keys = requests.map(|request| key(request).unwrap());
    for (index, one) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(one), "{index}");
    }
    assert_eq!(requests.map(|request| key(request).unwrap()), keys);
    // A version of the guest that was never there, and a key that the chip does not have.
    assert_eq!(key(plain.with_guest_svn(1)), Err(Error::Status(0x16)));
    let vlek = plain.from_chip_key(ChipKey::Vlek);
    assert_eq!(key(vlek), Err(Error::Status(0x27)));
    // Refused keys cost nothing but their numbers.
    assert_eq!(key(plain).unwrap(), keys[0]);
}

#[test]
fn counter_is_as_the_processor_says() {
    let mut host = Host::new(&[]);
    let info = channel(Vmpl::Vmpl0)
        .tsc_info(&mut host, &mut [0; 4096])
        .unwrap();
    let expected = TscInfo {
        // Half the rate of the machine, with 32 bits behind the point.
        scale: 1 << 31,
        offset: 0,
        factor: 200,
    };
    assert_eq!(info, expected);
    let nominal = Hertz::new(1_000_000_000).unwrap();
    assert_eq!(info.mean_rate(nominal), Hertz::new(998_000_000));
    let stuck = TscInfo {
        factor: 100_000,
        ..info
    };
    assert_eq!(stuck.mean_rate(nominal), None);
}

#[test]
fn seam_gives_reports_and_keys() {
    let mut host = Host::new(&[]);
    let (mut channel, mut page) = (channel(Vmpl::Vmpl0), [0; 4096]);
    let mut attester = Attester::new(&mut channel, &mut host, &mut page).for_level(Vmpl::Vmpl3);
    let mut buffer = [0; 2000];
    let report = attester.report(&[5; 64], &mut buffer).unwrap();
    assert_eq!(report.len(), 0x4a0);
    assert_eq!(AttestationReport::view(report).unwrap().vmpl.get(), 3);
    let mut small = [0; 0x49f];
    let refused = attester.report(&[5; 64], &mut small);
    assert_eq!(refused, Err(Error::Buffer { needed: 0x4a0 }));
    let mut key = [0; 32];
    let request = KeyRequest::new(Vmpl::Vmpl0);
    attester.derive_key(&request, &mut key).unwrap();
    assert_ne!(key, [0; 32]);
}

#[test]
fn busy_hosts_get_the_same_message_again() {
    let mut host = Host::new(&[Act::Busy, Act::Busy]);
    let mut channel = channel(Vmpl::Vmpl0);
    assert_eq!(ask(&mut channel, &mut host, 1), Err(Error::Busy));
    assert!(channel.is_pending());
    // Another question does not go before the first is answered.
    assert_eq!(ask(&mut channel, &mut host, 2), Err(Error::Busy));
    assert_eq!(host.seen.len(), 1);
    assert_eq!(ask(&mut channel, &mut host, 2), Ok(2));
    assert!(host.seen.keys().eq(&[1, 3]));
    assert_eq!((channel.last_number(), channel.is_pending()), (4, false));
}

#[test]
fn patience_with_a_busy_host_has_an_end() {
    let mut host = Host::new(&vec![Act::Busy; 100]);
    host.patient = true;
    let mut channel = channel(Vmpl::Vmpl0);
    assert_eq!(ask(&mut channel, &mut host, 1), Err(Error::Busy));
    assert_eq!(host.shown, 32);
    host.acts.truncate(31);
    assert_eq!(ask(&mut channel, &mut host, 1), Ok(1));
}

#[test]
fn waiting_messages_can_be_finished_for_the_next_holder_of_the_key() {
    let mut host = Host::new(&[Act::Busy]);
    let mut first = channel(Vmpl::Vmpl0);
    assert_eq!(ask(&mut first, &mut host, 1), Err(Error::Busy));
    first.finish(&mut host, &mut [0; 4096]).unwrap();
    let key = Vmpck::new(&[1; 32]).unwrap();
    let mut second = Channel::resume(Vmpl::Vmpl0, key, first.last_number(), AesGcm);
    assert_eq!(ask(&mut second, &mut host, 2), Ok(2));
}

#[test]
fn certificates_that_do_not_fit_lose_nothing() {
    let mut host = Host::new(&[]);
    let (mut channel, mut page) = (channel(Vmpl::Vmpl0), [0; 4096]);
    let refused = channel.report(&request(1), &mut host, Some(&mut []), &mut page);
    let Err(Error::CertificateSpace { pages }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((channel.last_number(), channel.is_open()), (2, true));
    let mut buffer = vec![0; usize::try_from(pages).unwrap() * 4096];
    let report = channel
        .report(&request(1), &mut host, Some(&mut buffer), &mut page)
        .unwrap();
    assert_eq!(report.len(), 0x4a0);
    let found = Certificates::parse(&buffer).unwrap();
    let names: Vec<_> = found.iter().map(|(guid, _)| guid).collect();
    assert_eq!(names, [Guid::VCEK, Guid::ASK, Guid::ARK]);
    let vcek = host.endorsement.vcek_certificate();
    assert_eq!(found.get(Guid::VCEK).unwrap(), vcek.der());
    assert!(
        buffer[found.as_bytes().len()..]
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn hosts_that_ask_for_space_that_nobody_offered_are_refused() {
    let mut host = Host::new(&[Act::Small(9)]);
    let mut channel = channel(Vmpl::Vmpl0);
    let refused = Error::Refused {
        host: 1,
        firmware: 0,
    };
    assert_eq!(ask(&mut channel, &mut host, 1), Err(refused));
    assert!(!channel.is_open());
}

#[test]
fn answers_that_were_touched_close_the_channel() {
    // All of the header that means something, and of the ciphertext a part.
    for at in (0..16)
        .chain(0x20..0x28)
        .chain(0x30..0x38)
        .chain([0x3c, 0x60, 0x200, 0x51f])
    {
        let mut host = Host::new(&[Act::Flip(at)]);
        let mut channel = channel(Vmpl::Vmpl0);
        assert_eq!(
            ask(&mut channel, &mut host, 1),
            Err(Error::Answer),
            "{at:#x}"
        );
        assert_eq!(ask(&mut channel, &mut host, 1), Err(Error::Closed));
        assert_eq!(host.shown, 1);
    }
}

#[test]
fn nothing_but_the_answer_is_taken_for_it() {
    for act in [Act::Junk(0), Act::Junk(0xff), Act::Replay, Act::Steal] {
        let mut host = Host::new(&[Act::Carry, act.clone()]);
        host.patient = true;
        let mut channel = channel(Vmpl::Vmpl0);
        assert_eq!(ask(&mut channel, &mut host, 1), Ok(1));
        let error = ask(&mut channel, &mut host, 2).unwrap_err();
        assert_eq!(error.blame(), Blame::Host, "{act:?}: {error}");
        assert!(!channel.is_open());
    }
}

#[test]
fn failures_close_the_channel() {
    for (act, error) in [
        (
            Act::Refuse(0, 0x16),
            Error::Refused {
                host: 0,
                firmware: 0x16,
            },
        ),
        (
            Act::Refuse(u32::MAX, 0),
            Error::Refused {
                host: u32::MAX,
                firmware: 0,
            },
        ),
        (Act::Fail, Error::Transport(7)),
    ] {
        let mut host = Host::new(&[act]);
        let mut channel = channel(Vmpl::Vmpl0);
        assert_eq!(ask(&mut channel, &mut host, 1), Err(error));
        assert!(!channel.is_open() && !channel.is_pending());
    }
}

/// A security processor that answers what it is told to.
struct Oracle(Vec<u8>);

impl GuestRequest for Oracle {
    type Error = u8;

    fn pass(
        &mut self,
        message: &[u8],
        response: &mut ResponsePage,
        _: Option<&mut [u8]>,
    ) -> Result<GuestRequestStatus, u8> {
        let (asked, _) = Header::read_from_prefix(message).unwrap();
        let mut header = Header::new(
            asked.message_type + 1,
            1,
            asked.sequence.get() + 1,
            asked.vmpck,
            self.0.len().try_into().unwrap(),
        );
        let mut body = self.0.clone();
        header.seal(&secrets::Vmpck([1; 32]), &mut body).unwrap();
        response.fill(0);
        response[..Header::LEN].copy_from_slice(header.as_bytes());
        response[Header::LEN..][..body.len()].copy_from_slice(&body);
        Ok(said(0, 0))
    }
}

#[test]
fn answers_of_the_wrong_length_are_refused() {
    let good = |size: u32, len| {
        let mut payload = vec![0; len];
        payload[4..8].copy_from_slice(&size.to_le_bytes());
        payload
    };
    let mut channel = channel(Vmpl::Vmpl0);
    let mut page = [0; 4096];
    let mut report = |payload| {
        let mut oracle = Oracle(payload);
        let report = channel.report(&request(1), &mut oracle, None, &mut page);
        report.map(<[u8]>::len)
    };
    assert_eq!(report(good(0x4a0, 0x4c0)), Ok(0x4a0));
    // A report of a later version may be longer.
    assert_eq!(report(good(0x500, 4000)), Ok(0x500));
    for (size, len) in [
        (0x4a0, 0x4bf),
        (0x49f, 0x4c0),
        (0, 0x20),
        (u32::MAX, 4000),
        (0xf81, 4000),
    ] {
        assert_eq!(
            report(good(size, len)),
            Err(Error::Malformed),
            "{size:#x} {len:#x}"
        );
    }
    for len in [0, 3, 8, 0x1f] {
        assert_eq!(report(vec![0; len]), Err(Error::Malformed));
    }
    // A status says enough.
    assert_eq!(report(vec![0x16, 0, 0, 0]), Err(Error::Status(0x16)));

    let mut oracle = Oracle(vec![0; 63]);
    let request = KeyRequest::new(Vmpl::Vmpl0);
    let mut key = [9; 32];
    let derived = channel.derive_key(&request, &mut oracle, &mut page, &mut key);
    assert_eq!((derived, key), (Err(Error::Malformed), [9; 32]));
    let mut oracle = Oracle(vec![0; 127]);
    assert_eq!(
        channel.tsc_info(&mut oracle, &mut page),
        Err(Error::Malformed)
    );
    assert!(channel.is_open());
}

#[test]
fn numbers_end_before_they_repeat() {
    let key = || Vmpck::new(&[1; 32]).unwrap();
    let mut page = [0; 4096];
    let mut oracle = Oracle(vec![0; 128]);
    let mut last = Channel::resume(Vmpl::Vmpl0, key(), u32::MAX - 2, AesGcm);
    assert!(last.tsc_info(&mut oracle, &mut page).is_ok());
    assert_eq!(last.last_number(), u32::MAX);
    for used in [u32::MAX, u32::MAX - 1] {
        let mut channel = Channel::resume(Vmpl::Vmpl0, key(), used, AesGcm);
        assert_eq!(channel.tsc_info(&mut oracle, &mut page), Err(Error::Closed));
        assert!(!channel.is_open());
    }
}

#[test]
fn keys_are_not_printed() {
    let text = format!("{:?}", channel(Vmpl::Vmpl2));
    assert_eq!(
        text,
        "Channel { level: Vmpl2, open: true, last: 0, pending: false, .. }"
    );
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Carry),
        6 => Just(Act::Busy),
        1 => Just(Act::Steal),
        3 => any::<u64>().prop_map(Act::Small),
        1 => (0..4_u32, 0..3_u32).prop_map(|(host, firmware)| Act::Refuse(host, firmware)),
        1 => (0..0x520_usize).prop_map(Act::Flip),
        1 => any::<u8>().prop_map(Act::Junk),
        1 => Just(Act::Replay),
        1 => Just(Act::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the host does: no number is used for two messages (see `pass`), only authentic answers are believed, and a channel
    /// that is still open works as soon as the host is honest.
    #[test]
    fn hosts_cannot_break_a_channel_without_closing_it(
        script in prop::collection::vec(acts(), 0..12),
        patient in any::<bool>(),
        with_certificates in any::<bool>(),
    ) {
        let mut host = Host::new(&script);
        host.patient = patient;
        let (mut channel, mut page) = (channel(Vmpl::Vmpl0), [0; 4096]);
        for byte in 0..8 {
            let was_open = channel.is_open();
            let mut buffer = [0; 4096];
            let certificates = with_certificates.then_some(buffer.as_mut_slice());
            let answer = channel.report(&request(byte), &mut host, certificates, &mut page);
            match answer {
                Ok(report) => {
                    prop_assert_eq!(AttestationReport::view(report).unwrap().report_data, [byte; 64]);
                }
                Err(Error::Busy | Error::CertificateSpace { .. }) => prop_assert!(channel.is_open()),
                Err(Error::Closed) => prop_assert!(!was_open),
                Err(Error::Transport(_) | Error::Refused { .. } | Error::Answer) => {
                    prop_assert!(was_open && !channel.is_open());
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        host.acts.clear();
        let shown = host.shown;
        match ask(&mut channel, &mut host, 0x77) {
            Ok(byte) => prop_assert_eq!(byte, 0x77),
            Err(Error::Closed) => prop_assert_eq!(shown, host.shown),
            // The host had a message answered that it then called unanswered.
            Err(error) => prop_assert_eq!(error, Error::Refused { host: 0, firmware: 0x1d }),
        }
    }
}

//! A guest and its security processor: messages, reports, keys.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use svsm_sim::cpuid::{CpuidEntry, CpuidPage, Registers};
use svsm_sim::endorsement::{Endorsement, GUID_ARK, GUID_ASK, GUID_VCEK};
use svsm_sim::launch::{Chip, Guest, IdAuth, IdBlock, Identity, PlatformInfo, Policy, Start, Tcb};
use svsm_sim::processor::{Header, MessageType, SecurityProcessor};
use svsm_sim::report::{Report, ReportVersion};
use svsm_sim::secrets::Vmpck;
use svsm_sim::status::Status;
use svsm_sim::vmsa::TweakBitmap;
use zerocopy::{FromBytes, IntoBytes};

const TCB: Tcb = Tcb {
    boot_loader: 3,
    tee: 0,
    snp: 8,
    microcode: 115,
};

fn chip() -> Chip<fn(u32, u32) -> Registers> {
    Chip {
        host: |leaf, _| match leaf {
            1 => Registers {
                eax: 0x00a0_0f11,
                ..Registers::default()
            },
            _ => Registers::default(),
        },
        abi: (1, 55),
        build: 7,
        mitigations: 0b101,
        info: PlatformInfo::SMT,
        vmsa_tweak_bitmap: TweakBitmap::REGISTERS,
        tsc_khz: 2_000_000,
        tsc_factor: 200,
        tcb: TCB,
        id: [0xc1; 64],
    }
}

/// A guest that runs, and what it knows of its keys.
struct Machine {
    chip: Chip<fn(u32, u32) -> Registers>,
    endorsement: Endorsement,
    version: ReportVersion,
    guest: Guest,
    keys: [Vmpck; 4],
    sequence: [u64; 4],
}

impl Machine {
    fn new() -> Self {
        Self::with(chip(), Policy::DEFAULT, false)
    }

    fn with(chip: Chip<fn(u32, u32) -> Registers>, policy: Policy, vcek_disabled: bool) -> Self {
        let mut guest = Guest::new();
        let start = Start {
            asid: 1,
            policy,
            gosvw: [0; 16],
            tsc_khz: 1_000_000,
        };
        let mut fills = 0;
        let mut entropy = |bytes: &mut [u8]| {
            fills += 1;
            bytes.fill(fills);
        };
        guest.launch_start(&chip, &start, &mut entropy).unwrap();
        let block = IdBlock {
            launch_digest: guest.measurement().0,
            family_id: [0xfa; 16],
            image_id: [0x1a; 16],
            version: 1.into(),
            guest_svn: 4.into(),
            policy: policy.bits().into(),
        };
        let key = |byte| p384::ecdsa::SigningKey::from_slice(&[byte; 48]).unwrap();
        let auth = IdAuth::sign(&block, &key(1), Some(&key(2)));
        let identity = Identity {
            block: &block,
            auth: &auth,
            author: true,
        };
        guest
            .launch_finish(Some(identity), [0xda; 32], vcek_disabled)
            .unwrap();
        Self {
            endorsement: Endorsement::new(&chip),
            chip,
            version: ReportVersion::V5,
            guest,
            keys: [1, 2, 3, 4].map(|byte| Vmpck([byte; 32])),
            sequence: [0; 4],
        }
    }

    fn sealed(&self, vmpck: u8, kind: u8, version: u8, payload: &[u8]) -> [u8; 4096] {
        let number = self.sequence[usize::from(vmpck)] + 1;
        let len = u16::try_from(payload.len()).unwrap();
        let mut header = Header::new(kind, version, number, vmpck, len);
        let mut body = payload.to_vec();
        header
            .seal(&self.keys[usize::from(vmpck)], &mut body)
            .unwrap();
        let mut page = [0; 4096];
        page[..Header::LEN].copy_from_slice(header.as_bytes());
        page[Header::LEN..][..body.len()].copy_from_slice(&body);
        page
    }

    fn carry(&mut self, page: &[u8; 4096]) -> Result<[u8; 4096], Status> {
        let processor = SecurityProcessor {
            chip: &self.chip,
            endorsement: &self.endorsement,
            report_version: self.version,
        };
        let mut response = [0; 4096];
        self.guest
            .answer(&processor, page, &mut response)
            .map(|()| response)
    }

    /// Asks and opens the answer as a careful guest does.
    fn ask(
        &mut self,
        vmpck: u8,
        kind: MessageType,
        version: u8,
        payload: &[u8],
    ) -> Result<Vec<u8>, Status> {
        let page = self.sealed(vmpck, kind.number(), version, payload);
        let response = self.carry(&page)?;
        let (header, rest) = Header::read_from_prefix(&response).unwrap();
        let sequence = &mut self.sequence[usize::from(vmpck)];
        assert_eq!(header.sequence.get(), *sequence + 2);
        assert_eq!(header.message_type, kind.number() + 1);
        *sequence += 2;
        let mut body = rest[..usize::from(header.message_size.get())].to_vec();
        header
            .open(&self.keys[usize::from(vmpck)], &mut body)
            .unwrap();
        Ok(body)
    }

    fn report(&mut self, vmpck: u8, vmpl: u32, select: u32) -> Result<Report, u32> {
        let mut question = [0; 0x60];
        question[..64].fill(0xdd);
        question[0x40..0x44].copy_from_slice(&vmpl.to_le_bytes());
        question[0x44..0x48].copy_from_slice(&select.to_le_bytes());
        let body = self
            .ask(vmpck, MessageType::ReportRequest, 1, &question)
            .unwrap();
        let status = u32::from_le_bytes(body[..4].try_into().unwrap());
        assert_eq!(body[4..8], 0x4a0_u32.to_le_bytes());
        if status == 0 {
            Ok(Report::read_from_bytes(&body[0x20..]).unwrap())
        } else {
            Err(status)
        }
    }

    fn key(&mut self, question: &Question) -> Result<[u8; 32], u32> {
        let mut bytes = [0; 0x28];
        bytes[..4].copy_from_slice(&question.select.to_le_bytes());
        bytes[8..16].copy_from_slice(&question.fields.to_le_bytes());
        bytes[16..20].copy_from_slice(&question.vmpl.to_le_bytes());
        bytes[20..24].copy_from_slice(&question.svn.to_le_bytes());
        bytes[24..32].copy_from_slice(&question.tcb.to_le_bytes());
        bytes[32..].copy_from_slice(&question.mitigations.to_le_bytes());
        let len = if question.version == 1 { 0x20 } else { 0x28 };
        let body = self
            .ask(
                question.vmpck,
                MessageType::KeyRequest,
                question.version,
                &bytes[..len],
            )
            .unwrap();
        let status = u32::from_le_bytes(body[..4].try_into().unwrap());
        if status == 0 {
            Ok(body[0x20..].try_into().unwrap())
        } else {
            Err(status)
        }
    }
}

#[derive(Clone, Copy)]
struct Question {
    vmpck: u8,
    version: u8,
    select: u32,
    fields: u64,
    vmpl: u32,
    svn: u32,
    tcb: u64,
    mitigations: u64,
}

const PLAIN: Question = Question {
    vmpck: 0,
    version: 1,
    select: 0,
    fields: 0,
    vmpl: 0,
    svn: 0,
    tcb: 0,
    mitigations: 0,
};

const INVALID_PARAM: u32 = 0x16;
const INVALID_KEY: u32 = 0x27;

#[test]
fn a_report_says_what_the_launch_was() {
    let mut machine = Machine::new();
    let report = machine.report(0, 2, 0).unwrap();
    assert_eq!(report.vmpl.get(), 2);
    assert_eq!(report.report_data, [0xdd; 64]);
    assert_eq!(report.measurement, machine.guest.measurement().0);
    assert_eq!(report.host_data, [0xda; 32]);
    assert_eq!(report.policy.get(), Policy::DEFAULT.bits());
    assert_eq!(
        (report.family_id, report.image_id, report.guest_svn.get()),
        ([0xfa; 16], [0x1a; 16], 4)
    );
    assert_ne!(report.id_key_digest, report.author_key_digest);
    assert_eq!(report.flags.get(), 1);
    assert_eq!(report.reported_tcb.get(), TCB.to_u64());
    assert_eq!(report.chip_id, [0xc1; 64]);
    assert_eq!(
        (
            report.cpuid_family,
            report.cpuid_model,
            report.cpuid_stepping
        ),
        (0x19, 1, 1)
    );
    assert_eq!(
        (
            report.launch_mitigations.get(),
            report.current_mitigations.get()
        ),
        (5, 5)
    );
    assert_eq!(report.current_version, [7, 55, 1]);
    let key = *machine.endorsement.vcek().verifying_key();
    assert!(report.signature.verifies(&key, report.signed_part()));
    let mut forged = report.clone();
    forged.report_data[0] ^= 1;
    assert!(!forged.signature.verifies(&key, forged.signed_part()));
}

#[test]
fn older_layouts_leave_out_what_they_do_not_know() {
    let mut machine = Machine::new();
    machine.version = ReportVersion::V2;
    let report = machine.report(0, 0, 0).unwrap();
    assert_eq!(
        (
            report.version.get(),
            report.cpuid_family,
            report.current_mitigations.get()
        ),
        (2, 0, 0)
    );
    machine.version = ReportVersion::V4;
    let report = machine.report(0, 0, 0).unwrap();
    assert_eq!(
        (
            report.version.get(),
            report.cpuid_family,
            report.current_mitigations.get()
        ),
        (4, 0x19, 0)
    );
}

#[test]
fn nobody_speaks_for_a_level_above() {
    let mut machine = Machine::new();
    assert_eq!(machine.report(2, 1, 0).unwrap_err(), INVALID_PARAM);
    assert_eq!(machine.report(0, 4, 0).unwrap_err(), INVALID_PARAM);
    assert!(machine.report(2, 2, 0).is_ok());
    assert!(machine.report(2, 3, 1).is_ok());
    assert_eq!(
        machine.key(&Question {
            vmpck: 3,
            vmpl: 2,
            ..PLAIN
        }),
        Err(INVALID_PARAM)
    );
}

#[test]
fn keys_that_are_not_there_are_refused() {
    let mut machine = Machine::new();
    assert_eq!(machine.report(0, 0, 2).unwrap_err(), INVALID_KEY);
    assert_eq!(machine.report(0, 0, 3).unwrap_err(), INVALID_KEY);
    assert_eq!(machine.report(0, 0, 4).unwrap_err(), INVALID_PARAM);
    let mut without = Machine::with(chip(), Policy::DEFAULT, true);
    assert_eq!(without.report(0, 0, 0).unwrap_err(), INVALID_KEY);
    assert_eq!(without.key(&PLAIN), Err(INVALID_KEY));
    assert!(without.key(&Question { select: 1, ..PLAIN }).is_ok());
}

#[test]
fn a_key_comes_again_for_the_same_guest_and_question_only() {
    let mut machine = Machine::new();
    let svn = TCB.to_u64();
    let v2 = Question {
        version: 2,
        ..PLAIN
    };
    let questions = [
        PLAIN,
        Question { select: 1, ..PLAIN },
        Question { vmpl: 1, ..PLAIN },
        Question {
            fields: 1 << 0,
            ..PLAIN
        },
        Question {
            fields: 1 << 1,
            ..PLAIN
        },
        Question {
            fields: 1 << 2,
            ..PLAIN
        },
        Question {
            fields: 1 << 3,
            ..PLAIN
        },
        Question {
            fields: 1 << 4,
            ..PLAIN
        },
        Question {
            fields: 1 << 4,
            svn: 4,
            ..PLAIN
        },
        Question {
            fields: 1 << 5,
            tcb: svn,
            ..PLAIN
        },
        Question {
            fields: 1 << 5,
            tcb: svn - 1,
            ..PLAIN
        },
        Question {
            fields: 1 << 6,
            mitigations: 1,
            ..v2
        },
        Question {
            fields: 1 << 6,
            mitigations: 5,
            ..v2
        },
    ];
    let keys = questions.map(|question| machine.key(&question).unwrap());
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "question {at}");
    }
    assert_eq!(
        questions.map(|question| machine.key(&question).unwrap()),
        keys
    );
    // A field that was not selected does not count.
    assert_eq!(machine.key(&Question { svn: 3, ..PLAIN }), Ok(keys[0]));

    let mut twin = Machine::new();
    assert_eq!(twin.key(&PLAIN), Ok(keys[0]));
    let mut elsewhere = Machine::with(
        Chip {
            id: [2; 64],
            ..chip()
        },
        Policy::DEFAULT,
        false,
    );
    assert_ne!(elsewhere.key(&PLAIN), Ok(keys[0]));
    let mut debuggable = Machine::with(chip(), Policy::DEFAULT | Policy::DEBUG, false);
    assert_eq!(debuggable.key(&PLAIN), Ok(keys[0]));
    assert_ne!(debuggable.key(&questions[3]), Ok(keys[3]));
}

#[test]
fn keys_of_the_future_are_refused() {
    let mut machine = Machine::new();
    let newer = Tcb { snp: 9, ..TCB }.to_u64();
    let refused = [
        Question {
            fields: 1 << 5,
            tcb: newer,
            ..PLAIN
        },
        Question {
            fields: 1 << 5,
            tcb: 1 << 24,
            ..PLAIN
        },
        Question {
            fields: 1 << 4,
            svn: 5,
            ..PLAIN
        },
        Question {
            fields: 1 << 7,
            ..PLAIN
        },
        Question {
            fields: 1 << 6,
            ..PLAIN
        },
        Question {
            fields: 1 << 6,
            version: 2,
            mitigations: 2,
            ..PLAIN
        },
        Question { select: 8, ..PLAIN },
    ];
    for question in refused {
        assert_eq!(machine.key(&question), Err(INVALID_PARAM));
    }
}

#[test]
fn a_message_that_makes_no_sense_leaves_no_trace() {
    let mut machine = Machine::new();
    let good = machine.sealed(0, 5, 1, &[0; 0x60]);
    let mut refused = |change: fn(&mut [u8; 4096]), status| {
        let mut page = good;
        change(&mut page);
        assert_eq!(machine.carry(&page), Err(status));
    };
    refused(|page| page[0x30] = 2, Status::InvalidParam);
    refused(|page| page[0x31] = 2, Status::InvalidParam);
    refused(|page| page[0x32] = 0x61, Status::InvalidParam);
    refused(|page| page[0x36..0x38].fill(0), Status::InvalidParam);
    refused(|page| page[0x36..0x38].fill(0xf8), Status::InvalidParam);
    refused(|page| page[0x36] = 0x61, Status::InvalidParam);
    refused(|page| page[0x3c] = 4, Status::InvalidParam);
    // What the tag covers cannot be changed on the way, nor the key.
    refused(|page| page[0x34] = 3, Status::BadMeasurement);
    refused(|page| page[0x3c] = 1, Status::BadMeasurement);
    refused(|page| page[0x40] = 1, Status::BadMeasurement);
    refused(|page| page[0x20] = 2, Status::BadMeasurement);
    refused(|page| page[0x60] ^= 1, Status::BadMeasurement);
    refused(|page| page[0] ^= 1, Status::BadMeasurement);
    assert!(machine.carry(&good).is_ok());
    // Replayed, it is out of sequence.
    assert_eq!(machine.carry(&good), Err(Status::AeadOverflow));
}

#[test]
fn sequences_are_counted_for_each_key_apart_and_skip_nothing() {
    let mut machine = Machine::new();
    machine.report(0, 0, 0).unwrap();
    machine.report(0, 0, 0).unwrap();
    machine.report(3, 3, 0).unwrap();
    assert_eq!(machine.sequence, [4, 0, 0, 2]);
    machine.sequence[1] = 2;
    let skipped = machine.sealed(1, 5, 1, &[0; 0x60]);
    assert_eq!(machine.carry(&skipped), Err(Status::AeadOverflow));
}

#[test]
fn unknown_and_short_messages_are_refused() {
    let mut machine = Machine::new();
    for (kind, version, len) in [
        (7, 1, 0x60),
        (2, 1, 0x60),
        (5, 0, 0x60),
        (5, 2, 0x60),
        (5, 1, 0x50),
        (3, 3, 0x28),
        (3, 2, 0x20),
    ] {
        let page = machine.sealed(0, kind, version, &vec![0; len]);
        assert_eq!(
            machine.carry(&page),
            Err(Status::InvalidParam),
            "{kind} {version} {len:#x}"
        );
    }
    assert!(machine.report(0, 0, 0).is_ok());
}

#[test]
fn a_guest_that_does_not_run_is_not_answered() {
    let mut machine = Machine::new();
    let page = machine.sealed(0, 5, 1, &[0; 0x60]);
    machine.guest = Guest::new();
    assert_eq!(machine.carry(&page), Err(Status::InvalidGuestState));
}

#[test]
fn time_stamps_are_scaled_to_what_the_host_asked_for() {
    let mut machine = Machine::new();
    let body = machine
        .ask(0, MessageType::TscInfoRequest, 1, &[0; 128])
        .unwrap();
    assert_eq!(body.len(), 128);
    assert_eq!(body[..8], [0; 8]);
    assert_eq!(body[8..16], (1_u64 << 31).to_le_bytes());
    assert_eq!(body[0x18..0x1c], 200_u32.to_le_bytes());
    let body = machine
        .ask(0, MessageType::TscInfoRequest, 1, &[1; 128])
        .unwrap();
    assert_eq!(body[..4], INVALID_PARAM.to_le_bytes());
}

#[test]
fn a_guest_can_have_cpuid_values_checked() {
    let mut machine = Machine::new();
    let lie = CpuidEntry::new(
        7,
        0,
        Registers {
            ebx: 1 << 16,
            ..Registers::default()
        },
    );
    let table = CpuidPage::new(&[lie]).unwrap();
    let body = machine
        .ask(0, MessageType::CpuidRequest, 1, &table.as_bytes()[..0xc10])
        .unwrap();
    assert_eq!(body[..4], INVALID_PARAM.to_le_bytes());
    assert_eq!(body[4..8], 1_u32.to_le_bytes());
    let corrected = CpuidEntry::read_from_bytes(&body[0x10..0x40]).unwrap();
    assert_eq!(corrected.out(), Registers::default());
    let body = machine
        .ask(0, MessageType::CpuidRequest, 1, &[0; 0xc10])
        .unwrap();
    assert_eq!(body[..4], [0; 4]);
}

#[test]
fn the_certificate_table_has_the_whole_chain() {
    let endorsement = Endorsement::new(&chip());
    let needed = endorsement.certificate_table(&mut [0; 100]).unwrap_err();
    assert_eq!(
        endorsement.certificate_table(&mut vec![0; needed - 1]),
        Err(needed)
    );
    let mut pages = vec![0xee; 4096];
    endorsement.certificate_table(&mut pages).unwrap();
    let expected = [
        (GUID_VCEK, endorsement.vcek_certificate()),
        (GUID_ASK, endorsement.ask_certificate()),
        (GUID_ARK, endorsement.ark_certificate()),
    ];
    for (entry, (guid, certificate)) in pages.chunks(24).zip(&expected) {
        let number = |at: usize| {
            usize::try_from(u32::from_le_bytes(entry[at..at + 4].try_into().unwrap())).unwrap()
        };
        assert_eq!(entry[..16], *guid);
        assert_eq!(&pages[number(16)..][..number(20)], certificate.der());
    }
    assert_eq!(pages[72..96], [0; 24]);
    assert!(pages[needed..].iter().all(|byte| *byte == 0));
    assert_eq!(GUID_VCEK[..6], [0x8d, 0x75, 0xda, 0x63, 0x64, 0xe6]);
}

#[test]
fn keys_follow_chip_and_security_versions() {
    let endorsement = Endorsement::new(&chip());
    let vcek = |chip| *Endorsement::new(&chip).vcek().verifying_key();
    assert_eq!(vcek(chip()), *endorsement.vcek().verifying_key());
    assert_ne!(
        vcek(Chip {
            id: [0; 64],
            ..chip()
        }),
        vcek(chip())
    );
    assert_ne!(
        vcek(Chip {
            tcb: Tcb { snp: 9, ..TCB },
            ..chip()
        }),
        vcek(chip())
    );
    // Certificates are the same bytes each time.
    assert_eq!(
        Endorsement::new(&chip()).vcek_certificate(),
        endorsement.vcek_certificate()
    );
}

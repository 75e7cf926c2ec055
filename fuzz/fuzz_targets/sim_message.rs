//! Messages of a guest to the security processor, sealed as the guest seals them: each is answered or refused, and only
//! an answer moves the sequence on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_sim::cpuid::Registers;
use svsm_sim::endorsement::Endorsement;
use svsm_sim::launch::{Chip, Guest, PlatformInfo, Policy, Start, Tcb};
use svsm_sim::processor::{Header, SecurityProcessor};
use svsm_sim::report::ReportVersion;
use svsm_sim::secrets::Vmpck;
use svsm_sim::vmsa::TweakBitmap;
use zerocopy::{FromBytes, IntoBytes};

const KEY: Vmpck = Vmpck([9; 32]);

fuzz_target!(|bytes: &[u8]| {
    let chip = Chip {
        host: |leaf, _| Registers {
            eax: leaf,
            ..Registers::default()
        },
        abi: (1, 55),
        build: 1,
        mitigations: 5,
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
    let start = Start {
        asid: 1,
        policy: Policy::DEFAULT,
        gosvw: [0; 16],
        tsc_khz: 0,
    };
    let mut guest = Guest::new();
    guest
        .launch_start(&chip, &start, &mut |key: &mut [u8]| key.fill(9))
        .expect("the machine meets the policy");
    guest
        .launch_finish(None, [0; 32], false)
        .expect("there is no identity to refuse");
    let processor = SecurityProcessor {
        endorsement: &Endorsement::new(&chip),
        chip: &chip,
        report_version: ReportVersion::V5,
    };

    // Messages follow each other: key, type, version and length, then the payload.
    let mut sequence = [0; 4];
    let mut rest = bytes;
    while let [vmpck, kind, version, low, high, tail @ ..] = rest {
        let vmpck = vmpck % 4;
        let len = usize::from(u16::from_le_bytes([*low, *high])) % (Header::MAX_PAYLOAD + 1);
        let (payload, next) = tail.split_at(len.min(tail.len()));
        rest = next;
        let count: &mut u64 = &mut sequence[usize::from(vmpck)];
        let len = u16::try_from(payload.len()).expect("shorter than a page");
        let mut header = Header::new(*kind, *version, *count + 1, vmpck, len);
        let mut body = payload.to_vec();
        header.seal(&KEY, &mut body).expect("shorter than a page");
        let (mut request, mut response) = ([0; 4096], [0xee; 4096]);
        request[..Header::LEN].copy_from_slice(header.as_bytes());
        request[Header::LEN..][..body.len()].copy_from_slice(&body);
        if guest.answer(&processor, &request, &mut response).is_err() {
            assert_eq!(response, [0xee; 4096]);
            continue;
        }
        *count += 2;
        let (answer, sealed) = Header::read_from_prefix(&response).expect("a page");
        assert_eq!(
            (answer.sequence.get(), answer.message_type),
            (*count, kind + 1)
        );
        let mut answered = sealed[..usize::from(answer.message_size.get())].to_vec();
        answer
            .open(&KEY, &mut answered)
            .expect("under the same key");
    }
});

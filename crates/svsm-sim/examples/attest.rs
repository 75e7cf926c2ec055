//! A guest is launched, asks for a report, and somebody far away believes it, or not.
#![expect(
    clippy::indexing_slicing,
    reason = "lengths are those of the specification, and an example may end here"
)]

use svsm_sim::cpuid::Registers;
use svsm_sim::endorsement::{Endorsement, root_certificate};
use svsm_sim::launch::{
    Chip, Guest, Measurement, PageType, PlatformInfo, Policy, Start, Tcb, Update,
};
use svsm_sim::processor::{Header, MessageType, SecurityProcessor};
use svsm_sim::report::ReportVersion;
use svsm_sim::rmp::{Entry, NewState, PageSize, Rmp};
use svsm_sim::secrets::SecretsPage;
use svsm_sim::verify::{Chain, Expected, verify};
use svsm_sim::vmsa::TweakBitmap;
use zerocopy::{FromBytes, IntoBytes};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let chip = Chip {
        host: |_: u32, _: u32| Registers::default(),
        abi: (1, 55),
        build: 1,
        mitigations: 0,
        info: PlatformInfo::SMT,
        vmsa_tweak_bitmap: TweakBitmap::REGISTERS,
        tsc_khz: 2_000_000,
        tsc_factor: 0,
        tcb: Tcb {
            boot_loader: 4,
            tee: 0,
            snp: 22,
            microcode: 213,
        },
        id: [7; 64],
    };
    // A run that can be repeated; a real machine has better sources.
    let mut counter = 0;
    let mut entropy = |bytes: &mut [u8]| {
        counter += 1;
        bytes.fill(counter);
    };

    // The host launches a page of code and the secrets page.
    let mut entries = [Entry::HYPERVISOR; 2];
    let mut rmp = Rmp::new(&mut entries);
    let mut guest = Guest::new();
    let start = Start {
        asid: 1,
        policy: Policy::DEFAULT,
        gosvw: [0; 16],
        tsc_khz: 0,
    };
    guest.launch_start(&chip, &start, &mut entropy)?;
    let (mut code, mut secrets) = ([0x90; 4096], [0; 4096]);
    let pages = [
        (0x0000, PageType::Normal, &mut code),
        (0x1000, PageType::Secrets, &mut secrets),
    ];
    for (at, page_type, page) in pages {
        rmp.rmpupdate(at, NewState::pre_guest(1, at, PageSize::Size4K))?;
        let update = Update::new(page_type);
        guest.launch_update(&chip, &mut rmp, at, &update, page, &mut entropy)?;
    }
    guest.launch_finish(None, [0; 32], false)?;

    // The guest asks, with the key from its secrets page: 64 bytes to repeat, and its level.
    let key = SecretsPage::read_from_bytes(&secrets)
        .map_err(|_| "a page")?
        .vmpck[0];
    let mut question = [0; 0x60];
    question[..64].fill(0x42);
    let mut header = Header::new(MessageType::ReportRequest.number(), 1, 1, 0, 0x60);
    header.seal(&key, &mut question)?;
    let (mut request, mut response) = ([0; 4096], [0; 4096]);
    request[..0x60].copy_from_slice(header.as_bytes());
    request[0x60..0xc0].copy_from_slice(&question);
    let endorsement = Endorsement::new(&chip);
    let processor = SecurityProcessor {
        chip: &chip,
        endorsement: &endorsement,
        report_version: ReportVersion::V5,
    };
    guest.answer(&processor, &request, &mut response)?;
    let (answer, sealed) = Header::read_from_prefix(&response).map_err(|_| "a page")?;
    let mut body = sealed[..usize::from(answer.message_size.get())].to_vec();
    answer.open(&key, &mut body)?;
    let report = &body[0x20..];

    // Far away: the root, what the image should be, and what the guest was asked to say.
    let mut image = Measurement::NOTHING;
    image.add_page(PageType::Normal, 0, [0; 3], &code);
    image.add_unmeasured(PageType::Secrets, 0x1000, [0; 3]);
    let mut table = [0; 4096];
    endorsement
        .certificate_table(&mut table)
        .map_err(|needed| format!("{needed} bytes are needed"))?;
    let chain = Chain::from_table(&table)?;
    let expected = Expected {
        measurement: Some(image.0),
        report_data: Some([0x42; 64]),
        ..Expected::ANY
    };
    let root = root_certificate();
    let verdict = verify(report, &chain, root.der(), &expected);
    println!("honest:   VMPL{} speaks", verdict?.vmpl);

    let other = Expected {
        measurement: Some([0; 48]),
        ..expected
    };
    for (name, expected, flip) in [("another image", other, 0), ("tampered", expected, 1)] {
        let mut report = report.to_vec();
        report[0x90] ^= flip;
        match verify(&report, &chain, root.der(), &expected) {
            Ok(_) => println!("{name}: believed"),
            Err(reason) => println!("{name}: {reason}"),
        }
    }
    Ok(())
}

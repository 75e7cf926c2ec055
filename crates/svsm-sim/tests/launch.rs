//! Launches: digests agree with another calculator, and commands fail as the firmware's do.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails here is the test"
)]

use svsm_sim::cpuid::{CpuidEntry, CpuidPage, Registers};
use svsm_sim::launch::{
    Chip, Guest, GuestState, IdAuth, IdBlock, Identity, Measurement, PageType, PlatformInfo,
    Policy, Start, Tcb, Update,
};
use svsm_sim::rmp::{Entry, NewState, PageSize, Permissions, Rmp, State, Vmpl};
use svsm_sim::secrets::SecretsPage;
use svsm_sim::status::Status;
use svsm_sim::vmsa::{SevFeatures, TweakBitmap, Vmsa};
use zerocopy::{FromBytes, IntoBytes};

const SIGNATURE: u32 = 0x00a0_0f11;

fn cpuid(leaf: u32, _: u32) -> Registers {
    match leaf {
        1 => Registers {
            eax: SIGNATURE,
            ..Registers::default()
        },
        _ => Registers::default(),
    }
}

fn chip() -> Chip<fn(u32, u32) -> Registers> {
    Chip {
        host: cpuid,
        abi: (1, 55),
        build: 7,
        mitigations: 0,
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
    }
}

const START: Start = Start {
    asid: 1,
    policy: Policy::DEFAULT,
    gosvw: [0; 16],
    tsc_khz: 0,
};

fn entropy() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |bytes| {
        for byte in bytes {
            next = next.wrapping_add(1);
            *byte = next;
        }
    }
}

fn launching() -> Guest {
    let mut guest = Guest::new();
    guest.launch_start(&chip(), &START, &mut entropy()).unwrap();
    guest
}

/// One page of the host, prepared for guest 1, goes through the launch.
fn update(
    guest: &mut Guest,
    gpa: u64,
    update: &Update,
    page: &mut [u8; 4096],
) -> Result<Entry, Status> {
    let mut entries = [Entry::HYPERVISOR; 2];
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0x1000, NewState::pre_guest(1, gpa, PageSize::Size4K))
        .unwrap();
    guest.launch_update(&chip(), &mut rmp, 0x1000, update, page, &mut entropy())?;
    Ok(*rmp.entry(0x1000).unwrap())
}

fn vectors() -> Vec<(PageType, u64, [u8; 48])> {
    let hex = |text: &str| -> [u8; 48] {
        core::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    };
    let line = |line: &str| {
        let mut words = line.split(' ');
        let page_type = match words.next().unwrap() {
            "normal" => PageType::Normal,
            "zero" => PageType::Zero,
            "secrets" => PageType::Secrets,
            "cpuid" => PageType::Cpuid,
            "unmeasured" => PageType::Unmeasured,
            "vmsa" => PageType::Vmsa,
            other => panic!("{other}"),
        };
        let gpa = u64::from_str_radix(words.next().unwrap(), 16).unwrap();
        (page_type, gpa, hex(words.next().unwrap()))
    };
    include_str!("data/launch.txt").lines().map(line).collect()
}

fn contents(page_type: PageType, gpa: u64, first_vmsa: &mut bool) -> [u8; 4096] {
    match page_type {
        PageType::Normal => core::array::from_fn(|at| {
            u8::try_from((gpa / 4096 * 31 + u64::try_from(at).unwrap() * 7) % 251).unwrap()
        }),
        PageType::Vmsa => {
            let entry = if core::mem::take(first_vmsa) {
                0xffff_fff0
            } else {
                0xffff_a000
            };
            let vmsa = Vmsa::reset(entry, SIGNATURE, SevFeatures::SNP_ACTIVE);
            vmsa.as_bytes().try_into().unwrap()
        }
        _ => [0; 4096],
    }
}

#[test]
fn digests_agree_with_an_independent_calculator() {
    let (mut guest, mut measured, mut first_vmsa) = (launching(), Measurement::NOTHING, true);
    for (page_type, gpa, expected) in vectors() {
        let mut page = contents(page_type, gpa, &mut first_vmsa);
        measured.add_page(page_type, gpa, [0; 3], &page);
        assert_eq!(measured.0, expected, "{page_type:?} at {gpa:#x}");
        update(&mut guest, gpa, &Update::new(page_type), &mut page).unwrap();
        assert_eq!(guest.measurement(), measured);
    }
}

#[test]
fn an_identity_made_by_other_software_holds() {
    let block = IdBlock::read_from_bytes(include_bytes!("data/id-block.bin")).unwrap();
    let auth = IdAuth::read_from_bytes(include_bytes!("data/id-auth.bin")).unwrap();
    let keys = include_str!("data/id-keys.txt");
    let hex = |digest: [u8; 48]| digest.map(|byte| format!("{byte:02x}")).concat();
    assert!(keys.contains(&format!("id {}", hex(auth.id_key.digest()))));
    assert!(keys.contains(&format!("author {}", hex(auth.author_key.digest()))));
    let identity = |author| Identity {
        block: &block,
        auth: &auth,
        author,
    };

    let mut guest = launching();
    assert_eq!(
        guest.launch_finish(Some(identity(true)), [0; 32], false),
        Err(Status::BadMeasurement)
    );
    let mut first_vmsa = true;
    for (page_type, gpa, _) in vectors() {
        let mut page = contents(page_type, gpa, &mut first_vmsa);
        update(&mut guest, gpa, &Update::new(page_type), &mut page).unwrap();
    }
    let mut tampered = auth.clone();
    tampered.id_key_signature.s[0] ^= 1;
    let forged = Identity {
        auth: &tampered,
        ..identity(true)
    };
    assert_eq!(
        guest.launch_finish(Some(forged), [0; 32], false),
        Err(Status::BadSignature)
    );
    assert_eq!(guest.state(), GuestState::Launch);
    // The author's signature counts only where the host says so.
    let unsigned = Identity {
        author: false,
        ..forged
    };
    assert_eq!(
        guest.clone().launch_finish(Some(unsigned), [0; 32], false),
        Ok(())
    );
    guest
        .launch_finish(Some(identity(true)), [0; 32], false)
        .unwrap();
    assert_eq!(guest.state(), GuestState::Running);
}

#[test]
fn an_identity_for_another_policy_is_refused() {
    let mut guest = launching();
    let mut block = IdBlock {
        launch_digest: guest.measurement().0,
        family_id: [1; 16],
        image_id: [2; 16],
        version: 1.into(),
        guest_svn: 3.into(),
        policy: (Policy::DEFAULT | Policy::DEBUG).bits().into(),
    };
    let key = p384::ecdsa::SigningKey::from_slice(&[5; 48]).unwrap();
    let auth = IdAuth::sign(&block, &key, None);
    let finish = |guest: &mut Guest, block: &IdBlock, auth: &IdAuth| {
        guest.launch_finish(
            Some(Identity {
                block,
                auth,
                author: false,
            }),
            [0; 32],
            false,
        )
    };
    assert_eq!(
        finish(&mut guest, &block, &auth),
        Err(Status::PolicyFailure)
    );
    block.policy = Policy::DEFAULT.bits().into();
    assert_eq!(finish(&mut guest, &block, &auth), Err(Status::BadSignature));
    let mut auth = IdAuth::sign(&block, &key, None);
    auth.id_key_algorithm = 2.into();
    assert_eq!(finish(&mut guest, &block, &auth), Err(Status::InvalidParam));
    let auth = IdAuth::sign(&block, &key, None);
    assert_eq!(finish(&mut guest, &block, &auth), Ok(()));
}

#[test]
fn commands_in_the_wrong_order_fail() {
    let mut guest = Guest::new();
    let normal = Update::new(PageType::Normal);
    assert_eq!(
        update(&mut guest, 0, &normal, &mut [0; 4096]),
        Err(Status::InvalidGuestState)
    );
    assert_eq!(
        guest.launch_finish(None, [0; 32], false),
        Err(Status::InvalidGuestState)
    );
    guest.launch_start(&chip(), &START, &mut entropy()).unwrap();
    assert_eq!(
        guest.launch_start(&chip(), &START, &mut entropy()),
        Err(Status::InvalidGuestState)
    );
    guest.launch_finish(None, [0; 32], false).unwrap();
    assert_eq!(
        update(&mut guest, 0, &normal, &mut [0; 4096]),
        Err(Status::InvalidGuestState)
    );
}

#[test]
fn a_policy_that_the_machine_does_not_meet_is_refused() {
    let start = |chip: &Chip<_>, policy| {
        Guest::new().launch_start(chip, &Start { policy, ..START }, &mut entropy())
    };
    let refused = Err(Status::PolicyFailure);
    let machine = chip();
    assert_eq!(start(&machine, Policy::DEFAULT | Policy::DEBUG), Ok(()));
    assert_eq!(start(&machine, Policy::SMT), refused);
    assert_eq!(start(&machine, Policy::RESERVED_ONE), refused);
    assert_eq!(
        start(&machine, Policy::DEFAULT | Policy::RAPL_DISABLED),
        refused
    );
    assert_eq!(
        start(&machine, Policy::DEFAULT | Policy::MIGRATE_MA),
        refused
    );
    assert_eq!(
        start(
            &machine,
            Policy::DEFAULT | Policy::from_bits_retain(1 << 40)
        ),
        refused
    );
    assert_eq!(
        start(&machine, Policy::DEFAULT | Policy::from_bits_retain(0x200)),
        refused
    );
    assert_eq!(
        start(&machine, Policy::DEFAULT | Policy::from_bits_retain(0x137)),
        Ok(())
    );
    assert_eq!(
        start(&machine, Policy::DEFAULT | Policy::from_bits_retain(0x138)),
        refused
    );
    let single = Chip {
        info: PlatformInfo::RAPL_DISABLED,
        ..machine
    };
    assert_eq!(
        start(&single, Policy::RESERVED_ONE | Policy::RAPL_DISABLED),
        Ok(())
    );
}

#[test]
fn only_pages_that_the_host_prepared_for_this_guest_are_taken() {
    let mut guest = launching();
    let mut entries = [Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    let normal = Update::new(PageType::Normal);
    let mut run = |rmp: &mut Rmp<'_>, spa| {
        guest.launch_update(&chip(), rmp, spa, &normal, &mut [0; 4096], &mut entropy())
    };
    assert_eq!(run(&mut rmp, 1 << 40), Err(Status::InvalidAddress));
    assert_eq!(run(&mut rmp, 0x1000), Err(Status::InvalidPageState));
    rmp.rmpupdate(0x1000, NewState::guest(1, 0x1000, PageSize::Size4K))
        .unwrap();
    assert_eq!(run(&mut rmp, 0x1000), Err(Status::InvalidPageState));
    rmp.rmpupdate(0x2000, NewState::pre_guest(2, 0x2000, PageSize::Size4K))
        .unwrap();
    assert_eq!(run(&mut rmp, 0x2000), Err(Status::InvalidPageOwner));
    rmp.rmpupdate(
        0x20_0000,
        NewState::pre_guest(1, 0x20_0000, PageSize::Size2M),
    )
    .unwrap();
    assert_eq!(run(&mut rmp, 0x20_0000), Err(Status::InvalidPageSize));
    rmp.rmpupdate(0x3000, NewState::pre_guest(1, 0x3000, PageSize::Size4K))
        .unwrap();
    assert_eq!(run(&mut rmp, 0x3000), Ok(()));
    // It is the guest's now.
    assert_eq!(run(&mut rmp, 0x3000), Err(Status::InvalidPageState));
}

#[test]
fn pages_come_out_as_their_type_says() {
    let mut guest = launching();
    let mut zero = [7; 4096];
    let entry = update(&mut guest, 0, &Update::new(PageType::Zero), &mut zero).unwrap();
    assert_eq!((zero, entry.state()), ([0; 4096], State::GuestValid));

    let mut data = [7; 4096];
    update(&mut guest, 0, &Update::new(PageType::Unmeasured), &mut data).unwrap();
    assert_eq!(data, [7; 4096]);

    let mut secrets = [7; 4096];
    update(&mut guest, 0, &Update::new(PageType::Secrets), &mut secrets).unwrap();
    let secrets = SecretsPage::read_from_bytes(&secrets).unwrap();
    assert_eq!(secrets.fms.get(), SIGNATURE);
    assert_eq!(secrets.vmsa_tweak_bitmap, TweakBitmap::REGISTERS);
    assert_ne!(secrets.vmpck[0], secrets.vmpck[1]);

    let open = Update {
        page_type: PageType::Normal,
        permissions: [
            Permissions::READ,
            Permissions::empty(),
            Permissions::empty(),
        ],
    };
    let entry = update(&mut guest, 0, &open, &mut data).unwrap();
    assert_eq!(entry.permissions(Vmpl::VMPL1), Permissions::READ);
    assert_eq!(entry.permissions(Vmpl::VMPL2), Permissions::empty());
}

#[test]
fn a_cpuid_page_that_lies_comes_back_corrected_and_unmeasured() {
    let mut guest = launching();
    let before = guest.measurement();
    let lie = CpuidEntry::new(
        7,
        0,
        Registers {
            ebx: 1 << 16,
            ..Registers::default()
        },
    );
    let mut page: [u8; 4096] = CpuidPage::new(&[lie])
        .unwrap()
        .as_bytes()
        .try_into()
        .unwrap();
    let cpuid = Update::new(PageType::Cpuid);
    assert_eq!(
        update(&mut guest, 0, &cpuid, &mut page),
        Err(Status::InvalidParam)
    );
    assert_eq!(guest.measurement(), before);
    update(&mut guest, 0, &cpuid, &mut page).unwrap();
    let corrected = CpuidPage::read_from_bytes(&page).unwrap();
    assert_eq!(corrected.lookup(7, 0), Some(Registers::default()));
}

#[test]
fn a_save_area_is_measured_before_the_security_processor_touches_it() {
    let features = SevFeatures::SNP_ACTIVE | SevFeatures::SECURE_TSC | SevFeatures::VMSA_REG_PROT;
    let vmsa = Vmsa::reset(0xffff_fff0, SIGNATURE, features);
    let mut guest = Guest::new();
    let start = Start {
        tsc_khz: 1_000_000,
        ..START
    };
    guest.launch_start(&chip(), &start, &mut entropy()).unwrap();
    let mut page: [u8; 4096] = vmsa.as_bytes().try_into().unwrap();
    let entry = update(
        &mut guest,
        0xffff_ffff_f000,
        &Update::new(PageType::Vmsa),
        &mut page,
    )
    .unwrap();
    assert!(entry.is_vmsa());

    let mut expected = Measurement::NOTHING;
    expected.add_page(
        PageType::Vmsa,
        0xffff_ffff_f000,
        [0; 3],
        vmsa.as_bytes().try_into().unwrap(),
    );
    assert_eq!(guest.measurement(), expected);

    let mut launched = Vmsa::read_from_bytes(&page).unwrap();
    assert_eq!(launched.tsc_scale.get(), 1 << 31);
    assert_ne!(launched.rip, vmsa.rip);
    launched.tweak(&TweakBitmap::REGISTERS);
    assert_eq!(launched.rip, vmsa.rip);

    // The host may not know the scale, so it may not matter.
    let mut guessed = vmsa.clone();
    guessed.tsc_scale = 77.into();
    let mut same = Measurement::NOTHING;
    same.add_page(
        PageType::Vmsa,
        0xffff_ffff_f000,
        [0; 3],
        guessed.as_bytes().try_into().unwrap(),
    );
    assert_eq!(same, expected);
}

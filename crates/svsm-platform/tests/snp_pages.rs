//! Pages of SEV-SNP: our reading of the specifications against that of the simulator.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use proptest::prelude::*;
use svsm_platform::{
    addr::{Gpa, GpaRange},
    cpu::{
        cpuid::{Cpuid, Registers},
        cr::{Cr0, Cr4, Efer},
    },
    level::Vmpl,
    snp::{
        CpuidPage, SevFeatures, SevStatus,
        secrets::{SecretsPage, Svsm},
        vmsa::{Event, LongMode, TweakBitmap, VintrCtrl, Vmsa},
    },
};
use svsm_sim::{cpuid, secrets, vmsa};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const SNP: SevFeatures = SevFeatures::SNP_ACTIVE;

fn theirs(vmsa: &Vmsa) -> vmsa::Vmsa {
    vmsa::Vmsa::read_from_bytes(vmsa.as_bytes()).unwrap()
}

fn processor() -> vmsa::Processor {
    vmsa::Processor {
        features: vmsa::SevFeatures::all(),
        allowed: None,
        cr4: !0 >> 32,
        efer: 0x20_ffff,
        physical_bits: 52,
    }
}

#[test]
fn reset_vectors_are_the_same_to_the_byte() {
    let entry = 0xffff_fff0;
    let ours = Vmsa::reset_vector(entry, 0x00a0_0f11, Vmpl::Vmpl0, SNP);
    let other = vmsa::Vmsa::reset(entry, 0x00a0_0f11, vmsa::SevFeatures::SNP_ACTIVE);
    assert_eq!(ours.as_bytes(), other.as_bytes());
}

#[test]
fn cpus_of_an_svsm_run() {
    let start = LongMode {
        rip: 0x80_0000_0000,
        rsp: 0x80_0001_0000,
        rdi: 1,
        rsi: 0,
        cr3: 1 << 51 | 0x10_0000,
        cr0: Cr0::ET | Cr0::WP,
        cr4: Cr4::PAE | Cr4::PGE | Cr4::OSFXSR | Cr4::SMEP | Cr4::SMAP,
        efer: Efer::SCE | Efer::NXE,
    };
    let features = SNP | SevFeatures::RESTRICTED_INJECTION;
    let check = |start| theirs(&Vmsa::long_mode(Vmpl::Vmpl0, features, &start)).check(&processor());
    assert_eq!(check(start), Ok(()));
    // The check does look.
    let cr3 = 1 << 52;
    assert!(check(LongMode { cr3, ..start }).is_err());
}

#[test]
fn words_have_the_same_bits() {
    let ours = SevFeatures::all().iter().map(|bit| bit.bits());
    let others = vmsa::SevFeatures::all().iter().map(|bit| bit.bits());
    assert!(ours.eq(others));
    let ours = VintrCtrl::all();
    let ours = ours.iter_names().map(|(name, bits)| (name, bits.bits()));
    let others = vmsa::VintrCtrl::all();
    let others = others.iter_names().map(|(name, bits)| (name, bits.bits()));
    assert!(ours.eq(others));
}

#[test]
fn status_is_what_the_save_area_asks_for() {
    let features = SNP | SevFeatures::SECURE_TSC | SevFeatures::VMSA_REG_PROT;
    let vmsa = Vmsa::reset_vector(0, 0, Vmpl::Vmpl0, features);
    let status = SevStatus::from_bits(theirs(&vmsa).sev_status());
    assert!(status.is_snp());
    assert_eq!(status.features(), features);
}

#[test]
fn secrets_are_read_where_the_firmware_puts_them() {
    let page = secrets::SecretsPage::fill(&secrets::Secrets {
        signature: 0x00a0_0f11,
        gosvw: [7; 16],
        vmpck: [1, 2, 3, 4].map(|byte| secrets::Vmpck([byte; 32])),
        vmsa_tweak_bitmap: vmsa::TweakBitmap::REGISTERS,
        tsc_factor: 200,
    });
    let bytes: [u8; 4096] = page.as_bytes().try_into().unwrap();
    let ours = SecretsPage::view(&bytes).unwrap();
    assert_eq!((ours.version(), ours.signature()), (3, 0x00a0_0f11));
    assert_eq!((ours.gosvw(), ours.tsc_factor()), (&[7; 16], 200));
    assert_eq!(ours.tweak_bitmap().0, vmsa::TweakBitmap::REGISTERS.0);
    assert!(!ours.is_migration_image());
    for (level, byte) in Vmpl::ALL.into_iter().zip(1..) {
        assert_eq!(*ours.key(level).unwrap().expose(), [byte; 32]);
    }

    let svsm = Svsm {
        memory: GpaRange::new(Gpa::new(0x80_0000_0000).unwrap(), 0x100_0000).unwrap(),
        calling_area: Gpa::new(0x80_f000).unwrap(),
        max_version: 1,
        guest_level: Vmpl::Vmpl2,
    };
    let mut copy = [0; 4096];
    ours.write_for_guest(&svsm, &mut copy).unwrap();
    let mut expected = page.clone();
    expected.vmpck[..2].fill(secrets::Vmpck([0; 32]));
    expected.svsm_base = 0x80_0000_0000.into();
    expected.svsm_size = 0x100_0000.into();
    expected.svsm_caa = 0x80_f000.into();
    expected.svsm_max_version = 1.into();
    expected.svsm_guest_vmpl = 2;
    assert_eq!(copy, expected.as_bytes());
}

prop_compose! {
    fn question()(
        leaf in prop_oneof![
            Just(0_u32), Just(2), Just(4), Just(6), Just(7), Just(0xf), Just(0x1d), Just(0x8000_0008),
            Just(0x8000_001d), Just(0x8000_0020), Just(0x8000_0021),
        ],
        subleaf in 0_u32..4,
    ) -> (u32, u32) { (leaf, subleaf) }
}

proptest! {
    #[test]
    fn answers_are_found_alike(
        entries in prop::collection::vec((question(), any::<[u32; 4]>()), 0..=64),
        asked in question(),
    ) {
        let entries: Vec<_> = entries.iter().map(|((leaf, subleaf), [eax, ebx, ecx, edx])| {
            let out = cpuid::Registers { eax: *eax, ebx: *ebx, ecx: *ecx, edx: *edx };
            cpuid::CpuidEntry::new(*leaf, *subleaf, out)
        }).collect();
        let page = cpuid::CpuidPage::new(&entries).unwrap();
        let ours = CpuidPage::new(page.as_bytes()).unwrap();
        let (leaf, subleaf) = asked;
        let expected = page.lookup(leaf, subleaf).unwrap_or_default();
        let mut answer = ours.raw(leaf, subleaf);
        if (leaf, subleaf) == (7, 0) {
            // Follows from CR4.
            answer.ecx = answer.ecx & !(1 << 4) | expected.ecx & 1 << 4;
        }
        let cpuid::Registers { eax, ebx, ecx, edx } = expected;
        prop_assert_eq!(answer, Registers { eax, ebx, ecx, edx });
    }

    #[test]
    fn registers_are_blinded_alike(content in prop::collection::vec(any::<u8>(), 4096), bitmap in any::<[u8; 32]>()) {
        let mut ours = Vmsa::read_from_bytes(&content[..]).unwrap();
        let mut other = theirs(&ours);
        let mut map = [0; 64];
        map[..32].copy_from_slice(&bitmap);
        let mut other_map = vmsa::TweakBitmap::new_zeroed();
        other_map.0 = map;
        ours.tweak(&TweakBitmap(map));
        other.tweak(&other_map);
        prop_assert_eq!(ours.as_bytes(), other.as_bytes());
    }

    #[test]
    fn events_are_read_alike(bits in any::<u64>()) {
        let (ours, other) = (Event::from_bits(bits), vmsa::Injected(bits));
        prop_assert_eq!(ours.is_valid(), other.is_valid());
        prop_assert_eq!((ours.vector(), ours.kind(), ours.error_code()), (other.vector(), other.kind(), other.error_code()));
        let (ours, other) = (VintrCtrl::from_bits_retain(bits), vmsa::VintrCtrl::from_bits_retain(bits));
        prop_assert_eq!((ours.vector(), ours.task_priority()), (other.vector(), other.tpr()));
    }

    #[test]
    fn events_that_we_make_can_be_injected(vector in any::<u8>(), code in any::<Option<u32>>()) {
        let legal = |event: Event| vmsa::Injected(event.bits()).is_legal();
        prop_assert!(legal(Event::interrupt(vector)) && legal(Event::nmi()) && legal(Event::NONE));
        let forced = vmsa::Injected(1 << 31 | 3 << 8 | u64::from(vector));
        match Event::exception(vector, code) {
            Some(event) => prop_assert!(legal(event)),
            None => prop_assert!(!forced.is_legal()),
        }
    }
}

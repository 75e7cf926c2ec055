//! Files that others write, with all headers that the `igvm` crate knows.
#![cfg(test)]

use igvm::hv_defs::Vtl;
use igvm::registers::X86Register;
use igvm::snp_defs::SevVmsa;
use igvm::{IgvmDirectiveHeader as Directive, IgvmFile, IgvmInitializationHeader, IgvmRevision};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY,
    IGVM_VHS_SNP_ID_BLOCK_SIGNATURE, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags,
    IgvmPageDataType, IgvmPlatformType,
};
use svsm_igvm::file::ImageFile;
use svsm_igvm::inspect;
use svsm_igvm::inspect::Class;
use zerocopy::FromZeros;

const VSM: u32 = 1;
const SNP: u32 = 2;
const TDX: u32 = 4;

fn platform(
    mask: u32,
    kind: IgvmPlatformType,
    shared_gpa_boundary: u64,
) -> igvm::IgvmPlatformHeader {
    igvm::IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: mask,
        highest_vtl: 2,
        platform_type: kind,
        platform_version: 1,
        shared_gpa_boundary,
    })
}

fn initialization() -> Vec<IgvmInitializationHeader> {
    let policy = |policy, compatibility_mask| IgvmInitializationHeader::GuestPolicy {
        policy,
        compatibility_mask,
    };
    vec![
        policy(0x3_0000, SNP),
        policy(2, TDX),
        IgvmInitializationHeader::RelocatableRegion {
            compatibility_mask: VSM,
            relocation_alignment: 0x20_0000,
            relocation_region_gpa: 0x800_0000,
            relocation_region_size: 0x100_0000,
            minimum_relocation_gpa: 0,
            maximum_relocation_gpa: 0x1_0000_0000,
            is_vtl2: true,
            apply_rip_offset: true,
            apply_gdtr_offset: true,
            vp_index: 0,
            vtl: Vtl::Vtl2,
        },
        IgvmInitializationHeader::PageTableRelocationRegion {
            compatibility_mask: VSM,
            gpa: 0xa00_0000,
            size: 0x1_0000,
            used_size: 0x3000,
            vp_index: 0,
            vtl: Vtl::Vtl2,
        },
    ]
}

fn directives() -> Vec<Directive> {
    let at = |byte_offset| IGVM_VHS_PARAMETER {
        parameter_area_index: 7,
        byte_offset,
    };
    let page = |gpa, compatibility_mask, data_type, flags| Directive::PageData {
        gpa,
        compatibility_mask,
        flags,
        data_type,
        data: vec![1; 4096],
    };
    let all = VSM | SNP | TDX;
    let unmeasured = IgvmPageDataFlags::new().with_unmeasured(true);
    vec![
        Directive::RequiredMemory {
            gpa: 0x800_0000,
            compatibility_mask: all,
            number_of_bytes: 0x200_0000,
            vtl2_protectable: true,
        },
        Directive::ParameterArea {
            number_of_bytes: 0x2000,
            parameter_area_index: 7,
            initial_data: vec![5; 100],
        },
        Directive::VpCount(at(0)),
        Directive::EnvironmentInfo(at(8)),
        Directive::Srat(at(0x100)),
        Directive::Madt(at(0x200)),
        Directive::Slit(at(0x300)),
        Directive::Pptt(at(0x400)),
        Directive::MmioRanges(at(0x500)),
        Directive::MemoryMap(at(0x600)),
        Directive::CommandLine(at(0x700)),
        Directive::DeviceTree(at(0x1000)),
        Directive::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: 0x801_0000,
            compatibility_mask: all,
            parameter_area_index: 7,
        }),
        Directive::ErrorRange {
            gpa: 0x802_0000,
            compatibility_mask: all,
            size_bytes: 0x1000,
        },
        page(
            0x803_0000,
            all,
            IgvmPageDataType::NORMAL,
            IgvmPageDataFlags::new(),
        ),
        page(0x803_1000, all, IgvmPageDataType::NORMAL, unmeasured),
        page(
            0x803_2000,
            SNP,
            IgvmPageDataType::SECRETS,
            IgvmPageDataFlags::new(),
        ),
        page(
            0x803_3000,
            SNP,
            IgvmPageDataType::CPUID_DATA,
            IgvmPageDataFlags::new(),
        ),
        page(
            0x803_4000,
            SNP,
            IgvmPageDataType::CPUID_XF,
            IgvmPageDataFlags::new(),
        ),
        Directive::SnpVpContext {
            gpa: 0xffff_ffff_f000,
            compatibility_mask: SNP,
            vp_index: 0,
            vmsa: SevVmsa::new_box_zeroed().unwrap(),
        },
        Directive::X64VbsVpContext {
            vtl: Vtl::Vtl2,
            registers: vec![X86Register::Rip(0x803_0000), X86Register::Rsp(0)],
            compatibility_mask: VSM,
        },
        id_block(),
        Directive::VbsMeasurement {
            compatibility_mask: VSM,
            version: 1,
            product_id: 2,
            module_id: 3,
            security_version: 4,
            policy_flags: 0,
            boot_digest_algo: 1,
            signing_algo: 1,
            boot_measurement_digest: Box::new([0; 64]),
            signature: Box::new([0; 256]),
            public_key: Box::new([0; 512]),
        },
    ]
}

fn id_block() -> Directive {
    let key = || IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY::new_box_zeroed().unwrap();
    let signature = || IGVM_VHS_SNP_ID_BLOCK_SIGNATURE::new_box_zeroed().unwrap();
    Directive::SnpIdBlock {
        compatibility_mask: SNP,
        author_key_enabled: 0,
        reserved: [0; 3],
        ld: [0xab; 48],
        family_id: [0; 16],
        image_id: [0; 16],
        version: 1,
        guest_svn: 9,
        id_key_algorithm: 1,
        author_key_algorithm: 0,
        id_key_signature: signature(),
        id_public_key: key(),
        author_key_signature: signature(),
        author_public_key: key(),
    }
}

fn bytes() -> Vec<u8> {
    let platforms = vec![
        platform(VSM, IgvmPlatformType::VSM_ISOLATION, 0),
        platform(SNP, IgvmPlatformType::SEV_SNP, 1 << 46),
        platform(TDX, IgvmPlatformType::TDX, 1 << 47),
    ];
    let file = IgvmFile::new(IgvmRevision::V1, platforms, initialization(), directives()).unwrap();
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).unwrap();
    bytes
}

#[test]
fn every_header_of_others_is_known() {
    let bytes = bytes();
    let file = ImageFile::read(&bytes).unwrap();
    assert_eq!(
        file.headers().len(),
        3 + initialization().len() + directives().len()
    );
    assert!(
        file.headers()
            .iter()
            .all(|header| header.kind.name().is_some())
    );
    let inspection = inspect(&bytes).unwrap();
    assert_eq!(inspection.remarks, Vec::<String>::new());
    assert_eq!(svsm_igvm::diff(&file, &file), []);
}

#[test]
fn what_they_say_is_shown() {
    let inspection = inspect(&bytes()).unwrap();
    let [vsm, snp, tdx] = &inspection.platforms[..] else {
        panic!("three platforms")
    };
    assert_eq!(
        (vsm.launch_pages, snp.launch_pages, tdx.launch_pages),
        (4, 8, 4)
    );
    assert_eq!(snp.pages[&Class::Context], 1);
    assert_eq!(snp.pages[&Class::Cpuid], 2);
    assert_eq!(tdx.shared_gpa_boundary, 1 << 47);
    let text = inspection.to_string();
    for line in [
        "GUEST_POLICY      snp  policy=0x30000",
        "RELOCATABLE_REGION  vsm  0x8000000..0x9000000  4096 pages  alignment=0x200000  \
         allowed=0x0..0x100000000",
        "PAGE_TABLE_RELOCATION_REGION  vsm  0xa000000..0xa010000  16 pages  used-bytes=12288",
        "PARAMETER_AREA    area=7  bytes=0x2000  starts-with=file data",
        "REQUIRED_MEMORY   vsm+snp+tdx  0x8000000..0xa000000  8192 pages  required-memory  \
         vtl2-protectable=yes",
        "VP_CONTEXT        snp  0xfffffffff000..0x1000000000000  1 page  context  vp=0",
        "guest-svn=9  launch-digest=abababab",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

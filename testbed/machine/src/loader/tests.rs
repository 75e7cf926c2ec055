use super::*;
use crate::addr::{Gpa, GpaRange};
use crate::cmdline::Platform;
use crate::layout::GuestRam;
use crate::phys::fake::Ram;
use igvm::{Arch, IgvmDirectiveHeader as Directive, IgvmFile, IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM,
    IgvmNativeVpContextX64, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType,
};
use proptest::prelude::*;
use zerocopy::FromZeros;

const NATIVE: u32 = 2;
const SNP: u32 = 1;
const RAM_BYTES: usize = 1 << 20;

fn ram() -> GuestRam {
    let mut ram = GuestRam::new();
    ram.insert(GpaRange::from_u64(0, RAM_BYTES as u64).unwrap())
        .unwrap();
    ram
}

fn platform(kind: IgvmPlatformType, mask: u32) -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: mask,
        highest_vtl: 0,
        platform_type: kind,
        platform_version: 1,
        shared_gpa_boundary: 0,
    })
}

fn page(gpa: u64, mask: u32, data: &[u8]) -> Directive {
    Directive::PageData {
        gpa,
        compatibility_mask: mask,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data: data.to_vec(),
    }
}

fn context() -> Directive {
    let mut context = IgvmNativeVpContextX64::new_zeroed();
    context.rip = 0x1234;
    Directive::X64NativeVpContext {
        compatibility_mask: NATIVE,
        vp_index: 0,
        context: Box::new(context),
    }
}

fn area(index: u32, pages: u64) -> Directive {
    Directive::ParameterArea {
        number_of_bytes: pages * 4096,
        parameter_area_index: index,
        initial_data: vec![],
    }
}

fn at(index: u32, byte_offset: u32) -> IGVM_VHS_PARAMETER {
    IGVM_VHS_PARAMETER {
        parameter_area_index: index,
        byte_offset,
    }
}

fn insert(index: u32, gpa: u64) -> Directive {
    Directive::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
        gpa,
        compatibility_mask: NATIVE,
        parameter_area_index: index,
    })
}

fn file(directives: Vec<Directive>) -> Vec<u8> {
    let revision = IgvmRevision::V2 {
        arch: Arch::X64,
        page_size: 4096,
    };
    let platforms = vec![
        platform(IgvmPlatformType::SEV_SNP, SNP),
        platform(IgvmPlatformType::NATIVE, NATIVE),
    ];
    let mut bytes = Vec::new();
    IgvmFile::new(revision, platforms, vec![], directives)
        .unwrap()
        .serialize(&mut bytes)
        .unwrap();
    bytes
}

/// All kinds of directives that a native file can have.
fn rich() -> Vec<u8> {
    file(vec![
        Directive::RequiredMemory {
            gpa: 1 << 39,
            compatibility_mask: NATIVE,
            number_of_bytes: 0x20_0000,
            vtl2_protectable: false,
        },
        area(0, 1),
        area(7, 4),
        Directive::VpCount(at(0, 8)),
        Directive::EnvironmentInfo(at(0, 12)),
        Directive::MmioRanges(at(0, 16)),
        Directive::MemoryMap(at(0, 0x100)),
        Directive::CommandLine(at(0, 0x800)),
        Directive::Madt(at(7, 0)),
        Directive::Srat(at(7, 0x1000)),
        Directive::Slit(at(7, 0x2000)),
        Directive::Pptt(at(7, 0x2100)),
        Directive::DeviceTree(at(7, 0x3000)),
        insert(0, 0x2000),
        insert(7, 0x8000),
        page(0x1000, NATIVE | SNP, b"data"),
        page(0x6000, NATIVE, b""),
        page(0x6000, SNP, b"not for us"),
        context(),
    ])
}

fn load(bytes: &[u8]) -> Result<(IgvmNativeVpContextX64, Ram, PageCounts), LoadError> {
    let ram_ranges = ram();
    let mut plan = Plan::new(File::new(bytes)?, Platform::Native, &ram_ranges)?;
    let mut memory = Ram::new(RAM_BYTES);
    let facts = Facts {
        apic_ids: &[0, 1],
        ram: &ram_ranges,
        mmio: GpaRange::from_u64(0xc000_0000, 1 << 32).unwrap(),
        command_line: "quiet",
    };
    let context = plan.apply(&facts, &mut memory, &mut NoLaunch)?;
    let Context::Native(context) = context else {
        unreachable!("the platform is native")
    };
    Ok((context, memory, plan.pages()))
}

fn refusal(directives: Vec<Directive>) -> Reason {
    load(&file(directives)).err().unwrap().reason
}

/// Repairs the checksum, so that what is behind it is reached.
fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (start, len) = (word(8), word(12));
    bytes[20..24].fill(0);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..if bytes[4] == 1 { 24 } else { 32 }]);
    if let Some(headers) = start.checked_add(len).and_then(|end| bytes.get(start..end)) {
        hasher.update(headers);
    }
    let sum = hasher.finalize().to_le_bytes();
    bytes[20..24].copy_from_slice(&sum);
    bytes
}

#[test]
fn everything_a_native_file_can_ask_for_is_done() {
    let (context, memory, pages) = load(&rich()).unwrap();
    assert_eq!(context.rip, 0x1234);
    assert_eq!(
        pages,
        PageCounts {
            data: 1,
            zero: 1,
            parameter: 5,
            ..PageCounts::default()
        }
    );
    let bytes = |at: usize, len: usize| &memory.0[at..at + len];
    assert_eq!(bytes(0x1000, 5), b"data\0");
    assert!(bytes(0x6000, 4096).iter().all(|byte| *byte == 0));
    assert_eq!(bytes(0x2008, 8), [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        bytes(0x2010, 16),
        [0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]
    );
    let word = |at| u64::from_le_bytes(bytes(at, 8).try_into().unwrap());
    let map: Vec<_> = (0..3)
        .map(|i| (word(0x2100 + i * 24), word(0x2108 + i * 24)))
        .collect();
    assert_eq!(map, [(0, 256), (1 << 27, 512), (0, 0)]);
    assert_eq!(bytes(0x2800, 6), b"quiet\0");
    for (offset, mark) in [
        (0, b"APIC"),
        (0x1000, b"SRAT"),
        (0x2000, b"SLIT"),
        (0x2100, b"PPTT"),
    ] {
        assert_eq!(bytes(0x8000 + offset, 4), mark);
    }
    assert_eq!(bytes(0xb000, 4), [0xd0, 0x0d, 0xfe, 0xed]);
    // What nobody filled is as it was.
    assert_eq!(bytes(0x4000, 1), [0xcc]);
}

#[test]
fn initial_data_of_an_area_stays_around_its_parameters() {
    let (_, memory, _) = load(&file(vec![
        Directive::ParameterArea {
            number_of_bytes: 4096,
            parameter_area_index: 3,
            initial_data: vec![0xee; 16],
        },
        Directive::VpCount(at(3, 4)),
        insert(3, 0x5000),
        context(),
    ]))
    .unwrap();
    assert_eq!(
        memory.0[0x5000..0x500c],
        [0xee, 0xee, 0xee, 0xee, 2, 0, 0, 0, 0xee, 0xee, 0xee, 0xee]
    );
    assert_eq!(memory.0[0x5010], 0);
}

#[test]
fn memory_beside_ram_is_asked_for() {
    let bytes = file(vec![
        page(1 << 40, NATIVE, b"x"),
        page(0xf_f000, NATIVE, b"x"),
        context(),
    ]);
    let plan = Plan::new(File::new(&bytes).unwrap(), Platform::Native, &ram()).unwrap();
    let backed: Vec<_> = plan.backed().iter().collect();
    assert_eq!(
        backed,
        [GpaRange::new(Gpa::new(1 << 40).unwrap(), 4096).unwrap()]
    );
    let error = load(&bytes).err().unwrap();
    assert_eq!(error.reason, Reason::NoMemory(1 << 40));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    assert_eq!(refusal(vec![page(0, NATIVE, b"")]), Reason::NoContext);
    assert_eq!(
        refusal(vec![page(0, NATIVE, b""), page(0, NATIVE, b"x"), context()]),
        Reason::Overlap(0)
    );
    assert_eq!(
        refusal(vec![
            area(0, 1),
            insert(0, 0x1000),
            page(0x1000, NATIVE, b""),
            context()
        ]),
        Reason::Overlap(0x1000)
    );
    assert_eq!(
        refusal(vec![page(0xfee0_0000, NATIVE, b""), context()]),
        Reason::OverDevice(0xfee0_0000)
    );
    assert_eq!(
        refusal(vec![
            page((1 << 52) - 4096, NATIVE, b""),
            page(1 << 52, NATIVE, b""),
            context()
        ]),
        Reason::Address(1 << 52)
    );
    assert_eq!(refusal(vec![context(), context()]), Reason::Second(0x304));
    assert_eq!(
        refusal(vec![
            area(0, 1),
            Directive::VpCount(at(0, 4093)),
            insert(0, 0),
            context()
        ]),
        Reason::DoesNotFit { needs: 4, has: 3 }
    );
    assert_eq!(
        refusal(vec![
            area(0, 1),
            Directive::Madt(at(0, 4000)),
            insert(0, 0),
            context()
        ]),
        Reason::DoesNotFit {
            needs: 128,
            has: 96
        }
    );
    let mut cpuid = page(0, NATIVE, b"");
    if let Directive::PageData { data_type, .. } = &mut cpuid {
        *data_type = IgvmPageDataType::CPUID_DATA;
    }
    assert_eq!(refusal(vec![cpuid, context()]), Reason::PageType(2));
}

#[test]
fn an_image_for_other_platforms_is_refused() {
    let revision = IgvmRevision::V2 {
        arch: Arch::X64,
        page_size: 4096,
    };
    let platforms = vec![platform(IgvmPlatformType::SEV_SNP, SNP)];
    let mut bytes = Vec::new();
    IgvmFile::new(revision, platforms, vec![], vec![page(0, SNP, b"")])
        .unwrap()
        .serialize(&mut bytes)
        .unwrap();
    assert_eq!(load(&bytes).err().unwrap().reason, Reason::NoPlatform);
}

#[test]
fn the_error_names_the_place() {
    let bytes = file(vec![page(0, NATIVE, b"abc"), context()]);
    // The third header, behind the fixed header and two platforms of 24 bytes.
    let offset = 32 + 2 * 24;
    let broken = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        load(&checked(bytes)).err().unwrap()
    };
    let expect = |reason| LoadError {
        offset: offset as u64,
        reason,
    };
    assert_eq!(broken(offset + 8, 1), expect(Reason::Unaligned(1)));
    assert_eq!(broken(offset, 0x06), expect(Reason::Unknown(0x306)));
    assert_eq!(broken(offset, 0x14), expect(Reason::Unknown(0x314)));
    assert_eq!(
        broken(offset + 4, 25),
        expect(Reason::Length {
            kind: 0x302,
            bytes: 25
        })
    );
    assert_eq!(broken(offset + 7, 0xff), expect(Reason::Truncated));
    assert_eq!(broken(offset + 27, 1), expect(Reason::Reserved));
    assert_eq!(broken(offset + 24, 1), expect(Reason::LargePage));
    assert_eq!(
        broken(offset + 23, 0xff).reason,
        Reason::Data(u32::from_le_bytes([
            bytes[offset + 20],
            bytes[offset + 21],
            bytes[offset + 22],
            0xff
        ]))
    );
    assert_eq!(
        broken(offset + 1, 1),
        expect(Reason::Length {
            kind: 0x102,
            bytes: 24
        })
    );
    let mut unchecked = bytes.clone();
    unchecked[offset] ^= 1;
    assert!(matches!(
        load(&unchecked).err().unwrap().reason,
        Reason::Checksum { .. }
    ));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = rich();
    for len in (0..bytes.len()).step_by(7) {
        assert!(load(&bytes[..len]).is_err(), "{len}");
        assert!(
            len < 32 || load(&checked(bytes[..len].to_vec())).is_err(),
            "{len}"
        );
    }
}

#[test]
fn format_version_1_is_read_too() {
    // The `igvm` crate has no native context in version 1; the frame is the same otherwise.
    let v2 = file(vec![page(0x1000, NATIVE, b"data"), context()]);
    let word = |at: usize| u32::from_le_bytes(v2[at..at + 4].try_into().unwrap());
    let mut v1 = v2.clone();
    v1[4] = 1;
    // The headers stay where they are: they need not follow the fixed header at once.
    assert_eq!(word(8), 32);
    let (context, memory, _) = load(&checked(v1)).unwrap();
    assert_eq!(context.rip, 0x1234);
    assert_eq!(&memory.0[0x1000..0x1004], b"data");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is changed: no panic, and never more memory touched than there is.
    #[test]
    fn mutated_files_are_loaded_or_refused(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        repair in any::<bool>(),
        headers_only in any::<bool>(),
    ) {
        let mut bytes = rich();
        let reach = if headers_only { 800 } else { bytes.len() };
        for (at, value) in hits {
            let at = at.index(reach);
            bytes[at] = value;
        }
        let bytes = if repair { checked(bytes) } else { bytes };
        let _ = load(&bytes);
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(load(&bytes).is_err());
    }
}

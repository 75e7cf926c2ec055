//! From manifests and programs to images.
#![cfg(test)]

#[path = "support/elf.rs"]
mod elf;

use std::io;
use std::path::Path;

use elf::{EXECUTE, READ, WRITE, load};
use svsm_igvm::file::{Body, HeaderType, ImageFile, PageData, PageType};
use svsm_igvm::manifest::{Platform, Size};
use svsm_igvm::report::{Kind, Total};
use svsm_igvm::{Error, Image, Loader, Manifest, Options, build_with, diff, inspect};
use svsm_stage2::handoff::{self, EncryptionKind, Handoff};
use svsm_stage2::region::Parameter;

const IMAGE: u64 = 0xffff_ffff_8000_0000;

const MANIFEST: &str = r#"
platforms = ["native"]
[svsm]
elf = "svsm"
[stage2]
elf = "stage2"
[[service]]
name = "init"
elf = "init"
[parameters]
vp_count = "4 KiB"
memory_map = "8 KiB"
madt = { size = "4 KiB", optional = true }
command_line = { size = "4 KiB", optional = true }
"#;

fn manifest() -> Manifest {
    Manifest::parse(MANIFEST, "image.toml").unwrap()
}

fn stage2() -> Vec<u8> {
    elf::file(
        0x1_0010,
        &[
            load(READ | EXECUTE, 0x8000, &[0xfa; 0x80], 0x80),
            load(READ | EXECUTE, 0x1_0000, &[0xf4; 0x1234], 0x1234),
            load(READ | WRITE, 0x1_2000, b"", 0x1000),
            elf::build_id(&[2; 20]),
        ],
    )
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("svsm") => Ok(elf::program(IMAGE)),
        Some("stage2") => Ok(stage2()),
        Some("init") => Ok(elf::program(0x40_0000)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn image(manifest: &Manifest) -> Image {
    build_with(manifest, &Options::new(Loader::Machine), read).unwrap()
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Manifest), loader: Loader) -> String {
    let mut manifest = manifest();
    change(&mut manifest);
    build_with(&manifest, &Options::new(loader), read)
        .expect_err("should be refused")
        .to_string()
}

/// The page at an address.
fn page<'f>(file: &'f ImageFile<'_>, gpa: u64) -> &'f PageData<'f> {
    let mut pages = file
        .headers()
        .iter()
        .filter_map(|header| match &header.body {
            Body::PageData(page) if page.gpa == gpa => Some(page),
            _ => None,
        });
    pages
        .next()
        .unwrap_or_else(|| panic!("no page at {gpa:#x}"))
}

fn handoff(file: &ImageFile<'_>) -> Handoff {
    let rdi = inspect_register(file, 56);
    Handoff::parse(page(file, rdi).data.unwrap()).unwrap()
}

fn inspect_register(file: &ImageFile<'_>, offset: usize) -> u64 {
    let context = file.headers().last().unwrap();
    let Body::VpContext(context) = &context.body else {
        panic!("no context")
    };
    u64::from_le_bytes(context.data[offset..offset + 8].try_into().unwrap())
}

/// Where page tables of the file lead from a virtual address, and whether the
/// page is writable and executable.
fn translate(file: &ImageFile<'_>, root: u64, address: u64) -> Option<(u64, bool, bool)> {
    let mut table = root;
    let (mut writable, mut executable) = (true, true);
    for shift in [39, 30, 21, 12] {
        let index = (address >> shift & 0x1ff) as usize * 8;
        let data = page(file, table).data.unwrap();
        let entry = u64::from_le_bytes(data[index..index + 8].try_into().unwrap());
        if entry & 1 == 0 {
            return None;
        }
        writable &= entry & 2 != 0;
        executable &= entry >> 63 == 0;
        table = entry & 0x000f_ffff_ffff_f000;
        if shift != 12 && entry & 0x80 != 0 {
            let mask = (1u64 << shift) - 1;
            return Some((table & !mask | address & mask, writable, executable));
        }
    }
    Some((table | address & 0xfff, writable, executable))
}

#[test]
fn same_input_makes_the_same_bytes() {
    let (first, second) = (image(&manifest()), image(&manifest()));
    assert_eq!(first, second);
}

#[test]
fn others_can_read_the_image() {
    let bytes = image(&manifest()).bytes;
    let filter = Some(igvm::IsolationType::NotIsolated);
    let file = igvm::IgvmFile::new_from_binary(&bytes, filter).unwrap();
    assert_eq!(file.platforms().len(), 1);
    let ours = ImageFile::read(&bytes).unwrap();
    assert_eq!(file.directives().len(), ours.headers().len() - 1);
    let mut again = Vec::new();
    file.serialize(&mut again).unwrap();
    assert_eq!(again, bytes);
}

#[test]
fn nothing_about_the_image_is_strange() {
    assert_eq!(
        inspect(&image(&manifest()).bytes).unwrap().remarks,
        Vec::<String>::new()
    );
}

#[test]
fn directives_stand_in_the_order_that_all_loaders_measure_alike() {
    let bytes = image(&manifest()).bytes;
    let file = ImageFile::read(&bytes).unwrap();
    let mut kinds: Vec<_> = file.headers().iter().map(|header| header.kind).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            HeaderType::SUPPORTED_PLATFORM,
            HeaderType::REQUIRED_MEMORY,
            HeaderType::PARAMETER_AREA,
            HeaderType::VP_COUNT,
            HeaderType::MEMORY_MAP,
            HeaderType::MADT,
            HeaderType::COMMAND_LINE,
            HeaderType::PARAMETER_INSERT,
            HeaderType::PAGE_DATA,
            HeaderType::VP_CONTEXT,
        ]
    );
    let gpas: Vec<_> = file
        .headers()
        .iter()
        .filter_map(|header| match &header.body {
            Body::PageData(page) => {
                assert!(page.data.is_some(), "zeros are written out");
                Some(page.gpa)
            }
            _ => None,
        })
        .collect();
    assert!(gpas.is_sorted());
}

#[test]
fn the_first_processor_starts_at_stage2_with_the_hand_off() {
    let bytes = image(&manifest()).bytes;
    let file = ImageFile::read(&bytes).unwrap();
    let handoff = handoff(&file);
    assert_eq!(inspect_register(&file, 128), 0x1_0010, "rip");
    let cr3 = inspect_register(&file, 208);
    assert_eq!(cr3, handoff.stage2_tables.start().as_u64());
    // Code is mapped as it is linked, the stack below RSP is writable.
    assert_eq!(
        translate(&file, cr3, 0x1_0010),
        Some((0x1_0010, false, true))
    );
    let rsp = inspect_register(&file, 32);
    assert_eq!(translate(&file, cr3, rsp - 8), Some((rsp - 8, true, false)));
    assert_eq!(translate(&file, cr3, 0), None);
}

#[test]
fn the_svsm_is_mapped_where_it_is_linked_with_the_rights_it_has() {
    let bytes = image(&manifest()).bytes;
    let file = ImageFile::read(&bytes).unwrap();
    let handoff = handoff(&file);
    let root = handoff.root().as_u64();
    for (offset, rights, contents) in [
        (0x0000, (false, true), &[0xf4; 4][..]),
        (0x1000, (false, false), b"constants"),
        (0x2000, (true, false), b"variables"),
        (0x3000, (true, false), &[0; 4]),
    ] {
        let (gpa, writable, executable) = translate(&file, root, IMAGE + offset).unwrap();
        assert_eq!((writable, executable), rights, "{offset:#x}");
        assert!(
            page(&file, gpa).data.unwrap().starts_with(contents),
            "{offset:#x}"
        );
    }
    assert_eq!(translate(&file, root, IMAGE + 0x4000), None);
    // Above and below the stack is nothing.
    let stack = handoff.boot_stack.gva_range();
    assert_eq!(stack.len_bytes(), 64 << 10);
    assert!(translate(&file, root, stack.start().as_u64()).unwrap().1);
    assert_eq!(translate(&file, root, stack.start().as_u64() - 1), None);
    assert_eq!(translate(&file, root, stack.end().as_u64()), None);
    // Free memory is mapped, but not loaded.
    let heap = handoff.heap;
    let last = heap.gva_range().end().as_u64() - 1;
    let (gpa, writable, executable) = translate(&file, root, last).unwrap();
    assert_eq!(gpa, handoff.svsm.end().as_u64() - 1);
    assert!(writable && !executable);
}

#[test]
fn parameters_go_where_the_hand_off_says() {
    let bytes = image(&manifest()).bytes;
    let file = ImageFile::read(&bytes).unwrap();
    let handoff = handoff(&file);
    let inserted: Vec<_> = file
        .headers()
        .iter()
        .filter_map(|header| match &header.body {
            Body::ParameterInsert(insert) => Some(insert.gpa),
            _ => None,
        })
        .collect();
    let told: Vec<_> = Parameter::ALL
        .into_iter()
        .filter_map(|parameter| handoff.parameter(parameter))
        .map(|area| area.gpa().as_u64())
        .collect();
    assert_eq!(inserted, told);
    assert_eq!(
        handoff.parameter(Parameter::MemoryMap).unwrap().len_bytes(),
        8192
    );
    assert_eq!(handoff.parameter(Parameter::DeviceTree), None);
}

#[test]
fn the_archive_holds_the_services_without_symbols() {
    let bytes = image(&manifest()).bytes;
    let file = ImageFile::read(&bytes).unwrap();
    let archive = handoff(&file).archive.unwrap();
    let data = page(&file, archive.gpa().as_u64()).data.unwrap();
    assert!(data.starts_with(b"070701"));
    assert_eq!(&data[110..115], b"init\0");
    assert_eq!(&data[116..120], b"\x7fELF");
}

#[test]
fn an_image_may_have_no_services_and_no_parameters() {
    let mut manifest = manifest();
    manifest.services.clear();
    manifest.parameters = Default::default();
    let bytes = image(&manifest).bytes;
    let file = ImageFile::read(&bytes).unwrap();
    assert_eq!(handoff(&file).archive, None);
    assert!(
        file.headers()
            .iter()
            .all(|header| header.kind != HeaderType::PARAMETER_AREA)
    );
}

#[test]
fn the_manifest_changes_the_hand_off() {
    let mut changed = manifest();
    changed.debug = true;
    changed.svsm.base = 0x1_4000_0000;
    changed.native.console_port = 0x2f8;
    let bytes = image(&changed).bytes;
    let handoff = handoff(&ImageFile::read(&bytes).unwrap());
    assert!(handoff.debug);
    assert_eq!(handoff.svsm.start().as_u64(), 0x1_4000_0000);
    assert_eq!(handoff.console_port, Some(0x2f8));
    let before = image(&manifest()).bytes;
    let (before, after) = (
        ImageFile::read(&before).unwrap(),
        ImageFile::read(&bytes).unwrap(),
    );
    assert!(!diff(&before, &after).is_empty());
}

#[test]
fn large_regions_are_asked_for_in_parts() {
    let mut manifest = manifest();
    manifest.svsm.size = Size::new(5 << 30);
    let bytes = image(&manifest).bytes;
    let inspection = inspect(&bytes).unwrap();
    let required: Vec<_> = inspection
        .directives
        .iter()
        .filter(|facts| facts.kind == "REQUIRED_MEMORY")
        .collect();
    assert_eq!(required.len(), 3);
    assert_eq!(
        required[2].memory.unwrap().end(),
        0x80_0000_0000 + (5 << 30)
    );
}

#[test]
fn the_report_counts_every_page() {
    let image = image(&manifest());
    let kinds: std::collections::BTreeMap<_, _> = image
        .report
        .kinds
        .iter()
        .map(|line| (line.what, line.is))
        .collect();
    assert_eq!(kinds[&Kind::Code], 1);
    assert_eq!(kinds[&Kind::ReadOnlyData], 1);
    assert_eq!(kinds[&Kind::Data], 2);
    assert_eq!(kinds[&Kind::Stacks], 16);
    assert_eq!(kinds[&Kind::HandOff], 1);
    assert_eq!(kinds[&Kind::Parameters], 5);
    let total = |what| {
        image
            .report
            .totals
            .iter()
            .find(|line| line.what == what)
            .unwrap()
            .is
    };
    assert_eq!(total(Total::Pages), kinds.values().sum::<u64>());
    assert_eq!(total(Total::LaunchPages), total(Total::Pages));
    assert_eq!(total(Total::MeasuredPages), total(Total::Pages) - 5);
    assert_eq!(total(Total::FileBytes), image.bytes.len() as u64);
}

#[test]
fn a_budget_fails_the_build_with_a_table() {
    let message = refused(|manifest| manifest.budgets.pages = Some(3), Loader::Machine);
    assert!(
        message.starts_with("the image exceeds its budget\nkind "),
        "{message}"
    );
    assert!(message.contains("  exceeded"), "{message}");
    refused(
        |manifest| manifest.budgets.file = Some(Size::new(4096)),
        Loader::Machine,
    );
    refused(
        |manifest| manifest.budgets.launch_pages = Some(1),
        Loader::Machine,
    );
    refused(
        |manifest| manifest.budgets.measured_pages = Some(1),
        Loader::Machine,
    );
    refused(
        |manifest| manifest.budgets.kinds = [(Kind::Code, 0)].into(),
        Loader::Machine,
    );
}

#[test]
fn symbols_name_the_programs_of_the_image() {
    let symbols = serde_json::to_value(image(&manifest()).symbols).unwrap();
    let images = symbols["images"].as_array().unwrap();
    let names: Vec<_> = images
        .iter()
        .map(|image| image["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["stage2", "svsm", "init"]);
    assert_eq!(images[0]["build_id"], "02".repeat(20));
    assert_eq!(images[2]["kind"], "service");
    assert!(Path::new(images[1]["elf"].as_str().unwrap()).is_absolute());
}

#[test]
fn loaders_refuse_what_they_do_not_take() {
    let need_tree = |manifest: &mut Manifest| {
        manifest.parameters.device_tree = manifest.parameters.vp_count;
    };
    assert_eq!(
        refused(need_tree, Loader::Qemu),
        "the loader qemu does not take the directive DEVICE_TREE, which parameters.device_tree \
         needs"
    );
    let mut with_tree = manifest();
    need_tree(&mut with_tree);
    image(&with_tree);
    for loader in [Loader::OpenVmm, Loader::CloudHypervisor] {
        assert_eq!(
            refused(|_| {}, loader),
            format!(
                "the loader {loader} does not take the platform \"native\", which platforms needs"
            )
        );
    }
}

#[test]
fn optional_parameters_are_left_out_for_loaders_that_do_not_take_them() {
    let bytes = build_with(&manifest(), &Options::new(Loader::Qemu), read)
        .unwrap()
        .bytes;
    let file = ImageFile::read(&bytes).unwrap();
    let kinds: Vec<_> = file.headers().iter().map(|header| header.kind).collect();
    assert!(kinds.contains(&HeaderType::MADT));
    assert!(!kinds.contains(&HeaderType::COMMAND_LINE));
    assert_eq!(handoff(&file).parameter(Parameter::CommandLine), None);
}

#[test]
fn files_at_fault_are_named() {
    let missing = refused(
        |manifest| manifest.svsm.elf = "nowhere".into(),
        Loader::Machine,
    );
    assert!(missing.starts_with("cannot read nowhere: "), "{missing}");
    let low = refused(
        |manifest| manifest.svsm.elf = "init".into(),
        Loader::Machine,
    );
    assert!(
        low.starts_with("init: the segment 0x400000..0x400020 lies outside of "),
        "{low}"
    );
    let high = refused(
        |manifest| manifest.services[0].elf = "svsm".into(),
        Loader::Machine,
    );
    assert!(
        high.starts_with("svsm: the segment 0xffffffff80000000"),
        "{high}"
    );
    let stage2 = refused(
        |manifest| manifest.stage2.elf = "init".into(),
        Loader::Machine,
    );
    assert_eq!(
        stage2,
        "the image cannot be laid out: stage2 segment 0 lies outside the stage2 region"
    );
}

#[test]
fn an_image_that_does_not_fit_is_refused() {
    let small = refused(
        |manifest| manifest.svsm.size = Size::new(0x2_0000),
        Loader::Machine,
    );
    assert!(
        small.starts_with("the image cannot be laid out: "),
        "{small}"
    );
    let huge = |manifest: &mut Manifest| {
        manifest.svsm.size = Size::new(8 << 30);
        manifest.svsm.stack = Size::new(4 << 30);
    };
    assert!(refused(huge, Loader::Machine).contains("does not fit"));
    let unchecked = refused(
        |manifest| manifest.svsm.size = Size::new(1),
        Loader::Machine,
    );
    assert!(
        unchecked.starts_with("manifest: svsm.size: "),
        "{unchecked}"
    );
    let mut huge = elf::program(IMAGE);
    // The variables' size in memory: the third program header's p_memsz.
    huge[64 + 2 * 56 + 40..][..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    let error = build_with(&manifest(), &Options::new(Loader::Machine), |path| {
        if path == Path::new("svsm") {
            Ok(huge.clone())
        } else {
            read(path)
        }
    });
    assert!(matches!(error, Err(Error::Elf { .. })), "{error:?}");
}

#[test]
fn one_file_serves_both_platforms() {
    let mut both = manifest();
    both.platforms = vec![Platform::Native, Platform::Snp];
    let image = image(&both);
    let inspection = inspect(&image.bytes).unwrap();
    let names: Vec<_> = inspection.platforms.iter().map(|p| &*p.platform).collect();
    assert_eq!(names, ["native", "snp"]);
    assert_eq!(inspection.remarks, [""; 0]);
    let [native, snp] = &inspection.platforms[..] else {
        panic!("two platforms")
    };
    // The secrets page, the CPUID page and the save area come on top.
    assert_eq!(snp.launch_pages, native.launch_pages + 3);

    let file = ImageFile::read(&image.bytes).unwrap();
    let bodies = || file.headers().iter().map(|header| &header.body);
    let context = bodies().find_map(|body| match body {
        Body::VpContext(context) if context.mask == snp.mask => Some(context.data),
        _ => None,
    });
    let register = |offset: usize| {
        let bytes = context.unwrap()[offset..offset + 8].try_into().unwrap();
        u64::from_le_bytes(bytes)
    };
    // Protected mode without paging, at the first byte of stage2's region, SVME, SNP alone, VMPL0.
    assert_eq!(register(0x158), 0x31);
    assert_eq!(register(0x178), 0x1_0000);
    assert_eq!(register(0xd0), 0x1000);
    assert_eq!(register(0x3b0), 1);
    assert_eq!(register(0xc8), 0);
    let handoffs: Vec<_> = bodies()
        .filter_map(|body| match body {
            Body::PageData(page) if page.gpa == register(0x338) => {
                Some((page.mask, Handoff::parse(page.data.unwrap()).unwrap()))
            }
            _ => None,
        })
        .collect();
    let [(first, native_handoff), (second, snp_handoff)] = &handoffs[..] else {
        panic!("a hand-off each")
    };
    assert_eq!((*first, *second), (native.mask, snp.mask));
    assert_eq!(snp_handoff.platform, handoff::Platform::Snp);
    assert_eq!(snp_handoff.encryption, EncryptionKind::CBit);
    assert_eq!(native_handoff.heap, snp_handoff.heap);
    let kind_at = |gpa: u64| {
        bodies().find_map(|body| match body {
            Body::PageData(page) if page.gpa == gpa => Some((page.mask, page.kind)),
            _ => None,
        })
    };
    let cpuid = snp_handoff.cpuid.unwrap().gpa().as_u64();
    let secrets = snp_handoff.secrets.unwrap().gpa().as_u64();
    assert_eq!(kind_at(cpuid), Some((snp.mask, PageType::Cpuid)));
    assert_eq!(kind_at(secrets), Some((snp.mask, PageType::Secrets)));
}

//! Which manifests are taken, and how the others are refused.
#![cfg(test)]

use std::path::Path;

use proptest::prelude::*;
use svsm_igvm::manifest::{EXAMPLE, Manifest, Platform, Size};
use svsm_igvm::report::Kind;

const MINIMAL: &str = "platforms = [\"native\"]
[svsm]
elf = \"svsm\"
[stage2]
elf = \"stage2\"
";

#[track_caller]
fn refused(text: &str) -> String {
    Manifest::parse(text, "image.toml")
        .expect_err("should be refused")
        .to_string()
}

#[test]
fn the_example_is_a_manifest() {
    let manifest = Manifest::parse(EXAMPLE, "example").unwrap();
    assert_eq!(manifest.platforms, [Platform::Native]);
    assert_eq!(manifest.budgets.kinds[&Kind::PageTables], 16);
    assert_eq!(manifest.parameters.wanted().count(), 5);
    assert!(manifest.parameters.madt.unwrap().optional);
}

#[test]
fn defaults_are_those_of_the_example() {
    let (example, minimal) = (
        Manifest::parse(EXAMPLE, "").unwrap(),
        Manifest::parse(MINIMAL, "").unwrap(),
    );
    assert_eq!(minimal.svsm.base, example.svsm.base);
    assert_eq!(minimal.svsm.size, example.svsm.size);
    assert_eq!(minimal.svsm.stack, example.svsm.stack);
    assert_eq!(minimal.native, example.native);
    assert_eq!(minimal.debug, example.debug);
}

#[test]
fn paths_are_relative_to_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.toml");
    std::fs::write(&path, MINIMAL).unwrap();
    let manifest = Manifest::load(&path).unwrap();
    assert_eq!(manifest.svsm.elf, folder.path().join("svsm"));
    let missing = Manifest::load(&folder.path().join("none.toml")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read "), "{missing}");
}

#[test]
fn programs_can_be_replaced_by_name() {
    let mut manifest = Manifest::parse(EXAMPLE, "").unwrap();
    for name in ["svsm", "stage2", "init"] {
        manifest.replace_elf(name, Path::new(name)).unwrap();
    }
    assert_eq!(manifest.services[0].elf, Path::new("init"));
    assert!(manifest.replace_elf("other", Path::new("x")).is_err());
}

#[test]
fn unknown_keys_are_refused_where_they_stand() {
    for (text, place) in [
        (format!("colour = 1\n{MINIMAL}"), "1:1"),
        (MINIMAL.replace("[stage2]", "[stage2]\nbase = 1"), "5:1"),
        (
            format!("{MINIMAL}[parameters]\nmadt = {{ bytes = 1 }}\n"),
            "7:10",
        ),
        (format!("{MINIMAL}[budgets.kinds]\ncod = 1\n"), "7:1"),
        (
            format!("{MINIMAL}[[service]]\nname = \"init\"\nelf = \"i\"\nargs = []\n"),
            "9:1",
        ),
    ] {
        let message = refused(&text);
        assert!(
            message.starts_with(&format!("image.toml:{place}: unknown ")),
            "{message}"
        );
    }
}

#[test]
fn what_is_missing_or_of_the_wrong_type_is_refused() {
    assert!(refused("").contains("missing field `platforms`"));
    assert!(refused("platforms = [").starts_with("image.toml:1:"));
    let message = refused(&MINIMAL.replace("elf = \"svsm\"", "elf = \"svsm\"\nsize = \"16 mb\""));
    assert_eq!(
        message,
        "image.toml:4:8: invalid value: string \"16 mb\", expected a number of bytes, or text \
         such as \"16 MiB\""
    );
}

#[test]
fn every_rule_names_its_key_and_line() {
    let svsm = |keys: &str| MINIMAL.replace("elf = \"svsm\"", &format!("elf = \"svsm\"\n{keys}"));
    let service = |names: &[&str]| {
        let tables = names
            .iter()
            .map(|name| format!("[[service]]\nname = {name:?}\nelf = \"x\"\n"));
        MINIMAL.to_owned() + &tables.collect::<String>()
    };
    let with = |more: &str| format!("{MINIMAL}{more}");
    for (text, message) in [
        (
            MINIMAL.replace("\"native\"", ""),
            "1:1: platforms: must not be empty",
        ),
        (
            MINIMAL.replace("\"native\"", "\"native\", \"tdx\""),
            "1:24: platforms[1]: images for the platform \"tdx\" cannot be built yet",
        ),
        (
            MINIMAL.replace("native", "tdx"),
            "1:14: platforms[0]: images for the platform \"tdx\" cannot be built yet",
        ),
        (
            MINIMAL.replace("\"native\"", "\"native\", \"native\""),
            "1:24: platforms[1]: \"native\" is there twice",
        ),
        (
            svsm("base = 0x10_1000"),
            "4:1: svsm.base: 0x101000 is not a multiple of 2 MiB",
        ),
        (
            svsm("size = 100"),
            "4:1: svsm.size: 0x64 is not a multiple of the page size, 0x1000",
        ),
        (svsm("size = 0"), "4:1: svsm.size: must not be zero"),
        (
            svsm("stack = \"16 MiB\""),
            "4:1: svsm.stack: 16 MiB is more than 16 MiB",
        ),
        (
            svsm("base = 0xf_ffff_ffe0_0000"),
            "2:2: svsm.size: 16 MiB at 0xfffffffe00000 reach beyond the 52 bits of guest-physical \
             addresses",
        ),
        (
            service(&["shell"]),
            "7:1: service[0].name: the first service must be \"init\", not \"shell\"",
        ),
        (
            service(&["init", "init"]),
            "10:1: service[1].name: \"init\" is there twice",
        ),
        (
            service(&["init", "svsm"]),
            "10:1: service[1].name: \"svsm\" is the name of no service",
        ),
        (
            service(&["init", ".."]),
            "10:1: service[1].name: \"..\" is not a name: it takes 1 to 64 of the characters \
             A-Z a-z 0-9 - _ . and does not start with a full stop",
        ),
        (
            with("[parameters]\nmadt = 10\n"),
            "7:1: parameters.madt: 0xa is not a multiple of the page size, 0x1000",
        ),
        (
            with("[parameters]\ndevice_tree = \"2 MiB\"\n"),
            "7:1: parameters.device_tree: 2 MiB is more than 1 MiB",
        ),
        (
            with("[guest]\nkernel = \"vmlinuz\"\nvmpl = 0\n"),
            "8:1: guest.vmpl: a guest runs at VMPL 1, 2 or 3, and not at 0",
        ),
        (
            with("[snp]\npolicy = 0x1_0000\n"),
            "7:1: snp.policy: bit 17 must be set in a guest policy, and is not in 0x10000",
        ),
        (
            with("[guest]\nkernel = \"vmlinuz\"\nfirmware = \"OVMF.fd\"\n"),
            "6:2: guest: takes a kernel or firmware: one of them, and not both",
        ),
        (
            with("[guest]\ncommand_line = \"quiet\"\n"),
            "6:2: guest: takes a kernel or firmware: one of them, and not both",
        ),
        (
            with("[guest]\nfirmware = \"OVMF.fd\"\ninitrd = \"initrd.img\"\n"),
            "8:1: guest.initrd: is nothing that firmware takes from the image: leave out initrd and \
             command_line",
        ),
        (
            with("[[required_memory]]\nbase = 0\nsize = 1\n"),
            "8:1: required_memory[0].size: 0x1 is not a multiple of the page size, 0x1000",
        ),
        (
            with("[[required_memory]]\nbase = 0x80_0000_1000\nsize = 4096\n"),
            "7:1: required_memory[0].base: overlaps the SVSM's private memory",
        ),
    ] {
        assert_eq!(refused(&text), format!("image.toml:{message}"));
    }
}

#[test]
fn names_of_services_are_no_paths() {
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a b",
        "\u{e9}",
        &"a".repeat(65),
    ] {
        let mut manifest = Manifest::parse(EXAMPLE, "").unwrap();
        manifest.services[0].name = name.to_owned();
        let message = manifest.check().unwrap_err().to_string();
        assert!(message.contains("is not a name"), "{message}");
    }
}

#[test]
fn a_manifest_made_by_a_program_is_checked_without_places() {
    let mut manifest = Manifest::parse(MINIMAL, "").unwrap();
    manifest.svsm.size = Size::new(1);
    let message = manifest.check().unwrap_err().to_string();
    assert_eq!(
        message,
        "manifest: svsm.size: 0x1 is not a multiple of the page size, 0x1000"
    );
}

proptest! {
    #[test]
    fn damaged_manifests_never_panic(
        changes in prop::collection::vec((0usize..2500, any::<char>()), 1..6),
        cut in 0usize..2500,
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, value) in changes {
            if let Some(place) = text.get_mut(at) {
                *place = value;
            }
        }
        text.truncate(text.len() - cut.min(text.len()));
        let text: String = text.into_iter().collect();
        if let Err(error) = Manifest::parse(&text, "x") {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

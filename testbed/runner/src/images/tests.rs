use std::fs;
use std::path::{Path, PathBuf};

use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

use super::*;
use crate::log::Level;

/// The build id of [`demo_elf`].
pub(crate) const DEMO_ID: [u8; 4] = [0xc0, 0xff, 0xee, 0x00];
/// Where [`demo_elf`] has its only function, `demo::main`, 16 bytes long.
pub(crate) const DEMO_MAIN: u64 = 16;

/// An ELF file as a linker would leave it: a function, messages, a build id.
pub(crate) fn demo_elf(directory: &Path) -> PathBuf {
    elf_with_id(directory.join("demo.elf"), DEMO_ID)
}

fn elf_with_id(path: PathBuf, id: [u8; 4]) -> PathBuf {
    let mut elf = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let add_symbol = |elf: &mut Object<'_>, name: &str, value, size, section| {
        elf.add_symbol(Symbol {
            name: name.into(),
            value,
            size,
            kind: if size > 1 {
                SymbolKind::Text
            } else {
                SymbolKind::Data
            },
            scope: SymbolScope::Linkage,
            weak: false,
            section,
            flags: SymbolFlags::None,
        });
    };
    let note = elf.add_section(vec![], b".note.gnu.build-id".into(), SectionKind::Note);
    let mut bytes = vec![4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0];
    bytes.extend(id);
    elf.append_section_data(note, &bytes, 4);
    let text = elf.add_section(vec![], b".text".into(), SectionKind::Text);
    elf.append_section_data(text, &[0x90; 32], 16);
    add_symbol(
        &mut elf,
        "_ZN4demo4main17h0123456789abcdefE",
        DEMO_MAIN,
        16,
        SymbolSection::Section(text),
    );
    let defmt = elf.add_section(vec![], b".defmt".into(), SectionKind::Data);
    elf.append_section_data(defmt, &[0; 16], 1);
    let messages = [
        ("defmt_info", "{=u8} CPUs"),
        ("defmt_warn", "odd: {=str}"),
        ("defmt_println", "hi"),
    ];
    for (at, (tag, text)) in (1..).zip(messages) {
        let name = format!(
            r#"{{"package":"demo","tag":"{tag}","data":"{text}","disambiguator":"{at}","crate_name":"demo"}}"#
        );
        add_symbol(&mut elf, &name, at, 1, SymbolSection::Section(defmt));
    }
    for name in ["_defmt_version_ = 4", "_defmt_encoding_ = rzcobs"] {
        add_symbol(&mut elf, name, 0, 0, SymbolSection::Absolute);
    }
    fs::write(&path, elf.write().unwrap()).unwrap();
    path
}

pub(crate) fn demo_images() -> (tempfile::TempDir, Images) {
    let directory = tempfile::tempdir().unwrap();
    demo_elf(directory.path());
    let mut images = Images::new();
    images.add(directory.path()).unwrap();
    (directory, images)
}

#[test]
fn frames_become_messages() {
    let (_directory, images) = demo_images();
    let image = images.find(DEMO_ID.into()).unwrap();
    assert_eq!(image.name(), "demo");
    let message = image.decode(&[1, 0, 4]).unwrap();
    assert_eq!(
        (message.level, &*message.text),
        (Some(Level::Info), "4 CPUs")
    );
    let message = image.decode(&[2, 0, 3, 0, 0, 0, b'a', b'b', b'c']).unwrap();
    assert_eq!(
        (message.level, &*message.text),
        (Some(Level::Warn), "odd: abc")
    );
    assert_eq!(image.decode(&[3, 0]).unwrap().level, None);
}

#[test]
fn damaged_frames_are_refused() {
    let (_directory, images) = demo_images();
    let image = images.find(DEMO_ID.into()).unwrap();
    for frame in [
        &[][..],
        &[1],
        &[1, 0],
        &[1, 0, 4, 4],
        &[9, 0],
        &[2, 0, 255, 255, 255, 255, 1],
    ] {
        assert_eq!(image.decode(frame), None, "{frame:?}");
    }
}

#[test]
fn addresses_become_names() {
    let (_directory, images) = demo_images();
    let [entry] = &images.resolve(None, DEMO_MAIN + 4, false)[..] else {
        panic!("not one")
    };
    assert_eq!(
        (entry.function.as_deref(), entry.image.as_deref()),
        (Some("demo::main"), Some("demo"))
    );
    // Behind the last instruction of a function that ends with a call that never returns.
    assert_eq!(
        images.resolve(None, DEMO_MAIN + 16, true)[0]
            .function
            .as_deref(),
        Some("demo::main")
    );
    let [unknown] = &images.resolve(Some(DEMO_ID.into()), 0x10_0000, false)[..] else {
        panic!("not one")
    };
    assert_eq!(unknown.to_string(), "0x0000000000100000  ?");
}

#[test]
fn an_address_that_several_images_have_is_not_guessed() {
    let directory = tempfile::tempdir().unwrap();
    let mut images = Images::new();
    for (name, id) in [("one", [1; 4]), ("two", [2; 4])] {
        let path = elf_with_id(directory.path().join(name), id);
        images.add(&path).unwrap();
    }
    let image = |within| images.resolve(within, DEMO_MAIN, false)[0].image.clone();
    assert_eq!(image(Some([2; 4].into())).as_deref(), Some("two"));
    assert_eq!(image(None), None);
}

#[test]
fn symbol_files_name_images_relative_to_themselves() {
    let directory = tempfile::tempdir().unwrap();
    demo_elf(directory.path());
    let file = directory.path().join("x.symbols.json");
    fs::write(
        &file,
        r#"{"images": [{"name": "svsm", "elf": "demo.elf", "build_id": "c0ffee00", "more": 1}]}"#,
    )
    .unwrap();
    let mut images = Images::new();
    images.add_symbols(&file).unwrap();
    assert_eq!(images.name(DEMO_ID.into()), "svsm");
    assert_eq!(images.name([1, 2, 3, 4].into()), "01020304");
    assert!(images.stale().is_empty());
    for stale in [r#""demo.elf", "build_id": "c0ffee01""#, r#""gone.elf""#] {
        fs::write(&file, format!(r#"{{"images": [{{"elf": {stale}}}]}}"#)).unwrap();
        let mut images = Images::new();
        images.add_symbols(&file).unwrap();
        assert_eq!((images.iter().count(), images.stale().len()), (0, 1));
    }
    fs::write(&file, r#"{"images": 3}"#).unwrap();
    assert!(matches!(
        images.add_symbols(&file),
        Err(Error::BadSymbols { .. })
    ));
}

#[test]
fn what_is_named_must_be_an_elf_file_with_a_build_id() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("text");
    fs::write(&file, "no ELF").unwrap();
    let mut images = Images::new();
    assert!(matches!(images.add(&file), Err(Error::BadElf { .. })));
    assert!(matches!(
        images.add(&directory.path().join("none")),
        Err(Error::Unreadable { .. })
    ));
    images.add(directory.path()).unwrap();
    assert_eq!(images.iter().count(), 0);
}

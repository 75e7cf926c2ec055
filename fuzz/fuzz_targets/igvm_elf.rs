//! ELF files: none makes the reader or the builder panic, whatever part of an
//! image it claims to be.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use svsm_igvm::executable::Executable;
use svsm_igvm::{Loader, Manifest, Options, build_with};

static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
    let text = "platforms = [\"native\"]\n[svsm]\nelf = \"svsm\"\nsize = \"1 MiB\"\n\
                stack = \"4 KiB\"\n[stage2]\nelf = \"stage2\"\n\
                [[service]]\nname = \"init\"\nelf = \"init\"\n";
    Manifest::parse(text, "fuzz.toml").expect("a good manifest")
});

/// Good programs, to stand beside the one that is tried.
const GOOD: [(&str, &[u8]); 3] = [
    ("svsm", include_bytes!("../corpus/igvm_elf/svsm")),
    ("stage2", include_bytes!("../corpus/igvm_elf/stage2")),
    ("init", include_bytes!("../corpus/igvm_elf/init")),
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(program) = Executable::read(bytes) else {
        return;
    };
    let stripped = program.stripped();
    let again = Executable::read(&stripped).expect("stripping keeps what is loaded");
    assert_eq!(again.pages(), program.pages());
    for (tried, _) in GOOD {
        let image = build_with(&MANIFEST, &Options::new(Loader::Machine), |path| {
            let good = GOOD.into_iter().find(|(name, _)| path.as_os_str() == *name);
            let (name, good) = good.expect("the manifest names no other file");
            Ok(if name == tried { bytes } else { good }.to_vec())
        });
        if let Ok(image) = image {
            assert!(svsm_igvm::inspect(&image.bytes).is_ok());
        }
    }
});

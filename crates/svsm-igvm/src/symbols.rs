//! Which ELF files went into an image: what logs and stack traces need.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::build::programs::{File, Files, Programs};
use crate::executable::Executable;
use crate::manifest::Manifest;

/// The contents of the file beside an image, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Symbols {
    /// The programs that have a build id; a record in a log can name no other.
    pub images: Vec<Symbol>,
}

/// A program of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Symbol {
    /// What kind of program it is.
    pub kind: SymbolKind,
    /// Its name: `svsm`, `stage2`, or the service's.
    pub name: String,
    /// Its ELF file with symbols.
    pub elf: PathBuf,
    /// Its build id, hexadecimal.
    pub build_id: String,
}

/// What kind of program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SymbolKind {
    /// The first stage.
    Stage2,
    /// The SVSM.
    Svsm,
    /// A user-mode program.
    Service,
}

impl Symbols {
    /// Where the file beside `image` lies: `x.igvm` has `x.igvm.symbols.json`.
    #[must_use]
    pub fn path_beside(image: &Path) -> PathBuf {
        let mut path = image.as_os_str().to_owned();
        path.push(".symbols.json");
        path.into()
    }

    pub(crate) fn of(manifest: &Manifest, files: &Files, programs: &Programs<'_>) -> Self {
        let stage2 = symbol(
            SymbolKind::Stage2,
            "stage2",
            &files.stage2,
            &programs.stage2,
        );
        let svsm = symbol(SymbolKind::Svsm, "svsm", &files.svsm, &programs.svsm);
        let services = manifest
            .services
            .iter()
            .zip(&files.services)
            .zip(&programs.services);
        let services = services.map(|((service, file), program)| {
            symbol(SymbolKind::Service, &service.name, file, program)
        });
        Self {
            images: [stage2, svsm]
                .into_iter()
                .chain(services)
                .flatten()
                .collect(),
        }
    }
}

fn symbol(kind: SymbolKind, name: &str, file: &File, program: &Executable<'_>) -> Option<Symbol> {
    let build_id = program.build_id()?;
    Some(Symbol {
        kind,
        name: name.to_owned(),
        // The list may be read from another folder.
        elf: std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone()),
        build_id: build_id.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

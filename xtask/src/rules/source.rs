//! Rules that show in the text of a source file.

use super::Report;
use crate::workspace::Package;
use anyhow::{Context, Result};
use std::path::Path;

/// Types through which an immutable static would still hold state.
const STATEFUL: &[&str] = &[
    "Atomic",
    "Cell",
    "Lock",
    "Mutex",
    "Once",
    "Lazy",
    "UnsafeCell",
];
/// Attributes that fix a symbol in whatever program links the crate.
const FIXED_SYMBOLS: &[&str] = &["no_mangle", "export_name"];

pub(super) fn check(package: &Package, report: &mut Report) -> Result<()> {
    let mut files = Vec::new();
    let source = package.dir.join("src");
    collect(&source, &mut files).with_context(|| format!("cannot read {}", source.display()))?;
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(&package.dir).unwrap_or(&file).display();
        let tests = file.components().any(|part| {
            let part = part.as_os_str();
            part == "tests" || part == "tests.rs"
        });
        for (number, problem) in problems(&text, package.is_crate() && !tests) {
            report.expect(false, || {
                format!("{}: {name}:{number}: {problem}", package.name)
            });
        }
        report.expect(file.file_name().is_none_or(|base| base != "mod.rs"), || {
            format!(
                "{}: {name}: name the module's file after the module",
                package.name
            )
        });
        report.checks += 1;
    }
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The problems of one file with their line numbers. Libraries obey more rules than programs.
fn problems(text: &str, library: bool) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        // Tests end a file, and may keep what state they like.
        if code.starts_with("mod tests") {
            break;
        }
        if let Some(proof) = code.strip_prefix("// SAFETY:") {
            let goes_on = lines
                .get(index + 1)
                .is_some_and(|next| next.trim_start().starts_with("// "));
            if proof.trim().len() < 8 && !goes_on {
                found.push((index + 1, "a SAFETY comment proves nothing"));
            }
        }
        if code.starts_with("//") || !library {
            continue;
        }
        if is_static_item(code) {
            let mutable = code.contains("static mut ")
                || STATEFUL
                    .iter()
                    .any(|kind| declared_type(code).contains(kind));
            if mutable {
                found.push((index + 1, "a library holds no state: own it in a value"));
            }
        }
        if code.starts_with("#[")
            && FIXED_SYMBOLS
                .iter()
                .any(|attribute| code.contains(attribute))
        {
            found.push((index + 1, "a library fixes no symbol"));
        }
    }
    found
}

fn is_static_item(code: &str) -> bool {
    let code = code.strip_prefix("pub ").unwrap_or(code);
    let code = code
        .strip_prefix("pub(crate) ")
        .or_else(|| code.strip_prefix("pub(super) "))
        .unwrap_or(code);
    code.starts_with("static ")
}

fn declared_type(code: &str) -> &str {
    code.split_once(':')
        .map_or("", |(_, rest)| rest.split('=').next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        problems(text, true).len()
    }

    #[test]
    fn state_in_statics_is_found_and_tables_are_not() {
        assert_eq!(count("static mut X: u8 = 0;"), 1);
        assert_eq!(count("pub static X: AtomicU8 = AtomicU8::new(0);"), 1);
        assert_eq!(count("static TABLE: [u8; 4] = [0; 4];"), 0);
        assert_eq!(count("fn f() -> &'static str { \"\" }"), 0);
        assert_eq!(count("mod tests {\nstatic mut X: u8 = 0;"), 0);
        assert_eq!(problems("static mut X: u8 = 0;", false), []);
    }

    #[test]
    fn empty_proofs_are_found() {
        assert_eq!(count("// SAFETY:\nunsafe {}"), 1);
        assert_eq!(count("// SAFETY: the caller owns the page."), 0);
        assert_eq!(count("// SAFETY:\n// - the caller owns the page"), 0);
    }

    #[test]
    fn fixed_symbols_are_found() {
        assert_eq!(count("#[unsafe(no_mangle)]"), 1);
    }
}

//! Writes the guests' image: `image <ELF file> <image> [long|protected|real|snp|restricted]`.

use core::error::Error;
use std::{env, fs};

use svsm_testbed_guest::image::{self, Mode};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let (elf, out, mode) = match words.as_slice() {
        [elf, out] => (elf, out, "long"),
        [elf, out, mode] => (elf, out, mode.as_str()),
        _ => {
            return Err(
                "usage: image <ELF file> <image> [long|protected|real|snp|restricted]".into(),
            );
        }
    };
    let file = fs::read(elf)?;
    let mode = match mode {
        "snp" => return Ok(fs::write(out, image::snp(&file, false)?)?),
        "restricted" => return Ok(fs::write(out, image::snp(&file, true)?)?),
        "long" => Mode::Long,
        "protected" => Mode::Protected,
        "real" => Mode::Real,
        other => return Err(format!("{other} is no mode").into()),
    };
    fs::write(out, image::native(&file, mode)?)?;
    Ok(())
}

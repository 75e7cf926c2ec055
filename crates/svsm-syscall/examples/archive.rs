//! Lists a cpio archive, and what memory its programs ask for.
//!
//! `cargo run -p svsm-syscall --example archive -- FILE`

use core::error::Error;
use std::{env, fs, process::ExitCode};

use svsm_platform::addr::{Gva, GvaRange, PageCount};
use svsm_syscall::{
    archive::Archive,
    memory::USER_END,
    program::{Limits, Program},
};

fn list(file: &str) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(file)?;
    let space = Gva::new(0x1000).zip(Gva::new(USER_END));
    let space = space.and_then(|(start, end)| GvaRange::from_bounds(start, end));
    let limits = Limits {
        space: space.ok_or("no user memory")?,
        pages: PageCount::new(4096),
    };
    for entry in Archive::new(&bytes).entries() {
        let entry = entry?;
        println!("{} ({} bytes)", entry.name(), entry.data().len());
        if !entry.is_file() {
            continue;
        }
        match Program::plan(entry.data(), &limits) {
            Ok(program) => {
                println!("    starts at {:#x}", program.entry().as_u64());
                for segment in program.segments() {
                    println!("    {:?}: {:?}", segment.pages(), segment.rights());
                }
            }
            Err(error) => println!("    no program: {error}"),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(file) = env::args().nth(1) else {
        println!("usage: archive FILE");
        return ExitCode::SUCCESS;
    };
    match list(&file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

//! libtpms, opened at run time. It has one TPM per process, which keeps its state in a folder.
#![expect(unsafe_code, reason = "calls into a C library")]

use core::{
    ffi::{c_int, c_uchar},
    ptr,
};
use std::fs;

use anyhow::{Context, Result, ensure};
use libloading::{Library, Symbol};

use crate::peer::{receive, send};

type Plain = unsafe extern "C" fn() -> u32;
type Choose = unsafe extern "C" fn(c_int) -> u32;
type Process =
    unsafe extern "C" fn(*mut *mut c_uchar, *mut u32, *mut u32, *const c_uchar, u32) -> u32;

fn open(library: &str) -> Result<Library> {
    // SAFETY: libtpms' initialisers only register functions of its own.
    unsafe { Library::new(library) }.context("cannot be opened")
}

/// Whether the library is there.
pub(crate) fn check(library: &str) -> Result<()> {
    open(library).map(drop)
}

/// Answers commands on the standard streams with the library's TPM.
pub(crate) fn serve(library: &str) -> Result<()> {
    let library = open(library)?;
    // SAFETY: the types are those of tpm_library.h.
    let choose: Symbol<'_, Choose> = unsafe { library.get(b"TPMLIB_ChooseTPMVersion\0") }?;
    // SAFETY: as above.
    let init: Symbol<'_, Plain> = unsafe { library.get(b"TPMLIB_MainInit\0") }?;
    // SAFETY: as above; the function returns nothing, which is the same to a caller who ignores it.
    let terminate: Symbol<'_, Plain> = unsafe { library.get(b"TPMLIB_Terminate\0") }?;
    // SAFETY: as above.
    let process: Symbol<'_, Process> = unsafe { library.get(b"TPMLIB_Process\0") }?;
    let folder = tempfile::tempdir()?;
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("TPM_PATH", folder.path()) };
    // SAFETY: called once, before everything else, with TPMLIB_TPM_VERSION_2.
    ensure!(unsafe { choose(1) } == 0, "no TPM 2");

    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let (mut response, mut len, mut room) = (ptr::null_mut(), 0, 0);
    let mut running = false;
    while let Some(command) = receive(&mut input)? {
        if command.is_empty() {
            if running {
                // SAFETY: the TPM was initialised.
                unsafe { terminate() };
            }
            for entry in fs::read_dir(folder.path())? {
                fs::remove_file(entry?.path())?;
            }
            // SAFETY: there is no TPM now.
            ensure!(unsafe { init() } == 0, "no TPM");
            running = true;
            send(&mut output, &[])?;
            continue;
        }
        let size = u32::try_from(command.len())?;
        // SAFETY: the command is as long as said; the library owns the response, and keeps it in `response` and `room`.
        let rc = unsafe {
            process(
                &raw mut response,
                &raw mut len,
                &raw mut room,
                command.as_ptr(),
                size,
            )
        };
        ensure!(rc == 0, "the library fails");
        // SAFETY: the library wrote so many bytes there, and nobody else uses them before the next call.
        let bytes = unsafe { core::slice::from_raw_parts(response, len as usize) };
        send(&mut output, bytes)?;
    }
    Ok(())
}

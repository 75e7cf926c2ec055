//! libtpms, opened at run time. It has one TPM per process, which keeps its state in a folder.
#![expect(unsafe_code, reason = "calls into a C library")]

use core::{
    ffi::{c_int, c_uchar},
    ptr,
};
use std::fs;

use anyhow::{Context, Result, ensure};
use libloading::Library;
use tempfile::TempDir;

use crate::peer::{Peer, receive, send};

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

/// The library's TPM. A process may make one.
pub(crate) struct Libtpms {
    init: Plain,
    terminate: Plain,
    process: Process,
    folder: TempDir,
    /// The library's own buffer, its filled and its whole length.
    response: *mut c_uchar,
    len: u32,
    room: u32,
    running: bool,
    /// What the functions are part of.
    _library: Library,
}

impl Libtpms {
    pub(crate) fn new(library: &str) -> Result<Self> {
        let library = open(library)?;
        // SAFETY: the type is that of tpm_library.h.
        let choose = *unsafe { library.get::<Choose>(b"TPMLIB_ChooseTPMVersion\0") }?;
        // SAFETY: as above.
        let init = *unsafe { library.get::<Plain>(b"TPMLIB_MainInit\0") }?;
        // SAFETY: as above; the function returns nothing, which is the same to a caller who ignores it.
        let terminate = *unsafe { library.get::<Plain>(b"TPMLIB_Terminate\0") }?;
        // SAFETY: as above.
        let process = *unsafe { library.get::<Process>(b"TPMLIB_Process\0") }?;
        let folder = tempfile::tempdir()?;
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("TPM_PATH", folder.path()) };
        // Some of its files go there instead.
        std::env::set_current_dir(folder.path())?;
        // SAFETY: called once, before everything else, with TPMLIB_TPM_VERSION_2.
        ensure!(unsafe { choose(1) } == 0, "no TPM 2");
        Ok(Self {
            init,
            terminate,
            process,
            folder,
            response: ptr::null_mut(),
            len: 0,
            room: 0,
            running: false,
            _library: library,
        })
    }

    /// The bytes of the permanent state, as the library stores it.
    pub(crate) fn state_len(&self) -> Result<u64> {
        let mut sum = 0;
        for entry in fs::read_dir(self.folder.path())? {
            sum += entry?.metadata()?.len();
        }
        Ok(sum)
    }
}

impl Peer for Libtpms {
    fn reset(&mut self) -> Result<()> {
        if self.running {
            // SAFETY: the TPM was initialised, and the library that has the function is open.
            unsafe { (self.terminate)() };
        }
        for entry in fs::read_dir(self.folder.path())? {
            fs::remove_file(entry?.path())?;
        }
        // SAFETY: there is no TPM now, and the library that has the function is open.
        ensure!(unsafe { (self.init)() } == 0, "no TPM");
        self.running = true;
        Ok(())
    }

    fn power_cycle(&mut self) -> Result<()> {
        ensure!(self.running, "no TPM");
        // SAFETY: the TPM was initialised, and the library that has the function is open.
        unsafe { (self.terminate)() };
        // SAFETY: there is no TPM now; its state is in the folder.
        ensure!(unsafe { (self.init)() } == 0, "no TPM");
        Ok(())
    }

    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        ensure!(self.running, "no TPM");
        let size = u32::try_from(command.len())?;
        // SAFETY: the command is as long as said; the library owns the response, and keeps it in `response` and `room`.
        let rc = unsafe {
            (self.process)(
                &raw mut self.response,
                &raw mut self.len,
                &raw mut self.room,
                command.as_ptr(),
                size,
            )
        };
        ensure!(rc == 0, "the library fails");
        ensure!(!self.response.is_null(), "the library has no response");
        // SAFETY: the library wrote so many bytes there, and nobody else uses them before the next call.
        let bytes = unsafe { core::slice::from_raw_parts(self.response, self.len as usize) };
        Ok(bytes.to_vec())
    }
}

/// Answers commands on the standard streams with the library's TPM.
pub(crate) fn serve(library: &str) -> Result<()> {
    let mut tpm = Libtpms::new(library)?;
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    while let Some(command) = receive(&mut input)? {
        if command.is_empty() {
            tpm.reset()?;
            send(&mut output, &[])?;
        } else {
            let response = tpm.execute(&command)?;
            send(&mut output, &response)?;
        }
    }
    Ok(())
}

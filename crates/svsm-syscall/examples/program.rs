//! A program as it would run below a paravisor, against a kernel that is a function of this
//! example.
//!
//! `cargo run -p svsm-syscall --example program --features user`
#![expect(unsafe_code, reason = "stands in for the kernel")]

use svsm_syscall::{
    abi::{LOG_HANDLE, Number, Status, SysError},
    handle::Handle,
    memory::{CurrentProcess, UserMemory},
    request::{Operation, Request},
    user::{Calls, Gate},
};

/// What every program does: say something, start another, wait for it.
fn program<G: Gate>(kernel: &Calls<G>) -> Result<u16, SysError> {
    kernel.write(
        Handle::from_u32(LOG_HANDLE),
        b"init: starting the service\n",
    )?;
    let service = kernel.spawn("sbin/service")?;
    kernel.wait(service)
}

/// A kernel that knows three calls.
struct Kernel;

impl Gate for Kernel {
    unsafe fn call(&self, number: Number, arguments: [u64; 5]) -> Status {
        // SAFETY: the caller vouches for the memory that it names; nothing here faults.
        let memory = unsafe { CurrentProcess::new(false) };
        Status::new(Request::decode(number, arguments).and_then(|request| answer(request, &memory)))
    }
}

fn answer(request: Request, memory: &impl UserMemory) -> Result<u64, SysError> {
    let text = |slice, buffer: &mut [u8; 128]| {
        let bytes = memory.read(slice, buffer);
        String::from_utf8_lossy(buffer.get(..bytes).unwrap_or_default()).into_owned()
    };
    match request {
        Request::Object(handle, Operation::Write(slice)) if handle.as_u32() == LOG_HANDLE => {
            print!("log: {}", text(slice, &mut [0; 128]));
            Ok(slice.len_bytes() as u64)
        }
        Request::Spawn { path } => {
            println!("kernel: starts {}", text(path, &mut [0; 128]));
            Ok(1)
        }
        Request::Object(handle, Operation::Wait) if handle.as_u32() == 1 => Ok(0),
        _ => Err(SysError::NO_CALL),
    }
}

fn main() {
    match program(&Calls::new(Kernel)) {
        Ok(code) => println!("the service ended with {code}"),
        Err(error) => println!("init failed: {error}"),
    }
}

//! A program's stubs and the kernel's decoder are two readings of one ABI: here they meet.
#![expect(
    unsafe_code,
    reason = "stands in for the kernel, and for the program's memory"
)]

use core::cell::RefCell;

use svsm_syscall::{
    abi::{DirEntry, FileFlags, FileKind, FileModes, Number, SeekMode, Status, SysError},
    handle::Handle,
    memory::{CurrentProcess, UserMemory, read_str, write_value},
    program::Rights,
    request::{Operation, Request},
    user::{Calls, Gate},
};

/// What a test says to a request.
type Answer<'t> = dyn FnMut(Request, &CurrentProcess) -> Result<u64, SysError> + 't;

/// Decodes what comes in, and answers what a test says.
struct Kernel<'t>(RefCell<&'t mut Answer<'t>>);

impl Gate for Kernel<'_> {
    unsafe fn call(&self, number: Number, arguments: [u64; 5]) -> Status {
        // SAFETY: the caller vouches for the memory that it names, and all of it is there.
        let memory = unsafe { CurrentProcess::new(false) };
        let request = Request::decode(number, arguments);
        Status::new(request.and_then(|request| (self.0.borrow_mut())(request, &memory)))
    }
}

/// Makes one call, to which the kernel answers `answer`, and says what the kernel saw.
fn seen<T>(
    answer: Result<u64, SysError>,
    call: impl FnOnce(&Calls<Kernel<'_>>) -> T,
) -> (Request, T) {
    let mut request = None;
    let mut kernel = |seen, _: &CurrentProcess| {
        request = Some(seen);
        answer
    };
    let result = call(&Calls::new(Kernel(RefCell::new(&mut kernel))));
    let Some(request) = request else {
        unreachable!("the kernel did not understand it")
    };
    (request, result)
}

const HANDLE: Handle = Handle::from_u32(0x1_0003);

#[test]
fn calls_arrive_as_they_were_meant() {
    let object = |operation| Request::Object(HANDLE, operation);
    assert_eq!(
        seen(Ok(9), |c| c.wait(HANDLE)),
        (object(Operation::Wait), Ok(9))
    );
    let seek = Operation::Seek {
        offset: -2,
        mode: SeekMode::Relative,
    };
    assert_eq!(
        seen(Ok(5), |c| c.seek(HANDLE, -2, SeekMode::Relative)),
        (object(seek), Ok(5))
    );
    let truncate = Operation::Truncate { bytes: 7 };
    assert_eq!(
        seen(Ok(7), |c| c.truncate(HANDLE, 7)),
        (object(truncate), Ok(7))
    );
    assert_eq!(
        seen(Ok(0), |c| c.close(HANDLE)),
        (Request::Close(HANDLE), ())
    );
    assert_eq!(
        seen(Ok(3), |c| c.capability(2)),
        (Request::Capability { index: 2 }, Ok(3))
    );
    assert_eq!(seen(Ok(0), |c| c.yield_now()), (Request::Yield, ()));
    assert_eq!(seen(Ok(4), |c| c.identity()), (Request::Identity, Ok(4)));
    assert_eq!(seen(Ok(1), |c| c.cpu()), (Request::Cpu, Ok(1)));
    assert_eq!(
        seen(Ok(0), |c| c.verdict(6)),
        (Request::Verdict { code: 6 }, Ok(()))
    );
    let sleep = seen(Ok(0), |c| c.sleep(core::time::Duration::from_micros(3)));
    assert_eq!(sleep, (Request::Sleep { ns: 3000 }, Ok(())));
    let (map, at) = seen(Ok(0x5000), |c| c.map(16, Rights::Write));
    assert_eq!(
        map,
        Request::Map {
            bytes: 16,
            rights: Rights::Write
        }
    );
    assert_eq!(
        at.map(|memory| (memory.cast::<u8>().addr().get(), memory.len())),
        Ok((0x5000, 16))
    );
}

#[test]
fn errors_come_back_as_errors() {
    assert_eq!(
        seen(Err(SysError::NOT_FOUND), |c| c.wait(HANDLE)).1,
        Err(SysError::NOT_FOUND)
    );
    assert_eq!(
        seen(Err(SysError::BUSY), |c| c.read(HANDLE, &mut [0; 4])).1,
        Err(SysError::BUSY)
    );
}

#[test]
fn bytes_cross_the_border_both_ways() {
    let mut said = Vec::new();
    let mut kernel = |request, memory: &CurrentProcess| match request {
        Request::Object(_, Operation::Write(slice)) => {
            said.resize(slice.len_bytes(), 0);
            Ok(memory.read(slice, &mut said) as u64)
        }
        Request::Object(_, Operation::Read(slice)) => Ok(memory.write(slice, b"answer") as u64),
        _ => Err(SysError::NO_CALL),
    };
    let calls = Calls::new(Kernel(RefCell::new(&mut kernel)));
    assert_eq!(calls.write(HANDLE, b"question"), Ok(8));
    let mut buffer = [b'.'; 8];
    assert_eq!(calls.read(HANDLE, &mut buffer), Ok(6));
    assert_eq!(&buffer, b"answer..");
    assert_eq!(said, b"question");
}

#[test]
fn paths_and_entries_cross_the_border() {
    let mut kernel = |request, memory: &CurrentProcess| match request {
        Request::Open { path, modes, flags } => {
            assert_eq!(read_str(memory, path, &mut [0; 64]), Ok("etc/motd"));
            assert_eq!((modes, flags), (FileModes::READ, FileFlags::empty()));
            Ok(HANDLE.as_u32().into())
        }
        Request::Object(HANDLE, Operation::ReadDirectory { entries, count }) => {
            assert_eq!(count, 3);
            for (index, name) in ["init", "lib"].into_iter().enumerate() {
                let entry = DirEntry::new(name, FileKind::FILE, index as u64);
                write_value(memory, entries, index as u64, &entry)?;
            }
            Ok(2)
        }
        _ => Err(SysError::NO_CALL),
    };
    let calls = Calls::new(Kernel(RefCell::new(&mut kernel)));
    let handle = calls.open(c"etc/motd", FileModes::READ, FileFlags::empty());
    assert_eq!(handle, Ok(HANDLE));
    let mut entries = [DirEntry::new("", FileKind::FILE, 0); 3];
    let names: Vec<_> = calls
        .read_directory(HANDLE, &mut entries)
        .unwrap()
        .iter()
        .map(|entry| (entry.name().unwrap(), entry.len_bytes()))
        .collect();
    assert_eq!(names, [("init", 0), ("lib", 1)]);
}

#[test]
fn a_kernel_that_counts_too_much_is_not_believed() {
    assert_eq!(seen(Ok(1000), |c| c.read(HANDLE, &mut [0; 4])).1, Ok(4));
    let mut entries = [DirEntry::new("", FileKind::FILE, 0); 2];
    let count = seen(Ok(1000), |c| {
        c.read_directory(HANDLE, &mut entries).map(<[_]>::len)
    })
    .1;
    assert_eq!(count, Ok(2));
}

//! D3 of the design: a process closes its log handle while the kernel logs, and nothing happens.

use core::sync::atomic::{AtomicBool, Ordering};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use svsm_syscall::{
    abi::{LOG_HANDLE, SysError},
    handle::{HandleTable, Object},
    memory::UserSlice,
    quota::{Budget, Resource},
    request::Operation,
};

/// The log, which the kernel holds as well as every process.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<&'static str>>);

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.0
            .lock()
            .unwrap_or_else(|_| unreachable!("nobody panics with the log in hand"))
    }
}

impl Object<()> for Log {
    fn call(&self, operation: Operation, (): &mut ()) -> Result<u64, SysError> {
        let Operation::Write(slice) = operation else {
            return Err(SysError::NOT_SUPPORTED);
        };
        self.lines().push("process");
        Ok(slice.len_bytes() as u64)
    }
}

#[test]
fn a_process_closes_its_log_handle_while_the_kernel_logs() {
    let log = Arc::new(Log::default());
    let mut quota = Budget::new().with(Resource::Handles, 8);
    let mut table = HandleTable::<Arc<Log>, 8>::new();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                log.lines().push("kernel");
                thread::yield_now();
            }
        });
        while log.lines().is_empty() {
            thread::yield_now();
        }
        let write = Operation::Write(UserSlice::new(0x1000, 3).unwrap());
        for round in 0..1000 {
            let handle = table.insert(log.clone(), &mut quota).unwrap();
            assert!(round > 0 || handle.as_u32() == LOG_HANDLE);
            assert_eq!(
                table.get(handle).and_then(|log| log.call(write, &mut ())),
                Ok(3)
            );
            table.remove(handle, &mut quota).unwrap().close(&mut ());
            // It is closed for the process, and closing it again does nothing.
            assert_eq!(table.get(handle).map(drop), Err(SysError::NOT_FOUND));
            assert!(table.remove(handle, &mut quota).is_none());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let lines = log.lines();
    assert_eq!(
        lines.iter().filter(|line| **line == "process").count(),
        1000
    );
}

//! What processes can have open: the log, children, files and directories of the archive.

use core::sync::atomic::{AtomicU64, Ordering};

use svsm_log::Class;
use svsm_platform::irq::LocalIrq;
use svsm_platform::lock::SpinLock;
use svsm_platform::once::OnceCell;
use svsm_syscall::abi::{DirEntry, FileKind, SeekMode, SysError};
use svsm_syscall::archive::Archive;
use svsm_syscall::handle::Object;
use svsm_syscall::memory::{self, CurrentProcess, UserMemory, UserPtr, UserSlice};
use svsm_syscall::quota::Resource;
use svsm_syscall::request::Operation;
use svsm_syscall::task::TaskId;

use super::{archive, task};
use crate::log;

/// What a call lends to the object that it is for: the memory of the program that makes it.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) memory: CurrentProcess,
}

/// Text that goes to the log.
pub(crate) struct LogObject;

impl Object<Caller> for LogObject {
    fn call(&self, operation: Operation, caller: &mut Caller) -> Result<u64, SysError> {
        let Operation::Write(text) = operation else {
            return Err(SysError::NOT_SUPPORTED);
        };
        // A piece at a time, and as much of it as ends with a whole character: the program writes on with the rest.
        let mut chunk = [0; 256];
        let (now, _) = text.split_at(chunk.len());
        let bytes = chunk.get_mut(..now.len_bytes()).ok_or(SysError::INVALID)?;
        memory::read_exact(&caller.memory, now, bytes)?;
        let whole = match core::str::from_utf8(bytes) {
            Err(cut) if cut.error_len().is_none() && cut.valid_up_to() > 0 => cut.valid_up_to(),
            _ => bytes.len(),
        };
        // What is no text is shown as far as it is.
        let parts = bytes.get(..whole).unwrap_or_default().utf8_chunks();
        for part in parts
            .map(|part| part.valid())
            .filter(|part| !part.is_empty())
        {
            task::with_current(|task| {
                log::process_text(task.process().image(), Class::Local, part);
            });
        }
        Ok(whole as u64)
    }
}

/// A process that another one has started, or is about to.
#[derive(Default)]
pub(crate) struct Child(pub(crate) OnceCell<TaskId>);

impl Object<Caller> for Child {
    fn call(&self, operation: Operation, _: &mut Caller) -> Result<u64, SysError> {
        let Operation::Wait = operation else {
            return Err(SysError::NOT_SUPPORTED);
        };
        let code = task::wait(*self.0.value().ok_or(SysError::NOT_FOUND)?)?;
        task::with_current(|task| task.process().refund(Resource::Tasks, 1));
        Ok(code.into())
    }

    fn close(&self, _: &mut Caller) {
        if let Some(child) = self.0.value() {
            task::disown(*child);
            task::with_current(|task| task.process().refund(Resource::Tasks, 1));
        }
    }
}

/// A file of the archive; it can only be read.
pub(crate) struct File {
    contents: &'static [u8],
    position: AtomicU64,
}

impl File {
    /// A file at its start.
    pub(crate) const fn new(contents: &'static [u8]) -> Self {
        Self {
            contents,
            position: AtomicU64::new(0),
        }
    }

    fn read(&self, to: UserSlice, caller: &Caller) -> Result<u64, SysError> {
        let position = usize::try_from(self.position.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let rest = self.contents.get(position..).unwrap_or_default();
        let bytes = rest
            .get(..rest.len().min(to.len_bytes()))
            .unwrap_or_default();
        let written = caller.memory.write(to, bytes);
        if written < bytes.len() {
            return Err(SysError::FAULT);
        }
        self.position.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written as u64)
    }

    fn seek(&self, offset: i64, mode: SeekMode) -> Result<u64, SysError> {
        let end = self.contents.len() as u64;
        let new = match mode {
            SeekMode::Absolute => Some(offset.cast_unsigned()),
            SeekMode::Relative => self
                .position
                .load(Ordering::Relaxed)
                .checked_add_signed(offset),
            SeekMode::End => end.checked_add_signed(offset),
        };
        let new = new.ok_or(SysError::INVALID)?.min(end);
        self.position.store(new, Ordering::Relaxed);
        Ok(new)
    }
}

impl Object<Caller> for File {
    fn call(&self, operation: Operation, caller: &mut Caller) -> Result<u64, SysError> {
        match operation {
            Operation::Read(to) => self.read(to, caller),
            Operation::Seek { offset, mode } => self.seek(offset, mode),
            Operation::Write(_) | Operation::Truncate { .. } => Err(SysError::READ_ONLY),
            _ => Err(SysError::NOT_SUPPORTED),
        }
    }
}

/// The archive's root, which is all the directories there are.
pub(crate) struct Directory {
    next: SpinLock<usize, LocalIrq>,
}

impl Directory {
    /// The directory at its first entry.
    pub(crate) const fn new() -> Self {
        Self {
            next: SpinLock::new(0, LocalIrq),
        }
    }

    fn entries(&self, to: UserPtr<DirEntry>, count: u64, caller: &Caller) -> Result<u64, SysError> {
        let mut next = self.next.lock();
        let entries = Archive::new(archive())
            .entries()
            .filter_map(Result::ok)
            .filter(|entry| entry.is_file());
        let mut written = 0;
        for entry in entries.skip(*next) {
            if written == count {
                break;
            }
            let value = DirEntry::new(entry.name(), FileKind::FILE, entry.data().len() as u64);
            memory::write_value(&caller.memory, to, written, &value)?;
            written += 1;
        }
        *next = next.saturating_add(usize::try_from(written).unwrap_or(usize::MAX));
        Ok(written)
    }
}

impl Object<Caller> for Directory {
    fn call(&self, operation: Operation, caller: &mut Caller) -> Result<u64, SysError> {
        match operation {
            Operation::ReadDirectory { entries, count } => self.entries(entries, count, caller),
            _ => Err(SysError::NOT_SUPPORTED),
        }
    }
}

//! A process: its memory, what it has open, and what it may still have.

use alloc::sync::Arc;

use svsm_log::ImageId;
use svsm_platform::cpu::cr::Cr3;
use svsm_platform::irq::LocalIrq;
use svsm_platform::lock::SpinLock;
use svsm_syscall::abi::SysError;
use svsm_syscall::handle::{Handle, HandleTable, Object};
use svsm_syscall::memory::UserSlice;
use svsm_syscall::program::Rights;
use svsm_syscall::quota::{Budget, Quota, Resource};

use super::endpoint::Endpoint;
use super::object::{Caller, LogObject};
use super::space::{Space, SpaceError, Start};
use crate::image;

/// Handles that a process can have.
const HANDLES: usize = 32;
/// Pages that a process can ask for.
const PAGES: u64 = 512;
/// Children that the first process can have at a time. Others have none: whoever starts programs decides who runs.
const CHILDREN: u64 = 32;

/// What a handle stands for.
pub(crate) type Opened = Arc<dyn Object<Caller> + Send + Sync>;

/// What a process is there for.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    /// It starts the others, and its end is the end of the run.
    First,
    /// It serves the guest.
    Serves(&'static Endpoint),
    /// Whatever it likes.
    Plain,
}

/// One process.
pub(crate) struct Process {
    image: ImageId,
    cr3: Cr3,
    role: Role,
    state: SpinLock<State, LocalIrq>,
}

struct State {
    space: Space,
    open: HandleTable<Opened, HANDLES>,
    budget: Budget,
}

impl Process {
    /// Loads the program in `file`.
    ///
    /// # Errors
    /// Why it cannot run.
    pub(crate) fn load(file: &[u8], role: Role) -> Result<(Self, Start), SpaceError> {
        let (space, start) = Space::load(file)?;
        let budget = Budget::new()
            .with(Resource::Handles, HANDLES as u64)
            .with(Resource::Pages, PAGES)
            .with(
                Resource::Tasks,
                if matches!(role, Role::First) {
                    CHILDREN
                } else {
                    0
                },
            );
        let cr3 = space.cr3()?;
        let mut state = State {
            space,
            open: HandleTable::new(),
            budget,
        };
        // The first handle of a table is the log's.
        let log: Opened = Arc::new(LogObject);
        let _ = state.open.insert(log, &mut state.budget);
        let state = SpinLock::new(state, LocalIrq);
        Ok((
            Self {
                image: image::id_of(file),
                cr3,
                role,
                state,
            },
            start,
        ))
    }

    /// Which program it runs, as the log names it.
    pub(crate) const fn image(&self) -> ImageId {
        self.image
    }

    /// The root of its page table.
    pub(crate) const fn cr3(&self) -> Cr3 {
        self.cr3
    }

    /// Whether it is the one whose end is the end of the run.
    pub(crate) const fn is_first(&self) -> bool {
        matches!(self.role, Role::First)
    }

    /// What it serves the guest by.
    pub(crate) const fn serves(&self) -> Option<&'static Endpoint> {
        match self.role {
            Role::Serves(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// Opens something.
    ///
    /// # Errors
    /// There is no room, or the process has had its share.
    pub(crate) fn open(&self, object: Opened) -> Result<Handle, SysError> {
        let mut state = self.state.lock();
        let State { open, budget, .. } = &mut *state;
        open.insert(object, budget).map_err(|(_, error)| error)
    }

    /// What a handle stands for.
    ///
    /// # Errors
    /// [`SysError::NOT_FOUND`] if nothing is open by that number.
    pub(crate) fn opened(&self, handle: Handle) -> Result<Opened, SysError> {
        self.state.lock().open.get(handle).cloned()
    }

    /// Closes a handle.
    pub(crate) fn close(&self, handle: Handle) -> Option<Opened> {
        let mut state = self.state.lock();
        let State { open, budget, .. } = &mut *state;
        open.remove(handle, budget)
    }

    /// Takes some of what the process may have.
    ///
    /// # Errors
    /// There is not so much left.
    pub(crate) fn charge(&self, what: Resource, amount: u64) -> Result<(), SysError> {
        self.state.lock().budget.charge(what, amount)
    }

    /// Gives it back.
    pub(crate) fn refund(&self, what: Resource, amount: u64) {
        self.state.lock().budget.refund(what, amount);
    }

    /// Gives it memory.
    ///
    /// # Errors
    /// Its share is used up, or there is none.
    pub(crate) fn map(&self, len_bytes: u64, rights: Rights) -> Result<u64, SysError> {
        let pages = len_bytes.div_ceil(svsm_mm::window::PAGE_BYTES);
        self.charge(Resource::Pages, pages)?;
        let given = self.state.lock().space.ask(pages, rights);
        match given {
            Ok(at) => Ok(at.as_u64()),
            Err(_) => {
                self.refund(Resource::Pages, pages);
                Err(SysError::NO_MEMORY)
            }
        }
    }

    /// Takes memory back.
    ///
    /// # Errors
    /// It is not the process's.
    pub(crate) fn unmap(&self, memory: UserSlice) -> Result<(), SysError> {
        let pages = self
            .state
            .lock()
            .space
            .give_back(memory)
            .map_err(|_| SysError::INVALID)?;
        self.refund(Resource::Pages, pages);
        Ok(())
    }
}

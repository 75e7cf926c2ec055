//! Programs that serve a protocol of the guest: one request at a time, from the CPU that the guest calls on to the program, and
//! its answer back.

use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use svsm_platform::irq::LocalIrq;
use svsm_platform::lock::SpinLock;
use svsm_protocol::ProtocolId;
use svsm_protocol::attest::{Attested, Guid};
use svsm_protocol::vtpm::{NotTaken, Tpm};
use svsm_syscall::abi::SysError;
use svsm_syscall::handle::Object;
use svsm_syscall::memory::{self, UserMemory, UserSlice};
use svsm_syscall::request::Operation;
use svsm_syscall::task::{Leave, TaskId};

use super::object::Caller;
use super::task;

/// The longest request or answer.
const MESSAGE_BYTES: usize = 4096;
/// The most that a service can say of itself.
const STATEMENT_BYTES: usize = 2048;

/// The endpoint of each protocol that a program can serve, and the name in the archive of the program that may.
static ENDPOINTS: [(ProtocolId, &str, &Endpoint); 1] = [(ProtocolId::VTPM, "vtpm", &VTPM)];

/// Where the guest's TPM commands go.
pub(crate) static VTPM: Endpoint = Endpoint::new();

/// What lies between the guest's calls and a program.
pub(crate) struct Endpoint(SpinLock<State, LocalIrq>);

struct State {
    phase: Phase,
    server: Option<TaskId>,
    message: Vec<u8>,
    statement: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The image has no such program.
    Unserved,
    /// The program has been started, and gets ready.
    Starting,
    /// It waits for a request.
    Waiting,
    /// There is one.
    Asked,
    /// It works on it.
    AtWork,
    /// The answer is there.
    Answered,
    /// It has ended.
    Gone,
}

impl Endpoint {
    const fn new() -> Self {
        Self(SpinLock::new(
            State {
                phase: Phase::Unserved,
                server: None,
                message: Vec::new(),
                statement: Vec::new(),
            },
            LocalIrq,
        ))
    }

    /// Whether there is a program behind it, or was one.
    pub(crate) fn is_served(&self) -> bool {
        self.0.lock().phase != Phase::Unserved
    }

    /// A request, or that there will be none.
    fn request(&self) -> Option<Vec<u8>> {
        let mut state = self.0.lock();
        match state.phase {
            Phase::Asked => {
                state.phase = Phase::AtWork;
                Some(mem::take(&mut state.message))
            }
            // What it did not answer is lost to it.
            Phase::Starting | Phase::AtWork => {
                state.phase = Phase::Waiting;
                None
            }
            _ => None,
        }
    }

    /// Waits for a request and copies it to the program.
    fn read(&self, to: UserSlice, caller: &Caller) -> Result<u64, SysError> {
        let message = loop {
            match self.request() {
                Some(message) => break message,
                None => task::leave(Leave::Sleep { deadline: None }),
            }
        };
        let room = message.get(..to.len_bytes().min(message.len()));
        let bytes = room.unwrap_or_default();
        let written = caller.memory.write(to, bytes);
        if written < message.len() {
            return Err(SysError::FAULT);
        }
        Ok(written as u64)
    }

    /// Takes the program's answer.
    fn write(&self, from: UserSlice, caller: &Caller) -> Result<u64, SysError> {
        let answer = copy(from, MESSAGE_BYTES, caller)?;
        let mut state = self.0.lock();
        if state.phase != Phase::AtWork {
            return Err(SysError::INVALID);
        }
        state.phase = Phase::Answered;
        state.message = answer;
        Ok(from.len_bytes() as u64)
    }

    /// Opens it for the current task, whose process has reserved it.
    ///
    /// # Errors
    /// That is not the endpoint of that protocol.
    pub(super) fn serve(&'static self, protocol: u32) -> Result<Served, SysError> {
        let protocol = ProtocolId::new(protocol);
        let mut endpoints = ENDPOINTS.iter();
        if !endpoints.any(|(id, _, endpoint)| *id == protocol && core::ptr::eq(*endpoint, self)) {
            return Err(SysError::NOT_ALLOWED);
        }
        self.0.lock().server = task::current_id();
        Ok(Served(self))
    }

    /// The program behind it has ended, or did not even start.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.phase = Phase::Gone;
        state.server = None;
        state.statement = Vec::new();
    }

    fn publish(&self, statement: UserSlice, caller: &Caller) -> Result<u64, SysError> {
        let statement = copy(statement, STATEMENT_BYTES, caller)?;
        self.0.lock().statement = statement;
        Ok(0)
    }
}

fn copy(from: UserSlice, most: usize, caller: &Caller) -> Result<Vec<u8>, SysError> {
    if from.len_bytes() > most {
        return Err(SysError::INVALID);
    }
    let mut bytes = vec![0; from.len_bytes()];
    memory::read_exact(&caller.memory, from, &mut bytes)?;
    Ok(bytes)
}

/// The endpoint that a program of that name may serve, which has no other server.
pub(super) fn reserve(name: &str) -> Option<&'static Endpoint> {
    let mut endpoints = ENDPOINTS.iter();
    let (_, _, endpoint) = endpoints.find(|(_, server, _)| *server == name)?;
    let mut state = endpoint.0.lock();
    (state.phase == Phase::Unserved).then(|| {
        state.phase = Phase::Starting;
        *endpoint
    })
}

/// Whether all programs that serve are ready to.
pub(crate) fn are_ready() -> bool {
    let mut endpoints = ENDPOINTS.iter();
    endpoints.all(|(_, _, endpoint)| endpoint.0.lock().phase != Phase::Starting)
}

/// An endpoint as the program has it open.
pub(crate) struct Served(&'static Endpoint);

impl Object<Caller> for Served {
    fn call(&self, operation: Operation, caller: &mut Caller) -> Result<u64, SysError> {
        match operation {
            Operation::Read(to) => self.0.read(to, caller),
            Operation::Write(from) => self.0.write(from, caller),
            Operation::Publish(statement) => self.0.publish(statement, caller),
            _ => Err(SysError::NOT_SUPPORTED),
        }
    }
}

/// The program as the guest's calls see it.
impl Tpm for &Endpoint {
    fn submit(&mut self, locality: u8, command: &[u8]) -> Result<(), NotTaken> {
        let mut state = self.0.lock();
        match state.phase {
            Phase::Waiting | Phase::Answered => {}
            Phase::Unserved | Phase::Gone => return Err(NotTaken::Gone),
            Phase::Starting | Phase::Asked | Phase::AtWork => return Err(NotTaken::AtWork),
        }
        state.message.clear();
        state.message.push(locality);
        state.message.extend_from_slice(command);
        state.phase = Phase::Asked;
        let server = state.server;
        drop(state);
        if let Some(server) = server {
            task::wake(server);
        }
        Ok(())
    }

    fn lend_time(&mut self) {
        task::lend();
    }

    fn take(&mut self, to: &mut [u8]) -> Result<usize, NotTaken> {
        let mut state = self.0.lock();
        match state.phase {
            Phase::Answered => {}
            Phase::Starting | Phase::Asked | Phase::AtWork => return Err(NotTaken::AtWork),
            // It waits for the next request without having answered this one, or for none at all any more.
            Phase::Waiting | Phase::Unserved | Phase::Gone => return Err(NotTaken::Gone),
        }
        state.phase = Phase::Waiting;
        let len = state.message.len().min(to.len());
        if let (Some(to), Some(from)) = (to.get_mut(..len), state.message.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }
}

/// What the TPM says of itself: its endorsement key.
impl Attested for Endpoint {
    fn guid(&self) -> Guid {
        Guid::VTPM
    }

    fn manifest(&self, version: u32, out: &mut [u8]) -> Option<usize> {
        let state = self.0.lock();
        if version != 0 || state.statement.is_empty() {
            return None;
        }
        out.get_mut(..state.statement.len())?
            .copy_from_slice(&state.statement);
        Some(state.statement.len())
    }
}

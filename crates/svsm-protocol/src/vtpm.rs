//! The vTPM protocol (58019, "vTPM Protocol", version 1): a guest's commands to a TPM that runs beside the calls.
//!
//! A command may take long, and a call must not. So a call lends the TPM its processor for a bounded time, and answers
//! [`ResultCode::INCOMPLETE`] while there is no response; the buffer then stays as it is, and the guest repeats the call. Until
//! it has the response, nobody else gets one: others are [`ResultCode::BUSY`], and their calls lend time, too, so a virtual
//! CPU that no longer runs holds nobody up for ever. [`Desk`] remembers whose turn it is.

use core::fmt;

use svsm_platform::addr::Gpa;
use svsm_platform::irq::IrqCtl;
use svsm_platform::lock::SpinLock;
use svsm_platform::seam::GuestMap;

use crate::buffer::GuestBuffers;
use crate::registry::{Registry, Vcpu};
use crate::seam::GuestMemory;
use crate::{Arguments, Outcome, Protocol, ProtocolId, ResultCode, Versions};

/// `SVSM_VTPM_QUERY`
const QUERY: u32 = 0;
/// `SVSM_VTPM_CMD`
const COMMAND: u32 = 1;

/// `TPM_SEND_COMMAND` of the TPM simulator's protocol, the one platform command that guests need.
const SEND_COMMAND: u32 = 8;
/// The highest number of a platform command in the simulator's protocol.
const LAST_PLATFORM_COMMAND: u32 = 30;

/// What a guest writes before a command: platform command (4 bytes), locality (1), size of the command (4).
const REQUEST_HEADER: usize = 9;
/// What the SVSM writes before a response: its size.
const RESPONSE_HEADER: usize = 4;
/// A request or response, with what stands before it.
const BUFFER_BYTES: usize = 4096;

/// The most bytes of a command.
pub const MAX_COMMAND_BYTES: usize = BUFFER_BYTES - REQUEST_HEADER;
/// The most bytes of a response.
pub const MAX_RESPONSE_BYTES: usize = BUFFER_BYTES - RESPONSE_HEADER;

/// `TPM_RC_FAILURE`: what a TPM answers that is no longer there.
const FAILURE: [u8; 10] = *b"\x80\x01\0\0\0\x0a\0\0\x01\x01";

/// A TPM that runs beside the calls.
pub trait Tpm {
    /// Takes a command, from which it works as it gets time. A response that nobody took is forgotten.
    ///
    /// # Errors
    /// Why it does not.
    fn submit(&mut self, locality: u8, command: &[u8]) -> Result<(), NotTaken>;

    /// Lets it work for a bounded time, if it has work.
    fn lend_time(&mut self);

    /// Copies the response to the start of `to`, once there is one, and answers with its length; at most
    /// [`MAX_RESPONSE_BYTES`].
    ///
    /// # Errors
    /// [`NotTaken::AtWork`], or that there will be no response.
    fn take(&mut self, to: &mut [u8]) -> Result<usize, NotTaken>;
}

/// Why a TPM takes no command, or gives no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NotTaken {
    /// It works on one.
    AtWork,
    /// It is gone, and with it whatever it worked on.
    Gone,
}

/// Whose command a TPM works on. One for each TPM, shared by all processors.
#[derive(Debug)]
pub struct Desk<I: IrqCtl>(SpinLock<Option<Ticket>, I>);

/// A call that was not answered yet: who made it, and with which buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    save_area: Gpa,
    buffer: u64,
}

impl<I: IrqCtl> Desk<I> {
    /// Nobody waits.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(irq: I) -> Self {
        Self(SpinLock::new(None, irq))
    }

    /// Nobody waits.
    #[cfg(loom)]
    #[must_use]
    pub fn new(irq: I) -> Self {
        Self(SpinLock::new(None, irq))
    }
}

/// Memory for one call, which the firmware lends.
pub type Scratch = [u8; BUFFER_BYTES];

/// The protocol for one call of one virtual CPU.
pub struct Vtpm<'a, 'm, M, G, I: IrqCtl, T> {
    desk: &'a Desk<I>,
    tpm: T,
    registry: &'a Registry<'m, I>,
    buffers: GuestBuffers<'a, 'm, M, G, I>,
    caller: Vcpu,
    scratch: &'a mut Scratch,
}

impl<M, G, I: IrqCtl, T> fmt::Debug for Vtpm<'_, '_, M, G, I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vtpm")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl<'a, 'm, M: GuestMemory, G: GuestMap, I: IrqCtl, T: Tpm> Vtpm<'a, 'm, M, G, I, T> {
    /// The protocol for `caller`, in front of `tpm`, to which `desk` belongs.
    #[must_use]
    pub fn new(
        (desk, tpm): (&'a Desk<I>, T),
        registry: &'a Registry<'m, I>,
        (map, memory): (G, M),
        caller: Vcpu,
        scratch: &'a mut Scratch,
    ) -> Self {
        Self {
            desk,
            tpm,
            registry,
            buffers: GuestBuffers::new(registry, map, memory),
            caller,
            scratch,
        }
    }

    fn command(&mut self, buffer: u64) -> Outcome {
        // What is in the buffer may have changed since; whose turn it is, not.
        let mine = Ticket {
            save_area: self.caller.save_area,
            buffer,
        };
        if self.desk.0.lock().as_ref() != Some(&mine) {
            self.submit(mine)?;
        }
        self.tpm.lend_time();
        self.respond(mine)
    }

    fn submit(&mut self, mine: Ticket) -> Result<(), ResultCode> {
        let len = self.request(mine.buffer)?;
        let (locality, command) = self
            .scratch
            .split_first()
            .and_then(|(locality, command)| Some((*locality, command.get(..len)?)))
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        let mut desk = self.desk.0.lock();
        let may_replace = match *desk {
            None => true,
            // Who asks for something else has given up on what it asked for before, and a CPU that is gone cannot come back.
            Some(other) => {
                other.save_area == mine.save_area || !self.registry.has_save_area(other.save_area)
            }
        };
        let taken = if may_replace {
            self.tpm.submit(locality, command)
        } else {
            Err(NotTaken::AtWork)
        };
        if taken == Err(NotTaken::AtWork) {
            drop(desk);
            self.tpm.lend_time();
            return Err(ResultCode::BUSY);
        }
        // One that is gone says so when it is asked for the response.
        *desk = Some(mine);
        Ok(())
    }

    /// Reads a request: its locality into the first byte of the scratch memory, then the command. Answers with the length of that.
    fn request(&mut self, buffer: u64) -> Result<usize, ResultCode> {
        // Whatever is wrong with the buffer has this one code: the guest passes it as a parameter, and names nothing else by it.
        let invalid = |_| ResultCode::INVALID_PARAMETER;
        if buffer == 0 {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        self.buffers
            .check(buffer, BUFFER_BYTES as u64)
            .map_err(invalid)?;
        let mut header = [0; REQUEST_HEADER];
        self.buffers.read(buffer, &mut header).map_err(invalid)?;
        let [c0, c1, c2, c3, locality, s0, s1, s2, s3] = header;
        match u32::from_le_bytes([c0, c1, c2, c3]) {
            SEND_COMMAND => {}
            1..=LAST_PLATFORM_COMMAND => return Err(ResultCode::UNSUPPORTED_CALL),
            _ => return Err(ResultCode::INVALID_PARAMETER),
        }
        let len = usize::try_from(u32::from_le_bytes([s0, s1, s2, s3]))
            .ok()
            .filter(|len| locality == 0 && *len <= MAX_COMMAND_BYTES)
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        let (first, command) = self
            .scratch
            .split_first_mut()
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        *first = locality;
        let command = command
            .get_mut(..len)
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        let at = buffer
            .checked_add(REQUEST_HEADER as u64)
            .ok_or(ResultCode::INVALID_PARAMETER)?;
        self.buffers.read(at, command).map_err(invalid)?;
        Ok(len)
    }

    fn respond(&mut self, mine: Ticket) -> Outcome {
        let mut desk = self.desk.0.lock();
        // On another processor, the guest may have deleted the CPU that makes this call, and somebody else come after it.
        if desk.as_ref() != Some(&mine) {
            return Err(ResultCode::BUSY);
        }
        let (size, response) = self
            .scratch
            .split_first_chunk_mut::<RESPONSE_HEADER>()
            .ok_or(ResultCode::INVALID_REQUEST)?;
        let len = match self.tpm.take(response) {
            Err(NotTaken::AtWork) => return Err(ResultCode::INCOMPLETE),
            Ok(len) => len,
            Err(NotTaken::Gone) => {
                if let Some(to) = response.first_chunk_mut() {
                    *to = FAILURE;
                }
                FAILURE.len()
            }
        };
        *desk = None;
        drop(desk);
        *size = u32::try_from(len)
            .map_err(|_| ResultCode::INVALID_REQUEST)?
            .to_le_bytes();
        let all = self
            .scratch
            .get(..len + RESPONSE_HEADER)
            .ok_or(ResultCode::INVALID_REQUEST)?;
        self.buffers
            .write(mine.buffer, all)
            .map_err(|_| ResultCode::INVALID_PARAMETER)?;
        Ok(ResultCode::SUCCESS)
    }
}

impl<M: GuestMemory, G: GuestMap, I: IrqCtl, T: Tpm> Protocol for Vtpm<'_, '_, M, G, I, T> {
    fn id(&self) -> ProtocolId {
        ProtocolId::VTPM
    }

    fn versions(&self) -> Versions {
        Versions::only(1)
    }

    fn call(&mut self, call: u32, arguments: &mut Arguments) -> Outcome {
        match call {
            QUERY => {
                arguments.rcx = 1 << SEND_COMMAND;
                arguments.rdx = 0;
                Ok(ResultCode::SUCCESS)
            }
            COMMAND => self.command(arguments.rcx),
            _ => Err(ResultCode::UNSUPPORTED_CALL),
        }
    }
}

//! The commands of the control channel (tpm_ioctl.h of swtpm).

use core::sync::atomic::Ordering;

use super::Service;
use crate::Machine;

/// Commands, by swtpm's names.
mod command {
    pub(super) const GET_CAPABILITY: u32 = 1;
    pub(super) const INIT: u32 = 2;
    pub(super) const SHUTDOWN: u32 = 3;
    pub(super) const GET_TPMESTABLISHED: u32 = 4;
    pub(super) const SET_LOCALITY: u32 = 5;
    pub(super) const HASH_START: u32 = 6;
    pub(super) const HASH_DATA: u32 = 7;
    pub(super) const HASH_END: u32 = 8;
    pub(super) const CANCEL_TPM_CMD: u32 = 9;
    pub(super) const STORE_VOLATILE: u32 = 10;
    pub(super) const RESET_TPMESTABLISHED: u32 = 11;
    pub(super) const GET_STATEBLOB: u32 = 12;
    pub(super) const SET_STATEBLOB: u32 = 13;
    pub(super) const STOP: u32 = 14;
    pub(super) const GET_CONFIG: u32 = 15;
    pub(super) const SET_DATAFD: u32 = 16;
    pub(super) const SET_BUFFERSIZE: u32 = 17;
    pub(super) const GET_INFO: u32 = 18;
}

/// Results, as TPM 1.2 numbers them.
mod result {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const BAD_PARAMETER: u32 = 3;
    pub(super) const FAIL: u32 = 9;
    pub(super) const BAD_ORDINAL: u32 = 10;
    pub(super) const BAD_LOCALITY: u32 = 61;
}

/// What GET_CAPABILITY reports.
const CAPABILITIES: u64 = 1 // INIT
    | 1 << 1 // SHUTDOWN
    | 1 << 2 // GET_TPMESTABLISHED
    | 1 << 3 // SET_LOCALITY
    | 1 << 4 // HASHING
    | 1 << 5 // CANCEL_TPM_CMD
    | 1 << 6 // STORE_VOLATILE
    | 1 << 7 // RESET_TPMESTABLISHED
    | 1 << 8 // GET_STATEBLOB
    | 1 << 9 // SET_STATEBLOB
    | 1 << 10 // STOP
    | 1 << 11 // GET_CONFIG
    | 1 << 12 // SET_DATAFD
    | 1 << 13 // SET_BUFFERSIZE
    | 1 << 14; // GET_INFO

/// Kinds of state.
mod blob {
    pub(super) const PERMANENT: u32 = 1;
    pub(super) const VOLATILE: u32 = 2;
    pub(super) const SAVESTATE: u32 = 3;
}

/// Commands and responses have this length at most, and no other limit can be set.
const BUFFER: u32 = 4096;
/// Which facts GET_INFO may be asked for: the specification.
const INFO_SPECIFICATION: u64 = 1;

/// What follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next one.
    Request,
    /// The descriptor that came along becomes a data channel.
    Data,
    /// The client has left.
    Close,
    /// The simulator ends.
    Exit,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the client gets.
    pub bytes: Vec<u8>,
    /// What is to be done then.
    pub after: After,
}

impl Answer {
    fn of(result: u32) -> Self {
        Self {
            bytes: result.to_be_bytes().to_vec(),
            after: After::Request,
        }
    }

    fn with(mut self, numbers: &[u32]) -> Self {
        self.bytes
            .extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
        self
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*four))
}

/// How many bytes the request has at least that begins so.
pub(super) fn wanted(begin: &[u8]) -> usize {
    let parameters = match u32_at(begin, 0) {
        None => return 4,
        Some(command::INIT | command::SET_BUFFERSIZE) => 4,
        Some(command::SET_LOCALITY | command::RESET_TPMESTABLISHED) => 1,
        Some(command::HASH_DATA) => match u32_at(begin, 4) {
            None => 4,
            Some(len) => 4usize.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)),
        },
        Some(command::GET_STATEBLOB) => 12,
        Some(command::SET_STATEBLOB) => match u32_at(begin, 12) {
            None => 12,
            Some(len) => 12usize.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)),
        },
        Some(command::GET_INFO) => 16,
        Some(_) => 0,
    };
    parameters.saturating_add(4)
}

impl Service {
    /// Answers a request of the control channel; `passed` says whether a descriptor came along.
    pub fn answer(&self, request: &[u8], passed: bool) -> Answer {
        let machine = &*self.machine;
        let (Some(code), true) = (u32_at(request, 0), request.len() >= wanted(request)) else {
            return Answer::of(result::BAD_PARAMETER);
        };
        let parameters = request.get(4..).unwrap_or_default();
        let needs_power = matches!(
            code,
            command::GET_TPMESTABLISHED
                | command::RESET_TPMESTABLISHED
                | command::HASH_START
                | command::HASH_DATA
                | command::HASH_END
                | command::CANCEL_TPM_CMD
                | command::STORE_VOLATILE
        );
        if needs_power && !machine.is_powered() {
            return Answer::of(result::BAD_ORDINAL);
        }
        let done = |worked: bool| {
            Answer::of(if worked {
                result::SUCCESS
            } else {
                result::FAIL
            })
        };
        match code {
            command::GET_CAPABILITY => Answer {
                bytes: CAPABILITIES.to_be_bytes().to_vec(),
                after: After::Request,
            },
            // Its flag asks to delete the volatile state once the TPM went on with it, which happens anyway.
            command::INIT => done(machine.reset().is_ok()),
            command::STOP => done(machine.set_power(false).is_ok()),
            command::SHUTDOWN => Answer {
                after: After::Exit,
                ..done(machine.set_power(false).is_ok())
            },
            command::GET_TPMESTABLISHED => {
                let mut answer = Answer::of(result::SUCCESS);
                // A byte, and three that fill the structure up.
                answer
                    .bytes
                    .extend([u8::from(machine.is_established()), 0, 0, 0]);
                answer
            }
            command::RESET_TPMESTABLISHED => match parameters.first() {
                Some(3 | 4) => {
                    machine.reset_established();
                    Answer::of(result::SUCCESS)
                }
                _ => Answer::of(result::BAD_LOCALITY),
            },
            command::SET_LOCALITY => match parameters.first() {
                Some(locality @ 0..=4) => {
                    self.locality.store(*locality, Ordering::SeqCst);
                    Answer::of(result::SUCCESS)
                }
                _ => Answer::of(result::BAD_LOCALITY),
            },
            command::HASH_START => {
                machine.hash_start();
                Answer::of(result::SUCCESS)
            }
            command::HASH_DATA => {
                let len = u32_at(parameters, 0).and_then(|len| usize::try_from(len).ok());
                let data = len.and_then(|len| parameters.get(4..)?.get(..len));
                match data {
                    Some(data) => {
                        machine.hash_data(data);
                        Answer::of(result::SUCCESS)
                    }
                    None => Answer::of(result::BAD_PARAMETER),
                }
            }
            command::HASH_END => {
                machine.hash_end();
                Answer::of(result::SUCCESS)
            }
            command::CANCEL_TPM_CMD => {
                machine.cancel();
                Answer::of(result::SUCCESS)
            }
            command::STORE_VOLATILE => done(machine.store_volatile().is_ok()),
            command::GET_STATEBLOB => get_state(machine, parameters),
            command::SET_STATEBLOB => set_state(machine, parameters),
            command::GET_CONFIG => Answer::of(result::SUCCESS).with(&[0]),
            command::SET_DATAFD if passed => Answer {
                after: After::Data,
                ..Answer::of(result::SUCCESS)
            },
            command::SET_DATAFD => Answer::of(result::BAD_PARAMETER),
            command::SET_BUFFERSIZE => Answer::of(result::SUCCESS).with(&[BUFFER, BUFFER, BUFFER]),
            command::GET_INFO => info(parameters),
            _ => Answer::of(result::BAD_ORDINAL),
        }
    }
}

/// A state from an offset on, all of it at once.
fn get_state(machine: &Machine, parameters: &[u8]) -> Answer {
    let blob = match u32_at(parameters, 4) {
        Some(blob::PERMANENT) => machine.permanent(),
        Some(blob::VOLATILE) => machine.volatile(),
        // What Shutdown saves is part of the permanent state.
        Some(blob::SAVESTATE) => Ok(Vec::new()),
        _ => return Answer::of(result::BAD_PARAMETER),
    };
    let Ok(blob) = blob else {
        return Answer::of(result::FAIL);
    };
    let offset = u32_at(parameters, 8).and_then(|offset| usize::try_from(offset).ok());
    let Some(rest) = offset.and_then(|offset| blob.get(offset..)) else {
        return Answer::of(result::BAD_PARAMETER);
    };
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // No key of swtpm's encrypts it: no flag is set.
    let mut answer = Answer::of(result::SUCCESS).with(&[0, len(&blob), len(rest)]);
    answer.bytes.extend(rest);
    answer
}

/// Takes a state over, for the next time that the power comes.
fn set_state(machine: &Machine, parameters: &[u8]) -> Answer {
    if machine.is_powered() {
        return Answer::of(result::BAD_ORDINAL);
    }
    let len = u32_at(parameters, 8).and_then(|len| usize::try_from(len).ok());
    let data = len.and_then(|len| parameters.get(12..)?.get(..len));
    let (Some(kind), Some(data)) = (u32_at(parameters, 4), data) else {
        return Answer::of(result::BAD_PARAMETER);
    };
    let taken = match kind {
        blob::PERMANENT => machine.set_permanent(data).is_ok(),
        blob::VOLATILE => {
            machine.set_volatile(data);
            true
        }
        blob::SAVESTATE => data.is_empty(),
        _ => return Answer::of(result::BAD_PARAMETER),
    };
    Answer::of(if taken { result::SUCCESS } else { result::FAIL })
}

/// Facts as JSON, from an offset on.
fn info(parameters: &[u8]) -> Answer {
    let flags = parameters
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let offset = u32_at(parameters, 8).and_then(|offset| usize::try_from(offset).ok());
    let text = match flags & INFO_SPECIFICATION {
        0 => "{}",
        _ => r#"{"TPMSpecification":{"family":"2.0","level":0,"revision":159}}"#,
    };
    // As a string of C.
    let all = [text.as_bytes(), &[0]].concat();
    let Some(rest) = offset.and_then(|offset| all.get(offset..)) else {
        return Answer::of(result::BAD_PARAMETER);
    };
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut answer = Answer::of(result::SUCCESS).with(&[len(&all), len(rest)]);
    answer.bytes.extend(rest);
    answer
}

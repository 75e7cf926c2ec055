//! The protocol of the TCG's simulator: a port for commands and one for the platform, big-endian numbers, each signal
//! acknowledged by a zero.

use core::net::IpAddr;
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use socket2::SockRef;

use crate::Machine;

/// Longest transfer that is accepted.
const TRANSFER_MAX: usize = 1 << 16;

/// Signals, by the names that the simulator gives them.
mod signal {
    pub(super) const POWER_ON: u32 = 1;
    pub(super) const POWER_OFF: u32 = 2;
    pub(super) const PRESENCE_ON: u32 = 3;
    pub(super) const PRESENCE_OFF: u32 = 4;
    pub(super) const HASH_START: u32 = 5;
    pub(super) const HASH_DATA: u32 = 6;
    pub(super) const HASH_END: u32 = 7;
    pub(super) const SEND_COMMAND: u32 = 8;
    pub(super) const CANCEL_ON: u32 = 9;
    pub(super) const CANCEL_OFF: u32 = 10;
    pub(super) const NV_ON: u32 = 11;
    pub(super) const NV_OFF: u32 = 12;
    pub(super) const HANDSHAKE: u32 = 15;
    pub(super) const RESET: u32 = 17;
    pub(super) const RESTART: u32 = 18;
    pub(super) const SESSION_END: u32 = 20;
    pub(super) const STOP: u32 = 21;
    pub(super) const ACT_SIGNALED: u32 = 26;
}

/// Serves both ports until a client says stop.
///
/// # Errors
///
/// A port cannot be listened on.
pub fn serve(machine: &Arc<Machine>, bind: IpAddr, port: u16, ctrl: u16) -> Result<()> {
    let listen = |port| {
        TcpListener::bind((bind, port)).with_context(|| format!("cannot listen on {bind}:{port}"))
    };
    let (commands, platform) = (listen(port)?, listen(ctrl)?);
    eprintln!("tpm-sim: commands on {bind}:{port}, platform on {bind}:{ctrl}");
    let on_platform = Arc::clone(machine);
    thread::spawn(move || accept(&platform, &on_platform, Port::Platform));
    accept(&commands, machine, Port::Commands);
    Ok(())
}

/// The two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Commands, and the signals of a dynamic launch.
    Commands,
    /// Power, presence, cancel, reset.
    Platform,
}

/// What comes after a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next signal.
    Signal,
    /// Nothing: the connection ends.
    End,
    /// Nothing: the simulator ends.
    Stop,
}

/// A connection's two directions.
pub trait Transport: Read + Write {
    /// Has what was received acknowledged at once. A client sends a command in several small writes and waits for each to be
    /// acknowledged, which the system would put off by 40 ms.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    fn hurry(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for TcpStream {
    fn hurry(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        SockRef::from(self).set_tcp_quickack(true)?;
        Ok(())
    }
}

fn accept(listener: &TcpListener, machine: &Arc<Machine>, port: Port) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let machine = Arc::clone(machine);
        thread::spawn(move || {
            // Whatever goes wrong ends this connection and no other.
            let _ = stream.set_nodelay(true);
            if let Ok(Next::Stop) = talk(&machine, stream, port) {
                std::process::exit(0);
            }
        });
    }
}

/// Answers signals until the connection ends, by a signal or by an error.
///
/// # Errors
///
/// The connection is gone, or sent what is no signal.
pub fn talk<S: Transport>(machine: &Machine, stream: S, port: Port) -> io::Result<Next> {
    let mut connection = Connection { stream };
    loop {
        let signal = connection.u32()?;
        let next = match port {
            Port::Commands => command_signal(machine, &mut connection, signal)?,
            Port::Platform => platform_signal(machine, &mut connection, signal)?,
        };
        if next != Next::Signal {
            return Ok(next);
        }
    }
}

struct Connection<S> {
    stream: S,
}

impl<S: Transport> Connection<S> {
    /// Reads exactly so much.
    fn read(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.stream.hurry()?;
        self.stream.read_exact(out)
    }

    fn u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// A number of bytes, and the bytes.
    fn sized(&mut self) -> io::Result<Vec<u8>> {
        let len = self.u32()? as usize;
        if len > TRANSFER_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; len];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Next> {
        self.stream.write_all(bytes)?;
        Ok(Next::Signal)
    }

    fn acknowledge(&mut self) -> io::Result<Next> {
        self.write(&[0; 4])
    }
}

fn command_signal<S: Transport>(
    machine: &Machine,
    peer: &mut Connection<S>,
    signal: u32,
) -> io::Result<Next> {
    match signal {
        signal::SEND_COMMAND => {
            let mut locality = [0];
            peer.read(&mut locality)?;
            let command = peer.sized()?;
            let response = machine.execute(locality[0], &command);
            let mut out = Vec::with_capacity(response.len() + 8);
            out.extend(u32::try_from(response.len()).unwrap_or(0).to_be_bytes());
            out.extend(response);
            out.extend([0; 4]);
            peer.write(&out)
        }
        signal::HASH_START => {
            machine.hash_start();
            peer.acknowledge()
        }
        signal::HASH_DATA => {
            let data = peer.sized()?;
            machine.hash_data(&data);
            peer.acknowledge()
        }
        signal::HASH_END => {
            machine.hash_end();
            peer.acknowledge()
        }
        signal::HANDSHAKE => {
            let _version = peer.u32()?;
            // Version 1; a platform port is there.
            peer.write(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0])
        }
        signal::SESSION_END => Ok(Next::End),
        signal::STOP => Ok(Next::Stop),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn platform_signal<S: Transport>(
    machine: &Machine,
    peer: &mut Connection<S>,
    signal: u32,
) -> io::Result<Next> {
    match signal {
        signal::POWER_ON => machine.set_power(true).map_err(io::Error::other)?,
        signal::POWER_OFF => machine.set_power(false).map_err(io::Error::other)?,
        signal::RESET | signal::RESTART => machine.reset().map_err(io::Error::other)?,
        signal::PRESENCE_ON => machine.set_physical_presence(true),
        signal::PRESENCE_OFF => machine.set_physical_presence(false),
        signal::CANCEL_ON => machine.set_cancel(true),
        signal::CANCEL_OFF => machine.set_cancel(false),
        signal::NV_ON | signal::NV_OFF => {}
        signal::ACT_SIGNALED => {
            // A handle, of which the last digit is the timer's number.
            let timer = peer.u32()? & 0xF;
            let signaled = machine.signaled_timers() >> timer & 1;
            peer.write(&u32::from(signaled).to_be_bytes())?;
        }
        signal::HASH_START | signal::HASH_DATA | signal::HASH_END => {
            return command_signal(machine, peer, signal);
        }
        signal::SESSION_END => return Ok(Next::End),
        signal::STOP => return Ok(Next::Stop),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    peer.acknowledge()
}

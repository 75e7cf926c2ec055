//! swtpm's protocol: a data channel that carries bare commands, and a control channel of big-endian numbers, on two TCP ports or two
//! UNIX sockets. A client of the control channel may also hand over a socket of its own as data channel.

mod control; // the commands of the control channel

use core::{
    mem::MaybeUninit,
    net::IpAddr,
    sync::atomic::{AtomicU8, Ordering},
};
use std::{
    fs,
    io::{self, IoSliceMut, Read, Write},
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::FileTypeExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use svsm_vtpm::Tpm;

use crate::Machine;
pub use control::{After, Answer};

/// Longest command.
const COMMAND_MAX: usize = 4096;
/// Longest request: four numbers and a state.
const REQUEST_MAX: usize = 4 * 4 + Machine::STATE_MAX;

/// A TPM that is reached by swtpm's protocol.
#[derive(Debug)]
pub struct Service {
    machine: Arc<Machine>,
    /// The locality of the commands that come by the data channel.
    locality: AtomicU8,
    /// Sockets in the file system, removed at the end.
    files: Vec<PathBuf>,
}

impl Service {
    /// The service of a machine.
    pub const fn new(machine: Arc<Machine>) -> Self {
        Self {
            machine,
            locality: AtomicU8::new(0),
            files: Vec::new(),
        }
    }

    /// Serves both ports until a client says shut down.
    ///
    /// # Errors
    ///
    /// A port cannot be listened on.
    pub fn serve_tcp(self, bind: IpAddr, port: u16, ctrl: u16) -> Result<()> {
        let listen = |port| {
            TcpListener::bind((bind, port))
                .with_context(|| format!("cannot listen on {bind}:{port}"))
        };
        let (data, control) = (listen(port)?, listen(ctrl)?);
        eprintln!("tpm-sim: commands on {bind}:{port}, control on {bind}:{ctrl}");
        let service = Arc::new(self);
        let on_control = Arc::clone(&service);
        thread::spawn(move || {
            for stream in control.incoming().flatten() {
                let _ = stream.set_nodelay(true);
                on_control.spawn_control(stream);
            }
        });
        for stream in data.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            service.spawn_data(stream);
        }
        Ok(())
    }

    /// Serves `path` for commands and `path` with `.ctrl` after it for control, until a client says shut down.
    ///
    /// # Errors
    ///
    /// A socket cannot be made there. One that nobody listens on any more is replaced.
    pub fn serve_unix(mut self, path: &Path) -> Result<()> {
        let mut control = path.as_os_str().to_owned();
        control.push(".ctrl");
        let control = PathBuf::from(control);
        let (on_data, on_control) = (listen(path)?, listen(&control)?);
        eprintln!(
            "tpm-sim: commands on {}, control on {}",
            path.display(),
            control.display()
        );
        self.files = vec![path.to_owned(), control];
        let service = Arc::new(self);
        let by_control = Arc::clone(&service);
        thread::spawn(move || {
            for stream in on_control.incoming().flatten() {
                by_control.spawn_control(stream);
            }
        });
        for stream in on_data.incoming().flatten() {
            service.spawn_data(stream);
        }
        Ok(())
    }

    fn spawn_data(self: &Arc<Self>, stream: impl Read + Write + Send + 'static) {
        let service = Arc::clone(self);
        // Whatever goes wrong ends this connection and no other.
        thread::spawn(move || service.data(stream));
    }

    fn spawn_control(self: &Arc<Self>, stream: impl AsFd + Write + Send + 'static) {
        let service = Arc::clone(self);
        thread::spawn(move || {
            if let Ok(After::Exit) = service.control(stream) {
                for file in &service.files {
                    let _ = fs::remove_file(file);
                }
                std::process::exit(0);
            }
        });
    }

    /// Answers the commands of a data channel until it ends.
    ///
    /// # Errors
    ///
    /// The connection is gone, or sent a command that is longer than any.
    pub fn data(&self, mut stream: impl Read + Write) -> io::Result<()> {
        loop {
            let mut command = vec![0; 10];
            stream.read_exact(&mut command)?;
            let size = command
                .iter()
                .skip(2)
                .take(4)
                .fold(0, |n, b| n << 8 | usize::from(*b));
            let fits = size <= COMMAND_MAX;
            if fits && size > command.len() {
                command.resize(size, 0);
                if let Some(rest) = command.get_mut(10..) {
                    stream.read_exact(rest)?;
                }
            }
            // What says a wrong size of itself is answered as the TPM does.
            let locality = self.locality.load(Ordering::SeqCst);
            let mut response = self.machine.execute(locality, &command);
            if response.is_empty() {
                response = Tpm::failure().to_vec();
            }
            stream.write_all(&response)?;
            if !fits {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Answers the requests of a control channel until it ends.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn control(self: &Arc<Self>, mut stream: impl AsFd + Write) -> io::Result<After> {
        let mut request = vec![0; REQUEST_MAX];
        loop {
            let (mut len, mut passed) = (0, None);
            // A request is what one write sent; some clients send more than the command needs, and none sends two at once.
            loop {
                let room = request.get_mut(len..).unwrap_or_default();
                let (more, fd) = receive(stream.as_fd(), room)?;
                if more == 0 {
                    return Ok(After::Close);
                }
                len += more;
                passed = fd.or(passed);
                let wanted = control::wanted(request.get(..len).unwrap_or_default());
                if len >= wanted.min(REQUEST_MAX) {
                    break;
                }
            }
            let request = request.get(..len).unwrap_or_default();
            let answer = self.answer(request, passed.is_some());
            stream.write_all(&answer.bytes)?;
            match (answer.after, passed) {
                (After::Data, Some(fd)) => self.spawn_data(UnixStream::from(fd)),
                (After::Exit, _) => return Ok(After::Exit),
                _ => {}
            }
        }
    }
}

/// Listens on a UNIX socket; takes the place of one that is left over.
fn listen(path: &Path) -> Result<UnixListener> {
    let left_over = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && UnixStream::connect(path).is_err();
    if left_over {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// What arrived, and the descriptor that came along.
fn receive(from: impl AsFd, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(into)];
    let message = recvmsg(from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let passed = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((message.bytes, passed))
}

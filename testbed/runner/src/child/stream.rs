use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How much QEMU can write while nobody reads. It writes serial ports byte by byte, and a firmware may give
/// up a port that does not take bytes for some milliseconds, which is soon on a busy host.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;

/// How often a stream that is silent looks whether it is to end.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// How long a stream that is not silent is read after it was to end. QEMU has ended by then, so this is for
/// something that QEMU started.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Whether streams are to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Closing(Arc<AtomicBool>);

impl Closing {
    pub(super) fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What QEMU writes.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
    closing: Closing,
}

/// A stream, and the end of it that QEMU gets.
///
/// A pipe keeps bytes that come one by one in full pages. A socket would keep each with hundreds of bytes of
/// its own, and be full after a few hundred.
pub(super) fn pipe(closing: &Closing) -> io::Result<(Stream, OwnedFd)> {
    let (ours, its) = io::pipe()?;
    // A system that allows less gives what it can.
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(&its, PIPE_BYTES);
    Ok((Stream::new(ours.into(), closing), its.into()))
}

/// A stream that QEMU also reads from, and the end of it that QEMU gets.
pub(super) fn socket(closing: &Closing) -> io::Result<(Stream, OwnedFd)> {
    let (ours, its) = UnixStream::pair()?;
    Ok((Stream::new(ours.into(), closing), its.into()))
}

impl Stream {
    fn new(fd: OwnedFd, closing: &Closing) -> Self {
        Self {
            file: fd.into(),
            closing: closing.clone(),
        }
    }

    /// Sends something to QEMU. Only a [`socket`] can.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Reads until the stream ends, or is silent when it is to end, or `each` has had enough.
    pub(crate) fn read_pieces(mut self, mut each: impl FnMut(&[u8]) -> bool) {
        let mut buffer = vec![0; 64 << 10];
        let mut until = None;
        loop {
            let closing = self.closing.0.load(Ordering::Relaxed);
            if closing && Instant::now() > *until.get_or_insert_with(|| Instant::now() + AFTERWARDS)
            {
                return;
            }
            let readable = poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&LOOK));
            match readable {
                Ok(0) if closing => return,
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(_) => return,
            }
            match self.file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(len) => {
                    if !each(buffer.get(..len).unwrap_or_default()) {
                        return;
                    }
                }
            }
        }
    }

    /// Reads lines, cut where they are longer than `max` bytes, as [`read_pieces`](Self::read_pieces) does.
    pub(crate) fn read_lines(self, max: usize, mut each: impl FnMut(String) -> bool) {
        let mut line = Vec::new();
        let mut end_line = |line: &mut Vec<u8>| {
            let text = String::from_utf8_lossy(line).trim().to_owned();
            line.clear();
            text.is_empty() || each(text)
        };
        self.read_pieces(|piece| {
            piece.iter().all(|&byte| {
                if byte != b'\n' {
                    line.push(byte);
                }
                (byte != b'\n' && line.len() < max) || end_line(&mut line)
            })
        });
        end_line(&mut line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_takes_many_single_bytes_while_nobody_reads() {
        let closing = Closing::default();
        let (stream, its) = pipe(&closing).unwrap();
        let mut its = File::from(its);
        for _ in 0..60_000 {
            its.write_all(b"x").unwrap();
        }
        drop(its);
        let mut read = 0;
        stream.read_pieces(|piece| {
            read += piece.len();
            true
        });
        assert_eq!(read, 60_000);
    }

    #[test]
    fn lines_are_cut_and_the_last_needs_no_end() {
        let (stream, its) = pipe(&Closing::default()).unwrap();
        File::from(its)
            .write_all(b"one\r\n\nfour-five\nsix")
            .unwrap();
        let mut lines = Vec::new();
        stream.read_lines(5, |line| {
            lines.push(line);
            true
        });
        assert_eq!(lines, ["one", "four-", "five", "six"]);
    }

    #[test]
    fn a_silent_stream_ends_when_it_is_to() {
        let closing = Closing::default();
        let (stream, its) = socket(&closing).unwrap();
        let reader = std::thread::spawn(move || stream.read_pieces(|_| true));
        closing.close();
        reader.join().unwrap();
        drop(its);
    }
}

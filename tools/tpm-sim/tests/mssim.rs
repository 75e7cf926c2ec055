//! The protocol of the TCG's simulator, as its clients speak it.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    thread,
};

use tpm_sim::{
    Machine, Settings,
    mssim::{Port, Transport, talk},
};

struct Wire(UnixStream);

impl Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for Wire {}

/// Asks the platform port, and reads numbers back.
fn ask<const N: usize>(client: &mut UnixStream, request: &[u32]) -> [u32; N] {
    let bytes: Vec<u8> = request.iter().flat_map(|n| n.to_be_bytes()).collect();
    client.write_all(&bytes).unwrap();
    [(); N].map(|()| {
        let mut word = [0; 4];
        client.read_exact(&mut word).unwrap();
        u32::from_be_bytes(word)
    })
}

#[test]
fn a_timer_that_signaled_is_told_and_a_reset_silences_it() {
    const SIGNALED: u32 = 26;
    const RESET: u32 = 17;
    let machine = Machine::new(Settings::default()).unwrap();
    machine.execute(0, b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0");
    let set = |timer: u8, seconds: u8| {
        let mut command =
            b"\x80\x02\0\0\0\x1F\0\0\x01\x98\x40\0\x01\x10\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0"
                .to_vec();
        command.extend([0, 0, 0, seconds]);
        if let Some(place) = command.get_mut(13) {
            *place += timer;
        }
        let response = machine.execute(0, &command);
        assert_eq!(response.get(6..10), Some(&[0; 4][..]));
    };
    set(1, 60);
    set(1, 0);
    let (mut client, theirs) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| talk(&machine, Wire(theirs), Port::Platform));
        assert_eq!(ask(&mut client, &[SIGNALED, 0x4000_0110]), [0, 0]);
        assert_eq!(ask(&mut client, &[SIGNALED, 0x4000_0111]), [1, 0]);
        assert_eq!(ask(&mut client, &[RESET]), [0]);
        assert_eq!(ask(&mut client, &[SIGNALED, 0x4000_0111]), [0, 0]);
        drop(client);
    });
    // The next start tells which it was.
    machine.execute(0, b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0");
    let all = machine.execute(
        0,
        b"\x80\x01\0\0\0\x16\0\0\x01\x7A\0\0\0\x0A\x40\0\x01\x11\0\0\0\x01",
    );
    assert_eq!(
        all.get(19..31),
        Some(&b"\x40\0\x01\x11\0\0\0\0\0\0\0\x02"[..])
    );
}

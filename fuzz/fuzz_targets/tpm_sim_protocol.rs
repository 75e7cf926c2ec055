//! What a client sends to the TPM simulator, on any of its channels: each request is answered or refused, and the TPM answers the
//! next client.
#![no_main]

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use tpm_sim::{
    Machine, Settings,
    mssim::{Port, Transport, talk},
    swtpm::Service,
};

/// A connection whose client has sent everything already.
struct Wire<'a> {
    sent: &'a [u8],
    answers: Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.sent.read(into)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for Wire<'_> {}

const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";

fuzz_target!(|bytes: &[u8]| {
    // Its memory is never given back: one for all runs.
    static MACHINE: OnceLock<Arc<Machine>> = OnceLock::new();
    let machine =
        MACHINE.get_or_init(|| Arc::new(Machine::new(Settings::default()).expect("a TPM")));
    let service = Service::new(Arc::clone(machine));
    let Some((channel, sent)) = bytes.split_first() else {
        return;
    };
    let mut wire = Wire {
        sent,
        answers: Vec::new(),
    };
    match channel % 4 {
        0 => drop(talk(machine, wire, Port::Commands)),
        1 => drop(talk(machine, wire, Port::Platform)),
        2 => drop(service.data(&mut wire)),
        _ => {
            for request in sent.chunks(usize::from(channel / 4) + 1) {
                let answer = service.answer(request, false);
                assert!(answer.bytes.len() >= 4, "a result at least");
            }
        }
    }
    // What the client stored, or sent as a state to go on with, is not for the next one.
    machine.drop_pending();
    machine.reset().expect("power");
    machine.set_cancel(false);
    let response = machine.execute(0, STARTUP);
    assert_eq!(response.get(6..), Some(&[0; 4][..]), "it starts again");
});

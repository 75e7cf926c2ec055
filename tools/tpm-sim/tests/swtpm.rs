//! swtpm's protocol, spoken as its clients speak it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use core::mem::MaybeUninit;
use std::{
    io::{IoSlice, Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::Arc,
    thread,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tpm_sim::{Machine, Settings, swtpm::Service};

const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";
const SUCCESS: [u8; 4] = [0; 4];

fn service() -> Arc<Service> {
    let machine = Machine::new(Settings::default()).unwrap();
    Arc::new(Service::new(Arc::new(machine)))
}

/// The client's end of a control channel.
fn control(service: &Arc<Service>) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let service = Arc::clone(service);
    thread::spawn(move || service.control(theirs));
    ours
}

fn data(service: &Arc<Service>) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let service = Arc::clone(service);
    thread::spawn(move || service.data(theirs));
    ours
}

fn ask(channel: &mut UnixStream, request: &[u8]) -> Vec<u8> {
    channel.write_all(request).unwrap();
    let mut answer = vec![0; 4096];
    let len = channel.read(&mut answer).unwrap();
    answer.truncate(len);
    answer
}

fn request(code: u32, parameters: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), parameters].concat()
}

/// The code of a response of the TPM.
fn code(response: &[u8]) -> u32 {
    u32::from_be_bytes(response[6..10].try_into().unwrap())
}

#[test]
fn what_qemu_needs_is_reported() {
    let answer = ask(&mut control(&service()), &request(1, &[]));
    let capabilities = u64::from_be_bytes(answer.try_into().unwrap());
    // INIT, SHUTDOWN, GET and RESET_TPMESTABLISHED, SET_LOCALITY, STOP, SET_DATAFD, SET_BUFFERSIZE.
    let needed = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 10 | 1 << 12 | 1 << 13;
    assert_eq!(capabilities & needed, needed);
    // And for a migration GET_STATEBLOB and SET_STATEBLOB; STORE_VOLATILE.
    let state = 1 << 6 | 1 << 8 | 1 << 9;
    assert_eq!(capabilities & state, state);
}

#[test]
fn a_socket_that_a_client_passes_carries_commands() {
    let service = service();
    let channel = control(&service);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let fds = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = request(16, &[]);
    sendmsg(
        channel.as_fd(),
        &[IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::empty(),
    )
    .unwrap();
    let mut result = [1; 4];
    (&channel).read_exact(&mut result).unwrap();
    assert_eq!(result, SUCCESS);
    assert_eq!(code(&ask(&mut ours, STARTUP)), 0);
}

#[test]
fn a_data_channel_without_a_socket_is_refused() {
    assert_eq!(
        ask(&mut control(&service()), &request(16, &[])),
        [0, 0, 0, 3]
    );
}

#[test]
fn init_takes_the_power_away_and_gives_it_back() {
    let service = service();
    let (mut control, mut data) = (control(&service), data(&service));
    assert_eq!(code(&ask(&mut data, STARTUP)), 0);
    // TPM_RC_INITIALIZE: it has been started.
    assert_eq!(code(&ask(&mut data, STARTUP)), 0x100);
    assert_eq!(ask(&mut control, &request(2, &[0; 4])), SUCCESS);
    assert_eq!(code(&ask(&mut data, STARTUP)), 0);
}

#[test]
fn a_tpm_that_was_stopped_answers_by_failure() {
    let service = service();
    let (mut control, mut data) = (control(&service), data(&service));
    assert_eq!(ask(&mut control, &request(14, &[])), SUCCESS);
    assert_eq!(code(&ask(&mut data, STARTUP)), 0x101);
    // And what needs it to run is a bad ordinal.
    assert_eq!(ask(&mut control, &request(4, &[])), [0, 0, 0, 10]);
}

#[test]
fn localities_end_at_four() {
    let mut control = control(&service());
    // A byte, as tpm2-tss sends it, and a word that begins with it, as QEMU does.
    assert_eq!(ask(&mut control, &request(5, &[4])), SUCCESS);
    assert_eq!(ask(&mut control, &request(5, &[1, 0, 0, 0])), SUCCESS);
    assert_eq!(ask(&mut control, &request(5, &[5])), [0, 0, 0, 61]);
}

#[test]
fn a_launch_is_measured_into_pcr_17_and_remembered() {
    let service = service();
    let (mut control, mut data) = (control(&service), data(&service));
    assert_eq!(code(&ask(&mut data, STARTUP)), 0);
    let read = b"\x80\x01\0\0\0\x14\0\0\x01\x7E\0\0\0\x01\0\x0B\x03\0\0\x02";
    let before = ask(&mut data, read);
    assert_eq!(before[before.len() - 32..], [0xFF; 32]);
    assert_eq!(ask(&mut control, &request(4, &[])), [0; 8]);
    assert_eq!(ask(&mut control, &request(6, &[])), SUCCESS);
    assert_eq!(ask(&mut control, &request(7, b"\0\0\0\x05hello")), SUCCESS);
    assert_eq!(ask(&mut control, &request(8, &[])), SUCCESS);
    let after = ask(&mut data, read);
    assert_ne!(after[after.len() - 32..], [0xFF; 32]);
    assert_eq!(
        ask(&mut control, &request(4, &[])),
        [0, 0, 0, 0, 1, 0, 0, 0]
    );
    // Only the localities of a launch may forget it.
    assert_eq!(ask(&mut control, &request(11, &[0])), [0, 0, 0, 61]);
    assert_eq!(ask(&mut control, &request(11, &[3])), SUCCESS);
    assert_eq!(ask(&mut control, &request(4, &[])), [0; 8]);
}

#[test]
fn the_buffer_has_one_size() {
    let answer = ask(&mut control(&service()), &request(17, &[0, 0, 4, 0]));
    assert_eq!(answer, [0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 16, 0]);
}

#[test]
fn info_is_handed_out_in_parts() {
    let mut control = control(&service());
    let ask_from = |control: &mut UnixStream, offset: u32| {
        let parameters = [&1u64.to_be_bytes()[..], &offset.to_be_bytes(), &[0; 4]].concat();
        ask(control, &request(18, &parameters))
    };
    let whole = ask_from(&mut control, 0);
    let rest = ask_from(&mut control, 3);
    assert_eq!(whole[12 + 3..], rest[12..]);
    assert!(whole.ends_with(b"}}\0"));
    assert_eq!(ask_from(&mut control, 4000), [0, 0, 0, 3]);
}

#[test]
fn unknown_commands_are_refused() {
    assert_eq!(
        ask(&mut control(&service()), &request(99, &[])),
        [0, 0, 0, 10]
    );
}

const EXTEND: &[u8] = b"\x80\x02\0\0\0\x41\0\0\x01\x82\0\0\0\x10\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0\0\0\0\x01\0\x0B0123456789abcdef0123456789abcdef";
const READ: &[u8] = b"\x80\x01\0\0\0\x14\0\0\x01\x7E\0\0\0\x01\0\x0B\x03\0\0\x01";

/// GET_STATEBLOB as QEMU asks: flags, kind, offset; it expects all at once.
fn state_of(channel: &mut UnixStream, kind: u32) -> Vec<u8> {
    let parameters = [1, kind, 0].map(u32::to_be_bytes).concat();
    channel.write_all(&request(12, &parameters)).unwrap();
    let mut head = [0; 16];
    channel.read_exact(&mut head).unwrap();
    assert_eq!(head[..4], SUCCESS);
    assert_eq!(head[8..12], head[12..]);
    let len = u32::from_be_bytes(head[12..].try_into().unwrap());
    let mut blob = vec![0; len as usize];
    channel.read_exact(&mut blob).unwrap();
    blob
}

/// SET_STATEBLOB as QEMU says it: the head first, then the state.
fn give_state(channel: &mut UnixStream, kind: u32, blob: &[u8]) -> Vec<u8> {
    let len = u32::try_from(blob.len()).unwrap();
    let head = [0, kind, len].map(u32::to_be_bytes).concat();
    channel.write_all(&request(13, &head)).unwrap();
    ask(channel, blob)
}

#[test]
fn a_migrated_tpm_goes_on() {
    let source = service();
    let (mut control_a, mut data_a) = (control(&source), data(&source));
    assert_eq!(code(&ask(&mut data_a, STARTUP)), 0);
    assert_eq!(code(&ask(&mut data_a, EXTEND)), 0);
    let states = [1, 2, 3].map(|kind| state_of(&mut control_a, kind));

    let target = service();
    let (mut control_b, mut data_b) = (control(&target), data(&target));
    // Not while it runs.
    assert_eq!(give_state(&mut control_b, 1, &states[0]), [0, 0, 0, 10]);
    assert_eq!(ask(&mut control_b, &request(14, &[])), SUCCESS);
    for (kind, state) in [1, 2].into_iter().zip(&states) {
        assert_eq!(give_state(&mut control_b, kind, state), SUCCESS);
    }
    assert!(states[2].is_empty());
    // QEMU resumes with the flag to delete the volatile state.
    assert_eq!(ask(&mut control_b, &request(2, &[0, 0, 0, 1])), SUCCESS);
    let answer = ask(&mut data_b, READ);
    assert_eq!(code(&answer), 0);
    assert_eq!(answer, ask(&mut data_a, READ));
    assert_eq!(code(&ask(&mut data_b, STARTUP)), 0x100);
    // From a snapshot it resumes again.
    assert_eq!(code(&ask(&mut data_b, EXTEND)), 0);
    assert_eq!(ask(&mut control_b, &request(14, &[])), SUCCESS);
    for (kind, state) in [1, 2].into_iter().zip(&states) {
        assert_eq!(give_state(&mut control_b, kind, state), SUCCESS);
    }
    assert_eq!(ask(&mut control_b, &request(2, &[0; 4])), SUCCESS);
    assert_eq!(ask(&mut data_b, READ), answer);
}

#[test]
fn a_state_that_is_not_whole_is_refused() {
    let service = service();
    let (mut control, mut data) = (control(&service), data(&service));
    assert_eq!(code(&ask(&mut data, STARTUP)), 0);
    let mut volatile = state_of(&mut control, 2);
    volatile[99] ^= 1;
    assert_eq!(ask(&mut control, &request(14, &[])), SUCCESS);
    assert_eq!(give_state(&mut control, 1, &[7; 6000]), [0, 0, 0, 9]);
    assert_eq!(give_state(&mut control, 2, &volatile), SUCCESS);
    assert_eq!(ask(&mut control, &request(2, &[0; 4])), [0, 0, 0, 9]);
    // It comes up without.
    assert_eq!(ask(&mut control, &request(2, &[0; 4])), SUCCESS);
    assert_eq!(code(&ask(&mut data, STARTUP)), 0);
}

/// Whether or not the flag says to delete it afterwards.
#[test]
fn a_stored_state_outlives_the_power_once() {
    for flags in [0, 1] {
        let service = service();
        let (mut control, mut data) = (control(&service), data(&service));
        ask(&mut data, STARTUP);
        assert_eq!(ask(&mut control, &request(10, &[])), SUCCESS);
        for started in [0x100, 0] {
            assert_eq!(ask(&mut control, &request(2, &[0, 0, 0, flags])), SUCCESS);
            assert_eq!(code(&ask(&mut data, STARTUP)), started);
        }
    }
}

#[test]
fn a_command_that_is_longer_than_any_ends_its_connection() {
    let service = service();
    let mut channel = data(&service);
    let answer = ask(&mut channel, b"\x80\x01\x7F\xFF\xFF\xFF\0\0\x01\x44");
    // TPM_RC_COMMAND_SIZE.
    assert_eq!(code(&answer), 0x142);
    assert_eq!(channel.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(code(&ask(&mut data(&service), STARTUP)), 0);
}

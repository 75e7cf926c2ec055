use std::vec;

use super::bench::{Bench, ECC_SIGNING, ECC_STORAGE, OWNER, RSA_STORAGE};
use crate::{Progress, Rc};

#[test]
fn nothing_but_startup_runs_before_startup() {
    let mut bench = Bench::powered(&super::bench::Shelf::default());
    assert_eq!(bench.run(0x17B, &[], &[], &[0, 8]).0, Rc::INITIALIZE);
    bench.ok(0x144, &[], &[0, 0]);
    assert_eq!(bench.run(0x144, &[], &[], &[0, 0]).0, Rc::INITIALIZE);
}

#[test]
fn codes_name_the_parameter_handle_or_session() {
    let mut bench = Bench::started();
    // Shutdown with a type that does not exist.
    assert_eq!(bench.run(0x145, &[], &[], &[0, 7]).0, Rc::VALUE.param(1));
    // ReadPublic of nothing.
    assert_eq!(
        bench.run(0x173, &[0x8000_0000], &[], &[]).0,
        Rc::REFERENCE_H0
    );
    assert_eq!(bench.run(0x173, &[OWNER], &[], &[]).0, Rc::VALUE.handle(1));
    // Clear with a wrong password for lockout, and without any.
    assert_eq!(
        bench.run(0x126, &[0x4000_000A], &[b"x"], &[]).0,
        Rc::AUTH_FAIL.session(1)
    );
    assert_eq!(
        bench.run(0x126, &[0x4000_000A], &[], &[]).0,
        Rc::AUTH_MISSING
    );
    // Too much.
    assert_eq!(bench.run(0x17B, &[], &[], &[0, 8, 0]).0, Rc::SIZE);
}

#[test]
fn malformed_headers_are_refused() {
    let mut bench = Bench::started();
    assert_eq!(bench.raw(0, &[]).0, Rc::INSUFFICIENT);
    assert_eq!(bench.raw(0, &[0; 10]).0, Rc::BAD_TAG);
    assert_eq!(
        bench.raw(0, b"\x80\x01\0\0\0\x0B\0\0\x01\x7B").0,
        Rc::COMMAND_SIZE
    );
    assert_eq!(
        bench.raw(0, b"\x80\x01\0\0\0\x0A\0\0\x01\x2F").0,
        Rc::COMMAND_CODE
    );
}

#[test]
fn what_is_signed_verifies() {
    let mut bench = Bench::started();
    let (key, _) = bench.create_primary(OWNER, ECC_SIGNING);
    let mut params = vec![0, 32];
    params.extend([7; 32]);
    let digest = params.clone();
    params.extend([0, 0x10, 0x80, 0x24, 0x40, 0, 0, 7, 0, 0]);
    let signature = bench.ok_auth(0x15D, &[key], &params);
    let mut params = digest;
    params.extend(&signature[4..signature.len() - 5]);
    bench.ok(0x177, &[key], &params);
    params[5] ^= 1;
    assert_eq!(
        bench.run(0x177, &[key], &[], &params).0,
        Rc::SIGNATURE.param(2)
    );
}

#[test]
fn long_work_is_done_in_steps_and_can_be_cancelled() {
    let mut bench = Bench::started();
    let mut params = vec![0, 4, 0, 0, 0, 0];
    params.extend(u16::try_from(RSA_STORAGE.len()).unwrap().to_be_bytes());
    params.extend(RSA_STORAGE);
    params.extend([0, 0, 0, 0, 0, 0]);
    let mut command =
        b"\x80\x02\0\0\0\0\0\0\x01\x31\x40\0\0\x01\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0".to_vec();
    command.extend(params);
    let len = u32::try_from(command.len()).unwrap();
    command[2..6].copy_from_slice(&len.to_be_bytes());
    bench.tpm.submit(0, &command).unwrap();
    assert_eq!(bench.tpm.step(), Progress::Pending);
    assert_eq!(bench.tpm.step(), Progress::Pending);
    assert!(bench.tpm.response().is_none());
    assert_eq!(bench.tpm.submit(0, &command), Err(crate::Error::Busy));
    bench.tpm.cancel();
    let response = bench.tpm.response().unwrap();
    assert_eq!(response[6..], Rc::CANCELED.as_u32().to_be_bytes());
    // And it works when it is left alone.
    assert_eq!(bench.raw(0, &command).0, Rc::SUCCESS);
}

#[test]
fn dictionary_attacks_lock_out_and_heal() {
    let mut bench = Bench::started();
    // DictionaryAttackParameters: two tries, ten seconds.
    let mut params = vec![];
    for n in [2u32, 10, 10] {
        params.extend(n.to_be_bytes());
    }
    bench.ok_auth(0x13A, &[0x4000_000A], &params);
    // An index that is protected, with value "pin".
    let public = b"\x01\x80\0\0\0\x0B\0\x04\0\x04\0\0\0\x08";
    let mut params = vec![0, 3, b'p', b'i', b'n', 0, 14];
    params.extend(public);
    bench.ok_auth(0x12A, &[OWNER], &params);
    let write = [0, 1, 9, 0, 0];
    for _ in 0..2 {
        let rc = bench
            .run(0x137, &[0x0180_0000, 0x0180_0000], &[b"bad"], &write)
            .0;
        assert_eq!(rc, Rc::AUTH_FAIL.session(1));
    }
    let right = |bench: &mut Bench| {
        bench
            .run(0x137, &[0x0180_0000, 0x0180_0000], &[b"pin"], &write)
            .0
    };
    assert_eq!(right(&mut bench), Rc::LOCKOUT);
    *bench.clock.0.lock().unwrap() += 10_000;
    assert_eq!(right(&mut bench), Rc::SUCCESS);
}

#[test]
fn a_session_number_beyond_all_sessions_is_out_of_range() {
    let mut bench = Bench::started();
    let clear_control = |session: [u8; 4]| {
        let mut command = b"\x80\x02\0\0\0\x1C\0\0\x01\x27\x40\0\0\x0C\0\0\0\x09".to_vec();
        command.extend(session);
        command.extend([0, 0, 1, 0, 0, 0]);
        command
    };
    let rc = bench.raw(0, &clear_control([3, 0, 0x62, 1])).0;
    assert_eq!(rc, Rc::VALUE.session(1));
    // One that could be there, and is not.
    let rc = bench.raw(0, &clear_control([3, 0, 0, 63])).0;
    assert_eq!(rc.as_u32(), 0x918);
}

#[test]
fn a_session_of_the_other_kind_is_the_wrong_handle() {
    let mut bench = Bench::started();
    // StartAuthSession: a policy session, which gets number 0.
    let params = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[0x4000_0007, 0x4000_0007], &params);
    let command = b"\x80\x02\0\0\0\x1C\0\0\x01\x27\x40\0\0\x0C\0\0\0\x09\x02\0\0\0\0\0\x01\0\0\0";
    assert_eq!(bench.raw(0, command).0, Rc::HANDLE.session(1));
}

#[test]
fn a_key_that_cannot_sign_is_blamed_before_the_ticket() {
    let mut bench = Bench::started();
    bench.create_primary(OWNER, ECC_STORAGE);
    // CertifyCreation by a storage key, with a ticket that no TPM made.
    let params = b"\0\0\0\0\0\x10\x80\x21\x40\0\0\x01\0\0";
    let (rc, _) = bench.run(0x14A, &[0x8000_0000, 0x8000_0000], &[b""], params);
    assert_eq!(rc, Rc::KEY.handle(1));
}

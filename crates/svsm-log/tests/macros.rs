//! The macros: which class a frame gets, and that frames arrive whole.
#![expect(
    unsafe_code,
    reason = "`defmt::global_logger` and `defmt::timestamp` are unsafe attributes"
)]

use core::cell::{Cell, RefCell};

use svsm_log::{Class, Frame, FrameStack, Hook};

thread_local! {
    static FRAMES: RefCell<FrameStack<[u8; 128], bool>> =
        const { RefCell::new(FrameStack::new([0; 128])) };
    static SEEN: RefCell<Vec<(Class, Option<Vec<u8>>)>> = const { RefCell::new(Vec::new()) };
    static MASKED: Cell<bool> = const { Cell::new(false) };
}

struct Log;

impl Hook for Log {
    type Storage = [u8; 128];
    type Saved = bool;

    fn mask() -> bool {
        MASKED.replace(true)
    }

    fn restore(saved: bool) {
        assert!(MASKED.replace(saved), "restored without being masked");
    }

    fn with<R>(run: impl FnOnce(&mut FrameStack<[u8; 128], bool>) -> R) -> Option<R> {
        FRAMES.with(|frames| Some(run(&mut *frames.try_borrow_mut().ok()?)))
    }

    fn submit(frame: Frame<'_>) {
        assert!(MASKED.get());
        SEEN.with_borrow_mut(|seen| seen.push((frame.class, frame.bytes.map(<[u8]>::to_vec))));
    }
}

svsm_log::define_defmt_logger!(crate::Log);
svsm_log::define_log_macros!(crate::Log);

#[unsafe(no_mangle)]
fn _defmt_timestamp(_: defmt::Formatter<'_>) {}

/// Class of each frame, and its bytes after the two of the interned format string.
fn seen() -> Vec<(Class, Option<Vec<u8>>)> {
    assert!(!MASKED.get(), "left masked");
    let mut seen = SEEN.take();
    for (_, bytes) in &mut seen {
        if let Some(bytes) = bytes {
            bytes.drain(..2);
        }
    }
    seen
}

// Only errors are asserted: without `DEFMT_LOG` at build time `defmt` leaves the other levels out.
#[test]
fn class_is_the_first_word_and_local_without_it() {
    error!("a guest did {=u8}", 1);
    error!(public, "{=u8} CPUs", 2);
    error!(local, "{=u8}", 3,);
    error!(public, "no arguments");
    error!("{=str}", "abc");
    let expected = [
        (Class::Local, Some(vec![1])),
        (Class::Public, Some(vec![2])),
        (Class::Local, Some(vec![3])),
        (Class::Public, Some(vec![])),
        (Class::Local, Some(vec![3, 0, 0, 0, b'a', b'b', b'c'])),
    ];
    assert_eq!(seen(), expected);
}

#[test]
fn what_an_argument_logs_is_not_made_public() {
    fn noisy() -> u8 {
        defmt::error!("bare {=u8}", 9);
        error!("ours {=u8}", 8);
        7
    }
    error!(public, "{=u8}", noisy());
    defmt::error!("{=u8}", 6);
    let expected = [
        (Class::Local, Some(vec![9])),
        (Class::Local, Some(vec![8])),
        (Class::Public, Some(vec![7])),
        (Class::Local, Some(vec![6])),
    ];
    assert_eq!(seen(), expected);
}

#[test]
fn arguments_of_all_shapes_are_taken_as_defmt_takes_them() {
    struct Opaque(Vec<u8>);
    let opaque = Opaque(vec![1, 2]);
    let array = [1_u8, 2];
    error!(
        "{=[u8; 2]} {=[u8]} {=u8} {=bool}",
        array, *opaque.0, opaque.0[1], true
    );
    error!("{1=u8} {0=u16}", 0x100_u16 + 1, 2);
    assert_eq!(opaque.0, [1, 2]);
    let seen = seen();
    assert_eq!(
        seen[0].1.as_deref(),
        Some(&[1, 2, 2, 0, 0, 0, 1, 2, 2, 1][..])
    );
    assert_eq!(seen[1].1.as_deref(), Some(&[1, 1, 2][..]));
}

#[test]
fn a_frame_that_does_not_fit_is_reported_as_lost() {
    error!(public, "{=[u8]}", [0; 200]);
    error!("{=u8}", 1);
    assert_eq!(
        seen(),
        [(Class::Public, None), (Class::Local, Some(vec![1]))]
    );
}

#[test]
fn logging_while_the_stack_is_in_use_is_lost_and_nothing_else() {
    Log::with(|_| error!(public, "{=u8}", 1));
    error!("{=u8}", 2);
    assert_eq!(seen(), [(Class::Local, Some(vec![2]))]);
}

#[test]
fn every_level_takes_a_class() {
    error!(public, "{=u8}", 1);
    warn!(local, "{=u8}", 1);
    info!(public, "{=u8}", 1);
    debug!("{=u8}", 1);
    trace!("{=u8}", 1);
    let seen = seen();
    assert_eq!(seen.first(), Some(&(Class::Public, Some(vec![1]))));
}

use svsm_log::{Stamp, Writer};

use super::*;
use crate::images::tests::{DEMO_ID, DEMO_MAIN, demo_images};

const STAMP: Stamp = Stamp {
    cpu: 1,
    image: ImageId::UNKNOWN,
    time: 1_500_000_000,
};

fn stamp(image: [u8; 4]) -> Stamp {
    Stamp {
        image: image.into(),
        ..STAMP
    }
}

/// What a firmware that does `write` looks like from outside.
fn interpreted(write: impl FnOnce(&mut Writer<Vec<u8>>)) -> (Vec<LogLine>, Facts) {
    let mut writer = Writer::new(Vec::new());
    write(&mut writer);
    let (_directory, images) = demo_images();
    let mut interpreter = Interpreter::new(images, TimeSource::Ticks);
    let mut lines = Vec::new();
    for piece in writer.into_inner().chunks(7) {
        interpreter.feed(Duration::from_secs(9), piece, &mut |line| lines.push(line));
    }
    interpreter.finish(Duration::from_secs(9), &mut |line| lines.push(line));
    (lines, interpreter.facts().clone())
}

fn frame<'a>(image: [u8; 4], payload: &'a [u8]) -> Record<'a> {
    Record {
        stamp: stamp(image),
        class: Class::Public,
        kind: Kind::FRAME,
        payload,
    }
}

#[test]
fn frames_of_known_images_become_messages() {
    let (lines, _) = interpreted(|out| {
        out.record(&frame(DEMO_ID, &[1, 0, 4])).unwrap();
        out.record(&Record {
            class: Class::Local,
            ..frame(DEMO_ID, &[3, 0])
        })
        .unwrap();
    });
    let [first, second] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(
        (&*first.message, first.level),
        ("4 CPUs", Some(Level::Info))
    );
    assert_eq!((first.image.as_deref(), first.cpu), (Some("demo"), Some(1)));
    assert_eq!(first.time, Duration::from_millis(1500));
    assert!(second.local && !first.local);
}

#[test]
fn what_cannot_be_decoded_is_shown_as_it_is() {
    let (lines, _) = interpreted(|out| {
        out.record(&frame([1, 2, 3, 4], &[1, 0, 4])).unwrap();
        out.record(&frame(DEMO_ID, &[1, 0])).unwrap();
        out.record(&Record {
            kind: Kind(200),
            ..frame(DEMO_ID, &[0; 40])
        })
        .unwrap();
    });
    assert!(lines.iter().all(|line| line.kind == LineKind::Undecoded));
    assert_eq!(
        lines[0].message,
        "(no ELF file has this build id; kind 1, 3 bytes: 01 00 04)"
    );
    assert_eq!(lines[0].image.as_deref(), Some("01020304"));
    assert_eq!(lines[1].message, "(damaged frame; kind 1, 2 bytes: 01 00)");
    assert!(
        lines[2]
            .message
            .starts_with("(unknown record; kind 200, 40 bytes: 00")
    );
    assert!(lines[2].message.ends_with(" …)"));
}

#[test]
fn text_outside_of_records_is_kept_in_order() {
    let mut bytes = b"SeaBIOS\r\nno end".to_vec();
    let mut writer = Writer::new(&mut bytes);
    writer.text(STAMP, Class::Public, "record\n").unwrap();
    writer.into_inner().extend_from_slice(b"after");
    let mut interpreter = Interpreter::new(Images::new(), TimeSource::Arrival);
    let mut lines = Vec::new();
    interpreter.feed(Duration::ZERO, &bytes, &mut |line| {
        lines.push((line.kind, line.message))
    });
    interpreter.finish(Duration::ZERO, &mut |line| {
        lines.push((line.kind, line.message))
    });
    let expected = [
        (LineKind::Text, "SeaBIOS"),
        (LineKind::Text, "no end"),
        (LineKind::Message, "record"),
        (LineKind::Text, "after"),
    ];
    assert_eq!(lines, expected.map(|(kind, text)| (kind, text.to_owned())));
}

#[test]
fn a_panic_is_put_together_from_its_records() {
    let location = PanicLocation {
        file: "src/main.rs",
        line: 10,
        column: 5,
    };
    let (lines, facts) = interpreted(|out| {
        let stamp = stamp(DEMO_ID);
        out.panic(stamp, location).unwrap();
        // Another CPU's trace is not this panic's.
        out.stack_trace_at(Stamp { cpu: 2, ..stamp }, 0x9999, [])
            .unwrap();
        out.panic_message(stamp, Class::Public, "out of pages")
            .unwrap();
        out.stack_trace(stamp, [DEMO_MAIN + 16, 0x1234]).unwrap();
        out.panic(
            stamp,
            PanicLocation {
                line: 99,
                ..location
            },
        )
        .unwrap();
    });
    let panic = facts.panic.unwrap();
    assert_eq!(panic.location, "src/main.rs:10:5");
    assert_eq!(panic.message.as_deref(), Some("out of pages"));
    let functions: Vec<_> = panic
        .trace
        .iter()
        .map(|entry| entry.function.as_deref())
        .collect();
    assert_eq!(functions, [Some("demo::main"), None]);
    assert_eq!(lines[0].message, "panicked at src/main.rs:10:5");
    assert_eq!(lines[3].trace, panic.trace);
}

#[test]
fn a_verdict_outlives_the_panics_before_it() {
    let location = PanicLocation {
        file: "service.rs",
        line: 1,
        column: 1,
    };
    let (_, facts) = interpreted(|out| {
        out.panic(STAMP, location).unwrap();
        out.verdict(STAMP, OwnVerdict::Passed).unwrap();
    });
    assert_eq!((facts.own, facts.panic), (Some(OwnVerdict::Passed), None));
    let (_, facts) = interpreted(|out| {
        out.verdict(STAMP, OwnVerdict::Passed).unwrap();
        out.panic(STAMP, location).unwrap();
    });
    assert!(facts.panic.is_some());
}

#[test]
fn dropped_records_are_counted() {
    let (lines, facts) = interpreted(|out| {
        out.dropped(STAMP, Dropped(3)).unwrap();
        out.dropped(STAMP, Dropped(4)).unwrap();
    });
    assert_eq!(facts.dropped, 7);
    assert_eq!(lines[0].message, "3 records were dropped here");
}

//! What calls cost, by the processor's counter.

use crate::bare::{Page, say, ticks, write};
use crate::call::{CORE, PVALIDATE, QUERY, SUCCESS, Svsm, VTPM};

const ROUNDS: u64 = 1000;
/// What is taken back and validated starts here, at 128 MiB, and holds nothing.
const START: u64 = 0x800_0000;
const LARGE: u64 = 2 << 20;
/// Entries of a list: it lies in one page.
const MOST: u64 = 500;

static LIST: Page = Page::new();

/// Measures; `mib` MiB of memory change hands.
pub(crate) fn measure(svsm: &mut Svsm, mib: u64) -> Result<(), &'static str> {
    for (name, protocol, call, argument) in [
        ("core protocol", CORE, QUERY, 1),
        ("vTPM protocol", VTPM, 0, 0),
    ] {
        let start = ticks();
        for _ in 0..ROUNDS {
            svsm.call_once(protocol, call, [argument, 0, 0, 0]);
        }
        say(format_args!(
            "measure: a call that does nothing, {name}: {}",
            (ticks() - start) / ROUNDS
        ));
    }
    let pages = (mib << 20) / LARGE;
    for (name, valid) in [("taking back", 0), ("validating", 1 << 2)] {
        let (start, mut calls) = (ticks(), 0);
        let mut next = 0;
        while next < pages {
            let count = (pages - next).min(MOST);
            write(LIST.at(), count);
            for index in 0..count {
                let page = START + (next + index) * LARGE;
                write(LIST.at() + 8 + 8 * index, page | valid | 1);
            }
            let ([code, ..], again) = svsm.call(CORE, PVALIDATE, [LIST.at(), 0, 0, 0]);
            if code != SUCCESS {
                return Err("validation of large pages");
            }
            calls += again + 1;
            next += count;
        }
        let ticks = ticks() - start;
        say(format_args!("measure: {name} {mib} MiB: {ticks}"));
        say(format_args!("measure: calls for {name} {mib} MiB: {calls}"));
    }
    Ok(())
}

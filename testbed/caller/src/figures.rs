//! What calls cost, by the processor's counter.

use crate::bare::{Page, say, ticks, write};
use crate::call::{CORE, PVALIDATE, QUERY, SUCCESS, Svsm};

const ROUNDS: u64 = 1000;
/// Validated and taken back: 32 MiB at 128 MiB, which holds nothing.
const START: u64 = 0x800_0000;
const LARGE: u64 = 2 << 20;
const COUNT: u64 = 16;

static LIST: Page = Page::new();

pub(crate) fn measure(svsm: &mut Svsm) -> Result<(), &'static str> {
    let start = ticks();
    for _ in 0..ROUNDS {
        svsm.call_once(CORE, QUERY, [1, 0, 0, 0]);
    }
    say(format_args!(
        "measure: null call of the guest: {}",
        (ticks() - start) / ROUNDS
    ));
    for (name, valid) in [("taking back", 0), ("validating", 1 << 2)] {
        write(LIST.at(), COUNT);
        for index in 0..COUNT {
            write(
                LIST.at() + 8 + 8 * index,
                (START + index * LARGE) | valid | 1,
            );
        }
        let start = ticks();
        let ([code, ..], again) = svsm.call(CORE, PVALIDATE, [LIST.at(), 0, 0, 0]);
        if code != SUCCESS {
            return Err("validation of large pages");
        }
        say(format_args!(
            "measure: {name} {} MiB in large pages: {} ticks, {} calls",
            COUNT * LARGE >> 20,
            ticks() - start,
            again + 1
        ));
    }
    Ok(())
}

//! What calls cost, in ticks of the time-stamp counter. They mean something on a machine that counts instructions; elsewhere
//! they are as good as its clock.

use svsm_user::calls::{Calls, gate};
use svsm_user::{KERNEL, info, process, time};

/// How often each is tried; the least counts, since interrupts only add.
const TRIES: u32 = 200;

/// Measures, and says so in lines that a tool can read.
pub(super) fn measure() {
    info!(
        public,
        "measure: null system call by SYSCALL: {=u64}",
        least(|| {
            let _ = KERNEL.cpu();
        })
    );
    info!(
        public,
        "measure: null system call by int 0x80: {=u64}",
        least(|| {
            let _ = Calls::new(gate::Interrupt).cpu();
        })
    );
    if let Some(ticks) = switches() {
        info!(
            public,
            "measure: context switch (on one CPU): {=u64}", ticks
        );
    }
}

fn least(mut what: impl FnMut()) -> u64 {
    (0..TRIES)
        .map(|_| {
            let before = time::ticks();
            what();
            time::ticks().saturating_sub(before)
        })
        .min()
        .unwrap_or(0)
}

/// Half of the time in which the CPU goes to a process that only yields, and back: two switches, where there is one CPU. With
/// more, the other process runs beside us, and this is what a yield to nobody costs.
fn switches() -> Option<u64> {
    let child = process::spawn("pong").ok()?;
    let ticks = least(process::yield_now);
    child.wait().ok()?;
    Some(ticks / 2)
}

//! What a run shows.

use svsm_testbed::{MachineEvent, Platform, Progress, Run, Timeline, Trace};
use svsm_testbed_guest::image;

use crate::lab::watch_image;

#[test]
fn a_run_can_be_looked_at_exit_by_exit_and_page_by_page() {
    let (mut exits, mut timeline) = (Vec::new(), Timeline::default());
    let settings = |run: Run| {
        let run = run.platform(Platform::Snp).expect("snp-levels: ok");
        run.trace(Trace::Exits).pages(true)
    };
    let image = |guest: &[u8]| image::snp(guest, false).unwrap();
    let Some(outcome) = watch_image("snp-levels", image, settings, &mut |progress| {
        timeline.take(&progress);
        if let Progress::Machine(MachineEvent::Exit(exit)) = progress {
            exits.push(exit.clone());
        }
    }) else {
        return;
    };
    assert!(outcome.verdict.is_passed(), "{:?}", outcome.verdict);
    let has = |what: &dyn Fn(&svsm_testbed::trace::ExitEvent) -> bool| {
        exits.iter().any(|exit| what(exit))
    };
    // VMPL1 asks to go back to VMPL0, which made it with RMPADJUST.
    assert!(has(
        &|exit| exit.vmpl == Some(1) && exit.name() == "run-vmpl"
    ));
    assert!(has(
        &|exit| exit.name() == "rmpadjust" && exit.vmpl == Some(0)
    ));
    assert!(has(&|exit| exit.name() == "ap-creation"));
    assert!(has(&|exit| exit.reason == "nested-fault"));
    let counters = &outcome.counters;
    let (all, first, second) = (
        counters.exits(None),
        counters.exits(Some(0)),
        counters.exits(Some(1)),
    );
    assert_eq!(all["vmmcall"], first["vmmcall"] + second["vmmcall"]);
    assert!(counters.sum("operations.level-switches") > 1);
    assert!(counters.sum("operations.rmpadjust") > 100);
    // The save areas of two levels, and rights of the second.
    let areas = |pages: &[svsm_testbed::trace::PageRange]| -> u64 {
        pages
            .iter()
            .filter(|range| range.vmsa)
            .map(|range| range.pages)
            .sum()
    };
    assert_eq!(
        (areas(&outcome.pages.start), areas(&outcome.pages.end)),
        (1, 2)
    );
    assert!(
        outcome
            .pages
            .end
            .iter()
            .any(|range| range.rights[1] == "rwux-")
    );
    assert!(
        outcome
            .pages
            .end
            .iter()
            .any(|range| range.state == "shared")
    );
    let value = timeline.json(&outcome);
    assert_eq!(value["exits"].as_array().unwrap().len(), exits.len());
}

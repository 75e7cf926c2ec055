//! What the image builder placed for us, as slices.
//!
//! The builder mapped each area where the hand-off says, and the hand-off was checked: no two areas share a byte. All of this
//! is private memory, so nobody outside the machine can change it under us.
#![expect(
    unsafe_code,
    reason = "turns addresses of the hand-off into slices, and links the bounds of sections"
)]

use core::ptr;
use core::slice;

use svsm_platform::fault::{FaultEntries, FaultEntry};
use svsm_stage2::handoff::{HANDOFF_BYTES, Handoff};
use svsm_stage2::region::Area;

unsafe extern "C" {
    static __start_svsm_faults: FaultEntry;
    static __stop_svsm_faults: FaultEntry;
    static __build_id_start: u8;
    static __build_id_end: u8;
}

/// Reads the hand-off block.
///
/// # Errors
/// What is wrong with it.
///
/// # Safety
/// `at` is what stage2 put into RDI: the address of the block, mapped for reading for as long as the SVSM runs.
pub(crate) unsafe fn handoff(at: *const u8) -> svsm_stage2::Result<Handoff> {
    // SAFETY: the caller vouches for one page from `at` on; a page is longer than the block, and nobody writes it any more.
    let bytes = unsafe { slice::from_raw_parts(at, HANDOFF_BYTES as usize) };
    Handoff::parse(bytes)
}

/// The bytes of an area that is mapped for reading and that nobody writes.
///
/// # Safety
/// The area is one of the checked hand-off that the builder maps read-only: a parameter or the archive.
pub(crate) unsafe fn bytes(area: Area) -> &'static [u8] {
    let start = ptr::with_exposed_provenance(area.gva().as_u64() as usize);
    // SAFETY: the builder mapped the area, it is mapped for as long as the SVSM runs, and nobody writes it.
    unsafe { slice::from_raw_parts(start, area.len_bytes() as usize) }
}

/// The instructions of this image that may fault.
pub(crate) fn faults() -> FaultEntries<'static> {
    let (start, end) = (
        &raw const __start_svsm_faults,
        &raw const __stop_svsm_faults,
    );
    let count = (end.addr() - start.addr()) / size_of::<FaultEntry>();
    // SAFETY: the linker script puts both symbols around the section, which holds entries and nothing else.
    FaultEntries::new(unsafe { slice::from_raw_parts(start, count) })
}

/// The notes of this image, its build id among them.
pub(crate) fn notes() -> &'static [u8] {
    let (start, end) = (&raw const __build_id_start, &raw const __build_id_end);
    // SAFETY: the linker script puts both symbols around the section, which is constant.
    unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) }
}

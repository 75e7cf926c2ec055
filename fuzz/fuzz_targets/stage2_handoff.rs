//! Hand-off blocks: what is accepted was understood to the last byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_stage2::handoff::{HANDOFF_BYTES, Handoff, MAGIC, VERSION, WireHandoff};
use zerocopy::{FromBytes, IntoBytes};

fuzz_target!(|bytes: &[u8]| {
    let _ = Handoff::parse(bytes);
    // Past the header, where the search would seldom come.
    let Ok((mut wire, _)) = WireHandoff::read_from_prefix(bytes) else {
        return;
    };
    wire.magic = MAGIC.into();
    wire.version = VERSION.into();
    wire.total_bytes = HANDOFF_BYTES.into();
    if let Ok(handoff) = Handoff::parse(wire.as_bytes()) {
        assert_eq!(handoff.encode().as_bytes(), wire.as_bytes());
        assert_eq!(handoff.check(), Ok(()));
    }
});

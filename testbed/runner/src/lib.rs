//! Runs firmware images in the software machine.

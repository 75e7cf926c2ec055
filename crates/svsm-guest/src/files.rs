//! What the files of a guest are called in an image's archive, which an image builder fills and a paravisor reads.

/// The kernel, a `bzImage`.
pub const KERNEL: &str = "guest.kernel";
/// The initial RAM disk.
pub const INITRD: &str = "guest.initrd";
/// The kernel's command line.
pub const COMMAND_LINE: &str = "guest.command-line";
/// Firmware, instead of a kernel.
pub const FIRMWARE: &str = "guest.firmware";
/// If it is there, a kernel gets the host's ACPI tables ([`table_loader`](crate::table_loader)).
pub const ACPI: &str = "guest.acpi";
/// How all of these names start, and no other's.
pub const PREFIX: &str = "guest.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_told_from_those_of_programs() {
        for name in [KERNEL, INITRD, COMMAND_LINE, FIRMWARE, ACPI] {
            assert!(name.starts_with(PREFIX) && name.len() > PREFIX.len());
        }
    }
}

/// Why the SVSM stops for good. The host sees it, so it is one of few numbers and no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Reason {
    /// Anything without a name of its own; a panic.
    General,
    /// The host speaks no version of the protocol that we speak.
    ProtocolVersion,
    /// The host lacks a feature that we cannot do without.
    MissingFeature,
    /// The host broke its contract: a page swapped, a promise not kept.
    HostViolation,
    /// What the image or its parameters say cannot be.
    BadImage,
    /// Not enough memory to go on.
    OutOfMemory,
}

/// Ends the machine.
pub trait Terminate {
    /// In order: all is said and done.
    fn power_off(&mut self) -> !;

    /// Out of order. Whatever the host does, no more of this code runs.
    fn fatal(&mut self, reason: Reason) -> !;
}

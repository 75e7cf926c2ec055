use core::fmt;

use crate::MAX_PAYLOAD;

/// What can go wrong between a record and its sink.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error<E> {
    /// The caller's payload is longer than a record may carry.
    TooLong {
        /// Length of the refused payload.
        len_bytes: usize,
    },
    /// The sink refused; part of the record may have gone out.
    Sink(E),
}

/// The result of writing records into a sink whose error is `E`.
pub type Result<T, E> = core::result::Result<T, Error<E>>;

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len_bytes } => {
                write!(f, "payload of {len_bytes} bytes exceeds {MAX_PAYLOAD}")
            }
            Self::Sink(error) => write!(f, "log sink: {error}"),
        }
    }
}

impl<E: core::error::Error> core::error::Error for Error<E> {}

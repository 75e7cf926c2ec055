//! The SVSM's vTPM protocol on plain types ("Secure VM Service Module for SEV-SNP Guests", AMD 58019 revision 1.00, "vTPM
//! Protocol"): what a dispatcher needs to answer a guest's calls with a [`Tpm`].
//!
//! Nothing here reads guest memory: the dispatcher copies the guest's buffer in, and the answer out.

use crate::{Error, Progress, Tpm};

/// The protocol's number, in the upper half of a call's RAX.
pub const PROTOCOL: u32 = 2;
/// The protocol's version.
pub const VERSION: u32 = 1;
/// `SVSM_VTPM_QUERY`, which [`QUERY_ANSWER`] answers.
pub const QUERY: u32 = 0;
/// `SVSM_VTPM_CMD`, which [`submit`] and [`respond`] answer.
pub const COMMAND: u32 = 1;
/// `TPM_SEND_COMMAND`, the one platform command that there is.
pub const SEND_COMMAND: u32 = 8;
/// The highest platform command that has a meaning in the simulator's protocol.
const LAST_PLATFORM_COMMAND: u32 = 30;

/// Bytes of a buffer that holds a request, then its response.
pub const BUFFER_BYTES: usize = 4096;
/// The platform command (4 bytes), the locality (1), the size of the TPM command (4).
const REQUEST_HEADER: usize = 9;
/// The size of the response.
const RESPONSE_HEADER: usize = 4;
/// The most bytes of a TPM command.
pub const MAX_COMMAND_BYTES: usize = BUFFER_BYTES - REQUEST_HEADER;
/// The most bytes of a TPM response: what [`crate::Storage::response`] should not exceed.
pub const MAX_RESPONSE_BYTES: usize = BUFFER_BYTES - RESPONSE_HEADER;

/// What `SVSM_VTPM_QUERY` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// For RCX: bit `n` says that platform command `n` is there.
    pub commands: u64,
    /// For RDX: no features are defined.
    pub features: u64,
}

/// The answer to `SVSM_VTPM_QUERY`.
pub const QUERY_ANSWER: Query = Query {
    commands: 1 << SEND_COMMAND,
    features: 0,
};

/// Why a call has no response in its buffer, which is then unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The TPM works on the command: lend it time, or have the guest call again.
    Incomplete,
    /// The platform command has a meaning, but is not there.
    UnsupportedCall,
    /// The guest's request is malformed.
    InvalidParameter,
    /// The response is longer than the buffer, for which the embedder's storage is too large.
    InvalidRequest,
    /// The TPM works on another command.
    Busy,
}

impl Refused {
    /// The call's result code (58019, "Result Values").
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Incomplete => 0x8000_0000,
            Self::UnsupportedCall => 0x8000_0002,
            Self::InvalidParameter => 0x8000_0005,
            Self::InvalidRequest => 0x8000_0006,
            Self::Busy => 0x8000_0007,
        }
    }
}

/// A request of `TPM_SEND_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'b> {
    /// The locality, which the protocol keeps at zero.
    pub locality: u8,
    /// The TPM command.
    pub command: &'b [u8],
}

impl<'b> Request<'b> {
    /// Reads the request in a copy of the guest's buffer.
    ///
    /// # Errors
    ///
    /// [`Refused::UnsupportedCall`] for another platform command; [`Refused::InvalidParameter`] for a number without meaning, a
    /// locality other than zero, or a command that does not fit.
    pub fn read(buffer: &'b [u8; BUFFER_BYTES]) -> Result<Self, Refused> {
        let [c0, c1, c2, c3, locality, s0, s1, s2, s3, rest @ ..] = buffer;
        match u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
            SEND_COMMAND => {}
            1..=LAST_PLATFORM_COMMAND => return Err(Refused::UnsupportedCall),
            _ => return Err(Refused::InvalidParameter),
        }
        let command = usize::try_from(u32::from_le_bytes([*s0, *s1, *s2, *s3]))
            .ok()
            .and_then(|len| rest.get(..len));
        match (command, *locality) {
            (Some(command), 0) => Ok(Self {
                locality: 0,
                command,
            }),
            _ => Err(Refused::InvalidParameter),
        }
    }
}

/// Hands the request in `buffer` to the TPM, which begins with it at the next [`Tpm::step`].
///
/// # Errors
///
/// Those of [`Request::read`], and [`Refused::Busy`].
pub fn submit(tpm: &mut Tpm<'_>, buffer: &[u8; BUFFER_BYTES]) -> Result<(), Refused> {
    let request = Request::read(buffer)?;
    tpm.submit(request.locality, request.command)
        .map_err(|error| match error {
            Error::Busy => Refused::Busy,
            _ => Refused::InvalidParameter,
        })
}

/// Writes the response into `buffer` and says how many of its bytes are to be copied to the guest.
///
/// # Errors
///
/// [`Refused::Incomplete`] as long as there is none; [`Refused::InvalidRequest`] for one that does not fit.
pub fn respond(tpm: &Tpm<'_>, buffer: &mut [u8; BUFFER_BYTES]) -> Result<usize, Refused> {
    let response = tpm.response().ok_or(Refused::Incomplete)?;
    let size = u32::try_from(response.len()).map_err(|_| Refused::InvalidRequest)?;
    let [s0, s1, s2, s3, rest @ ..] = buffer;
    rest.get_mut(..response.len())
        .ok_or(Refused::InvalidRequest)?
        .copy_from_slice(response);
    [*s0, *s1, *s2, *s3] = size.to_le_bytes();
    Ok(response.len() + RESPONSE_HEADER)
}

/// Runs the request in `buffer` to its end, and answers as [`respond`] does.
///
/// # Errors
///
/// Those of [`submit`] and [`respond`].
pub fn run(tpm: &mut Tpm<'_>, buffer: &mut [u8; BUFFER_BYTES]) -> Result<usize, Refused> {
    submit(tpm, buffer)?;
    while tpm.step() == Progress::Pending {}
    respond(tpm, buffer)
}

#[cfg(feature = "rustcrypto")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::bench::{Bench, Shelf};

    fn request(platform: u32, locality: u8, size: u32, command: &[u8]) -> [u8; BUFFER_BYTES] {
        let mut buffer = [0xEE; BUFFER_BYTES];
        buffer[..4].copy_from_slice(&platform.to_le_bytes());
        buffer[4] = locality;
        buffer[5..9].copy_from_slice(&size.to_le_bytes());
        let (_, room) = buffer.split_at_mut(9);
        room.iter_mut()
            .zip(command)
            .for_each(|(to, from)| *to = *from);
        buffer
    }

    const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";

    #[test]
    fn response_takes_the_place_of_the_request() {
        let mut bench = Bench::powered(&Shelf::default());
        let mut buffer = request(SEND_COMMAND, 0, 12, STARTUP);
        assert_eq!(run(&mut bench.tpm, &mut buffer), Ok(14));
        assert_eq!(buffer[..14], *b"\x0A\0\0\0\x80\x01\0\0\0\x0A\0\0\0\0");
        // A size other than the command's own is the TPM's to refuse: TPM_RC_COMMAND_SIZE.
        let mut buffer = request(SEND_COMMAND, 0, 13, STARTUP);
        assert_eq!(run(&mut bench.tpm, &mut buffer), Ok(14));
        assert_eq!(buffer[10..14], [0, 0, 1, 0x42]);
    }

    #[test]
    fn malformed_requests_are_refused() {
        let read = |buffer: [u8; BUFFER_BYTES]| Request::read(&buffer).map(|r| r.command.len());
        let full = u32::try_from(MAX_COMMAND_BYTES).unwrap();
        let invalid = Err(Refused::InvalidParameter);
        assert_eq!(read(request(8, 0, full, &[])), Ok(MAX_COMMAND_BYTES));
        assert_eq!(read(request(8, 0, full + 1, &[])), invalid);
        assert_eq!(read(request(8, 0, u32::MAX, &[])), invalid);
        assert_eq!(read(request(8, 1, 12, STARTUP)), invalid);
        assert_eq!(read(request(0, 0, 12, STARTUP)), invalid);
        assert_eq!(read(request(31, 0, 12, STARTUP)), invalid);
        for known in [1, 7, 9, 30] {
            let refused = read(request(known, 0, 12, STARTUP));
            assert_eq!(refused, Err(Refused::UnsupportedCall));
        }
        assert_eq!(QUERY_ANSWER.commands, 0x100);
    }

    #[test]
    fn who_asks_too_early_gets_no_response() {
        let mut bench = Bench::powered(&Shelf::default());
        let mut buffer = request(SEND_COMMAND, 0, 12, STARTUP);
        submit(&mut bench.tpm, &buffer).unwrap();
        assert_eq!(respond(&bench.tpm, &mut buffer), Err(Refused::Incomplete));
        assert_eq!(submit(&mut bench.tpm, &buffer), Err(Refused::Busy));
        assert_eq!(buffer, request(SEND_COMMAND, 0, 12, STARTUP));
    }
}

//! Messages to the security processor through a host that changes them (56860, "Guest Messages").

use svsm_sim::processor::Header;
use svsm_sim::secrets::Vmpck;
use zerocopy::{FromBytes, IntoBytes};

use super::{FREE, Failed, Result, check};
use crate::bare::ghcb::{self, event};
use crate::bare::{read, write};
use crate::layout::{SECRETS, SHARED};

const REQUEST: u64 = FREE + (20 << 20);
const RESPONSE: u64 = REQUEST + 0x1000;
/// `MSG_REPORT_REQ`, and what answers it.
const REPORT: u8 = 5;
/// Data, level, key, reserved.
const PAYLOAD: usize = 0x60;
/// Where the key of VMPL0 is in the secrets page.
const KEY: u64 = 0x20;

/// What came of a question.
struct Answer {
    /// What the security processor said, or zero.
    code: u64,
    /// The number of the response, if it is authentic.
    number: Option<u64>,
}

/// Makes the two pages shared.
fn set_up() -> Result {
    for at in [REQUEST, RESPONSE] {
        check("sharing", ghcb::change(at, ghcb::SHARE), 0)?;
    }
    Ok(())
}

/// Asks for a report by the message with that number.
fn ask(number: u64) -> core::result::Result<Answer, Failed> {
    let failed = |what| Failed { what, got: number };
    let key = || Vmpck(read(SECRETS + KEY));
    let mut payload = [0; PAYLOAD];
    let mut header = Header::new(REPORT, 1, number, 0, PAYLOAD as u16);
    header
        .seal(&key(), &mut payload)
        .map_err(|_| failed("a message"))?;
    for (offset, byte) in (0..).zip(header.as_bytes().iter().chain(&payload)) {
        write(SHARED + REQUEST + offset, *byte);
    }
    let code = event(0x8000_0011, REQUEST, RESPONSE, &[]).info2;
    let bytes: [u8; Header::LEN] = read(SHARED + RESPONSE);
    let (header, _) = Header::read_from_prefix(&bytes).map_err(|_| failed("a header"))?;
    let mut body: [u8; 4096 - Header::LEN] = read(SHARED + RESPONSE + Header::LEN as u64);
    let len = usize::from(header.message_size.get());
    let opened = body
        .get_mut(..len)
        .is_some_and(|body| header.open(&key(), body).is_ok());
    Ok(Answer {
        code,
        number: opened.then_some(header.sequence.get()),
    })
}

/// A message that was changed is no message; the next one has its number.
pub(super) fn tampered_request() -> Result {
    set_up()?;
    let answer = ask(1)?;
    check("whether it was answered", u64::from(answer.code == 0), 0)?;
    let answer = ask(1)?;
    check("the code", answer.code, 0)?;
    check("the number", answer.number.unwrap_or(0), 2)
}

/// A response that was changed does not open.
pub(super) fn tampered_response() -> Result {
    set_up()?;
    let answer = ask(1)?;
    check("the code", answer.code, 0)?;
    check("whether it opens", u64::from(answer.number.is_some()), 0)?;
    let answer = ask(3)?;
    check("the number", answer.number.unwrap_or(0), 4)
}

/// A response that was given before is authentic, and has the number that it had.
pub(super) fn replayed_response() -> Result {
    set_up()?;
    check("the number", ask(1)?.number.unwrap_or(0), 2)?;
    check("the number", ask(3)?.number.unwrap_or(0), 2)?;
    check("the number", ask(5)?.number.unwrap_or(0), 6)
}

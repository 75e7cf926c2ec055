//! Commands and responses for people: names, handles, sessions, response codes.

use core::{fmt::Write as _, time::Duration};

use svsm_vtpm::{Rc, command_handles, command_name};

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_be_bytes)
}

/// Prints a line about a command and its response.
pub(crate) fn print(locality: u8, command: &[u8], response: &[u8], took: Duration) {
    let code = u32_at(command, 6).unwrap_or(0);
    let mut line = match command_name(code) {
        Some(name) => name.to_owned(),
        None => format!("command {code:#05x}"),
    };
    let handles = command_handles(code).unwrap_or(0);
    for n in 0..handles {
        let _ = write!(line, " {:08x}", u32_at(command, 10 + 4 * n).unwrap_or(0));
    }
    if command.starts_with(&[0x80, 0x02]) {
        for (session, attributes) in sessions(command, 10 + 4 * handles) {
            let _ = match session {
                0x4000_0009 => write!(line, " password"),
                _ => write!(line, " session {session:08x}/{attributes:02x}"),
            };
        }
    }
    if locality != 0 {
        let _ = write!(line, " at locality {locality}");
    }
    let rc = Rc::from_u32(u32_at(response, 6).unwrap_or(0));
    let _ = match rc {
        Rc::SUCCESS => write!(line, ": {} bytes", response.len()),
        rc => write!(line, ": {rc}"),
    };
    eprintln!("{line} ({} us)", took.as_micros());
}

/// Handles and attributes of the sessions in the authorization area that begins at `at`.
fn sessions(command: &[u8], mut at: usize) -> Vec<(u32, u8)> {
    let mut found = Vec::new();
    let Some(size) = u32_at(command, at) else {
        return found;
    };
    at += 4;
    let end = at + size as usize;
    let u16_at = |at: usize| {
        command
            .get(at..at + 2)
            .map(|b| b.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    };
    while at < end {
        let (Some(handle), Some(nonce)) = (u32_at(command, at), u16_at(at + 4)) else {
            break;
        };
        let Some(attributes) = command.get(at + 6 + nonce) else {
            break;
        };
        let Some(auth) = u16_at(at + 7 + nonce) else {
            break;
        };
        found.push((handle, *attributes));
        at += 9 + nonce + auth;
    }
    found
}

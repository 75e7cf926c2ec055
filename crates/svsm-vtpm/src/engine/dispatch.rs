//! From the header to the handler, and from its result to the response (Part 3, clause 5).

use super::{
    audit, auth, crypt,
    frame::{Frame, SESSIONS_MAX, Session},
};
use crate::{
    command::Call,
    handle::Handle,
    rc::{About, Rc, Stop, ensure},
    state::{Core, selftest::Tests},
    structures::attest::Tag,
    table::{self, Flags, Role},
    wire::{Reader, Writer},
};

const HEADER: usize = 10;

/// Reads a command up to its parameters, checks all authorizations, and runs it. Gives the response's length if that is
/// there already.
pub(super) fn begin(
    frame: &mut Frame,
    core: &mut Core<'_>,
    command: &mut [u8],
    response: &mut [u8],
) -> Option<usize> {
    core.tick();
    match prepare(frame, core, command) {
        Ok(()) => run(frame, core, command, response),
        Err(rc) => Some(fail(core, rc, response)),
    }
}

/// Runs the handler of a command that is prepared, and builds the response.
pub(super) fn run(
    frame: &mut Frame,
    core: &mut Core<'_>,
    command: &[u8],
    response: &mut [u8],
) -> Option<usize> {
    match handle(frame, core, command, response) {
        Ok(len) => Some(len),
        Err(Stop::Work) => None,
        Err(Stop::Code(rc)) => Some(fail(core, rc, response)),
    }
}

fn fail(core: &mut Core<'_>, rc: Rc, response: &mut [u8]) -> usize {
    core.work = crate::state::work::Work::Idle;
    core.objects.drop_persistent();
    // A failed authorization counts even though the command failed.
    let rc = if core.started {
        core.commit().err().unwrap_or(rc)
    } else {
        rc
    };
    error(rc, response)
}

/// Writes the response of a command that failed.
pub(super) fn error(rc: Rc, response: &mut [u8]) -> usize {
    let mut w = Writer::new(response);
    let tag = if rc == Rc::BAD_TAG {
        Tag::RSP_COMMAND
    } else {
        Tag::NO_SESSIONS
    };
    let written = w
        .put(&tag)
        .and_then(|()| w.put(&10u32))
        .and_then(|()| w.put(&rc.as_u32()));
    written.map_or(0, |()| w.len())
}

fn prepare(frame: &mut Frame, core: &mut Core<'_>, buffer: &mut [u8]) -> Result<(), Rc> {
    let bytes = buffer.get(..frame.len).ok_or(Rc::COMMAND_SIZE)?;
    let mut r = Reader::new(bytes);
    let tag = Tag(r.read().map_err(|_| Rc::INSUFFICIENT)?);
    ensure(matches!(tag, Tag::NO_SESSIONS | Tag::SESSIONS), Rc::BAD_TAG)?;
    let size = r.read::<u32>().map_err(|_| Rc::INSUFFICIENT)?;
    ensure(size as usize == frame.len, Rc::COMMAND_SIZE)?;
    let code = r.read::<u32>().map_err(|_| Rc::INSUFFICIENT)?;
    let command = table::index_of(code)
        .and_then(table::command)
        .filter(|command| core.offers(command.code))
        .ok_or(Rc::COMMAND_CODE)?;
    frame.command = Some(command);
    frame.tagged = tag == Tag::SESSIONS;
    ensure(
        !core.failed || matches!(command.code, 0x17A | 0x17C),
        Rc::FAILURE,
    )?;
    ensure(core.started != command.has(Flags::EARLY), Rc::INITIALIZE)?;
    ensure(
        !(core.read_only && table::changes(command.code)),
        Rc::READ_ONLY,
    )?;

    read_handles(frame, core, &mut r)?;
    if frame.tagged {
        let size = r.read::<u32>()? as usize;
        ensure(size >= 9 && size <= r.rest().len(), Rc::SIZE)?;
        ensure(!command.has(Flags::NO_SESSIONS), Rc::AUTH_CONTEXT)?;
        let mut area = Reader::new(r.take(size)?);
        auth::read_sessions(frame, core, &mut area)?;
    } else {
        // Without sessions nothing can be authorized.
        ensure(command.auth_handles() == 0, Rc::AUTH_MISSING)?;
    }
    frame.params = frame.len - r.rest().len()..frame.len;
    if frame.tagged {
        auth::check_sessions(frame, core, buffer)?;
        crypt::decrypt(frame, core, buffer)?;
    }
    if !command.has(Flags::CALM) {
        core.end_orderly();
    }
    Ok(())
}

fn read_handles(frame: &mut Frame, core: &mut Core<'_>, r: &mut Reader<'_>) -> Result<(), Rc> {
    let Some(command) = frame.command else {
        return Err(Rc::COMMAND_CODE);
    };
    let handles = command.handles.iter().zip(&mut frame.entities).zip(1u32..);
    for (((kind, _), entity), n) in handles {
        entity.handle = r.read::<Handle>().handle(n)?;
        kind.check(entity.handle).handle(n)?;
        core.check_range(entity.handle).handle(n)?;
    }
    let handles = command
        .handles
        .iter()
        .zip(&mut frame.entities)
        .zip(1u32..)
        .enumerate();
    for (place, ((_, entity), n)) in handles {
        *entity = core.resolve(entity.handle, place).handle(n)?;
    }
    Ok(())
}

fn handle(
    frame: &mut Frame,
    core: &mut Core<'_>,
    buffer: &[u8],
    response: &mut [u8],
) -> Result<usize, Stop> {
    let Some(command) = frame.command else {
        return Err(Rc::COMMAND_CODE.into());
    };
    let head =
        HEADER + if command.has(Flags::HANDLE) { 4 } else { 0 } + if frame.tagged { 4 } else { 0 };
    let params = buffer.get(frame.params.clone()).unwrap_or_default();
    let room = response.get_mut(head..).ok_or(Rc::MEMORY)?;
    let mut sessions = [Handle::UNASSIGNED; SESSIONS_MAX];
    for (place, session) in sessions.iter_mut().zip(frame.sessions()) {
        *place = session.handle;
    }
    let keys = frame
        .entities
        .iter()
        .filter_map(|entity| core.object_of(*entity))
        .fold(Tests::empty(), |all, key| all | Tests::of_key(&key.public));
    core.require(keys)?;
    let mut call = Call::new(
        command,
        frame.entities,
        sessions,
        frame.locality,
        Reader::sent_to(core.has_lattices(), params),
        room,
    );
    (command.run)(core, &mut call)?;
    let (handle, ends) = (call.handle, call.ends);
    let len = call.out.len();
    let end = respond(frame, core, response, head, len, handle)?;
    if let Some(slot) = ends {
        core.objects.flush(slot);
    }
    core.objects.drop_persistent();
    core.commit()?;
    Ok(end)
}

/// Puts header, handle and sessions around the parameters that the handler wrote.
fn respond(
    frame: &mut Frame,
    core: &mut Core<'_>,
    response: &mut [u8],
    head: usize,
    len: usize,
    handle: Option<Handle>,
) -> Result<usize, Rc> {
    let mut end = head + len;
    let params = response.get(head..end).ok_or(Rc::MEMORY)?;
    audit::remember(frame, core, params);
    if frame.tagged {
        let (front, room) = response.split_at_mut_checked(end).ok_or(Rc::MEMORY)?;
        let params = front.get_mut(head..).ok_or(Rc::MEMORY)?;
        end += auth::write_sessions(frame, core, params, room)?;
    }
    let mut w = Writer::new(response);
    w.put(&if frame.tagged {
        Tag::SESSIONS
    } else {
        Tag::NO_SESSIONS
    })?;
    w.put(&u32::try_from(end).map_err(|_| Rc::SIZE)?)?;
    w.put(&Rc::SUCCESS.as_u32())?;
    if let Some(handle) = handle {
        w.put(&handle)?;
    }
    if frame.tagged {
        w.put(&u32::try_from(len).map_err(|_| Rc::SIZE)?)?;
    }
    Ok(end)
}

/// The role that a command's `n`-th handle is used in.
pub(super) fn role_of(frame: &Frame, n: usize) -> Role {
    frame
        .command
        .and_then(|c| c.handles.get(n))
        .map_or(Role::None, |(_, role)| *role)
}

/// Ends what a command's session was, for commands that need none of its kind.
pub(super) const fn is_audit_session(session: &Session) -> bool {
    session
        .attributes
        .contains(crate::structures::attributes::SessionAttributes::AUDIT)
}

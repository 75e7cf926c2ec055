//! The guest below us: a Linux kernel or firmware that came with the image, at a level that cannot reach the SVSM's memory.

mod firmware; // the start of firmware
mod kernel; // the start of a kernel
mod launch; // before its first instruction
mod memory; // what it has, and how we reach it

use alloc::vec;
use core::sync::atomic::{AtomicBool, Ordering};

use svsm_guest::files::{FIRMWARE, KERNEL};
use svsm_guest::firmware::Firmware;
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::claim::Claim;
use svsm_platform::irq::LocalIrq;
use svsm_platform::level::Vmpl;
use svsm_platform::once::OnceCell;
use svsm_platform::seam::{Reason, Terminate};
use svsm_platform::snp::vmsa::Field;
use svsm_platform::snp::{Error, SevFeatures};
use svsm_protocol::attest::{Attestation, Attested, Scratch};
use svsm_protocol::seam::{GuestMemory, SaveAreas, Unreachable};
use svsm_protocol::vtpm::{self, Desk, Vtpm};
use svsm_protocol::{
    Arguments, CallPending, CallingArea, Core, Dispatcher, GuestBuffers, Outcome, Protocol,
    ProtocolId, Registers, Registry, ResultCode, Vcpu, Versions,
};
use svsm_stage2::handoff::Handoff;
use svsm_stage2::params::{MemoryMap, MemoryRegion};
use svsm_stage2::region::{Area, Parameter};
use svsm_stage2::zerocopy::FromBytes;

use crate::machine::{self, snp};
use crate::user::endpoint;
use crate::{areas, evidence, smp, user};
use memory::{MAX_REGIONS, Machine, Map};

/// What the guest is made of.
struct Facts {
    level: Vmpl,
    map: Map,
    svsm: GpaRange,
    /// Low memory of which the image has used some.
    loaded: GpaRange,
    secrets: Area,
    features: SevFeatures,
    registry: Registry<'static, LocalIrq>,
}

/// Whose command the TPM works on.
static TPM_DESK: Desk<LocalIrq> = Desk::new(LocalIrq);
static FACTS: OnceCell<Facts> = OnceCell::new();
/// The guest is to start as soon as the first CPU has nothing else to do.
static IS_DUE: AtomicBool = AtomicBool::new(false);

/// Why there is no guest.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum Failure {
    /// The image has no kernel and no firmware, or not all that a guest needs.
    NoKernel,
    /// The parts do not fit into the guest's memory.
    Layout(svsm_guest::Error),
    /// There is no memory, or it cannot be reached.
    Memory,
    /// The host or the processor refuses.
    Snp(Error),
    /// The security processor cannot be asked.
    Evidence(snp::Unshared),
    /// What the loader deposited makes no sense.
    Image(svsm_stage2::Error),
}

/// Whether the image brings a guest that this machine can run.
pub(crate) fn is_in_image() -> bool {
    machine::is_snp()
        && [FIRMWARE, KERNEL]
            .into_iter()
            .any(|name| user::file(name).is_some())
}

/// Learns what a guest would be made of. Without a kernel or firmware in the image, or without levels, there is none.
///
/// # Errors
/// There is one of them, and not what else it takes.
pub(crate) fn survey(handoff: &Handoff) -> Result<(), Failure> {
    if !is_in_image() {
        return Ok(());
    }
    let firmware = user::file(FIRMWARE).map(Firmware::for_svsm).transpose();
    let firmware = firmware.map_err(Failure::Layout)?;
    let home = firmware.and_then(|firmware| {
        GpaRange::new(Gpa::new(firmware.base())?, firmware.bytes().len() as u64)
    });
    let area = handoff
        .parameter(Parameter::MemoryMap)
        .ok_or(Failure::NoKernel)?;
    // SAFETY: the area is one of the checked hand-off, and the builder maps parameters read-only.
    #[expect(unsafe_code, reason = "reads an area of the image")]
    let bytes = unsafe { areas::bytes(area) };
    let mut room = [MemoryRegion::NONE; MAX_REGIONS];
    let map = MemoryMap::parse(Claim::new(bytes), &mut room).map_err(Failure::Image)?;
    let loaded = GpaRange::from_bounds(handoff.trampoline, handoff.stage2.end());
    let ids = smp::raw_ids().leak();
    let slots = vec![None; 2 * ids.len() + 2].leak();
    let features = snp::features().ok_or(Failure::NoKernel)?;
    let secrets = handoff.secrets.ok_or(Failure::NoKernel)?;
    let level = handoff.guest_level.ok_or(Failure::NoKernel)?;
    evidence::set_up(launch::Secrets::of(secrets).page()).map_err(Failure::Evidence)?;
    let _ = FACTS.set(Facts {
        level,
        map: Map::new(map.regions(), handoff.svsm, home),
        svsm: handoff.svsm,
        loaded: loaded.ok_or(Failure::NoKernel)?,
        secrets,
        features,
        registry: Registry::new(slots, ids, features.bits(), LocalIrq),
    });
    Ok(())
}

/// Asks for the guest to be started, if there is one. Answers whether there is.
pub(crate) fn request() -> bool {
    let is_there = FACTS.value().is_some();
    IS_DUE.store(is_there, Ordering::Release);
    is_there
}

/// Starts the guest on this CPU, if it is due. It takes much stack, once, so it has a frame of its own.
#[inline(never)]
pub(crate) fn start_if_due() {
    // A guest may ask its services at once, and for evidence of them.
    if !endpoint::are_ready() {
        return;
    }
    let Some(facts) = FACTS
        .value()
        .filter(|_| IS_DUE.swap(false, Ordering::AcqRel))
    else {
        return;
    };
    let started = launch::launch(facts)
        .and_then(|vcpu| facts.registry.add_first(vcpu).map_err(|_| Failure::Memory));
    match started {
        Ok(()) => info!(public, "guest: starts at VMPL{=u8}", facts.level.as_u8()),
        Err(error) => {
            error!(public, "the guest cannot start: {}", error);
            machine::terminator().fatal(Reason::General)
        }
    }
}

/// Lets the guest of this CPU run until it calls or the host wants us, and answers its call. False if this CPU has no guest.
#[inline(never)]
pub(crate) fn run() -> bool {
    let Some((facts, processor)) = FACTS.value().zip(smp::own_id()) else {
        return false;
    };
    let Some(newest) = facts.registry.of_processor(processor) else {
        return false;
    };
    let Some(mut machine) = Machine::here() else {
        return false;
    };
    // The host may have entered the guest before us, so there may be a call first.
    let (mut is_heard, mut level) = (false, newest.level);
    for n in 0.. {
        let Some(vcpu) = facts.registry.nth_of_processor(processor, n) else {
            break;
        };
        match serve(facts, &vcpu, &mut machine) {
            Ok(Served::Nothing) => is_heard = true,
            // Who called goes on.
            Ok(Served::Call) => (is_heard, level) = (true, vcpu.level),
            Err(Unreachable) => {}
        }
    }
    if !is_heard {
        // The guest has taken its calling areas away, or it is as good as gone: it hears nothing.
        machine::terminator().fatal(Reason::General)
    }
    drop(machine);
    snp::run_level(level).is_ok()
}

/// Answers the call in `registers`.
fn answer(facts: &Facts, vcpu: &Vcpu, machine: &mut Machine, registers: &mut Registers) {
    let has_tpm = endpoint::VTPM.is_served();
    match registers.call().protocol {
        ProtocolId::ATTEST => return attest(facts, machine, registers),
        ProtocolId::VTPM if has_tpm => return command(facts, vcpu, machine, registers),
        _ => {}
    }
    let mut core = Core::new(&facts.registry, &facts.map, machine, *vcpu);
    // Others are asked for by their number alone.
    let mut attestation = Offered(ProtocolId::ATTEST);
    let mut tpm = Offered(ProtocolId::VTPM);
    if has_tpm {
        dispatch([&mut core, &mut attestation, &mut tpm], registers);
    } else {
        dispatch([&mut core, &mut attestation], registers);
    }
}

fn dispatch<const N: usize>(protocols: [&mut dyn Protocol; N], registers: &mut Registers) {
    if let Ok(mut dispatcher) = Dispatcher::new(protocols) {
        dispatcher.dispatch(registers);
    }
}

/// Answers a call of the vTPM protocol.
#[inline(never)]
fn command(facts: &Facts, vcpu: &Vcpu, machine: &mut Machine, registers: &mut Registers) {
    let mut scratch = vec![0; size_of::<vtpm::Scratch>()];
    let Ok(scratch) = scratch.as_mut_slice().try_into() else {
        return;
    };
    let mut tpm = Vtpm::new(
        (&TPM_DESK, &endpoint::VTPM),
        &facts.registry,
        (&facts.map, machine),
        *vcpu,
        scratch,
    );
    dispatch([&mut tpm], registers);
}

/// A protocol that is answered elsewhere.
struct Offered(ProtocolId);

impl Protocol for Offered {
    fn id(&self) -> ProtocolId {
        self.0
    }

    fn versions(&self) -> Versions {
        Versions::only(1)
    }

    fn call(&mut self, _: u32, _: &mut Arguments) -> Outcome {
        Err(ResultCode::UNSUPPORTED_CALL)
    }
}

/// Answers a call of the attestation protocol, which takes more memory than a stack has.
#[inline(never)]
fn attest(facts: &Facts, machine: &mut Machine, registers: &mut Registers) {
    let page = || vec![0; 4096];
    let (mut manifest, mut report) = (page(), page());
    let mut certificates = vec![0; evidence::CERTIFICATE_PAGES * 4096];
    let scratch = Scratch {
        manifest: &mut manifest,
        report: &mut report,
        certificates: &mut certificates,
    };
    let tpm: [&dyn Attested; 1] = [&endpoint::VTPM];
    let services = match endpoint::VTPM.is_served() {
        true => &tpm[..],
        false => &[],
    };
    let mut attestation = Attestation::new(
        &facts.registry,
        (&facts.map, machine),
        (evidence::Processor, evidence::Digester),
        services,
        scratch,
    );
    dispatch([&mut attestation], registers);
}

/// Whether there was a call.
enum Served {
    Nothing,
    Call,
}

/// Answers a call, if there is one.
fn serve(facts: &Facts, vcpu: &Vcpu, machine: &mut Machine) -> Result<Served, Unreachable> {
    let mut header = [0; size_of::<CallingArea>()];
    machine.read(vcpu.calling_area, &mut header)?;
    let area = CallingArea::read_from_bytes(&header).map_err(|_| Unreachable)?;
    let pending = area.pending();
    if pending == CallPending::None {
        return Ok(Served::Nothing);
    }
    // The registers are at rest while this is clear: the host cannot run the guest.
    if !machine.stop(vcpu.save_area)? {
        machine.resume(vcpu.save_area)?;
        return Ok(Served::Nothing);
    }
    let mut load = |field| machine.word(vcpu.save_area, field, |word| word.load(Ordering::Acquire));
    let mut registers = Registers {
        rax: load(Field::RAX)?,
        rcx: load(Field::RCX)?,
        rdx: load(Field::RDX)?,
        r8: load(Field::R8)?,
        r9: load(Field::R9)?,
    };
    if pending == CallPending::Call {
        answer(facts, vcpu, machine, &mut registers);
    } else {
        registers.rax = ResultCode::INVALID_FORMAT.into();
    }
    for (field, value) in [
        (Field::RAX, registers.rax),
        (Field::RCX, registers.rcx),
        (Field::RDX, registers.rdx),
        (Field::R8, registers.r8),
        (Field::R9, registers.r9),
    ] {
        machine.word(vcpu.save_area, field, |word| {
            word.store(value, Ordering::Release);
        })?;
    }
    // The area through which the call came, even if the guest has another one now; unless that has become something else.
    let mut buffers = GuestBuffers::new(&facts.registry, &facts.map, &mut *machine);
    let _ = buffers.write(
        vcpu.calling_area.as_u64(),
        &[CallingArea::IDLE.call_pending],
    );
    machine.resume(vcpu.save_area)?;
    Ok(Served::Call)
}

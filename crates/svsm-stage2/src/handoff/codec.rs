//! Between the block's bytes and what they mean, field by field.

use core::mem::offset_of;

use svsm_platform::addr::{Address, Gpa, GpaRange, PageSize};
use svsm_platform::encryption::{BitPosition, Encryption};
use svsm_platform::level::Vmpl;
use zerocopy::{FromZeros, IntoBytes};

use super::wire::{
    HANDOFF_BYTES, MAGIC, MAX_SEGMENTS, VERSION, WireArea, WireEncryption, WireHandoff,
    WirePlatform, WireRange, WireRights, WireSegment, WireStaged, WireWindow,
};
use super::{EncryptionKind, Handoff, Platform, RunTime, Segment, Segments, Staged, WindowArea};
use crate::error::{Error, Fault, Flaw, Result};
use crate::region::{Area, Parameter, Region, Rights, pages_from};

const FLAG_DEBUG: u64 = 1 << 0;
const FLAG_FILLED: u64 = 1 << 1;

pub(super) fn decode(wire: &WireHandoff) -> Result<Handoff> {
    let flaw = |offset, flaw| Error::Handoff { offset, flaw };

    let reserved = [
        (
            wire.window.reserved.get() != 0,
            offset_of!(WireHandoff, window.reserved),
        ),
        (wire.reserved.get() != 0, offset_of!(WireHandoff, reserved)),
    ];
    for (is_set, offset) in reserved {
        if is_set {
            return Err(flaw(offset, Flaw::Reserved));
        }
    }

    let platform = match wire.platform {
        WirePlatform::NATIVE => Platform::Native,
        WirePlatform::SEV_SNP => Platform::Snp,
        WirePlatform::TDX => Platform::Tdx,
        _ => return Err(flaw(offset_of!(WireHandoff, platform), Flaw::Unknown)),
    };
    let flags = wire.flags.get();
    if flags & !(FLAG_DEBUG | FLAG_FILLED) != 0 {
        return Err(flaw(offset_of!(WireHandoff, flags), Flaw::Unknown));
    }
    let filled = flags & FLAG_FILLED != 0;
    let (encryption, rule) = decode_encryption(wire, filled)?;
    if !filled && wire.tsc_at_entry.get() != 0 {
        return Err(flaw(offset_of!(WireHandoff, tsc_at_entry), Flaw::Order));
    }

    let mut parameters = [None; Parameter::ALL.len()];
    for ((place, parameter), area) in parameters
        .iter_mut()
        .zip(Parameter::ALL)
        .zip(&wire.parameters)
    {
        *place = optional_area(Region::Parameter(parameter), area)?;
    }

    let tables = area(Region::Tables, &wire.tables)?;
    if wire.svsm_root_gpa.get() != tables.gpa().as_u64() {
        return Err(flaw(offset_of!(WireHandoff, svsm_root_gpa), Flaw::Address));
    }

    let archive = optional_area(Region::Archive, &wire.archive)?;
    let archive_bytes = archive.map_or(0, |archive| archive.len_bytes());
    let staged = decode_staged(Region::Staging, &wire.staged, archive_bytes)?;

    let mut handoff = Handoff {
        platform,
        encryption,
        debug: flags & FLAG_DEBUG != 0,
        run_time: rule.map(|encryption| RunTime {
            encryption,
            tsc_at_entry: wire.tsc_at_entry.get(),
        }),
        svsm: range(Region::Svsm, &wire.svsm)?,
        stage2: range(Region::Stage2, &wire.stage2)?,
        stage2_tables: range(Region::Stage2Tables, &wire.stage2_tables)?,
        stage2_window_table: address(Region::Stage2Tables, wire.stage2_window_table_gpa.get())?,
        trampoline: address(Region::Trampoline, wire.trampoline_gpa.get())?,
        entry: address(Region::Image, wire.svsm_entry_gva.get())?,
        handoff: area(Region::Handoff, &wire.handoff)?,
        mailbox: area(Region::Mailbox, &wire.mailbox)?,
        tables,
        heap: area(Region::Heap, &wire.heap)?,
        boot_stack: area(Region::BootStack, &wire.boot_stack)?,
        window: decode_window(wire)?,
        parameters,
        archive,
        staged,
        staged_svsm: None,
        guest_level: decode_level(wire)?,
        cpuid: optional_area(Region::Cpuid, &wire.cpuid)?,
        secrets: optional_area(Region::Secrets, &wire.secrets)?,
        console_port: optional_port(wire.console_port.get()),
        power_port: optional_port(wire.power_port.get()),
        segments: decode_segments(wire)?,
        manifest_digest: wire.manifest_digest,
    };
    handoff.staged_svsm =
        decode_staged(Region::SvsmStaging, &wire.staged_svsm, handoff.svsm_bytes())?;
    Ok(handoff)
}

fn decode_encryption(
    wire: &WireHandoff,
    filled: bool,
) -> Result<(EncryptionKind, Option<Encryption>)> {
    let value = wire.encryption_value.get();
    let bad_value = |flaw| Error::Handoff {
        offset: offset_of!(WireHandoff, encryption_value),
        flaw,
    };
    let bit = || {
        u8::try_from(value)
            .ok()
            .and_then(BitPosition::new)
            .ok_or(bad_value(Flaw::Unknown))
    };
    let kind = match wire.encryption {
        WireEncryption::NONE => EncryptionKind::None,
        WireEncryption::C_BIT => EncryptionKind::CBit,
        WireEncryption::SHARED_BIT => EncryptionKind::SharedBit,
        WireEncryption::VTOM => EncryptionKind::Vtom,
        _ => {
            let offset = offset_of!(WireHandoff, encryption);
            return Err(Error::Handoff {
                offset,
                flaw: Flaw::Unknown,
            });
        }
    };
    if !filled || kind == EncryptionKind::None {
        if value != 0 {
            return Err(bad_value(Flaw::Order));
        }
        return Ok((kind, filled.then_some(Encryption::None)));
    }
    let rule = match kind {
        EncryptionKind::None => Encryption::None,
        EncryptionKind::CBit => Encryption::CBit(bit()?),
        EncryptionKind::SharedBit => Encryption::SharedBit(bit()?),
        EncryptionKind::Vtom => match Gpa::new(value) {
            Some(top) if top != Gpa::ZERO && top.is_aligned(PageSize::Size2M) => {
                Encryption::Vtom(top)
            }
            _ => return Err(bad_value(Flaw::Address)),
        },
    };
    Ok((kind, Some(rule)))
}

fn decode_segments(wire: &WireHandoff) -> Result<Segments> {
    let flaw = |offset, flaw| Err(Error::Handoff { offset, flaw });
    let count = usize::try_from(wire.segment_count.get()).unwrap_or(usize::MAX);
    if count > MAX_SEGMENTS {
        return flaw(offset_of!(WireHandoff, segment_count), Flaw::TooMany);
    }
    let mut segments = Segments::new();
    for (index, segment) in wire.segments.iter().enumerate() {
        let offset = offset_of!(WireHandoff, segments) + index * size_of::<WireSegment>();
        if index >= count {
            if segment.as_bytes().iter().any(|byte| *byte != 0) {
                return flaw(offset, Flaw::Reserved);
            }
            continue;
        }
        if segment.reserved.get() != 0 {
            return flaw(offset + offset_of!(WireSegment, reserved), Flaw::Reserved);
        }
        let rights = match segment.rights {
            WireRights::READ => Rights::Read,
            WireRights::READ_WRITE => Rights::ReadWrite,
            WireRights::READ_EXECUTE => Rights::ReadExecute,
            _ => return flaw(offset + offset_of!(WireSegment, rights), Flaw::Unknown),
        };
        let region = Region::SvsmSegment(u8::try_from(index).unwrap_or(u8::MAX));
        segments.push(Segment {
            area: area(region, &segment.area)?,
            rights,
        })?;
    }
    Ok(segments)
}

fn decode_level(wire: &WireHandoff) -> Result<Option<Vmpl>> {
    let offset = offset_of!(WireHandoff, guest_level);
    let flaw = Flaw::Unknown;
    match wire.guest_level.get() {
        0 => Ok(None),
        level => u8::try_from(level)
            .ok()
            .and_then(Vmpl::new)
            .map(Some)
            .ok_or(Error::Handoff { offset, flaw }),
    }
}

/// What arrives has a place to go to that is as long.
fn decode_staged(region: Region, wire: &WireStaged, len_bytes: u64) -> Result<Option<Staged>> {
    if wire.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if wire.len_bytes.get() != len_bytes {
        return Err(Error::Region {
            region,
            fault: Fault::WrongLength {
                expected: len_bytes,
            },
        });
    }
    let start = address(region, wire.gpa.get())?;
    Ok(Some(Staged {
        source: pages_from(region, start, len_bytes)?,
        digest: wire.digest,
    }))
}

fn decode_window(wire: &WireHandoff) -> Result<WindowArea> {
    let Ok(slots) = u16::try_from(wire.window.slots.get()) else {
        let offset = offset_of!(WireHandoff, window.slots);
        return Err(Error::Handoff {
            offset,
            flaw: Flaw::TooMany,
        });
    };
    Ok(WindowArea {
        gva: address(Region::Window, wire.window.gva.get())?,
        table: address(Region::Window, wire.window.table_gva.get())?,
        switch: address(Region::Window, wire.window.switch_gva.get())?,
        slots,
    })
}

fn address<A: Address>(region: Region, value: u64) -> Result<A> {
    A::new(value).ok_or(Error::Region {
        region,
        fault: Fault::NoAddress { value },
    })
}

fn range(region: Region, wire: &WireRange) -> Result<GpaRange> {
    let range: GpaRange = pages_from(
        region,
        address(region, wire.gpa.get())?,
        wire.len_bytes.get(),
    )?;
    if range.len_bytes() != wire.len_bytes.get() {
        let address = range.start().as_u64().wrapping_add(wire.len_bytes.get());
        return Err(Error::Region {
            region,
            fault: Fault::Unaligned { address },
        });
    }
    Ok(range)
}

fn area(region: Region, wire: &WireArea) -> Result<Area> {
    let gpa = address(region, wire.gpa.get())?;
    Area::new(
        region,
        gpa,
        address(region, wire.gva.get())?,
        wire.len_bytes.get(),
    )
}

fn optional_area(region: Region, wire: &WireArea) -> Result<Option<Area>> {
    if wire.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    area(region, wire).map(Some)
}

fn optional_port(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

pub(super) fn encode(handoff: &Handoff) -> WireHandoff {
    let mut wire = WireHandoff::new_zeroed();
    wire.magic = MAGIC.into();
    wire.version = VERSION.into();
    wire.total_bytes = HANDOFF_BYTES.into();
    wire.platform = match handoff.platform {
        Platform::Native => WirePlatform::NATIVE,
        Platform::Snp => WirePlatform::SEV_SNP,
        Platform::Tdx => WirePlatform::TDX,
    };
    wire.encryption = match handoff.encryption {
        EncryptionKind::None => WireEncryption::NONE,
        EncryptionKind::CBit => WireEncryption::C_BIT,
        EncryptionKind::SharedBit => WireEncryption::SHARED_BIT,
        EncryptionKind::Vtom => WireEncryption::VTOM,
    };
    let mut flags = if handoff.debug { FLAG_DEBUG } else { 0 };
    if let Some(run_time) = handoff.run_time {
        flags |= FLAG_FILLED;
        wire.tsc_at_entry = run_time.tsc_at_entry.into();
        wire.encryption_value = match run_time.encryption {
            Encryption::None => 0,
            Encryption::CBit(bit) | Encryption::SharedBit(bit) => bit.as_u8().into(),
            Encryption::Vtom(top) => top.as_u64(),
        }
        .into();
    }
    wire.flags = flags.into();
    wire.svsm = wire_range(handoff.svsm);
    wire.stage2 = wire_range(handoff.stage2);
    wire.stage2_tables = wire_range(handoff.stage2_tables);
    wire.stage2_window_table_gpa = handoff.stage2_window_table.as_u64().into();
    wire.trampoline_gpa = handoff.trampoline.as_u64().into();
    wire.svsm_root_gpa = handoff.root().as_u64().into();
    wire.svsm_entry_gva = handoff.entry.as_u64().into();
    wire.handoff = wire_area(Some(handoff.handoff));
    wire.mailbox = wire_area(Some(handoff.mailbox));
    wire.tables = wire_area(Some(handoff.tables));
    wire.heap = wire_area(Some(handoff.heap));
    wire.boot_stack = wire_area(Some(handoff.boot_stack));
    wire.window = WireWindow {
        gva: handoff.window.gva.as_u64().into(),
        table_gva: handoff.window.table.as_u64().into(),
        switch_gva: handoff.window.switch.as_u64().into(),
        slots: u32::from(handoff.window.slots).into(),
        reserved: 0.into(),
    };
    wire.parameters = handoff.parameters.map(wire_area);
    wire.archive = wire_area(handoff.archive);
    let archive_bytes = handoff.archive.map_or(0, |archive| archive.len_bytes());
    wire.staged = wire_staged(handoff.staged, archive_bytes);
    wire.staged_svsm = wire_staged(handoff.staged_svsm, handoff.svsm_bytes());
    wire.guest_level = handoff
        .guest_level
        .map_or(0, |level| level.as_u8().into())
        .into();
    wire.cpuid = wire_area(handoff.cpuid);
    wire.secrets = wire_area(handoff.secrets);
    wire.console_port = handoff.console_port.unwrap_or(0).into();
    wire.power_port = handoff.power_port.unwrap_or(0).into();
    let mut count = 0_u32;
    for (place, segment) in wire.segments.iter_mut().zip(handoff.segments.iter()) {
        place.area = wire_area(Some(segment.area));
        place.rights = match segment.rights {
            Rights::Read => WireRights::READ,
            Rights::ReadWrite => WireRights::READ_WRITE,
            Rights::ReadExecute => WireRights::READ_EXECUTE,
        };
        count += 1;
    }
    wire.segment_count = count.into();
    wire.manifest_digest = handoff.manifest_digest;
    wire
}

fn wire_range(range: GpaRange) -> WireRange {
    WireRange {
        gpa: range.start().as_u64().into(),
        len_bytes: range.len_bytes().into(),
    }
}

fn wire_staged(staged: Option<Staged>, len_bytes: u64) -> WireStaged {
    let Some(staged) = staged else {
        return WireStaged::new_zeroed();
    };
    WireStaged {
        gpa: staged.source.start().as_u64().into(),
        len_bytes: len_bytes.into(),
        digest: staged.digest,
    }
}

fn wire_area(area: Option<Area>) -> WireArea {
    let Some(area) = area else {
        return WireArea::new_zeroed();
    };
    WireArea {
        gpa: area.gpa().as_u64().into(),
        gva: area.gva().as_u64().into(),
        len_bytes: area.len_bytes().into(),
    }
}

//! The order in which the parts of an image get their places.

use alloc::vec::Vec;

use svsm_platform::addr::{Address, Gpa, GpaRange, Gva, GvaRange, PageSize};

use super::areas::Room;
use super::tables::{self, address_space, identity};
use super::{AddressSpace, Content, Mapping, Placement, Plan, Request, SegmentFacts, Start};
use crate::error::{Error, Fault, Result};
use crate::handoff::{HANDOFF_BYTES, Handoff, MAX_SEGMENTS, Segment, Segments, WindowArea};
use crate::layout;
use crate::region::{Area, Parameter, Region, Rights, Span, check_disjoint, pages_from};

const PAGE: u64 = PageSize::Size4K.bytes();

const fn refuse(region: Region, fault: Fault) -> Error {
    Error::Region { region, fault }
}

fn address<A: Address>(region: Region, value: u64) -> Result<A> {
    A::new(value).ok_or(refuse(region, Fault::NoAddress { value }))
}

/// The plan as it grows.
struct Draft {
    placements: Vec<Placement>,
    areas: Room<Gva>,
}

/// What is placed but for its address.
#[derive(Clone, Copy)]
struct Part {
    region: Region,
    len_bytes: u64,
    rights: Rights,
    content: Content,
}

impl Draft {
    fn place(&mut self, part: Part, gpa: GpaRange, gva: Option<GvaRange>) {
        let Part {
            region,
            rights,
            content,
            ..
        } = part;
        self.placements.push(Placement {
            region,
            gpa,
            gva,
            rights,
            content,
        });
    }

    /// Places a part in `room` and in the address space for areas.
    fn place_area(&mut self, part: Part, room: &mut Room<Gpa>) -> Result<Area> {
        let gpa = room.take(part.region, part.len_bytes)?;
        self.place_area_at(part, gpa)
    }

    fn place_area_at(&mut self, part: Part, gpa: GpaRange) -> Result<Area> {
        let gva = self.areas.take_guarded(part.region, part.len_bytes)?;
        self.place(part, gpa, Some(gva));
        Area::new(part.region, gpa.start(), gva.start(), part.len_bytes)
    }
}

/// What lies in low memory.
struct Low {
    range: GpaRange,
    handoff: Area,
    mailbox: Area,
    cpuid: Option<Area>,
    space: AddressSpace,
    stack_top: Gva,
}

/// What lies in the private region.
struct High {
    range: GpaRange,
    segments: Segments,
    boot_stack: Area,
    secrets: Option<Area>,
    parameters: [Option<Area>; Parameter::ALL.len()],
    archive: Option<Area>,
    tables: Area,
    heap: Area,
    space: AddressSpace,
}

pub(super) fn plan(request: &Request<'_>) -> Result<Plan> {
    let areas = GvaRange::from_bounds(layout::AREAS, layout::AREAS_END).ok_or(Error::Bug)?;
    let mut draft = Draft {
        placements: Vec::new(),
        areas: Room::new(Region::Areas, areas),
    };
    let low = plan_low(request, &mut draft)?;
    let high = plan_high(request, &mut draft)?;
    let start = plan_start(request, &low, &draft)?;
    let handoff = Handoff {
        platform: request.platform,
        encryption: request.encryption,
        debug: request.debug,
        run_time: None,
        svsm: high.range,
        stage2: low.range,
        stage2_tables: low.space.tables,
        stage2_window_table: low.space.window_table,
        trampoline: request.trampoline,
        entry: address(Region::Entry, request.svsm.entry)?,
        handoff: low.handoff,
        mailbox: low.mailbox,
        tables: high.tables,
        heap: high.heap,
        boot_stack: high.boot_stack,
        window: WindowArea {
            gva: layout::WINDOW,
            table: layout::WINDOW_TABLE,
            switch: layout::SWITCH,
            slots: layout::WINDOW_SLOTS,
        },
        parameters: high.parameters,
        archive: high.archive,
        cpuid: low.cpuid,
        secrets: high.secrets,
        console_port: request.console_port,
        power_port: request.power_port,
        segments: high.segments,
        manifest_digest: request.manifest_digest,
    };
    draft
        .placements
        .sort_by_key(|placement| placement.gpa.start());
    let plan = Plan {
        placements: draft.placements,
        stage2: low.space,
        svsm: high.space,
        start,
        handoff,
    };
    check(&plan, request)?;
    Ok(plan)
}

/// Stage2's segments, stack, hand-off and tables; mailbox and trampoline.
fn plan_low(request: &Request<'_>, draft: &mut Draft) -> Result<Low> {
    let range = GpaRange::from_bounds(request.stage2_start, request.stage2_end).ok_or(refuse(
        Region::Stage2,
        Fault::Wraps {
            address: request.stage2_start.as_u64(),
        },
    ))?;
    if let Some(address) = unaligned(&range) {
        return Err(refuse(Region::Stage2, Fault::Unaligned { address }));
    }
    let segments = place_stage2(request, range, draft)?;
    let mut room = Room::new(Region::Stage2, segments);

    let stack = Part {
        region: Region::Stage2Stack,
        len_bytes: request.stage2_stack_bytes,
        rights: Rights::ReadWrite,
        content: Content::Zero,
    };
    let stack_gpa = room.take_guarded(stack.region, stack.len_bytes)?;
    if stack_gpa.len_bytes() != stack.len_bytes {
        let address = stack_gpa.start().as_u64().saturating_add(stack.len_bytes);
        return Err(refuse(stack.region, Fault::Unaligned { address }));
    }
    draft.place(stack, stack_gpa, None);

    let handoff = Part {
        region: Region::Handoff,
        len_bytes: HANDOFF_BYTES.into(),
        rights: Rights::Read,
        content: Content::Handoff,
    };
    let handoff_gpa = room.take_guarded(handoff.region, handoff.len_bytes)?;
    let handoff = draft.place_area_at(handoff, handoff_gpa)?;

    let mailbox = Part {
        region: Region::Mailbox,
        len_bytes: PAGE,
        rights: Rights::ReadWrite,
        content: Content::Zero,
    };
    let mailbox_gpa = layout::mailbox(request.trampoline).ok_or(refuse(
        mailbox.region,
        Fault::Wraps {
            address: request.trampoline.as_u64(),
        },
    ))?;
    let mailbox_gpa = pages_from(mailbox.region, mailbox_gpa, PAGE)?;
    let mailbox = draft.place_area_at(mailbox, mailbox_gpa)?;

    let cpuid = Part {
        region: Region::Cpuid,
        len_bytes: PAGE,
        rights: Rights::Read,
        content: Content::Platform,
    };
    let cpuid = request
        .cpuid
        .then(|| draft.place_area(cpuid, &mut room))
        .transpose()?;

    let (window_table, mut mappings) = tables::window(room.rest().start(), request.trampoline)?;
    for placement in &draft.placements {
        // The hand-off is the SVSM's to read and stage2's to fill in.
        let rights = match placement.region {
            Region::Handoff => Rights::ReadWrite,
            _ => placement.rights,
        };
        let gva = identity(placement.region, placement.gpa)?;
        tables::push(&mut mappings, placement.region, gva, placement.gpa, rights);
    }
    let space = address_space(
        Region::Stage2Tables,
        Region::Stage2,
        room.rest(),
        window_table,
        mappings,
    )?;
    let tables = Part {
        region: Region::Stage2Tables,
        len_bytes: space.tables.len_bytes(),
        rights: Rights::ReadWrite,
        content: Content::Tables,
    };
    draft.place(tables, space.tables, None);
    let stack_top = identity(Region::Stage2Stack, stack_gpa)?.end();
    Ok(Low {
        range,
        handoff,
        mailbox,
        cpuid,
        space,
        stack_top,
    })
}

/// Places stage2's segments where they are linked; gives back what is left of its region above.
fn place_stage2(request: &Request<'_>, range: GpaRange, draft: &mut Draft) -> Result<GpaRange> {
    let trampoline = pages_from(Region::Trampoline, request.trampoline, PAGE)?;
    let mut free = range.start();
    let mut found = false;
    for (index, facts) in (0..).zip(request.stage2.segments) {
        let segment = Region::Stage2Segment(index);
        let gpa: GpaRange = pages_from(segment, address(segment, facts.address)?, facts.mem_bytes)?;
        let mut part = segment_part(segment, facts)?;
        if gpa == trampoline {
            part.region = Region::Trampoline;
            found = true;
            if !part.rights.is_executable() {
                return Err(refuse(Region::Trampoline, Fault::WrongRights));
            }
        } else if range.contains_range(&gpa) {
            free = free.max(gpa.end());
        } else {
            return Err(refuse(segment, Fault::Outside(Region::Stage2)));
        }
        draft.place(part, gpa, None);
    }
    if !found {
        return Err(refuse(Region::Trampoline, Fault::Missing));
    }
    GpaRange::from_bounds(free, range.end()).ok_or(Error::Bug)
}

/// The SVSM's segments, stack, deposits, archive, tables and free memory.
fn plan_high(request: &Request<'_>, draft: &mut Draft) -> Result<High> {
    let range: GpaRange = pages_from(Region::Svsm, request.svsm_base, request.svsm_bytes)?;
    if range.len_bytes() != request.svsm_bytes || !range.start().is_aligned(PageSize::Size2M) {
        let address = range.start().as_u64().saturating_add(request.svsm_bytes);
        return Err(refuse(Region::Svsm, Fault::Unaligned { address }));
    }
    let mut room = Room::new(Region::Svsm, range);
    let low = draft.placements.len();
    let segments = place_svsm(request, &mut room, draft)?;

    let stack = Part {
        region: Region::BootStack,
        len_bytes: request.boot_stack_bytes,
        rights: Rights::ReadWrite,
        content: Content::Zero,
    };
    let boot_stack = draft.place_area(stack, &mut room)?;
    let secrets = Part {
        region: Region::Secrets,
        len_bytes: PAGE,
        rights: Rights::Read,
        content: Content::Platform,
    };
    let secrets = request
        .secrets
        .then(|| draft.place_area(secrets, &mut room))
        .transpose()?;
    let mut parameters = [None; Parameter::ALL.len()];
    let wanted = Parameter::ALL.into_iter().zip(request.parameter_bytes);
    for (place, (parameter, len_bytes)) in parameters.iter_mut().zip(wanted) {
        let part = Part {
            region: Region::Parameter(parameter),
            len_bytes,
            rights: Rights::Read,
            content: Content::Deposited(parameter),
        };
        if len_bytes != 0 {
            *place = Some(draft.place_area(part, &mut room)?);
        }
    }
    let archive = Part {
        region: Region::Archive,
        len_bytes: request.archive_bytes,
        rights: Rights::Read,
        content: Content::Archive {
            file_bytes: request.archive_bytes,
        },
    };
    let archive = (request.archive_bytes != 0)
        .then(|| draft.place_area(archive, &mut room))
        .transpose()?;

    let (window_table, mut mappings) = tables::window(room.rest().start(), request.trampoline)?;
    push_visible(&mut mappings, &draft.placements, low);
    let linear = linear(range, room.rest())?;
    tables::push(
        &mut mappings,
        Region::Linear,
        linear,
        room.rest(),
        Rights::ReadWrite,
    );
    let space = address_space(
        Region::Tables,
        Region::Svsm,
        room.rest(),
        window_table,
        mappings,
    )?;

    let tables = place_linear(
        Part {
            region: Region::Tables,
            len_bytes: space.tables.len_bytes(),
            rights: Rights::ReadWrite,
            content: Content::Tables,
        },
        &mut room,
        range,
        draft,
    )?;
    let heap = Part {
        region: Region::Heap,
        len_bytes: room.rest().len_bytes(),
        rights: Rights::ReadWrite,
        content: Content::Free,
    };
    let heap = place_linear(heap, &mut room, range, draft)?;
    Ok(High {
        range,
        segments,
        boot_stack,
        secrets,
        parameters,
        archive,
        tables,
        heap,
        space,
    })
}

/// Packs the SVSM's segments into `room`, each at the virtual address at which it is linked.
fn place_svsm(request: &Request<'_>, room: &mut Room<Gpa>, draft: &mut Draft) -> Result<Segments> {
    let image = GvaRange::from_bounds(layout::IMAGE, layout::IMAGE_END).ok_or(Error::Bug)?;
    if request.svsm.segments.is_empty() {
        return Err(refuse(Region::SvsmSegment(0), Fault::Missing));
    }
    let mut segments = Segments::new();
    for (index, facts) in (0..).zip(request.svsm.segments) {
        let region = Region::SvsmSegment(index);
        if usize::from(index) >= MAX_SEGMENTS {
            return Err(refuse(region, Fault::TooMany));
        }
        let gva: GvaRange = pages_from(region, address(region, facts.address)?, facts.mem_bytes)?;
        if !image.contains_range(&gva) {
            return Err(refuse(region, Fault::Outside(Region::Image)));
        }
        let part = segment_part(region, facts)?;
        let gpa = room.take(region, facts.mem_bytes)?;
        draft.place(part, gpa, Some(gva));
        let area = Area::new(region, gpa.start(), gva.start(), gpa.len_bytes())?;
        segments.push(Segment {
            area,
            rights: part.rights,
        })?;
    }
    Ok(segments)
}

fn segment_part(region: Region, facts: &SegmentFacts) -> Result<Part> {
    let rights = match (facts.writable, facts.executable) {
        (true, true) => return Err(refuse(region, Fault::WriteExecute)),
        (true, false) => Rights::ReadWrite,
        (false, true) => Rights::ReadExecute,
        (false, false) => Rights::Read,
    };
    if facts.file_bytes > facts.mem_bytes {
        return Err(refuse(region, Fault::FileTooLong));
    }
    let content = Content::Segment {
        file_bytes: facts.file_bytes,
    };
    Ok(Part {
        region,
        len_bytes: facts.mem_bytes,
        rights,
        content,
    })
}

/// Maps what the SVSM sees: what was placed from `first` on, and of what came before that which
/// has a virtual address.
fn push_visible(mappings: &mut Vec<Mapping>, placements: &[Placement], first: usize) {
    let (low, high) = placements
        .split_at_checked(first)
        .unwrap_or((placements, &[]));
    for placement in high.iter().chain(low) {
        if let Some(gva) = placement.gva {
            tables::push(
                mappings,
                placement.region,
                gva,
                placement.gpa,
                placement.rights,
            );
        }
    }
}

/// Where `part` of the SVSM's region appears in the linear mapping.
fn linear(svsm: GpaRange, part: GpaRange) -> Result<GvaRange> {
    let all = GvaRange::from_bounds(layout::LINEAR, layout::LINEAR_END).ok_or(Error::Bug)?;
    let offset = part
        .start()
        .checked_offset_from(svsm.start())
        .ok_or(Error::Bug)?;
    layout::LINEAR
        .checked_add(offset)
        .and_then(|start| GvaRange::new(start, part.len_bytes()))
        .filter(|gva| all.contains_range(gva))
        .ok_or(refuse(Region::Svsm, Fault::Outside(Region::Linear)))
}

fn place_linear(
    part: Part,
    room: &mut Room<Gpa>,
    svsm: GpaRange,
    draft: &mut Draft,
) -> Result<Area> {
    let gpa = room.take(part.region, part.len_bytes)?;
    let gva = linear(svsm, gpa)?;
    draft.place(part, gpa, Some(gva));
    Area::new(part.region, gpa.start(), gva.start(), part.len_bytes)
}

fn plan_start(request: &Request<'_>, low: &Low, draft: &Draft) -> Result<Start> {
    let entry64: Gpa = address(Region::Stage2Entry, request.stage2.entry)?;
    let entry32 = request.stage2_start;
    for entry in [entry64, entry32] {
        let home = draft
            .placements
            .iter()
            .find(|placement| placement.gpa.contains(entry));
        match home {
            Some(home) if home.rights.is_executable() => {}
            Some(_) => return Err(refuse(Region::Stage2Entry, Fault::WrongRights)),
            None => return Err(refuse(Region::Stage2Entry, Fault::Missing)),
        }
    }
    Ok(Start {
        entry64: address(Region::Stage2Entry, entry64.as_u64())?,
        entry32,
        root: low.space.root(),
        stack_top: low.stack_top,
        handoff: low.handoff.gpa(),
    })
}

/// Checks what no single step saw.
fn check(plan: &Plan, request: &Request<'_>) -> Result<()> {
    let placements = || plan.placements.iter();
    let spans: Vec<_> = placements()
        .map(|placement| Span::of(placement.region, placement.gpa))
        .collect();
    check_disjoint(&spans)?;
    for space in [&plan.stage2, &plan.svsm] {
        let mapped = space.mappings.iter().filter_map(|mapping| {
            let len_bytes = mapping.pages.len_bytes(mapping.size)?;
            Some(Span::of(
                mapping.region,
                GvaRange::new(mapping.gva, len_bytes)?,
            ))
        });
        check_disjoint(&mapped.collect::<Vec<_>>())?;
    }
    plan.handoff.check()?;
    if let Some(memory) = request.memory {
        for placement in placements() {
            if !crate::params::is_memory(memory, placement.gpa) {
                return Err(refuse(placement.region, Fault::NoMemory));
            }
        }
    }
    Ok(())
}

fn unaligned(range: &GpaRange) -> Option<u64> {
    [range.start(), range.end()]
        .into_iter()
        .find(|bound| !bound.is_aligned(PageSize::Size4K))
        .map(Gpa::as_u64)
}

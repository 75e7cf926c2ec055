//! A plan from its two halves, and what each half places parts with.

use alloc::vec::Vec;

use svsm_platform::addr::{Address, Gpa, GpaRange, Gva, GvaRange};

use super::areas::Room;
use super::low::Low;
use super::{Content, Placement, Plan, Request, SegmentFacts, Start, high, low};
use crate::error::{Error, Fault, Result};
use crate::handoff::{Handoff, WindowArea};
use crate::layout;
use crate::region::{Area, Region, Rights, Span, check_disjoint};

pub(super) const fn refuse(region: Region, fault: Fault) -> Error {
    Error::Region { region, fault }
}

pub(super) fn address<A: Address>(region: Region, value: u64) -> Result<A> {
    A::new(value).ok_or(refuse(region, Fault::NoAddress { value }))
}

/// The plan as it grows.
pub(super) struct Draft {
    pub(super) placements: Vec<Placement>,
    areas: Room<Gva>,
}

/// What is placed but for its address.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) region: Region,
    pub(super) len_bytes: u64,
    pub(super) rights: Rights,
    pub(super) content: Content,
}

impl Part {
    pub(super) const fn new(
        region: Region,
        len_bytes: u64,
        rights: Rights,
        content: Content,
    ) -> Self {
        Self {
            region,
            len_bytes,
            rights,
            content,
        }
    }
}

impl Draft {
    pub(super) fn place(&mut self, part: Part, gpa: GpaRange, gva: Option<GvaRange>) {
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
    pub(super) fn place_area(&mut self, part: Part, room: &mut Room<Gpa>) -> Result<Area> {
        let gpa = room.take(part.region, part.len_bytes)?;
        self.place_area_at(part, gpa)
    }

    pub(super) fn place_area_at(&mut self, part: Part, gpa: GpaRange) -> Result<Area> {
        let gva = self.areas.take_guarded(part.region, part.len_bytes)?;
        self.place(part, gpa, Some(gva));
        Area::new(part.region, gpa.start(), gva.start(), part.len_bytes)
    }
}

pub(super) fn plan(request: &Request<'_>) -> Result<Plan> {
    let areas = GvaRange::from_bounds(layout::AREAS, layout::AREAS_END).ok_or(Error::Bug)?;
    let mut draft = Draft {
        placements: Vec::new(),
        areas: Room::new(Region::Areas, areas),
    };
    let low = low::plan(request, &mut draft)?;
    let high = high::plan(request, &mut draft)?;
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
        staged: high.staged,
        staged_svsm: high.staged_svsm,
        guest_level: request.guest_level,
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

pub(super) fn segment_part(region: Region, facts: &SegmentFacts) -> Result<Part> {
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
    Ok(Part::new(region, facts.mem_bytes, rights, content))
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

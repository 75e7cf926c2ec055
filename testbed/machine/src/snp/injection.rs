//! Interrupts of a guest under restricted injection: the host writes them into a page and rings with #HV (24593,
//! "Restricted injection"; 56421, "#HV doorbell page").
//!
//! Interrupts of the machine are intercepted while such a guest runs, and L0 ends them at the APIC at once; what the guest
//! says of their end concerns its doorbell alone. A level that is not restricted gets interrupts as the APIC has them.

use super::Snp;
use super::shared::{HostView, Resident, read_area};
use super::vmsa;
use crate::personality::Hardware;
use crate::phys::HostMemory;
use crate::vcpu::Vcpu;
use crate::vmcb::{Event as Injected, Intercept1};
use svsm_sim::doorbell::{Bell, Event, Ring, Vector};
use svsm_sim::ghcb::{Doorbell, Malformed, Reply};
use svsm_sim::rmp::Vmpl;
use svsm_sim::vmsa::SevFeatures;

/// The APIC's register for the end of an interrupt.
pub(super) const END_OF_INTERRUPT: u8 = 0x0b;

/// The exception with which the host rings.
const HV: u8 = 28;
/// Physical interrupts are masked by L0's flag and not by the guest's.
const MASKED_BY_HOST: u32 = 1 << 24;

/// Whether a save area with these features keeps interrupts of the machine from its virtual CPU.
pub(super) fn is_intercepted(features: SevFeatures) -> bool {
    features.intersects(SevFeatures::RESTRICTED_INJECTION | SevFeatures::ALTERNATE_INJECTION)
}

/// Intercepts interrupts, or does not, as the features of a save area want it.
pub(super) fn intercept(vcpu: &mut Vcpu<'_>, features: SevFeatures) {
    let control = &mut vcpu.vmcb.control;
    let bit = Intercept1::INTR.bits();
    if is_intercepted(features) {
        control.intercept1 |= bit;
        control.int_ctl |= MASKED_BY_HOST;
    } else {
        control.intercept1 &= !bit;
        control.int_ctl &= !MASKED_BY_HOST;
    }
}

/// Intercepts the next interrupt of a level that has them as the APIC does.
pub(super) const fn catch(vcpu: &mut Vcpu<'_>) {
    let control = &mut vcpu.vmcb.control;
    control.intercept1 |= Intercept1::INTR.bits();
    control.int_ctl |= MASKED_BY_HOST;
}

impl<'m, M: HostMemory> Snp<'_, 'm, M> {
    /// Whether the virtual CPU that is loaded takes no vectors from its host.
    pub(super) fn is_restricted(&self) -> bool {
        self.loaded.is_some_and(|loaded| {
            let features = loaded.facts.features;
            features.contains(SevFeatures::RESTRICTED_INJECTION)
        })
    }

    /// Whether the virtual CPU that is loaded takes interrupts from its save area, where a higher level puts them.
    pub(super) fn is_alternate(&self) -> bool {
        self.loaded.is_some_and(|loaded| {
            let features = loaded.facts.features;
            features.contains(SevFeatures::ALTERNATE_INJECTION)
        })
    }

    /// Notes a vector for VMPL0 of this CPU: at its doorbell, if it has one, or as an interrupt.
    pub(super) fn post_to_highest(&self, vector: u8) {
        self.with(self.cpu, Vmpl::VMPL0, |resident| {
            match Vector::new(vector) {
                Some(vector) if resident.bell.is_some() => {
                    resident.waiting.post(Event::Interrupt(vector));
                }
                _ => resident.pending = Some(vector),
            }
        });
    }

    /// Keeps a vector for a lower level of this CPU that takes interrupts as the APIC has them, which is then that level's. Says
    /// whether there is one.
    pub(super) fn hold(&self, vector: u8) -> bool {
        let mut owned = self.shared.state.lock();
        let Some(seat) = owned.seats.get_mut(self.cpu) else {
            return false;
        };
        for resident in seat.residents.iter_mut().skip(1).flatten() {
            let takes = read_area(&self.shared.map, resident.gpa, &self.memory)
                .is_ok_and(|area| !is_intercepted(vmsa::facts(&area).features));
            if takes {
                resident.held.add(vector);
                return true;
            }
        }
        false
    }

    /// Does something with the virtual CPU of a level of a CPU, if there is one.
    fn with<T>(
        &self,
        cpu: usize,
        level: Vmpl,
        action: impl FnOnce(&mut Resident) -> T,
    ) -> Option<T> {
        let mut owned = self.shared.state.lock();
        owned.seats.get_mut(cpu)?.resident_mut(level).map(action)
    }

    fn with_loaded<T>(&self, action: impl FnOnce(&mut Resident) -> T) -> Option<T> {
        self.with(self.cpu, self.level()?, action)
    }

    /// Notes a vector for the virtual CPU that is loaded. Vectors that a doorbell cannot hold are lost, as they would be in
    /// an APIC.
    pub(super) fn post_vector(&self, vector: u8) {
        if let Some(level) = self.level() {
            self.post_at(self.cpu, level, vector);
        }
    }

    /// Notes a vector for the same level of another CPU.
    pub(super) fn post_to(&self, cpu: usize, vector: u8) {
        if let Some(level) = self.level() {
            self.post_at(cpu, level, vector);
        }
    }

    fn post_at(&self, cpu: usize, level: Vmpl, vector: u8) {
        if let Some(vector) = Vector::new(vector) {
            self.with(cpu, level, |resident| {
                resident.waiting.post(Event::Interrupt(vector));
            });
        }
    }

    /// Notes an NMI, if the virtual CPU that is loaded gets it by its doorbell.
    pub(super) fn post_nmi(&self) -> bool {
        self.is_restricted() && self.with_loaded(|r| r.waiting.post(Event::Nmi)).is_some()
    }

    /// Whether events wait that are not on the page yet.
    pub(super) fn has_posted(&self) -> bool {
        self.is_restricted() && self.with_loaded(|r| r.waiting.has_waiting()) == Some(true)
    }

    /// The guest is done with the vector that it took.
    pub(super) fn end_of_interrupt(&self) {
        self.with_loaded(|resident| resident.waiting.end_of_interrupt());
    }

    /// What the guest wants of its doorbell page.
    pub(super) fn doorbell(&self, what: Doorbell) -> Reply {
        let refused = Reply::malformed(Malformed::InvalidInput);
        if what == Doorbell::Preferred {
            return Reply::with_info2(u64::MAX);
        }
        if !self.is_restricted() {
            return refused;
        }
        let answer = self.with_loaded(|resident| match what {
            Doorbell::Set(gpa) => {
                resident.bell = Some(gpa);
                gpa
            }
            Doorbell::Clear => {
                resident.bell = None;
                0
            }
            Doorbell::Query | Doorbell::Preferred => resident.bell.unwrap_or(u64::MAX),
        });
        answer.map_or(refused, Reply::with_info2)
    }

    /// Loads VMPL0 instead of a lower level, if something waits for it: the host may do that whenever it likes.
    pub(super) fn make_way(&mut self, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) {
        if self.level().is_none_or(|level| level == Vmpl::VMPL0) {
            return;
        }
        let waits = self.with(self.cpu, Vmpl::VMPL0, |resident| {
            resident.bell.is_some() && resident.waiting.has_waiting()
        });
        if waits == Some(true) {
            let shared = self.shared;
            let mut owned = shared.state.lock();
            if self.can_load(Vmpl::VMPL0, &owned) {
                self.unload(vcpu, &mut owned, hardware);
                self.load(Vmpl::VMPL0, vcpu, &mut owned, hardware);
            }
        }
    }

    /// Puts what waits on the page, and rings if the guest must look.
    pub(super) fn ring(&mut self, vcpu: &mut Vcpu<'_>) {
        // An event that is to be delivered again comes first.
        if !self.is_restricted() || vcpu.vmcb.control.event != 0 {
            return;
        }
        let (Some(level), shared) = (self.level(), self.shared) else {
            return;
        };
        let mut owned = shared.state.lock();
        let mut resident = match owned.seats.get_mut(self.cpu) {
            Some(seat) => match seat.resident_mut(level) {
                Some(resident) if resident.bell.is_some() => resident.clone(),
                _ => return,
            },
            None => return,
        };
        let mut page = Page {
            view: HostView {
                map: &shared.map,
                rmp: &owned.rmp,
                memory: &mut self.memory,
            },
            gpa: resident.bell.unwrap_or_default(),
        };
        // A page that was made private keeps its guest's interrupts waiting.
        let ring = resident.waiting.present(&mut page);
        if let Some(seat) = owned.seats.get_mut(self.cpu) {
            seat.place(level, Some(resident));
        }
        if ring == Ok(Ring::Now) {
            vcpu.inject(Injected::Exception(HV));
        }
    }
}

/// The page, as the host sees it. The guest does not run on this CPU; on others it has no business here.
struct Page<'a, 'm, M> {
    view: HostView<'a, 'm, M>,
    gpa: u64,
}

/// The page is not shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NotShared;

impl<M: HostMemory> Bell for Page<'_, '_, M> {
    type Error = NotShared;

    fn load(&mut self, offset: usize) -> Result<u8, NotShared> {
        let mut byte = [0];
        if self
            .view
            .read(self.gpa.wrapping_add(offset as u64), &mut byte)
        {
            let [byte] = byte;
            Ok(byte)
        } else {
            Err(NotShared)
        }
    }

    fn swap(&mut self, offset: usize, value: u8) -> Result<u8, NotShared> {
        let before = self.load(offset)?;
        if self
            .view
            .write(self.gpa.wrapping_add(offset as u64), &[value])
        {
            Ok(before)
        } else {
            Err(NotShared)
        }
    }

    fn set(&mut self, offset: usize, bits: u8) -> Result<u8, NotShared> {
        let before = self.load(offset)?;
        self.swap(offset, before | bits)
    }
}

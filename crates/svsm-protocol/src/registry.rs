//! Which virtual CPUs the guest has, and which of its pages they take.

use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::irq::IrqCtl;
use svsm_platform::level::Vmpl;
use svsm_platform::lock::{ReadGuard, RwLock, WriteGuard};

/// A virtual CPU of the guest: the registers of one processor at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Vcpu {
    /// The APIC id of the processor.
    pub processor: u32,
    /// The level.
    pub level: Vmpl,
    /// The page of its registers.
    pub save_area: Gpa,
    /// The page through which it calls.
    pub calling_area: Gpa,
    /// Whether the guest started with it. Such a one is never deleted.
    pub is_first: bool,
}

/// All virtual CPUs of a guest, for all processors.
///
/// Validation only reads it, so that many processors validate at once; whatever makes a page a save area or a calling area, or
/// stops it being one, writes. So no page becomes one while it is being validated or invalidated.
#[derive(Debug)]
pub struct Registry<'m, I: IrqCtl> {
    vcpus: RwLock<Vcpus<'m>, I>,
    processors: &'m [u32],
    features: u64,
}

impl<'m, I: IrqCtl> Registry<'m, I> {
    /// Room for as many virtual CPUs as `slots` has, of a guest with `processors` by APIC id, whose save areas all have the same
    /// `features` (SEV_FEATURES). A guest replaces a virtual CPU by a new one before it deletes the old: lend two slots for
    /// each processor.
    #[must_use]
    pub fn new(
        slots: &'m mut [Option<Vcpu>],
        processors: &'m [u32],
        features: u64,
        irq: I,
    ) -> Self {
        slots.fill(None);
        Self {
            vcpus: RwLock::new(Vcpus { slots }, irq),
            processors,
            features,
        }
    }

    /// Adds the virtual CPU with which the guest starts.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add_first(&self, vcpu: Vcpu) -> Result<(), Full> {
        let first = Vcpu {
            is_first: true,
            ..vcpu
        };
        self.write().add(first)
    }

    /// The virtual CPU of a processor, at any level: the one that was created last.
    #[must_use]
    pub fn of_processor(&self, processor: u32) -> Option<Vcpu> {
        self.read().of_processor(processor)
    }

    /// A virtual CPU of a processor, counted from the one that was created last.
    ///
    /// A guest may create another for the processor that it runs on, and still call through the old one, which the host goes on
    /// to run: whoever looks for a call looks at all of them.
    #[must_use]
    pub fn nth_of_processor(&self, processor: u32, n: usize) -> Option<Vcpu> {
        let vcpus = self.read();
        let mut own = vcpus
            .iter()
            .rev()
            .filter(|vcpu| vcpu.processor == processor);
        own.nth(n).copied()
    }

    /// Whether the machine has that processor.
    #[must_use]
    pub fn has_processor(&self, processor: u32) -> bool {
        self.processors.contains(&processor)
    }

    /// Whether a virtual CPU has its registers in that page.
    #[must_use]
    pub fn has_save_area(&self, page: Gpa) -> bool {
        self.read().with_save_area(page).is_some()
    }

    /// SEV_FEATURES of all save areas of the guest.
    #[must_use]
    pub const fn features(&self) -> u64 {
        self.features
    }

    pub(crate) fn read(&self) -> ReadGuard<'_, Vcpus<'m>, I> {
        self.vcpus.read()
    }

    pub(crate) fn write(&self) -> WriteGuard<'_, Vcpus<'m>, I> {
        self.vcpus.write()
    }
}

/// There is no slot left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("there is no room for another virtual CPU")
    }
}

impl core::error::Error for Full {}

/// The virtual CPUs, oldest first.
#[derive(Debug)]
pub(crate) struct Vcpus<'m> {
    slots: &'m mut [Option<Vcpu>],
}

impl Vcpus<'_> {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Vcpu> {
        self.slots.iter().flatten()
    }

    pub(crate) fn of_processor(&self, processor: u32) -> Option<Vcpu> {
        let mut vcpus = self.iter();
        vcpus.rfind(|vcpu| vcpu.processor == processor).copied()
    }

    pub(crate) fn with_save_area(&self, area: Gpa) -> Option<Vcpu> {
        self.iter().find(|vcpu| vcpu.save_area == area).copied()
    }

    /// Whether a page of that size holds somebody's registers.
    pub(crate) fn holds_save_area(&self, page: Gpa, size: PageSize) -> bool {
        let range = GpaRange::page_of(page, size);
        self.iter()
            .any(|vcpu| range.is_none_or(|range| range.contains(vcpu.save_area)))
    }

    pub(crate) fn has_save_area_in(&self, range: GpaRange) -> bool {
        self.iter().any(|vcpu| range.contains(vcpu.save_area))
    }

    /// Whether a page of 4 KiB is a calling area of another virtual CPU than that with the save area `own`.
    pub(crate) fn is_calling_area_of_others(&self, page: Gpa, own: Option<Gpa>) -> bool {
        self.iter()
            .any(|vcpu| vcpu.calling_area == page && Some(vcpu.save_area) != own)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.iter().any(Option::is_none)
    }

    pub(crate) fn add(&mut self, vcpu: Vcpu) -> Result<(), Full> {
        // Order is age, so gaps are closed first.
        let mut kept = 0;
        for index in 0..self.slots.len() {
            if self.slots.get(index).is_some_and(Option::is_some) {
                self.slots.swap(kept, index);
                kept += 1;
            }
        }
        let slot = self.slots.get_mut(kept).ok_or(Full)?;
        *slot = Some(vcpu);
        Ok(())
    }

    pub(crate) fn remove(&mut self, save_area: Gpa) {
        for slot in self.slots.iter_mut() {
            if slot.is_some_and(|vcpu| vcpu.save_area == save_area) {
                *slot = None;
            }
        }
    }

    pub(crate) fn move_calling_area(&mut self, save_area: Gpa, to: Gpa) {
        let mut vcpus = self.slots.iter_mut().flatten();
        if let Some(vcpu) = vcpus.find(|vcpu| vcpu.save_area == save_area) {
            vcpu.calling_area = to;
        }
    }
}

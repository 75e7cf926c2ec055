//! Calls of two processors at the same time, in all interleavings of their locks and page states.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p svsm-protocol --test loom`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::irq::NoIrq;
use svsm_platform::level::Vmpl;
use svsm_platform::seam::{GuestMap, Owner, Rights};
use svsm_protocol::seam::{GuestMemory, GuestPages, PageError, SaveAreas, Unreachable};
use svsm_protocol::{Core, Dispatcher, GuestBuffers, Protocol, Registers, Registry, Vcpu};

/// The page that both want.
const PAGE: u64 = 0x8000;
const CALLING: u64 = 0x9000;
/// A list that validates it.
const LIST: u64 = 0x5000;
const FEATURES: u64 = 1;

const PVALIDATE: u64 = 1;
const CREATE: u64 = 2;
const SUCCESS: u64 = 0;

fn gpa(at: u64) -> Gpa {
    Gpa::new(at).unwrap()
}

/// What the hardware knows of the page.
struct Page {
    is_valid: AtomicBool,
    /// Whether the guest may write it.
    is_guests: AtomicBool,
    is_save_area: AtomicBool,
}

/// The machine as one processor uses it.
#[derive(Clone)]
struct Machine(Arc<Page>);

impl Machine {
    fn new(is_valid: bool) -> Self {
        Self(Arc::new(Page {
            is_valid: AtomicBool::new(is_valid),
            is_guests: AtomicBool::new(is_valid),
            is_save_area: AtomicBool::new(false),
        }))
    }

    fn is_save_area(&self) -> bool {
        self.0.is_save_area.load(Ordering::SeqCst)
    }
}

impl GuestMemory for Machine {
    fn read(&mut self, at: Gpa, to: &mut [u8]) -> Result<(), Unreachable> {
        // Registers of level 2 with EFER.SVME, which are also a list of one page to validate.
        let byte = |at: u64| match at {
            LIST => 1,
            0x5008 => 1 << 2,
            0x5009 => (PAGE >> 8).to_le_bytes()[0],
            _ if at == PAGE + 0xca => 2,
            _ if at == PAGE + 0xd1 => 0x10,
            _ if at == PAGE + 0x3b0 => FEATURES.to_le_bytes()[0],
            _ => 0,
        };
        for (place, offset) in to.iter_mut().zip(0..) {
            *place = byte(at.as_u64() + offset);
        }
        Ok(())
    }

    fn write(&mut self, at: Gpa, _: &[u8]) -> Result<(), Unreachable> {
        let is_page = at.as_u64() & !0xfff == PAGE;
        assert!(!is_page || !self.is_save_area(), "registers were written");
        Ok(())
    }

    fn clear(&mut self, page: Gpa, _: PageSize) -> Result<(), Unreachable> {
        self.write(page, &[])
    }
}

impl GuestPages for Machine {
    fn validate(&mut self, page: Gpa, _: PageSize, valid: bool) -> Result<(), PageError> {
        assert_eq!(page, gpa(PAGE));
        assert!(!self.is_save_area(), "registers were validated");
        match self.0.is_valid.swap(valid, Ordering::SeqCst) == valid {
            true => Err(PageError::Unchanged),
            false => Ok(()),
        }
    }

    fn adjust(
        &mut self,
        page: Gpa,
        _: PageSize,
        level: Vmpl,
        rights: Rights,
        is_save_area: bool,
    ) -> Result<(), PageError> {
        if page != gpa(PAGE) || level != Vmpl::Vmpl2 {
            return Ok(());
        }
        if !self.0.is_valid.load(Ordering::SeqCst) {
            return Err(PageError::Faulted);
        }
        self.0
            .is_guests
            .store(rights.contains(Rights::WRITE), Ordering::SeqCst);
        self.0.is_save_area.store(is_save_area, Ordering::SeqCst);
        Ok(())
    }

    fn flush(&mut self) {}
}

impl SaveAreas for Machine {
    fn stop(&mut self, _: Gpa) -> Result<bool, Unreachable> {
        Ok(true)
    }

    fn resume(&mut self, _: Gpa) -> Result<(), Unreachable> {
        Ok(())
    }
}

struct Map;

impl GuestMap for Map {
    fn owner(&self, range: GpaRange) -> Option<Owner> {
        (range.end().as_u64() <= 0x10_0000).then_some(Owner::Guest)
    }
}

type Vcpus = Registry<'static, NoIrq>;

fn registry() -> Arc<Vcpus> {
    let slots = Box::leak(Box::new([None; 3]));
    let registry = Registry::new(slots, &[0, 1, 2], FEATURES, NoIrq);
    for processor in [0, 1] {
        registry
            .add_first(Vcpu {
                processor,
                level: Vmpl::Vmpl2,
                save_area: gpa(0x10_0000 + u64::from(processor) * 0x1000),
                calling_area: gpa(0x1000 + u64::from(processor) * 0x1000),
                is_first: true,
            })
            .unwrap();
    }
    Arc::new(registry)
}

fn call(registry: &Vcpus, machine: Machine, processor: u32, call: u64, arguments: [u64; 3]) -> u64 {
    let caller = registry.of_processor(processor).unwrap();
    let mut core = Core::new(registry, Map, machine, caller);
    let [rcx, rdx, r8] = arguments;
    let mut registers = Registers {
        rax: call,
        rcx,
        rdx,
        r8,
        r9: 0,
    };
    Dispatcher::new([&mut core as &mut dyn Protocol])
        .unwrap()
        .dispatch(&mut registers);
    registers.rax
}

/// Registers that the guest could write would give it any level.
fn registers_are_nobodys(registry: &Vcpus, machine: &Machine) {
    if registry.has_save_area(gpa(PAGE)) {
        assert!(machine.is_save_area());
        assert!(!machine.0.is_guests.load(Ordering::SeqCst));
    } else {
        assert!(!machine.is_save_area());
    }
}

#[test]
fn no_page_becomes_registers_while_it_is_validated() {
    for is_valid in [false, true] {
        loom::model(move || {
            let (registry, machine) = (registry(), Machine::new(is_valid));
            let other = (registry.clone(), machine.clone());
            let thread = thread::spawn(move || {
                let (registry, machine) = other;
                call(&registry, machine, 1, CREATE, [PAGE, CALLING, 2])
            });
            call(&registry, machine.clone(), 0, PVALIDATE, [LIST, 0, 0]);
            let created = thread.join().unwrap();
            assert_eq!(created == SUCCESS, registry.has_save_area(gpa(PAGE)));
            registers_are_nobodys(&registry, &machine);
        });
    }
}

#[test]
fn nothing_is_written_into_registers() {
    loom::model(|| {
        let (registry, machine) = (registry(), Machine::new(true));
        let other = (registry.clone(), machine.clone());
        let thread = thread::spawn(move || {
            let (registry, machine) = other;
            call(&registry, machine, 1, CREATE, [PAGE, CALLING, 2])
        });
        let mut buffers = GuestBuffers::new(&registry, Map, machine.clone());
        // Two pages: the one that is wanted is the second.
        let _ = buffers.write(PAGE - 8, &[7; 16]);
        assert_eq!(thread.join().unwrap(), SUCCESS);
        registers_are_nobodys(&registry, &machine);
    });
}

#[test]
fn a_page_becomes_registers_once() {
    loom::model(|| {
        let (registry, machine) = (registry(), Machine::new(true));
        let other = (registry.clone(), machine.clone());
        let thread = thread::spawn(move || {
            let (registry, machine) = other;
            call(&registry, machine, 1, CREATE, [PAGE, CALLING, 2])
        });
        let own = call(&registry, machine.clone(), 0, CREATE, [PAGE, CALLING, 2]);
        let other = thread.join().unwrap();
        assert_eq!(
            [own, other].iter().filter(|code| **code == SUCCESS).count(),
            1
        );
        registers_are_nobodys(&registry, &machine);
    });
}

//! The platform below us: an unprotected PC, or SEV-SNP at VMPL0. What differs between platforms is chosen here.

pub(crate) mod snp; // SEV-SNP

use core::convert::Infallible;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use svsm_log::Sink;
use svsm_platform::addr::GpaRange;
use svsm_platform::console::Uart16550;
use svsm_platform::cpu::cpuid::{Cpuid, Processor, Registers};
use svsm_platform::cpu::msr::Msr;
use svsm_platform::native::{self, Power, SleepControl};
use svsm_platform::percpu::CpuIndex;
use svsm_platform::seam::{MsrCall, PortCall, Reason, Terminate, Width};
use svsm_platform::snp::Error as SnpError;
use svsm_stage2::handoff::{Handoff, Platform};

use crate::evidence;

/// The port of the power-management register, from the hand-off. Read by a panic on any CPU, so it is an atomic.
static POWER_PORT: AtomicU16 = AtomicU16::new(0);
/// The port of the console, from the hand-off, for the same reason; 0 if there is none.
static CONSOLE_PORT: AtomicU16 = AtomicU16::new(0);
/// Whether SEV-SNP protects the machine, for the same reason.
static SNP: AtomicBool = AtomicBool::new(false);
/// Whether the host may raise nothing but #HV.
static RESTRICTED: AtomicBool = AtomicBool::new(false);
/// Whether there is a guest, or nobody knows yet.
static HAS_GUEST: AtomicBool = AtomicBool::new(true);
/// SLP_TYP of S5 on QEMU's PC, as its firmware tables say.
const SOFT_OFF: u8 = 0;

/// Takes from the hand-off what speaking and ending need.
pub(crate) fn know(handoff: &Handoff) {
    POWER_PORT.store(handoff.power_port.unwrap_or(0), Ordering::Relaxed);
    CONSOLE_PORT.store(handoff.console_port.unwrap_or(0), Ordering::Relaxed);
    SNP.store(handoff.platform == Platform::Snp, Ordering::Relaxed);
}

/// Whether SEV-SNP protects the machine.
pub(crate) fn is_snp() -> bool {
    SNP.load(Ordering::Relaxed)
}

/// Whether interrupts come. At VMPL0 of SEV-SNP the host could inject any, so none are taken: no ticks, no wake-ups. Under
/// restricted injection they come by the doorbell; but a guest has the local APIC to itself.
pub(crate) fn takes_interrupts() -> bool {
    !is_snp() || (takes_bells() && !HAS_GUEST.load(Ordering::Relaxed))
}

/// Whether the host may raise nothing but #HV.
pub(crate) fn takes_bells() -> bool {
    RESTRICTED.load(Ordering::Relaxed)
}

/// Notes whether there will be a guest. Before that nobody takes interrupts.
pub(crate) fn expect_guest(is_there: bool) {
    HAS_GUEST.store(is_there, Ordering::Relaxed);
}

/// Gives the host the page with which it rings for this CPU, if it may do nothing else.
///
/// # Errors
/// There is no memory for it, or the host does not take it.
pub(crate) fn hang_doorbell() -> Result<(), snp::Unshared> {
    if takes_bells() {
        snp::hang_doorbell()
    } else {
        Ok(())
    }
}

/// Makes the host answer, and memory usable. Answers with the free memory that is left.
///
/// # Errors
/// What is missing, or what the host did not do.
pub(crate) fn begin(handoff: &Handoff) -> Result<GpaRange, Failure> {
    if is_snp() {
        snp::begin(handoff)
    } else {
        Ok(handoff.heap.gpa_range())
    }
}

/// Makes this CPU, which has just started, able to talk to the host. Answers whether it is.
pub(crate) fn arrive(cpu: CpuIndex) -> bool {
    !is_snp() || (snp::arrive(cpu).is_ok() && hang_doorbell().is_ok())
}

/// Why a machine is none that the SVSM can run on.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum Failure {
    /// The host, or the processor.
    Snp(SnpError),
    /// Features of the processor or of the host.
    Features(Reason),
    /// Parts of the image are missing.
    Image,
}

impl Failure {
    /// What the host is told.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Snp(SnpError::ProtocolVersion) => Reason::ProtocolVersion,
            Self::Snp(_) => Reason::HostViolation,
            Self::Features(reason) => reason,
            Self::Image => Reason::BadImage,
        }
    }
}

impl From<SnpError> for Failure {
    fn from(error: SnpError) -> Self {
        Self::Snp(error)
    }
}

/// The way to ports and registers from the CPU that asks: by instructions, or by the CPU's GHCB page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host;

/// Why the host was not asked, or did not answer.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum HostError {
    /// This CPU cannot speak yet.
    Silent,
    /// The host did not do it.
    Snp(SnpError),
}

impl Host {
    fn native() -> native::Host<'static> {
        // SAFETY: this is ring 0. The firmware reaches the serial port, the power-management register, the reset port, the
        // timer that calibrates another, selector and data of QEMU's firmware configuration (never its transfers, at 0x514), and
        // the local APIC: none of them changes memory.
        #[expect(
            unsafe_code,
            reason = "vouches for the ports and registers that this firmware uses"
        )]
        unsafe {
            native::Host::assume_harmless(&[])
        }
    }

    fn ask<T>(
        self,
        native: impl FnOnce(&mut native::Host<'static>) -> Result<T, Infallible>,
        snp: impl FnOnce(&mut snp::Ghcb) -> Result<T, SnpError>,
    ) -> Result<T, HostError> {
        if is_snp() {
            let mut ghcb = snp::ghcb().ok_or(HostError::Silent)?;
            return snp(&mut ghcb).map_err(HostError::Snp);
        }
        match native(&mut Self::native()) {
            Ok(answer) => Ok(answer),
            Err(never) => match never {},
        }
    }
}

impl PortCall for Host {
    type Error = HostError;

    fn port_read(&mut self, port: u16, width: Width) -> Result<u32, HostError> {
        self.ask(
            |host| host.port_read(port, width),
            |host| host.port_read(port, width),
        )
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), HostError> {
        self.ask(
            |host| host.port_write(port, width, value),
            |host| host.port_write(port, width, value),
        )
    }

    fn port_read_bytes(&mut self, port: u16, bytes: &mut [u8]) -> Result<(), HostError> {
        if is_snp() {
            let mut ghcb = snp::ghcb().ok_or(HostError::Silent)?;
            return ghcb.port_read_bytes(port, bytes).map_err(HostError::Snp);
        }
        match Self::native().port_read_bytes(port, bytes) {
            Ok(()) => Ok(()),
            Err(never) => match never {},
        }
    }

    fn port_write_bytes(&mut self, port: u16, bytes: &[u8]) -> Result<(), HostError> {
        self.ask(
            |host| host.port_write_bytes(port, bytes),
            |host| host.port_write_bytes(port, bytes),
        )
    }
}

impl MsrCall for Host {
    type Error = HostError;

    fn msr_read(&mut self, msr: Msr) -> Result<u64, HostError> {
        self.ask(|host| host.msr_read(msr), |host| host.msr_read(msr))
    }

    fn msr_write(&mut self, msr: Msr, value: u64) -> Result<(), HostError> {
        self.ask(
            |host| host.msr_write(msr, value),
            |host| host.msr_write(msr, value),
        )
    }
}

/// What the processor can do, from a source that the host cannot change where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source;

impl Cpuid for Source {
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers {
        if is_snp() {
            snp::cpuid().map_or_else(Registers::default, |page| page.raw(leaf, subleaf))
        } else {
            Processor.raw(leaf, subleaf)
        }
    }
}

/// What ends the machine.
#[derive(Debug)]
pub(crate) struct Terminator(Power<Host>);

/// What ends the machine.
pub(crate) fn terminator() -> Terminator {
    let port = POWER_PORT.load(Ordering::Relaxed);
    let sleep = SleepControl {
        port,
        soft_off: SOFT_OFF,
    };
    Terminator(Power::new(Host, sleep))
}

impl Terminate for Terminator {
    fn power_off(&mut self) -> ! {
        if is_snp() {
            // A host that does not switch off is told to end in another way.
            let _ = self.0.request_power_off();
            snp::terminator().power_off()
        }
        self.0.power_off()
    }

    fn fatal(&mut self, reason: Reason) -> ! {
        if is_snp() {
            evidence::forget();
            snp::terminator().fatal(reason)
        }
        self.0.fatal(reason)
    }
}

/// The serial port, if there is one.
#[derive(Debug)]
pub(crate) struct Console(Option<Uart16550<Host>>);

impl Console {
    /// What is written vanishes.
    pub(crate) const NONE: Self = Self(None);

    /// The serial port, set up; none where nothing answers.
    pub(crate) fn open() -> Self {
        let port = CONSOLE_PORT.load(Ordering::Relaxed);
        let mut uart = Uart16550::new(Host, port);
        let present = port != 0 && matches!(uart.init(), Ok(true));
        Self(present.then_some(uart))
    }
}

/// The other end takes too little, too late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped;

impl Sink for Console {
    type Error = Dropped;

    fn write(&mut self, bytes: &[u8]) -> Result<(), Dropped> {
        let Some(uart) = &mut self.0 else {
            return Ok(());
        };
        let before = uart.dropped();
        uart.send(bytes);
        if uart.dropped() == before {
            Ok(())
        } else {
            Err(Dropped)
        }
    }
}

//! The CPU of a debugger: it runs no guest, and talks the remote protocol over a serial port of its own.
#![expect(unsafe_code, reason = "access to the guest's memory")]

use super::console::{Console, exit};
use super::cpu::Local;
use super::direct::DirectMap;
use super::insn::{self, port_in, port_out};
use super::machine::Site;
use super::{fatal, trap};
use crate::board::{Board, Mail};
use crate::debug::memory::View;
use crate::debug::points::{Access, Hit};
use crate::debug::target::{Debugged, Ring};
use crate::debug::{Debugger, Order, Why};
use crate::devices::DEBUGGER as PORT;
use crate::ending::Ending;
use crate::icr;
use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine as Machine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason as Told};
use gdbstub::target::ext::breakpoints::WatchKind;

/// How often this CPU looks at its port while nothing comes: each millisecond.
const TICKS: u32 = 1_000_000;
const VECTOR: u8 = 0x40;
/// How long the guest's CPUs may take to come. One in an NMI's handler comes only after that.
const PATIENCE_TICKS: u64 = 5_000_000_000;
/// How often the port is looked at again before this CPU sleeps: another byte may follow at once.
const AGAIN: u32 = 2000;
/// The longest packet.
const PACKET: usize = 4096;
/// Begins a packet.
const DOLLAR: u8 = b'$';

type Target = Debugged<'static, DirectMap, Bell>;

/// Serves debuggers for ever, one after the other.
pub(super) fn watch(site: &'static Site) -> ! {
    let Some(debugger) = &site.debugger else {
        insn::stop()
    };
    let mut port = Port::new();
    insn::apic_timer_on(VECTOR, TICKS);
    debugger.set_up();
    // Who asks before the guest's CPUs have come would find none: there is no hurry, and the port keeps what was sent.
    while !debugger.all_wait() {
        doze();
    }
    let mut buffer = [0; PACKET];
    let mut first = None;
    loop {
        // SAFETY: the map is in place, and only guest memory is reached through it.
        let memory = unsafe { DirectMap::new() };
        let view = View {
            map: &site.map,
            snp: site.snp.as_ref(),
            memory,
        };
        let mut target = Debugged::new(debugger, view, Bell(&site.board));
        let mut session = Session {
            site,
            debugger,
            target: &mut target,
        };
        first = session.serve(first, &mut port, &mut buffer);
    }
}

/// The guest's CPUs, to ring for.
#[derive(Clone, Copy, Debug)]
struct Bell(&'static Board);

impl Ring for Bell {
    fn ring(&self, cpu: usize) {
        if let Some(slot) = self.0.slot(cpu) {
            slot.post(Mail::default(), |id| insn::send(icr::nmi_to(id)));
        }
    }
}

/// A session with one debugger.
struct Session<'a> {
    site: &'static Site,
    debugger: &'static Debugger<'static>,
    target: &'a mut Target,
}

impl Session<'_> {
    /// Serves a debugger until it goes, and returns the first byte of the next one.
    fn serve(&mut self, first: Option<u8>, port: &mut Port, buffer: &mut [u8]) -> Option<u8> {
        let stub = GdbStub::builder(*port).with_packet_buffer(buffer);
        let machine = stub.build().ok()?.run_state_machine(self.target);
        let mut machine = machine.ok()?;
        let mut pending = first;
        let mut runs = false;
        loop {
            let next = match machine {
                Machine::Idle(mut idle) => {
                    runs = false;
                    let byte = pending.take().unwrap_or_else(|| idle.borrow_conn().wait());
                    idle.incoming_data(self.target, byte)
                }
                Machine::Running(mut running) => {
                    runs = true;
                    if let Some(orderly) = self.debugger.end() {
                        let told = if orderly {
                            Told::Exited(0)
                        } else {
                            Told::Terminated(Signal::SIGABRT)
                        };
                        let _ = running.report_stop(self.target, told);
                        self.debugger.set_told();
                        insn::stop()
                    }
                    if let Some(stop) = self.debugger.take_stop() {
                        self.gather();
                        self.debugger.show(stop.cpu);
                        running.report_stop(self.target, told(stop.cpu, stop.why))
                    } else {
                        match running.borrow_conn().read() {
                            // Nobody sends a command while the guest runs: this is another debugger.
                            Some(DOLLAR) => {
                                self.stop_all();
                                return Some(DOLLAR);
                            }
                            Some(byte) => running.incoming_data(self.target, byte),
                            None => {
                                doze();
                                Ok(running.into())
                            }
                        }
                    }
                }
                Machine::CtrlCInterrupt(interrupted) => {
                    // What stands already is not interrupted.
                    let why = runs.then(|| {
                        self.stop_all();
                        Told::SignalWithThread {
                            tid: Target::thread(self.first_alive()),
                            signal: Signal::SIGINT,
                        }
                    });
                    interrupted.interrupt_handled(self.target, why)
                }
                Machine::Disconnected(gone) => {
                    if gone.get_reason() == DisconnectReason::Kill {
                        self.end();
                    }
                    drop(gone);
                    return Some(self.wait_for_another(port));
                }
            };
            match next {
                Ok(next) => machine = next,
                // A packet that makes no sense: what follows is read as if from somebody else.
                Err(_) => {
                    self.stop_all();
                    return None;
                }
            }
        }
    }

    /// Stops all of the guest's CPUs.
    fn stop_all(&self) {
        self.debugger.stop_all();
        for cpu in 0..self.debugger.cpus() {
            Bell(&self.site.board).ring(cpu);
        }
        self.gather();
    }

    /// Waits until all of the guest's CPUs sit.
    fn gather(&self) {
        let start = insn::rdtsc();
        while !self.debugger.all_wait() && insn::rdtsc().wrapping_sub(start) < PATIENCE_TICKS {
            core::hint::spin_loop();
        }
        // Of stops that came together, one is told; what brought the others comes again.
        let _ = self.debugger.take_stop();
    }

    /// A CPU that has something to run.
    fn first_alive(&self) -> usize {
        let alive = |cpu: &usize| self.debugger.look(*cpu, |frozen| frozen.alive) == Some(true);
        (0..self.debugger.cpus()).find(alive).unwrap_or_default()
    }

    /// The debugger went: the guest goes on alone, until another one comes.
    fn wait_for_another(&self, port: &mut Port) -> u8 {
        self.debugger
            .change_points(|points| *points = crate::debug::points::Points::NONE);
        self.debugger.set_attached(false);
        for cpu in 0..self.debugger.cpus() {
            self.debugger.give(cpu, Order::Go);
            Bell(&self.site.board).ring(cpu);
        }
        let byte = loop {
            let byte = port.wait();
            if byte == DOLLAR {
                break byte;
            }
        };
        self.debugger.set_attached(true);
        self.stop_all();
        byte
    }

    /// The debugger wants the guest dead.
    fn end(&self) -> ! {
        if self.site.board.claim_end() {
            for slot in self.site.board.slots() {
                slot.post(Mail::stop(), |id| insn::send(icr::nmi_to(id)));
            }
            fatal::verdict(&mut Console::new(), Ending::Button, Local::current());
            exit(Ending::Button)
        }
        insn::stop()
    }
}

/// A stop, as the protocol has it.
fn told(cpu: usize, why: Why) -> Told<u64> {
    let tid = Target::thread(cpu);
    match why {
        Why::Hit(Hit(point)) => match point.access {
            Access::Execute => Told::HwBreak(tid),
            Access::Write => Told::Watch {
                tid,
                kind: WatchKind::Write,
                addr: point.at,
            },
            Access::ReadOrWrite => Told::Watch {
                tid,
                kind: WatchKind::ReadWrite,
                addr: point.at,
            },
        },
        Why::Step => Told::SignalWithThread {
            tid,
            signal: Signal::SIGTRAP,
        },
        Why::End(ending) => Told::SignalWithThread {
            tid,
            signal: match ending {
                Ending::Shutdown
                | Ending::Undelivered { .. }
                | Ending::Violation { .. }
                | Ending::BadAccess { .. } => Signal::SIGSEGV,
                _ => Signal::SIGABRT,
            },
        },
    }
}

/// Sleeps until the timer.
fn doze() {
    trap::wait_for_any();
    let local = Local::current();
    // A guest's message to all CPUs may come here too: it is ended like the timer's.
    if local.and_then(Local::take_vector).is_some() {
        insn::apic_end();
    }
    let _ = local.map(Local::take_nmi);
}

/// The serial port.
#[derive(Clone, Copy, Debug)]
struct Port;

impl Port {
    const LINE_STATUS: u16 = PORT + 5;
    const READY: u32 = 1;
    const EMPTY: u32 = 1 << 5;
    /// QEMU drains the port at once; if nobody ever does, what is said is lost.
    const PATIENCE: u32 = 1 << 20;

    /// Sets the port up: 115200 baud, 8 bits, no parity, no interrupts. Its buffer stays off: to switch it on would
    /// throw away what a debugger said already, and without it each byte waits until the last one was taken.
    fn new() -> Self {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (4, 0x03)] {
            port_out(PORT + register, 1, value);
        }
        Self
    }

    /// A byte, if one came.
    fn read(&mut self) -> Option<u8> {
        let came = port_in(Self::LINE_STATUS, 1) & Self::READY != 0;
        came.then(|| (port_in(PORT, 1) & 0xff) as u8)
    }

    /// Waits for a byte.
    fn wait(&mut self) -> u8 {
        loop {
            for _ in 0..AGAIN {
                if let Some(byte) = self.read() {
                    return byte;
                }
            }
            doze();
        }
    }
}

impl Connection for Port {
    type Error = core::convert::Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Self::Error> {
        for _ in 0..Self::PATIENCE {
            if port_in(Self::LINE_STATUS, 1) & Self::EMPTY != 0 {
                break;
            }
        }
        port_out(PORT, 1, u32::from(byte));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

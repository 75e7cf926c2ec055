//! What the debugger's protocol asks of the guest.

use super::arch::{Registers, X64};
use super::memory::View;
use super::points::{Access, Point};
use super::{Debugger, Order};
use crate::addr::Gpa;
use crate::board::MAX_CPUS;
use crate::phys::HostMemory;
use crate::snp::pages;
use core::fmt::Write as _;
use core::num::NonZeroUsize;
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};

/// The errors of the protocol: bad address, bad argument, no such thread.
const EFAULT: u8 = 14;
const EINVAL: u8 = 22;
const ESRCH: u8 = 3;

/// Gets a CPU's attention.
pub trait Ring {
    /// Makes a CPU look at its order.
    fn ring(&self, cpu: usize);
}

/// The guest, for the protocol.
#[derive(Debug)]
pub struct Debugged<'a, M, R> {
    debugger: &'a Debugger<'a>,
    view: View<'a, M>,
    bell: R,
    orders: [Option<Order>; MAX_CPUS],
    /// Whoever has no order stays where it is.
    locked: bool,
}

impl<'a, M: HostMemory, R: Ring> Debugged<'a, M, R> {
    /// The guest whose CPUs take their seats at `debugger`.
    pub const fn new(debugger: &'a Debugger<'a>, view: View<'a, M>, bell: R) -> Self {
        Self {
            debugger,
            view,
            bell,
            orders: [None; MAX_CPUS],
            locked: false,
        }
    }

    /// The thread of a CPU.
    #[must_use]
    pub const fn thread(cpu: usize) -> Tid {
        NonZeroUsize::MIN.saturating_add(cpu)
    }

    fn set(&mut self, tid: Tid, order: Order) {
        if let Some(slot) = self.orders.get_mut(cpu(tid)) {
            *slot = Some(order);
        }
    }

    fn add(&self, at: u64, access: Access, bytes: u64) -> bool {
        let point = Point { at, access, bytes };
        self.debugger.change_points(|points| points.add(point))
    }

    fn remove(&self, at: u64, access: Access, bytes: u64) -> bool {
        let point = Point { at, access, bytes };
        self.debugger.change_points(|points| points.remove(point))
    }

    fn levels(&self, out: &mut ConsoleOutput<'_>) {
        for cpu in 0..self.debugger.cpus() {
            let seen = self
                .debugger
                .look(cpu, |frozen| (frozen.level, frozen.alive, frozen.next()));
            // The connection is at fault if it cannot be told, and ends then.
            let _ = match seen {
                Some((Some(level), true, at)) => writeln!(out, "CPU {cpu}: VMPL{level} at {at:#x}"),
                Some((None, true, at)) => writeln!(out, "CPU {cpu}: no levels, at {at:#x}"),
                Some((_, false, _)) => writeln!(out, "CPU {cpu}: has nothing to run"),
                None => writeln!(out, "CPU {cpu}: runs"),
            };
        }
    }

    fn page(&self, word: &str, out: &mut ConsoleOutput<'_>) {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let gpa = u64::from_str_radix(digits, 16).ok().and_then(Gpa::new);
        let (Some(gpa), Some(shared)) = (gpa, self.view.snp) else {
            let why = match self.view.snp {
                Some(_) => "`rmp` takes a guest physical address, in hexadecimal",
                None => "this guest's pages have no owners",
            };
            let _ = writeln!(out, "{why}");
            return;
        };
        let gpa = shared.encryption.place(gpa.as_u64()).gpa;
        let owned = shared.state.lock();
        let entry = Gpa::new(gpa)
            .and_then(|gpa| self.view.map.resolve(gpa))
            .and_then(|(home, _)| owned.rmp.entry(home.as_u64()));
        let _ = write!(out, "{:#x}: ", gpa & !0xfff);
        let _ = match entry {
            Some(entry) => pages::describe(out, entry),
            None => write!(out, "no memory"),
        };
        let _ = writeln!(out);
    }
}

const fn cpu(tid: Tid) -> usize {
    tid.get() - 1
}

impl<M: HostMemory, R: Ring> Target for Debugged<'_, M, R> {
    type Arch = X64;
    type Error = core::convert::Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X64, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl<M: HostMemory, R: Ring> MultiThreadBase for Debugged<'_, M, R> {
    fn read_registers(&mut self, registers: &mut Registers, tid: Tid) -> TargetResult<(), Self> {
        let seen = self.debugger.look(cpu(tid), Registers::of);
        *registers = seen.ok_or(TargetError::Errno(ESRCH))?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &Registers, tid: Tid) -> TargetResult<(), Self> {
        self.debugger
            .change(cpu(tid), |frozen| registers.give(frozen))
            .ok_or(TargetError::Errno(ESRCH))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let view = &mut self.view;
        let read = self
            .debugger
            .look(cpu(tid), |frozen| view.read(frozen, start, data));
        match read {
            None => Err(TargetError::Errno(ESRCH)),
            Some(0) if !data.is_empty() => Err(TargetError::Errno(EFAULT)),
            Some(count) => Ok(count),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let view = &mut self.view;
        let written = self
            .debugger
            .look(cpu(tid), |frozen| view.write(frozen, start, data));
        match written {
            None => Err(TargetError::Errno(ESRCH)),
            Some(false) => Err(TargetError::Errno(EFAULT)),
            Some(true) => Ok(()),
        }
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        for cpu in 0..self.debugger.cpus() {
            if self.debugger.look(cpu, |frozen| frozen.alive) == Some(true) {
                active(Self::thread(cpu));
            }
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<M: HostMemory, R: Ring> ThreadExtraInfo for Debugged<'_, M, R> {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        let level = self
            .debugger
            .look(cpu(tid), |frozen| frozen.level)
            .flatten();
        let name: &[u8] = match level {
            Some(0) => b"VMPL0",
            Some(1) => b"VMPL1",
            Some(2) => b"VMPL2",
            Some(3) => b"VMPL3",
            _ => b"CPU",
        };
        let count = name.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(name) {
            *to = *from;
        }
        Ok(count)
    }
}

impl<M: HostMemory, R: Ring> MultiThreadResume for Debugged<'_, M, R> {
    fn resume(&mut self) -> Result<(), Self::Error> {
        let others = if self.locked { Order::Stop } else { Order::Go };
        for (cpu, order) in (0..self.debugger.cpus()).zip(self.orders) {
            let order = order.unwrap_or(others);
            if order != Order::Stop {
                self.debugger.give(cpu, order);
                self.bell.ring(cpu);
            }
        }
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        (self.orders, self.locked) = ([None; MAX_CPUS], false);
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Self::Error> {
        self.set(tid, Order::Go);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl<M: HostMemory, R: Ring> MultiThreadSingleStep for Debugged<'_, M, R> {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Self::Error> {
        self.set(tid, Order::Step);
        Ok(())
    }
}

impl<M: HostMemory, R: Ring> MultiThreadSchedulerLocking for Debugged<'_, M, R> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        self.locked = true;
        Ok(())
    }
}

impl<M: HostMemory, R: Ring> Breakpoints for Debugged<'_, M, R> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

// What a debugger calls a software breakpoint is one of the CPU's here too: nothing is written to the guest's memory.
impl<M: HostMemory, R: Ring> SwBreakpoint for Debugged<'_, M, R> {
    fn add_sw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add(at, Access::Execute, 1))
    }

    fn remove_sw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(at, Access::Execute, 1))
    }
}

impl<M: HostMemory, R: Ring> HwBreakpoint for Debugged<'_, M, R> {
    fn add_hw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add(at, Access::Execute, 1))
    }

    fn remove_hw_breakpoint(&mut self, at: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(at, Access::Execute, 1))
    }
}

/// The CPU has no watchpoint for reads alone.
fn access(kind: WatchKind) -> Option<Access> {
    match kind {
        WatchKind::Write => Some(Access::Write),
        WatchKind::ReadWrite => Some(Access::ReadOrWrite),
        WatchKind::Read => None,
    }
}

impl<M: HostMemory, R: Ring> HwWatchpoint for Debugged<'_, M, R> {
    fn add_hw_watchpoint(
        &mut self,
        at: u64,
        bytes: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let access = access(kind).ok_or(TargetError::Errno(EINVAL))?;
        Ok(self.add(at, access, bytes))
    }

    fn remove_hw_watchpoint(
        &mut self,
        at: u64,
        bytes: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let access = access(kind).ok_or(TargetError::Errno(EINVAL))?;
        Ok(self.remove(at, access, bytes))
    }
}

impl<M: HostMemory, R: Ring> MonitorCmd for Debugged<'_, M, R> {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Self::Error> {
        let command = core::str::from_utf8(command).unwrap_or_default();
        let mut words = command.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("vmpl"), None, None) => self.levels(&mut out),
            (Some("rmp"), Some(word), None) => self.page(word, &mut out),
            _ => {
                let _ = out.write_str(
                    "monitor vmpl      the level of each CPU, and where it is\n\
                     monitor rmp ADDR  the owner, state and rights of the page at a guest physical address\n",
                );
            }
        }
        Ok(())
    }
}

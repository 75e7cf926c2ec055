//! The lies of a host without isolation: it answers, and injects, as it likes.

use super::Native;
use crate::board::Board;
use crate::ending::Ending;
use crate::exit::Exit;
use crate::liar::{self, Effect};
use crate::personality::{Hardware, Next};
use crate::report::Lie;
use crate::vcpu::Vcpu;
use svsm_sim::fault::{Fault, Fired, Occasions};

impl<M> Native<'_, M> {
    /// The lie that comes with an exit.
    pub(super) fn tempt(&self, exit: Exit, cpu: usize, board: &Board) -> Option<Fired> {
        let mut liar = self.liar.lock();
        if liar.is_honest() {
            return None;
        }
        let mut occasions = Occasions::INTERRUPTIBLE;
        occasions.set(Occasions::CPUID, exit == Exit::Cpuid);
        occasions.set(Occasions::OTHERS, liar::has_others(board, cpu));
        liar.next(occasions).1
    }

    /// What is done after the exit was answered.
    pub(super) fn lie(
        fired: &Fired,
        cpu: usize,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut impl Hardware,
    ) -> Next {
        let effect = match fired.fault {
            Fault::LyingCpuid => {
                let mut junk = (0..).map(|number| fired.word(number) & 0xffff_ffff);
                let mut word = || junk.next().unwrap_or_default();
                vcpu.vmcb.save.rax = word();
                (vcpu.gprs.rbx, vcpu.gprs.rcx, vcpu.gprs.rdx) = (word(), word(), word());
                Effect::Done
            }
            Fault::StrayInterrupt | Fault::ForbiddenVector => liar::stray_interrupt(fired, vcpu),
            Fault::StrayNmi => liar::stray_nmi(board, cpu, hardware),
            Fault::DelayedExit => liar::delay(fired.choice),
            Fault::ReorderedExits => liar::let_others_pass(board, cpu),
            Fault::Reset => Effect::Done,
            _ => Effect::Nothing("it takes SEV-SNP"),
        };
        let rip = vcpu.vmcb.save.rip;
        hardware.report(&Lie {
            fired,
            cpu,
            level: None,
            rip,
            effect,
        });
        if fired.fault == Fault::Reset {
            Next::End(Ending::Button)
        } else {
            Next::Resume
        }
    }
}

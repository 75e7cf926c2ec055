//! A local APIC in x2APIC mode, as the manual describes it, behind the MSR seam.

use std::vec::Vec;

use svsm_platform::{cpu::msr::Msr, seam::MsrCall};

/// What an MSR access raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GeneralProtection(pub(super) Msr);

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) base: u64,
    pub(super) svr: u32,
    pub(super) tpr: u32,
    pub(super) irr: [u32; 8],
    pub(super) isr: [u32; 8],
    pub(super) lvt: [u32; 4],
    pub(super) initial: u32,
    pub(super) current: u32,
    pub(super) divide: u32,
    pub(super) deadline: u64,
    pub(super) sent: Vec<u64>,
    pub(super) pending_errors: u32,
    pub(super) latched_errors: u32,
}

impl Model {
    pub(super) fn in_xapic_mode() -> Self {
        Self {
            base: 0xfee0_0000 | 1 << 11,
            svr: 0xff,
            lvt: [1 << 16; 4],
            ..Self::default()
        }
    }

    /// The highest requested vector moves into service, if its class is above all that is there.
    pub(super) fn take(&mut self) -> Option<u8> {
        let requested = highest(&self.irr)?;
        let served = highest(&self.isr).unwrap_or(0) >> 4;
        let held_back = served.max(u8::try_from(self.tpr >> 4).unwrap());
        (requested >> 4 > held_back && self.svr & 1 << 8 != 0).then(|| {
            self.irr[usize::from(requested / 32)] &= !(1 << (requested % 32));
            self.isr[usize::from(requested / 32)] |= 1 << (requested % 32);
            requested
        })
    }

    pub(super) fn request(&mut self, vector: u8) {
        self.irr[usize::from(vector / 32)] |= 1 << (vector % 32);
    }
}

fn highest(bank: &[u32; 8]) -> Option<u8> {
    (0..=u8::MAX)
        .rev()
        .find(|&vector| bank[usize::from(vector / 32)] >> (vector % 32) & 1 != 0)
}

impl MsrCall for Model {
    type Error = GeneralProtection;

    fn msr_read(&mut self, msr: Msr) -> Result<u64, GeneralProtection> {
        let refused = GeneralProtection(msr);
        if msr.as_u32() == 0x1b {
            return Ok(self.base);
        }
        if self.base >> 10 & 0b11 != 0b11 {
            return Err(refused);
        }
        let value = match msr.as_u32() {
            0x802 => 7,
            0x803 => 0x5_0014,
            0x808 => self.tpr,
            0x80f => self.svr,
            bank @ 0x810..=0x817 => self.isr[bank as usize - 0x810],
            bank @ 0x820..=0x827 => self.irr[bank as usize - 0x820],
            0x828 => self.latched_errors,
            0x832 => self.lvt[0],
            entry @ 0x835..=0x837 => self.lvt[entry as usize - 0x834],
            0x838 => self.initial,
            0x839 => self.current,
            0x83e => self.divide,
            _ => return Err(refused),
        };
        Ok(u64::from(value))
    }

    fn msr_write(&mut self, msr: Msr, value: u64) -> Result<(), GeneralProtection> {
        let refused = Err(GeneralProtection(msr));
        match msr.as_u32() {
            0x1b => {
                let mode = |base: u64| base >> 10 & 0b11;
                match (mode(self.base), mode(value)) {
                    (from, to) if from == to => {}
                    (0b00, 0b10) | (0b10, 0b11 | 0b00) | (0b11, 0b00) => {}
                    _ => return refused,
                }
                self.base = value;
                return Ok(());
            }
            0x6e0 => {
                self.deadline = value;
                return Ok(());
            }
            0x830 if self.base >> 10 & 0b11 == 0b11 => {
                self.sent.push(value);
                return Ok(());
            }
            _ => {}
        }
        let Ok(value) = u32::try_from(value) else {
            return refused;
        };
        if self.base >> 10 & 0b11 != 0b11 {
            return refused;
        }
        let enabled = self.svr & 1 << 8 != 0;
        let lvt = |value: u32| if enabled { value } else { value | 1 << 16 };
        match msr.as_u32() {
            0x808 => self.tpr = value,
            0x80b if value == 0 => {
                if let Some(vector) = highest(&self.isr) {
                    self.isr[usize::from(vector / 32)] &= !(1 << (vector % 32));
                }
            }
            0x80f => self.svr = value,
            0x828 if value == 0 => self.latched_errors = core::mem::take(&mut self.pending_errors),
            0x832 => self.lvt[0] = lvt(value),
            entry @ 0x835..=0x837 => self.lvt[entry as usize - 0x834] = lvt(value),
            0x838 => (self.initial, self.current) = (value, value),
            0x83e => self.divide = value,
            0x83f => self.request(u8::try_from(value).unwrap()),
            _ => return refused,
        }
        Ok(())
    }
}

//! Calls of the SVSM: registers, the calling area, and one exit (58019, "Calling Convention").
#![expect(unsafe_code, reason = "leaves for the SVSM")]

use core::arch::asm;

use crate::bare::{Page, read, set_register, write};

pub(crate) const CORE: u64 = 0;
pub(crate) const ATTEST: u64 = 1;
pub(crate) const VTPM: u64 = 2;

pub(crate) const REMAP: u64 = 0;
pub(crate) const PVALIDATE: u64 = 1;
pub(crate) const CREATE: u64 = 2;
pub(crate) const DELETE: u64 = 3;
pub(crate) const DEPOSIT: u64 = 4;
pub(crate) const WITHDRAW: u64 = 5;
pub(crate) const QUERY: u64 = 6;

pub(crate) const SUCCESS: u64 = 0;
pub(crate) const INCOMPLETE: u64 = 0x8000_0000;
pub(crate) const BUSY: u64 = 0x8000_0007;

/// Ask the host to run VMPL0.
const RUN_VMPL0: u64 = 0x16;
/// The kind of boot data that leads to keys and the SVSM (Linux, `SETUP_CC_BLOB`).
const CC_BLOB: u32 = 7;

static LIST: Page = Page::new();

/// The SVSM above this guest.
#[derive(Debug)]
pub(crate) struct Svsm {
    /// The page through which it is called.
    pub(crate) area: u64,
    /// Its own memory.
    pub(crate) base: u64,
    /// Where hostile calls begin.
    pub(crate) seed: u64,
}

/// RAX, RCX, RDX, R8 and R9.
pub(crate) type Registers = [u64; 5];

impl Svsm {
    /// Finds it by the kernel's boot parameters.
    pub(crate) fn find(parameters: u64) -> Option<Self> {
        let mut data: u64 = read(parameters + 0x250);
        while data != 0 && read::<u32>(data + 8) != CC_BLOB {
            data = read(data);
        }
        let blob = (data != 0).then(|| u64::from(read::<u32>(data + 16)))?;
        let secrets: u64 = read(blob + 8);
        Some(Self {
            base: read(secrets + 0x140),
            area: read(secrets + 0x150),
            seed: 1,
        })
    }

    /// Calls it once.
    pub(crate) fn call_once(&self, protocol: u64, call: u64, arguments: [u64; 4]) -> Registers {
        let [mut rcx, mut rdx, mut r8, mut r9] = arguments;
        let mut rax = protocol << 32 | call;
        write(self.area, 1_u8);
        set_register(RUN_VMPL0);
        // SAFETY: the SVSM changes these registers, the calling area, and what the call names, where no Rust object lies.
        unsafe {
            asm!("rep vmmcall", inout("rax") rax, inout("rcx") rcx, inout("rdx") rdx,
                inout("r8") r8, inout("r9") r9, options(nostack));
        }
        if read::<u8>(self.area) != 0 {
            // It was not even looked at.
            rax = u64::MAX;
        }
        [rax, rcx, rdx, r8, r9]
    }

    /// Calls it until it is done. Answers with the registers, and how often it had to be called again.
    pub(crate) fn call(&self, protocol: u64, call: u64, arguments: [u64; 4]) -> (Registers, u64) {
        let mut again = 0;
        loop {
            let answer = self.call_once(protocol, call, arguments);
            let [code, ..] = answer;
            if code != INCOMPLETE && code != BUSY {
                return (answer, again);
            }
            again += 1;
        }
    }

    /// Validates a page, or ends that. Answers with the code.
    pub(crate) fn validate(&self, page: u64, valid: bool) -> u64 {
        write(LIST.at(), 1_u64);
        write(LIST.at() + 8, page | u64::from(valid) << 2);
        let ([code, ..], _) = self.call(CORE, PVALIDATE, [LIST.at(), 0, 0, 0]);
        code
    }
}

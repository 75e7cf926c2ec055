//! Asks a security processor for a report, past a host that is busy and tampers; the processor is the simulator's.
//!
//! ```text
//! cargo run -p svsm-platform --example attest --features aes-gcm
//! ```

use svsm_platform::{
    level::Vmpl,
    seam::Report,
    snp::{
        ghcb::GuestRequestStatus,
        message::{AesGcm, Channel, GuestRequest, ResponsePage},
        report::{AttestationReport, Attester, KeyFields, KeyRequest},
        secrets::Vmpck,
    },
};
use svsm_sim::{
    cpuid::Registers,
    endorsement::Endorsement,
    launch::{Chip, Guest, PlatformInfo, Policy, Start, Tcb},
    processor::SecurityProcessor,
    report::ReportVersion,
    vmsa::TweakBitmap,
};

type Machine = Chip<fn(u32, u32) -> Registers>;

/// A host that carries messages to the processor of the simulator: the first one only when it comes again, and the answer to the
/// fourth with a bit that is not right.
struct Host {
    chip: Machine,
    endorsement: Endorsement,
    guest: Guest,
    shown: u32,
}

impl GuestRequest for Host {
    type Error = &'static str;

    fn pass(
        &mut self,
        message: &[u8],
        response: &mut ResponsePage,
        _certificates: Option<&mut [u8]>,
    ) -> Result<GuestRequestStatus, Self::Error> {
        self.shown += 1;
        let said = |host, firmware| GuestRequestStatus {
            firmware,
            host,
            pages: 0,
        };
        if self.shown == 1 {
            return Ok(said(2, 0));
        }
        let processor = SecurityProcessor {
            chip: &self.chip,
            endorsement: &self.endorsement,
            report_version: ReportVersion::V5,
        };
        let mut request = [0; 4096];
        let place = request.get_mut(..message.len()).ok_or("no message")?;
        place.copy_from_slice(message);
        let status = match self.guest.answer(&processor, &request, response) {
            Ok(()) => said(0, 0),
            Err(status) => said(0, status.code()),
        };
        if self.shown == 4
            && let Some(byte) = response.get_mut(0x70)
        {
            *byte ^= 1;
        }
        Ok(status)
    }
}

fn host() -> Result<Host, Box<dyn core::error::Error>> {
    let chip: Machine = Chip {
        host: |_, _| Registers::default(),
        abi: (1, 55),
        build: 1,
        mitigations: 0,
        info: PlatformInfo::SMT,
        vmsa_tweak_bitmap: TweakBitmap::NONE,
        tsc_khz: 2_000_000,
        tsc_factor: 200,
        tcb: Tcb {
            boot_loader: 3,
            tee: 0,
            snp: 8,
            microcode: 115,
        },
        id: [0xc1; 64],
    };
    let mut guest = Guest::new();
    let start = Start {
        asid: 1,
        policy: Policy::DEFAULT,
        gosvw: [0; 16],
        tsc_khz: 0,
    };
    guest.launch_start(&chip, &start, &mut |key: &mut [u8]| key.fill(9))?;
    guest.launch_finish(None, [0xda; 32], false)?;
    Ok(Host {
        endorsement: Endorsement::new(&chip),
        chip,
        guest,
        shown: 0,
    })
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut host = host()?;
    // A firmware takes it from the secrets page.
    let key = Vmpck::new(&[9; 32]).ok_or("a key that was wiped")?;
    let mut channel = Channel::new(Vmpl::Vmpl0, key, AesGcm);
    let mut page = [0; 4096];
    let mut attester = Attester::new(&mut channel, &mut host, &mut page);

    let mut buffer = [0; AttestationReport::LEN];
    match attester.report(&[1; 64], &mut buffer) {
        Err(error) => println!("first try:  {error}; the message waits"),
        Ok(_) => println!("first try:  a report"),
    }
    let bytes = attester.report(&[2; 64], &mut buffer)?;
    let report = AttestationReport::view(bytes).ok_or("no report")?;
    println!(
        "second try: a report of version {} over {:02x?}.. for level {}",
        report.version,
        report.report_data.first_chunk::<4>().ok_or("no data")?,
        report.vmpl
    );
    let request = KeyRequest::new(Vmpl::Vmpl0).bound_to(KeyFields::MEASUREMENT);
    match attester.derive_key(&request, &mut [0; 32]) {
        Err(error) => println!("a key:      {error}"),
        Ok(()) => println!("a key:      derived"),
    }
    println!("at the end: {channel:?}");
    Ok(())
}

//! A launch on the model of the hardware, which knows nothing of this crate, and the report of the guest.

use svsm_igvm::file::{Body, ImageFile, PageType, SnpIdBlock};
use svsm_sim::cpuid::Registers;
use svsm_sim::curve::{WireKey, WireSignature};
use svsm_sim::endorsement::Endorsement;
use svsm_sim::launch::{
    Chip, Guest, IdAuth, IdBlock, Identity, PageType as Launched, PlatformInfo, Policy, Start, Tcb,
    Update,
};
use svsm_sim::processor::{Header, MessageType, SecurityProcessor};
use svsm_sim::report::ReportVersion;
use svsm_sim::rmp::{Entry, NewState, PageSize, Rmp};
use svsm_sim::secrets::Vmpck;
use svsm_sim::status::Status;
use svsm_sim::vmsa::TweakBitmap;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The bit of SEV-SNP in what this crate builds.
pub(crate) const MASK: u32 = 2;

/// All entropy of these machines.
const ENTROPY: u8 = 9;

pub(crate) const TCB: Tcb = Tcb {
    boot_loader: 3,
    tee: 0,
    snp: 8,
    microcode: 215,
};

pub(crate) fn chip() -> Chip<fn(u32, u32) -> Registers> {
    Chip {
        host: |_, _| Registers::default(),
        abi: (1, 55),
        build: 7,
        mitigations: 0,
        info: PlatformInfo::SMT,
        vmsa_tweak_bitmap: TweakBitmap::REGISTERS,
        tsc_khz: 2_000_000,
        tsc_factor: 200,
        tcb: TCB,
        id: [0xc1; 64],
    }
}

/// The pages of a file as a host hands them over: in the order of the file, and contexts last.
fn pages(file: &ImageFile<'_>) -> Vec<(Launched, u64, [u8; 4096])> {
    let page = |data: &[u8]| {
        let mut page = [0; 4096];
        page[..data.len()].copy_from_slice(data);
        page
    };
    let (mut areas, mut pages, mut contexts) = (vec![], vec![], vec![]);
    for header in file.headers() {
        match &header.body {
            Body::ParameterArea(area) => areas.push((area.area, area.bytes)),
            Body::ParameterInsert(insert) if insert.mask & MASK != 0 => {
                let (_, bytes) = areas.iter().find(|(area, _)| *area == insert.area).unwrap();
                let gpas = (0..*bytes).step_by(4096).map(|offset| insert.gpa + offset);
                pages.extend(gpas.map(|gpa| (Launched::Unmeasured, gpa, [0x77; 4096])));
            }
            Body::PageData(data) if data.mask & MASK != 0 && !data.shared => {
                let kind = match data.kind {
                    PageType::Secrets => Launched::Secrets,
                    PageType::Cpuid => Launched::Cpuid,
                    _ => Launched::Normal,
                };
                pages.push((kind, data.gpa, page(data.data.unwrap_or_default())));
            }
            Body::VpContext(context) if context.mask & MASK != 0 => {
                contexts.push((Launched::Vmsa, context.gpa, page(context.data)));
            }
            _ => {}
        }
    }
    pages.extend(contexts);
    pages
}

/// Launches the SEV-SNP part of a file, with the identity that is in it, if the host does not leave that out.
pub(crate) fn launch(bytes: &[u8], with_identity: bool) -> Result<Guest, Status> {
    let file = ImageFile::read(bytes).unwrap();
    let bodies = || file.headers().iter().map(|header| &header.body);
    let policy = bodies().find_map(|body| match body {
        Body::GuestPolicy { mask, policy } if mask & MASK != 0 => Some(*policy),
        _ => None,
    });
    let start = Start {
        asid: 1,
        policy: Policy::from_bits_retain(policy.unwrap()),
        gosvw: [0; 16],
        tsc_khz: 0,
    };
    let mut entropy = |bytes: &mut [u8]| bytes.fill(ENTROPY);
    let (chip, mut guest) = (chip(), Guest::new());
    guest.launch_start(&chip, &start, &mut entropy)?;
    let mut pages = pages(&file);
    let mut entries = vec![Entry::HYPERVISOR; pages.len()];
    let mut rmp = Rmp::new(&mut entries);
    for (index, (kind, gpa, page)) in (0..).zip(&mut pages) {
        let spa = index * 4096;
        let new = NewState::pre_guest(1, *gpa, PageSize::Size4K);
        rmp.rmpupdate(spa, new).unwrap();
        guest.launch_update(
            &chip,
            &mut rmp,
            spa,
            &Update::new(*kind),
            page,
            &mut entropy,
        )?;
    }
    let block = bodies().find_map(|body| match body {
        Body::SnpIdBlock(block) if with_identity => Some(*block),
        _ => None,
    });
    let identity = block.map(|block| identity(&block, start.policy));
    let identity = identity.as_ref().map(|(block, auth, author)| Identity {
        block,
        auth,
        author: *author,
    });
    guest.launch_finish(identity, [0xda; 32], false)?;
    Ok(guest)
}

/// What a host makes of the file's ID block.
fn identity(of: &SnpIdBlock<'_>, policy: Policy) -> (IdBlock, IdAuth, bool) {
    let block = IdBlock {
        launch_digest: *of.launch_digest,
        family_id: of.family_id,
        image_id: of.image_id,
        version: U32::new(of.version),
        guest_svn: U32::new(of.guest_svn),
        policy: U64::new(policy.bits()),
    };
    let mut auth = IdAuth::new_zeroed();
    let signature = |bytes: &[u8; 144]| {
        let mut wire = WireSignature::new_zeroed();
        wire.r.copy_from_slice(&bytes[..72]);
        wire.s.copy_from_slice(&bytes[72..]);
        wire
    };
    let key = |bytes: &[u8; 152]| {
        let mut wire = WireKey::new_zeroed();
        wire.curve = U32::read_from_bytes(&bytes[..4]).unwrap();
        wire.x.copy_from_slice(&bytes[8..80]);
        wire.y.copy_from_slice(&bytes[80..]);
        wire
    };
    [auth.id_key_algorithm, auth.author_key_algorithm] = of.algorithms.map(U32::new);
    (auth.id_block_signature, auth.id_key) = (signature(of.signature), key(of.id_key));
    if let (Some(signed), Some(author)) = (of.author_signature, of.author_key) {
        (auth.id_key_signature, auth.author_key) = (signature(signed), key(author));
    }
    (block, auth, of.author_key.is_some())
}

/// The report that a guest gets at a level, with these data, and the table of certificates.
pub(crate) fn report(guest: &mut Guest, vmpl: u8, data: [u8; 64]) -> (Vec<u8>, Vec<u8>) {
    let (chip, key) = (chip(), Vmpck([ENTROPY; 32]));
    let endorsement = Endorsement::new(&chip);
    let mut question = [0; 0x60];
    question[..0x40].copy_from_slice(&data);
    question[0x40] = vmpl;
    let mut header = Header::new(MessageType::ReportRequest.number(), 1, 1, 0, 0x60);
    header.seal(&key, &mut question).unwrap();
    let (mut request, mut response) = ([0; 4096], [0; 4096]);
    request[..0x60].copy_from_slice(header.as_bytes());
    request[0x60..0xc0].copy_from_slice(&question);
    let processor = SecurityProcessor {
        chip: &chip,
        endorsement: &endorsement,
        report_version: ReportVersion::V5,
    };
    guest.answer(&processor, &request, &mut response).unwrap();
    let (header, rest) = Header::read_from_prefix(&response).unwrap();
    let mut body = rest[..usize::from(header.message_size.get())].to_vec();
    header.open(&key, &mut body).unwrap();
    let mut table = vec![0; 4096];
    endorsement.certificate_table(&mut table).unwrap();
    (body[0x20..].to_vec(), table)
}

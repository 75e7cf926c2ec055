//! Evidence of what runs here: reports of the security processor, over a channel that the host carries and cannot read.
#![expect(unsafe_code, reason = "shares pages with the host")]

use alloc::boxed::Box;
use core::ptr::{NonNull, with_exposed_provenance};

use sha2::{Digest, Sha512 as Hasher};
use svsm_platform::irq::LocalIrq;
use svsm_platform::level::Vmpl;
use svsm_platform::lock::SpinLock;
use svsm_platform::once::OnceCell;
use svsm_platform::snp::message::{AesGcm, Channel, Error as ChannelError, ResponsePage};
use svsm_platform::snp::report::{Certificates, ChipKey, ReportRequest};
use svsm_platform::snp::secrets::SecretsPage;
use svsm_platform::snp::{GhcbMessenger, SharedPage};
use svsm_protocol::attest::{Evidence, Evidencer, NoReport, Sha512};

use crate::machine::snp::{self, Shared};

/// Pages for a request, an answer, and certificates.
const PAGES: usize = 2 + CERTIFICATE_PAGES;
/// The host's certificates fit into 16 KiB.
pub(crate) const CERTIFICATE_PAGES: usize = 4;

/// Everything that asking takes.
struct Post {
    channel: Channel<AesGcm>,
    answer: Box<ResponsePage>,
    shared: Shared,
}

static POST: OnceCell<SpinLock<Post, LocalIrq>> = OnceCell::new();

/// Opens the channel of this level with the key of the secrets page.
///
/// # Errors
/// There is no key, or no memory to share.
pub(crate) fn set_up(secrets: &[u8; 4096]) -> Result<(), snp::Unshared> {
    let key = SecretsPage::view(secrets)
        .ok()
        .and_then(|page| page.key(Vmpl::Vmpl0))
        .ok_or(snp::Unshared::NoKey)?;
    let shared = snp::share(PAGES)?;
    let post = Post {
        channel: Channel::new(Vmpl::Vmpl0, key, AesGcm),
        answer: Box::new([0; 4096]),
        shared,
    };
    let _ = POST.set(SpinLock::new(post, LocalIrq));
    Ok(())
}

/// Forgets the key, if nobody is using it at this moment.
pub(crate) fn forget() {
    if let Some(mut post) = POST.value().and_then(SpinLock::try_lock) {
        post.channel.close();
    }
}

/// Asks for reports of this level.
pub(crate) struct Processor;

impl Evidencer for Processor {
    fn evidence(
        &mut self,
        data: &[u8; 64],
        report: &mut [u8],
        mut certificates: Option<&mut [u8]>,
    ) -> Result<Evidence, NoReport> {
        let mut post = POST.value().ok_or(NoReport::Refused)?.lock();
        let Post {
            channel,
            answer,
            shared,
        } = &mut *post;
        let request = ReportRequest {
            data: *data,
            level: Vmpl::Vmpl0,
            signer: ChipKey::Any,
        };
        loop {
            let mut host = messenger(shared).ok_or(NoReport::Refused)?;
            let asked = channel.report(&request, &mut host, certificates.as_deref_mut(), answer);
            match asked {
                Ok(bytes) => {
                    let room = report.get_mut(..bytes.len()).ok_or(NoReport::Refused)?;
                    room.copy_from_slice(bytes);
                    let report_bytes = bytes.len();
                    let certificate_bytes = certificates
                        .map(|buffer| {
                            Certificates::parse(buffer).map_or(0, |all| all.as_bytes().len())
                        })
                        .unwrap_or(0);
                    return Ok(Evidence {
                        report_bytes,
                        certificate_bytes,
                    });
                }
                Err(ChannelError::Busy) => return Err(NoReport::Busy),
                // More than anybody has: then there are none.
                Err(ChannelError::CertificateSpace { .. }) if certificates.is_some() => {
                    certificates = None;
                }
                Err(error) => {
                    warn!(public, "no report: {}", error);
                    return Err(NoReport::Refused);
                }
            }
        }
    }
}

fn messenger(
    shared: &Shared,
) -> Option<GhcbMessenger<'static, svsm_platform::snp::insn::Processor>> {
    let page = |index: usize| -> Option<(&'static SharedPage, _)> {
        let (at, gpa) = shared.page(index)?;
        let place = with_exposed_provenance::<SharedPage>(at.as_u64() as usize);
        // SAFETY: the page is mapped for good, and made of atomics.
        Some((unsafe { NonNull::new(place.cast_mut())?.as_ref() }, gpa))
    };
    let (first, certificates_at) = page(2)?;
    // SAFETY: the pages lie side by side, and are mapped for good.
    let certificates = unsafe { core::slice::from_raw_parts(first, CERTIFICATE_PAGES) };
    // SAFETY: `share` made all of them shared with the host, at these addresses, and nobody else uses them.
    let messenger = unsafe { GhcbMessenger::new(snp::ghcb()?, page(0)?, page(1)?) };
    // SAFETY: as above.
    Some(unsafe { messenger.with_certificates(certificates, certificates_at) })
}

/// SHA-512 in software.
pub(crate) struct Digester;

impl Sha512 for Digester {
    fn digest(&self, parts: [&[u8]; 2]) -> [u8; 64] {
        let mut hasher = Hasher::new();
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().into()
    }
}

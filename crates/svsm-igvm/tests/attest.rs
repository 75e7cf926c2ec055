//! From a signed image over a launch to a verdict.
#![cfg(feature = "attest")]
#![cfg(test)]

#[path = "support/elf.rs"]
mod elf;
#[path = "support/image.rs"]
mod image;
#[path = "support/launch.rs"]
mod launch;

use std::collections::BTreeMap;

use igvm::{IgvmFile, measurement::generate_snp_measurement};
use image::{image, manifest};
use launch::{MASK, TCB, launch, report};
use p384::SecretKey;
use p384::pkcs8::{EncodePrivateKey, LineEnding};
use sha2::{Digest, Sha384};
use svsm_igvm::file::{Body, HeaderType, ImageFile};
use svsm_igvm::hex::{Hex, IdName};
use svsm_igvm::identity::KeyFault;
use svsm_igvm::manifest::{Delivery, Identity, Platform};
use svsm_igvm::report::{Kind, Total};
use svsm_igvm::verify::{Certificates, Evidence, Finding, Verdict, Wanted, verify};
use svsm_igvm::{Error, Image, Keys, Loader, Reference, launch_digest, sign};
use svsm_platform::addr::{Gpa, PageSize};
use svsm_sim::endorsement::root_certificate;
use svsm_sim::launch::Tcb;
use svsm_sim::status::Status;
use svsm_sim::verify::Reason;
use svsm_stage2::handoff::Handoff;

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 48]).unwrap()
}

fn pem(byte: u8) -> Vec<u8> {
    let pem = secret(byte).to_pkcs8_pem(LineEnding::LF).unwrap();
    pem.as_bytes().to_vec()
}

fn keys(author: bool) -> Keys {
    Keys::parse(&pem(1), author.then(|| pem(2)).as_deref()).unwrap()
}

fn signed(author: bool) -> Image {
    image(&manifest()).sign(&manifest(), &keys(author)).unwrap()
}

const NONCE: [u8; 64] = [0x42; 64];

/// What a relying party that wants `reference` says to a guest of an image.
fn judge(wanted: &Wanted, bytes: &[u8], with_identity: bool) -> Verdict {
    let (report, table) = report(&mut launch(bytes, with_identity).unwrap(), 0, NONCE);
    verdict(wanted, &report, &table)
}

fn verdict(wanted: &Wanted, report: &[u8], table: &[u8]) -> Verdict {
    let certificates = Certificates::from_table(table).unwrap();
    let root = root_certificate();
    let evidence = Evidence {
        report,
        chain: certificates.chain(),
        root: root.der(),
    };
    verify(&evidence, wanted)
}

fn wanted(image: &Image) -> Wanted {
    Wanted::new(image.report.snp.unwrap())
}

fn names(verdict: &Verdict) -> Vec<&str> {
    verdict.findings.iter().map(Finding::name).collect()
}

/// The model's launch takes pages one by one, and the calculator of the crate `igvm` reads the file; nobody here wrote that.
#[test]
fn the_promised_digest_is_that_of_a_launch() {
    let mut manifest = manifest();
    for platforms in [
        vec![Platform::Snp],
        vec![Platform::Native, Platform::Snp],
        vec![Platform::Snp, Platform::Native],
    ] {
        manifest.platforms = platforms;
        let image = image(&manifest);
        let promised = image.report.snp.unwrap().launch_digest;
        let guest = launch(&image.bytes, false).unwrap();
        assert_eq!(promised.0, guest.measurement().0);
        let file = IgvmFile::new_from_binary(&image.bytes, None).unwrap();
        let theirs = generate_snp_measurement(file.initializations(), file.directives(), MASK);
        assert_eq!(promised.0, theirs.unwrap());
        assert_eq!(launch_digest(&image.bytes).unwrap(), Some(promised));
    }
    manifest.platforms = vec![Platform::Native];
    assert_eq!(image(&manifest).report.snp, None);
}

/// The SVSM itself: its digest stands for it in what is measured, and every page of it arrives where the host can see it.
#[test]
fn a_staged_svsm_is_measured_by_its_digest_alone() {
    let mut manifest = manifest();
    manifest.archive.delivery = Delivery::Staged;
    let measured = image(&manifest);
    manifest.svsm.delivery = Delivery::Staged;
    let image = image(&manifest);
    let guest = launch(&image.bytes, false).unwrap();
    let promised = image.report.snp.unwrap().launch_digest;
    assert_eq!(promised.0, guest.measurement().0);

    // Where it belongs, the file has nothing; where it arrives, it is all of what the file would load otherwise.
    let load = |image: &Image| -> BTreeMap<u64, (bool, Vec<u8>)> {
        let file = ImageFile::read(&image.bytes).unwrap();
        let pages = file
            .headers()
            .iter()
            .filter_map(|header| match &header.body {
                Body::PageData(page) => Some((page.gpa, (page.shared, page.data?.to_vec()))),
                _ => None,
            });
        pages.collect()
    };
    let (before, after) = (load(&measured), load(&image));
    let mut handoffs = after
        .values()
        .filter_map(|(_, data)| Handoff::parse(data).ok());
    let handoff = handoffs.next().unwrap();
    let staged = handoff.staged_svsm.unwrap();
    let behind = handoff.staged.unwrap().source.end();
    assert_eq!(
        staged.source.start().as_u64(),
        behind.as_u64().next_multiple_of(2 << 20)
    );
    let mut hash = Sha384::new();
    let arrives = staged.source.pages(PageSize::Size4K).unwrap();
    for (shared, private) in arrives.zip(handoff.svsm_pages()) {
        let (is_shared, data) = &after[&shared.as_u64()];
        assert!(*is_shared && !after.contains_key(&private.as_u64()));
        assert_eq!(data, &before[&private.as_u64()].1);
        hash.update(data);
    }
    assert_eq!(<[u8; 48]>::from(hash.finalize()), staged.digest);

    manifest.svsm.staging_base = Some(handoff.staged.unwrap().source.start().as_u64());
    let refused = image::image_for(&manifest, Loader::Machine).unwrap_err();
    assert!(
        refused.to_string().contains("svsm staging area"),
        "{refused}"
    );
    manifest.svsm.staging_base = Some(1);
    let refused = image::image_for(&manifest, Loader::Machine).unwrap_err();
    assert!(
        refused.to_string().contains("svsm.staging_base: 0x1"),
        "{refused}"
    );
    manifest.svsm.staging_base = None;
    manifest.archive.delivery = Delivery::Measured;
    manifest.platforms = vec![Platform::Snp];
    let refused = image::image_for(&manifest, Loader::Qemu).unwrap_err();
    assert!(refused.to_string().contains("svsm.delivery"), "{refused}");
}

/// A staged archive passes no launch; what the launch measures is its digest.
#[test]
fn a_staged_archive_is_measured_by_its_digest_alone() {
    let measured = image(&manifest());
    let mut manifest = manifest();
    manifest.archive.delivery = Delivery::Staged;
    let image = image(&manifest);
    let promised = image.report.snp.unwrap().launch_digest;
    let guest = launch(&image.bytes, false).unwrap();
    assert_eq!(promised.0, guest.measurement().0);
    let file = IgvmFile::new_from_binary(&image.bytes, None).unwrap();
    let theirs = generate_snp_measurement(file.initializations(), file.directives(), MASK);
    assert_eq!(promised.0, theirs.unwrap());

    let file = ImageFile::read(&image.bytes).unwrap();
    let pages = || {
        file.headers()
            .iter()
            .filter_map(|header| match &header.body {
                Body::PageData(page) => Some(page),
                _ => None,
            })
    };
    let handoffs = pages().filter_map(|page| Handoff::parse(page.data?).ok());
    let handoffs: Vec<_> = handoffs.collect();
    assert_eq!(handoffs.len(), 2, "one for each platform");
    for handoff in handoffs {
        let (staged, archive) = (handoff.staged.unwrap(), handoff.archive.unwrap());
        assert_eq!(staged.source.start(), handoff.svsm.end());
        let shared = pages().filter(|page| page.shared);
        let arrives: Vec<u8> = shared
            .inspect(|page| assert!(staged.source.contains(Gpa::new(page.gpa).unwrap())))
            .flat_map(|page| page.data.unwrap().iter().copied())
            .collect();
        let archive_bytes = usize::try_from(archive.len_bytes()).unwrap();
        let digest: [u8; 48] = Sha384::digest(&arrives[..archive_bytes]).into();
        assert_eq!(digest, staged.digest);
        assert!(arrives.starts_with(b"070701"));
        // Where it belongs, the file has nothing.
        assert!(pages().all(|page| page.gpa != archive.gpa().as_u64()));
    }
    let total = |image: &Image, what| {
        let mut totals = image.report.totals.iter();
        totals.find(|line| line.what == what).unwrap().is
    };
    let staged = image
        .report
        .kinds
        .iter()
        .find(|line| line.what == Kind::Staged);
    let staged = staged.unwrap().is;
    for what in [Total::LaunchPages, Total::MeasuredPages] {
        assert_eq!(total(&image, what), total(&measured, what) - staged);
    }
    assert_eq!(total(&image, Total::Pages), total(&measured, Total::Pages));

    // Hosts that would launch and measure those pages are refused, and so is a place that is taken.
    for loader in [Loader::Qemu, Loader::OpenVmm, Loader::CloudHypervisor] {
        manifest.platforms = vec![Platform::Snp];
        let refused = image::image_for(&manifest, loader).unwrap_err().to_string();
        assert!(
            refused.contains("which archive.delivery needs"),
            "{refused}"
        );
    }
    manifest.archive.staging_base = Some(manifest.svsm.base);
    let refused = image::image_for(&manifest, Loader::Machine).unwrap_err();
    assert!(refused.to_string().contains("staging area"), "{refused}");
    manifest.archive.staging_base = Some(1);
    let refused = image::image_for(&manifest, Loader::Machine).unwrap_err();
    assert!(
        refused.to_string().contains("archive.staging_base: 0x1"),
        "{refused}"
    );
}

#[test]
fn restricted_injection_and_every_byte_change_the_digest() {
    let plain = image(&manifest()).report.snp.unwrap();
    let mut restricted = manifest();
    restricted.snp.restricted_injection = true;
    let restricted = image(&restricted).report.snp.unwrap();
    assert_ne!(plain.launch_digest, restricted.launch_digest);
    let mut debug = manifest();
    debug.debug = true;
    assert_ne!(
        plain.launch_digest,
        image(&debug).report.snp.unwrap().launch_digest
    );
    // The policy is not in the digest: reports have it beside.
    let mut policy = manifest();
    policy.snp.policy |= 1 << 20;
    let policy = image(&policy).report.snp.unwrap();
    assert_eq!(plain.launch_digest, policy.launch_digest);
    assert_ne!(plain.policy, policy.policy);
}

#[test]
fn a_signed_image_launches_with_its_identity_and_no_other_does() {
    for author in [false, true] {
        let image = signed(author);
        let mut guest = launch(&image.bytes, true).unwrap();
        let (report, _) = report(&mut guest, 0, NONCE);
        // The places of SVN, family and image in a report, and of the key's digest.
        assert_eq!(report[0x04..0x08], 7u32.to_le_bytes());
        assert_eq!(report[0x10..0x20], *b"test family\0\0\0\0\0");
        assert_eq!(report[0x20..0x24], [0x00, 0x11, 0x22, 0x33]);
        let identity = image.report.snp.unwrap().identity.unwrap();
        assert_eq!(report[0xe0..0x110], identity.id_key_digest.0);
        assert_eq!(identity.author_key_digest.is_some(), author);
        let digest = identity.author_key_digest.unwrap_or(Hex([0; 48]));
        assert_eq!(report[0x110..0x140], digest.0);
    }
    // Whatever of the block is changed afterwards, nothing launches: the digest, the name, the SVN, a signature, a key.
    let image = signed(true);
    let at = block_offset(&image.bytes);
    for (offset, status) in [
        (8, Status::BadMeasurement),
        (56, Status::BadSignature),
        (92, Status::BadSignature),
        (104, Status::BadSignature),
        (256, Status::BadSignature),
        (400, Status::BadSignature),
        (560, Status::BadSignature),
    ] {
        let mut other = image.bytes.clone();
        other[at + offset] ^= 1;
        checksum(&mut other);
        assert_eq!(launch(&other, true).unwrap_err(), status, "{offset}");
    }
    let mut stale = image.bytes.clone();
    stale[at + 8] ^= 1;
    checksum(&mut stale);
    assert!(matches!(Reference::of(&stale), Err(Error::StaleIdentity)));
}

/// Where the body of the file's ID block lies.
fn block_offset(bytes: &[u8]) -> usize {
    let file = ImageFile::read(bytes).unwrap();
    let mut headers = file.headers().iter();
    let header = headers.find(|header| header.kind == HeaderType::SNP_ID_BLOCK);
    header.unwrap().offset + 8
}

/// Makes the file's checksum right again.
fn checksum(bytes: &mut [u8]) {
    bytes[20..24].fill(0);
    let end = 32 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let sum = crc32fast::hash(&bytes[..end]);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_signature_changes_nothing_else_and_repeats() {
    let unsigned = image(&manifest());
    let image = signed(true);
    let (before, after) = (unsigned.report.snp.unwrap(), image.report.snp.unwrap());
    assert_eq!(before.launch_digest, after.launch_digest);
    let differences = svsm_igvm::diff(
        &ImageFile::read(&unsigned.bytes).unwrap(),
        &ImageFile::read(&image.bytes).unwrap(),
    );
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(image, signed(true));
    // Another signature takes the place of the first.
    let identity = Identity::new(IdName::default(), IdName::default(), 8);
    let again = sign(&image.bytes, &identity, &keys(false)).unwrap();
    let file = ImageFile::read(&again).unwrap();
    let blocks = file
        .headers()
        .iter()
        .filter_map(|header| match &header.body {
            Body::SnpIdBlock(block) => Some(block.guest_svn),
            _ => None,
        });
    assert_eq!(blocks.collect::<Vec<_>>(), [8]);
    assert!(launch(&again, true).is_ok());
}

#[test]
fn what_cannot_be_signed_is_refused() {
    let mut native = manifest();
    native.platforms = vec![Platform::Native];
    let native = image(&native);
    let refused = sign(&native.bytes, &Identity::default(), &keys(false));
    assert!(matches!(refused, Err(Error::NoSnp)));
    let mut small = manifest();
    small.budgets.file = Some(svsm_igvm::manifest::Size::new(
        image(&manifest()).bytes.len() as u64,
    ));
    let refused = image(&small).sign(&small, &keys(false));
    assert!(matches!(refused, Err(Error::Budget(_))));
}

#[test]
fn keys_come_in_all_common_forms() {
    let secret = secret(1);
    let pkcs8 = secret.to_pkcs8_der().unwrap();
    let sec1 = secret.to_sec1_der().unwrap();
    let sec1_pem = secret.to_sec1_pem(LineEnding::LF).unwrap();
    let with_parameters = format!(
        "-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n{}",
        *sec1_pem
    );
    let reference = |key: &[u8]| {
        let keys = Keys::parse(key, None).unwrap();
        image(&manifest()).sign(&manifest(), &keys).unwrap().bytes
    };
    let first = reference(&pem(1));
    for key in [
        pkcs8.as_bytes(),
        &sec1,
        sec1_pem.as_bytes(),
        with_parameters.as_bytes(),
    ] {
        assert_eq!(reference(key), first);
    }
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
    for (bytes, fault) in [
        (&encrypted[..], KeyFault::Encrypted),
        (b"", KeyFault::NotP384),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n", KeyFault::NotP384),
        (&[0x30; 64], KeyFault::NotP384),
    ] {
        assert_eq!(Keys::parse(bytes, None).unwrap_err(), fault);
    }
    assert_eq!(format!("{:?}", keys(true)), "Keys(..)");
}

#[test]
fn the_guest_of_an_image_is_trusted() {
    for image in [image(&manifest()), signed(false), signed(true)] {
        let mut wanted = wanted(&image);
        wanted.report_data = Some(NONCE);
        wanted.host_data = Some([0xda; 32]);
        wanted.least_tcb = Some(TCB);
        let verdict = judge(&wanted, &image.bytes, true);
        assert_eq!((verdict.trusted, names(&verdict)), (true, vec![]));
        let guest = verdict.guest.unwrap();
        assert_eq!(guest.launch_digest, wanted.reference.launch_digest);
        assert_eq!(guest.identity, wanted.reference.identity);
        assert_eq!(guest.tcb, "3.0.8.215");
    }
}

#[test]
fn everything_that_is_wrong_is_found() {
    let image = signed(true);
    let mut other = manifest();
    other.debug = true;
    other.snp.policy |= 1 << 19;
    (other.snp.identity.guest_svn, other.snp.identity.image_id) = (6, IdName(*b"another image 16"));
    let other = self::image(&other)
        .sign(&other, &Keys::parse(&pem(3), None).unwrap())
        .unwrap();
    let mut strict = wanted(&image);
    strict.report_data = Some([0; 64]);
    strict.host_data = Some([0; 32]);
    strict.vmpl = 2;
    strict.least_tcb = Some(Tcb {
        microcode: 216,
        ..TCB
    });
    let all = judge(&strict, &other.bytes, true);
    assert!(!all.trusted);
    assert_eq!(
        names(&all),
        [
            "launch-digest",
            "policy",
            "debug",
            "id-key",
            "author-key",
            "image",
            "guest-svn",
            "vmpl",
            "report-data",
            "host-data",
            "old-tcb",
        ]
    );
    let text = all.to_string();
    assert!(text.contains("wrong: the image's security version is 6, not 7\n"));
    assert!(text.contains("3.0.8.215, less than 3.0.8.216\n"));
    assert!(text.ends_with("\nnot trusted\n"));

    // A host that leaves the identity out, or brings one of its own for an image that has none.
    let stripped = judge(&wanted(&image), &image.bytes, false);
    assert_eq!(names(&stripped), ["no-identity"]);
    let unsigned = self::image(&manifest());
    assert!(judge(&wanted(&unsigned), &image.bytes, true).trusted);
    // Debugging alone, which both sides want.
    let mut debug = wanted(&other);
    assert_eq!(names(&judge(&debug, &other.bytes, true)), ["debug"]);
    debug.debug = true;
    assert!(judge(&debug, &other.bytes, true).trusted);
}

#[test]
fn a_report_of_a_lower_level_does_not_speak_for_the_svsm() {
    let image = image(&manifest());
    let (report, table) = report(&mut launch(&image.bytes, true).unwrap(), 2, NONCE);
    assert_eq!(names(&verdict(&wanted(&image), &report, &table)), ["vmpl"]);
}

#[test]
fn a_report_that_no_chip_made_proves_nothing() {
    let image = image(&manifest());
    let (report, table) = report(&mut launch(&image.bytes, true).unwrap(), 0, NONCE);
    let mut forged = report.clone();
    forged[0x90] ^= 1;
    let verdict = verdict(&wanted(&image), &forged, &table);
    assert_eq!(verdict.findings, [Finding::Evidence(Reason::Signature)]);
    assert_eq!(verdict.guest, None);
    assert!(verdict.to_string().ends_with("the report proves nothing\n"));
    let short = self::verdict(&wanted(&image), &report[1..], &table);
    assert_eq!(short.findings, [Finding::Evidence(Reason::Length)]);
}

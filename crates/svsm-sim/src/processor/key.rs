//! Derived keys: a secret that the same guest gets again, and another guest does not.

use super::SecurityProcessor;
use super::message::{Payload, Request};
use crate::cpuid::Host;
use crate::endorsement::derive;
use crate::launch::{Guest, Tcb};
use crate::status::Status;
use sha2::{Digest, Sha384};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags::bitflags! {
    /// What goes into a key beside what always does (56860, `MSG_KEY_REQ`, "GUEST_FIELD_SELECT").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Fields: u64 {
        const POLICY = 1 << 0;
        const IMAGE_ID = 1 << 1;
        const FAMILY_ID = 1 << 2;
        const MEASUREMENT = 1 << 3;
        const GUEST_SVN = 1 << 4;
        const TCB_VERSION = 1 << 5;
        const LAUNCH_MITIGATIONS = 1 << 6;
    }
}

/// The question. The last field is there from version 2 on.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct KeyRequest {
    select: U32,
    reserved_04: U32,
    fields: U64,
    vmpl: U32,
    guest_svn: U32,
    tcb: U64,
    launch_mitigations: U64,
}
const LEN_V1: usize = 0x20;
const LEN_V2: usize = 0x28;
const _: () = assert!(size_of::<KeyRequest>() == LEN_V2);

/// What a key is made of. Fields that were not selected are zero.
#[derive(FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct Mix {
    root: U32,
    signer: U32,
    fields: U64,
    vmpl: U32,
    guest_svn: U32,
    tcb: U64,
    policy: U64,
    launch_mitigations: U64,
    image_id: [u8; 16],
    family_id: [u8; 16],
    measurement: [u8; 48],
    host_data: [u8; 32],
    signer_key: [u8; 48],
}

impl Guest {
    /// `MSG_KEY_RSP`: status and key.
    ///
    /// The firmware does not say how it derives keys, so this way is ours: the first 32 bytes of SHA-384 over a root of 48
    /// bytes, a label, and everything that goes into the key in fields of fixed length.
    pub(super) fn derived_key<H: Host>(
        &self,
        processor: &SecurityProcessor<'_, H>,
        request: &Request,
        payload: &mut Payload,
    ) -> Result<usize, Status> {
        const LEN: usize = 0x40;
        let version = request.header.message_version;
        let len = if version == 1 { LEN_V1 } else { LEN_V2 };
        let asked = request.payload(len, 2)?;
        let mut question: KeyRequest = FromZeros::new_zeroed();
        for (to, from) in question.as_mut_bytes().iter_mut().zip(asked) {
            *to = *from;
        }
        match self.derive(processor, request.header.vmpck, version, &question) {
            Ok(key) => payload.put(0x20, &key),
            Err(status) => payload.status(status),
        }
        Ok(LEN)
    }

    fn derive<H: Host>(
        &self,
        processor: &SecurityProcessor<'_, H>,
        vmpck: u8,
        version: u8,
        question: &KeyRequest,
    ) -> Result<[u8; 32], Status> {
        let (select, key_select) = (question.select.get(), question.select.get() >> 1 & 3);
        let vmpl = question.vmpl.get();
        if select >> 3 != 0 || question.reserved_04.get() != 0 {
            return Err(Status::InvalidParam);
        }
        let migratable = select & 1 != 0;
        if !migratable {
            self.chip_key_allowed(key_select)?;
        }
        // Nobody gets the key of a level above.
        if vmpl < u32::from(vmpck) || vmpl > 3 {
            return Err(Status::InvalidParam);
        }
        let fields = Fields::from_bits(question.fields.get()).ok_or(Status::InvalidParam)?;
        if version == 1 && fields.contains(Fields::LAUNCH_MITIGATIONS) {
            return Err(Status::InvalidParam);
        }

        let mut mix: Mix = FromZeros::new_zeroed();
        mix.root = U32::new(select & 1);
        mix.fields = question.fields;
        mix.vmpl = question.vmpl;
        mix.host_data = self.host_data;
        if let Some(identity) = &self.identity {
            mix.signer = U32::new(if identity.author_key.is_some() { 2 } else { 1 });
            mix.signer_key = identity.author_key.unwrap_or(identity.id_key);
        }
        let mut tcb = processor.chip.tcb;
        if fields.contains(Fields::TCB_VERSION) {
            // A guest may ask for keys of older versions, never of versions that are not there yet.
            tcb = Tcb::from_u64(question.tcb.get())
                .filter(|asked| asked.within(tcb))
                .ok_or(Status::InvalidParam)?;
            mix.tcb = question.tcb;
        }
        if fields.contains(Fields::GUEST_SVN) {
            let svn = self
                .identity
                .map_or(0, |identity| identity.block.guest_svn.get());
            if question.guest_svn.get() > svn {
                return Err(Status::InvalidParam);
            }
            mix.guest_svn = question.guest_svn;
        }
        if fields.contains(Fields::LAUNCH_MITIGATIONS) {
            if question.launch_mitigations.get() & !self.launch_mitigations != 0 {
                return Err(Status::InvalidParam);
            }
            mix.launch_mitigations = question.launch_mitigations;
        }
        if fields.contains(Fields::MEASUREMENT) {
            mix.measurement = self.measurement.0;
        }
        if fields.contains(Fields::POLICY) {
            mix.policy = U64::new(self.start.policy.bits());
        }
        if let Some(identity) = &self.identity {
            if fields.contains(Fields::FAMILY_ID) {
                mix.family_id = identity.block.family_id;
            }
            if fields.contains(Fields::IMAGE_ID) {
                mix.image_id = identity.block.image_id;
            }
        }

        let root = if migratable {
            derive("VMRK", &[&self.keys.vmrk])
        } else {
            derive(
                "key root",
                &[&processor.chip.id, &tcb.to_u64().to_le_bytes()],
            )
        };
        let mut hash = Sha384::new();
        hash.update(root);
        hash.update("derived key");
        hash.update(mix.as_bytes());
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Ok(key)
    }

    /// Whether the guest may use what `KEY_SEL` names: 0 the best key, 1 the VCEK, 2 the VLEK. There never is a VLEK here.
    pub(super) const fn chip_key_allowed(&self, key_select: u32) -> Result<(), Status> {
        match key_select {
            0 | 1 if !self.vcek_disabled => Ok(()),
            _ => Err(Status::InvalidKey),
        }
    }
}

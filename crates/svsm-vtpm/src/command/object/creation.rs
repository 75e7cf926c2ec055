//! How an object was made: creation data, their hash, and the ticket over it.

use super::Call;
use crate::{
    alg::Alg,
    crypto::Digest,
    handle::Handle,
    rc::Rc,
    state::{Core, object::Object, pcr::digest_of},
    structures::{
        attest::{Data, Tag, Ticket},
        pcr::PcrSelections,
        public::Name,
    },
    wire::{Marshal, Writer},
};

/// Room for marshalled creation data.
const CREATION_MAX: usize = 4 + 4 * 6 + 66 + 1 + 2 + 3 * 68 + 2;

/// `TPMS_CREATION_DATA`.
pub(super) struct CreationData {
    pcrs: PcrSelections,
    pcr_digest: Digest,
    locality: u8,
    parent_alg: Alg,
    parent_name: Name,
    parent_qualified: Name,
    outside_info: Data,
}

impl CreationData {
    pub(super) fn new(
        core: &Core<'_>,
        call: &Call<'_>,
        object: &Object,
        parent: Option<&Object>,
        mut pcrs: PcrSelections,
        outside_info: Data,
    ) -> Self {
        let hash = object.public.name_alg.unwrap_or(crate::HashAlg::Sha256);
        let pcr_digest = digest_of(core.crypto, &core.permanent, &core.pcrs, hash, &mut pcrs);
        let root = Name::new(&call.handle_at(0).0.to_be_bytes()).unwrap_or_default();
        Self {
            pcrs,
            pcr_digest,
            locality: if call.locality < 5 {
                1 << call.locality
            } else {
                call.locality
            },
            parent_alg: parent
                .and_then(|p| p.public.name_alg)
                .map_or(Alg::NULL, crate::HashAlg::alg),
            parent_name: parent.map_or_else(|| root.clone(), |p| p.name.clone()),
            parent_qualified: parent.map_or(root, |p| p.qualified_name.clone()),
            outside_info,
        }
    }

    /// Writes the data, their hash, and the ticket.
    pub(super) fn respond(
        &self,
        core: &Core<'_>,
        call: &mut Call<'_>,
        object: &Object,
    ) -> Result<(), Rc> {
        let mut buffer = [0; CREATION_MAX];
        let data = crate::wire::marshal(self, &mut buffer)?;
        let hash = object.public.name_alg.ok_or(Rc::HASH)?;
        let digest = core.crypto.hash(hash, &[data]);
        call.out.sized(data)?;
        call.put(&digest)?;
        call.put(&Ticket {
            tag: Tag::CREATION,
            hierarchy: object.hierarchy,
            digest: creation_ticket(core, object.hierarchy, &object.name, &digest),
        })
    }
}

impl Marshal for CreationData {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.pcrs)?;
        w.put(&self.pcr_digest)?;
        w.put(&self.locality)?;
        w.put(&self.parent_alg)?;
        w.put(&self.parent_name)?;
        w.put(&self.parent_qualified)?;
        w.put(&self.outside_info)
    }
}

/// The proof in a creation ticket.
pub(crate) fn creation_ticket(
    core: &Core<'_>,
    hierarchy: Handle,
    name: &Name,
    digest: &Digest,
) -> Digest {
    let tag = Tag::CREATION.0.to_be_bytes();
    core.seal_of(hierarchy, &[&tag, name.as_slice(), digest.as_slice()])
}

//! Platform configuration registers: four banks of 24, with the PC Client's rules of who may reset and extend them.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::permanent::{ClearState, Permanent};
use crate::{
    alg::HashAlg,
    crypto::{Crypto, Digest},
    rc::Rc,
    structures::pcr::{PCR_COUNT, PcrSelection, PcrSelections, SELECT_LEN},
    wire::{Marshal, Writer},
};

/// What may be done with a PCR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PcrRule {
    /// Localities that may reset it, one bit each.
    pub(crate) reset: u8,
    /// Localities that may extend it.
    pub(crate) extend: u8,
    /// Shutdown(STATE) saves it.
    pub(crate) saved: bool,
    /// A change raises the counter that policies look at.
    pub(crate) counted: bool,
    /// The dynamic launch resets it; it starts as all ones.
    pub(crate) dynamic: bool,
    /// It belongs to the group with an authorization value and a policy.
    pub(crate) group: bool,
}

const fn rule(reset: u8, extend: u8) -> PcrRule {
    PcrRule {
        reset,
        extend,
        saved: false,
        counted: false,
        dynamic: false,
        group: false,
    }
}

const STATIC: PcrRule = PcrRule {
    saved: true,
    counted: true,
    ..rule(0, 0b1_1111)
};

/// PC Client Platform TPM Profile, table "PCR attributes".
pub(crate) const RULES: [PcrRule; PCR_COUNT] = {
    let mut rules = [STATIC; PCR_COUNT];
    let launch = PcrRule {
        dynamic: true,
        counted: true,
        ..rule(0b1_0000, 0b1_1100)
    };
    rules[16] = rule(0b0_1111, 0b1_1111);
    rules[17] = launch;
    rules[18] = launch;
    rules[19] = PcrRule {
        extend: 0b0_1100,
        ..launch
    };
    rules[20] = PcrRule {
        reset: 0b1_0100,
        extend: 0b0_1110,
        group: true,
        ..launch
    };
    rules[21] = PcrRule {
        reset: 0b1_0100,
        extend: 0b0_0100,
        group: true,
        counted: false,
        ..launch
    };
    rules[22] = rules[21];
    rules[23] = rule(0b0_1111, 0b1_1111);
    rules
};

/// The rule of a PCR.
pub(crate) fn rule_of(pcr: usize) -> PcrRule {
    RULES.get(pcr).copied().unwrap_or(STATIC)
}

/// The values of all PCRs in all banks.
#[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
pub(crate) struct PcrValues {
    banks: [[[u8; 64]; PCR_COUNT]; HashAlg::ALL.len()],
}

impl PcrValues {
    pub(crate) const fn new() -> Self {
        Self {
            banks: [[[0; 64]; PCR_COUNT]; HashAlg::ALL.len()],
        }
    }

    pub(crate) fn value(&self, bank: HashAlg, pcr: usize) -> &[u8] {
        self.banks
            .get(bank.index())
            .and_then(|b| b.get(pcr)?.get(..bank.digest_len()))
            .unwrap_or_default()
    }

    pub(crate) fn value_mut(&mut self, bank: HashAlg, pcr: usize) -> &mut [u8] {
        self.banks
            .get_mut(bank.index())
            .and_then(|b| b.get_mut(pcr)?.get_mut(..bank.digest_len()))
            .unwrap_or_default()
    }

    /// Sets a PCR of all banks to the same octet, all over.
    pub(crate) fn fill(&mut self, pcr: usize, octet: u8) {
        for bank in HashAlg::ALL {
            self.value_mut(bank, pcr).fill(octet);
        }
    }

    pub(crate) fn extend(&mut self, crypto: &dyn Crypto, bank: HashAlg, pcr: usize, digest: &[u8]) {
        let new = crypto.hash(bank, &[self.value(bank, pcr), digest]);
        self.value_mut(bank, pcr).copy_from_slice(new.as_slice());
    }

    /// The PCRs that Shutdown(STATE) saves.
    pub(crate) fn write_saved(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        for bank in HashAlg::ALL {
            for pcr in (0..PCR_COUNT).filter(|p| rule_of(*p).saved) {
                w.bytes(self.value(bank, pcr))?;
            }
        }
        Ok(())
    }

    pub(crate) fn read_saved(&mut self, r: &mut crate::wire::Reader<'_>) -> Result<(), Rc> {
        for bank in HashAlg::ALL {
            for pcr in (0..PCR_COUNT).filter(|p| rule_of(*p).saved) {
                let value = r.take(bank.digest_len())?;
                self.value_mut(bank, pcr).copy_from_slice(value);
            }
        }
        Ok(())
    }
}

impl Permanent {
    /// Which PCRs of a bank exist.
    pub(crate) fn allocated(&self, bank: HashAlg) -> PcrSelection {
        Self::selection(&self.pcr_allocated, bank)
    }

    pub(crate) fn selection(
        from: &[u8; SELECT_LEN * HashAlg::ALL.len()],
        bank: HashAlg,
    ) -> PcrSelection {
        let mut it = PcrSelection::none(bank);
        let at = bank.index() * SELECT_LEN;
        if let Some(select) = from.get(at..at + SELECT_LEN) {
            it.select.copy_from_slice(select);
        }
        it
    }

    /// Drops from a selection what is not allocated.
    pub(crate) fn filter(&self, selections: &mut PcrSelections) {
        for selection in selections.iter_mut() {
            let allocated = self.allocated(selection.hash);
            for (octet, mask) in selection.select.iter_mut().zip(allocated.select) {
                *octet &= mask;
            }
        }
    }
}

/// The digest of selected PCRs, after dropping from the selection those that do not exist (Part 1, clause 17.5.2).
pub(crate) fn digest_of(
    crypto: &dyn Crypto,
    permanent: &Permanent,
    values: &PcrValues,
    hash: HashAlg,
    selections: &mut PcrSelections,
) -> Digest {
    permanent.filter(selections);
    let mut list: [&[u8]; PCR_COUNT * HashAlg::ALL.len()] = [&[]; PCR_COUNT * HashAlg::ALL.len()];
    let selected = selections.iter().flat_map(|s| {
        (0..PCR_COUNT)
            .filter(|p| s.selects(*p))
            .map(|p| values.value(s.hash, p))
    });
    let mut count = 0;
    for (place, value) in list.iter_mut().zip(selected) {
        *place = value;
        count += 1;
    }
    crypto.hash(hash, list.get(..count).unwrap_or_default())
}

impl ClearState {
    /// The authorization value of a PCR.
    pub(crate) fn auth_of_pcr(&self, pcr: usize) -> Digest {
        if rule_of(pcr).group {
            self.pcr_auth.clone()
        } else {
            Digest::EMPTY
        }
    }
}

/// The selections of all banks, as capabilities report them.
#[derive(Debug)]
pub(crate) struct Allocation<'a>(pub(crate) &'a Permanent);

impl Marshal for Allocation<'_> {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&u32::try_from(HashAlg::ALL.len()).map_err(|_| Rc::SIZE)?)?;
        HashAlg::ALL
            .iter()
            .try_for_each(|bank| w.put(&self.0.allocated(*bank)))
    }
}

//! Without the feature `pqc` no message is signed or verified in pieces.

use zeroize::Zeroize;

use super::{Core, entity::Entity};
use crate::{
    crypto::HashState,
    rc::Rc,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

#[derive(Clone, Debug)]
pub(crate) enum Message {}

impl Message {
    pub(crate) fn is_sound(&self, _: impl Fn(&HashState) -> bool) -> bool {
        match *self {}
    }
}

impl Zeroize for Message {
    fn zeroize(&mut self) {
        match *self {}
    }
}

impl Marshal for Message {
    fn write(&self, _: &mut Writer<'_>) -> Result<(), Rc> {
        match *self {}
    }
}

impl Unmarshal for Message {
    fn read(_: &mut Reader<'_>) -> Result<Self, Rc> {
        Err(Rc::VALUE)
    }
}

#[expect(clippy::unused_self, reason = "the feature's own function needs it")]
impl Core<'_> {
    pub(crate) const fn update_message(&self, _: Entity, _: &[u8]) -> Result<bool, Rc> {
        Ok(false)
    }
}

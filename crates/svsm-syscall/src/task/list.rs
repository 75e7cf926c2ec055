//! Lists of tasks, threaded through an array: no memory of their own, and any task can be taken out
//! at once.

/// Where an element stands between others of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    before: u16,
    after: u16,
}

const NONE: u16 = u16::MAX;

/// The neighbours of `N` elements, each of which is in one list at most.
#[derive(Debug)]
pub(super) struct Links<const N: usize>([Node; N]);

/// One list. Elements are numbers below `N`.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u16,
    last: u16,
    len: u16,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        len: 0,
    };

    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn first(&self) -> Option<u16> {
        if self.first == NONE {
            None
        } else {
            Some(self.first)
        }
    }

    pub(super) const fn last(&self) -> Option<u16> {
        if self.last == NONE {
            None
        } else {
            Some(self.last)
        }
    }
}

impl<const N: usize> Links<N> {
    pub(super) const fn new() -> Self {
        const { assert!(N < NONE as usize, "elements have 16 bits") };
        Self(
            [Node {
                before: NONE,
                after: NONE,
            }; N],
        )
    }

    /// Puts an element that is in no list ahead of `after`, or at the end.
    pub(super) fn insert(&mut self, list: &mut List, element: u16, after: Option<u16>) {
        let after = after.unwrap_or(NONE);
        let before = self.before(after).unwrap_or(list.last);
        if let Some(node) = self.node(element) {
            *node = Node { before, after };
        }
        match self.node(before) {
            Some(node) => node.after = element,
            None => list.first = element,
        }
        match self.node(after) {
            Some(node) => node.before = element,
            None => list.last = element,
        }
        list.len = list.len.saturating_add(1);
    }

    /// Takes an element out of the list that it is in.
    pub(super) fn remove(&mut self, list: &mut List, element: u16) {
        let Some(node) = self.node(element) else {
            return;
        };
        let Node { before, after } = *node;
        match self.node(before) {
            Some(node) => node.after = after,
            None => list.first = after,
        }
        match self.node(after) {
            Some(node) => node.before = before,
            None => list.last = before,
        }
        list.len = list.len.saturating_sub(1);
    }

    /// The elements of a list.
    pub(super) fn iter(&self, list: &List) -> impl Iterator<Item = u16> + '_ {
        let next = |element: &u16| {
            let after = self.0.get(usize::from(*element))?.after;
            (after != NONE).then_some(after)
        };
        core::iter::successors(list.first(), next).take(N)
    }

    fn before(&self, element: u16) -> Option<u16> {
        self.0.get(usize::from(element)).map(|node| node.before)
    }

    fn node(&mut self, element: u16) -> Option<&mut Node> {
        self.0.get_mut(usize::from(element))
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::{Links, List};

    proptest! {
        #[test]
        fn lists_do_what_vectors_do(steps in proptest::collection::vec((0..8_u16, any::<Option<prop::sample::Index>>()), 0..100)) {
            let (mut links, mut list, mut model) = (Links::<8>::new(), List::EMPTY, vec![]);
            for (element, place) in steps {
                if let Some(at) = model.iter().position(|other| *other == element) {
                    model.remove(at);
                    links.remove(&mut list, element);
                } else {
                    let at = place.map_or(model.len(), |place| place.index(model.len() + 1));
                    links.insert(&mut list, element, model.get(at).copied());
                    model.insert(at, element);
                }
                prop_assert_eq!(&links.iter(&list).collect::<Vec<_>>(), &model);
                prop_assert_eq!(list.len(), model.len());
                prop_assert_eq!((list.first(), list.last()), (model.first().copied(), model.last().copied()));
            }
        }
    }
}

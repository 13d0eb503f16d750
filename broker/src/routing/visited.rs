//! A small set in order of insertion: a plain list while it is short.

use std::hash::Hash;

use smallvec::SmallVec;

use crate::model::collections::Set;

const LINEAR_MAX: usize = 16;

/// Numbers that were met before.
#[derive(Debug)]
pub(crate) struct Visited<T> {
    order: SmallVec<[T; LINEAR_MAX]>,
    index: Option<Set<T>>,
}

impl<T> Default for Visited<T> {
    fn default() -> Self {
        Self { order: SmallVec::new(), index: None }
    }
}

impl<T: Copy + Eq + Hash> Visited<T> {
    /// Adds one; false when it was there.
    pub(crate) fn insert(&mut self, id: T) -> bool {
        let new = match &mut self.index {
            Some(index) => index.insert(id),
            None => !self.order.contains(&id),
        };
        if new {
            self.order.push(id);
            if self.index.is_none() && self.order.len() > LINEAR_MAX {
                self.index = Some(self.order.iter().copied().collect());
            }
        }
        new
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.order
    }
}

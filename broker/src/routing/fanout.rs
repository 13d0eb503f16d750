//! Fanout: every destination, whatever the key.

use std::hash::Hash;

use super::targets::Targets;

/// All destinations of the exchange.
#[derive(Debug)]
pub struct Fanout<D> {
    targets: Targets<D>,
}

impl<D> Default for Fanout<D> {
    fn default() -> Self {
        Self { targets: Targets::default() }
    }
}

impl<D: Clone + Eq + Hash> Fanout<D> {
    /// Adds a binding.
    pub fn bind(&mut self, destination: &D) {
        self.targets.add(destination);
    }

    /// Removes a binding.
    pub fn unbind(&mut self, destination: &D) {
        self.targets.remove(destination);
    }

    /// Reports each destination once.
    pub fn route<'t>(&'t self, visit: &mut impl FnMut(&'t D)) {
        self.targets.iter().for_each(visit);
    }
}

//! Direct: the routing key is the binding key.

use std::hash::Hash;
use std::sync::Arc;

use super::targets::Targets;
use crate::model::collections::Map;

/// Destinations by binding key.
#[derive(Debug)]
pub struct Direct<D> {
    keys: Map<Arc<str>, Targets<D>>,
}

impl<D> Default for Direct<D> {
    fn default() -> Self {
        Self { keys: Map::default() }
    }
}

impl<D: Clone + Eq + Hash> Direct<D> {
    /// Adds a binding.
    pub fn bind(&mut self, destination: &D, key: &Arc<str>) {
        self.keys.entry(key.clone()).or_default().add(destination);
    }

    /// Removes a binding.
    pub fn unbind(&mut self, destination: &D, key: &str) {
        if let Some(targets) = self.keys.get_mut(key) {
            targets.remove(destination);
            if targets.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Reports each destination of the key once.
    pub fn route<'t>(&'t self, key: &str, visit: &mut impl FnMut(&'t D)) {
        if let Some(targets) = self.keys.get(key) {
            targets.iter().for_each(visit);
        }
    }
}

//! Modulus: the hash of the routing keys, modulo the number of bindings, selects one of them.

use super::target::Target;

/// The destination of each binding, in the order of identities, so that it does not depend on when they were bound. A
/// change moves what is behind it: changing a table of n bindings copies up to n pointers.
#[derive(Debug)]
pub struct Modulus<D> {
    sorted: Vec<D>,
}

impl<D> Default for Modulus<D> {
    fn default() -> Self {
        Self { sorted: Vec::new() }
    }
}

impl<D: Target> Modulus<D> {
    /// Adds a binding.
    pub fn bind(&mut self, destination: &D) {
        let at = self.first(destination);
        self.sorted.insert(at, destination.clone());
    }

    /// Removes a binding.
    pub fn unbind(&mut self, destination: &D) {
        let at = self.first(destination);
        if self.sorted.get(at) == Some(destination) {
            self.sorted.remove(at);
        }
    }

    /// The destination for a hash; `None` when there is none at all.
    pub fn pick(&self, hash: u64) -> Option<&D> {
        let at = hash.checked_rem(self.sorted.len() as u64)?;
        self.sorted.get(at as usize)
    }

    fn first(&self, destination: &D) -> usize {
        let identity = destination.identity();
        self.sorted.partition_point(|known| known.identity() < identity)
    }
}

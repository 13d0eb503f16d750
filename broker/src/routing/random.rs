//! Random: each binding is as likely as any other.

use std::hash::Hash;

use crate::model::collections::Map;

/// The destination of each binding, in no particular order.
#[derive(Debug)]
pub struct Random<D> {
    /// With each destination which of its bindings it is: the first has 0.
    list: Vec<(D, u32)>,
    positions: Map<(D, u32), usize>,
    counts: Map<D, u32>,
}

impl<D> Default for Random<D> {
    fn default() -> Self {
        Self { list: Vec::new(), positions: Map::default(), counts: Map::default() }
    }
}

impl<D: Clone + Eq + Hash> Random<D> {
    /// Adds a binding.
    pub fn bind(&mut self, destination: &D) {
        let count = self.counts.entry(destination.clone()).or_default();
        let entry = (destination.clone(), *count);
        *count += 1;
        self.positions.insert(entry.clone(), self.list.len());
        self.list.push(entry);
    }

    /// Removes a binding.
    pub fn unbind(&mut self, destination: &D) {
        let Some(count) = self.counts.get_mut(destination) else {
            return;
        };
        *count -= 1;
        let last = (destination.clone(), *count);
        if *count == 0 {
            self.counts.remove(destination);
        }
        let Some(at) = self.positions.remove(&last) else {
            return;
        };
        self.list.swap_remove(at);
        if let Some(moved) = self.list.get(at) {
            self.positions.insert(moved.clone(), at);
        }
    }

    /// The destination for a random number; `None` when there is none at all.
    pub fn pick(&self, random: u64) -> Option<&D> {
        let at = (u128::from(random) * self.list.len() as u128) >> 64;
        self.list.get(at as usize).map(|(destination, _)| destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    #[test]
    fn every_binding_is_as_likely() {
        let mut table = Random::default();
        for destination in [0, 1, 2, 3, 0, 0, 4, 3] {
            table.bind(&destination);
        }
        table.unbind(&4);
        table.unbind(&3);
        assert!(table.pick(0).is_some() && table.pick(u64::MAX).is_some());
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = [0_u32; 5];
        for _ in 0..60_000 {
            if let Some(picked) = table.pick(random.next_u64()) {
                counts[*picked] += 1;
            }
        }
        // Six bindings are left, three of them to the same destination.
        for (count, share) in counts.into_iter().zip([0.5, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.0]) {
            let expected: f64 = 60_000.0 * share;
            let deviation = (expected * (1.0 - share)).sqrt();
            assert!((f64::from(count) - expected).abs() <= 3.0 * deviation, "{counts:?}");
        }
    }
}

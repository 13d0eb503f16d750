//! The destinations behind one key: dense to walk, and still quick to change when there are many.

use std::hash::Hash;

use smallvec::SmallVec;

use crate::model::collections::Map;

/// Beyond this many an index from destination to position is kept.
const LINEAR_MAX: usize = 16;

/// Destinations, each with the number of bindings that lead to it from here.
#[derive(Debug)]
pub struct Targets<D> {
    list: SmallVec<[(D, u32); 1]>,
    index: Option<Box<Map<D, usize>>>,
}

impl<D> Default for Targets<D> {
    fn default() -> Self {
        Self { list: SmallVec::new(), index: None }
    }
}

impl<D: Clone + Eq + Hash> Targets<D> {
    /// Counts one more binding to the destination.
    pub fn add(&mut self, destination: &D) {
        let position = self.position(destination);
        if let Some((_, count)) = position.and_then(|at| self.list.get_mut(at)) {
            *count = count.saturating_add(1);
            return;
        }
        if let Some(index) = &mut self.index {
            index.insert(destination.clone(), self.list.len());
        }
        self.list.push((destination.clone(), 1));
        if self.index.is_none() && self.list.len() > LINEAR_MAX {
            let positions = self.list.iter().enumerate();
            self.index = Some(Box::new(positions.map(|(at, (known, _))| (known.clone(), at)).collect()));
        }
    }

    /// Counts one binding less; the destination goes with its last one.
    pub fn remove(&mut self, destination: &D) {
        let Some(at) = self.position(destination) else {
            return;
        };
        let Some((_, count)) = self.list.get_mut(at) else {
            return;
        };
        if *count > 1 {
            *count -= 1;
            return;
        }
        self.list.swap_remove(at);
        if let Some(index) = &mut self.index {
            index.remove(destination);
            if let Some((moved, _)) = self.list.get(at) {
                index.insert(moved.clone(), at);
            }
        }
        if self.list.len() <= LINEAR_MAX / 2 {
            self.index = None;
            self.list.shrink_to_fit();
        }
    }

    /// Whether nothing is bound here.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of destinations.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Each destination once.
    pub fn iter(&self) -> impl Iterator<Item = &D> {
        self.list.iter().map(|(destination, _)| destination)
    }

    fn position(&self, destination: &D) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(destination).copied(),
            None => self.list.iter().position(|(known, _)| known == destination),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::hash::Hasher;

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// A number that counts how often numbers are compared or hashed.
    #[derive(Clone, Debug)]
    struct Counting(u32);

    impl PartialEq for Counting {
        fn eq(&self, other: &Self) -> bool {
            LOOKS.set(LOOKS.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Counting {}

    impl Hash for Counting {
        fn hash<H: Hasher>(&self, state: &mut H) {
            LOOKS.set(LOOKS.get() + 1);
            self.0.hash(state);
        }
    }

    /// Each change looks at a few destinations, however many there are.
    #[test]
    fn many_are_added_and_removed_one_by_one() {
        const MANY: u32 = 100_000;
        let mut targets = Targets::default();
        for number in 0..MANY {
            targets.add(&Counting(number));
        }
        assert_eq!(targets.len(), MANY as usize);
        // From the front, from the back, and what is between.
        let between = (0..MANY).filter(|number| number % 4 > 1);
        for number in (0..MANY).step_by(4).chain((1..MANY).step_by(4).rev()).chain(between) {
            targets.remove(&Counting(number));
        }
        assert!(targets.is_empty());
        let looks = LOOKS.get();
        assert!(looks < 20 * u64::from(MANY), "{looks}");
    }

    #[test]
    fn counts_and_index_agree_with_a_map() {
        let mut targets = Targets::default();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        // A walk that grows past the index threshold and shrinks below it several times.
        for step in 0_u32..4_000 {
            let destination = step.wrapping_mul(2_654_435_761) % 40;
            if (step / 100) % 2 == 0 {
                targets.add(&destination);
                *model.entry(destination).or_default() += 1;
            } else {
                targets.remove(&destination);
                if let Some(count) = model.get_mut(&destination) {
                    *count -= 1;
                    if *count == 0 {
                        model.remove(&destination);
                    }
                }
            }
            let mut listed: Vec<u32> = targets.iter().copied().collect();
            listed.sort_unstable();
            assert_eq!(listed, model.keys().copied().collect::<Vec<_>>());
        }
    }
}

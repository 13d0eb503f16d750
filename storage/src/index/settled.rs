//! What was settled, remembered while an index is built from a log whose beginning is gone: there a Relocate stands for a
//! message that no Enqueue names, unless the message was settled before.

use std::collections::{BTreeMap, HashMap};

use crate::types::{QueueId, Seq, SeqRange};

/// Settled messages of each queue, in ranges (first and last) that neither touch nor overlap.
#[derive(Debug, Default)]
pub(crate) struct Settled(HashMap<QueueId, BTreeMap<Seq, Seq>>);

impl Settled {
    pub(crate) fn add(&mut self, queue: QueueId, range: SeqRange) {
        if range.last < range.first {
            return;
        }
        let ranges = self.0.entry(queue).or_default();
        let (mut first, mut last) = (range.first, range.last);
        // Those that begin inside or right behind it, and the one that may reach into it, become one with it.
        while let Some((&begin, &end)) = ranges.range(..=last.saturating_add(1)).next_back()
            && end.saturating_add(1) >= first
        {
            ranges.remove(&begin);
            first = first.min(begin);
            last = last.max(end);
        }
        ranges.insert(first, last);
    }

    pub(crate) fn contains(&self, queue: QueueId, seq: Seq) -> bool {
        let before = self.0.get(&queue).and_then(|ranges| ranges.range(..=seq).next_back());
        before.is_some_and(|(_, &last)| last >= seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut settled = Settled::default();
        for (first, last) in [(10, 12), (20, 22), (14, 15), (13, 13), (5, 4), (1, 2), (11, 21), (40, u64::MAX)] {
            settled.add(7, SeqRange { first, last });
        }
        assert_eq!(settled.0[&7], BTreeMap::from([(1, 2), (10, 22), (40, u64::MAX)]));
        for (seq, is_in) in [(0, false), (1, true), (3, false), (10, true), (22, true), (23, false), (u64::MAX, true)] {
            assert_eq!(settled.contains(7, seq), is_in, "{seq}");
        }
        assert!(!settled.contains(8, 1));
    }
}

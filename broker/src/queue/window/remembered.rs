//! The keys of a deduplication window in memory: the newest so many, each for as long as it is to be remembered.

use std::collections::BTreeMap;

use storage::{Lsn, Seq};

use crate::model::collections::Map;
use crate::model::deduplication::Key;

/// Memory for one key, roughly.
const KEY_BYTES: usize = 128;

/// See the module's documentation. It knows neither a clock nor the store.
#[derive(Debug)]
pub struct Remembered {
    size: usize,
    next_seq: Seq,
    by_key: Map<Key, Seq>,
    /// The oldest first.
    entries: BTreeMap<Seq, Entry>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    /// Wall time in milliseconds; `None` is never.
    until_ms: Option<u64>,
    /// Where its message is durable.
    lsn: Lsn,
    /// The store has it under its number.
    stored: bool,
}

impl Entry {
    fn is_over(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| until_ms <= now_ms)
    }
}

/// A key to be remembered.
#[derive(Clone, Copy, Debug)]
pub struct New {
    /// The key.
    pub key: Key,
    /// Wall time in milliseconds until which it counts; `None` is for as long as there is room.
    pub until_ms: Option<u64>,
    /// It goes into the store as well.
    pub stored: bool,
}

impl Remembered {
    /// Remembers up to `size` keys, at least one; numbers them from `next_seq` on.
    pub fn new(size: usize, next_seq: Seq) -> Self {
        Self { size: size.max(1), next_seq, by_key: Map::default(), entries: BTreeMap::new() }
    }

    /// How many keys are kept, those included whose time is over and that nobody has come upon since.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory that it takes, roughly.
    pub fn bytes(&self) -> usize {
        self.len() * KEY_BYTES
    }

    /// Where the message with this key is durable, if the key is remembered.
    pub fn find(&self, key: &Key, now_ms: u64) -> Option<Lsn> {
        let entry = self.entries.get(self.by_key.get(key)?)?;
        (!entry.is_over(now_ms)).then_some(entry.lsn)
    }

    /// Remembers a key and returns its number. The store's numbers of those that are forgotten for it are added to `forgotten`.
    pub fn insert(&mut self, new: New, now_ms: u64, forgotten: &mut Vec<Seq>) -> Seq {
        let seq = self.next_seq;
        self.put(seq, new, now_ms, forgotten);
        seq
    }

    /// As [`Remembered::insert`], for one that the store has under this number, which is above those before.
    pub fn put(&mut self, seq: Seq, new: New, now_ms: u64, forgotten: &mut Vec<Seq>) {
        self.next_seq = self.next_seq.max(seq + 1);
        if let Some(known) = self.by_key.get(&new.key).copied() {
            self.remove(known, forgotten);
        }
        while let Some((&oldest, entry)) = self.entries.first_key_value()
            && (self.entries.len() >= self.size || entry.is_over(now_ms))
        {
            self.remove(oldest, forgotten);
        }
        let New { key, until_ms, stored } = new;
        self.by_key.insert(key, seq);
        self.entries.insert(seq, Entry { key, until_ms, lsn: Lsn(0), stored });
    }

    fn remove(&mut self, seq: Seq, forgotten: &mut Vec<Seq>) {
        if let Some(entry) = self.entries.remove(&seq) {
            self.by_key.remove(&entry.key);
            if entry.stored {
                forgotten.push(seq);
            }
        }
    }

    /// The message with the key of this number is durable at `lsn`.
    pub fn durable_at(&mut self, seq: Seq, lsn: Lsn) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.lsn = lsn;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::table::ValueRef;

    use super::*;

    fn key(number: u8) -> Key {
        Key::of(&ValueRef::U8(number))
    }

    fn new(number: u8) -> New {
        New { key: key(number), until_ms: None, stored: true }
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut remembered = Remembered::new(2, 7);
        let mut forgotten = Vec::new();
        for number in [1, 2, 3] {
            remembered.insert(new(number), 0, &mut forgotten);
        }
        assert_eq!(forgotten, [7]);
        assert_eq!([1, 2, 3].map(|number| remembered.find(&key(number), 0).is_some()), [false, true, true]);
    }

    #[test]
    fn a_key_whose_time_is_over_can_come_again() {
        let mut remembered = Remembered::new(10, 1);
        let mut forgotten = Vec::new();
        let seq = remembered.insert(New { until_ms: Some(5), ..new(1) }, 0, &mut forgotten);
        remembered.durable_at(seq, Lsn(40));
        assert_eq!((remembered.find(&key(1), 4), remembered.find(&key(1), 5)), (Some(Lsn(40)), None));
        remembered.insert(new(1), 5, &mut forgotten);
        assert_eq!((forgotten, remembered.len()), (vec![1], 1));
        assert_eq!(remembered.find(&key(1), u64::MAX), Some(Lsn(0)));
    }

    #[test]
    fn what_the_store_does_not_have_need_not_be_settled_there() {
        let mut remembered = Remembered::new(1, 1);
        let mut forgotten = Vec::new();
        remembered.insert(New { stored: false, ..new(1) }, 0, &mut forgotten);
        remembered.insert(new(2), 0, &mut forgotten);
        assert!(forgotten.is_empty());
    }

    /// A list, searched from the start each time.
    #[derive(Default)]
    struct Model {
        entries: Vec<(Seq, New)>,
    }

    impl Model {
        fn find(&self, key: &Key, now_ms: u64) -> bool {
            self.entries.iter().any(|(_, new)| new.key == *key && new.until_ms.is_none_or(|until| until > now_ms))
        }

        fn insert(&mut self, seq: Seq, new: New, size: usize, now_ms: u64) -> Vec<Seq> {
            let mut gone = Vec::new();
            let mut forget = |entries: &mut Vec<(Seq, New)>, at: usize| {
                let (seq, new) = entries.remove(at);
                gone.extend(new.stored.then_some(seq));
            };
            if let Some(at) = self.entries.iter().position(|(_, known)| known.key == new.key) {
                forget(&mut self.entries, at);
            }
            while let Some((_, oldest)) = self.entries.first()
                && (self.entries.len() == size || oldest.until_ms.is_some_and(|until| until <= now_ms))
            {
                forget(&mut self.entries, 0);
            }
            self.entries.push((seq, new));
            gone
        }
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_list_does(
            size in 1_usize..6,
            steps in prop::collection::vec((0_u8..8, prop::option::of(0_u64..8), any::<bool>(), 0_u64..4), 1..200),
        ) {
            let mut remembered = Remembered::new(size, 1);
            let mut model = Model::default();
            let mut now_ms = 0;
            for (number, ttl_ms, stored, passed) in steps {
                now_ms += passed;
                for number in 0..8 {
                    prop_assert_eq!(remembered.find(&key(number), now_ms).is_some(), model.find(&key(number), now_ms));
                }
                if !model.find(&key(number), now_ms) {
                    let new = New { key: key(number), until_ms: ttl_ms.map(|ttl| now_ms + ttl), stored };
                    let mut forgotten = Vec::new();
                    let seq = remembered.insert(new, now_ms, &mut forgotten);
                    prop_assert_eq!(forgotten, model.insert(seq, new, size, now_ms));
                }
                prop_assert!(remembered.len() <= size);
                prop_assert_eq!(remembered.len(), remembered.by_key.len());
            }
        }
    }
}

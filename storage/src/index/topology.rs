//! The durable topology: opaque keys and values, mirrored into sled under small numbers, since keys and values can be of any
//! size and sled's must stay small.

use std::collections::BTreeMap;

/// One key's value and where sled keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) number: u64,
    /// Pieces that sled has of it.
    pub(crate) pieces: u32,
    pub(crate) value: Vec<u8>,
}

/// The whole topology.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    pub(crate) records: BTreeMap<Vec<u8>, Record>,
    pub(crate) next_number: u64,
    /// Keys that differ from what sled has.
    pub(crate) dirty: Vec<Vec<u8>>,
    /// Numbers that sled no longer needs, with their pieces.
    pub(crate) removed: Vec<(u64, u32)>,
    /// Bytes of all keys and values.
    pub(crate) bytes: u64,
}

impl Topology {
    pub(crate) fn put(&mut self, key: Vec<u8>, mut value: Vec<u8>) {
        // It may have been built in more room than it needs, and stays as long as what it describes.
        value.shrink_to_fit();
        self.dirty.push(key.clone());
        self.bytes += value.len() as u64;
        if let Some(record) = self.records.get_mut(&key) {
            self.bytes -= record.value.len() as u64;
            record.value = value;
            return;
        }
        self.bytes += key.len() as u64;
        let number = self.next_number;
        self.next_number += 1;
        self.records.insert(key, Record { number, pieces: 0, value });
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        if let Some(record) = self.records.remove(key) {
            self.bytes -= (key.len() + record.value.len()) as u64;
            self.removed.push((record.number, record.pieces));
        }
    }

    /// As [`Topology::put`], for what comes from sled itself, in ascending order of the numbers.
    pub(crate) fn load(&mut self, number: u64, pieces: u32, key: Vec<u8>, value: Vec<u8>) {
        self.next_number = self.next_number.max(number.saturating_add(1));
        // A key that went and came again while a checkpoint was taken is there twice when a crash cuts off the next one. The
        // older record has to go from sled too, or it shows again once the newer is deleted.
        self.bytes += (key.len() + value.len()) as u64;
        let key_len = key.len();
        if let Some(older) = self.records.insert(key, Record { number, pieces, value }) {
            self.bytes -= (key_len + older.value.len()) as u64;
            self.removed.push((older.number, older.pieces));
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_sled_has_twice_is_deleted_twice() {
        let mut topology = Topology::default();
        topology.load(5, 2, b"key".to_vec(), b"old".to_vec());
        topology.load(9, 1, b"key".to_vec(), b"new".to_vec());
        assert_eq!(topology.records[&b"key".to_vec()].value, b"new");
        assert!(topology.is_dirty());
        topology.delete(b"key");
        assert_eq!(topology.removed, [(5, 2), (9, 1)]);
        assert_eq!(topology.bytes, 0);
    }
}

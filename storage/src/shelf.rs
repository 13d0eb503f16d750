//! The way to columns that are in sled alone, for any thread.

use parking_lot::RwLock;

use crate::index::bits::Bits;
use crate::index::chunk::{CHUNK, Stored};
use crate::index::codec::{self, QUARTER_SLOTS};
use crate::index::columns::Columns;
use crate::state::{State, columns_key, guarded};

/// sled, as long as it is open. Whoever reads holds the lock; the checkpoint thread takes it away to open it again.
#[derive(Default)]
pub(crate) struct Shelf(RwLock<Option<sled::Db>>);

impl Shelf {
    pub(crate) fn open(&self, db: sled::Db) {
        *self.0.write() = Some(db);
    }

    /// Lets go of sled, once nobody reads.
    pub(crate) fn close(&self) {
        let db = self.0.write().take();
        // Its last owner writes what is left: not under the lock.
        drop(db);
    }

    /// Lets go of sled and takes what `open` comes back with. Who reads meanwhile waits.
    pub(crate) fn replace(&self, open: impl FnOnce() -> Result<State, String>) -> Result<State, String> {
        let mut db = self.0.write();
        *db = None;
        let state = open()?;
        *db = Some(state.handle());
        Ok(state)
    }

    /// The columns of a chunk.
    pub(crate) fn columns(&self, queue: u64, number: u64) -> Result<Columns, String> {
        self.values(queue, number).and_then(|values| decode(&values)).map(|(columns, _, _)| columns)
    }

    /// The values that hold the columns of a chunk, as they are: one, or four.
    pub(crate) fn values(&self, queue: u64, number: u64) -> Result<Vec<sled::IVec>, String> {
        let db = self.0.read();
        values(db.as_ref().ok_or("it is not open")?, queue, number)
    }
}

/// As [`Shelf::values`], for whoever has the database.
pub(crate) fn values(db: &sled::Db, queue: u64, number: u64) -> Result<Vec<sled::IVec>, String> {
    let mut found = Vec::with_capacity(1);
    for start in (0..CHUNK).step_by(QUARTER_SLOTS) {
        let value = guarded(|| db.get(columns_key(queue, number * CHUNK + start)))?
            .ok_or_else(|| format!("the columns of chunk {number} of queue {queue} are missing"))?;
        found.push(value);
        if found.len() == 1 && codec::part_of(&found[0]) != Some(Stored::Quarters) {
            break;
        }
    }
    Ok(found)
}

/// Columns of what [`values`] gave, which slots they have, and in what parts they are stored.
pub(crate) fn decode<T: AsRef<[u8]>>(values: &[T]) -> Result<(Columns, Bits, Stored), String> {
    let (mut columns, mut known, mut stored) = (Columns::default(), Bits::default(), Stored::Nowhere);
    for (at, value) in values.iter().enumerate() {
        stored = codec::take_columns(value.as_ref(), at * QUARTER_SLOTS, &mut columns, &mut known)
            .ok_or("the columns of a chunk cannot be read")?;
    }
    Ok((columns, known, stored))
}

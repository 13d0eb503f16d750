//! The durable store of Warren: a log of groups, and sled for the state it starts from.
//!
//! It knows opaque bytes, queue numbers and sequence numbers; it knows nothing of AMQP and needs no runtime. README.md has the
//! files, the formats and the rules of recovery.
//!
//! # Layout
//!
//! - `store`: the public interface; `core`: what its threads share.
//! - `commit`: pending buffer, encoder thread, sync thread, those who wait.
//! - `log`: bytes of groups and entries, names of segments.
//! - `space`: files for the log, what is kept for a full disk, and how full it is; `shortage`: errors that pass.
//! - `index`: which messages are live and where they are.
//! - `schedule`, `checkpoint`, `state`, `snapshot`: the index in sled and in a file of its own; `shelf`: the part that is only there.
//! - `compact`: moves the rest out of segments that are mostly dead.
//! - `recover`: from a directory back to an index.
//! - `inspect`: a look into a directory that no store has open.
//! - `backup`: a copy of the directory while the store goes on.
//! - `spill`: messages that need not survive and that memory has no room for.
//! - `reader`, `large`, `fs`: reading back, large messages, the file system; `callback`: telling the store's user.
#![forbid(unsafe_code)]

mod backup;
mod bytes_cursor;
mod callback;
mod checkpoint;
mod commit;
mod compact;
mod core;
mod error;
pub mod fs;
mod index;
pub mod inspect;
mod large;
mod log;
mod options;
mod reader;
mod recover;
mod schedule;
mod shelf;
mod shortage;
mod slow;
mod snapshot;
mod space;
mod spill;
mod state;
mod stats;
mod store;
mod types;

pub use backup::{BackupError, BackupManifest, BackupReport};
pub use error::{CloseError, OpenError};
pub use options::Options;
pub use slow::Slow;
pub use spill::{Spill, SpillBatch, SpillOptions, SpillStats};
pub use stats::{BUCKETS, Histogram, Stats};
pub use store::Store;
pub use types::{
    Due, Durable, Listed, LostMessages, Lsn, Meta, Payload, Place, QueueId, ReadBatch, ReadMessage, Recovered,
    RecoveredQueue, Seq, SeqRange, TopologyChange, TxOp,
};

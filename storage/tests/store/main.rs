//! Tests of the store through its public interface, one file per subject.

#[path = "../fixtures/archive.rs"]
mod archive;

mod append;
mod backup;
mod checkpoint;
mod cold;
mod common;
mod compact;
mod concurrency;
mod crash;
mod crash_model;
mod damage;
mod deadlines;
mod delivery_counts;
mod disk_full;
mod failure;
mod faulty;
mod hooked;
mod inspect;
mod large;
mod large_waits;
mod model;
mod recovery;
mod recycle;
mod sled_trace;
mod small_disk;
mod spill;
mod transaction;
mod upgrade;

//! Tests of the store through its public interface, one file per subject.

mod append;
mod checkpoint;
mod cold;
mod common;
mod compact;
mod concurrency;
mod crash;
mod deadlines;
mod disk;
mod disk_full;
mod failure;
mod hooked;
mod large;
mod large_waits;
mod model;
mod power_loss;
mod recovery;
mod recycle;
mod small_disk;
mod transaction;

//! Tests of the store through its public interface, one file per subject.

mod append;
mod checkpoint;
mod cold;
mod common;
mod concurrency;
mod crash;
mod disk;
mod failure;
mod hooked;
mod large;
mod model;
mod power_loss;
mod recovery;
mod recycle;
mod spill;
mod transaction;

//! Tests of the store through its public interface, one file per subject.

#[path = "../fixtures/archive.rs"]
mod archive;

mod append;
mod backup;
mod checkpoint;
mod common;
mod concurrency;
mod crash;
mod disk;
mod failure;
mod hooked;
mod inspect;
mod large;
mod model;
mod power_loss;
mod recovery;
mod recycle;
mod transaction;
mod upgrade;

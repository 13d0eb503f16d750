//! Tests of the store through its public interface, one file per subject.

mod append;
mod checkpoint;
mod common;
mod concurrency;
mod crash;
mod crash_model;
mod failure;
mod faulty;
mod hooked;
mod large;
mod model;
mod recovery;
mod recycle;
mod sled_trace;
mod transaction;

//! Tests of the store through its public interface, one file per subject.

mod append;
mod common;

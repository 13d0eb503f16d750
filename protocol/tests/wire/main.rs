//! Property tests of the whole crate through its public functions.

mod hostile;
mod roundtrip;
mod stream;
mod values;

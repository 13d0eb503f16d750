//! The broker for these tests: the same main as the `warren` binary.
//!
//! Only the tests of the package that owns a binary are told where it is, and cargo rebuilds it with the broker.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    broker::run()
}

//! The same `main` as the `warren` binary, owned by this package so that its tests can start it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    broker::run()
}

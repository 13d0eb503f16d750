//! The broker with an allocator that counts: when it ends, it says how often memory was asked for.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let code = broker::run();
    let stats = ALLOCATOR.stats();
    println!("allocations: {}", stats.allocations + stats.reallocations);
    code
}

//! Random histories of a store on a faulty file system, ended by a power loss at any call, a kill, a failing disk or a clean
//! stop, over several openings. What is found must be what some point of the history left, not before what was confirmed.
//!
//! `WARREN_SEEDS=<n>` runs so many seeds, `WARREN_SEED=<n>` runs one. A seed decides what is done and what goes wrong at
//! which call; how the calls of the store's threads interleave it does not, so a seed that failed may have to be run again.

mod history;
mod model;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use history::Life;

const SEEDS: u64 = 2000;

#[test]
fn what_was_confirmed_survives_whatever_happens() {
    if let Some(seed) = number("WARREN_SEED") {
        return Life::new(seed).run();
    }
    let seeds = number("WARREN_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds || failed.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| Life::new(seed).run())) {
                    failed.store(true, Ordering::Relaxed);
                    eprintln!("failed with WARREN_SEED={seed}");
                    resume_unwind(panic);
                }
            }
        };
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

//! Random histories of a store on a faulty file system, ended by a power loss at any call, a kill, a failing disk or a clean
//! stop, over several openings. What is found must be what some point of the history left, not before what was confirmed.
//!
//! `WARREN_SEEDS=<n>` runs so many seeds, `WARREN_SEED=<n>` runs one. A seed decides what is done and what goes wrong at
//! which call; how the calls of the store's threads interleave it does not, so a seed that failed may have to be run again.

mod history;
mod model;

use std::sync::atomic::{AtomicU64, Ordering};

use history::Life;

use crate::common::each_seed;

#[test]
fn what_was_confirmed_survives_whatever_happens() {
    let (lives, moved) = (AtomicU64::new(0), AtomicU64::new(0));
    each_seed(2000, |seed| {
        let mut life = Life::new(seed);
        life.run();
        lives.fetch_add(1, Ordering::Relaxed);
        moved.fetch_add(life.moved, Ordering::Relaxed);
    });
    // A few seeds may have nothing to move; of many, about every second has.
    assert!(moved.into_inner() > 0 || lives.into_inner() < 100, "compaction took no part");
}

//! Random histories of a store on a faulty file system, ended by a power loss at any call, a kill, a failing disk or a clean
//! stop, over several openings. What is found must be what some point of the history left, not before what was confirmed.
//!
//! `WARREN_SEEDS=<n>` runs so many seeds, `WARREN_SEED=<n>` runs one. A seed decides what is done and what goes wrong at
//! which call; how the calls of the store's threads interleave it does not, so a seed that failed may have to be run again.

mod history;
mod model;

use history::Life;

use crate::common::each_seed;

#[test]
fn what_was_confirmed_survives_whatever_happens() {
    let moved = std::sync::atomic::AtomicU64::new(0);
    let lives = std::sync::atomic::AtomicU64::new(0);
    each_seed(2000, |seed| {
        let mut l = Life::new(seed);
        l.run();
        if l.moved > 0 {
            lives.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        moved.fetch_add(l.moved, std::sync::atomic::Ordering::SeqCst);
    });
    eprintln!("MOVED {moved:?} {lives:?}");
}

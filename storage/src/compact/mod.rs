//! Compaction: moves what is live out of segments that hold little else, so that they are free again.
//!
//! A thread of its own looks after every checkpoint and sleeps otherwise. What it moves goes through the log like anything
//! else, as Relocate entries; README.md says why that is sound.

mod choose;
mod find;
mod mover;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::commit::pending::Pending;
use crate::core::Core;
use crate::log::location::Location;
use crate::log::record::Entry;
use crate::types::Lsn;

use choose::{Choice, Rules, Sealed, Watches};
use mover::Mover;

/// Files of the reserve that compaction leaves to others when the disk is low.
const RESERVE_KEPT: usize = 2;
/// Time between two looks as long as that is all there is.
const LOW_PAUSE: Duration = Duration::from_secs(1);

/// The other threads' side of compaction.
#[derive(Default)]
pub(crate) struct Compaction {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Segments below this are behind the last checkpoint.
    below: u64,
    /// There was a checkpoint since the thread looked last.
    noticed: bool,
    stopped: bool,
}

impl Compaction {
    /// There was a checkpoint: segments below `below` are only needed for what is live in them.
    pub(crate) fn notice(&self, below: u64) {
        let mut state = self.state.lock();
        (state.below, state.noticed) = (below, true);
        drop(state);
        self.changed.notify_all();
    }

    /// From here on compaction appends nothing more, and its thread ends as soon as it can.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Waits for a checkpoint, but not past `until`. `None` when the store stops.
    fn next(&self, until: Option<Instant>) -> Option<u64> {
        let mut state = self.state.lock();
        while !state.noticed && !state.stopped {
            match until {
                None => self.changed.wait(&mut state),
                Some(until) => {
                    if self.changed.wait_until(&mut state, until).timed_out() {
                        break;
                    }
                }
            }
        }
        state.noticed = false;
        (!state.stopped).then_some(state.below)
    }

    /// Lets some time pass; false when the store stops.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.stopped && !self.changed.wait_until(&mut state, until).timed_out() {}
        !state.stopped
    }

    /// Appends, unless the store stops. What is appended before [`Compaction::stop`] returns comes before the mark of a clean
    /// stop.
    fn append(&self, pending: &Pending, entries: Vec<Entry>) -> Option<Lsn> {
        let bytes = entries.iter().map(Entry::pending_bytes).sum();
        let state = self.state.lock();
        (!state.stopped).then(|| pending.append_all(entries, bytes))
    }
}

/// Runs until the store stops.
pub(crate) fn run(core: &Arc<Core>) {
    let rules = Rules {
        delay: core.options.compaction_delay,
        segment_bytes: core.options.segment_bytes,
        pool_bytes: core.options.segment_bytes.saturating_mul(core.options.pool_segments as u64),
    };
    let mut watches = Watches::default();
    let mut until = None;
    while let Some(below) = core.compaction.next(until) {
        let Choice { ready, next } = watches.look(&sealed(core, below), Instant::now(), &rules);
        until = next;
        if ready.is_empty() {
            continue;
        }
        let low = core.space.disk.is_low();
        if low && core.space.counts().2 <= RESERVE_KEPT {
            // Others need what is left more.
            until = Some(Instant::now() + LOW_PAUSE);
            continue;
        }
        // On a low disk one segment has to come back before the next is begun.
        let taken = choose::portion(&ready, if low { 1 } else { usize::MAX });
        if taken.len() < ready.len() && !low {
            until = Some(Instant::now());
        }
        watches.done(taken);
        let ids: Vec<u64> = taken.iter().map(|segment| segment.id).collect();
        compact(core, &ids);
    }
}

/// The segments below `below` in which something lives.
fn sealed(core: &Core, below: u64) -> Vec<Sealed> {
    let segments = core.space.lengths_below(below);
    let index = core.index.lock();
    let used = segments.into_iter().filter_map(|(id, len)| {
        let used = index.usage.segments.get(&id).filter(|used| used.live > 0)?;
        Some(Sealed { id, len, live: used.live, live_bytes: used.live_bytes })
    });
    used.collect()
}

/// Moves everything out of some segments. What cannot be read stays where it is.
fn compact(core: &Arc<Core>, segments: &[u64]) {
    let pinned = pin(core, segments);
    // When sled cannot be read, the checkpoint thread was told, and the segments are looked at again another time.
    if let Some(found) = find::find(core, &pinned) {
        Mover::new(core).run(&found);
    }
    unpin(core, &pinned);
}

/// Keeps segments from being reused while they are read. Comes back with those that need it: in the others nothing lives any
/// more. In the order of the ids.
fn pin(core: &Core, segments: &[u64]) -> Vec<u64> {
    let mut index = core.index.lock();
    let usage = &mut index.usage;
    let mut pinned: Vec<u64> = segments.to_vec();
    pinned.retain(|id| usage.segments.get(id).is_some_and(|used| used.live > 0));
    pinned.iter().for_each(|&id| usage.pin(Location::segment(id, 0)));
    pinned.sort_unstable();
    pinned
}

fn unpin(core: &Core, segments: &[u64]) {
    let mut unused = false;
    let mut index = core.index.lock();
    for &id in segments {
        unused |= index.usage.unpin(Location::segment(id, 0));
    }
    drop(index);
    if unused {
        // The move itself may have been checkpointed while the segment was still pinned.
        core.schedule.dirty();
    }
}

//! Latency without a clock: calls that wait until a test lets them go.

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::plan::{Matches, Op};

#[derive(Default)]
pub(super) struct Gates {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    gates: Vec<(u64, Gate)>,
    next: u64,
    /// The power is off: nobody waits any more.
    off: bool,
}

struct Gate {
    matches: Matches,
    waiting: usize,
    passes: usize,
}

impl Gates {
    /// Waits as long as a gate that matches is closed.
    pub(super) fn pass(&self, op: Op, path: &Path) {
        let mut state = self.state.lock();
        let ids: Vec<u64> =
            state.gates.iter().filter(|(_, gate)| (gate.matches)(op, path)).map(|(id, _)| *id).collect();
        for id in ids {
            let mut counted = false;
            loop {
                let off = state.off;
                let Some((_, gate)) = state.gates.iter_mut().find(|(known, _)| *known == id) else {
                    break;
                };
                if off || gate.passes > 0 {
                    gate.passes = gate.passes.saturating_sub(1);
                    gate.waiting -= usize::from(counted);
                    break;
                }
                if !counted {
                    gate.waiting += 1;
                    counted = true;
                    self.changed.notify_all();
                }
                self.changed.wait(&mut state);
            }
        }
    }

    pub(super) fn close(self: &Arc<Self>, matches: Matches) -> Hold {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.gates.push((id, Gate { matches, waiting: 0, passes: 0 }));
        Hold { gates: Arc::clone(self), id }
    }

    pub(super) fn switch_off(&self) {
        self.state.lock().off = true;
        self.changed.notify_all();
    }
}

/// Calls that match wait here until they are let through, or until this is dropped.
pub struct Hold {
    gates: Arc<Gates>,
    id: u64,
}

impl Hold {
    /// Waits until so many calls wait here.
    pub fn wait_for(&self, calls: usize) {
        let mut state = self.gates.state.lock();
        while !state.off && state.gates.iter().any(|(id, gate)| *id == self.id && gate.waiting < calls) {
            self.gates.changed.wait(&mut state);
        }
    }

    /// How many calls wait here.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.gates.state.lock();
        state.gates.iter().find(|(id, _)| *id == self.id).map_or(0, |(_, gate)| gate.waiting)
    }

    /// Lets so many calls through, those that wait and then those that come.
    pub fn pass(&self, calls: usize) {
        let mut state = self.gates.state.lock();
        for (_, gate) in state.gates.iter_mut().filter(|(id, _)| *id == self.id) {
            gate.passes += calls;
        }
        self.gates.changed.notify_all();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gates.state.lock().gates.retain(|(id, _)| *id != self.id);
        self.gates.changed.notify_all();
    }
}

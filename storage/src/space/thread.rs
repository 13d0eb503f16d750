//! The space thread, and how the other threads wait for room.

use std::fmt::Display;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::core::{Core, Job};
use crate::large;
use crate::log::segment::Segment;
use crate::shortage;

use super::Depth;

/// Time between two looks at the free space, as long as it is near the limit or somebody waits for it. Nobody tells when
/// others give space back.
const TICK: Duration = Duration::from_millis(500);
/// Time before something is tried again for the first time; then it doubles, up to a tick.
const RETRY: Duration = Duration::from_millis(10);

/// Runs until the store stops.
pub(crate) fn run(core: &Core, work: &Receiver<Job>) -> Result<(), String> {
    core.space.review(|| !core.is_stopping());
    loop {
        let job = match core.space.is_near() {
            true => work.recv_timeout(TICK),
            false => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match job {
            Ok(job) => run_job(core, job),
            Err(RecvTimeoutError::Timeout) => core.space.review(|| !core.is_stopping()),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn run_job(core: &Core, job: Job) {
    let go_on = || !core.is_stopping();
    match job {
        Job::Prepare => {
            let prepared = core.space.prepare(go_on);
            core.preparing.store(false, Ordering::Release);
            match prepared {
                Ok(bytes) => core.stats.prepared(bytes),
                // Without it the next segment is made when it is needed.
                Err(error) => {
                    tracing::warn!(%error, "cannot prepare the next segment of the log");
                    if shortage::is_full(&error) {
                        core.space.disk.refuse();
                    }
                }
            }
        }
        Job::Retire(dead) => {
            if let Err(error) = core.space.retire(&dead) {
                tracing::warn!(%error, "cannot recycle a segment of the log");
            }
            // Somebody may be waiting for just this.
            core.space.review(go_on);
        }
        Job::RemoveLarge(files) => {
            for file in files {
                let path = large::path(&core.large_dir, file);
                if let Err(error) = core.options.fs.remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a large message");
                }
            }
            core.space.review(go_on);
        }
        Job::Review => core.space.review(go_on),
        // Nobody is there any more when the store stops meanwhile.
        Job::Fence(done) => drop(done.try_send(())),
    }
}

impl Core {
    /// The next segment of the log, for the entry `next` and those after it. It is waited for as long as there is no room for
    /// it; `None` when the store stops first.
    pub(crate) fn next_segment(&self, needed: u64, next: u64) -> Result<Option<Segment>, String> {
        let segment = self.insist(&"opening the next segment of the log", || {
            let depth = match self.is_closing() {
                true => Depth::Last,
                // What comes after the mark could use up all that the next one needs.
                false if self.schedule.waits_for_mark(next) => Depth::Reserve,
                false => Depth::Usual,
            };
            self.space.next(needed, depth)
        })?;
        self.post(Job::Review);
        Ok(segment)
    }

    /// Does something, again and again as long as it is room on the disk or file descriptors that it lacks. `None` when the
    /// store stops first.
    pub(crate) fn insist<T>(
        &self,
        what: &dyn Display,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Result<Option<T>, String> {
        let mut want = None;
        let mut pause = RETRY;
        loop {
            let closing = self.is_closing();
            let error = match attempt() {
                Ok(value) => return Ok(Some(value)),
                Err(error) => error,
            };
            let full = shortage::is_full(&error);
            // Nobody closes a store to wait for space.
            if !(full || shortage::is_scarce(&error)) || (closing && full) {
                return Err(format!("{what}: {error}"));
            }
            if pause == RETRY {
                tracing::warn!(%error, "{what} has to wait");
            }
            if full && want.is_none() {
                want = Some(self.space.disk.want());
                self.post(Job::Review);
            }
            let done = || self.is_stopping() || (full && self.is_closing() && !closing);
            self.space.disk.wait(pause, done);
            pause = TICK.min(2 * pause);
            if self.is_stopping() {
                return Ok(None);
            }
        }
    }
}

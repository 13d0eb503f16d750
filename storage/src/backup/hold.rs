//! The time in which nothing is removed.

use crate::core::{Core, Job};

/// What the space thread would have removed meanwhile.
#[derive(Default)]
pub(crate) struct Hold {
    waiting: Option<Vec<u64>>,
}

impl Hold {
    /// The job, unless it has to wait. Dead segments are named again after the next checkpoint; large files are not.
    pub(crate) fn filter(&mut self, job: Job) -> Option<Job> {
        match (&mut self.waiting, job) {
            (Some(_), Job::Retire(_)) => None,
            (Some(waiting), Job::RemoveLarge(files)) => {
                waiting.extend(files);
                None
            }
            (_, job) => Some(job),
        }
    }
}

impl Core {
    /// Nothing is removed or recycled from here on.
    pub(super) fn hold_space(&self) {
        self.hold.lock().waiting.get_or_insert_default();
    }

    /// Removes what had to wait.
    pub(super) fn release(&self) {
        let waiting = self.hold.lock().waiting.take();
        if let Some(files) = waiting {
            if !files.is_empty() {
                self.post(Job::RemoveLarge(files));
            }
            // Its checkpoint names the dead segments again.
            self.schedule.dirty();
        }
    }
}

//! Short-lived threads that write the files of large payloads beside the encoder.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::core::Core;
use crate::large;
use crate::types::Payload;

/// Files written at the same time.
const WORKERS: usize = 4;

/// What is to be written, by whom, and what is done.
#[derive(Default)]
pub(crate) struct LargeWriter {
    state: Mutex<State>,
    news: AtomicBool,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    running: usize,
    done: Vec<Done>,
    threads: Vec<JoinHandle<()>>,
}

/// One file to write.
pub(super) struct Task {
    pub(super) id: u64,
    pub(super) payload: Arc<dyn Payload>,
    /// Set when nobody needs it any more.
    pub(super) given_up: Arc<AtomicBool>,
}

/// One file that needs nothing more: it is written and synced, its directory too; or it was given up and is not there.
pub(super) struct Done {
    pub(super) id: u64,
    pub(super) is_there: bool,
}

impl LargeWriter {
    /// Writes a file on one of the threads; the encoder is woken when it is done.
    pub(super) fn write(core: &Arc<Core>, task: Task) {
        let mut state = core.large_writer.state.lock();
        state.tasks.push_back(task);
        if state.running == WORKERS {
            return;
        }
        state.running += 1;
        state.threads.retain(|thread| !thread.is_finished());
        let shared = Arc::clone(core);
        match thread::Builder::new().name("warren-large".to_owned()).spawn(move || run(&shared)) {
            Ok(thread) => state.threads.push(thread),
            // There is no thread to be had: then the log has to wait for the file.
            Err(_) => {
                drop(state);
                run(core);
            }
        }
    }

    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::SeqCst)
    }

    /// What was done since the last call.
    pub(super) fn take_done(&self) -> Vec<Done> {
        if !self.news.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut self.state.lock().done)
    }

    /// The threads, which end soon after the store has stopped.
    pub(crate) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.state.lock().threads)
    }
}

/// Writes until nothing is left to write.
fn run(core: &Core) {
    let writer = &core.large_writer;
    loop {
        let task = {
            let mut state = writer.state.lock();
            match state.tasks.pop_front().filter(|_| !core.is_stopping()) {
                Some(task) => task,
                None => {
                    state.running -= 1;
                    return;
                }
            }
        };
        match catch_unwind(AssertUnwindSafe(|| write(core, &task))) {
            Ok(Ok(Some(is_there))) => {
                writer.state.lock().done.push(Done { id: task.id, is_there });
                writer.news.store(true, Ordering::SeqCst);
                core.encoder.wake();
            }
            Ok(Ok(None)) => {}
            Ok(Err(reason)) => core.fail(&reason),
            Err(_) => core.fail("a thread that writes large messages panicked"),
        }
    }
}

/// Whether the file is there now; `None` when the store stopped before.
fn write(core: &Core, task: &Task) -> Result<Option<bool>, String> {
    let fs = &*core.options.fs;
    let go_on = || !task.given_up.load(Ordering::Acquire) && !core.is_stopping();
    core.insist(&"writing a large message", || {
        if !go_on() {
            return Ok(false);
        }
        // Not as long as there can't be room: encoding costs as much as writing.
        core.space.disk.ask_room(task.payload.encoded_len() as u64)?;
        let written = large::write(fs, &core.large_dir, &*task.payload, task.id, go_on)?;
        core.stats.large(written.unwrap_or_default());
        Ok(written.is_some())
    })
}

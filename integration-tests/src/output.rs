//! The lines a process printed, collected while it runs.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines beyond this many push out the oldest ones, so that a chatty broker cannot fill the test's memory.
const LINES_MAX: usize = 2_000;
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// One stream of a process, line by line.
pub(crate) struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    ended: bool,
}

impl Output {
    /// Reads `stream` on a thread of its own until it ends.
    pub(crate) fn collect(stream: impl Read + Send + 'static) -> Arc<Self> {
        let output = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let sink = Arc::clone(&output);
        std::thread::spawn(move || sink.fill(BufReader::new(stream)));
        output
    }

    fn fill(&self, mut stream: impl BufRead) {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let mut state = self.lock();
            match read {
                Ok(0) | Err(_) => {
                    state.ended = true;
                    self.changed.notify_all();
                    return;
                }
                Ok(_) => {
                    if state.lines.len() == LINES_MAX {
                        state.lines.pop_front();
                    }
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    state.lines.push_back(text);
                    self.changed.notify_all();
                }
            }
        }
    }

    /// The first line that satisfies `wanted`, waiting for it. `None` when the stream ends or the time is over.
    pub(crate) fn wait_for(&self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.wait(deadline, |state| match state.lines.iter().find(|line| wanted(line)) {
            Some(line) => Some(Some(line.clone())),
            None if state.ended => Some(None),
            None => None,
        })
        .flatten()
    }

    /// Waits for the end of the stream; `false` when the time is over first.
    pub(crate) fn wait_for_end(&self, deadline: Duration) -> bool {
        self.wait(deadline, |state| state.ended.then_some(())).is_some()
    }

    fn wait<T>(&self, deadline: Duration, done: impl Fn(&State) -> Option<T>) -> Option<T> {
        let until = Instant::now() + deadline;
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&state) {
                return Some(value);
            }
            let left = until.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything collected so far.
    pub(crate) fn text(&self) -> String {
        let state = self.lock();
        let mut text = String::new();
        for line in &state.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

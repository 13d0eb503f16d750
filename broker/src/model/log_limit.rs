//! A bound on how often something that others can bring about is written to the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines in one window …
const LINES_MAX: u32 = 20;
/// … of this length.
const WINDOW: Duration = Duration::from_secs(10);

/// Counts events and says which of them are worth a line.
#[derive(Debug, Default)]
pub struct LogLimit {
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    count: u32,
}

/// What to do about one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// Write it, and that so many before it were not written.
    Write {
        /// Events that nobody wrote down.
        silent: u32,
    },
    /// Write it, and that the next ones will be counted only.
    Last,
    /// Do not write it.
    Skip,
}

impl LogLimit {
    /// It has happened again.
    pub fn event(&self, now: Instant) -> LogLine {
        let mut window = self.window.lock();
        match &mut *window {
            Some(Window { start, count }) if now.saturating_duration_since(*start) < WINDOW => {
                *count = count.saturating_add(1);
                match (*count).cmp(&LINES_MAX) {
                    std::cmp::Ordering::Less => LogLine::Write { silent: 0 },
                    std::cmp::Ordering::Equal => LogLine::Last,
                    std::cmp::Ordering::Greater => LogLine::Skip,
                }
            }
            _ => {
                let before = window.replace(Window { start: now, count: 1 });
                LogLine::Write { silent: before.map_or(0, |window| window.count.saturating_sub(LINES_MAX)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_thousand_events_are_a_few_lines() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let mut lines = 0;
        for i in 0..50_000_u64 {
            // Five thousand a second, for ten seconds and not quite one window.
            let now = start + Duration::from_micros(i * 199);
            match limit.event(now) {
                LogLine::Write { silent } => {
                    assert_eq!(silent, 0);
                    lines += 1;
                }
                LogLine::Last => lines += 1,
                LogLine::Skip => {}
            }
        }
        assert_eq!(lines, LINES_MAX);
        assert_eq!(limit.event(start + WINDOW), LogLine::Write { silent: 50_000 - LINES_MAX });
        assert_eq!(limit.event(start + WINDOW), LogLine::Write { silent: 0 });
    }

    #[test]
    fn single_events_are_all_written() {
        let limit = LogLimit::default();
        let start = Instant::now();
        for i in 0..100 {
            assert_eq!(limit.event(start + WINDOW * i), LogLine::Write { silent: 0 });
        }
    }
}

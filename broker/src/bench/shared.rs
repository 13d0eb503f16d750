//! What the threads of a run share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// State of a run.
#[derive(Default)]
pub(super) struct Shared {
    /// Producers stop; consumers end with their sockets.
    stop: AtomicBool,
    /// Latencies count: the warm-up is over and the end is not there yet.
    recording: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn set_recording(&self, recording: bool) {
        self.recording.store(recording, Ordering::Relaxed);
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Notes the first failure and stops. An error after the stop is only the socket that was shut down.
    pub(super) fn fail(&self, error: &anyhow::Error) {
        if !self.is_stopped() {
            self.failure.lock().get_or_insert_with(|| format!("{error:#}"));
            self.stop();
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }
}

/// What one connection has done so far.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) published: AtomicU64,
    pub(super) confirmed: AtomicU64,
    pub(super) nacked: AtomicU64,
    pub(super) consumed: AtomicU64,
}

/// Latencies in microseconds.
pub(super) struct Latencies(pub(super) Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        const HOUR_US: u64 = 3_600_000_000;
        Ok(Self(Histogram::new_with_bounds(1, HOUR_US, 3)?))
    }

    pub(super) fn record(&mut self, from_ns: u64, to_ns: u64, count: u64) {
        // The histogram would note the value as its maximum even with a count of 0.
        if count == 0 {
            return;
        }
        let us = to_ns.saturating_sub(from_ns) / 1000;
        self.0.saturating_record_n(us, count);
    }
}

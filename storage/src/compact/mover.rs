//! Reading messages where they are and appending them again.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::core::Core;
use crate::fs::{File, OpenMode};
use crate::index::bits;
use crate::index::chunk::place_of;
use crate::log::record::{self, Entry};
use crate::log::segment;
use crate::shortage;
use crate::types::{Payload, Place};

use super::find::Found;

/// Neighbours on disk with no more than this between them are read at once.
const GAP: u64 = 16 * 1024;
/// Most bytes read at once, but for a message that is longer, and bytes appended before they are waited for. It also bounds
/// what a publisher's group may find before it.
const BATCH: u64 = 128 * 1024;
/// Time before a read is tried again for which the process lacked file descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);

/// The bytes of a message, as they are in the old segment.
struct Moved {
    bytes: Bytes,
    place: Place,
}

impl Payload for Moved {
    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

/// The store stops.
struct Stopped;

/// Moves messages, not faster than it may.
pub(super) struct Mover<'a> {
    core: &'a Arc<Core>,
    open: Option<(u64, Arc<dyn File>)>,
    batch: Vec<(Found, Arc<dyn Payload>)>,
    bytes: u64,
    started: Instant,
}

impl<'a> Mover<'a> {
    pub(super) fn new(core: &'a Arc<Core>) -> Self {
        Self { core, open: None, batch: Vec::new(), bytes: 0, started: Instant::now() }
    }

    /// Moves messages that are given in the order in which they stand on the disk.
    pub(super) fn run(mut self, found: &[Found]) {
        let mut rest = found;
        while !rest.is_empty() {
            let (run, behind) = rest.split_at(run_length(rest));
            if self.run_of(run).is_err() {
                return;
            }
            rest = behind;
        }
        // Whoever stops the store needs no answer.
        let _ = self.flush();
    }

    /// Messages that stand close to each other.
    fn run_of(&mut self, run: &[Found]) -> Result<(), Stopped> {
        let Some(&Found { segment, offset: start, .. }) = run.first() else {
            return Ok(());
        };
        let end = run.iter().map(|found| found.offset + u64::from(found.len)).max().unwrap_or(start);
        let buf = match self.read(segment, start, end)? {
            Ok(buf) => Bytes::from(buf),
            Err(error) => {
                let segment = format!("{segment:016x}");
                tracing::error!(segment, offset = start, messages = run.len(), %error, "cannot read messages to move");
                return Ok(());
            }
        };
        // What several queues share is written once for all of them.
        for shared in run.chunk_by(|a, b| a.offset == b.offset) {
            let Some(&Found { offset, queue, seq, .. }) = shared.first() else {
                continue;
            };
            let entry = buf.get(usize::try_from(offset - start).unwrap_or(usize::MAX)..).unwrap_or_default();
            let verified = record::verify(entry, &self.core.key, segment, offset);
            let Some(payload) = verified.and_then(|entry| entry.payload()) else {
                // It stays where it is: whoever reads it is told, and so is the operator.
                let segment = format!("{segment:016x}");
                tracing::error!(segment, offset, queue, seq, "a message is damaged on disk and cannot be moved");
                continue;
            };
            let payload: Arc<dyn Payload> = Arc::new(Moved { bytes: buf.slice_ref(payload), place: Place::default() });
            for &found in shared {
                self.batch.push((found, Arc::clone(&payload)));
                self.bytes += u64::from(found.len);
                if self.bytes >= BATCH {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Appends the batch, waits until it is in the log, and as long as the rate says.
    fn flush(&mut self) -> Result<(), Stopped> {
        let mut batch = std::mem::take(&mut self.batch);
        let bytes = std::mem::take(&mut self.bytes);
        {
            // What was settled meanwhile need not be written.
            let index = self.core.index.lock();
            batch.retain(|(found, _)| {
                let (number, slot) = place_of(found.seq);
                let chunk = index.queues.get(&found.queue).and_then(|queue| queue.chunks.get(&number));
                chunk.is_some_and(|chunk| bits::is_set(&chunk.live, slot))
            });
        }
        if batch.is_empty() {
            return Ok(());
        }
        let messages = batch.len() as u64;
        let entries = batch.into_iter().map(|(found, payload)| entry(found, payload)).collect();
        let core = self.core;
        let lsn = core.compaction.append(&core.pending, entries).ok_or(Stopped)?;
        if !core.wait_landed(lsn, Duration::MAX, || {}) {
            return Err(Stopped);
        }
        core.stats.relocated(messages, bytes);
        let due = Duration::from_secs_f64(bytes as f64 / core.options.compaction_rate.max(1) as f64);
        let rest = due.saturating_sub(self.started.elapsed());
        let goes_on = core.compaction.pause(rest);
        self.started = Instant::now();
        if goes_on { Ok(()) } else { Err(Stopped) }
    }

    /// Reads, again and again as long as it is the process that lacks something.
    fn read(&mut self, segment: u64, from: u64, to: u64) -> Result<io::Result<Vec<u8>>, Stopped> {
        loop {
            match self.bytes(segment, from, to) {
                Err(error) if shortage::is_scarce(&error) => {
                    self.open = None;
                    if !self.core.compaction.pause(RETRY) {
                        return Err(Stopped);
                    }
                }
                outcome => return Ok(outcome),
            }
        }
    }

    fn bytes(&mut self, id: u64, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let file = match self.open.take() {
            Some((open, file)) if open == id => file,
            _ => self.core.options.fs.open(&segment::path(&self.core.log_dir, id), OpenMode::Read)?,
        };
        // Never more memory than there is file, whatever the index says.
        let to = to.min(file.len()?);
        let mut buf = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        let got = file.read_at(&mut buf, from)?;
        buf.truncate(got);
        self.open = Some((id, file));
        Ok(buf)
    }
}

fn entry(found: Found, payload: Arc<dyn Payload>) -> Entry {
    let Found { queue, seq, meta, .. } = found;
    Entry::Relocate {
        queue,
        seq,
        deadline: meta.deadline_ms.unwrap_or_default(),
        payload,
        delivery_count: meta.delivery_count,
        priority: meta.priority,
    }
}

/// How many of the messages are read at once.
fn run_length(found: &[Found]) -> usize {
    let Some(first) = found.first() else {
        return 0;
    };
    let mut end = first.offset;
    let together = |next: &&Found| {
        let shared = next.offset == first.offset;
        let near = || next.offset <= end + GAP && next.offset - first.offset + u64::from(next.len) <= BATCH;
        let together = next.segment == first.segment && (shared || near());
        end = end.max(next.offset + u64::from(next.len));
        together
    };
    found.iter().take_while(together).count().max(1)
}

//! The housekeeping thread: brings the index into sled, says so in the log, writes snapshots, and sets segments free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::core::{Core, Job};
use crate::index::base::Base;
use crate::index::{Index, Obsolete, codec};
use crate::log::record::Entry;
use crate::recover;
use crate::shortage;
use crate::snapshot;
use crate::state::{Changes, State, topology_pieces};

/// Chunks written under one hold of the index lock.
const SLICE: usize = 32;
/// Changes that go into sled at once.
const BATCH_BYTES: u64 = 1024 * 1024;
/// Dead segments that call for a snapshot even when they are short, as after many restarts.
const DEAD_MAX: usize = 12;
/// Bytes that a chunk takes in sled.
const CHUNK_BYTES: u64 = 8 * 1024;
/// A mark that takes longer than this may be waiting for what a checkpoint sets free.
const WAITING: Duration = Duration::from_secs(1);

/// When the next checkpoint is due.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<Due>,
    changed: Condvar,
    said: AtomicBool,
    marking: AtomicBool,
}

#[derive(Default)]
struct Due {
    dirty: bool,
    /// A segment is full: the interval is over.
    urgent: bool,
    closing: bool,
}

impl Schedule {
    /// Says that sled lacks something; costs one swap when it was said before.
    pub(crate) fn dirty(&self) {
        if !self.said.swap(true, Ordering::AcqRel) {
            self.state.lock().dirty = true;
            self.changed.notify_all();
        }
    }

    /// Says that a segment is full. Under heavy load the segments come back to the pool by this, as fast as they are used.
    pub(crate) fn segment_full(&self) {
        self.state.lock().urgent = true;
        self.changed.notify_all();
    }

    /// Asks for the last checkpoint, the one that says that the stop was clean.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Makes the thread look whether the store stops.
    pub(crate) fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// A checkpoint is in sled and waits for its mark in the log.
    pub(crate) fn waits_for_mark(&self) -> bool {
        self.marking.load(Ordering::Acquire)
    }

    /// Waits until something is due, or, when a snapshot was put off, until it may be tried again. `None` when the store stops.
    fn wait(&self, interval: Duration, put_off: bool, stopping: impl Fn() -> bool) -> Option<Next> {
        let mut state = self.state.lock();
        while !state.dirty && !state.closing && !stopping() {
            let limit = if put_off { interval } else { Duration::MAX };
            if self.changed.wait_for(&mut state, limit).timed_out() {
                return Some(Next::Snapshot);
            }
        }
        // The interval runs from the first change: what is idle does nothing, what is busy does it at this rate.
        let until = std::time::Instant::now() + interval;
        while !state.closing && !state.urgent && !stopping() {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if stopping() {
            return None;
        }
        state.dirty = false;
        state.urgent = false;
        self.said.store(false, Ordering::Release);
        Some(if state.closing { Next::LastCheckpoint } else { Next::Checkpoint })
    }
}

/// What the thread has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Checkpoint,
    LastCheckpoint,
    /// Only the snapshot that was put off.
    Snapshot,
}

/// The states of the index on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mirrors {
    /// The last checkpoint that the log knows of.
    pub(crate) checkpoint: Base,
    /// The last snapshot.
    pub(crate) snapshot: Base,
    /// Bytes of log since the last snapshot that this opening did not write.
    pub(crate) older_log: u64,
}

/// State of the housekeeping thread.
pub(crate) struct Keeper {
    pub(crate) core: Arc<Core>,
    pub(crate) state: Option<State>,
    /// The last checkpoint that the log knows of, the last snapshot, and the log since.
    pub(crate) from: Mirrors,
    /// Bytes of log this opening had written when it wrote its last snapshot.
    log_at_snapshot: u64,
    /// sled failed in the last checkpoint too.
    failed_before: bool,
    /// A snapshot was due and the disk had no room for it.
    put_off: bool,
}

impl Keeper {
    pub(crate) fn new(core: Arc<Core>, state: State, from: Mirrors) -> Self {
        Self { core, state: Some(state), from, log_at_snapshot: 0, failed_before: false, put_off: false }
    }

    /// Runs until the store stops or is closed.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let core = Arc::clone(&self.core);
        self.retire();
        loop {
            let interval = core.options.checkpoint_interval;
            let Some(next) = core.schedule.wait(interval, self.put_off, || core.is_stopping()) else {
                return Ok(());
            };
            core.space.disk.look();
            let last = next == Next::LastCheckpoint;
            if next != Next::Snapshot && self.has_room_for_checkpoint(last)? && (!self.checkpoint(last)? || last) {
                return Ok(());
            }
            self.snapshot_if_due();
            self.retire();
        }
    }

    /// Whether a checkpoint can be written. If not, it comes after the interval; the last one fails.
    fn has_room_for_checkpoint(&mut self, last: bool) -> Result<bool, String> {
        let space = &self.core.space;
        let chunks = self.core.index.lock().dirty_chunks.len() as u64;
        let room = space.make_room(space.room() + chunks * CHUNK_BYTES);
        space.disk.set_short(!room);
        if !room {
            if last {
                return Err("the disk is full: there is no room for the last checkpoint".to_owned());
            }
            tracing::debug!("a checkpoint waits for room on the disk");
            self.core.schedule.dirty();
        }
        Ok(room)
    }

    /// One checkpoint; false when the store stopped meanwhile.
    fn checkpoint(&mut self, last: bool) -> Result<bool, String> {
        let base = match self.write() {
            Ok(base) => {
                self.failed_before = false;
                base
            }
            Err(reason) => {
                self.replace_sled(&reason)?;
                self.core.schedule.dirty();
                if !last {
                    return Ok(true);
                }
                self.write().map_err(|reason| format!("sled: {reason}"))?
            }
        };
        let done = Entry::CheckpointDone { lsn: base.lsn, clean: last };
        let bytes = done.pending_bytes();
        let core = Arc::clone(&self.core);
        let lsn = core.pending.append(done, bytes);
        // When the log itself waits for room, this is what can give it some: the last of the reserve, and what has died since.
        core.schedule.marking.store(true, Ordering::Release);
        let durable = core.wait_landed(lsn, WAITING, || {
            core.space.disk.wake();
            self.snapshot_if_due();
            self.retire();
        });
        core.schedule.marking.store(false, Ordering::Release);
        if !durable {
            return Ok(false);
        }
        self.from.checkpoint = base;
        if last {
            self.core.clean_mark.store(lsn.0, Ordering::Release);
        }
        Ok(true)
    }

    /// Brings sled up to the index and syncs it.
    fn write(&mut self) -> Result<Base, String> {
        let state = self.state.as_mut().ok_or("it is not open")?;
        let core = &self.core;
        let mut total = 0;
        let mut changes = Changes::default();
        let mut apply = |state: &State, changes: &mut Changes, least: u64| {
            if changes.bytes < least {
                return Ok(());
            }
            let changes = std::mem::take(changes);
            total += changes.bytes;
            state.apply(changes)
        };
        let (base, mut work) = take_work(core);
        for (at, obsolete) in work.obsolete.drain(..).enumerate() {
            changes.obsolete(obsolete);
            if at % 1024 == 1023 {
                apply(state, &mut changes, 0)?;
            }
        }
        for (number, pieces) in work.topology_removed.drain(..) {
            changes.remove_topology(number, 0..pieces);
        }
        for keys in work.topology.chunks(SLICE) {
            write_topology(&mut core.index.lock(), keys, &mut changes);
            apply(state, &mut changes, BATCH_BYTES)?;
        }
        for ids in work.queues.chunks(SLICE) {
            write_queues(&mut core.index.lock(), ids, &mut changes);
            apply(state, &mut changes, BATCH_BYTES)?;
        }
        for chunks in work.chunks.chunks(SLICE) {
            write_chunks(&mut core.index.lock(), chunks, &mut changes);
            apply(state, &mut changes, BATCH_BYTES)?;
        }
        if work.dropped {
            let index = core.index.lock();
            changes.dropped(index.dropped_recent());
        }
        // Only the last batch moves the checkpoint. What a crash leaves of the others is newer than the checkpoint in sled,
        // and replaying the log over it ends in the same state.
        changes.checkpoint(&base);
        apply(state, &mut changes, 0)?;
        state.sync()?;
        core.stats.checkpoint(total);
        Ok(base)
    }

    /// sled failed: it goes to quarantine, and an empty one takes its place that the next checkpoint fills. A second failure
    /// in a row is not sled's own.
    fn replace_sled(&mut self, reason: &str) -> Result<(), String> {
        tracing::error!(reason, "sled failed; it is moved to quarantine and written anew");
        if std::mem::replace(&mut self.failed_before, true) {
            return Err(format!("sled failed twice: {reason}"));
        }
        self.state = None;
        let dirs = recover::Dirs::new(&self.core.options.data_dir);
        recover::quarantine(&*self.core.options.fs, &dirs, &dirs.sled).map_err(|error| error.to_string())?;
        self.state = Some(State::open(&dirs.sled, self.core.options.sled_cache_bytes)?);
        self.core.index.lock().mark_all_dirty();
        Ok(())
    }

    fn snapshot_if_due(&mut self) {
        let core = &self.core;
        let written = core.stats.log_bytes().saturating_sub(self.log_at_snapshot).saturating_add(self.from.older_log);
        let dead = self.dead(self.from.checkpoint.resume.segment).len();
        let index_bytes = core.index.lock().estimated_bytes();
        let few = DEAD_MAX + core.options.pool_segments;
        // On a low disk, as soon as it gives back more than it takes.
        let low = core.space.disk.is_low() && dead as u64 * core.options.segment_bytes > 2 * index_bytes;
        if written <= core.options.snapshot_bytes.max(2 * index_bytes) && dead < few && !(low && dead > 0) {
            self.put_off = false;
            return;
        }
        self.put_off = !core.space.make_room(2 * index_bytes + core.space.room());
        if self.put_off {
            tracing::debug!("a snapshot waits for room on the disk");
            return;
        }
        // As of the checkpoint, not of now: the log says that this point is durable.
        let base = self.from.checkpoint;
        let log_bytes = core.stats.log_bytes();
        let fs = &*core.options.fs;
        match snapshot::write(fs, &core.options.data_dir, &base, &core.index) {
            Ok(bytes) => {
                core.stats.snapshot(bytes);
                self.from.snapshot = base;
                self.from.older_log = 0;
                self.log_at_snapshot = log_bytes;
            }
            // The old one stays good; log is kept for longer.
            Err(error) => {
                tracing::error!(%error, "cannot write a snapshot");
                if shortage::is_full(&error) {
                    core.space.disk.refuse();
                    self.put_off = true;
                }
            }
        }
    }

    /// Segments below both the checkpoint and the snapshot that hold nothing any more.
    fn retire(&mut self) {
        let below = self.from.checkpoint.resume.segment.min(self.from.snapshot.resume.segment);
        let dead = self.dead(below);
        let large = {
            let mut index = self.core.index.lock();
            for id in &dead {
                index.segments.remove(id);
            }
            std::mem::take(&mut index.large_dead)
        };
        if !dead.is_empty() {
            self.core.post(Job::Retire(dead));
        }
        if !large.is_empty() {
            self.core.post(Job::RemoveLarge(large));
        }
    }

    fn dead(&self, below: u64) -> Vec<u64> {
        let mut ids = self.core.space.segments_below(below);
        let index = self.core.index.lock();
        ids.retain(|id| index.segments.get(id).is_none_or(|used| used.live == 0 && used.pins == 0));
        ids
    }
}

/// What a checkpoint has to write.
struct Work {
    obsolete: Vec<Obsolete>,
    topology: Vec<Vec<u8>>,
    topology_removed: Vec<(u64, u32)>,
    queues: Vec<u64>,
    chunks: Vec<(u64, u64)>,
    dropped: bool,
}

fn take_work(core: &Core) -> (Base, Work) {
    let mut index = core.index.lock();
    let base = Base { lsn: index.applied, resume: index.resume, epoch: core.epoch, key: core.key.bytes };
    let work = Work {
        obsolete: std::mem::take(&mut index.obsolete),
        topology: std::mem::take(&mut index.topology.dirty),
        topology_removed: std::mem::take(&mut index.topology.removed),
        queues: std::mem::take(&mut index.dirty_queues),
        chunks: std::mem::take(&mut index.dirty_chunks),
        dropped: std::mem::take(&mut index.dropped_dirty),
    };
    (base, work)
}

fn write_topology(index: &mut Index, keys: &[Vec<u8>], changes: &mut Changes) {
    for key in keys {
        if let Some(record) = index.topology.records.get_mut(key) {
            let mut bytes = Vec::new();
            codec::put_topology(key, &record.value, &mut bytes);
            changes.topology(record.number, &bytes);
            let pieces = topology_pieces(bytes.len());
            changes.remove_topology(record.number, pieces..record.pieces);
            record.pieces = pieces;
        }
    }
}

fn write_queues(index: &mut Index, ids: &[u64], changes: &mut Changes) {
    for &id in ids {
        if let Some(queue) = index.queues.get_mut(&id) {
            queue.listed = false;
            queue.header_dirty = false;
            let mut bytes = Vec::new();
            codec::put_queue(queue, &mut bytes);
            changes.queue(id, bytes);
        }
    }
}

fn write_chunks(index: &mut Index, chunks: &[(u64, u64)], changes: &mut Changes) {
    for &(id, number) in chunks {
        let Some(queue) = index.queues.get_mut(&id) else {
            continue;
        };
        let Some(chunk) = queue.chunks.get_mut(&number) else {
            continue;
        };
        chunk.listed = false;
        if chunk.live_count == 0 {
            changes.obsolete(Obsolete::Chunk(id, number, chunk.stored));
            queue.chunks.remove(&number);
        } else {
            changes.chunk(id, number, chunk);
        }
    }
}

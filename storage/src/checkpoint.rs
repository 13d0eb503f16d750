//! The housekeeping thread: brings the index into sled, says so in the log, writes snapshots, and sets segments free.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::core::{Core, Job};
use crate::index::base::Base;
use crate::index::{Index, Obsolete, codec, touched};
use crate::log::record::Entry;
use crate::recover;
use crate::schedule::{SnapshotCopy, Unreadable, Wake};
use crate::shortage;
use crate::snapshot::{self, WriteError};
use crate::state::{Changes, State, topology_pieces};

/// Chunks written under one hold of the index lock.
const SLICE: usize = 32;
/// Dead segments that call for a snapshot even when they are short, as after many restarts.
const DEAD_MAX: usize = 12;
/// Dead segments that call for a snapshot while there is traffic, when it is cheap.
const DEAD_BUSY: usize = 4;
/// A snapshot is cheap when the dead segments are this many times as big as the index.
const DEAD_SHARE: u64 = 4;
/// Bytes that a chunk takes in sled.
const CHUNK_BYTES: u64 = 8 * 1024;
/// A mark that takes longer than this may be waiting for what a checkpoint sets free.
const WAITING: Duration = Duration::from_secs(1);

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
    /// What sled has to forget and may still have, since the last checkpoint is not finished.
    forgotten: Forgotten,
    /// A snapshot was due and the disk had no room for it.
    put_off: bool,
}

#[derive(Default)]
struct Forgotten {
    chunks: Vec<Obsolete>,
    topology: Vec<(u64, u32)>,
}

impl Keeper {
    pub(crate) fn new(core: Arc<Core>, state: State, from: Mirrors) -> Self {
        Self {
            core,
            state: Some(state),
            from,
            log_at_snapshot: 0,
            failed_before: false,
            forgotten: Forgotten::default(),
            put_off: false,
        }
    }

    /// Runs until the store stops or is closed.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let core = Arc::clone(&self.core);
        core.evict();
        self.retire();
        core.compaction.notice(self.from.checkpoint.resume.segment);
        // After a snapshot that failed, quiet or not, the next try waits for the next checkpoint.
        let mut tried = false;
        loop {
            let quiet = self.put_off || (!tried && self.snapshot_pays(1));
            match core.schedule.wait(core.options.checkpoint_interval, quiet, || core.is_stopping()) {
                Wake::Stop => return Ok(()),
                Wake::Unreadable(what) => self.unreadable(&what)?,
                Wake::Quiet => {
                    tried = true;
                    self.snapshot();
                    self.retire();
                }
                Wake::LastCheckpoint => {
                    if !self.has_room_for_checkpoint() {
                        return Err("the disk is full: there is no room for the last checkpoint".to_owned());
                    }
                    self.checkpoint(true)?;
                    return Ok(());
                }
                Wake::Checkpoint => {
                    tried = false;
                    if self.has_room_for_checkpoint() && !self.checkpoint(false)? {
                        return Ok(());
                    }
                    self.snapshot_copies();
                    if self.is_snapshot_due() {
                        tried = true;
                        self.snapshot();
                    }
                    self.retire();
                    core.compaction.notice(self.from.checkpoint.resume.segment);
                }
            }
        }
    }

    /// Whether a checkpoint can be written. If not, it comes after the interval.
    fn has_room_for_checkpoint(&self) -> bool {
        let core = &self.core;
        core.space.disk.look();
        let chunks = core.index.lock().dirty_chunks.len() as u64;
        let room = core.space.make_room(core.space.least_room() + chunks * CHUNK_BYTES);
        core.space.disk.set_short(!room);
        if !room {
            tracing::debug!("a checkpoint waits for room on the disk");
            core.schedule.dirty();
        }
        room
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
        if self.core.index.lock().is_dirty() {
            self.core.schedule.dirty();
        }
        let done = Entry::CheckpointDone { lsn: base.lsn, clean: last };
        let bytes = done.pending_bytes();
        let core = Arc::clone(&self.core);
        let lsn = core.pending.append(done, bytes);
        // When the log itself waits for room, this is what can give it some: the last of the reserve, and what has died since.
        core.schedule.set_mark(Some(lsn));
        let durable = core.wait_landed(lsn, WAITING, || {
            core.space.disk.wake();
            if self.is_snapshot_due() {
                self.snapshot();
            }
            self.retire();
        });
        core.schedule.set_mark(None);
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
        let started = Instant::now();
        let state = self.state.as_mut().ok_or("it is not open")?;
        let core = &self.core;
        let mut total = 0;
        let mut changes = Changes::default();
        let mut apply = |state: &State, changes: &mut Changes, all: bool| {
            if !all && !changes.are_enough() {
                return Ok(());
            }
            let changes = std::mem::take(changes);
            total += changes.bytes;
            state.apply(changes)
        };
        let (base, work) = take_work(core);
        self.forgotten.chunks.extend(work.obsolete);
        self.forgotten.topology.extend(work.topology_removed);
        for &obsolete in &self.forgotten.chunks {
            changes.obsolete(obsolete);
            apply(state, &mut changes, false)?;
        }
        for &(number, pieces) in &self.forgotten.topology {
            changes.remove_topology(number, 0..pieces);
            apply(state, &mut changes, false)?;
        }
        for keys in work.topology.chunks(SLICE) {
            write_topology(&mut core.index.lock(), keys, &mut changes, &mut self.forgotten.topology);
            apply(state, &mut changes, false)?;
        }
        for ids in work.queues.chunks(SLICE) {
            write_queues(&mut core.index.lock(), ids, &mut changes);
            apply(state, &mut changes, false)?;
        }
        for chunks in work.chunks.chunks(SLICE) {
            // What was settled in cold chunks is counted here, and what came to them joins their columns.
            let incomplete = core.index.lock().incomplete(chunks);
            for at in incomplete {
                let columns = core.shelf.columns(at.queue, at.number)?;
                core.index.lock().correct(at, columns);
            }
            write_chunks(&mut core.index.lock(), chunks, &mut changes, &mut self.forgotten.chunks);
            apply(state, &mut changes, false)?;
        }
        if work.dropped {
            let index = core.index.lock();
            changes.dropped(index.dropped_recent());
        }
        // Only the last batch moves the checkpoint. What a crash leaves of the others is newer than the checkpoint in sled,
        // and replaying the log over it ends in the same state.
        changes.checkpoint(&base);
        apply(state, &mut changes, true)?;
        state.sync()?;
        core.stats.checkpoint(total);
        core.slow.checkpoint.note(started.elapsed(), format_args!("a checkpoint of {total} bytes"));
        self.forgotten = Forgotten::default();
        for chunks in work.chunks.chunks(SLICE) {
            core.index.lock().synced(chunks);
        }
        core.evict();
        core.schedule.relieved();
        Ok(base)
    }

    /// A reader could not read from sled. Opening it again helps when it was sled's own doing; when it was not, the store
    /// stops, and the next start finds no sled and rebuilds it.
    fn unreadable(&mut self, what: &Unreadable) -> Result<(), String> {
        let &Unreadable { queue, number, ref reason } = what;
        let core = Arc::clone(&self.core);
        let is_lost = || core.index.lock().is_cold(queue, number) && core.shelf.columns(queue, number).is_err();
        if is_lost() {
            self.replace_sled(reason)?;
            core.schedule.dirty();
            if is_lost() {
                return Err(self.give_up(reason, "opening it again did not help"));
            }
        }
        Ok(())
    }

    /// sled failed. When all of the index is in memory, it goes to quarantine, and an empty one takes its place that the next
    /// checkpoint fills. Otherwise it must still have the columns that are not in memory: it is opened again. A second
    /// failure in a row is not sled's own.
    fn replace_sled(&mut self, reason: &str) -> Result<(), String> {
        if std::mem::replace(&mut self.failed_before, true) {
            return Err(format!("sled failed twice: {reason}"));
        }
        self.state = None;
        let core = Arc::clone(&self.core);
        let dirs = recover::Dirs::new(&core.options.data_dir);
        let cache_bytes = core.options.sled_cache_bytes;
        if core.index.lock().cache.cold == 0 {
            tracing::error!(reason, "sled failed; it is moved to quarantine and written anew");
            let state = core.shelf.replace(|| {
                recover::quarantine(&*core.options.fs, &dirs, &dirs.sled).map_err(|error| error.to_string())?;
                State::open(&core.options.fs, &dirs.sled, cache_bytes)
            })?;
            self.state = Some(state);
            self.forgotten = Forgotten::default();
            core.index.lock().mark_all_missing();
            return Ok(());
        }
        tracing::error!(reason, "sled failed; it is opened again");
        let known = self.from.checkpoint;
        let reopened = core.shelf.replace(|| {
            let state = State::open(&core.options.fs, &dirs.sled, cache_bytes)?;
            let base = state.base()?.unwrap_or_default();
            let good = base.lsn >= known.lsn && (known == Base::default() || base.key == core.key.bytes);
            if good { Ok(state) } else { Err("it has lost the last checkpoint".to_owned()) }
        });
        self.state = Some(reopened.map_err(|problem| self.give_up(reason, &problem))?);
        core.index.lock().mark_all_dirty();
        Ok(())
    }

    /// sled has columns that are nowhere in memory, and does not give them. It goes to quarantine, so that the next start
    /// rebuilds it. Returns what to say.
    fn give_up(&mut self, reason: &str, problem: &str) -> String {
        self.core.shelf.close();
        self.state = None;
        let dirs = recover::Dirs::new(&self.core.options.data_dir);
        let moved = match recover::quarantine(&*self.core.options.fs, &dirs, &dirs.sled) {
            Ok(()) => "it was moved to quarantine".to_owned(),
            Err(error) => format!("it could not be moved to quarantine: {error}"),
        };
        format!("sled failed ({reason}; {problem}); {moved}; a restart rebuilds it from the snapshot and the log")
    }

    /// Writes the snapshots that backups wait for, unless the checkpoint they begin at has failed: then after the next.
    fn snapshot_copies(&self) {
        if self.failed_before {
            return;
        }
        let core = &self.core;
        let base = self.from.checkpoint;
        for SnapshotCopy { dir, done } in core.schedule.take_copies() {
            let written = match snapshot::write(&*core.options.fs, &dir, &base, &core.index, &core.shelf) {
                Ok(bytes) => Ok((base.resume, bytes)),
                Err(WriteError::Io(error)) => Err(error),
                Err(WriteError::Sled(what)) => {
                    let error = io::Error::other(format!("sled cannot be read: {}", what.reason));
                    core.schedule.unreadable(what);
                    Err(error)
                }
            };
            // Whoever asked may have given up.
            let _ = done.try_send(written);
        }
    }

    fn is_snapshot_due(&self) -> bool {
        // Before the first checkpoint of a rebuilt sled there is no point of the log to write one for, and the one that is
        // there is what a rebuild starts from.
        if self.from.checkpoint == Base::default() {
            return false;
        }
        let core = &self.core;
        let written = core.stats.log_bytes().saturating_sub(self.log_at_snapshot).saturating_add(self.from.older_log);
        let index_bytes = core.index.lock().estimated_bytes();
        written > core.options.snapshot_bytes.max(2 * index_bytes)
            || self.freed_by_snapshot() >= DEAD_MAX + core.options.pool_segments
            || self.snapshot_pays(DEAD_BUSY)
            || (core.space.disk.is_low() && self.snapshot_pays(1))
            // What the log waits for is worth any snapshot.
            || (core.space.disk.is_wanted() && self.freed_by_snapshot() > 0)
    }

    /// Whether a snapshot lets go of at least so many segments, and of far more than it takes.
    fn snapshot_pays(&self, least: usize) -> bool {
        let freed = if self.from.checkpoint == Base::default() { 0 } else { self.freed_by_snapshot() };
        let bytes = freed as u64 * self.core.options.segment_bytes;
        freed >= least && bytes > DEAD_SHARE.saturating_mul(self.core.index.lock().estimated_bytes())
    }

    /// How many dead segments only the last snapshot still needs.
    fn freed_by_snapshot(&self) -> usize {
        let needed = self.from.snapshot.resume.segment;
        self.dead(self.from.checkpoint.resume.segment).into_iter().filter(|&id| id >= needed).count()
    }

    fn snapshot(&mut self) {
        let core = &self.core;
        let needed = 2 * core.index.lock().estimated_bytes() + core.space.least_room();
        self.put_off = !core.space.make_room(needed);
        if self.put_off {
            tracing::debug!("a snapshot waits for room on the disk");
            return;
        }
        // As of the checkpoint, not of now: the log says that this point is durable.
        let base = self.from.checkpoint;
        let log_bytes = core.stats.log_bytes();
        let fs = &*core.options.fs;
        match snapshot::write(fs, &core.options.data_dir, &base, &core.index, &core.shelf) {
            Ok(bytes) => {
                core.stats.snapshot(bytes);
                self.from.snapshot = base;
                self.from.older_log = 0;
                self.log_at_snapshot = log_bytes;
            }
            // The old one stays good; log is kept for longer.
            Err(WriteError::Io(error)) => {
                tracing::error!(%error, "cannot write a snapshot");
                if shortage::is_full(&error) {
                    core.space.disk.refuse();
                    self.put_off = true;
                }
            }
            Err(WriteError::Sled(what)) => {
                tracing::error!(reason = what.reason, "cannot write a snapshot: sled cannot be read");
                core.schedule.unreadable(what);
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
                index.usage.segments.remove(id);
            }
            std::mem::take(&mut index.usage.large_dead)
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
        ids.retain(|id| index.usage.segments.get(id).is_none_or(|used| used.live == 0 && used.pins == 0));
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
    index.cache.grown = 0;
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

fn write_topology(index: &mut Index, keys: &[Vec<u8>], changes: &mut Changes, trimmed: &mut Vec<(u64, u32)>) {
    for key in keys {
        if let Some(record) = index.topology.records.get_mut(key) {
            let mut bytes = Vec::new();
            codec::put_topology(key, &record.value, &mut bytes);
            changes.topology(record.number, &bytes);
            let pieces = topology_pieces(bytes.len());
            changes.remove_topology(record.number, pieces..record.pieces);
            if pieces < record.pieces {
                trimmed.push((record.number, record.pieces));
            }
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

/// Writes chunks and takes out those without live messages, which go to `obsolete` too.
pub(crate) fn write_chunks(
    index: &mut Index,
    chunks: &[(u64, u64)],
    changes: &mut Changes,
    obsolete: &mut Vec<Obsolete>,
) {
    let Index { queues, cache, dirty_chunks, .. } = index;
    for &(id, number) in chunks {
        let Some(queue) = queues.get_mut(&id) else {
            continue;
        };
        let Some(chunk) = queue.chunks.get_mut(&number) else {
            continue;
        };
        chunk.listed = false;
        if chunk.live_count == 0 {
            let gone = Obsolete::Chunk(id, number, chunk.stored);
            changes.obsolete(gone);
            obsolete.push(gone);
            cache.forget(chunk);
            queue.chunks.remove(&number);
        } else {
            changes.chunk(id, number, chunk, cache.next_generation());
            // Something came between looking at it and writing it.
            if chunk.needs_columns() {
                touched(id, number, chunk, dirty_chunks);
            }
        }
    }
}

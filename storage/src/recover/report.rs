//! Naming what a start has lost, and keeping the files it was lost in.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::{OpenError, io_error};
use crate::fs::{Fs, OpenMode};
use crate::index::{Index, Position};
use crate::large;
use crate::log::record;
use crate::log::segment;
use crate::space::Stock;
use crate::types::{LostMessages, QueueId};

use super::Dirs;
use super::quarantine::{keep_evidence, quarantine};
use super::scan::{GroupRef, Loss, Verdict};

/// Lines of damage, and the messages that are known to be lost by it.
#[derive(Default)]
pub(super) struct Report {
    pub(super) damage: Vec<String>,
    pub(super) lost: Vec<LostMessages>,
}

impl Report {
    /// Names what the log has lost below what was durable.
    pub(super) fn losses(&mut self, fs: &dyn Fs, dirs: &Dirs, verdict: &Verdict, groups: &[GroupRef], index: &Index) {
        for Loss { segment, offset, first_lsn, last_lsn, inside, .. } in &verdict.losses {
            let what = match inside {
                Some(_) => "log entries are damaged",
                None => "log entries are missing before this place",
            };
            let place = format!("segment {segment:016x}, offset {offset}");
            self.damage.push(format!("{place}: {what} (LSN {first_lsn} to {last_lsn})"));
            if inside.is_some()
                && let Some((queue, seq)) = likely_message(fs, dirs, *segment, *offset)
                && let Some(known) = index.queues.get(&queue)
                && seq < known.next_seq
            {
                let why = format!("{place}: as far as the damaged entry can be read, it was message {seq}");
                self.lost.push(LostMessages { queue, messages: 1, why });
            }
        }
        let dropped = groups.len().saturating_sub(verdict.accepted);
        if dropped > 1 {
            self.damage.push(format!("{} groups behind the torn end of the log were left out", dropped - 1));
        }
    }

    /// Names what the index says is in segments that are not there.
    pub(super) fn missing_segments(&mut self, index: &Index, files: &Stock) {
        let used = index.usage.segments.iter().filter(|(id, used)| used.live > 0 && !files.segments.contains_key(id));
        let missing: BTreeMap<u64, u64> = used.map(|(&id, used)| (id, used.live)).collect();
        for (id, live) in &missing {
            self.damage.push(format!("segment {id:016x} is missing: the bytes of {live} messages are lost"));
        }
        if missing.is_empty() {
            return;
        }
        let mut lost: BTreeMap<(u64, QueueId), u64> = BTreeMap::new();
        for (&queue, chunk) in chunks(index) {
            for part in chunk.held().segments.iter().filter(|part| missing.contains_key(&part.segment)) {
                *lost.entry((part.segment, queue)).or_default() += u64::from(part.live);
            }
        }
        let named = lost.into_iter().map(|((segment, queue), messages)| LostMessages {
            queue,
            messages,
            why: format!("segment {segment:016x} is missing"),
        });
        self.lost.extend(named);
    }

    /// Removes the large files that no message names. After damage they go to quarantine: a lost entry may have named them.
    /// Those that a message names and that are not there are named.
    pub(super) fn clean_large(&mut self, fs: &dyn Fs, dirs: &Dirs, index: &mut Index) -> Result<(), OpenError> {
        index.usage.large_dead.clear();
        let mut present = HashSet::new();
        let damaged = !self.damage.is_empty();
        for entry in fs.list(&dirs.large).map_err(io_error("list", &dirs.large))? {
            let path = dirs.large.join(&entry.name);
            match large::parse_name(&entry.name) {
                Some(id) if index.has_large(id) => {
                    present.insert(id);
                }
                _ if damaged => {
                    quarantine(fs, dirs, &path)?;
                    self.damage.push(format!("{} was moved to quarantine: no message names it", path.display()));
                }
                _ => fs.remove_file(&path).map_err(io_error("remove", &path))?,
            }
        }
        let missing: BTreeSet<u64> = index.usage.large.keys().copied().filter(|id| !present.contains(id)).collect();
        for &id in &missing {
            let path = large::path(&dirs.large, id);
            self.damage.push(format!("{} is missing: a large message is lost", path.display()));
        }
        if missing.is_empty() {
            return Ok(());
        }
        for (&queue, chunk) in chunks(index) {
            for &(id, live) in chunk.held().large.iter().filter(|(id, _)| missing.contains(id)) {
                let why = format!("{} is missing", large::path(&dirs.large, id).display());
                self.lost.push(LostMessages { queue, messages: u64::from(live), why });
            }
        }
        Ok(())
    }
}

fn chunks(index: &Index) -> impl Iterator<Item = (&QueueId, &crate::index::chunk::Chunk)> {
    index.queues.iter().flat_map(|(id, queue)| queue.chunks.values().map(move |chunk| (id, &**chunk)))
}

/// Which message a damaged entry was about, if the damage is not in that part of it.
fn likely_message(fs: &dyn Fs, dirs: &Dirs, segment: u64, offset: u64) -> Option<(QueueId, u64)> {
    let file = fs.open(&segment::path(&dirs.log, segment), OpenMode::Read).ok()?;
    let mut head = [0; record::ENQUEUE_HEADER];
    let got = file.read_at(&mut head, offset).ok()?;
    record::likely_message(head.get(..got)?)
}

/// Keeps the segments that have damage in them. Of what is missing, nothing says in which it was: then it is all from that
/// of the group before, or where the scan began, to that of the group behind.
pub(super) fn keep_damaged(
    fs: &dyn Fs,
    dirs: &Dirs,
    files: &Stock,
    from: Position,
    verdict: &Verdict,
    replayed: &[u64],
) {
    let mut ids: BTreeSet<u64> = replayed.iter().copied().collect();
    for loss in &verdict.losses {
        let first = loss.before.max(from.segment).min(loss.segment);
        ids.extend(files.segments.range(first..=loss.segment).map(|(&id, _)| id));
    }
    for id in ids {
        keep_evidence(fs, &dirs.data, &segment::path(&dirs.log, id));
    }
}

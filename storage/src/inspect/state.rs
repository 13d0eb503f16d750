//! The index as a start would build it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::{self, Kind};
use crate::error::OpenError;
use crate::fs::{Fs, RealFs};
use crate::index::Index;
use crate::index::base::Base;
use crate::index::cold::ChunkRef;
use crate::recover::replay;
use crate::recover::scan::{self, GroupRef, Loss};
use crate::shelf;
use crate::snapshot::{self, Found};
use crate::state::State;

use super::Inspector;

/// sled's cache: what is read is read once.
const CACHE_BYTES: u64 = 8 << 20;

/// What an index was built from, and what could not be used for it.
pub(super) struct Loaded {
    pub(super) index: Index,
    /// Lines about sled.
    pub(super) sled: Vec<String>,
    /// Lines about the snapshot.
    pub(super) snapshot: Vec<String>,
    /// What is missing behind the point that it goes on from.
    pub(super) losses: Vec<Loss>,
    /// The log ends before that point, at this LSN.
    pub(super) short_of: Option<u64>,
}

impl Inspector {
    /// The topology as a start would find it, as far as it can be read: every key with its value.
    pub fn topology(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut groups = Vec::new();
        for &id in &self.segments {
            groups.extend(self.groups(id).unwrap_or_default());
        }
        let Ok(loaded) = self.load(&groups) else {
            return Vec::new();
        };
        loaded.index.topology.records.into_iter().map(|(key, record)| (key, record.value)).collect()
    }

    /// From sled and the log since, else from the snapshot and the log since, else from the log alone.
    pub(super) fn load(&self, groups: &[GroupRef]) -> Result<Loaded, OpenError> {
        let (mut sled_lines, mut snapshot_lines) = (Vec::new(), Vec::new());
        let from_snapshot = self.snapshot();
        if from_snapshot.is_err() {
            snapshot_lines.push("it is damaged".to_owned());
        }
        match self.sled() {
            Ok(Some((mut index, base))) => {
                let newest = self.replay(groups, base, &mut index)?;
                if newest <= base.lsn {
                    return Ok(loaded(index, base, groups, sled_lines, snapshot_lines));
                }
                sled_lines
                    .push(format!("it is older (LSN {}) than the checkpoint the log names (LSN {newest})", base.lsn));
            }
            // What that means the log says.
            Ok(None) => {}
            Err(problem) => sled_lines.push(problem),
        }
        let had_no_sled = sled_lines.is_empty();
        let (mut index, base) = from_snapshot.unwrap_or_default().unwrap_or_default();
        let newest = self.replay(groups, base, &mut index)?;
        // Before the first checkpoint, and in a backup, that is how it should be.
        if had_no_sled
            && newest.max(base.lsn) > 0
            && backup::kind(&self.fs, &self.dirs.data).ok() == Some(Kind::Ordinary)
        {
            sled_lines.push("it is missing or has no checkpoint".to_owned());
        }
        Ok(loaded(index, base, groups, sled_lines, snapshot_lines))
    }

    /// Replays what a base lacks; returns the newest checkpoint that the log names.
    fn replay(&self, groups: &[GroupRef], base: Base, index: &mut Index) -> Result<u64, OpenError> {
        let rest = since(groups, base);
        let only_log = base == Base::default();
        let link = (!only_log).then_some(base.resume.link);
        let gaps = only_log || !scan::judge(rest, base.lsn, link, only_log).losses.is_empty();
        index.partial_log = gaps.then(Default::default);
        let replayed = replay::replay(&self.fs, &self.dirs.log, &self.key, rest, base.lsn, index, |_| Ok(()))?;
        index.partial_log = None;
        Ok(replayed.checkpoint_lsn)
    }

    fn snapshot(&self) -> Result<Option<(Index, Base)>, ()> {
        let mut index = Index::default();
        match snapshot::read(&self.fs, &self.dirs.data, &mut index, |_| Ok::<(), io::Error>(())) {
            Ok(Found::Good(base)) if base.key == self.key.bytes => Ok(Some((index, base))),
            Ok(Found::Absent) => Ok(None),
            Ok(_) | Err(_) => Err(()),
        }
    }

    /// What sled has, read from a copy: opening it writes.
    fn sled(&self) -> Result<Option<(Index, Base)>, String> {
        if !self.dirs.sled.exists() {
            return Ok(None);
        }
        let copy = PrivateCopy::new(&self.dirs.sled).map_err(|error| format!("it cannot be copied: {error}"))?;
        let state = State::open(&(Arc::new(RealFs) as Arc<dyn Fs>), &copy.0, CACHE_BYTES)?;
        let mut index = Index::default();
        let Some(base) = state.load(&mut index)? else {
            return Ok(None);
        };
        load_columns(&state, &mut index)?;
        if base.key == self.key.bytes {
            Ok(Some((index, base)))
        } else {
            Err("it belongs to another data directory".to_owned())
        }
    }
}

/// Brings all columns into memory: what is looked for is where every single message is.
fn load_columns(state: &State, index: &mut Index) -> Result<(), String> {
    let mut cold = Vec::new();
    for (&queue, found) in &index.queues {
        let chunks = found.chunks.iter().filter(|(_, chunk)| chunk.is_cold());
        cold.extend(chunks.map(|(&number, chunk)| ChunkRef::new(queue, number, chunk)));
    }
    for at in cold {
        let (columns, _, _) = shelf::decode(&shelf::values(&state.handle(), at.queue, at.number)?)?;
        index.install(at, columns);
    }
    Ok(())
}

/// The groups that a base lacks.
fn since(groups: &[GroupRef], base: Base) -> &[GroupRef] {
    let position = (base.resume.segment, base.resume.offset);
    let begin = groups.partition_point(|group| (group.segment, group.offset) < position);
    groups.get(begin..).unwrap_or_default()
}

fn loaded(index: Index, base: Base, groups: &[GroupRef], sled: Vec<String>, snapshot: Vec<String>) -> Loaded {
    let end = groups.last().map(|group| (group.segment, group.offset + group.header.span()));
    let is_short = base.lsn > 0 && end.is_none_or(|end| end < (base.resume.segment, base.resume.offset));
    let losses = if base.lsn > 0 {
        scan::judge(since(groups, base), base.lsn, Some(base.resume.link), false).losses
    } else {
        Vec::new()
    };
    Loaded { index, sled, snapshot, losses, short_of: is_short.then_some(base.lsn) }
}

/// A copy of a directory without directories in it, gone with this value.
struct PrivateCopy(PathBuf);

impl PrivateCopy {
    fn new(dir: &Path) -> io::Result<Self> {
        let number: u64 = rand::random();
        let copy = Self(std::env::temp_dir().join(format!("warren-inspect-{number:016x}")));
        fs::create_dir(&copy.0)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), copy.0.join(entry.file_name()))?;
            }
        }
        Ok(copy)
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a private copy of the sled database");
        }
    }
}

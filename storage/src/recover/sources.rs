//! Choosing what the index is built from: sled and the log since its checkpoint; else the snapshot and the log since; else
//! the log alone.

use std::io;
use std::path::Path;

use crate::error::{OpenError, io_error};
use crate::index::base::Base;
use crate::index::{Index, Position};
use crate::log::key::Key;
use crate::log::segment;
use crate::options::Options;
use crate::snapshot::{self, Found};
use crate::state::State;

use super::relief::{self, Relief};
use super::replay::{self, Replayed};
use super::salvage::{Holes, is_lost, is_unreadable};
use super::scan::{self, GroupRef, Verdict};
use super::{Dirs, Stock, keep_evidence, quarantine};

/// Gaps in the log that are named in one line.
const GAPS_NAMED: usize = 8;

/// Where an index can come from.
pub(super) struct Sources<'a> {
    pub(super) options: &'a Options,
    pub(super) dirs: &'a Dirs,
    pub(super) key: &'a Key,
    pub(super) files: &'a mut Stock,
    pub(super) holes: &'a mut Holes,
    /// sled is not part of a backup, and its state at the first start on one is nothing to rely on.
    pub(super) from_backup: bool,
    pub(super) damage: &'a mut Vec<String>,
}

/// An index and how it came about.
pub(super) struct Loaded {
    pub(super) index: Index,
    /// What the log was replayed over.
    pub(super) base: Base,
    pub(super) groups: Vec<GroupRef>,
    pub(super) verdict: Verdict,
    pub(super) replayed: Replayed,
    /// sled: as it was, or new and empty.
    pub(super) state: State,
    /// It did not come from sled, which has to be written anew.
    pub(super) rebuilt: bool,
    /// The snapshot that is there, whether it was used or not.
    pub(super) snapshot: Base,
}

/// The key as sled's checkpoint or the snapshot repeat it, for when its own files are lost.
pub(super) fn spare_key(options: &Options, dirs: &Dirs) -> Option<Key> {
    if let Ok(Found::Good(base)) = snapshot::read_base(&*options.fs, &dirs.data) {
        return Some(Key::from_bytes(base.key));
    }
    if !dirs.sled.exists() {
        return None;
    }
    let state = State::open(&options.fs, &dirs.sled, options.sled_cache_bytes).ok()?;
    let base = state.base().ok()??;
    Some(Key::from_bytes(base.key))
}

struct Attempt {
    groups: Vec<GroupRef>,
    verdict: Verdict,
    replayed: Replayed,
}

impl Sources<'_> {
    pub(super) fn load(&mut self) -> Result<Loaded, OpenError> {
        let existed = self.dirs.sled.exists();
        if self.from_backup && !existed {
            return self.rebuild();
        }
        let problem = match self.open_sled(existed)? {
            Ok(loaded) => return Ok(loaded),
            Err(problem) => problem,
        };
        if self.from_backup {
            tracing::info!("the first start on the backup was cut off and is done again");
        } else {
            self.damage.push(format!("the sled database in {} was rebuilt: {problem}", self.dirs.sled.display()));
        }
        if self.dirs.sled.exists() && existed {
            quarantine(&*self.options.fs, self.dirs, &self.dirs.sled)?;
        }
        self.rebuild()
    }

    /// With sled and the log since its checkpoint. The inner error says why sled is no good.
    fn open_sled(&mut self, existed: bool) -> Result<Result<Loaded, String>, OpenError> {
        let mut index = Index::default();
        let (state, base) = match self.open_state(&mut index) {
            Ok(opened) => opened,
            Err(problem) => return Ok(Err(problem)),
        };
        let Attempt { groups, verdict, replayed } =
            self.replay(&mut index, base, Some(base.resume.link), false, |_| Ok(()))?;
        let newest = replayed.checkpoint_lsn;
        if newest > base.lsn {
            return Ok(Err(if existed {
                format!("it is older (LSN {}) than the checkpoint the log names (LSN {newest})", base.lsn)
            } else {
                "it is missing".to_owned()
            }));
        }
        if let Err(problem) = relief::complete(&state, &mut index).and_then(|()| relief::check(&state, &index)) {
            return Ok(Err(problem));
        }
        self.check_end(base, "sled's checkpoint")?;
        let snapshot = self.snapshot_base()?;
        Ok(Ok(Loaded { index, base, groups, verdict, replayed, state, rebuilt: false, snapshot }))
    }

    /// Names it when the log is not what a checkpoint or a snapshot was made of: it ends before, or is an older copy.
    fn check_end(&mut self, base: Base, of: &str) -> Result<(), OpenError> {
        let Position { segment, offset, link } = base.resume;
        if base.lsn == 0 {
            return Ok(());
        }
        let path = segment::path(&self.dirs.log, segment);
        let fs = &*self.options.fs;
        let ends = || match scan::ends_at(fs, &path, self.key, base.resume) {
            Err(error) if is_unreadable(&error) && is_lost(fs, self.dirs, &path) => Ok(false),
            outcome => outcome.map_err(io_error("read", &path)),
        };
        let reaches = self.files.segments.get(&segment).is_some_and(|&len| len >= offset);
        if !reaches {
            self.damage.push(format!("the log ends before LSN {}, where {of} is", base.lsn));
        } else if !ends()? {
            let lsn = base.lsn;
            self.damage.push(format!(
                "{} is damaged or an older copy: before offset {offset} there is not the group of LSN {lsn} (checksum \
                 {link:08x}), where {of} is",
                path.display()
            ));
        } else {
            return Ok(());
        }
        keep_evidence(fs, &self.dirs.data, &path);
        Ok(())
    }

    fn open_state(&self, index: &mut Index) -> Result<(State, Base), String> {
        let mut state = State::open(&self.options.fs, &self.dirs.sled, self.options.sled_cache_bytes)?;
        let base = state.load(index)?.unwrap_or_default();
        // After a crash it may be in the page cache only, and the first group is going to name its checkpoint.
        state.sync()?;
        if base != Base::default() && base.key != self.key.bytes {
            return Err("it belongs to another data directory".to_owned());
        }
        Ok((state, base))
    }

    /// Without sled: from the snapshot if it is good, else from the log alone. What does not fit into memory goes into the new
    /// sled at once; as long as that has no checkpoint, it counts for nothing.
    fn rebuild(&mut self) -> Result<Loaded, OpenError> {
        let path = self.dirs.data.join(snapshot::NAME);
        let fs = &*self.options.fs;
        let failed = |reason| OpenError::Sled { path: self.dirs.sled.clone(), reason };
        let mut state =
            State::open(&self.options.fs, &self.dirs.sled, self.options.sled_cache_bytes).map_err(failed)?;
        let mut index = Index::default();
        let mut relief = Relief::new(&state, self.options.index_cache_bytes);
        let found = snapshot::read(fs, &self.dirs.data, &mut index, |index| {
            relief.spill(index).map_err(|reason| io::Error::other(format!("sled: {reason}")))
        });
        let base = match self.as_damage(found, &path)? {
            Found::Good(base) if base.key == self.key.bytes => base,
            other => {
                index = Index::default();
                state.clear().map_err(failed)?;
                self.damage_of_snapshot(&other, &path)?;
                Base::default()
            }
        };
        let snapshot = base;
        self.check_end(base, "the snapshot")?;
        let (link, gaps) = if base == Base::default() { (None, true) } else { (Some(base.resume.link), false) };
        if gaps && self.files.segments.keys().next().is_none_or(|&first| first > 1) {
            self.damage.push(
                "rebuilt from the log alone: messages whose settlement was in a recycled segment come back".to_owned(),
            );
        }
        let mut relief = Relief::new(&state, self.options.index_cache_bytes);
        let Attempt { groups, verdict, replayed } =
            self.replay(&mut index, base, link, gaps, |index| relief.spill(index).map_err(failed))?;
        self.name_gaps(&groups, &verdict, gaps);
        relief::complete(&state, &mut index).map_err(failed)?;
        state.sync().map_err(failed)?;
        index.mark_all_dirty();
        Ok(Loaded { index, base, groups, verdict, replayed, state, rebuilt: true, snapshot })
    }

    fn replay(
        &mut self,
        index: &mut Index,
        base: Base,
        link: Option<u32>,
        gaps: bool,
        relieve: impl FnMut(&mut Index) -> Result<(), OpenError>,
    ) -> Result<Attempt, OpenError> {
        let fs = &*self.options.fs;
        let log = &self.dirs.log;
        index.applied = base.lsn;
        index.resume = base.resume;
        let mut groups = loop {
            match scan::scan(fs, log, self.key, self.files.segments.keys().copied(), base.resume) {
                Ok(groups) => break groups,
                Err(error) => self.holes.mend(fs, self.dirs, self.files, error, self.damage)?,
            }
        };
        self.holes.mark(&mut groups);
        let verdict = scan::judge(&groups, base.lsn, link, gaps);
        let accepted = groups.get(..verdict.accepted).unwrap_or_default();
        // The Enqueue of a message may be in a segment that is gone, or in what is damaged.
        index.partial_log = (gaps || !verdict.losses.is_empty()).then(Default::default);
        let replayed = replay::replay(fs, log, self.key, accepted, base.lsn, index, relieve)?;
        index.partial_log = None;
        Ok(Attempt { groups, verdict, replayed })
    }

    /// The snapshot beside a good sled: it decides which log may go.
    fn snapshot_base(&mut self) -> Result<Base, OpenError> {
        let path = self.dirs.data.join(snapshot::NAME);
        let found = snapshot::read_ends(&*self.options.fs, &self.dirs.data);
        match self.as_damage(found, &path)? {
            Found::Good(base) if base.key == self.key.bytes => Ok(base),
            other => {
                self.damage_of_snapshot(&other, &path)?;
                Ok(Base::default())
            }
        }
    }

    /// A snapshot that the disk cannot read is as good as a damaged one.
    fn as_damage(&mut self, found: io::Result<Found<Base>>, path: &Path) -> Result<Found<Base>, OpenError> {
        found.or_else(|error| {
            if !is_unreadable(&error) || !is_lost(&*self.options.fs, self.dirs, path) {
                return Err(io_error("read", path)(error));
            }
            self.damage.push(format!("{} cannot be read: {error}", path.display()));
            Ok(Found::Damaged)
        })
    }

    /// Of a log that is all there is, nobody knows whether what is missing between two segments was recycled.
    fn name_gaps(&mut self, groups: &[GroupRef], verdict: &Verdict, gaps: bool) {
        let accepted = groups.get(..verdict.accepted).unwrap_or_default();
        let missing: Vec<_> = scan::between_segments(accepted).filter(|_| gaps).collect();
        if missing.is_empty() {
            return;
        }
        let some: Vec<_> = missing.iter().take(GAPS_NAMED).map(|(first, last)| format!("{first} to {last}")).collect();
        let more = if missing.len() > GAPS_NAMED { " and others" } else { "" };
        let lsns = some.join(", ");
        self.damage.push(format!("LSN {lsns}{more} are in no segment: they were recycled, or are lost"));
    }

    fn damage_of_snapshot(&mut self, found: &Found<Base>, path: &Path) -> Result<(), OpenError> {
        let what = match found {
            Found::Absent => return Ok(()),
            Found::Damaged => "it is damaged",
            Found::Good(_) => "it belongs to another data directory",
        };
        quarantine(&*self.options.fs, self.dirs, path)?;
        self.damage.push(format!("{} was moved to quarantine: {what}", path.display()));
        Ok(())
    }
}

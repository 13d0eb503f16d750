//! Opening a data directory: the rules are in README.md.

pub(crate) mod progress;
mod quarantine;
mod relief;
pub(crate) mod replay;
mod report;
mod salvage;
pub(crate) mod scan;
mod sources;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup;
use crate::checkpoint::Mirrors;
use crate::core::Start;
use crate::error::{OpenError, io_error};
use crate::fs::{File, Fs, OpenMode};
use crate::index::Position;
use crate::index::base::Base;
use crate::log::group::{GroupHeader, HEADER};
use crate::log::key::{self, Key};
use crate::log::record::{Body, Entry, Target};
use crate::log::segment::{self, LogName, Segment};
use crate::options::Options;
use crate::space::{Depth, Space, Stock};
use crate::state::State;
use crate::types::Recovered;

pub(crate) use quarantine::{keep_evidence, quarantine};
use report::{Report, keep_damaged};
use salvage::Holes;
pub(crate) use salvage::is_unreadable;
use scan::{GroupRef, Verdict};
use sources::{Loaded, Sources};
pub(crate) use version::of_header;

/// LSNs left out after a start, so that none is ever used twice whatever was lost.
const LSN_GAP: u64 = 1 << 20;
/// Sequence numbers left out in every queue after an unclean stop, once for every opening since the checkpoint: a number that
/// was given out in one of them may have left no trace, and what the next one left out is not written down before it.
const SEQ_GAP: u64 = 1024;

/// Everything a store starts from.
pub(crate) struct Opened {
    pub(crate) lock: Arc<dyn File>,
    pub(crate) start: Start,
    pub(crate) segment: Segment,
    pub(crate) at: Position,
    pub(crate) state: State,
    pub(crate) mirrors: Mirrors,
    pub(crate) recovered: Recovered,
}

/// The directories of a store.
pub(crate) struct Dirs {
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) large: PathBuf,
    pub(crate) sled: PathBuf,
    pub(crate) quarantine: PathBuf,
}

impl Dirs {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            data: data.to_path_buf(),
            log: data.join("log"),
            large: data.join("large"),
            sled: data.join("sled"),
            quarantine: data.join("quarantine"),
        }
    }
}

/// Opens a data directory, creating it when it is new.
pub(crate) fn open(options: &Options) -> Result<Opened, OpenError> {
    let dirs = Dirs::new(&options.data_dir);
    let fs = &*options.fs;
    create_dirs(fs, &dirs)?;
    let lock = lock(fs, &dirs.data)?;
    version::check(fs, &dirs)?;
    let from_backup = is_backup(fs, &dirs)?;
    let mut report = Report::default();
    let mut holes = Holes::default();
    let mut files = list_log(fs, &dirs.log, options.segment_bytes)?;
    let key = load_key(options, &dirs, &mut files, &mut report.damage)?;
    let mut sources = Sources {
        options,
        dirs: &dirs,
        key: &key,
        files: &mut files,
        holes: &mut holes,
        from_backup,
        damage: &mut report.damage,
    };
    let Loaded { mut index, base, groups, verdict, replayed, state, rebuilt, snapshot } = sources.load()?;
    // After a crash the names here may be in the page cache only: that of the snapshot, which decides what log may go, and
    // those of directories that were just created.
    fs.sync_dir(&dirs.data).map_err(io_error("sync", &dirs.data))?;
    let accepted = groups.get(..verdict.accepted).unwrap_or_default();
    report.losses(fs, &dirs, &verdict, &groups, &index);
    report.damage.extend(replayed.damage);
    keep_damaged(fs, &dirs, &files, base.resume, &verdict, &replayed.damaged);
    let seal = Seal { fs, dirs: &dirs, from: base.resume, groups: &groups, verdict: &verdict };
    seal.run(&mut files, &mut holes, &mut report.damage)?;
    report.missing_segments(&index, &files);
    report.clean_large(fs, &dirs, &mut index)?;

    if from_backup && !rebuilt {
        backup::restored(fs, &dirs.data).map_err(io_error("remove the mark of a backup from", &dirs.data))?;
    }
    let new = groups.is_empty() && base == Base::default() && !rebuilt;
    let clean = new || (replayed.clean && !rebuilt);
    let last_lsn = accepted.last().map_or(base.lsn, |group| group.header.last_lsn()).max(base.lsn);
    let link = accepted.last().map_or(base.resume.link, |group| group.sum);
    let epochs = groups.iter().map(|group| group.header.epoch).chain([base.epoch, snapshot.epoch]);
    let epoch = epochs.max().unwrap_or_default() + 1;
    if !clean {
        index.mark_all_redelivered(SEQ_GAP.saturating_mul(epoch - base.epoch));
    }
    let next_id = files.next_id.max(base.resume.segment + 1).max(snapshot.resume.segment + 1);
    let older_log = files.segments.range(snapshot.resume.segment..).map(|(_, &len)| len).sum();
    let space = Space::new(options, &dirs.log, Stock { next_id, ..files });
    // A rebuilt sled has nothing yet; as long as the log names a later checkpoint, it does not count.
    let checkpoint = if rebuilt { Base::default() } else { base };
    let boot = Boot { lsn: last_lsn + LSN_GAP, epoch, link, synced: last_lsn, checkpoint: checkpoint.lsn };
    let (segment, at) = boot.write(&space, &key, &dirs.log)?;
    index.applied = boot.lsn;
    index.resume = at;
    index.end = at;

    let mut queues: Vec<_> = index.queues.iter().map(|(&id, queue)| queue.summary(id)).collect();
    queues.sort_by_key(|queue| queue.id);
    let topology = index.topology.records.iter().map(|(key, record)| (key.clone(), record.value.clone())).collect();
    let Report { damage, lost } = report;
    for line in &damage {
        tracing::warn!("{line}");
    }
    let recovered = Recovered { topology, queues, clean, damage, lost, replayed_entries: replayed.entries };
    let mirrors = Mirrors { checkpoint, snapshot, older_log };
    let start = Start { dirs, key, epoch, index, space, next_lsn: boot.lsn + 1 };
    Ok(Opened { lock, start, segment, at, state, mirrors, recovered })
}

/// Creates the directories that are missing. A new data directory has to survive a power loss with all that will be in it,
/// so the directories above, as far as they are new too, are synced; what is in it is synced later.
fn create_dirs(fs: &dyn Fs, dirs: &Dirs) -> Result<(), OpenError> {
    let is_named = |dir: &&Path| !dir.as_os_str().is_empty();
    let missing: Vec<&Path> = dirs.data.ancestors().filter(is_named).take_while(|dir| !fs.exists(dir)).collect();
    for dir in [&dirs.data, &dirs.log, &dirs.large] {
        fs.create_dir_all(dir).map_err(io_error("create", dir))?;
    }
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs.sync_dir(parent).map_err(io_error("sync", parent))?;
    }
    Ok(())
}

/// Whether this is a backup that no store has made its own yet.
fn is_backup(fs: &dyn Fs, dirs: &Dirs) -> Result<bool, OpenError> {
    match backup::kind(fs, &dirs.data).map_err(io_error("read", &dirs.data))? {
        backup::Kind::Ordinary => Ok(false),
        backup::Kind::Complete(manifest) => {
            tracing::info!(lsn = manifest.lsn, "the data directory is a backup: it is being restored");
            Ok(true)
        }
        backup::Kind::Incomplete => Err(OpenError::IncompleteBackup { directory: dirs.data.clone() }),
    }
}

/// Reads the key, or makes one for a new directory. When both copies are gone, sled or the snapshot still have it. Without it
/// nothing of the log can be read, and what it was written with is kept away from reuse.
fn load_key(options: &Options, dirs: &Dirs, files: &mut Stock, damage: &mut Vec<String>) -> Result<Key, OpenError> {
    let fs = &*options.fs;
    let mut copies = key::find(fs, &dirs.data, damage)?;
    let key = match copies.key {
        Some(key) => key,
        None if files.segments.is_empty() && copies.unreadable.is_none() => Key::from_bytes(rand::random()),
        None => {
            let spare = sources::spare_key(options, dirs);
            // They may be good. A disk that reads none of these files is for the operator to see to.
            if spare.is_none()
                && let Some(error) = copies.unreadable.take()
            {
                return Err(error);
            }
            damage.push(match spare {
                Some(_) => "both copies of the key were lost; it was taken from elsewhere".to_owned(),
                None => "both copies of the key are lost: the log can't be read and was moved to quarantine".to_owned(),
            });
            if spare.is_none() {
                for id in std::mem::take(&mut files.segments).into_keys() {
                    quarantine(fs, dirs, &segment::path(&dirs.log, id))?;
                }
            }
            spare.unwrap_or_else(|| Key::from_bytes(rand::random()))
        }
    };
    copies.complete(fs, key)?;
    Ok(key)
}

/// After a clean stop: cuts the last segment where the log ends, so that the next start need not look what is behind.
pub(crate) fn end_segment(fs: &dyn Fs, log_dir: &Path, end: Position) {
    let path = segment::path(log_dir, end.segment);
    if let Err(error) = backup::cut(fs, &path, end.offset) {
        tracing::warn!(path = %path.display(), %error, "cannot cut the end of the log");
    }
}

fn lock(fs: &dyn Fs, data_dir: &Path) -> Result<Arc<dyn File>, OpenError> {
    let path = data_dir.join("lock");
    let file = fs.open(&path, OpenMode::Create).map_err(io_error("open", &path))?;
    if !file.try_lock().map_err(io_error("lock", &path))? {
        return Err(OpenError::Locked { directory: data_dir.to_path_buf() });
    }
    Ok(file)
}

fn list_log(fs: &dyn Fs, log_dir: &Path, segment_bytes: u64) -> Result<Stock, OpenError> {
    let mut files = Stock { next_id: 1, ..Stock::default() };
    for entry in fs.list(log_dir).map_err(io_error("list", log_dir))? {
        let path = log_dir.join(&entry.name);
        let name = segment::classify(&entry.name);
        match name {
            LogName::Segment(id) => {
                files.segments.insert(id, entry.len);
                files.next_id = files.next_id.max(id + 1);
            }
            LogName::Free(number) | LogName::Reserve(number) => {
                files.next_id = files.next_id.max(number + 1);
                if entry.len != segment_bytes {
                    fs.remove_file(&path).map_err(io_error("remove", &path))?;
                } else if name == LogName::Free(number) {
                    files.free.push(path);
                } else {
                    files.reserve.push(path);
                }
            }
            LogName::Other if entry.name.ends_with(".tmp") => {
                fs.remove_file(&path).map_err(io_error("remove", &path))?;
            }
            LogName::Other => {}
        }
    }
    Ok(files)
}

/// Ends the log where the last accepted group ends, and makes durable what was read of it: after a crash it may have come
/// from the page cache. Groups that nobody saw synced are written again where they are, with the same bytes: when their sync
/// failed before, the kernel takes their pages for written, and a sync alone would not write them. They were confirmed to
/// nobody, but from here on others build on them.
struct Seal<'a> {
    fs: &'a dyn Fs,
    dirs: &'a Dirs,
    from: Position,
    groups: &'a [GroupRef],
    verdict: &'a Verdict,
}

impl Seal<'_> {
    fn run(&self, files: &mut Stock, holes: &mut Holes, damage: &mut Vec<String>) -> Result<(), OpenError> {
        let &Self { fs, dirs, from, groups, verdict } = self;
        let accepted = groups.get(..verdict.accepted).unwrap_or_default();
        let dropped = groups.get(verdict.accepted..).unwrap_or_default();
        let end = match accepted.last() {
            Some(last) => (last.segment, last.offset + last.header.span()),
            None => (from.segment, from.offset),
        };
        let synced = groups.iter().map(|group| group.header.synced_upto).max().unwrap_or_default();
        let ids: Vec<u64> = files.segments.range(from.segment..).map(|(&id, _)| id).collect();
        for id in ids {
            let path = segment::path(&dirs.log, id);
            // A single group is the torn end itself, which happened to be the first of its segment.
            let torn = dropped.len() == 1 && dropped.iter().any(|group| group.segment == id);
            if id > end.0 && !torn && dropped.iter().any(|group| group.segment == id) {
                quarantine(fs, dirs, &path)?;
                let shown = path.display();
                damage.push(format!("{shown} was moved to quarantine: it stands behind the torn end of the log"));
                files.segments.remove(&id);
                continue;
            }
            let mut file = fs.open(&path, OpenMode::Write).map_err(io_error("open", &path))?;
            let cut = match id {
                _ if id == end.0 => Some(end.1),
                _ if torn => Some(0),
                _ => None,
            };
            if let Some(cut) = cut
                && file.len().map_err(io_error("read", &path))? > cut
            {
                // Where there are two names the part that stays is copied, and some of it was not read so far.
                if let Err(error) = backup::cut(fs, &path, cut) {
                    holes.mend(fs, dirs, files, io_error("truncate", &path)(error), damage)?;
                    backup::cut(fs, &path, cut).map_err(io_error("truncate", &path))?;
                }
                files.segments.insert(id, cut);
                // It may be another file now.
                file = fs.open(&path, OpenMode::Write).map_err(io_error("open", &path))?;
            }
            for group in accepted.iter().filter(|group| group.segment == id && group.header.last_lsn() > synced) {
                let bytes = scan::read_group(&*file, &path, group.offset, &group.header)?;
                file.write_all_at(&bytes, group.offset).map_err(io_error("write", &path))?;
            }
            file.sync_data().map_err(io_error("sync", &path))?;
        }
        Ok(())
    }
}

/// The first group of an opening, alone in a new segment. It proves that the directory can be written, ends the clean state
/// of the opening before, and makes the epoch durable before any id with it is given out.
struct Boot {
    lsn: u64,
    epoch: u64,
    link: u32,
    synced: u64,
    checkpoint: u64,
}

impl Boot {
    fn write(&self, space: &Space, key: &Key, log_dir: &Path) -> Result<(Segment, Position), OpenError> {
        let segment = space.next(0, Depth::Last).map_err(io_error("create a segment in", log_dir))?;
        let path = segment::path(log_dir, segment.id);
        let mut buf = vec![0; HEADER];
        let (mut tx_sum, mut entries_sum) = (0, 0);
        let mut target = Target {
            key,
            segment: segment.id,
            group_offset: 0,
            buf: &mut buf,
            tx_sum: &mut tx_sum,
            entries_sum: &mut entries_sum,
        };
        // Without a payload nothing can have the wrong length.
        let _ = target.encode(Entry::CheckpointDone { lsn: self.checkpoint, clean: false }, Body::Inline);
        let header = GroupHeader {
            segment: segment.id,
            first_lsn: self.lsn,
            synced_upto: self.synced,
            epoch: self.epoch,
            count: 1,
            length: (buf.len() - HEADER) as u32,
            previous: self.link,
            entries_sum,
        };
        let link = header.put(key, &mut buf);
        buf.resize(header.span() as usize, 0);
        segment.file.write_all_at(&buf, 0).map_err(io_error("write", &path))?;
        segment.file.sync_data().map_err(io_error("sync", &path))?;
        let at = Position { segment: segment.id, offset: header.span(), link };
        Ok((segment, at))
    }
}

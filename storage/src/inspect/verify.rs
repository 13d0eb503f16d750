//! Is everything as it was written?

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::backup;
use crate::error::{OpenError, io_error};
use crate::fs::{Fs, OpenMode};
use crate::index::Index;
use crate::index::bits;
use crate::index::chunk::CHUNK;
use crate::large;
use crate::log::segment::{self, LogName};
use crate::recover::scan::{self, GroupRef, Loss, Walked};
use crate::types::{QueueId, Seq};

use super::{InspectError, Inspector};

/// What was found of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Segments of the log.
    pub segments: u64,
    /// Groups in them whose header is good.
    pub groups: u64,
    /// Entries in those.
    pub entries: u64,
    /// Bytes of the groups.
    pub log_bytes: u64,
    /// Free segment files.
    pub free_files: u64,
    /// Files of large messages that messages name.
    pub large_files: u64,
    /// Names in the quarantine.
    pub quarantined: u64,
    /// Queues with messages, or that had some.
    pub queues: u64,
    /// Live messages.
    pub messages: u64,
}

/// One thing that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: Option<u64>,
    /// The positions of the log that are concerned.
    pub lsns: Option<(u64, u64)>,
    /// The messages that are lost by it: queue, first and last.
    pub messages: Option<(QueueId, Seq, Seq)>,
    /// What is wrong.
    pub what: String,
}

/// What [`Inspector::verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How much there is.
    pub counts: Counts,
    /// Everything that was promised and is not there.
    pub damage: Vec<Finding>,
    /// What is remarkable and no damage.
    pub notes: Vec<String>,
}

impl Report {
    fn damage(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) -> &mut Finding {
        let finding = Finding { path: path.into(), offset: None, lsns: None, messages: None, what: what.into() };
        let at = self.damage.len();
        self.damage.push(finding);
        &mut self.damage[at]
    }
}

/// The good parts of a segment.
#[derive(Default)]
struct Sound {
    /// Begin and end of every group, ascending.
    groups: Vec<(u64, u64)>,
    /// Begin and end of the parts of them that don't verify, ascending.
    bad: Vec<(u64, u64)>,
}

impl Sound {
    fn contains(&self, offset: u64) -> bool {
        let inside = |parts: &[(u64, u64)]| {
            let after = parts.partition_point(|&(begin, _)| begin <= offset);
            after.checked_sub(1).and_then(|at| parts.get(at)).is_some_and(|&(_, end)| offset < end)
        };
        inside(&self.groups) && !inside(&self.bad)
    }
}

impl Inspector {
    /// Reads every file and checks all there is to check.
    ///
    /// # Errors
    ///
    /// When a newer version wrote the directory, or a directory cannot be listed. A file that cannot be read is damage.
    pub fn verify(&self) -> Result<Report, InspectError> {
        let mut report = Report::default();
        for line in &self.key_damage {
            report.damage(&self.dirs.data, line.clone());
        }
        let (groups, sound) = self.segments(&mut report)?;
        let loaded = self.load(&groups)?;
        self.chain(&groups, loaded.losses, &mut report);
        if let Some(lsn) = loaded.short_of {
            report.damage(&self.dirs.log, format!("the log ends before LSN {lsn}, where the last checkpoint is"));
        }
        for line in loaded.sled {
            report.damage(&self.dirs.sled, line);
        }
        for line in loaded.snapshot {
            report.damage(self.dirs.data.join(crate::snapshot::NAME), line);
        }
        self.messages(&loaded.index, &sound, &mut report);
        self.others(&loaded.index, &mut report)?;
        Ok(report)
    }

    fn segments(&self, report: &mut Report) -> Result<(Vec<GroupRef>, BTreeMap<u64, Sound>), InspectError> {
        let mut all = Vec::new();
        let mut sound: BTreeMap<u64, Sound> = BTreeMap::new();
        for &id in &self.segments {
            report.counts.segments += 1;
            let groups = match self.groups(id) {
                Ok(groups) => groups,
                Err(newer @ OpenError::Format { .. }) => return Err(newer.into()),
                Err(error) => {
                    report.damage(self.segment_path(id), error.to_string());
                    continue;
                }
            };
            let parts = sound.entry(id).or_default();
            for group in &groups {
                report.counts.groups += 1;
                report.counts.entries += u64::from(group.header.count);
                report.counts.log_bytes += group.header.span();
                parts.groups.push((group.offset, group.offset + group.header.span()));
                if !group.bad.is_empty() {
                    parts.bad.extend(self.bad_parts(group)?);
                }
            }
            all.extend(groups);
        }
        Ok((all, sound))
    }

    /// Where the entries of a group are that don't verify: each up to the next that does.
    fn bad_parts(&self, group: &GroupRef) -> Result<Vec<(u64, u64)>, InspectError> {
        let path = self.segment_path(group.segment);
        let file = self.fs.open(&path, OpenMode::Read).map_err(io_error("read", &path))?;
        let bytes = scan::read_group(&*file, &path, group.offset, &group.header)?;
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let mut open = None;
        scan::walk(&bytes, &self.key, group.segment, group.offset, group.header.count, |_, walked| match walked {
            Walked::Good(_, offset) => parts.extend(open.take().map(|begin| (begin, offset))),
            Walked::Bad(entries) => open = Some(open.unwrap_or(entries.offset)),
        });
        parts.extend(open.map(|begin| (begin, group.offset + group.header.span())));
        Ok(parts)
    }

    /// Whether every group follows the one before, and what is lost between and in them.
    ///
    /// `since` is what is missing behind the last checkpoint, where no segment may be; before it some were recycled.
    fn chain(&self, groups: &[GroupRef], since: Vec<Loss>, report: &mut Report) {
        let verdict = scan::judge(groups, 0, None, true);
        let mut losses = verdict.losses;
        let is_new =
            |loss: &Loss| !losses.iter().any(|known| (known.segment, known.offset) == (loss.segment, loss.offset));
        let more: Vec<_> = since.into_iter().filter(is_new).collect();
        losses.extend(more);
        for Loss { segment, offset, first_lsn, last_lsn, inside, .. } in losses {
            let what =
                if inside.is_some() { "log entries are damaged" } else { "log entries are missing before this place" };
            let finding = report.damage(self.segment_path(segment), what);
            finding.offset = Some(offset);
            finding.lsns = Some((first_lsn, last_lsn));
        }
        if let Some(torn) = groups.get(verdict.accepted) {
            let path = self.segment_path(torn.segment);
            let (count, at) = (groups.len() - verdict.accepted, torn.offset);
            report.notes.push(format!(
                "{}, offset {at}: the log ends here; {count} unconfirmed groups behind that are torn",
                path.display()
            ));
        }
    }

    /// Whether the bytes of every live message are there. Neighbours that are lost for the same reason are one finding.
    fn messages(&self, index: &Index, sound: &BTreeMap<u64, Sound>, report: &mut Report) {
        let mut ids: Vec<QueueId> = index.queues.keys().copied().collect();
        ids.sort_unstable();
        report.counts.queues = ids.len() as u64;
        for (id, queue) in ids.iter().filter_map(|id| Some((*id, index.queues.get(id)?))) {
            let chunks = queue.chunks.iter().filter_map(|(&number, chunk)| Some((number, chunk, chunk.columns()?)));
            let messages = chunks.flat_map(|(number, chunk, columns)| {
                let slots = bits::slots(&chunk.live, 0);
                slots.map(move |slot| (number * CHUNK + slot as u64, columns.entry(slot)))
            });
            for (seq, (location, len)) in messages {
                report.counts.messages += 1;
                let (path, offset, what) = if let Some(file) = location.as_large() {
                    let path = large::path(&self.dirs.large, file);
                    let what = match large::read(&self.fs, &self.dirs.large, file, len) {
                        Ok(Some(_)) => continue,
                        Ok(None) if path.exists() => "the large message is damaged".to_owned(),
                        Ok(None) => "the file of a large message is missing".to_owned(),
                        Err(error) => format!("the large message cannot be read: {error}"),
                    };
                    (path, None, what)
                } else if let Some((segment, offset)) = location.as_segment() {
                    let what = match sound.get(&segment) {
                        Some(parts) if parts.contains(offset) => continue,
                        Some(_) => "the bytes of messages are damaged",
                        None => "the segment is missing, and with it messages",
                    };
                    (self.segment_path(segment), Some(offset), what.to_owned())
                } else {
                    (self.dirs.data.clone(), None, "the index names no place for messages".to_owned())
                };
                lost(report, (id, seq), path, offset, what);
            }
        }
    }

    /// Files that hold nothing which was promised.
    fn others(&self, index: &Index, report: &mut Report) -> Result<(), InspectError> {
        for entry in self.fs.list(&self.dirs.log).map_err(io_error("list", &self.dirs.log))? {
            match segment::classify(&entry.name) {
                LogName::Free(_) | LogName::Reserve(_) => report.counts.free_files += 1,
                LogName::Other if entry.name.ends_with(".tmp") => {
                    report.notes.push(format!("log/{}: left over; the next start removes it", entry.name));
                }
                LogName::Segment(_) | LogName::Other => {}
            }
        }
        let large_files = match self.fs.list(&self.dirs.large) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("list", &self.dirs.large)(error).into()),
        };
        for entry in large_files {
            if large::parse_name(&entry.name).is_some_and(|id| index.has_large(id)) {
                report.counts.large_files += 1;
            } else {
                report.notes.push(format!("large/{}: no message names it", entry.name));
            }
        }
        for name in ["key", "log/key"] {
            if !self.dirs.data.join(name).exists() {
                report.notes.push(format!("{name}: missing; the other copy serves"));
            }
        }
        if let Ok(entries) = std::fs::read_dir(&self.dirs.quarantine) {
            for entry in entries.flatten() {
                report.counts.quarantined += 1;
                let name = entry.file_name();
                report.notes.push(format!("quarantine/{}: put aside by an earlier start", name.to_string_lossy()));
            }
        }
        match backup::kind(&self.fs, &self.dirs.data).map_err(io_error("read", &self.dirs.data))? {
            backup::Kind::Ordinary => {}
            backup::Kind::Complete(manifest) => {
                report.notes.push(format!("a finished backup, up to LSN {}", manifest.lsn));
            }
            backup::Kind::Incomplete => {
                report.damage(&self.dirs.data, "a backup that was not finished");
            }
        }
        report.notes.sort();
        Ok(())
    }
}

fn lost(report: &mut Report, (queue, seq): (QueueId, Seq), path: PathBuf, offset: Option<u64>, what: String) {
    if let Some(last) = report.damage.last_mut()
        && last.path == path
        && last.what == what
        && let Some((id, _, last_seq)) = &mut last.messages
        && (*id, last_seq.wrapping_add(1)) == (queue, seq)
    {
        *last_seq = seq;
        return;
    }
    let finding = report.damage(path, what);
    finding.offset = offset;
    finding.messages = Some((queue, seq, seq));
}

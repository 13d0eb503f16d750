//! Finding the groups of the log again and judging what is between them.

use std::io;
use std::path::Path;

use crate::error::{OpenError, io_error};
use crate::fs::{File, Fs, OpenMode};
use crate::index::Position;
use crate::log::group::{ALIGN, Found, GroupHeader, HEADER, VERSION};
use crate::log::key::Key;
use crate::log::record::{self, Verified};
use crate::log::segment;

use super::progress::Progress;

/// Bytes looked through at once for the next group header.
const WINDOW: usize = 1024 * 1024;

/// A group whose header verifies.
#[derive(Clone, Debug)]
pub(crate) struct GroupRef {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) header: GroupHeader,
    /// Checksum of the header, which the next group repeats.
    pub(crate) sum: u32,
    pub(crate) bad: Vec<BadEntries>,
    /// The disk could not read all of it: what is bad in it is no torn end.
    pub(crate) unreadable: bool,
}

/// Entries of a group that don't verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadEntries {
    /// Index of the first in its group.
    pub(crate) first: u32,
    /// How many: one, or all to the end of the group when the next could not be found.
    pub(crate) count: u32,
    /// Where the first is in its segment.
    pub(crate) offset: u64,
}

/// Something between two groups that should be there and is not, or entries that don't verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    /// Segment of the group before, 0 if there is none: what is missing may have been in any from there on.
    pub(crate) before: u64,
    /// Index of the group that has the damage inside, if it is not between groups.
    pub(crate) inside: Option<usize>,
}

/// What to make of the groups found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// How many groups count; what comes after them is a torn tail.
    pub(crate) accepted: usize,
    /// What was durable once and is lost.
    pub(crate) losses: Vec<Loss>,
}

/// Lists the groups of the segments from a position on.
pub(crate) fn scan(
    fs: &dyn Fs,
    log_dir: &Path,
    key: &Key,
    segments: impl Iterator<Item = u64>,
    from: Position,
) -> Result<Vec<GroupRef>, OpenError> {
    let mut groups = Vec::new();
    let segments: Vec<u64> = segments.filter(|&id| id >= from.segment).collect();
    let mut progress = Progress::new("segments of the log read", segments.len() as u64);
    for (done, &id) in segments.iter().enumerate() {
        progress.at(done as u64);
        let path = segment::path(log_dir, id);
        let file = fs.open(&path, OpenMode::Read).map_err(io_error("read", &path))?;
        let start = if id == from.segment { from.offset } else { 0 };
        scan_segment(&*file, &path, key, id, start, &mut groups)?;
    }
    Ok(groups)
}

fn scan_segment(
    file: &dyn File,
    path: &Path,
    key: &Key,
    id: u64,
    start: u64,
    groups: &mut Vec<GroupRef>,
) -> Result<(), OpenError> {
    let len = file.len().map_err(io_error("read", path))?;
    let mut window = Window { file, path, len, start: 0, buf: Vec::new() };
    let mut at = start;
    while at < len {
        match GroupHeader::parse(window.at(at)?, key, id) {
            Found::Group(header, sum) if at + HEADER as u64 + u64::from(header.length) <= len => {
                let body = read_group(file, path, at, &header)?;
                let bad = bad_entries(&body, key, id, at, &header);
                groups.push(GroupRef { segment: id, offset: at, header, sum, bad, unreadable: false });
                at += header.span();
            }
            Found::Newer(version) => {
                let what = "a group of its log".to_owned();
                return Err(OpenError::Format { path: path.to_path_buf(), version, what, supported: VERSION });
            }
            // Only group headers are looked for, never entries: what stands between two headers is not trusted.
            _ => at += ALIGN as u64,
        }
    }
    Ok(())
}

/// Whether the last group before a position ends there and has the checksum that the position names.
pub(crate) fn ends_at(fs: &dyn Fs, path: &Path, key: &Key, end: Position) -> io::Result<bool> {
    let file = fs.open(path, OpenMode::Read)?;
    let mut at = end.offset;
    let mut head = [0; HEADER];
    while let Some(before) = at.checked_sub(ALIGN as u64) {
        at = before;
        file.read_at(&mut head, at)?;
        if let Found::Group(header, sum) = GroupHeader::parse(&head, key, end.segment) {
            return Ok(at + header.span() == end.offset && sum == end.link);
        }
    }
    Ok(false)
}

struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    len: u64,
    start: u64,
    buf: Vec<u8>,
}

impl Window<'_> {
    /// The bytes at an aligned place, enough of them for a header.
    fn at(&mut self, at: u64) -> Result<&[u8], OpenError> {
        let within = at >= self.start && at + HEADER as u64 <= self.start + self.buf.len() as u64;
        if !within {
            let want = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(WINDOW);
            self.buf.resize(want, 0);
            let got = self.file.read_at(&mut self.buf, at).map_err(io_error("read", self.path))?;
            self.buf.truncate(got);
            self.start = at;
        }
        Ok(self.buf.get(usize::try_from(at - self.start).unwrap_or(usize::MAX)..).unwrap_or_default())
    }
}

/// Reads a group, header included, padding not. The caller has checked its length against the file's.
pub(crate) fn read_group(file: &dyn File, path: &Path, at: u64, header: &GroupHeader) -> Result<Vec<u8>, OpenError> {
    let mut buf = vec![0; HEADER + header.length as usize];
    let got = file.read_at(&mut buf, at).map_err(io_error("read", path))?;
    buf.truncate(got);
    Ok(buf)
}

/// One entry of a group while it is walked through.
pub(crate) enum Walked<'a> {
    /// It verifies; with its place in the segment.
    Good(Verified<'a>, u64),
    /// It does not.
    Bad(BadEntries),
}

/// Walks through the entries of a group. Behind one that does not verify it goes on only where the next does.
pub(crate) fn walk<'a>(
    group: &'a [u8],
    key: &Key,
    segment: u64,
    at: u64,
    count: u32,
    mut each: impl FnMut(u32, Walked<'a>),
) {
    let mut pos = HEADER;
    let mut index = 0;
    let verify = |pos: usize| group.get(pos..).and_then(|rest| record::verify(rest, key, segment, at + pos as u64));
    while index < count {
        let offset = at + pos as u64;
        if let Some(entry) = verify(pos) {
            pos += entry.span();
            each(index, Walked::Good(entry, offset));
            index += 1;
            continue;
        }
        let next = announced_end(group, pos).filter(|&next| index + 1 < count && verify(next).is_some());
        let lost = if next.is_some() { 1 } else { count - index };
        each(index, Walked::Bad(BadEntries { first: index, count: lost, offset }));
        index += lost;
        pos = next.unwrap_or(group.len());
    }
}

fn announced_end(group: &[u8], pos: usize) -> Option<usize> {
    let len = u32::from_le_bytes(*group.get(pos..)?.first_chunk::<4>()?) as usize;
    let next = pos.checked_add(len)?.next_multiple_of(record::ALIGN);
    (len >= record::PREFIX && next < group.len()).then_some(next)
}

fn bad_entries(group: &[u8], key: &Key, segment: u64, at: u64, header: &GroupHeader) -> Vec<BadEntries> {
    let mut bad = Vec::new();
    let mut sum = 0;
    walk(group, key, segment, at, header.count, |_, walked| match walked {
        Walked::Good(entry, _) => sum = crc32c::crc32c_append(sum, &entry.checksum.to_le_bytes()),
        Walked::Bad(entries) => bad.push(entries),
    });
    if bad.is_empty() && sum != header.entries_sum {
        // Every entry is as it was written, but they are not the ones the header was written for.
        bad.push(BadEntries { first: 0, count: header.count, offset: at });
    }
    bad
}

/// The LSNs between segments that do not follow each other: of segments that were recycled, or lost. First and last.
pub(crate) fn between_segments(groups: &[GroupRef]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let gaps = groups.windows(2).filter_map(|pair| {
        let [before, after] = pair else { return None };
        let follows = before.segment == after.segment || before.sum == after.header.previous;
        (!follows).then(|| (before.header.last_lsn() + 1, after.header.first_lsn.saturating_sub(1)))
    });
    gaps.filter(|(first, last)| first <= last)
}

/// The highest LSN that the groups prove to have been synced: by what they say, and since a group is written only after
/// the one before was synced, by being there.
pub(crate) fn synced_upto(groups: &[GroupRef]) -> u64 {
    let proven = groups.iter().map(|group| group.header.synced_upto.max(group.header.first_lsn.saturating_sub(1)));
    proven.max().unwrap_or_default()
}

/// Tells a torn tail from damage. A group that is bad and that nobody saw synced is where the log ended; what was below
/// [`synced_upto`] was durable, and its loss has to be named.
///
/// `link` is the checksum of the group before the first, when it is known. `gaps` says that whole segments may be missing
/// because they were recycled.
pub(crate) fn judge(groups: &[GroupRef], base_lsn: u64, mut link: Option<u32>, gaps: bool) -> Verdict {
    let synced = synced_upto(groups).max(base_lsn);
    let mut verdict = Verdict::default();
    let mut last_lsn = base_lsn;
    let mut segment = groups.first().map_or(0, |group| group.segment);
    for (index, group) in groups.iter().enumerate() {
        let linked = link.is_none_or(|link| link == group.header.previous);
        let recycled = gaps && segment != group.segment;
        if !(linked || recycled) {
            let first_lsn = last_lsn + 1;
            if first_lsn > synced {
                return verdict;
            }
            let before = if index == 0 { 0 } else { segment };
            let (segment, offset) = (group.segment, group.offset);
            let last_lsn = group.header.first_lsn.saturating_sub(1);
            verdict.losses.push(Loss { segment, offset, first_lsn, last_lsn, before, inside: None });
        }
        for bad in &group.bad {
            let first_lsn = group.header.first_lsn + u64::from(bad.first);
            if first_lsn > synced && !group.unreadable {
                return verdict;
            }
            let last_lsn = first_lsn + u64::from(bad.count) - 1;
            let (segment, offset) = (group.segment, bad.offset);
            verdict.losses.push(Loss { segment, offset, first_lsn, last_lsn, before: segment, inside: Some(index) });
        }
        link = Some(group.sum);
        last_lsn = group.header.last_lsn();
        segment = group.segment;
        verdict.accepted = index + 1;
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(first_lsn: u64, synced_upto: u64, previous: u32, bad: Vec<BadEntries>) -> GroupRef {
        let header =
            GroupHeader { segment: 1, first_lsn, synced_upto, epoch: 1, count: 1, length: 0, previous, entries_sum: 0 };
        GroupRef { segment: 1, offset: first_lsn * ALIGN as u64, header, sum: previous + 1, bad, unreadable: false }
    }

    /// The third was encoded while the second was with the sync thread, so it does not say that the second was synced.
    #[test]
    fn a_group_proves_that_the_one_before_was_synced() {
        let bad = BadEntries { first: 0, count: 1, offset: 2 * ALIGN as u64 };
        let mut groups = vec![group(1, 0, 0, vec![]), group(2, 0, 1, vec![bad]), group(3, 1, 2, vec![])];
        let verdict = judge(&groups, 0, Some(0), false);
        assert_eq!(verdict.accepted, 3);
        let lost: Vec<_> = verdict.losses.iter().map(|loss| (loss.first_lsn, loss.last_lsn)).collect();
        assert_eq!(lost, [(2, 2)]);
        groups.pop();
        let verdict = judge(&groups, 0, Some(0), false);
        assert_eq!((verdict.accepted, verdict.losses.len()), (1, 0), "without it, that is a torn end");
        groups[1].unreadable = true;
        let verdict = judge(&groups, 0, Some(0), false);
        assert_eq!((verdict.accepted, verdict.losses.len()), (2, 1), "but not when the disk fails to read it");
    }
}

//! What the disk cannot read. A segment with such places is replaced by a copy that has zeroes there, so that nobody runs into
//! them again and the rest is judged like every other damage; the file itself goes to quarantine as it is.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{OpenError, io_error};
use crate::fs::{File, Fs, OpenMode};
use crate::log::segment;
use crate::shortage;
use crate::space::Stock;

use super::Dirs;
use super::progress::Progress;
use super::quarantine::{keep_aside, quarantine};
use super::scan::GroupRef;

/// Bytes copied at once, as long as the disk reads them.
const PIECE: usize = 1024 * 1024;
/// Else it is asked for so many at a time.
const PAGE: usize = 4096;
/// Calls before a place counts as one that cannot be read.
const TRIES: usize = 4;
/// Places named in one line.
const NAMED: usize = 8;

/// Whether the disk, or the file system's own checksum, says that a place cannot be read. Other errors are no property of the
/// place: they end the start.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::IO | Errno::BADMSG | Errno::UCLEAN | Errno::NODATA | Errno::ILSEQ | Errno::REMOTEIO))
}

/// Calls again and again, for an error that is none of the place.
fn insist<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match call() {
            Err(error) if is_unreadable(&error) && tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

/// Whether a file still cannot be read, while the disk gives out some other file: then it is damaged. Else the disk has failed,
/// or has recovered, and nothing should be decided for good.
pub(super) fn is_lost(fs: &dyn Fs, dirs: &Dirs, path: &Path) -> bool {
    let readable = |path: &Path| -> io::Result<()> {
        let file = insist(|| fs.open(path, OpenMode::Read))?;
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            match insist(|| file.read_at(&mut piece, at))? {
                0 => return Ok(()),
                got => at += got as u64,
            }
        }
    };
    readable(path).is_err_and(|error| is_unreadable(&error)) && disk_answers(fs, dirs, path)
}

/// Whether the disk gives out the first page of any file of ours but this one.
fn disk_answers(fs: &dyn Fs, dirs: &Dirs, but: &Path) -> bool {
    let mut page = [0; PAGE];
    let mut answers = |path: &Path| {
        path != but && insist(|| fs.open(path, OpenMode::Read)?.read_at(&mut page, 0)).is_ok_and(|got| got > 0)
    };
    [&dirs.data, &dirs.log].into_iter().any(|dir| {
        let entries = fs.list(dir).unwrap_or_default();
        entries.iter().any(|entry| answers(&dir.join(&entry.name)))
    })
}

/// The places of segments that could not be read.
#[derive(Default)]
pub(super) struct Holes(BTreeMap<u64, Vec<Range<u64>>>);

impl Holes {
    /// After an error that says that a segment cannot be read: copies what can be read, so that the caller can go on.
    ///
    /// # Errors
    ///
    /// The error, when it is another one or the segment was mended before; what went wrong with the copy.
    pub(super) fn mend(
        &mut self,
        fs: &dyn Fs,
        dirs: &Dirs,
        files: &mut Stock,
        error: OpenError,
        damage: &mut Vec<String>,
    ) -> Result<(), OpenError> {
        let OpenError::Io { path, source, .. } = &error else {
            return Err(error);
        };
        let id = files.segments.keys().copied().find(|&id| segment::path(&dirs.log, id) == *path);
        let Some(id) = id.filter(|id| is_unreadable(source) && !self.0.contains_key(id)) else {
            return Err(error);
        };
        let (shown, temporary) = (path.display(), path.with_extension("tmp"));
        let file = match insist(|| fs.open(path, OpenMode::Read)) {
            Ok(file) => file,
            Err(reason) if is_unreadable(&reason) && !disk_answers(fs, dirs, path) => return Err(error),
            Err(error) if is_unreadable(&error) => {
                self.0.insert(id, Vec::new());
                give_up(fs, dirs, files, id, &error.to_string(), damage);
                return Ok(());
            }
            Err(source) => return Err(io_error("read", path)(source)),
        };
        let len = file.len().map_err(io_error("read", path))?;
        let holes = loop {
            match copy(fs, &*file, &temporary, len) {
                Err(full) if shortage::is_full(&full) => match files.free.pop().or_else(|| files.reserve.pop()) {
                    Some(spare) => fs.remove_file(&spare).map_err(io_error("remove", &spare))?,
                    None => return Err(io_error("copy", path)(full)),
                },
                outcome => break outcome.map_err(io_error("copy", path))?,
            }
        };
        if holes.is_empty() || !disk_answers(fs, dirs, &temporary) {
            fs.remove_file(&temporary).map_err(io_error("remove", &temporary))?;
            if !holes.is_empty() {
                return Err(error);
            }
            // It was a whim of the disk's.
        } else if holes.first().is_some_and(|all| *all == (0..len)) {
            fs.remove_file(&temporary).map_err(io_error("remove", &temporary))?;
            give_up(fs, dirs, files, id, &source.to_string(), damage);
        } else {
            let kept = keep_aside(fs, dirs, path)?;
            fs.rename(&temporary, path).map_err(io_error("replace", path))?;
            fs.sync_dir(&dirs.log).map_err(io_error("sync", &dirs.log))?;
            let places: Vec<String> =
                holes.iter().take(NAMED).map(|hole| format!("{} to {}", hole.start, hole.end)).collect();
            let more = if holes.len() > NAMED { " and others" } else { "" };
            damage.push(format!(
                "{shown} cannot be read everywhere ({source}): bytes {}{more} count as lost; the file is kept as {}, a \
                 copy of the rest took its place",
                places.join(", "),
                kept.display(),
            ));
        }
        self.0.insert(id, holes);
        Ok(())
    }

    /// Marks the groups that could not be read as a whole.
    pub(super) fn mark(&self, groups: &mut [GroupRef]) {
        for group in groups {
            let (begin, end) = (group.offset, group.offset + group.header.span());
            let holes = self.0.get(&group.segment);
            group.unreadable = holes.is_some_and(|holes| holes.iter().any(|hole| hole.start < end && begin < hole.end));
        }
    }
}

/// Nothing of a segment can be read. When even its name cannot be moved, it stays where it is and does not count.
fn give_up(fs: &dyn Fs, dirs: &Dirs, files: &mut Stock, id: u64, reason: &str, damage: &mut Vec<String>) {
    let path = segment::path(&dirs.log, id);
    let where_to = match quarantine(fs, dirs, &path) {
        Ok(()) => "it was moved to quarantine".to_owned(),
        Err(error) => format!("it stays where it is, and does not count: {error}"),
    };
    files.segments.remove(&id);
    damage.push(format!("{} cannot be read at all ({reason}); {where_to}", path.display()));
}

/// Copies a file with zeroes in the place of what cannot be read. Returns these places.
fn copy(fs: &dyn Fs, from: &dyn File, to: &Path, len: u64) -> io::Result<Vec<Range<u64>>> {
    if fs.exists(to) {
        fs.remove_file(to)?;
    }
    let target = fs.open(to, OpenMode::CreateNew)?;
    let mut holes: Vec<Range<u64>> = Vec::new();
    let mut progress = Progress::new("bytes copied of a segment that cannot be read everywhere", len);
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < len {
        progress.at(at);
        let want = usize::try_from(len - at).unwrap_or(PIECE).min(PIECE);
        let piece = &mut piece[..want];
        match insist(|| from.read_at(piece, at)) {
            Ok(got) if got == want => {}
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if is_unreadable(&error) => {
                for (number, page) in piece.chunks_mut(PAGE).enumerate() {
                    let begin = at + (number * PAGE) as u64;
                    let end = begin + page.len() as u64;
                    match insist(|| from.read_at(page, begin)) {
                        Ok(_) => {}
                        Err(error) if is_unreadable(&error) => {
                            page.fill(0);
                            match holes.last_mut().filter(|hole| hole.end == begin) {
                                Some(hole) => hole.end = end,
                                None => holes.push(begin..end),
                            }
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        target.write_all_at(piece, at)?;
        at += want as u64;
    }
    target.sync_data()?;
    Ok(holes)
}

//! Which version of the format wrote a directory, found out before anything in it is changed.

use std::io;
use std::path::Path;

use crate::bytes_cursor::Cursor;
use crate::error::{OpenError, io_error};
use crate::fs::{Fs, OpenMode};
use crate::log::group::{Found, GroupHeader, VERSION};
use crate::log::key;
use crate::log::segment::{self, LogName};
use crate::snapshot;

use super::Dirs;
use super::salvage::is_unreadable;

/// Enough of a group for any header that a later version may give it.
const HEAD: usize = 4096;
/// Segments that may be without a first group; more than that is damage.
const LOOKED_AT: usize = 16;

/// Refuses a directory that a newer version has written to. Every opening begins a segment, so the first group of the newest
/// segment names the last writer; files that one version writes and another finds name it too. What is damaged says nothing
/// here: recovery deals with it.
///
/// # Errors
///
/// [`OpenError::Format`] with the file and its version.
pub(super) fn check(fs: &dyn Fs, dirs: &Dirs) -> Result<(), OpenError> {
    for dir in [&dirs.data, &dirs.log] {
        if let Some((path, version)) = readable(key::version(fs, dir))?.flatten() {
            judge(&path, version, "the key of its log")?;
        }
    }
    let path = dirs.data.join(snapshot::NAME);
    let version = snapshot::version(fs, &dirs.data).map_err(io_error("read", &path));
    if let Some(version) = readable(version)?.flatten() {
        judge(&path, version, "the snapshot of its index")?;
    }
    newest_segment(fs, dirs)
}

fn newest_segment(fs: &dyn Fs, dirs: &Dirs) -> Result<(), OpenError> {
    let Some(key) = key::find(fs, &dirs.data, &mut Vec::new())?.key else {
        return Ok(());
    };
    let entries = fs.list(&dirs.log).map_err(io_error("list", &dirs.log))?;
    let ids = entries.iter().rev().filter_map(|entry| match segment::classify(&entry.name) {
        LogName::Segment(id) => Some(id),
        LogName::Free(_) | LogName::Reserve(_) | LogName::Other => None,
    });
    for id in ids.take(LOOKED_AT) {
        let path = segment::path(&dirs.log, id);
        let head = readable(head(fs, &path).map_err(io_error("read", &path)))?.unwrap_or_default();
        match GroupHeader::parse(&head, &key, id) {
            Found::Newer(version) => return judge(&path, u64::from(version), "a group of its log"),
            Found::Group(..) => return Ok(()),
            // It got its name, and then the machine stopped.
            Found::Nothing => {}
        }
    }
    Ok(())
}

/// What the disk cannot read says no more than what is damaged.
fn readable<T>(outcome: Result<T, OpenError>) -> Result<Option<T>, OpenError> {
    match outcome {
        Err(OpenError::Io { source, .. }) if is_unreadable(&source) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// The first bytes of a file.
fn head(fs: &dyn Fs, path: &Path) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let got = fs.open(path, OpenMode::Read)?.read_at(&mut head, 0)?;
    head.truncate(got);
    Ok(head)
}

fn judge(path: &Path, version: u64, what: &str) -> Result<(), OpenError> {
    if version <= u64::from(VERSION) {
        return Ok(());
    }
    Err(OpenError::Format {
        path: path.to_path_buf(),
        version: u16::try_from(version).unwrap_or(u16::MAX),
        what: what.to_owned(),
        supported: VERSION,
    })
}

/// The version in a header of `len` bytes that begins with `magic` and the version and ends with a checksum over the rest.
pub(crate) fn of_header(header: &[u8], magic: &[u8; 8]) -> Option<u64> {
    let (head, sum) = header.split_at_checked(header.len().checked_sub(4)?)?;
    if Cursor::new(sum).u32()? != crc32c::crc32c(head) {
        return None;
    }
    Cursor::new(head.strip_prefix(magic)?).u64()
}

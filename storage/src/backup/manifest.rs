//! How a start tells a backup from a data directory, and a finished one from one that is not.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::fs::{Fs, OpenMode};
use crate::log::group::VERSION;

/// Says that a backup is whole. Written last.
pub(crate) const NAME: &str = "backup";
/// Is there while a backup is being made, and when it came to nothing.
pub(crate) const INCOMPLETE: &str = "backup.incomplete";
const TEMPORARY: &str = "backup.tmp";
const TITLE: &str = "warren backup";
/// No manifest is longer.
const LEN_MAX: usize = 4096;

/// What a finished backup says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupManifest {
    /// Everything up to this position of the log is in it.
    pub lsn: u64,
    /// When it was finished, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No backup, or one that was started on before.
    Ordinary,
    /// A finished backup.
    Complete(BackupManifest),
    /// The beginning of one.
    Incomplete,
}

/// Looks what a directory is.
pub(crate) fn kind(fs: &dyn Fs, dir: &Path) -> io::Result<Kind> {
    let path = dir.join(NAME);
    match fs.open(&path, OpenMode::Read) {
        Ok(file) => {
            let mut text = vec![0; LEN_MAX];
            let got = file.read_at(&mut text, 0)?;
            text.truncate(got);
            // It was renamed to its name when it was whole: one that cannot be read was damaged later, and so may be the
            // rest, which tells of that itself.
            Ok(parse(&text).map_or(Kind::Ordinary, Kind::Complete))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(if fs.exists(&dir.join(INCOMPLETE)) { Kind::Incomplete } else { Kind::Ordinary })
        }
        Err(error) => Err(error),
    }
}

/// Marks the beginning of a backup.
pub(super) fn mark_incomplete(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    let text = "This backup is not finished, or its making failed: it cannot be restored.\n";
    write(fs, &dir.join(INCOMPLETE), text)?;
    fs.sync_dir(dir)
}

/// Says that a backup is whole. Everything else in it is durable.
pub(super) fn complete(fs: &dyn Fs, dir: &Path, manifest: &BackupManifest) -> io::Result<()> {
    fs.sync_dir(dir)?;
    let BackupManifest { lsn, time_ms } = manifest;
    let mut text = format!("{TITLE}\nformat {VERSION}\nlsn {lsn}\ntime_ms {time_ms}\n");
    let sum = crc32c::crc32c(text.as_bytes());
    // Writing to a text does not fail.
    let _ = writeln!(text, "checksum {sum:08x}");
    let temporary = dir.join(TEMPORARY);
    write(fs, &temporary, &text)?;
    fs.rename(&temporary, &dir.join(NAME))?;
    fs.sync_dir(dir)?;
    fs.remove_file(&dir.join(INCOMPLETE))?;
    fs.sync_dir(dir)
}

/// The directory is no backup any more: a store has everything of its own in it.
pub(crate) fn restored(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    if fs.exists(&dir.join(INCOMPLETE)) {
        fs.remove_file(&dir.join(INCOMPLETE))?;
    }
    fs.remove_file(&dir.join(NAME))?;
    fs.sync_dir(dir)
}

fn write(fs: &dyn Fs, path: &Path, text: &str) -> io::Result<()> {
    let file = fs.open(path, OpenMode::CreateNew)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_data()
}

fn parse(text: &[u8]) -> Option<BackupManifest> {
    let text = std::str::from_utf8(text).ok()?;
    let (head, sum) = text.split_at(text.rfind("checksum ")?);
    let sum = u32::from_str_radix(sum.strip_prefix("checksum ")?.trim_end(), 16).ok()?;
    if sum != crc32c::crc32c(head.as_bytes()) || !head.starts_with(TITLE) {
        return None;
    }
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    Some(BackupManifest { lsn: field("lsn")?, time_ms: field("time_ms")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    #[test]
    fn a_directory_becomes_a_backup_and_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let is = |expected| assert_eq!(kind(&RealFs, dir).unwrap(), expected);
        is(Kind::Ordinary);
        mark_incomplete(&RealFs, dir).unwrap();
        is(Kind::Incomplete);
        let manifest = BackupManifest { lsn: 12, time_ms: 3_000_000_000_000 };
        complete(&RealFs, dir, &manifest).unwrap();
        is(Kind::Complete(manifest));
        restored(&RealFs, dir).unwrap();
        is(Kind::Ordinary);
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    }

    #[test]
    fn a_manifest_with_a_wrong_bit_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        mark_incomplete(&RealFs, dir.path()).unwrap();
        complete(&RealFs, dir.path(), &BackupManifest { lsn: 12, time_ms: 1 }).unwrap();
        let text = std::fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..text.len() {
            let mut text = text.clone();
            text[at] ^= 1;
            let understood = parse(&text);
            assert!(understood.is_none() || at + 1 == text.len(), "{at}: {understood:?}");
        }
        assert!(parse(&[]).is_none());
    }
}

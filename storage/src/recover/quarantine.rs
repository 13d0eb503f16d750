//! Keeping what was damaged, for whoever wants to look into it.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{OpenError, io_error};
use crate::fs::{Fs, OpenMode};

use super::Dirs;

/// Bytes copied at once.
const PIECE: usize = 1024 * 1024;

/// Moves a file or directory out of the way, under a name that is free.
pub(crate) fn quarantine(fs: &dyn Fs, dirs: &Dirs, path: &Path) -> Result<(), OpenError> {
    fs.create_dir_all(&dirs.quarantine).map_err(io_error("create", &dirs.quarantine))?;
    let to = free_name(fs, dirs, path);
    fs.rename(path, &to).map_err(io_error("quarantine", path))?;
    fs.sync_dir(&dirs.quarantine).map_err(io_error("sync", &dirs.quarantine))?;
    fs.sync_dir(&dirs.data).map_err(io_error("sync", &dirs.data))
}

/// Keeps a file as it is while another is going to take its name: a second name, or a move where there are none. Returns it.
pub(super) fn keep_aside(fs: &dyn Fs, dirs: &Dirs, path: &Path) -> Result<PathBuf, OpenError> {
    fs.create_dir_all(&dirs.quarantine).map_err(io_error("create", &dirs.quarantine))?;
    let to = free_name(fs, dirs, path);
    if fs.hard_link(path, &to).is_err() {
        fs.rename(path, &to).map_err(io_error("quarantine", path))?;
    }
    fs.sync_dir(&dirs.quarantine).map_err(io_error("sync", &dirs.quarantine))?;
    fs.sync_dir(&dirs.data).map_err(io_error("sync", &dirs.data))?;
    Ok(to)
}

fn free_name(fs: &dyn Fs, dirs: &Dirs, path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    (1..=u32::MAX)
        .map(|n| dirs.quarantine.join(format!("{name}.{n}")))
        .find(|to| !fs.exists(to))
        .unwrap_or_else(|| dirs.quarantine.join(&name))
}

/// Gives a damaged file that goes on being used a second name in the quarantine, or a copy where there are no such names. A
/// segment with two names is never used again for another. Ids come only once, so one name is enough for each. What goes
/// wrong is logged: the evidence is worth less than the start.
pub(crate) fn keep_evidence(fs: &dyn Fs, data_dir: &Path, path: &Path) {
    match keep(fs, data_dir, path) {
        Ok(None) => {}
        Ok(Some(to)) => tracing::warn!(path = %path.display(), to = %to.display(), "damaged file kept for inspection"),
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot keep a damaged file for inspection"),
    }
}

fn keep(fs: &dyn Fs, data_dir: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let Some(name) = path.file_name() else {
        return Ok(None);
    };
    let quarantine = data_dir.join("quarantine");
    let to = quarantine.join(format!("{}.1", name.to_string_lossy()));
    if fs.exists(&to) || !fs.exists(path) {
        return Ok(None);
    }
    fs.create_dir_all(&quarantine)?;
    if fs.hard_link(path, &to).is_err() {
        copy(fs, path, &to).inspect_err(|_| {
            // Half a copy is no evidence; what can't be removed stays as it is.
            let _ = fs.remove_file(&to);
        })?;
    }
    fs.sync_dir(&quarantine)?;
    fs.sync_dir(data_dir)?;
    Ok(Some(to))
}

fn copy(fs: &dyn Fs, from: &Path, to: &Path) -> io::Result<()> {
    let source = fs.open(from, OpenMode::Read)?;
    let target = fs.open(to, OpenMode::CreateNew)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let got = source.read_at(&mut piece, at)?;
        let Some(bytes) = piece.get(..got).filter(|bytes| !bytes.is_empty()) else {
            return target.sync_data();
        };
        target.write_all_at(bytes, at)?;
        at += got as u64;
    }
}

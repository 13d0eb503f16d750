//! Putting files into a backup: by a link where the file system lets us, else by a copy.

use std::io;
use std::path::Path;

use crate::fs::{File, Fs, OpenMode};

use super::{BackupError, failed};

const PIECE: usize = 1024 * 1024;

pub(super) struct Copier<'a> {
    fs: &'a dyn Fs,
    check: &'a dyn Fn() -> Result<(), BackupError>,
    /// Bytes of the files that were linked.
    pub(super) linked: u64,
    /// Bytes that were copied.
    pub(super) copied: u64,
}

impl<'a> Copier<'a> {
    pub(super) fn new(fs: &'a dyn Fs, check: &'a dyn Fn() -> Result<(), BackupError>) -> Self {
        Self { fs, check, linked: 0, copied: 0 }
    }

    /// Takes a file that nobody writes to any more.
    pub(super) fn link(&mut self, from: &Path, to: &Path) -> Result<(), BackupError> {
        (self.check)()?;
        let len = self.fs.open(from, OpenMode::Read).and_then(|file| file.len()).map_err(failed("read", from))?;
        match self.fs.hard_link(from, to) {
            Ok(()) => {
                self.linked += len;
                Ok(())
            }
            // On another file system, on one without links, or with too many of them: whatever it is, a copy does.
            Err(_) => self.copy(from, to, len),
        }
    }

    /// Copies the first `len` bytes of a file and syncs them.
    pub(super) fn copy(&mut self, from: &Path, to: &Path, len: u64) -> Result<(), BackupError> {
        let source = self.fs.open(from, OpenMode::Read).map_err(failed("read", from))?;
        let target = self.fs.open(to, OpenMode::CreateNew).map_err(failed("create", to))?;
        let mut pieces = Pieces::new(&*source, len);
        loop {
            (self.check)()?;
            let Some((piece, at)) = pieces.next().map_err(failed("read", from))? else {
                break;
            };
            target.write_all_at(piece, at).map_err(failed("write", to))?;
        }
        target.sync_data().map_err(failed("sync", to))?;
        self.copied += len;
        Ok(())
    }
}

/// Cuts a file at `len`. One that a backup shares is replaced by a copy, since the cut would reach into the backup, or from a
/// restored backup into the store it was made of.
pub(crate) fn cut(fs: &dyn Fs, path: &Path, len: u64) -> io::Result<()> {
    let file = fs.open(path, OpenMode::Write)?;
    if file.links()? == 1 {
        file.set_len(len)?;
        return file.sync_data();
    }
    // A start removes what a crash leaves of it.
    let temporary = path.with_extension("tmp");
    if fs.exists(&temporary) {
        fs.remove_file(&temporary)?;
    }
    let own = fs.open(&temporary, OpenMode::CreateNew)?;
    let mut pieces = Pieces::new(&*file, len);
    while let Some((piece, at)) = pieces.next()? {
        own.write_all_at(piece, at)?;
    }
    own.sync_data()?;
    fs.rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| fs.sync_dir(dir))
}

/// The first bytes of a file, one piece after the other.
struct Pieces<'a> {
    file: &'a dyn File,
    buf: Vec<u8>,
    at: u64,
    len: u64,
}

impl<'a> Pieces<'a> {
    fn new(file: &'a dyn File, len: u64) -> Self {
        Self { file, buf: vec![0; PIECE], at: 0, len }
    }

    /// The next piece and where it belongs; a file that is shorter than it should be is an error.
    fn next(&mut self) -> io::Result<Option<(&[u8], u64)>> {
        let at = self.at;
        let want = usize::try_from(self.len - at).unwrap_or(PIECE).min(PIECE);
        if want == 0 {
            return Ok(None);
        }
        let got = self.file.read_at(&mut self.buf[..want], at)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        Ok(Some((&self.buf[..got], at)))
    }
}

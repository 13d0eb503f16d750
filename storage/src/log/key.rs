//! The random key of a data directory, which seeds every checksum of its log.
//!
//! A client chooses message bodies. Without a key it could place bytes in one that look like a group or an entry; with it,
//! such bytes don't verify, nor do those of another data directory that were copied here.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{OpenError, io_error};
use crate::fs::{Fs, OpenMode};
use crate::recover::{is_unreadable, of_header};

use super::group::VERSION;

const MAGIC: &[u8; 8] = b"WARRNKEY";
const LEN: usize = 40;
const NAME: &str = "key";

/// The random key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) bytes: [u8; 16],
    group: u32,
    entry: u64,
}

impl Key {
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = bytes;
        Self { bytes, group: u32::from_le_bytes([a, b, c, d]), entry: u64::from_le_bytes([e, f, g, h, i, j, k, l]) }
    }

    /// Seed of the checksum of a group header.
    pub(crate) fn group_seed(&self) -> u32 {
        self.group
    }

    /// Seed of the checksum of the entry at this place: an entry read from the wrong place, or left from the segment that
    /// had this file before, does not verify.
    pub(crate) fn entry_seed(&self, segment: u64, offset: u64) -> u32 {
        let mut x =
            self.entry ^ segment.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ offset.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        x ^= x >> 32;
        x = x.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (x >> 32) as u32
    }
}

/// What was found of the key. It is kept twice, since without it no group can be verified.
pub(crate) struct Copies {
    /// The key, if one of the copies is good.
    pub(crate) key: Option<Key>,
    /// Where a copy is damaged or missing.
    bad: Vec<PathBuf>,
    /// The disk could not read a copy.
    pub(crate) unreadable: Option<OpenError>,
}

/// Looks for the key.
pub(crate) fn find(fs: &dyn Fs, data_dir: &Path, damage: &mut Vec<String>) -> Result<Copies, OpenError> {
    let mut copies = Copies { key: None, bad: Vec::new(), unreadable: None };
    for dir in [data_dir.to_path_buf(), data_dir.join("log")] {
        let path = dir.join(NAME);
        let stored = match again(|| read(fs, &path)) {
            Err(OpenError::Io { action, path, source }) if is_unreadable(&source) => {
                let error = OpenError::Io { action, path, source };
                damage.push(error.to_string());
                copies.bad.push(dir);
                copies.unreadable = Some(error);
                continue;
            }
            stored => stored?,
        };
        match stored {
            Stored::Good(key) => {
                copies.key.get_or_insert(key);
            }
            Stored::Absent => copies.bad.push(dir),
            Stored::Bad => {
                damage.push(format!("{} is damaged", path.display()));
                copies.bad.push(dir);
            }
        }
    }
    Ok(copies)
}

/// Calls up to three times more when the disk does not read: it may be none of the file.
fn again<T>(call: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let unread =
        |outcome: &Result<T, OpenError>| matches!(outcome, Err(OpenError::Io { source, .. }) if is_unreadable(source));
    let mut outcome = call();
    for _ in 0..3 {
        if unread(&outcome) {
            outcome = call();
        }
    }
    outcome
}

/// The copy of the key in `dir` and the version of the format that wrote it; `None` when it is missing or damaged.
pub(crate) fn version(fs: &dyn Fs, dir: &Path) -> Result<Option<(PathBuf, u64)>, OpenError> {
    let path = dir.join(NAME);
    let Some(buf) = load(fs, &path)? else {
        return Ok(None);
    };
    Ok(of_header(&buf, MAGIC).map(|version| (path, version)))
}

impl Copies {
    /// Writes the key where it is damaged or missing.
    pub(crate) fn complete(self, fs: &dyn Fs, key: Key) -> Result<(), OpenError> {
        if self.key.is_some() && !self.bad.is_empty() {
            tracing::warn!("one of the two key files was missing or damaged and is written again");
        }
        self.bad.iter().try_for_each(|dir| write(fs, dir, key).map_err(io_error("write a key to", dir)))
    }
}

enum Stored {
    Good(Key),
    Absent,
    Bad,
}

fn read(fs: &dyn Fs, path: &Path) -> Result<Stored, OpenError> {
    let Some(buf) = load(fs, path)? else {
        return Ok(Stored::Absent);
    };
    if buf.len() != LEN || of_header(&buf, MAGIC).is_none() {
        return Ok(Stored::Bad);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&buf[16..32]);
    Ok(Stored::Good(Key::from_bytes(bytes)))
}

/// The first bytes of a file, as many as it should have; `None` when there is no file.
fn load(fs: &dyn Fs, path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    let file = match fs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", path)(source)),
    };
    let mut buf = vec![0; LEN];
    let got = file.read_at(&mut buf, 0).map_err(io_error("read", path))?;
    buf.truncate(got);
    Ok(Some(buf))
}

/// Writes a copy of the key into `dir`.
pub(crate) fn write(fs: &dyn Fs, dir: &Path, key: Key) -> io::Result<()> {
    let path = dir.join(NAME);
    let mut buf = Vec::with_capacity(LEN);
    buf.extend_from_slice(MAGIC);
    buf.extend_from_slice(&u64::from(VERSION).to_le_bytes());
    buf.extend_from_slice(&key.bytes);
    buf.resize(LEN - 4, 0);
    let sum = crc32c::crc32c(&buf);
    buf.extend_from_slice(&sum.to_le_bytes());
    let temporary = dir.join("key.tmp");
    let file = fs.open(&temporary, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_all_at(&buf, 0)?;
    file.sync_data()?;
    fs.rename(&temporary, &path)?;
    fs.sync_dir(dir)
}

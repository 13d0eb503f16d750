//! Files of their own for large payloads.
//!
//! A file is written and synced, and its directory too, before the entry that names it goes into a group. Nothing ever
//! writes to it again; a checkpoint removes it after its last message is settled, a start removes what no message names.

use std::io;
use std::path::{Path, PathBuf};

use crate::bytes_cursor::Cursor;
use crate::fs::{File, Fs, OpenMode};
use crate::log::group::VERSION;
use crate::types::Payload;

const MAGIC: &[u8; 8] = b"WARRNLRG";
const HEADER: usize = 40;
const SUFFIX: &str = ".body";
const PIECE: usize = 1024 * 1024;

/// The file of a large payload.
pub(crate) fn path(large_dir: &Path, id: u64) -> PathBuf {
    large_dir.join(format!("{id:016x}{SUFFIX}"))
}

/// The id a file name stands for.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let hex = name.strip_suffix(SUFFIX)?;
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok()).flatten()
}

/// Writes a payload into a file with this id and syncs both the file and its directory. Returns the bytes, or `None` when
/// `go_on` said so between two writes. Nothing is left of a file that is not whole.
pub(crate) fn write(
    fs: &dyn Fs,
    large_dir: &Path,
    payload: &dyn Payload,
    id: u64,
    go_on: impl Fn() -> bool,
) -> io::Result<Option<u64>> {
    let announced = payload.encoded_len();
    let mut body = Vec::with_capacity(announced);
    payload.encode(&mut body);
    if body.len() != announced {
        return Err(io::Error::other("a payload is not as long as it said"));
    }
    let path = path(large_dir, id);
    let file = fs.open(&path, OpenMode::Create)?;
    let written = write_body(&*file, id, &body, go_on).and_then(|written| {
        if written.is_some() {
            fs.sync_dir(large_dir)?;
        }
        Ok(written)
    });
    if !matches!(written, Ok(Some(_))) {
        // What can't be removed is written over by the next try, or goes with the next start.
        let _ = fs.remove_file(&path);
    }
    written
}

fn write_body(file: &dyn File, id: u64, body: &[u8], go_on: impl Fn() -> bool) -> io::Result<Option<u64>> {
    file.write_all_at(&header(id, body), 0)?;
    let mut at = HEADER as u64;
    for piece in body.chunks(PIECE) {
        if !go_on() {
            return Ok(None);
        }
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    file.sync_data()?;
    Ok(Some(at))
}

fn header(id: u64, body: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&u64::from(VERSION).to_le_bytes());
    header.extend_from_slice(&id.to_le_bytes());
    header.extend_from_slice(&(body.len() as u64).to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let sum = crc32c::crc32c(&header);
    header.extend_from_slice(&sum.to_le_bytes());
    header
}

/// Reads a large payload of `len` bytes back; `None` when it is not what was written.
pub(crate) fn read(fs: &dyn Fs, large_dir: &Path, id: u64, len: u32) -> io::Result<Option<Vec<u8>>> {
    let file = match fs.open(&path(large_dir, id), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = len as usize;
    // Only as much memory as there is file.
    if file.len()? != (HEADER + len) as u64 {
        return Ok(None);
    }
    let mut head = [0; HEADER];
    let mut body = vec![0; len];
    if file.read_at(&mut head, 0)? != HEADER || file.read_at(&mut body, HEADER as u64)? != len {
        return Ok(None);
    }
    let mut cursor = Cursor::new(&head);
    let good = cursor.bytes(8) == Some(MAGIC)
        && cursor.u64().is_some_and(|version| version <= u64::from(VERSION))
        && cursor.u64() == Some(id)
        && cursor.u64() == Some(len as u64)
        && cursor.u32() == Some(crc32c::crc32c(&body))
        && cursor.u32() == Some(crc32c::crc32c(&head[..HEADER - 4]));
    Ok(good.then_some(body))
}

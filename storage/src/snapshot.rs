//! The snapshot: the whole index in one file, written sequentially. It is what sled is rebuilt from, together with the log
//! since; log older than the snapshot may go.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bytes_cursor::{Cursor, put_prefixed, put_varint};
use crate::fs::{File, Fs, OpenMode};
use crate::index::Index;
use crate::index::base::Base;
use crate::index::bits;
use crate::index::chunk::{CHUNK, Stored};
use crate::index::codec;
use crate::recover::of_header;
use crate::recover::progress::Progress;
use crate::schedule::Unreadable;
use crate::shelf::{self, Shelf};

/// Its name in the data directory.
pub(crate) const NAME: &str = "snapshot";
const TEMPORARY: &str = "snapshot.tmp";
const MAGIC: &[u8; 8] = b"WARRNSNP";
const HEADER: usize = 8 + Base::LEN + 4;
/// Length, checksum and kind of a block.
const BLOCK: usize = 9;
const WRITE: usize = 128 * 1024;
/// Chunks and topology records taken under one hold of the index lock.
const SLICE: usize = 64;

mod kind {
    pub(super) const TOPOLOGY: u8 = 1;
    pub(super) const QUEUE: u8 = 2;
    pub(super) const CHUNK: u8 = 3;
    pub(super) const DROPPED: u8 = 4;
    /// As `CHUNK`, with the columns in four parts.
    pub(super) const QUARTERS: u8 = 5;
    /// How many blocks came before it; the last one.
    pub(super) const END: u8 = 255;
}

/// Writes a snapshot that stands for `base` or for something later: the index goes on changing between the slices that are
/// taken of it. Replaying the log from `base` over such a mixture ends in the same state, since every entry sets values and
/// none counts. Cold columns are copied from sled, which only the caller writes to: they are as of the last checkpoint, and
/// what the index keeps beside them comes from entries above `base`. Returns the bytes.
pub(crate) fn write(
    fs: &dyn Fs,
    data_dir: &Path,
    base: &Base,
    index: &Mutex<Index>,
    shelf: &Shelf,
) -> Result<u64, WriteError> {
    let temporary = data_dir.join(TEMPORARY);
    if fs.exists(&temporary) {
        fs.remove_file(&temporary)?;
    }
    let written = write_temporary(fs, &temporary, base, index, shelf);
    if written.is_err() {
        // It may be what fills the disk. If it can't be removed, the next snapshot does it.
        let _ = fs.remove_file(&temporary);
    }
    let bytes = written?;
    fs.rename(&temporary, &data_dir.join(NAME))?;
    fs.sync_dir(data_dir)?;
    Ok(bytes)
}

fn write_temporary(
    fs: &dyn Fs,
    temporary: &Path,
    base: &Base,
    index: &Mutex<Index>,
    shelf: &Shelf,
) -> Result<u64, WriteError> {
    let file = fs.open(temporary, OpenMode::CreateNew)?;
    let mut out = Writer { file, at: 0, buf: Vec::new(), blocks: 0 };
    out.header(base);
    let (dropped, keys, queues) = {
        let index = index.lock();
        let mut queues: Vec<u64> = index.queues.keys().copied().collect();
        queues.sort_unstable();
        let mut dropped = Vec::new();
        codec::put_ids(index.dropped_recent(), &mut dropped);
        (dropped, index.topology.records.keys().cloned().collect::<Vec<_>>(), queues)
    };
    out.block(kind::DROPPED, &dropped);
    for keys in keys.chunks(SLICE) {
        let index = index.lock();
        for key in keys {
            if let Some(record) = index.topology.records.get(key) {
                let mut bytes = Vec::new();
                codec::put_topology(key, &record.value, &mut bytes);
                out.block(kind::TOPOLOGY, &bytes);
            }
        }
        drop(index);
        out.spill()?;
    }
    for id in queues {
        let mut from = Some(0);
        while let Some(first) = from {
            let mut cold = Vec::new();
            from = out.slice(&index.lock(), id, first, &mut cold);
            for (number, bits) in cold {
                let unreadable = |reason| WriteError::Sled(Unreadable { queue: id, number, reason });
                let columns = shelf.values(id, number).map_err(unreadable)?;
                out.chunk(id, number, &columns, &bits);
                out.spill()?;
            }
            out.spill()?;
        }
    }
    let blocks = out.blocks;
    out.block(kind::END, &blocks.to_le_bytes());
    out.flush()?;
    out.file.sync_data()?;
    Ok(out.at)
}

/// Why there is no snapshot.
pub(crate) enum WriteError {
    Io(io::Error),
    /// Cold columns cannot be read.
    Sled(Unreadable),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Writer {
    file: Arc<dyn File>,
    at: u64,
    buf: Vec<u8>,
    blocks: u64,
}

impl Writer {
    fn header(&mut self, base: &Base) {
        self.buf.extend_from_slice(MAGIC);
        base.put(&mut self.buf);
        let sum = crc32c::crc32c(&self.buf);
        self.buf.extend_from_slice(&sum.to_le_bytes());
    }

    fn block(&mut self, kind: u8, payload: &[u8]) {
        self.buf.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.buf.extend_from_slice(&block_sum(kind, payload).to_le_bytes());
        self.buf.push(kind);
        self.buf.extend_from_slice(payload);
        self.blocks += 1;
    }

    /// Some chunks of a queue from number `first` on; of those whose columns are not in memory, the number and the summary go
    /// to `cold`. Returns where to go on.
    fn slice(&mut self, index: &Index, id: u64, first: u64, cold: &mut Vec<(u64, Vec<u8>)>) -> Option<u64> {
        let queue = index.queues.get(&id)?;
        let mut bytes = Vec::new();
        if first == 0 {
            put_varint(&mut bytes, id);
            codec::put_queue(queue, &mut bytes);
            self.block(kind::QUEUE, &bytes);
        }
        let mut chunks = queue.chunks.range(first..);
        for (&number, chunk) in chunks.by_ref().take(SLICE) {
            if chunk.live_count == 0 {
                continue;
            }
            let mut bits = Vec::new();
            codec::put_bits(chunk, &mut bits);
            let Some(columns) = chunk.columns() else {
                cold.push((number, bits));
                continue;
            };
            let mut whole = Vec::new();
            codec::put_columns(columns, &chunk.live, 0..CHUNK as usize, Stored::Whole, &mut whole);
            self.chunk(id, number, &[whole], &bits);
        }
        chunks.next().map(|(&number, _)| number)
    }

    fn chunk<T: AsRef<[u8]>>(&mut self, id: u64, number: u64, columns: &[T], bits: &[u8]) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, id);
        put_varint(&mut bytes, number);
        for part in columns {
            put_prefixed(&mut bytes, part.as_ref());
        }
        bytes.extend_from_slice(bits);
        self.block(if columns.len() == 1 { kind::CHUNK } else { kind::QUARTERS }, &bytes);
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.buf.len() >= WRITE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buf, self.at)?;
        self.at += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }
}

fn block_sum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

/// What a snapshot file turned out to be.
pub(crate) enum Found<T> {
    /// There is none.
    Absent,
    /// It is good.
    Good(T),
    /// It is not what was written.
    Damaged,
}

/// The version of the format that wrote the snapshot; `None` when there is none or its header is damaged.
pub(crate) fn version(fs: &dyn Fs, data_dir: &Path) -> io::Result<Option<u64>> {
    let file = match fs.open(&data_dir.join(NAME), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER];
    let got = file.read_at(&mut header, 0)?;
    Ok(header.get(..got).and_then(|header| of_header(header, MAGIC)))
}

/// Reads the header alone.
pub(crate) fn read_base(fs: &dyn Fs, data_dir: &Path) -> io::Result<Found<Base>> {
    Ok(match open(fs, data_dir)? {
        Found::Absent => Found::Absent,
        Found::Damaged => Found::Damaged,
        Found::Good((_, base)) => Found::Good(base),
    })
}

/// As [`read_base`], and looks whether its last block is there: what was cut is found before it is needed.
pub(crate) fn read_ends(fs: &dyn Fs, data_dir: &Path) -> io::Result<Found<Base>> {
    let (file, base) = match open(fs, data_dir)? {
        Found::Absent => return Ok(Found::Absent),
        Found::Damaged => return Ok(Found::Damaged),
        Found::Good(found) => found,
    };
    let mut last = [0; BLOCK + 8];
    let at = file.len()?.checked_sub(last.len() as u64).filter(|&at| at >= HEADER as u64);
    let whole = match at {
        Some(at) if file.read_at(&mut last, at)? == last.len() => {
            let (head, payload) = last.split_at(BLOCK);
            let mut cursor = Cursor::new(head);
            cursor.u32() == Some(8)
                && cursor.u32() == Some(block_sum(kind::END, payload))
                && cursor.u8() == Some(kind::END)
        }
        _ => false,
    };
    Ok(if whole { Found::Good(base) } else { Found::Damaged })
}

/// Reads a snapshot into `index`, which is empty; what is in it when the snapshot is damaged is of no use. `relieve` is called
/// now and then, and may move columns out of memory.
pub(crate) fn read<E: From<io::Error>>(
    fs: &dyn Fs,
    data_dir: &Path,
    index: &mut Index,
    mut relieve: impl FnMut(&mut Index) -> Result<(), E>,
) -> Result<Found<Base>, E> {
    let (file, base) = match open(fs, data_dir)? {
        Found::Absent => return Ok(Found::Absent),
        Found::Damaged => return Ok(Found::Damaged),
        Found::Good(found) => found,
    };
    let len = file.len()?;
    let (mut at, mut blocks) = (HEADER as u64, 0u64);
    let mut progress = Progress::new("bytes of the snapshot read", len);
    let mut payload = Vec::new();
    loop {
        let mut head = [0; BLOCK];
        if file.read_at(&mut head, at)? != BLOCK {
            return Ok(Found::Damaged);
        }
        let mut cursor = Cursor::new(&head);
        let (Some(size), Some(sum), Some(kind)) = (cursor.u32(), cursor.u32(), cursor.u8()) else {
            return Ok(Found::Damaged);
        };
        at += BLOCK as u64;
        if u64::from(size) > len.saturating_sub(at) {
            return Ok(Found::Damaged);
        }
        payload.resize(size as usize, 0);
        if file.read_at(&mut payload, at)? != payload.len() || block_sum(kind, &payload) != sum {
            return Ok(Found::Damaged);
        }
        at += u64::from(size);
        if kind == kind::END {
            let whole = Cursor::new(&payload).u64() == Some(blocks);
            return Ok(if whole { Found::Good(base) } else { Found::Damaged });
        }
        if take_block(kind, &payload, index).is_none() {
            return Ok(Found::Damaged);
        }
        blocks += 1;
        progress.at(at);
        relieve(index)?;
    }
}

type Open = (Arc<dyn File>, Base);

fn open(fs: &dyn Fs, data_dir: &Path) -> io::Result<Found<Open>> {
    let file = match fs.open(&data_dir.join(NAME), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER];
    if file.read_at(&mut header, 0)? != HEADER || !header.starts_with(MAGIC) {
        return Ok(Found::Damaged);
    }
    let (head, sum) = header.split_at(HEADER - 4);
    if Cursor::new(sum).u32() != Some(crc32c::crc32c(head)) {
        return Ok(Found::Damaged);
    }
    Ok(head.get(MAGIC.len()..).and_then(Base::take).map_or(Found::Damaged, |base| Found::Good((file, base))))
}

fn take_block(kind: u8, payload: &[u8], index: &mut Index) -> Option<()> {
    let mut cursor = Cursor::new(payload);
    match kind {
        kind::TOPOLOGY => {
            let (key, value) = codec::take_topology(payload)?;
            index.topology.put(key, value);
        }
        kind::QUEUE => {
            let id = cursor.varint()?;
            let queue = index.queues.entry(id).or_default();
            codec::take_queue(cursor.rest(), queue)?;
            queue.header_dirty = true;
            if !std::mem::replace(&mut queue.listed, true) {
                index.dirty_queues.push(id);
            }
        }
        kind::CHUNK | kind::QUARTERS => {
            let (id, number) = (cursor.varint()?, cursor.varint()?);
            let parts = if kind == kind::CHUNK { 1 } else { CHUNK as usize / codec::QUARTER_SLOTS };
            let values = (0..parts).map(|_| cursor.prefixed()).collect::<Option<Vec<_>>>()?;
            let (columns, known, _) = shelf::decode(&values).ok()?;
            let (mut chunk, _) = codec::take_bits(cursor.rest())?;
            // A message that came after the columns were written is in the log.
            for (word, known) in chunk.live.iter_mut().zip(known) {
                *word &= known;
            }
            chunk.live_count = bits::count(&chunk.live);
            chunk.stored = Stored::Nowhere;
            index.adopt_new(id, number, chunk, columns);
        }
        kind::DROPPED => {
            for id in codec::take_ids(payload)? {
                index.remember_dropped(id);
            }
        }
        _ => return None,
    }
    Some(())
}

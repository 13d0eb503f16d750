//! Reading messages back, on a thread of its own.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::callback;
use crate::core::Core;
use crate::fs::{File, OpenMode};
use crate::index::Index;
use crate::index::chunk::{CHUNK, place_of};
use crate::index::cold::ChunkRef;
use crate::index::columns::Columns;
use crate::index::queue::LiveMessage;
use crate::index::timers::DueNow;
use crate::large;
use crate::log::record;
use crate::log::segment;
use crate::recover::{is_unreadable, keep_evidence};
use crate::schedule::Unreadable;
use crate::shortage;
use crate::types::{Due, Durable, Listed, Lsn, Place, QueueId, ReadBatch, ReadMessage, Seq};

/// Neighbours on disk with no more than this between them are read at once.
const GAP: u64 = 16 * 1024;
/// Most bytes read at once, unless one message has more. The buffer for them is kept.
const RUN: u64 = 128 * 1024;
/// Room for the messages of one read that is kept for the next, in messages.
const WANTED: usize = 4096;
/// Segments kept open.
const OPEN: usize = 16;
/// Chunks of the index that are read from sled together: the one that is needed, and the next.
const AHEAD: usize = 2;
/// Time before a read is tried again for which the process lacked file descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);

/// Something that somebody asked for.
pub(crate) enum Request {
    Read(Read),
    List(List),
    /// The messages that are due at a time.
    Due(u64, Box<dyn FnOnce(Due) + Send>),
}

/// One read.
pub(crate) struct Read {
    pub(crate) queue: QueueId,
    pub(crate) from: Seq,
    pub(crate) max_messages: usize,
    pub(crate) max_bytes: usize,
    pub(crate) done: Box<dyn FnOnce(ReadBatch) + Send>,
}

/// Which messages there are, without their bytes.
pub(crate) struct List {
    pub(crate) queue: QueueId,
    pub(crate) from: Seq,
    pub(crate) max_messages: usize,
    pub(crate) done: Box<dyn FnOnce(Listed) + Send>,
}

/// The queue of reads.
#[derive(Default)]
pub(crate) struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    stopped: bool,
}

impl Requests {
    pub(crate) fn push(&self, request: Request) {
        let mut state = self.state.lock();
        if !state.stopped {
            state.waiting.push_back(request);
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        let forgotten = {
            let mut state = self.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.waiting)
        };
        drop(forgotten);
        self.changed.notify_all();
    }

    fn is_empty(&self) -> bool {
        self.state.lock().waiting.is_empty()
    }

    /// The next request; `None` when the store stops.
    fn next(&self) -> Option<Request> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(request) = state.waiting.pop_front() {
                return Some(request);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Lets some time pass; false when the store stops.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.stopped && !self.changed.wait_until(&mut state, until).timed_out() {}
        !state.stopped
    }
}

/// A read that waits for what was appended before it to be durable.
pub(crate) struct Postponed {
    core: std::sync::Weak<Core>,
    request: Mutex<Option<Request>>,
}

impl Postponed {
    pub(crate) fn new(core: &Arc<Core>, request: Request) -> Arc<Self> {
        Arc::new(Self { core: Arc::downgrade(core), request: Mutex::new(Some(request)) })
    }
}

impl Durable for Postponed {
    fn durable(&self) {
        if let (Some(core), Some(request)) = (self.core.upgrade(), self.request.lock().take()) {
            core.requests.push(request);
        }
    }
}

/// Runs until the store stops.
pub(crate) fn run(core: &Arc<Core>) {
    let mut reader = Reader { core, open: VecDeque::new(), run: Vec::new(), wanted: Vec::new() };
    while let Some(request) = core.requests.next() {
        let request = match request {
            Request::Read(read) => read,
            Request::List(list) => {
                let listed = core.index.lock().list(list.queue, list.from, list.max_messages);
                match listed {
                    Ok(listed) => callback::run(|| (list.done)(listed)),
                    Err(lsn) => {
                        core.waiters.add(lsn, Postponed::new(core, Request::List(list)));
                    }
                }
                continue;
            }
            Request::Due(now_ms, done) => {
                let Some(due) = reader.due(now_ms) else {
                    return;
                };
                callback::run(|| done(due));
                continue;
            }
        };
        match reader.read(&request) {
            Some(Ok(batch)) => {
                let next = (!batch.end).then_some(batch.next);
                let queue = request.queue;
                callback::run(|| (request.done)(batch));
                if let Some(next) = next.filter(|_| core.requests.is_empty()) {
                    reader.ahead(queue, next);
                }
            }
            Some(Err(lsn)) => {
                core.waiters.add(lsn, Postponed::new(core, Request::Read(request)));
            }
            None => return,
        }
        // An idle reader holds no files open: some may have been unlinked, and their space comes back only then.
        if core.requests.is_empty() {
            reader.open.clear();
        }
    }
}

/// A batch while its messages are picked.
struct Choice {
    queue: QueueId,
    max_messages: usize,
    max_bytes: usize,
    bytes: usize,
    wanted: Vec<LiveMessage>,
    batch: ReadBatch,
    /// Position of a message that is still on its way into the log, and that none behind it may overtake.
    held: Option<Lsn>,
}

impl Choice {
    /// `wanted` is empty.
    fn new(request: &Read, wanted: Vec<LiveMessage>) -> Self {
        let Read { queue, from, max_messages, max_bytes, .. } = *request;
        let batch = ReadBatch { next: from, end: true, ..ReadBatch::default() };
        Self { queue, max_messages, max_bytes, bytes: 0, wanted, batch, held: None }
    }

    /// Picks and pins messages until there are enough or none is left. If columns are needed that are not in memory, it comes
    /// back with them, and the next in order, and wants to be called again.
    fn go_on(&mut self, index: &mut Index) -> Vec<ChunkRef> {
        let held = index.held.first(self.queue, self.batch.next);
        self.held = held.map(|(_, lsn)| lsn);
        self.batch.end = held.is_none();
        let Some(queue) = index.queues.get_mut(&self.queue) else {
            return Vec::new();
        };
        let (first_chunk, first_slot) = place_of(self.batch.next);
        let redelivered_below = queue.redelivered_below;
        for (&number, chunk) in queue.chunks.range_mut(first_chunk..) {
            let mut next = chunk.next_live(if number == first_chunk { first_slot } else { 0 });
            if next.is_none() {
                continue;
            }
            chunk.used = true;
            let Some(columns) = chunk.columns() else {
                if !self.wanted.is_empty() && (self.wanted.len() >= self.max_messages || self.bytes >= self.max_bytes) {
                    self.batch.end = false;
                    return Vec::new();
                }
                let chunks = queue.chunks.range(number..).filter(|(_, chunk)| chunk.live_count > 0).take(AHEAD);
                let cold = chunks.filter(|(_, chunk)| chunk.is_cold());
                return cold.map(|(&number, chunk)| ChunkRef::new(self.queue, number, chunk)).collect();
            };
            while let Some(slot) = next {
                next = chunk.next_live(slot + 1);
                let (location, len) = columns.entry(slot);
                self.bytes = self.bytes.saturating_add(len as usize);
                let full = self.bytes > self.max_bytes && !self.wanted.is_empty();
                let seq = number * CHUNK + slot as u64;
                if full || self.wanted.len() >= self.max_messages || held.is_some_and(|(held, _)| held < seq) {
                    self.batch.end = false;
                    return Vec::new();
                }
                let redelivered = seq < redelivered_below || chunk.is_redelivered(slot);
                self.batch.next = seq + 1;
                self.wanted.push(LiveMessage { seq, location, len, meta: columns.meta(slot), redelivered });
                index.usage.pin(location);
            }
        }
        Vec::new()
    }
}

struct Reader<'a> {
    core: &'a Core,
    open: VecDeque<(u64, Arc<dyn File>)>,
    /// What was read last, and what was wanted: room for the next. Large allocations that live for one read each cost
    /// several times their size in pages that the allocator has touched.
    run: Vec<u8>,
    wanted: Vec<LiveMessage>,
}

impl Reader<'_> {
    /// One batch, or the position to wait for before there can be one. `None` when the store stops.
    fn read(&mut self, request: &Read) -> Option<Result<ReadBatch, Lsn>> {
        let room = std::mem::take(&mut self.wanted);
        let Choice { mut wanted, mut batch, held, .. } = self.choose(Choice::new(request, room))?;
        if let Some(lsn) = held.filter(|_| wanted.is_empty()) {
            return Some(Err(lsn));
        }
        batch.messages.reserve_exact(wanted.len());
        let outcome = self.read_wanted(&wanted, &mut batch);
        self.unpin(&wanted);
        wanted.clear();
        if wanted.capacity() <= WANTED {
            self.wanted = wanted;
        }
        outcome.map(|()| Ok(batch))
    }

    fn read_wanted(&mut self, wanted: &[LiveMessage], batch: &mut ReadBatch) -> Option<()> {
        let mut at = 0;
        while let Some(rest) = wanted.get(at..)
            && let Some(first) = rest.first()
        {
            if let Some((segment, offset)) = first.location.as_segment() {
                let run = run_length(rest, segment, offset);
                self.read_run(segment, offset, &rest[..run], batch)?;
                at += run;
            } else {
                self.read_large(first, batch)?;
                at += 1;
            }
        }
        Some(())
    }

    /// Reads, again and again as long as it is the process that lacks something. `None` when the store stops meanwhile.
    fn insist<T>(&mut self, mut read: impl FnMut(&mut Self) -> io::Result<T>) -> Option<io::Result<T>> {
        loop {
            match read(self) {
                Err(error) if shortage::is_scarce(&error) => {
                    tracing::warn!(%error, "cannot read messages now");
                    self.open.clear();
                    if !self.core.requests.pause(RETRY) {
                        return None;
                    }
                }
                outcome => return Some(outcome),
            }
        }
    }

    /// Picks the messages and pins what holds their bytes, so that neither is reused before they are read. What of the index
    /// is not in memory is read from sled, without the lock. `None` when the store stops meanwhile.
    fn choose(&self, mut choice: Choice) -> Option<Choice> {
        let mut loaded = Vec::new();
        loop {
            let any = !loaded.is_empty();
            let cold = {
                let mut index = self.core.index.lock();
                for (at, columns) in loaded.drain(..) {
                    index.install(at, columns);
                }
                choice.go_on(&mut index)
            };
            if any {
                self.core.evict();
            }
            if cold.is_empty() {
                return Some(choice);
            }
            for at in cold {
                let Some(columns) = self.columns(at) else {
                    self.unpin(&choice.wanted);
                    return None;
                };
                loaded.extend(columns.map(|columns| (at, columns)));
            }
        }
    }

    /// Columns from sled, tried again until it works. The inner `None` says that nobody needs them any more, the outer one that
    /// the store stops.
    fn columns(&self, at: ChunkRef) -> Option<Option<Columns>> {
        loop {
            match self.core.shelf.columns(at.queue, at.number) {
                Ok(columns) => return Some(Some(columns)),
                // It was emptied meanwhile, and a checkpoint has removed it.
                Err(_) if !self.core.index.lock().is_cold(at.queue, at.number) => return Some(None),
                Err(reason) => {
                    tracing::error!(reason, "cannot read the index of messages from sled");
                    self.core.schedule.unreadable(Unreadable { queue: at.queue, number: at.number, reason });
                    if !self.core.requests.pause(RETRY) {
                        return None;
                    }
                }
            }
        }
    }

    /// What is due; `None` when the store stops.
    fn due(&self, now_ms: u64) -> Option<Due> {
        let mut due = DueNow::default();
        let mut loaded = None;
        loop {
            let cold = {
                let mut index = self.core.index.lock();
                if let Some((at, columns)) = loaded.take() {
                    index.install(at, columns);
                }
                match index.collect_due(now_ms, &mut due) {
                    Some(cold) => cold,
                    None => return Some(index.answer_due(now_ms, due)),
                }
            };
            self.core.evict();
            loaded = self.columns(cold)?.map(|columns| (cold, columns));
        }
    }

    /// Whoever reads a queue in order is going to need what comes next.
    fn ahead(&self, queue: QueueId, next: Seq) {
        if self.core.options.index_cache_bytes == 0 {
            return;
        }
        let cold = {
            let index = self.core.index.lock();
            let number = place_of(next).0;
            index.queues.get(&queue).map_or_else(Vec::new, |found| {
                let chunks = found.chunks.range(number..).filter(|(_, chunk)| chunk.live_count > 0).take(AHEAD);
                let cold = chunks.filter(|(_, chunk)| chunk.is_cold());
                cold.map(|(&number, chunk)| ChunkRef::new(queue, number, chunk)).collect()
            })
        };
        for at in cold {
            // What goes wrong here is found by the read that needs it.
            if let Ok(columns) = self.core.shelf.columns(at.queue, at.number) {
                self.core.index.lock().install(at, columns);
                self.core.evict();
            }
        }
    }

    fn unpin(&self, wanted: &[LiveMessage]) {
        let mut unused = false;
        let mut index = self.core.index.lock();
        for message in wanted {
            unused |= index.usage.unpin(message.location);
        }
        drop(index);
        if unused {
            // Nothing else may tell the checkpoint thread that a segment is free now.
            self.core.schedule.dirty();
        }
    }

    fn read_run(&mut self, segment: u64, offset: u64, run: &[LiveMessage], batch: &mut ReadBatch) -> Option<()> {
        let end = run
            .last()
            .and_then(|last| last.location.as_segment().map(|(_, at)| at + u64::from(last.len)))
            .unwrap_or(offset);
        let mut buf = std::mem::take(&mut self.run);
        match self.insist(|reader| reader.bytes(segment, offset, end, &mut buf))? {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => buf.clear(),
            Err(error) if run.len() > 1 && is_unreadable(&error) => {
                // A place that the disk cannot read costs only the messages that are there.
                for message in run {
                    let at = message.location.as_segment().map_or(0, |(_, at)| at);
                    self.read_run(segment, at, std::slice::from_ref(message), batch)?;
                }
                return Some(());
            }
            Err(error) => {
                // Nothing is known of their bytes: they are left out, and not called damaged.
                tracing::error!(segment = format!("{segment:016x}"), offset, %error, "cannot read messages");
                return Some(());
            }
        };
        let mut damaged = false;
        for message in run {
            let at = message.location.as_segment().map_or(0, |(_, at)| at);
            let entry = buf.get(usize::try_from(at - offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            let payload = record::verify(entry, &self.core.key, segment, at).and_then(|entry| entry.payload());
            match payload {
                Some(payload) => push(batch, message, Bytes::copy_from_slice(payload)),
                None => {
                    let segment = format!("{segment:016x}");
                    tracing::error!(segment, offset = at, seq = message.seq, "a message is damaged on disk");
                    batch.damaged.push(message.seq);
                    damaged = true;
                }
            }
        }
        if damaged {
            // Before anybody settles the messages, after which the file may go.
            self.keep(&segment::path(&self.core.log_dir, segment));
        }
        if buf.capacity() as u64 <= 2 * RUN {
            self.run = buf;
        }
        Some(())
    }

    fn bytes(&mut self, segment: u64, from: u64, to: u64, buf: &mut Vec<u8>) -> io::Result<()> {
        let file = self.file(segment)?;
        // Never more memory than there is file, whatever the index says.
        let to = to.min(file.len()?);
        buf.resize(usize::try_from(to.saturating_sub(from)).unwrap_or(0), 0);
        let got = file.read_at(buf, from)?;
        buf.truncate(got);
        Ok(())
    }

    fn read_large(&mut self, message: &LiveMessage, batch: &mut ReadBatch) -> Option<()> {
        let id = message.location.as_large().unwrap_or_default();
        let core = self.core;
        match self.insist(|_| large::read(&*core.options.fs, &core.large_dir, id, message.len))? {
            Ok(Some(payload)) => push(batch, message, Bytes::from(payload)),
            Ok(None) => {
                tracing::error!(file = format!("{id:016x}"), seq = message.seq, "a large message is damaged on disk");
                batch.damaged.push(message.seq);
                self.keep(&large::path(&core.large_dir, id));
            }
            Err(error) => {
                tracing::error!(file = format!("{id:016x}"), seq = message.seq, %error, "cannot read a large message");
            }
        }
        Some(())
    }

    fn keep(&self, path: &Path) {
        keep_evidence(&*self.core.options.fs, &self.core.options.data_dir, path);
    }

    fn file(&mut self, id: u64) -> io::Result<Arc<dyn File>> {
        if let Some((_, file)) = self.open.iter().find(|(open, _)| *open == id) {
            return Ok(Arc::clone(file));
        }
        let file = self.core.options.fs.open(&segment::path(&self.core.log_dir, id), OpenMode::Read)?;
        if self.open.len() == OPEN {
            self.open.pop_front();
        }
        self.open.push_back((id, Arc::clone(&file)));
        Ok(file)
    }
}

fn push(batch: &mut ReadBatch, message: &LiveMessage, payload: Bytes) {
    let LiveMessage { seq, meta, redelivered, location, .. } = *message;
    batch.messages.push(ReadMessage { seq, meta, redelivered, place: Place::at(location.0), payload });
}

/// How many of the messages stand close enough behind each other to be read at once.
fn run_length(messages: &[LiveMessage], segment: u64, start: u64) -> usize {
    let mut end = start;
    let mut count = 0;
    for message in messages {
        match message.location.as_segment() {
            Some((other, at)) if other == segment && at >= end => {
                let next = at + u64::from(message.len);
                if count > 0 && (at - end > GAP || next - start > RUN) {
                    break;
                }
                end = next;
                count += 1;
            }
            _ => break,
        }
    }
    count.max(1)
}

//! The thread of a spill. Only it touches the files, one job at a time, and never with the lock held.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::MutexGuard;
use rustix::io::Errno;

use super::record::{self, Decoded};
use super::{Done, Job, Lane, Shared, SpillBatch, SpillFile, Waiting};
use crate::callback;
use crate::fs::{File, OpenMode};
use crate::types::{Place, QueueId, ReadMessage};

/// Most bytes written at once, unless one message has more.
const WRITE_MAX: usize = 512 << 10;
/// A buffer that grew beyond this for a large message is not kept.
const KEPT: usize = 2 * WRITE_MAX;
/// Time before what failed for lack of something is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the spill is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut worker = Worker { shared, open: None, buffer: Vec::new(), retry_at: Instant::now(), complained: false };
    while let Some(job) = worker.next() {
        match job {
            Job::Write(queue) => worker.write(queue),
            Job::Take { queue, lane, max_messages, max_bytes, done } => {
                worker.take(queue, lane, max_messages, max_bytes, done);
            }
            Job::Remove(files) => worker.remove(files),
        }
    }
    let files = shared.state.lock().lanes.drain().flat_map(|(_, lane)| lane.files).collect();
    worker.remove(files);
}

struct Worker<'a> {
    shared: &'a Shared,
    /// The file used last.
    open: Option<(String, Arc<dyn File>)>,
    buffer: Vec<u8>,
    /// When writes that failed are tried again.
    retry_at: Instant,
    /// The trouble that lasts has been reported.
    complained: bool,
}

/// What a write was going to do when the lock was let go.
struct Plan {
    lane: u64,
    file: SpillFile,
    fresh: bool,
    messages: Vec<Waiting>,
}

impl Worker<'_> {
    /// The next job; `None` when the spill is closed. Writes that failed come back after a while.
    fn next(&mut self) -> Option<Job> {
        let mut state = self.shared.state.lock();
        state.writing = false;
        loop {
            if state.stopped {
                return None;
            }
            let retry = (!state.held.is_empty() && !state.paused).then_some(self.retry_at);
            if retry.is_some_and(|at| at <= Instant::now()) {
                let held = std::mem::take(&mut state.held);
                state.jobs.extend(held.into_iter().map(Job::Write));
            }
            // Also when there is nothing to write any more, but something to read.
            let told = self.shared.room(&mut state);
            if !told.is_empty() {
                MutexGuard::unlocked(&mut state, || super::tell(told));
                continue;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.writing = matches!(job, Job::Write(_));
                return Some(job);
            }
            // An idle thread holds neither a file nor a large buffer.
            self.open = None;
            self.buffer = Vec::new();
            match retry {
                Some(at) => {
                    self.shared.changed.wait_until(&mut state, at);
                }
                None => self.shared.changed.wait(&mut state),
            }
        }
    }

    fn write(&mut self, queue: QueueId) {
        let Some(plan) = self.plan(queue) else { return };
        self.buffer.clear();
        let mut written = 0;
        for waiting in &plan.messages {
            // One that cannot be encoded is lost; nobody makes such a payload.
            written += u64::from(record::encode(&waiting.head, &*waiting.payload, &mut self.buffer));
        }
        let outcome = self.append(&plan.file);
        let added = self.buffer.len() as u64;
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        match outcome {
            Ok(()) => {
                self.complained = false;
                self.written(queue, plan, written, added);
            }
            Err(error) => self.failed(queue, &plan, &error),
        }
    }

    /// Chooses what to write and where.
    fn plan(&self, queue: QueueId) -> Option<Plan> {
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        let lane = state.lanes.get_mut(&queue)?;
        if state.paused {
            state.held.push(queue);
            return None;
        }
        lane.queued = false;
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            let first = bytes == 0;
            bytes += record::len(&*waiting.payload);
            first || bytes <= WRITE_MAX
        };
        let messages: Vec<Waiting> = lane.waiting.iter().take_while(fits).cloned().collect();
        let first = messages.first()?.head.seq;
        let (file, fresh) = match lane.files.back() {
            Some(file) if file.len < self.shared.options.file_bytes => (file.clone(), false),
            _ => {
                state.next_file += 1;
                let name = format!("{queue:016x}-{:x}.spill", state.next_file);
                (SpillFile { name, len: 0, taken: 0, messages: 0, next: first }, true)
            }
        };
        lane.queued = true;
        Some(Plan { lane: lane.number, file, fresh, messages })
    }

    /// Writes the buffer behind what the file has. A part that an earlier attempt left there is overwritten.
    fn append(&mut self, file: &SpillFile) -> io::Result<()> {
        let open = match self.file(&file.name, OpenMode::Create) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.shared.fs.create_dir_all(&self.shared.dir)?;
                self.file(&file.name, OpenMode::Create)
            }
            outcome => outcome,
        }?;
        open.write_all_at(&self.buffer, file.len)
    }

    fn written(&mut self, queue: QueueId, plan: Plan, messages: u64, bytes: u64) {
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        let Some(lane) = state.lanes.get_mut(&queue).filter(|lane| lane.number == plan.lane) else {
            // Forgotten meanwhile; a file that was there before is removed by a job of its own.
            drop(guard);
            if plan.fresh {
                self.remove(vec![plan.file]);
            }
            return;
        };
        for _ in &plan.messages {
            if let Some(waiting) = lane.waiting.pop_front() {
                let bytes = record::len(&*waiting.payload);
                lane.waiting_bytes -= bytes;
                state.waiting_bytes -= bytes;
            }
        }
        if plan.fresh {
            lane.files.push_back(plan.file);
        }
        if let Some(file) = lane.files.back_mut() {
            file.len += bytes;
            file.messages += messages;
        }
        lane.queued = lane.waiting_bytes >= self.shared.options.enough(state.waiting_bytes);
        if lane.queued {
            state.jobs.push_back(Job::Write(queue));
        }
        let told = self.shared.room(state);
        // The last owner of a message lets go of it without the lock.
        drop(guard);
        drop(plan.messages);
        super::tell(told);
    }

    /// The messages stay where they are, in memory.
    fn failed(&mut self, queue: QueueId, plan: &Plan, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(%error, "cannot write transient messages to disk; they stay in memory for now");
        }
        self.open = None;
        self.retry_at = Instant::now() + RETRY;
        if plan.fresh {
            // What was written of it takes space that others need.
            let _ = self.shared.fs.remove_file(&self.path(&plan.file.name));
        }
        let mut state = self.shared.state.lock();
        if state.lanes.get(&queue).is_some_and(|lane| lane.number == plan.lane) {
            state.held.push(queue);
        }
    }

    fn take(&mut self, queue: QueueId, lane: u64, max_messages: usize, max_bytes: usize, done: Done) {
        let file = {
            let state = self.shared.state.lock();
            state.lanes.get(&queue).filter(|known| known.number == lane).and_then(|lane| lane.files.front().cloned())
        };
        let batch = match file {
            Some(file) => match self.take_from_file(&file, max_messages, max_bytes) {
                Some(taken) => self.account(queue, lane, taken),
                // Not now: the bytes are as good as before, and it is the process that lacks something.
                None => return self.take_later(Job::Take { queue, lane, max_messages, max_bytes, done }),
            },
            None => self.take_waiting(queue, lane, max_messages, max_bytes),
        };
        callback::run(|| done(batch));
    }

    fn take_later(&mut self, job: Job) {
        let at = Instant::now() + RETRY / 10;
        let mut state = self.shared.state.lock();
        while !state.stopped && !self.shared.changed.wait_until(&mut state, at).timed_out() {}
        state.jobs.push_back(job);
    }

    /// Reads from the front of a file. `None` when the process lacks file descriptors or memory.
    fn take_from_file(&mut self, file: &SpillFile, max_messages: usize, max_bytes: usize) -> Option<Taken> {
        let mut taken = Taken { messages: Vec::new(), file: file.clone(), lost: 0 };
        let mut want = max_bytes.max(record::HEADER);
        loop {
            let bytes = match self.read(&taken.file, want) {
                Ok(bytes) => bytes,
                Err(error) if is_shortage(&error) => {
                    tracing::warn!(%error, "cannot read transient messages now");
                    self.open = None;
                    return None;
                }
                Err(error) => {
                    tracing::error!(file = %file.name, %error, messages = file.messages, "transient messages are lost");
                    taken.give_up();
                    return Some(taken);
                }
            };
            match taken.add(&bytes, max_messages) {
                // The first record is larger than what was read: the file has it all, or it is damaged.
                Some(needed) if taken.messages.is_empty() && needed > want && taken.has(needed) => want = needed,
                None => return Some(taken),
                Some(_) if !taken.messages.is_empty() => return Some(taken),
                Some(_) => {
                    tracing::error!(file = %file.name, messages = taken.file.messages, "transient messages are damaged");
                    taken.give_up();
                    return Some(taken);
                }
            }
        }
    }

    /// Up to `want` bytes that have not been taken; never more than were written.
    fn read(&mut self, file: &SpillFile, want: usize) -> io::Result<Vec<u8>> {
        let open = self.file(&file.name, OpenMode::Write)?;
        let left = usize::try_from(file.len - file.taken).unwrap_or(usize::MAX);
        let mut bytes = vec![0; want.min(left)];
        let got = open.read_at(&mut bytes, file.taken)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Notes what was taken. A file that has nothing left goes, also one that could get more.
    fn account(&mut self, queue: QueueId, lane: u64, taken: Taken) -> SpillBatch {
        let mut state = self.shared.state.lock();
        let Some(lane) = state.lanes.get_mut(&queue).filter(|known| known.number == lane) else {
            // Forgotten meanwhile: nobody counts on these any more.
            return SpillBatch::default();
        };
        let Taken { messages, file, lost } = taken;
        let mut empty = None;
        if file.messages == 0 {
            empty = lane.files.pop_front();
        } else if let Some(front) = lane.files.front_mut() {
            *front = file;
        }
        let next = lane.next();
        if next.is_none() {
            state.lanes.remove(&queue);
        }
        drop(state);
        self.remove(empty.into_iter().collect());
        SpillBatch { messages, next, lost }
    }

    /// Takes messages that were never written.
    fn take_waiting(&self, queue: QueueId, lane: u64, max_messages: usize, max_bytes: usize) -> SpillBatch {
        let (taken, next, told) = {
            let mut guard = self.shared.state.lock();
            let state = &mut *guard;
            let Some(lane) = state.lanes.get_mut(&queue).filter(|known| known.number == lane) else {
                return SpillBatch::default();
            };
            let taken = lane.take_waiting(max_messages, max_bytes);
            state.waiting_bytes -= taken.iter().map(|waiting| record::len(&*waiting.payload)).sum::<usize>();
            let next = lane.next();
            if next.is_none() {
                state.lanes.remove(&queue);
                state.held.retain(|held| *held != queue);
            }
            (taken, next, self.shared.room(state))
        };
        super::tell(told);
        let messages = taken.into_iter().map(|Waiting { head, payload }| {
            let mut bytes = Vec::with_capacity(payload.encoded_len());
            payload.encode(&mut bytes);
            let place = Place::default();
            ReadMessage {
                seq: head.seq,
                meta: head.meta,
                redelivered: head.redelivered,
                place,
                payload: Bytes::from(bytes),
            }
        });
        SpillBatch { messages: messages.collect(), next, lost: 0 }
    }

    fn remove(&mut self, files: Vec<SpillFile>) {
        for file in files {
            if self.open.as_ref().is_some_and(|(name, _)| *name == file.name) {
                self.open = None;
            }
            let path = self.path(&file.name);
            if let Err(error) = self.shared.fs.remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a file of transient messages");
            }
        }
    }

    fn file(&mut self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if let Some((open, file)) = &self.open
            && open == name
        {
            return Ok(Arc::clone(file));
        }
        let file = self.shared.fs.open(&self.path(name), mode)?;
        self.open = Some((name.to_owned(), Arc::clone(&file)));
        Ok(file)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shared.dir.join(name)
    }
}

impl Lane {
    fn take_waiting(&mut self, max_messages: usize, max_bytes: usize) -> Vec<Waiting> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while taken.len() < max_messages
            && let Some(waiting) = self.waiting.front()
        {
            let more = record::len(&*waiting.payload);
            if !taken.is_empty() && bytes + more > max_bytes {
                break;
            }
            bytes += more;
            taken.extend(self.waiting.pop_front());
        }
        self.waiting_bytes -= bytes;
        taken
    }
}

/// What was read from a file, and the file as it is without it.
struct Taken {
    messages: Vec<ReadMessage>,
    file: SpillFile,
    lost: u64,
}

impl Taken {
    /// Adds the messages at the start of `bytes`. `Some` when it ends in something that is not a whole message: how many
    /// bytes that needs, 0 when it is damaged.
    fn add(&mut self, bytes: &[u8], max_messages: usize) -> Option<usize> {
        let mut rest = bytes;
        while self.messages.len() < max_messages && self.file.messages > 0 {
            match record::decode(rest) {
                Decoded::Message(message, len) => {
                    rest = rest.get(len..).unwrap_or_default();
                    self.file.taken += len as u64;
                    self.file.messages -= 1;
                    self.file.next = message.seq + 1;
                    self.messages.push(message);
                }
                Decoded::Part(needed) => return Some(needed),
                Decoded::Damaged => return Some(0),
            }
        }
        None
    }

    /// Whether that many bytes are left in the file.
    fn has(&self, bytes: usize) -> bool {
        self.file.len - self.file.taken >= bytes as u64
    }

    /// What is left in the file cannot be read.
    fn give_up(&mut self) {
        self.lost += self.file.messages;
        self.file.messages = 0;
    }
}

/// The process, or the machine, has too many files open or too little memory.
fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

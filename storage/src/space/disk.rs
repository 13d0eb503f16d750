//! How full the disk is, who wants to know, and who waits for room on it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::fs::Fs;

/// Is told whether the disk is low.
pub(crate) type Handler = dyn Fn(bool) + Send + Sync;

/// The disk under a store. It counts as low while less than the limit is free (and then until a tenth more than the limit
/// is), while anybody waits for room or was refused it, and while a file of the reserve is in use.
pub(crate) struct Disk {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    limit: AtomicU64,
    free: AtomicU64,
    low: AtomicBool,
    /// Files taken from the reserve and not put back.
    owed: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Those that were refused room and try again until they get it.
    waiting: usize,
    /// Somebody was refused room and does without.
    refused: bool,
    /// There is not even room for a checkpoint.
    short: bool,
    handlers: Vec<Listener>,
    telling: bool,
}

struct Listener {
    handler: Arc<Handler>,
    /// What it is to be told, in order. Every change is: who looks and then waits for the next call must not miss it.
    news: VecDeque<bool>,
}

impl Disk {
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: PathBuf, limit: u64) -> Self {
        let disk = Self {
            fs,
            dir,
            limit: AtomicU64::new(limit),
            free: AtomicU64::new(u64::MAX),
            low: AtomicBool::new(false),
            owed: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        disk.look();
        disk
    }

    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Acquire)
    }

    /// Free bytes as last looked at, and the limit.
    pub(crate) fn figures(&self) -> (u64, u64) {
        (self.free.load(Ordering::Relaxed), self.limit.load(Ordering::Relaxed))
    }

    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.reconsider();
    }

    /// What has to be free for the disk not to be low, as things stand.
    pub(crate) fn bar(&self) -> u64 {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.is_low() { limit.saturating_add(limit / 10) } else { limit }
    }

    /// Asks the file system, and draws the consequences. Without an answer, what was known stays.
    pub(crate) fn look(&self) -> u64 {
        match self.fs.free_bytes(&self.dir) {
            Ok(free) => self.free.store(free, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "cannot ask for the free space"),
        }
        self.reconsider();
        self.free.load(Ordering::Relaxed)
    }

    /// Calls `handler` when it changes whether the disk is low, at once if it is.
    pub(crate) fn add(&self, handler: Arc<Handler>) {
        self.change(|state| {
            let news = self.is_low().then_some(true).into_iter().collect();
            state.handlers.push(Listener { handler, news });
        });
    }

    /// Somebody waits for room until the guard is dropped.
    pub(crate) fn want(&self) -> Want<'_> {
        self.change(|state| state.waiting += 1);
        Want(self)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.state.lock().waiting > 0
    }

    /// Somebody was refused room, who does not wait for it.
    pub(crate) fn refuse(&self) {
        self.change(|state| state.refused = true);
    }

    /// There is room for what was refused.
    pub(crate) fn forgive(&self) {
        self.change(|state| state.refused = false);
    }

    /// Says whether there is room for a checkpoint.
    pub(crate) fn set_short(&self, short: bool) {
        self.change(|state| state.short = short);
    }

    /// A file of the reserve is taken. Said while nobody else can change the reserve, so that it is never counted after the
    /// file that takes its place; [`Disk::reconsider`] follows.
    pub(crate) fn owe(&self) {
        self.owed.fetch_add(1, Ordering::AcqRel);
    }

    /// A file is put into the reserve; `whole` when it has all that it should have. As [`Disk::owe`].
    pub(crate) fn repay(&self, whole: bool) {
        let owed = self.owed.load(Ordering::Acquire);
        self.owed.store(if whole { 0 } else { owed.saturating_sub(1) }, Ordering::Release);
    }

    /// Draws the consequences of what was said before.
    pub(crate) fn reconsider(&self) {
        self.change(|_| {});
    }

    /// Tells those who wait for room that there may be some.
    pub(crate) fn wake(&self) {
        // Taking the lock orders this after the look that a waiter took before it went to sleep.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Waits until there may be room, some time has gone by, or `done` says so after a wake.
    pub(crate) fn wait(&self, time: Duration, done: impl Fn() -> bool) {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        if !done() {
            self.changed.wait_until(&mut state, until);
        }
    }

    /// What [`Fs::free_bytes`] says now; an error is no reason not to try.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let free: io::Result<u64> = self.fs.free_bytes(&self.dir);
        free.map_or(true, |free| free >= bytes)
    }

    /// An error when so many bytes are not free.
    pub(crate) fn ask_room(&self, bytes: u64) -> io::Result<()> {
        if self.has_room(bytes) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let free = self.free.load(Ordering::Relaxed);
        let owed = self.owed.load(Ordering::Acquire);
        let low = free < self.bar() || state.waiting > 0 || state.refused || state.short || owed > 0;
        let before = self.low.swap(low, Ordering::AcqRel);
        let waiting = state.waiting;
        if low != before {
            state.handlers.iter_mut().for_each(|listener| listener.news.push_back(low));
        }
        let news = state.handlers.iter().any(|listener| !listener.news.is_empty());
        drop(state);
        if low != before {
            let limit = self.limit.load(Ordering::Relaxed);
            match low {
                true => tracing::warn!(free, limit, waiting, reserve_in_use = owed, "the disk is low"),
                false => tracing::info!(free, limit, "the disk is not low any more"),
            }
        }
        if news {
            self.tell();
        }
    }

    /// Tells the handlers the news, with nothing held. One thread at a time does it for all, so that nobody hears of the
    /// changes in another order than they happened in.
    fn tell(&self) {
        let mut state = self.state.lock();
        if state.telling {
            return;
        }
        state.telling = true;
        loop {
            let next = state.handlers.iter_mut().find_map(|listener| {
                let low = listener.news.pop_front()?;
                Some((Arc::clone(&listener.handler), low))
            });
            let Some((handler, low)) = next else {
                state.telling = false;
                return;
            };
            drop(state);
            handler(low);
            state = self.state.lock();
        }
    }
}

/// As long as it lives, somebody waits for room.
pub(crate) struct Want<'a>(&'a Disk);

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.waiting -= 1);
    }
}

//! A file system in memory that fails on purpose, for tests. Only with the feature `faulty`, which the binary never has.
//!
//! What it can do:
//!
//! - **power loss** at any call: whatever was not synced may be gone, in any subset of 4 KiB pages, torn at sectors, also
//!   with the contents a page had in between; sizes; creations, renames and removals whose directory was not synced;
//! - **errors** by rules: at the n-th call of a kind, from then on, or by chance; also half-way through a write, and an
//!   fdatasync that fails and after which the kernel takes the lost pages for written;
//! - **limits**: bytes of the disk (ENOSPC, half-way through a write), files open at once (EMFILE);
//! - **latency**: calls that wait until a test lets them go.
//!
//! Everything that is left to chance comes from one seed. The order in which the threads of a store call is theirs.
//!
//! Paths are those below a root, which is a real directory: one directory in it, sled's, is written by somebody who does not
//! know this file system. It is looked at from outside and takes part in power losses: see `outside`.

mod content;
mod disk;
mod gate;
mod names;
mod outside;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::io::Errno;

use super::{DirEntry, File, Fs, OpenMode};

pub use disk::Disk;
pub use gate::Hold;
pub use plan::{Fault, Op, When};

use gate::Gates;
use names::Node;
use outside::Outside;
use plan::Rule;

/// The log's syncs at which sled's directory is looked at: one in so many.
const LOOK: u32 = 16;

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct FaultyFs(Arc<Shared>);

struct Shared {
    root: PathBuf,
    /// Real directory below the root that somebody else writes to.
    outside: PathBuf,
    gates: Arc<Gates>,
    state: Mutex<State>,
}

struct State {
    disk: Disk,
    rng: StdRng,
    calls: u64,
    /// The machine is off; every call fails.
    off: bool,
    power: Vec<Rule<()>>,
    faults: Vec<Rule<Fault>>,
    capacity: Option<u64>,
    files_max: usize,
    /// Handles of every open file.
    open: BTreeMap<u64, usize>,
    locked: BTreeSet<u64>,
}

impl FaultyFs {
    /// Mounts a disk at `root`, a real directory that is empty. `outside` is the path below it of the directory that others
    /// write to; what the disk has of it is put there.
    ///
    /// # Errors
    ///
    /// When the real directory cannot be written.
    pub fn mount(mut disk: Disk, root: &Path, outside: &str, seed: u64) -> io::Result<Self> {
        let outside = root.join(outside);
        disk.outside.restore(&outside)?;
        let state = State {
            disk,
            rng: StdRng::seed_from_u64(seed),
            calls: 0,
            off: false,
            power: Vec::new(),
            faults: Vec::new(),
            capacity: None,
            files_max: usize::MAX,
            open: BTreeMap::new(),
            locked: BTreeSet::new(),
        };
        let shared = Shared { root: root.to_path_buf(), outside, gates: Arc::default(), state: Mutex::new(state) };
        Ok(Self(Arc::new(shared)))
    }

    /// Cuts the power at a call that matches, before or after it is done: it fails, and so does every later one. That way
    /// nobody can be told of anything that happened after.
    pub fn lose_power(&self, when: When, matches: impl Fn(Op, &Path) -> bool + Send + Sync + 'static) {
        self.lock().power.push(Rule { when, matches: Box::new(matches), count: 0, outcome: () });
    }

    /// Makes calls that match fail.
    pub fn fail(&self, when: When, fault: Fault, matches: impl Fn(Op, &Path) -> bool + Send + Sync + 'static) {
        self.lock().faults.push(Rule { when, matches: Box::new(matches), count: 0, outcome: fault });
    }

    /// All is well again: no call fails any more because of [`FaultyFs::fail`].
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Makes calls that match wait at a gate.
    #[must_use]
    pub fn hold(&self, matches: impl Fn(Op, &Path) -> bool + Send + Sync + 'static) -> Hold {
        self.0.gates.close(Box::new(matches))
    }

    /// Limits the size of the disk, in bytes; 4 KiB blocks that were written count, holes do not.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes taken up.
    #[must_use]
    pub fn used(&self) -> u64 {
        let state = self.lock();
        state.disk.used(&state.open)
    }

    /// Limits the files open at once.
    pub fn set_files_max(&self, files: usize) {
        self.lock().files_max = files;
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Cuts the power now, if it is still on.
    pub fn switch_off(&self) {
        self.0.cut(&mut self.lock());
    }

    /// The disk as it was when the power went, which is now if it is still on. Before a [`Disk::after_power_loss`] it is what
    /// a killed process leaves: nothing is lost, and nothing more is durable.
    #[must_use]
    pub fn cut(&self) -> Disk {
        let mut state = self.lock();
        self.0.cut(&mut state);
        state.disk.clone()
    }

    /// The disk after a store was closed and dropped, once the threads of sled are gone too.
    ///
    /// # Errors
    ///
    /// When the real directory cannot be read.
    pub fn unmount(&self) -> io::Result<Disk> {
        Outside::wait_until_free(&self.0.outside)?;
        Ok(self.cut())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// The path from the root of the disk.
    fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        path.strip_prefix(&self.0.root).map(Path::to_path_buf).map_err(|_| io::ErrorKind::NotFound.into())
    }

    fn is_outside(&self, path: &Path) -> bool {
        path.starts_with(&self.0.outside)
    }
}

impl Shared {
    fn cut(&self, state: &mut State) {
        if !state.off {
            state.off = true;
            state.disk.outside.look(&self.outside);
            self.gates.switch_off();
        }
    }

    /// One call: waits at the gates, asks the rules, does it.
    fn call<T>(&self, op: Op, path: &Path, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.partial(op, path, |_, fault| Err(fault.error()), act)
    }

    /// As [`Shared::call`], with something to be done when it is to fail.
    fn partial<T>(
        &self,
        op: Op,
        path: &Path,
        fail: impl FnOnce(&mut State, Fault) -> io::Result<T>,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.gates.pass(op, path);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.off {
            return Err(off());
        }
        state.calls += 1;
        let loss = plan::ask(&mut state.power, op, path, &mut state.rng).is_some();
        if loss && state.rng.random() {
            self.cut(state);
            return Err(off());
        }
        let outcome = match plan::ask(&mut state.faults, op, path, &mut state.rng) {
            Some(fault) => fail(state, fault),
            None => act(state),
        };
        if loss {
            self.cut(state);
            // What was opened is closed again, which takes the lock.
            drop(guard);
            return Err(off());
        }
        outcome
    }
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl Fs for FaultyFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inside = self.inside(path)?;
        self.0.call(Op::Open(mode), path, |state| {
            if state.open.values().sum::<usize>() >= state.files_max {
                return Err(Errno::MFILE.into());
            }
            let file = if self.is_outside(path) {
                match mode {
                    OpenMode::Read => fs::metadata(path).map(|_| None)?,
                    // Others write there.
                    _ => return Err(Errno::ACCESS.into()),
                }
            } else {
                match state.disk.names.get(&inside) {
                    Some(_) if mode == OpenMode::CreateNew => return Err(io::ErrorKind::AlreadyExists.into()),
                    Some(Node::File(file)) => Some(file),
                    Some(Node::Dir) => return Err(Errno::ISDIR.into()),
                    None if matches!(mode, OpenMode::Create | OpenMode::CreateNew) => Some(state.disk.create(&inside)?),
                    None => return Err(io::ErrorKind::NotFound.into()),
                }
            };
            // Files outside count as one: they are open no longer than a sync takes.
            *state.open.entry(file.unwrap_or_default()).or_default() += 1;
            let shared = Arc::clone(&self.0);
            let writes = mode != OpenMode::Read;
            let open = Open { shared, path: path.to_path_buf(), file: file.unwrap_or_default(), writes };
            Ok(if file.is_some() { Arc::new(Inside(open)) as Arc<dyn File> } else { Arc::new(Foreign(open)) })
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let inside = self.inside(path)?;
        self.0.call(Op::CreateDir, path, |state| {
            let mut above: Vec<&Path> = inside.ancestors().collect();
            above.reverse();
            for dir in above {
                match state.disk.names.get(dir) {
                    None => state.disk.names.add(dir, Node::Dir),
                    Some(Node::Dir) => {}
                    Some(Node::File(_)) => return Err(Errno::NOTDIR.into()),
                }
            }
            // What is outside may be moved there.
            fs::create_dir_all(path)
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let inside = self.inside(path)?;
        self.0.call(Op::List, path, |state| {
            if self.is_outside(path) {
                return super::RealFs.list(path);
            }
            if !state.disk.names.is_dir(&inside) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let entries = state.disk.files(&inside).into_iter();
            Ok(entries.map(|(name, len)| DirEntry { name, len }).collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_inside, to_inside) = (self.inside(from)?, self.inside(to)?);
        self.0.call(Op::Rename, to, |state| {
            if from == self.0.outside {
                state.disk.outside.move_away(from);
                return fs::rename(from, to);
            }
            if state.disk.names.get(&from_inside).is_none() {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.disk.names.shift(&from_inside, Some(&to_inside));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let inside = self.inside(path)?;
        self.0.call(Op::Remove, path, |state| {
            if !matches!(state.disk.names.get(&inside), Some(Node::File(_))) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.disk.names.shift(&inside, None);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Above the root everything is there to stay.
        let inside = self.inside(path).unwrap_or_default();
        self.0.call(Op::SyncDir, path, |state| {
            if path == self.0.outside {
                return state.disk.outside.sync_names(path);
            }
            if self.0.outside.parent() == Some(path) {
                state.disk.outside.sync_link(&self.0.outside);
            }
            if path.starts_with(&self.0.root) {
                state.disk.names.sync(&inside);
                state.disk.forget_unreachable(&state.open);
            }
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> bool {
        let known = self.inside(path).is_ok_and(|inside| self.lock().disk.names.get(&inside).is_some());
        // What others have made, and where it was moved to. Real directories of ours are known anyway.
        known || path.exists()
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.lock();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.disk.used(&state.open))))
    }
}

/// An open file.
struct Open {
    shared: Arc<Shared>,
    path: PathBuf,
    file: u64,
    writes: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let Some(handles) = state.open.get_mut(&self.file) {
            *handles -= 1;
            if *handles == 0 {
                state.open.remove(&self.file);
                state.locked.remove(&self.file);
            }
        }
    }
}

/// A file of the disk.
struct Inside(Open);

impl Inside {
    fn writes(&self) -> io::Result<()> {
        if self.0.writes { Ok(()) } else { Err(Errno::BADF.into()) }
    }
}

impl File for Inside {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Open { shared, path, file, .. } = &self.0;
        shared.call(Op::Read, path, |state| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = state.disk.content(*file).bytes().get(start..).unwrap_or_default();
            let n = rest.len().min(buf.len());
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.writes()?;
        let Open { shared, path, file, .. } = &self.0;
        let offset = usize::try_from(offset).map_err(|_| io::Error::from(Errno::FBIG))?;
        let some = |state: &mut State| {
            let part = state.rng.random_range(0..=buf.len());
            state.disk.content(*file).write(&buf[..part], offset);
        };
        let fail = |state: &mut State, fault: Fault| {
            if matches!(fault, Fault::Partial(_)) {
                some(state);
            }
            Err(fault.error())
        };
        shared.partial(Op::Write, path, fail, |state| {
            if let Some(capacity) = state.capacity {
                let more = state.disk.content(*file).more_room(offset, buf.len());
                let free = capacity.saturating_sub(state.disk.used(&state.open));
                if more > free {
                    let part = usize::try_from(free).unwrap_or(usize::MAX).min(buf.len());
                    state.disk.content(*file).write(&buf[..part], offset);
                    return Err(Errno::NOSPC.into());
                }
            }
            state.disk.content(*file).write(buf, offset);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let Open { shared, path, file, .. } = &self.0;
        let fail = |state: &mut State, fault: Fault| {
            if matches!(fault, Fault::Forgotten(_)) {
                let State { disk, rng, .. } = state;
                disk.content(*file).fail_sync(rng);
            }
            Err(fault.error())
        };
        shared.partial(Op::Sync, path, fail, |state| {
            state.disk.content(*file).sync();
            if state.rng.random_ratio(1, LOOK) && shared.outside.exists() {
                state.disk.outside.look(&shared.outside);
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writes()?;
        let Open { shared, path, file, .. } = &self.0;
        let len = usize::try_from(len).map_err(|_| io::Error::from(Errno::FBIG))?;
        shared.call(Op::SetLen, path, |state| {
            state.disk.content(*file).set_len(len);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.writes()?;
        let Open { shared, path, file, .. } = &self.0;
        let len = usize::try_from(len).map_err(|_| io::Error::from(Errno::FBIG))?;
        shared.call(Op::Allocate, path, |state| {
            if let Some(capacity) = state.capacity {
                let more = state.disk.content(*file).more_room(0, len);
                if more > capacity.saturating_sub(state.disk.used(&state.open)) {
                    return Err(Errno::NOSPC.into());
                }
            }
            state.disk.content(*file).allocate(len);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.shared.state.lock().disk.content(self.0.file).len() as u64)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.shared.state.lock().disk.names.links(self.0.file))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let Open { shared, path, file, .. } = &self.0;
        shared.call(Op::Lock, path, |state| Ok(state.locked.insert(*file)))
    }
}

/// A file that somebody else writes, opened to sync it.
struct Foreign(Open);

impl File for Foreign {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let path = &self.0.path;
        self.0.shared.call(Op::Read, path, |_| super::RealFs.open(path, OpenMode::Read)?.read_at(buf, offset))
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(Errno::BADF.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        let path = &self.0.path;
        let fail = |state: &mut State, fault: Fault| {
            if matches!(fault, Fault::Forgotten(_)) {
                let State { disk, rng, .. } = state;
                disk.outside.forget(path, rng)?;
            }
            Err(fault.error())
        };
        self.0.shared.partial(Op::Sync, path, fail, |state| state.disk.outside.sync(path))
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(Errno::BADF.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(Errno::BADF.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.0.path)?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn try_lock(&self) -> io::Result<bool> {
        Err(Errno::NOLCK.into())
    }
}

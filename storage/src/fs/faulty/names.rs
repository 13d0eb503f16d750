//! The directories: which names lead to which files, and which of that a power loss would leave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// A name that came, went, or both. It reaches the disk as a whole, also when it is a rename from one directory to another.
#[derive(Clone, Debug)]
struct Change {
    from: Option<PathBuf>,
    to: Option<PathBuf>,
    node: Node,
}

impl Change {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.from.iter().chain(&self.to)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        let Some(from) = &self.from else {
            names.extend(self.to.clone().map(|to| (to, self.node)));
            return;
        };
        let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            if let (Some(node), Some(to)) = (names.remove(&path), &self.to)
                && let Ok(rest) = path.strip_prefix(from)
            {
                // Joining nothing would add a slash.
                names.insert(if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) }, node);
            }
        }
    }
}

/// All names below the root of the disk, which is the empty path and always there.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    live: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    /// What happened since, in order.
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if path.as_os_str().is_empty() { Some(Node::Dir) } else { self.live.get(path).copied() }
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.get(path) == Some(Node::Dir)
    }

    pub(super) fn add(&mut self, path: &Path, node: Node) {
        self.change(None, Some(path), node);
    }

    /// Takes a name away, or gives what it stands for another one.
    pub(super) fn shift(&mut self, from: &Path, to: Option<&Path>) {
        if let Some(node) = self.get(from) {
            self.change(Some(from), to, node);
        }
    }

    fn change(&mut self, from: Option<&Path>, to: Option<&Path>, node: Node) {
        let change = Change { from: from.map(Path::to_path_buf), to: to.map(Path::to_path_buf), node };
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// The files of a directory, in the order of their names.
    pub(super) fn files(&self, dir: &Path) -> impl Iterator<Item = (String, u64)> {
        self.live.iter().filter(move |(path, _)| path.parent() == Some(dir)).filter_map(|(path, node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            if let Node::File(file) = node { Some((name, *file)) } else { None }
        })
    }

    /// All names; that of a directory comes before those in it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathBuf, &Node)> {
        self.live.iter()
    }

    /// How many names a file has.
    pub(super) fn links(&self, file: u64) -> u64 {
        self.live.values().filter(|node| **node == Node::File(file)).count() as u64
    }

    /// The files that have a name, or may have one again.
    pub(super) fn reachable(&self) -> BTreeSet<u64> {
        let pending = self.pending.iter().map(|change| &change.node);
        let all = self.live.values().chain(self.synced.values()).chain(pending);
        all.filter_map(|node| if let Node::File(file) = node { Some(*file) } else { None }).collect()
    }

    /// What happened in a directory is durable from here on.
    pub(super) fn sync(&mut self, dir: &Path) {
        self.arrive(|change| change.paths().any(|path| path.parent() == Some(dir)));
    }

    /// The power fails: of what was not synced the disk has what came first, or any part.
    pub(super) fn lose_power(&mut self, rng: &mut StdRng) {
        if rng.random() {
            let arrived = rng.random_range(0..=self.pending.len());
            for change in self.pending.drain(..).take(arrived) {
                change.apply(&mut self.synced);
            }
        } else {
            self.arrive(|_| rng.random());
        }
        self.pending.clear();
        self.live = self.synced.clone();
        let lost = |path: &Path| !path.ancestors().skip(1).all(|dir| self.is_dir(dir));
        let kept = self.synced.clone().into_iter().filter(|(path, _)| !lost(path)).collect();
        self.live = kept;
        self.synced = self.live.clone();
    }

    /// The changes that `which` chooses reach the disk, and those before them that their names hang on.
    fn arrive(&mut self, mut which: impl FnMut(&Change) -> bool) {
        let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (change, chosen) in self.pending.iter().zip(&mut chosen).rev() {
            *chosen = which(change) || change.paths().any(|path| needed.contains(path));
            if *chosen {
                needed.extend(change.paths().cloned());
            }
        }
        let mut chosen = chosen.into_iter();
        let synced = &mut self.synced;
        self.pending.retain(|change| {
            let arrives = chosen.next() == Some(true);
            if arrives {
                change.apply(synced);
            }
            !arrives
        });
    }
}

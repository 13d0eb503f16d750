//! A directory that somebody else writes to, on the real file system: sled's.
//!
//! Its files are looked at when the store syncs them, now and then in between, and when the power fails. At a power loss any
//! page may be as it was synced, as it was seen since, or as it was last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use rustix::fs::{FlockOperation, flock};

use super::content::{PAGE, page_of, put_page, tear};

/// Looks between two syncs that are remembered.
const SEEN_MAX: usize = 3;
/// One page in so many that are on their way is torn.
const TORN: u32 = 16;

type Files = BTreeMap<String, Vec<u8>>;

/// What is known of the directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Outside {
    /// Its own name is durable.
    linked: bool,
    /// The names in it that are durable.
    names: BTreeSet<String>,
    /// The contents of files as they were last synced.
    synced: Files,
    /// What was seen since, oldest first; the last is what is there now when the power fails.
    seen: Vec<Files>,
    /// Pages that a failed sync should have written, as they were then: as long as they stay so, no sync writes them.
    forgotten: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    /// It was moved away, but not durably: what would come back.
    moved: Option<Box<Self>>,
}

impl Outside {
    /// A file was synced.
    pub(super) fn sync(&mut self, path: &Path) -> io::Result<()> {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            let mut new = fs::read(path)?;
            let old = self.synced.get(name).map_or(&[][..], Vec::as_slice);
            let forgotten = self.forgotten.entry(name.to_owned()).or_default();
            forgotten.retain(|page, bytes| page_of(&new, *page) == bytes.as_slice());
            for page in forgotten.keys() {
                let mut before = page_of(old, *page).to_vec();
                before.resize(PAGE, 0);
                put_page(&mut new, *page, &before);
            }
            self.synced.insert(name.to_owned(), new);
            for files in &mut self.seen {
                files.remove(name);
            }
        }
        Ok(())
    }

    /// A sync of a file failed, and some of its pages count as written though they are not.
    pub(super) fn forget(&mut self, path: &Path, rng: &mut StdRng) -> io::Result<()> {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            let new = fs::read(path)?;
            let old = self.synced.get(name).map_or(&[][..], Vec::as_slice);
            let forgotten = self.forgotten.entry(name.to_owned()).or_default();
            for page in 0..new.len().div_ceil(PAGE) {
                if page_of(&new, page) != page_of(old, page) && rng.random() {
                    forgotten.insert(page, page_of(&new, page).to_vec());
                }
            }
        }
        Ok(())
    }

    /// The directory was synced.
    pub(super) fn sync_names(&mut self, dir: &Path) -> io::Result<()> {
        self.names = names(dir)?.into_iter().collect();
        let names = &self.names;
        self.synced.retain(|name, _| names.contains(name));
        Ok(())
    }

    /// The directory above was synced.
    pub(super) fn sync_link(&mut self, dir: &Path) {
        self.linked = dir.exists();
        self.moved = None;
    }

    /// Remembers what is there.
    pub(super) fn look(&mut self, dir: &Path) {
        if self.seen.len() == SEEN_MAX {
            self.seen.remove(0);
        }
        self.seen.push(read(dir));
    }

    /// It is about to be moved away.
    pub(super) fn move_away(&mut self, dir: &Path) {
        self.look(dir);
        let moved = std::mem::take(self);
        if moved.linked {
            self.moved = Some(Box::new(moved));
        }
    }

    /// Waits until nobody has its database open any more.
    pub(super) fn wait_until_free(dir: &Path) -> io::Result<()> {
        match fs::File::open(dir.join("db")) {
            Ok(file) => Ok(flock(&file, FlockOperation::LockExclusive)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The power fails. What was there last has been looked at.
    pub(super) fn lose_power(&mut self, rng: &mut StdRng) {
        if let Some(moved) = self.moved.take()
            && rng.random()
        {
            *self = *moved;
        }
        let seen = std::mem::take(&mut self.seen);
        let last = seen.last().cloned().unwrap_or_default();
        let mut left = Files::new();
        if self.linked || rng.random() {
            let candidates: BTreeSet<&String> = self.names.iter().chain(last.keys()).collect();
            // None, few, some, most or all of the pages that were on their way, in all of its files.
            let chance = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
            for name in candidates {
                let certain = self.names.contains(name) && last.contains_key(name);
                if certain || rng.random() {
                    let versions: Vec<&Vec<u8>> = seen.iter().filter_map(|files| files.get(name)).collect();
                    let synced = self.synced.get(name).map_or(&[][..], Vec::as_slice);
                    left.insert(name.clone(), mix(synced, &versions, chance, rng));
                }
            }
            self.linked = true;
        }
        self.forgotten.clear();
        self.names = left.keys().cloned().collect();
        self.synced.clone_from(&left);
        self.seen.push(left);
    }

    /// Puts what was seen last into a directory, which is not there.
    pub(super) fn restore(&mut self, dir: &Path) -> io::Result<()> {
        let files = self.seen.pop().unwrap_or_default();
        self.seen.clear();
        if files.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        files.iter().try_for_each(|(name, bytes)| fs::write(dir.join(name), bytes))
    }
}

/// A file of which any page may be as it was synced or as it was seen later.
fn mix(synced: &[u8], versions: &[&Vec<u8>], chance: f64, rng: &mut StdRng) -> Vec<u8> {
    let last = versions.last().map_or(synced, |last| last.as_slice());
    let mut left = synced.to_vec();
    if synced.is_empty() || rng.random() {
        left.resize(last.len(), 0);
    }
    for page in 0..left.len().div_ceil(PAGE) {
        if !rng.random_bool(chance) {
            continue;
        }
        let at = rng.random_range(0..=versions.len() * 2);
        let new = page_of(versions.get(at).map_or(last, |version| version.as_slice()), page);
        if new == page_of(&left, page) {
            continue;
        }
        let mut new = new.to_vec();
        if rng.random_ratio(1, TORN) {
            tear(page_of(&left, page), &mut new, rng);
        }
        put_page(&mut left, page, &new);
    }
    left
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Removed since, or not a file of ours.
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push(name);
        }
    }
    Ok(found)
}

fn read(dir: &Path) -> Files {
    // What goes away while we look is not there.
    let names = names(dir).unwrap_or_default();
    names.into_iter().filter_map(|name| fs::read(dir.join(&name)).ok().map(|bytes| (name, bytes))).collect()
}

//! What is on the disk.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rand::rngs::StdRng;

use super::content::Content;
use super::names::{Names, Node};
use super::outside::Outside;

/// The contents of a disk, with what of them is durable. It outlives the process that wrote it: see [`super::FaultyFs::cut`].
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub(super) names: Names,
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) outside: Outside,
    next: u64,
}

impl Disk {
    /// What a power loss leaves: everything that was synced, and of the rest what chance picks.
    #[must_use]
    pub fn after_power_loss(mut self, rng: &mut StdRng) -> Self {
        self.names.lose_power(rng);
        self.forget_unreachable(&BTreeMap::new());
        for content in self.files.values_mut() {
            content.lose_power(rng);
        }
        self.outside.lose_power(rng);
        self
    }

    /// Copies all of it into a real directory.
    ///
    /// # Errors
    ///
    /// When that cannot be written.
    pub fn copy_to(&self, dir: &Path) -> io::Result<()> {
        for (path, node) in self.names.iter() {
            match node {
                Node::Dir => std::fs::create_dir_all(dir.join(path))?,
                Node::File(file) => std::fs::write(dir.join(path), self.files[file].bytes())?,
            }
        }
        Ok(())
    }

    /// The files of a directory, named from the root of the disk, with their sizes.
    #[must_use]
    pub fn files(&self, dir: &Path) -> Vec<(String, u64)> {
        self.names.files(dir).map(|(name, file)| (name, self.files[&file].len() as u64)).collect()
    }

    /// Changes the octets of a file, as decay would: durably, and without anybody noticing. False when there is none.
    pub fn damage(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(Node::File(file)) = self.names.get(path) else {
            return false;
        };
        let mut bytes = self.files[&file].bytes().to_vec();
        change(&mut bytes);
        let mut content = Content::default();
        content.write(&bytes, 0);
        content.sync();
        self.files.insert(file, content);
        true
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        if !path.parent().is_some_and(|dir| self.names.is_dir(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.next += 1;
        self.files.insert(self.next, Content::default());
        self.names.add(path, Node::File(self.next));
        Ok(self.next)
    }

    pub(super) fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }

    /// Bytes taken up by files that have a name or are open.
    pub(super) fn used(&self, open: &BTreeMap<u64, usize>) -> u64 {
        let in_use = |file: &u64| open.contains_key(file) || self.names.links(*file) > 0;
        self.files.iter().filter(|(file, _)| in_use(file)).map(|(_, content)| content.room()).sum()
    }

    pub(super) fn forget_unreachable(&mut self, open: &BTreeMap<u64, usize>) {
        let reachable = self.names.reachable();
        self.files.retain(|file, _| open.contains_key(file) || reachable.contains(file));
    }
}

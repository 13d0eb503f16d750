//! What is to go wrong, and when.

use std::io;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;

use crate::fs::OpenMode;

/// A call into the file system, as rules see it. Looking whether a path exists, sizes and counts of names are no calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A file is opened.
    Open(OpenMode),
    /// A directory is created.
    CreateDir,
    /// A directory is listed.
    List,
    /// A file or directory is renamed; rules see the new name.
    Rename,
    /// A file is unlinked.
    Remove,
    /// A directory is synced.
    SyncDir,
    /// Octets are read.
    Read,
    /// Octets are written.
    Write,
    /// fdatasync.
    Sync,
    /// A file is cut or made longer.
    SetLen,
    /// A file gets blocks ahead of its contents.
    Allocate,
    /// A file is locked.
    Lock,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this errno and does nothing.
    Error(i32),
    /// A read or write fails with this errno after a part of it was done; any other call as for [`Fault::Error`].
    Partial(i32),
    /// A sync fails with this errno and the kernel forgets that the pages were to be written: a later one succeeds without
    /// them. Any other call as for [`Fault::Error`].
    Forgotten(i32),
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        let (Self::Error(errno) | Self::Partial(errno) | Self::Forgotten(errno)) = self;
        io::Error::from_raw_os_error(errno)
    }
}

/// Which of the calls that match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// The n-th, counted from 1 and from when the rule was made.
    Nth(u64),
    /// All from the n-th on.
    From(u64),
    /// Each with this probability.
    Chance(f64),
}

impl When {
    fn is_now(self, count: u64, rng: &mut StdRng) -> bool {
        match self {
            Self::Nth(n) => count == n,
            Self::From(n) => count >= n,
            Self::Chance(chance) => rng.random_bool(chance),
        }
    }
}

/// Which calls a rule is about; the path is the whole one.
pub(super) type Matches = Box<dyn Fn(Op, &Path) -> bool + Send + Sync>;

/// One rule.
pub(super) struct Rule<T> {
    pub(super) when: When,
    pub(super) matches: Matches,
    pub(super) count: u64,
    pub(super) outcome: T,
}

/// What the first rule says whose time it is.
pub(super) fn ask<T: Copy>(rules: &mut [Rule<T>], op: Op, path: &Path, rng: &mut StdRng) -> Option<T> {
    let mut found = None;
    for rule in rules {
        if (rule.matches)(op, path) {
            rule.count += 1;
            if rule.when.is_now(rule.count, rng) && found.is_none() {
                found = Some(rule.outcome);
            }
        }
    }
    found
}

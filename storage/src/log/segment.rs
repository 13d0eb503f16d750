//! The segment files: their names, and the one that is written to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::File;

const SUFFIX: &str = ".log";
const FREE_PREFIX: &str = "free-";
const RESERVE_SUFFIX: &str = ".reserve";

/// A segment open for writing.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) len: u64,
    pub(crate) file: Arc<dyn File>,
}

/// What a name in the log directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogName {
    /// The segment with this id.
    Segment(u64),
    /// A free file, kept for reuse, with the number in its name.
    Free(u64),
    /// A file kept for a full disk, with the number in its name.
    Reserve(u64),
    /// None of these.
    Other,
}

/// The file of a segment.
pub(crate) fn path(log_dir: &Path, id: u64) -> PathBuf {
    log_dir.join(format!("{id:016x}{SUFFIX}"))
}

/// The file that a segment's file becomes when it is free, or that a new one is while it waits for its first id.
pub(crate) fn free_path(log_dir: &Path, number: u64) -> PathBuf {
    log_dir.join(format!("{FREE_PREFIX}{number:016x}{SUFFIX}"))
}

/// The file of the reserve with this number.
pub(crate) fn reserve_path(log_dir: &Path, number: u64) -> PathBuf {
    log_dir.join(format!("{number:016x}{RESERVE_SUFFIX}"))
}

/// Tells the names of the log directory apart.
pub(crate) fn classify(name: &str) -> LogName {
    if let Some(number) = name.strip_suffix(RESERVE_SUFFIX) {
        return parse(number).map_or(LogName::Other, LogName::Reserve);
    }
    let Some(stem) = name.strip_suffix(SUFFIX) else {
        return LogName::Other;
    };
    if let Some(number) = stem.strip_prefix(FREE_PREFIX) {
        return parse(number).map_or(LogName::Other, LogName::Free);
    }
    parse(stem).map_or(LogName::Other, LogName::Segment)
}

/// Bigger ids than a store ever gets to, and zero, are none: a location could not name them, nor their successors.
const ID_END: u64 = 1 << 35;

fn parse(hex: &str) -> Option<u64> {
    let id = if hex.len() == 16 { u64::from_str_radix(hex, 16).ok()? } else { return None };
    (1..ID_END).contains(&id).then_some(id)
}

//! What the store holds while an import goes on: the document, in pieces, then a mark that it is whole. Both are in the log
//! before anything of the import is, so a crash leaves either nothing of the import, or what is needed to finish it. The mark goes
//! first when it is done.

use serde::{Deserialize, Serialize};
use storage::{Lsn, TopologyChange};

use super::Options;
use crate::broker::Broker;

const PIECE_PREFIX: &[u8] = b"import/piece/";
const MARK: &[u8] = b"import/mark";
/// Where the digest of the file is that the configuration named when it was imported last.
const FILE: &[u8] = b"import/file";
/// Pieces must fit into the smallest segment of the log.
const PIECE_MAX_BYTES: usize = 16 * 1024;
/// So must the change that deletes so many of them.
const DELETED_TOGETHER: usize = 256;

#[derive(Serialize, Deserialize)]
struct Mark {
    v: u32,
    pieces: usize,
    options: Options,
}

/// A document that is noted.
pub(super) struct Note {
    pieces: usize,
}

/// What a start finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// An import that was cut off.
    pub(super) unfinished: Option<(Vec<u8>, Options)>,
    /// The file that was imported last.
    pub(super) file_digest: Option<String>,
    /// All pieces that there are.
    keys: Vec<Vec<u8>>,
}

/// Notes a document.
pub(super) fn begin(broker: &Broker, text: &[u8], options: &Options) -> Note {
    let mut pieces = 0;
    for piece in text.chunks(PIECE_MAX_BYTES) {
        put(broker, piece_key(pieces), piece.to_vec());
        pieces += 1;
    }
    let mark = Mark { v: 1, pieces, options: options.clone() };
    // Texts and numbers: writing them to memory does not fail.
    put(broker, MARK.to_vec(), serde_json::to_vec(&mark).unwrap_or_default());
    Note { pieces }
}

impl Note {
    /// All of the document is applied. Gives where that is durable.
    pub(super) fn end(self, broker: &Broker, options: &Options) -> Lsn {
        end(broker, options, (0..self.pieces).map(piece_key).collect())
    }
}

impl Found {
    /// Reads the records that a start found; those about other things are passed over.
    pub(super) fn read(records: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut found = Self::default();
        let mut pieces: Vec<(&[u8], &[u8])> = Vec::new();
        let mut mark = None;
        for (key, value) in records {
            if key.starts_with(PIECE_PREFIX) {
                pieces.push((key, value));
            } else if key == MARK {
                mark = serde_json::from_slice::<Mark>(value).ok();
            } else if key == FILE {
                found.file_digest = String::from_utf8(value.clone()).ok();
            }
        }
        pieces.sort_unstable();
        // Left over of one that is done, or was never whole.
        if let Some(mark) = mark.filter(|mark| mark.v == 1 && mark.pieces <= pieces.len()) {
            let text = pieces.iter().take(mark.pieces).flat_map(|(_, value)| value.iter().copied()).collect();
            found.unfinished = Some((text, mark.options));
        }
        found.keys = pieces.iter().map(|(key, _)| key.to_vec()).collect();
        found
    }

    /// Nothing of it is needed any more. Gives where that is durable.
    pub(super) fn end(self, broker: &Broker) -> Lsn {
        match &self.unfinished {
            None if self.keys.is_empty() => Lsn(0),
            None => end(broker, &Options::default(), self.keys),
            Some((_, options)) => end(broker, options, self.keys),
        }
    }
}

/// The mark goes first: pieces without it are nothing.
fn end(broker: &Broker, options: &Options, pieces: Vec<Vec<u8>>) -> Lsn {
    let mut changes = vec![TopologyChange::Delete { key: MARK.to_vec() }];
    if let Some(digest) = &options.file_digest {
        changes.push(TopologyChange::Put { key: FILE.to_vec(), value: digest.clone().into_bytes() });
    }
    let mut lsn = broker.store.change_topology(changes);
    for keys in pieces.chunks(DELETED_TOGETHER) {
        let changes = keys.iter().map(|key| TopologyChange::Delete { key: key.clone() }).collect();
        lsn = broker.store.change_topology(changes);
    }
    lsn
}

fn put(broker: &Broker, key: Vec<u8>, value: Vec<u8>) {
    broker.store.change_topology(vec![TopologyChange::Put { key, value }]);
}

fn piece_key(number: usize) -> Vec<u8> {
    [PIECE_PREFIX, format!("{number:08}").as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], value: &str) -> (Vec<u8>, Vec<u8>) {
        (key.to_vec(), value.as_bytes().to_vec())
    }

    #[test]
    fn only_what_is_whole_is_an_import() {
        let mark = r#"{"v":1,"pieces":2,"options":{"skip_unsupported":true}}"#;
        let (first, second) = (record(&piece_key(0), "{\"a\":"), record(&piece_key(1), "1}"));
        let all = [second.clone(), record(MARK, mark), first.clone(), record(b"vhost/x", "{}")];
        let options = Options { skip_unsupported: true, ..Options::default() };
        assert_eq!(Found::read(&all).unfinished, Some((b"{\"a\":1}".to_vec(), options)));
        for damaged in [
            vec![first.clone(), second.clone()],
            vec![first.clone(), record(MARK, mark)],
            vec![first, second, record(MARK, "nonsense")],
        ] {
            let found = Found::read(&damaged);
            assert_eq!((found.unfinished, found.keys.is_empty()), (None, false));
        }
        assert_eq!(Found::read(&[record(FILE, "abc")]).file_digest.as_deref(), Some("abc"));
    }
}

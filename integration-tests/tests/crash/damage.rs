//! Damaged files of every kind under the real broker: it starts, has what is intact, and says what it lost.

use crate::{SMALL, open};
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::{Broker, Finished, Launch};
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, PERSISTENT};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const QUEUES: [&str; 2] = ["orders", "audit"];
const DURABLE: u8 = 2;
/// Messages of each queue, and those of them that are acknowledged.
const MESSAGES: usize = 140;
const TAKEN: usize = 10;
/// One message in so many has a file of its own.
const LARGE_EVERY: usize = 50;
const PAGE: usize = 4096;

/// What is done to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Cut,
    ZeroPage,
    Flip,
    Deleted,
    OlderCopy,
}

const HARMS: [Harm; 5] = [Harm::Cut, Harm::ZeroPage, Harm::Flip, Harm::Deleted, Harm::OlderCopy];

/// A data directory that a broker has left, and a copy from half-way.
struct Left {
    launch: Launch,
    older: tempfile::TempDir,
    killed: bool,
}

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).config(SMALL)
}

fn body(queue: &str, number: usize) -> Vec<u8> {
    let mut body = format!("{queue} message {number}.").into_bytes();
    body.resize(if number.is_multiple_of(LARGE_EVERY) { 600_000 } else { 15_000 + number * 20 }, b'.');
    body
}

/// Publishes messages of both queues, confirmed.
fn publish(raw: &mut Raw, numbers: Range<usize>) {
    for number in numbers {
        for queue in QUEUES {
            raw.publish(1, ("", queue), 0, PERSISTENT, &body(queue, number));
            raw.expect(1, id::BASIC_ACK);
        }
    }
}

fn confirming(broker: &Broker) -> Raw {
    let mut raw = open(broker.address());
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw
}

impl Left {
    fn new(killed: bool) -> Self {
        let broker = launch().start();
        let mut raw = confirming(&broker);
        QUEUES.iter().for_each(|queue| drop(raw.declare(1, queue, DURABLE)));
        publish(&mut raw, 1..MESSAGES / 2);
        let launch = broker.launch().clone();
        assert!(broker.terminate().status.success());
        let older = tempfile::tempdir().expect("a directory");
        copy_dir(&launch.home().join("data"), older.path());
        let broker = launch.start();
        let mut raw = confirming(&broker);
        publish(&mut raw, MESSAGES / 2..MESSAGES);
        for queue in QUEUES {
            for _ in 0..TAKEN {
                let taken = raw.get(1, queue, false).expect("a message");
                raw.method(1, id::BASIC_ACK, Bytes::new().longlong(taken.tag).octet(0));
            }
        }
        // Its confirm says that what came before is on disk, the acknowledgements too.
        raw.declare(1, "last", DURABLE);
        raw.publish(1, ("", "last"), 0, PERSISTENT, b"last");
        raw.expect(1, id::BASIC_ACK);
        let launch = if killed {
            broker.kill9()
        } else {
            let launch = broker.launch().clone();
            assert!(broker.terminate().status.success());
            launch
        };
        Self { launch, older, killed }
    }

    fn data(&self) -> PathBuf {
        self.launch.home().join("data")
    }

    /// The files of a directory below that of the data.
    fn files(&self, below: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.data().join(below)).expect("the directory");
        let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
        let mut files: Vec<_> =
            paths.map(|path| path.strip_prefix(self.data()).expect("below").to_path_buf()).collect();
        files.sort();
        files
    }

    /// The segments that have messages in them, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let mut files = self.files("log");
        files.retain(|file| {
            let name = file.file_name().expect("a name").to_string_lossy();
            name.ends_with(".log") && !name.starts_with("free") && !self.messages_in(file).is_empty()
        });
        files
    }

    /// Where the messages are whose bytes are in a file.
    fn messages_in(&self, file: &Path) -> BTreeMap<(&'static str, usize), usize> {
        let bytes = fs::read(self.data().join(file)).expect("the file");
        let mut found = BTreeMap::new();
        for queue in QUEUES {
            let mark = format!("{queue} message ");
            let mut from = 0;
            while let Some(at) = bytes[from..].windows(mark.len()).position(|window| window == mark.as_bytes()) {
                from += at + mark.len();
                let digits: String =
                    bytes[from..].iter().map(|&byte| byte as char).take_while(char::is_ascii_digit).collect();
                found.insert((queue, digits.parse().expect("a number")), from);
            }
        }
        found
    }

    /// Starts a broker on a damaged copy and compares what it has and says with what there was.
    fn check(&self, file: &Path, harm: Harm) {
        let what = format!("killed: {}, {}, {harm:?}", self.killed, file.display());
        let copy = tempfile::tempdir().expect("a directory");
        copy_dir(&self.data(), copy.path());
        let in_file = self.messages_in(file);
        let whole = fs::read(copy.path().join(file)).expect("the file");
        let Some(harmed) = self.harm(copy.path(), file, harm) else {
            return;
        };
        let unchanged = fs::read(copy.path().join(file)).is_ok_and(|bytes| bytes == whole);
        let is_log = file.starts_with("log") && file.file_name().is_some_and(|name| name != "key");
        let newest = self.segments().pop().is_some_and(|newest| newest == file);
        let broker = launch().data_dir(Some(copy.path())).start();
        let found = drain(&broker);
        let status = ctl_status(copy.path());
        let Finished { stderr, .. } = broker.terminate();
        let mut lost = BTreeSet::new();
        for queue in QUEUES {
            let numbers = &found[queue];
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{what}: {queue} in order, once: {numbers:?}");
            let back = numbers.iter().filter(|&&number| number <= TAKEN).count();
            assert!(back == 0 || is_log, "{what}: {back} of {queue} are back");
            lost.extend((TAKEN + 1..MESSAGES).filter(|number| !numbers.contains(number)).map(|number| (queue, number)));
        }
        // The end of a log that was killed may as well never have been written.
        let silent = self.killed && newest;
        if let Some(message) = lost.iter().find(|message| !in_file.contains_key(message)) {
            // Its entry may have been here, and its file is kept.
            let large = message.1.is_multiple_of(LARGE_EVERY);
            assert!(large && is_log, "{what}: {message:?} is intact and lost\n{stderr}");
        }
        if harm == Harm::Flip && is_log && !silent {
            assert!(lost.len() <= 1, "{what}: one bit costs {lost:?}\n{stderr}");
        }
        // What is not needed may be damaged without anybody seeing it: parts of sled, of a snapshot beside a good sled.
        let noticed = match file.to_string_lossy().as_ref() {
            "key" | "log/key" => !unchanged,
            "sled/db" => matches!(harm, Harm::Deleted | Harm::OlderCopy),
            "snapshot" => harm == Harm::Cut,
            _ => false,
        };
        if !silent && (noticed || !lost.is_empty()) {
            let complaint = stderr.lines().find(|line| line.contains("WARN") || line.contains("ERROR"));
            assert!(complaint.is_some(), "{what}: {lost:?} and nobody says so");
            if harm != Harm::Deleted && !file.ends_with("key") {
                let kept = fs::read_dir(copy.path().join("quarantine")).map_or(0, Iterator::count);
                assert!(kept > 0, "{what}: no evidence\n{stderr}");
            }
        }
        for queue in lost.iter().map(|(queue, _)| queue).filter(|_| harm == Harm::Deleted && is_log && !silent) {
            let named = format!("queue {queue:?} in vhost \"/\"");
            let says = |text: &str| text.contains(&named) || text.contains("log entries are missing");
            assert!(says(&stderr) && says(&status), "{what}: {queue} is not named\n{stderr}{status}");
        }
        assert!(harmed.end <= whole.len().max(1) || harm == Harm::OlderCopy);
    }

    /// Returns which bytes are not what they were; nothing when there is no older copy.
    fn harm(&self, dir: &Path, file: &Path, harm: Harm) -> Option<Range<usize>> {
        let path = dir.join(file);
        let mut bytes = fs::read(&path).expect("the file");
        let whole = bytes.len();
        // In the middle of a message, if there is one.
        let at = self.messages_in(file).values().nth(3).or(self.messages_in(file).values().next()).copied();
        let at = at.map_or(whole / 2, |at| at + 100);
        let harmed = match harm {
            Harm::Cut => {
                bytes.truncate(at);
                at..whole
            }
            Harm::ZeroPage => {
                let page = at / PAGE * PAGE..whole.min(at / PAGE * PAGE + PAGE);
                bytes[page.clone()].fill(0);
                page
            }
            Harm::Flip => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 4;
                }
                at..at + 1
            }
            Harm::Deleted => {
                fs::remove_file(&path).expect("removed");
                return Some(0..whole);
            }
            Harm::OlderCopy => {
                bytes = fs::read(self.older.path().join(file)).ok()?;
                0..bytes.len()
            }
        };
        fs::write(path, bytes).expect("written");
        Some(harmed)
    }
}

/// The numbers of all messages, by queue, in the order in which they come; each body is looked at.
fn drain(broker: &Broker) -> BTreeMap<&'static str, Vec<usize>> {
    let mut raw = open(broker.address());
    QUEUES
        .into_iter()
        .map(|queue| {
            // It may be gone with the log that had it.
            raw.declare(1, queue, DURABLE);
            let mut numbers = Vec::new();
            while let Some(message) = raw.get(1, queue, true) {
                let text = message.text();
                let number = text.split_once(" message ").and_then(|(_, rest)| rest.split_once('.'));
                let number = number.expect("a number").0.parse().expect("a number");
                assert_eq!(message.content.body, body(queue, number));
                numbers.push(number);
            }
            (queue, numbers)
        })
        .collect()
}

fn ctl_status(data: &Path) -> String {
    let command = Launch::new(env!("CARGO_BIN_EXE_warren-under-test"))
        .listen(None)
        .data_dir(None)
        .flag("ctl")
        .flag("status")
        .flag("--data-dir");
    let Finished { status, stdout, stderr } = command.flag(data.to_str().expect("a path in UTF-8")).run();
    assert!(status.success(), "{stderr}");
    stdout
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("the directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_dir(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, target).expect("copied");
        }
    }
}

/// Does everything to the files that `choose` names, in a directory that was closed and in one whose broker was killed.
fn each(choose: impl Fn(&Left) -> Vec<PathBuf>) {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it damages files of Warren's");
        return;
    }
    for killed in [false, true] {
        let left = Left::new(killed);
        let files = choose(&left);
        assert!(!files.is_empty());
        for file in files {
            HARMS.iter().for_each(|&harm| left.check(&file, harm));
        }
    }
}

#[test]
fn damaged_segments() {
    each(|left| {
        let segments = left.segments();
        [segments.first(), segments.get(segments.len() / 2), segments.last()].into_iter().flatten().cloned().collect()
    });
}

#[test]
fn damaged_free_files_and_reserve() {
    each(|left| {
        let is_spare = |file: &&PathBuf| {
            let file = file.to_string_lossy();
            file.contains("free-") || file.ends_with(".reserve")
        };
        left.files("log").iter().filter(is_spare).take(2).cloned().collect()
    });
}

#[test]
fn damaged_large_messages() {
    each(|left| left.files("large").into_iter().take(2).collect());
}

#[test]
fn a_damaged_sled() {
    each(|left| left.files("sled"));
}

#[test]
fn a_damaged_snapshot() {
    each(|_| vec!["snapshot".into()]);
}

#[test]
fn damaged_keys_and_lock() {
    each(|_| vec!["key".into(), "log/key".into(), "lock".into()]);
}

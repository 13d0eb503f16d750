//! Every kind of file damaged in every way: the directory opens, what is intact is there once and in order, and what is lost
//! is named.

mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use storage::{Seq, Store};

use crate::common::{body, each_seed, put, read, wait};
use crate::crash::groups;
use image::{Image, Kind, Message, quiet};

/// What is done to one file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut(usize),
    ZeroPage(usize),
    Flip(usize),
    Deleted,
    OlderCopy,
}

impl Harm {
    /// Does it to a file of a copy; returns which bytes are not what they were.
    fn apply(self, image: &Image, copy: &Path, file: &Path) -> Range<usize> {
        let path = copy.join(file);
        let mut bytes = fs::read(&path).expect("the file can be read");
        let whole = bytes.len();
        let harmed = match self {
            Self::Cut(at) => {
                bytes.truncate(at);
                at..whole
            }
            Self::ZeroPage(at) => {
                let end = whole.min(at + 4096);
                bytes[at..end].fill(0);
                at..end
            }
            Self::Flip(at) => {
                bytes[at] ^= 0x10;
                at..at + 1
            }
            Self::Deleted => {
                fs::remove_file(&path).expect("the file can be removed");
                return 0..whole;
            }
            Self::OlderCopy => {
                let older = fs::read(image.older.path().join(file)).expect("there is an older copy");
                let same = older.iter().zip(&bytes).take_while(|(old, new)| old == new).count();
                bytes = older;
                same..whole.max(bytes.len())
            }
        };
        fs::write(&path, bytes).expect("the file can be written");
        harmed
    }
}

/// What an opening found.
struct Found {
    messages: BTreeMap<Message, Vec<u8>>,
    damaged: BTreeSet<Message>,
    lines: Vec<String>,
}

/// Opens a directory, reads all of it, and sees that it can be used.
fn find(dir: &Path) -> Found {
    let (store, recovered) = Store::open(quiet(dir)).expect("damage never refuses a directory");
    let queues = recovered.queues;
    let mut found = Found { messages: BTreeMap::new(), damaged: BTreeSet::new(), lines: recovered.damage };
    for queue in [1, 2] {
        let mut from = 0;
        loop {
            let batch = read(&store, queue, from, 50, 64 * 1024);
            let mut last: Option<Seq> = None;
            for message in batch.messages {
                assert!(last < Some(message.seq) && from <= message.seq, "in order");
                last = Some(message.seq);
                let again = found.messages.insert((queue, message.seq), message.payload.to_vec());
                assert_eq!(again, None, "once");
            }
            found.damaged.extend(batch.damaged.iter().map(|&seq| (queue, seq)));
            if batch.end {
                break;
            }
            from = batch.next;
        }
    }
    let next = queues.iter().find(|queue| queue.id == 9).map_or(1, |queue| queue.next_seq);
    wait(&store, put(&store, 9, next, 10));
    assert!(!read(&store, 9, 0, 10, 1000).messages.is_empty());
    found
}

/// Where the bytes of every live message are: in which file, and where in it. Some are in several places.
fn places(image: &Image) -> BTreeMap<Message, Vec<(PathBuf, Range<usize>)>> {
    let mut places: BTreeMap<Message, Vec<_>> = BTreeMap::new();
    for file in image.files("log").into_iter().chain(image.files("large")) {
        let bytes = fs::read(image.dir.path().join(&file)).expect("the file can be read");
        for &message in image.live.keys() {
            let wanted = image.bytes_of(message);
            let finder = wanted.get(..wanted.len().min(60)).expect("a beginning");
            let mut from = 0;
            while let Some(at) = bytes[from..].windows(finder.len()).position(|window| window == finder) {
                let at = from + at;
                from = at + finder.len();
                if bytes[at..].starts_with(&wanted) {
                    places.entry(message).or_default().push((file.clone(), at..at + wanted.len()));
                }
            }
        }
    }
    places
}

/// Where the group begins and ends that holds a place of a segment.
fn group_of(begins: &[usize], place: &Range<usize>) -> Range<usize> {
    let begin = begins.iter().copied().take_while(|&begin| begin <= place.start).last().unwrap_or_default();
    let end = begins.iter().copied().find(|&begin| begin > place.start).unwrap_or(usize::MAX);
    begin..end.max(place.end)
}

fn meet(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// One image with all that the cases need to know of it.
struct Subject {
    image: Image,
    places: BTreeMap<Message, Vec<(PathBuf, Range<usize>)>>,
    /// The segments with the places where their groups begin.
    segments: BTreeMap<PathBuf, Vec<usize>>,
}

impl Subject {
    fn new(kind: Kind) -> Self {
        let image = Image::new(kind);
        let is_segment = |file: &PathBuf| file.to_string_lossy().trim_start_matches("log/0").len() == 19;
        let segments = image.files("log").into_iter().filter(is_segment);
        let segments = segments.map(|file| (file.clone(), groups(&image.dir.path().join(&file)))).collect();
        Self { places: places(&image), segments, image }
    }

    /// What can be done to the files of this image.
    fn cases(&self) -> Vec<(PathBuf, Harm)> {
        let mut cases = Vec::new();
        for (file, begins) in &self.segments {
            cases.extend([(file.clone(), Harm::Deleted), (file.clone(), Harm::Cut(1))]);
            let places = self.places.values().flatten().filter(|(at, _)| at == file);
            for (_, place) in places {
                cases.push((file.clone(), Harm::Flip(place.start + (place.len() / 2))));
                cases.push((file.clone(), Harm::Flip(place.start.saturating_sub(30))));
                cases.push((file.clone(), Harm::Cut(place.end - 1)));
            }
            for &at in begins {
                let harms = [Harm::Cut(at), Harm::Cut(at + 40), Harm::Cut(at + 72), Harm::Cut(at + 4096)];
                let more = [Harm::ZeroPage(at), Harm::Flip(at + 3), Harm::Flip(at + 25), Harm::Flip(at + 57)];
                cases.extend(harms.into_iter().chain(more).map(|harm| (file.clone(), harm)));
            }
            let len = begins.last().map_or(0, |last| last + 4096);
            cases.extend((0..len).step_by(4096).map(|at| (file.clone(), Harm::ZeroPage(at))));
        }
        let log = self.image.files("log").into_iter().filter(|file| !self.segments.contains_key(file));
        let whole = ["", "sled", "large"].into_iter().flat_map(|dir| self.image.files(dir));
        for file in log.chain(whole) {
            let len = fs::metadata(self.image.dir.path().join(&file)).expect("it is there").len() as usize;
            cases.push((file.clone(), Harm::Deleted));
            for part in 0..8 {
                let at = len * part / 8;
                if at < len {
                    cases.push((file.clone(), Harm::Cut(at)));
                    cases.push((file.clone(), Harm::Cut(at / 4096 * 4096)));
                    cases.push((file.clone(), Harm::ZeroPage(at / 4096 * 4096)));
                    cases.push((file.clone(), Harm::Flip(at)));
                }
            }
        }
        let names: BTreeSet<PathBuf> = cases.iter().map(|(file, _)| file.clone()).collect();
        let older = names.into_iter().filter(|file| self.image.older.path().join(file).exists());
        cases.extend(older.map(|file| (file, Harm::OlderCopy)));
        cases
    }

    fn check(&self, file: &Path, harm: Harm) {
        let image = &self.image;
        let what = format!("{:?}, {}, {harm:?}", image.kind, file.display());
        let copy = image.copy();
        let harmed = harm.apply(image, copy.path(), file);
        let bytes = fs::read(copy.path().join(file)).ok();
        let found = find(copy.path());
        let lines = &found.lines;
        let begins = self.segments.get(file);
        // What came last before a kill can't be told from what was never written.
        let tail = image.kind != Kind::Closed
            && self.segments.last_key_value().is_some_and(|(last, _)| last == file)
            && begins.is_some_and(|begins| {
                let cut = !matches!(harm, Harm::Flip(_) | Harm::ZeroPage(_));
                cut || begins.last().is_some_and(|&last| harmed.end > last)
            });
        let mut evidence = false;
        for (&message, &len) in &image.live {
            // A large file is all one message.
            let hit = self.places[&message]
                .iter()
                .any(|(at, place)| at == file && begins.is_none_or(|begins| meet(&group_of(begins, place), &harmed)));
            match found.messages.get(&message) {
                Some(payload) => assert_eq!(*payload, body(message.0, message.1, len), "{what}"),
                None if found.damaged.contains(&message) => {
                    assert!(hit, "{what}: {message:?} is called damaged, {lines:?}");
                    evidence = true;
                }
                None => {
                    // The entry that names a large file may be what is lost: then the file is kept, and named.
                    let entry = self.places[&message].iter().any(|(at, _)| {
                        let at = at.to_string_lossy();
                        let named = lines.iter().any(|line| line.contains(&*at) && line.contains("quarantine"));
                        begins.is_some() && at.starts_with("large") && (tail || named)
                    });
                    assert!(hit || entry, "{what}: {message:?} is intact and lost, {lines:?}");
                    assert!(tail || !lines.is_empty(), "{what}: {message:?} is lost, and nobody says so");
                    evidence |= !tail;
                }
            }
        }
        // One damaged entry costs no other.
        if let (Harm::Flip(_), false) = (harm, tail) {
            let within = |place: &Range<usize>| meet(place, &harmed);
            let inside = self.places.values().flatten().any(|(at, place)| at == file && within(place));
            let lost = image.live.keys().filter(|message| !found.messages.contains_key(message)).count();
            assert!(!inside || lost <= 1, "{what}: {lost} are lost, {lines:?}");
        }
        for message in found.messages.keys().filter(|message| !image.live.contains_key(message)) {
            assert!(image.gone.contains(message), "{what}: {message:?} never was");
            assert!(begins.is_some() && (tail || !lines.is_empty()), "{what}: {message:?} is back, {lines:?}");
        }
        if evidence && let Some(bytes) = bytes {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            let kept = fs::read(copy.path().join("quarantine").join(format!("{name}.1")));
            let kept = kept.unwrap_or_else(|error| panic!("{what}: no evidence, {error}: {lines:?}"));
            let same = kept.len().min(bytes.len());
            assert!(kept[..same] == bytes[..same] && same > 0 || bytes.is_empty(), "{what}: other evidence");
        }
        // A second start finds the same.
        let again = find(copy.path());
        assert_eq!(again.messages, found.messages, "{what}: the next start differs, {:?}", again.lines);
    }
}

fn matrix(kind: Kind) {
    let subject = Subject::new(kind);
    let cases = subject.cases();
    each_seed(250, |seed| {
        // All over the list, and every case once when there are enough seeds.
        let at = usize::try_from(seed).expect("a small number").wrapping_mul(7919) % cases.len();
        let (file, harm) = &cases[at];
        subject.check(file, *harm);
    });
}

#[test]
fn damage_when_the_log_is_all_there_is() {
    matrix(Kind::LogOnly);
}

#[test]
fn damage_after_a_kill() {
    matrix(Kind::Killed);
}

#[test]
fn damage_after_a_clean_stop() {
    matrix(Kind::Closed);
}

/// sled's checkpoint is ahead of an older copy of the segment it was made of, which is found out before anything is read.
#[test]
fn a_segment_without_the_group_of_the_checkpoint_is_named_by_the_start() {
    let image = Image::new(Kind::Closed);
    let copy = image.copy();
    let segment = image.files("log").into_iter().rfind(|file| !groups(&copy.path().join(file)).is_empty());
    let path = copy.path().join(segment.expect("a segment"));
    let len = fs::metadata(&path).expect("it is there").len() as usize;
    fs::write(&path, vec![0; len]).expect("it can be written");
    let found = find(copy.path());
    assert!(found.lines.iter().any(|line| line.contains("an older copy")), "{:?}", found.lines);
}

//! Every kind of file damaged in every way: the directory opens, what is intact is there once and in order, and what is lost
//! is named.

mod bad_sectors;
mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::fs::{Fs, RealFs};
use storage::{OpenError, Seq, Store};

use crate::common::{body, each_seed, put, read, wait};
use crate::crash::groups;
use bad_sectors::BadSectors;
use image::{Image, Kind, Message, quiet};

/// What is done to one file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut(usize),
    ZeroPage(usize),
    Flip(usize),
    /// The page stays, and the disk does not give it out any more.
    UnreadablePage(usize),
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
            Self::UnreadablePage(at) => return at..whole.min(at + 4096),
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
fn find(dir: &Path, disk: Arc<dyn Fs>) -> Found {
    let mut options = quiet(dir);
    options.fs = disk;
    let (store, recovered) = Store::open(options).expect("damage never refuses a directory");
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

/// The segments, but no free files, with the places where their groups begin; what a file has from an earlier life is none.
fn segments(image: &Image) -> BTreeMap<PathBuf, Vec<usize>> {
    let is_segment = |file: &PathBuf| file.to_string_lossy().trim_start_matches("log/0").len() == 19;
    let files = image.files("log").into_iter().filter(is_segment);
    let own_groups = |file: PathBuf| {
        let path = image.dir.path().join(&file);
        let bytes = fs::read(&path).expect("it can be read");
        let id = u64::from_str_radix(&path.file_stem().expect("a name").to_string_lossy(), 16).expect("an id");
        let mut begins = groups(&path);
        begins.retain(|at| bytes[at + 16..at + 24] == id.to_le_bytes());
        (file, begins)
    };
    files.map(own_groups).collect()
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
        Self { places: places(&image), segments: segments(&image), image }
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
                let more = [
                    Harm::ZeroPage(at),
                    Harm::UnreadablePage(at),
                    Harm::Flip(at + 3),
                    Harm::Flip(at + 25),
                    Harm::Flip(at + 57),
                ];
                cases.extend(harms.into_iter().chain(more).map(|harm| (file.clone(), harm)));
            }
            let len = begins.last().map_or(0, |last| last + 4096);
            let pages = (0..len).step_by(4096);
            cases.extend(
                pages.flat_map(|at| [Harm::ZeroPage(at), Harm::UnreadablePage(at)].map(|harm| (file.clone(), harm))),
            );
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
                    cases.push((file.clone(), Harm::UnreadablePage(at / 4096 * 4096)));
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
        let disk: Arc<dyn Fs> = match harm {
            Harm::UnreadablePage(at) => {
                // What moved out of a segment, or was in it in an earlier life, may be written over.
                let used = self.places.values().any(|places| places.iter().all(|(place, _)| place == file));
                BadSectors::new(&copy.path().join(file), at as u64..at as u64 + 4096, used)
            }
            _ => Arc::new(RealFs),
        };
        let found = find(copy.path(), Arc::clone(&disk));
        let lines = &found.lines;
        let begins = self.segments.get(file);
        // What came last before a kill can't be told from what was never written.
        let tail = image.kind != Kind::Closed
            && !matches!(harm, Harm::UnreadablePage(_))
            && self.segments.iter().rfind(|(_, begins)| !begins.is_empty()).is_some_and(|(last, _)| last == file)
            && begins.is_some_and(|begins| {
                let cut = !matches!(harm, Harm::Flip(_) | Harm::ZeroPage(_));
                cut || begins.last().is_some_and(|&last| harmed.end > last)
            });
        let mut evidence = false;
        // A second start finds the same. Before the disk is well again: then the bad page could be moved elsewhere.
        let again = find(copy.path(), disk);
        assert_eq!(again.messages, found.messages, "{what}: the next start differs, {:?}", again.lines);
        let healed = matches!(harm, Harm::UnreadablePage(_)).then(|| find(copy.path(), Arc::new(RealFs)));
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
                // The store has it, and the disk may give it out another time.
                None if healed.as_ref().is_some_and(|healed| healed.messages.contains_key(&message)) => {
                    assert!(hit, "{what}")
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
    // All of them: the checkpoint may be at the end of one, and its mark the first group of the next.
    for (file, _) in segments(&image) {
        let path = copy.path().join(file);
        let len = fs::metadata(&path).expect("it is there").len() as usize;
        fs::write(&path, vec![0; len]).expect("it can be written");
    }
    let found = find(copy.path(), Arc::new(RealFs));
    assert!(found.lines.iter().any(|line| line.contains("an older copy")), "{:?}", found.lines);
}

/// Half of the log is gone, and all else that says what there was: the holes are named too.
#[test]
fn a_rebuild_from_the_log_alone_names_what_is_between_its_segments() {
    let image = Image::new(Kind::Killed);
    let copy = image.copy();
    fs::remove_dir_all(copy.path().join("sled")).expect("it was there");
    fs::remove_file(copy.path().join("snapshot")).expect("it was there");
    let segments = segments(&image);
    let written: Vec<_> = segments.iter().filter(|(_, begins)| !begins.is_empty()).map(|(file, _)| file).collect();
    let [.., cut, _, _] = written[..] else { panic!("{written:?}") };
    let file = fs::OpenOptions::new().write(true).open(copy.path().join(cut)).expect("it opens");
    file.set_len(4096).expect("it can be cut");
    let found = find(copy.path(), Arc::new(RealFs));
    assert!(found.lines.iter().any(|line| line.contains("are in no segment")), "{:?}", found.lines);
}

/// With the one copy of the key that can be read there is all that is needed; with none there may be another day.
#[test]
fn a_disk_that_reads_no_key_is_an_error_and_touches_nothing() {
    let image = Image::new(Kind::LogOnly);
    let copy = image.copy();
    fs::remove_file(copy.path().join("log/key")).expect("it was there");
    let mut options = quiet(copy.path());
    options.fs = BadSectors::new(&copy.path().join("key"), 0..4096, true);
    let Err(OpenError::Io { path, source, .. }) = Store::open(options) else { panic!("it opens") };
    assert_eq!((path, source.raw_os_error()), (copy.path().join("key"), Some(5)));
    assert!(segments(&image).keys().all(|file| copy.path().join(file).exists()));
    let found = find(copy.path(), Arc::new(RealFs));
    assert_eq!(found.messages.len(), image.live.len(), "{:?}", found.lines);
}

/// What was lost is named with the queue it was in, as far as anybody can know.
#[test]
fn the_queues_of_lost_messages_are_named() {
    let image = Image::new(Kind::Closed);
    for large in [false, true] {
        let copy = image.copy();
        let subject = places(&image);
        let (&(queue, seq), at) =
            subject.iter().rfind(|(_, at)| at[0].0.starts_with("large") == large).expect("such a message");
        fs::remove_file(copy.path().join(&at[0].0)).expect("it was there");
        let (_, recovered) = Store::open(quiet(copy.path())).expect("it opens");
        let lost = recovered.lost.iter().find(|lost| lost.queue == queue);
        let lost = lost.unwrap_or_else(|| panic!("{queue}/{seq}: {:?}", recovered.lost));
        assert!(lost.messages > 0 && lost.why.ends_with("is missing"), "{lost:?}");
    }
    let image = Image::new(Kind::LogOnly);
    let copy = image.copy();
    let subject = places(&image);
    let (&(queue, seq), at) = subject.iter().find(|(_, at)| at[0].0.starts_with("log")).expect("a message in the log");
    let path = copy.path().join(&at[0].0);
    let mut bytes = fs::read(&path).expect("it can be read");
    bytes[at[0].1.start + 20] ^= 1;
    fs::write(&path, bytes).expect("it can be written");
    let (_, recovered) = Store::open(quiet(copy.path())).expect("it opens");
    let [lost] = &recovered.lost[..] else { panic!("{:?}", recovered.lost) };
    assert_eq!((lost.queue, lost.messages), (queue, 1));
    assert!(lost.why.ends_with(&format!("it was message {seq}")), "{lost:?}");
}

/// What of a segment is lost with all of it, and the others are as they were.
#[test]
fn a_segment_that_cannot_be_read_at_all_goes_to_quarantine() {
    let image = Image::new(Kind::LogOnly);
    let segments = segments(&image);
    for file in segments.iter().filter(|(_, begins)| !begins.is_empty()).map(|(file, _)| file) {
        let copy = image.copy();
        let found = find(copy.path(), BadSectors::new(&copy.path().join(file), 0..u64::MAX, true));
        assert!(found.lines.iter().any(|line| line.contains("cannot be read at all")), "{:?}", found.lines);
        let name = file.file_name().expect("a name").to_string_lossy();
        let kept = fs::read(copy.path().join("quarantine").join(format!("{name}.1"))).expect("it was kept");
        assert!(kept == fs::read(image.dir.path().join(file)).expect("it is there"));
        for (message, places) in places(&image) {
            let elsewhere = places.iter().all(|(at, _)| at.starts_with("log") && at != file);
            assert!(!elsewhere || found.messages.contains_key(&message), "{message:?}: {:?}", found.lines);
        }
    }
}

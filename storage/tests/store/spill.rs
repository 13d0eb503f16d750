//! Transient messages on disk: order, both ends of a file, what goes wrong, and that the space comes back.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use proptest::prelude::*;
use storage::fs::{Fs, OpenMode, RealFs};
use storage::{Meta, QueueId, ReadMessage, Seq, Spill, SpillBatch, SpillOptions};
use tempfile::TempDir;

use crate::common::{body, payload};
use crate::hooked::{Call, Hooked};

/// So small that a test meets every boundary.
const SMALL: SpillOptions =
    SpillOptions { file_bytes: 4_000, write_bytes: 1_000, waiting_bytes: 4_000, full_bytes: 20_000 };

fn open(dir: &TempDir) -> Spill {
    open_on(Arc::new(RealFs), dir)
}

fn open_on(fs: Arc<dyn Fs>, dir: &TempDir) -> Spill {
    Spill::open(fs, dir.path().join("spill"), SMALL).expect("a spill")
}

fn push(spill: &Spill, queue: QueueId, seq: Seq, len: usize) {
    spill.push(queue, seq, Meta::default(), false, payload(body(queue, seq, len)));
}

/// One take, waited for.
fn take(spill: &Spill, queue: QueueId, messages: usize, bytes: usize) -> SpillBatch {
    let (sender, receiver) = mpsc::channel();
    spill.take(queue, messages, bytes, Box::new(move |batch| drop(sender.send(batch))));
    receiver.recv().expect("the take is answered")
}

/// Takes everything, and checks that `next` is true on the way.
fn take_all(spill: &Spill, queue: QueueId) -> Vec<ReadMessage> {
    let mut all: Vec<ReadMessage> = Vec::new();
    let mut from = 0;
    loop {
        let batch = take(spill, queue, 7, 700);
        assert_eq!(batch.lost, 0);
        assert!(batch.messages.iter().all(|message| message.seq >= from), "nothing lies below `next`");
        all.extend(batch.messages);
        match batch.next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

fn seqs(messages: &[ReadMessage]) -> Vec<Seq> {
    messages.iter().map(|message| message.seq).collect()
}

/// Waits until everything that was asked for before is done.
fn barrier(spill: &Spill) {
    let nothing = take(spill, QueueId::MAX, 1, 1);
    assert!(nothing.messages.is_empty() && nothing.next.is_none());
}

fn files(dir: &TempDir) -> usize {
    std::fs::read_dir(dir.path().join("spill")).map_or(0, Iterator::count)
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

#[test]
fn messages_come_back_in_order_with_everything_they_had() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    let meta = |seq: Seq| Meta {
        deadline_ms: seq.is_multiple_of(3).then_some(seq + 1),
        priority: seq as u8,
        delivery_count: seq as u32 * 7,
    };
    for seq in 0..200 {
        spill.push(5, seq, meta(seq), seq % 2 == 0, payload(body(5, seq, 100)));
        if seq % 10 == 0 {
            barrier(&spill);
        }
    }
    barrier(&spill);
    assert!(spill.stats().files > 3 && spill.stats().waiting_bytes < 2 * SMALL.write_bytes);
    let messages = take_all(&spill, 5);
    assert_eq!(seqs(&messages), (0..200).collect::<Vec<_>>());
    for message in messages {
        assert_eq!(message.payload, body(5, message.seq, 100));
        assert_eq!((message.meta, message.redelivered), (meta(message.seq), message.seq % 2 == 0));
    }
    barrier(&spill);
    assert_eq!((spill.stats(), files(&dir)), (Default::default(), 0), "nothing is left");
}

#[test]
fn little_is_never_written() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    push(&spill, 1, 10, 50);
    push(&spill, 1, 11, 50);
    barrier(&spill);
    assert_eq!(files(&dir), 0);
    let batch = take(&spill, 1, 1, 1_000);
    assert_eq!((seqs(&batch.messages), batch.next), (vec![10], Some(11)));
    let batch = take(&spill, 1, 1, 1_000);
    assert_eq!((seqs(&batch.messages), batch.next), (vec![11], None));
}

#[test]
fn little_of_many_queues_is_written_when_it_is_much_together() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    for queue in 0..100 {
        push(&spill, queue, 1, 100);
        push(&spill, queue, 2, 100);
    }
    barrier(&spill);
    assert!(spill.stats().waiting_bytes <= SMALL.waiting_bytes + 200, "{:?}", spill.stats());
    assert!(spill.stats().files > 50);
    for queue in 0..100 {
        assert_eq!(seqs(&take_all(&spill, queue)), [1, 2]);
    }
}

#[test]
fn a_batch_has_at_least_one_message_however_large() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    for (seq, len) in [(1, 20), (2, 3_000_000), (3, 20), (4, 50_000)] {
        push(&spill, 9, seq, len);
    }
    barrier(&spill);
    for (seq, len) in [(1, 20), (2, 3_000_000), (3, 20), (4, 50_000)] {
        let batch = take(&spill, 9, 1, 1);
        assert_eq!(seqs(&batch.messages), [seq]);
        assert_eq!(batch.messages[0].payload, body(9, seq, len));
    }
}

#[test]
fn a_purge_drops_what_is_written_and_what_waits() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    for seq in 0..105 {
        push(&spill, 1, seq, 100);
        push(&spill, 2, seq, 100);
    }
    spill.forget(1);
    push(&spill, 1, 200, 100);
    assert_eq!(seqs(&take_all(&spill, 1)), [200]);
    assert_eq!(seqs(&take_all(&spill, 2)), (0..105).collect::<Vec<_>>());
    barrier(&spill);
    assert_eq!((spill.stats(), files(&dir)), (Default::default(), 0));
}

#[test]
fn what_is_left_over_is_removed_at_start_and_at_the_end() {
    let dir = TempDir::new().expect("a directory");
    let left = dir.path().join("spill/0000000000000001-1.spill");
    std::fs::create_dir(dir.path().join("spill")).expect("a directory");
    std::fs::write(&left, b"something").expect("a file");
    let spill = open(&dir);
    assert!(!left.exists());
    for seq in 0..100 {
        push(&spill, 1, seq, 100);
    }
    barrier(&spill);
    assert!(files(&dir) > 0);
    drop(spill);
    assert_eq!(files(&dir), 0);
}

#[test]
fn on_a_full_disk_messages_stay_in_memory_and_keep_their_order() {
    let dir = TempDir::new().expect("a directory");
    let no_space = Arc::new(AtomicBool::new(false));
    let (failed, failures) = mpsc::channel();
    let hook = {
        let no_space = Arc::clone(&no_space);
        move |call: Call, path: &Path| {
            if call == Call::Write && no_space.load(Ordering::SeqCst) {
                // A part gets there all the same.
                let mut torn = std::fs::OpenOptions::new().append(true).open(path)?;
                io::Write::write_all(&mut torn, b"half of it")?;
                let _ = failed.send(());
                return Err(full());
            }
            Ok(())
        }
    };
    let spill = open_on(Hooked::new(hook), &dir);
    for seq in 0..30 {
        push(&spill, 1, seq, 100);
    }
    barrier(&spill);
    no_space.store(true, Ordering::SeqCst);
    for seq in 30..100 {
        push(&spill, 1, seq, 100);
        push(&spill, 2, seq, 100);
    }
    failures.recv().expect("a write fails");
    assert!(spill.stats().waiting_bytes > 130 * 100, "nothing that was not written is forgotten");
    let first = take(&spill, 1, 10, 10_000);
    assert_eq!(seqs(&first.messages), (0..10).collect::<Vec<_>>(), "reading goes on");
    no_space.store(false, Ordering::SeqCst);
    assert_eq!(seqs(&take_all(&spill, 1)), (10..100).collect::<Vec<_>>());
    assert_eq!(seqs(&take_all(&spill, 2)), (30..100).collect::<Vec<_>>());
}

#[test]
fn writing_goes_on_by_itself_when_there_is_space_again() {
    let dir = TempDir::new().expect("a directory");
    let (wrote, writes) = mpsc::channel();
    let attempts = std::sync::Mutex::new(0);
    let hook = move |call: Call, _: &Path| {
        if call == Call::Write {
            let mut attempts = attempts.lock().expect("no panic");
            *attempts += 1;
            let _ = wrote.send(*attempts);
            return if *attempts == 1 { Err(full()) } else { Ok(()) };
        }
        Ok(())
    };
    let spill = open_on(Hooked::new(hook), &dir);
    for seq in 0..20 {
        push(&spill, 1, seq, 100);
    }
    assert_eq!(writes.recv(), Ok(1));
    assert_eq!(writes.recv(), Ok(2), "it tries again, and nobody asked");
    assert_eq!(seqs(&take_all(&spill, 1)), (0..20).collect::<Vec<_>>());
}

#[test]
fn nothing_is_written_while_it_is_paused() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    spill.pause(true);
    for seq in 0..100 {
        push(&spill, 1, seq, 100);
    }
    barrier(&spill);
    assert_eq!(files(&dir), 0);
    assert_eq!(seqs(&take(&spill, 1, 5, 10_000).messages), [0, 1, 2, 3, 4]);
    spill.pause(false);
    while spill.stats().files == 0 {
        barrier(&spill);
    }
    assert_eq!(seqs(&take_all(&spill, 1)), (5..100).collect::<Vec<_>>());
}

#[test]
fn it_is_full_while_a_slow_disk_has_much_to_write() {
    let dir = TempDir::new().expect("a directory");
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let hook = move |call: Call, _: &Path| {
        if call == Call::Write {
            // Once the other end is gone the disk is fast.
            let _ = gate.lock().expect("no panic").recv();
        }
        Ok(())
    };
    let spill = open_on(Hooked::new(hook), &dir);
    let (told, tells) = mpsc::channel();
    let when_it_has_room = |name: &'static str| {
        let told = told.clone();
        spill.when_it_has_room(Box::new(move || told.send(name).expect("somebody listens")));
    };
    let mut seq = 0;
    while spill.stats().waiting_bytes < SMALL.full_bytes {
        assert!(!spill.is_full());
        when_it_has_room("at once");
        assert_eq!(tells.try_recv(), Ok("at once"));
        push(&spill, 1, seq, 100);
        seq += 1;
    }
    assert!(spill.is_full());
    when_it_has_room("later");
    assert!(tells.try_recv().is_err());
    drop(go_on);
    assert_eq!(tells.recv(), Ok("later"));
    assert!(!spill.is_full());
    assert_eq!(seqs(&take_all(&spill, 1)), (0..seq).collect::<Vec<_>>());
}

#[test]
fn what_is_not_on_its_way_to_disk_does_not_make_it_full() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    spill.pause(true);
    push(&spill, 1, 0, 2_000);
    // Behind this the thread has nothing to do, and may fall asleep.
    barrier(&spill);
    let (told, tells) = mpsc::channel();
    spill.when_it_has_room(Box::new(move || told.send(()).expect("somebody listens")));
    tells.recv().expect("there is room");
    while spill.stats().waiting_bytes < 2 * SMALL.full_bytes {
        push(&spill, 1, 1, 100);
        let (told, tells) = mpsc::channel();
        spill.when_it_has_room(Box::new(move || told.send(()).expect("somebody listens")));
        tells.recv().expect("it ends by itself");
    }
    spill.close();
    assert!(!spill.is_full());
}

#[test]
fn damage_loses_what_is_left_of_one_file_and_says_how_much() {
    for damage in ["cut", "flipped", "gone", "unreadable"] {
        let dir = TempDir::new().expect("a directory");
        let unreadable = Arc::new(AtomicBool::new(false));
        let hook = {
            let unreadable = Arc::clone(&unreadable);
            move |call: Call, _: &Path| match call {
                Call::Read if unreadable.swap(false, Ordering::SeqCst) => Err(io::Error::from_raw_os_error(5)),
                _ => Ok(()),
            }
        };
        let spill = open_on(Hooked::new(hook), &dir);
        for seq in 0..100 {
            push(&spill, 1, seq, 100);
            if seq % 10 == 9 {
                barrier(&spill);
            }
        }
        let mut seen = seqs(&take(&spill, 1, 4, 10_000).messages);
        let mut names: Vec<_> = std::fs::read_dir(dir.path().join("spill"))
            .expect("files")
            .map(|entry| entry.expect("a file").path())
            .collect();
        names.sort();
        let first = names.first().expect("a file");
        match damage {
            "cut" => {
                let file = RealFs.open(first, OpenMode::Write).expect("it opens");
                file.set_len(7 * 132 + 5).expect("it can be cut");
            }
            "flipped" => {
                let file = RealFs.open(first, OpenMode::Write).expect("it opens");
                file.write_all_at(b"\xff", 7 * 132 + 60).expect("it can be written");
            }
            // The thread closes what it has open when it has nothing to do, and may not have come to that.
            "gone" => {
                std::fs::remove_file(first).expect("it goes");
                push(&spill, 2, 1, 2_000);
                barrier(&spill);
            }
            _ => unreadable.store(true, Ordering::SeqCst),
        }
        let mut lost = 0;
        loop {
            let batch = take(&spill, 1, 1_000, 1 << 20);
            seen.extend(seqs(&batch.messages));
            lost += batch.lost;
            if batch.next.is_none() {
                break;
            }
        }
        let last = seen.last().copied();
        assert_eq!(last, Some(99), "{damage}: other files are as good as before");
        assert_eq!(seen.len() as u64 + lost, 100, "{damage}");
        assert!(lost > 0 && lost <= 40, "{damage}: {lost} lost");
        assert!(seen.is_sorted(), "{damage}");
        if damage == "cut" || damage == "flipped" {
            assert_eq!(seen[..8], [0, 1, 2, 3, 4, 5, 6, seen[7]], "{damage}: what is intact comes back");
        }
    }
}

#[test]
fn a_read_that_lacks_a_file_descriptor_is_tried_again() {
    let dir = TempDir::new().expect("a directory");
    let short = Arc::new(AtomicBool::new(false));
    let hook = {
        let short = Arc::clone(&short);
        move |call: Call, _: &Path| match call {
            Call::Open(OpenMode::Write) if short.swap(false, Ordering::SeqCst) => Err(io::Error::from_raw_os_error(24)),
            _ => Ok(()),
        }
    };
    let spill = open_on(Hooked::new(hook), &dir);
    for seq in 0..100 {
        push(&spill, 1, seq, 100);
    }
    barrier(&spill);
    short.store(true, Ordering::SeqCst);
    assert_eq!(seqs(&take_all(&spill, 1)), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_take_of_a_closed_spill_is_dropped() {
    let dir = TempDir::new().expect("a directory");
    let spill = open(&dir);
    spill.close();
    let (sender, receiver) = mpsc::channel::<SpillBatch>();
    push(&spill, 1, 1, 100);
    spill.take(1, 1, 1, Box::new(move |batch| drop(sender.send(batch))));
    assert!(receiver.recv().is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Push { queue: QueueId, count: u64, len: usize },
    Take { queue: QueueId, messages: usize, bytes: usize },
    Forget { queue: QueueId },
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 0..3_u64;
    prop_oneof![
        4 => (queue.clone(), 1..20_u64, 1..600_usize).prop_map(|(queue, count, len)| Step::Push { queue, count, len }),
        4 => (queue.clone(), 1..30_usize, 1..5_000_usize)
            .prop_map(|(queue, messages, bytes)| Step::Take { queue, messages, bytes }),
        1 => queue.prop_map(|queue| Step::Forget { queue }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn it_behaves_like_queues_in_memory(steps in prop::collection::vec(step(), 1..80)) {
        let dir = TempDir::new().expect("a directory");
        let spill = open(&dir);
        let mut model: Vec<VecDeque<(Seq, usize)>> = vec![VecDeque::new(); 3];
        let mut next = 0;
        for step in steps {
            match step {
                Step::Push { queue, count, len } => {
                    for _ in 0..count {
                        next += 1;
                        push(&spill, queue, next, len);
                        model[queue as usize].push_back((next, len));
                    }
                }
                Step::Take { queue, messages, bytes } => {
                    let batch = take(&spill, queue, messages, bytes);
                    let known = &mut model[queue as usize];
                    prop_assert_eq!(batch.messages.is_empty(), known.is_empty());
                    prop_assert!(batch.messages.len() <= messages);
                    for message in batch.messages {
                        let (seq, len) = known.pop_front().expect("it was pushed");
                        prop_assert_eq!(message.seq, seq);
                        prop_assert_eq!(message.payload, body(queue, seq, len));
                    }
                    match (batch.next, known.front()) {
                        (Some(at), Some((seq, _))) => prop_assert!(at <= *seq),
                        (at, front) => prop_assert!(at.is_none() && front.is_none()),
                    }
                }
                Step::Forget { queue } => {
                    spill.forget(queue);
                    model[queue as usize].clear();
                }
            }
        }
        for (queue, known) in model.iter().enumerate() {
            let known: Vec<Seq> = known.iter().map(|(seq, _)| *seq).collect();
            prop_assert_eq!(seqs(&take_all(&spill, queue as QueueId)), known);
        }
        barrier(&spill);
        prop_assert_eq!((spill.stats(), files(&dir)), (Default::default(), 0));
    }
}

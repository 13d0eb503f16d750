//! Backups under the same load, each restored and compared; then the killed broker itself.

use crate::{Load, SMALL, open, promise_that_it_is_drained, topology};
use integration_tests::DEADLINE;
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::{Finished, Launch};
use integration_tests::raw::Raw;
use integration_tests::wire::PERSISTENT;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

const BACKUPS: usize = 4;
/// Confirms between two backups.
const CONFIRMS: u64 = 2500;
/// The pool, and what a broker with nothing to do has beside it.
const FILES_MAX: usize = 14;

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_warren-under-test"))
}

#[test]
fn backups_of_a_busy_broker_are_whole() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it makes backups of Warren");
        return;
    }
    let broker = launch().config(SMALL).start();
    let data = broker.launch().home().join("data");
    let copies = tempfile::tempdir().expect("a directory");
    topology::declare(&mut open(broker.address()));
    let mut load = Load::start(&broker, 1);
    let mut backups = Vec::new();
    for number in 0..BACKUPS {
        load.wait(CONFIRMS);
        let copy = copies.path().join(number.to_string());
        let begun = load.clock.tick();
        let Finished { status, stdout, stderr } = backup(&data, &copy);
        let finished = load.clock.tick();
        assert!(status.success(), "{stderr}");
        print!("{stdout}");
        backups.push((copy, begun, finished));
    }
    load.wait(CONFIRMS);
    let (killed, mut ledger) = load.kill(broker);

    for (copy, begun, finished) in backups {
        let restored = launch().config(SMALL).data_dir(Some(&copy)).start();
        let mut ledger = ledger.of_backup(begun, finished);
        ledger.drain(&mut open(restored.address()));
        println!("{}: {}", copy.display(), ledger.compare());
        let stopped = restored.terminate();
        assert!(stopped.status.success(), "{}", stopped.stderr);
        assert!(!stopped.stderr.contains("ERROR"), "nothing is damaged: {}", stopped.stderr);
    }

    let broker = killed.start();
    let mut raw = open(broker.address());
    ledger.drain(&mut raw);
    println!("the broker itself: {}", ledger.compare());
    promise_that_it_is_drained(&mut raw, 1);
    space_comes_back(&mut raw, &data.join("log"));
}

fn backup(data: &Path, copy: &Path) -> Finished {
    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let command = launch().listen(None).data_dir(None).flag("backup").flag(path(copy));
    command.flag("--data-dir").flag(path(data)).run()
}

/// Nothing that a backup shares stays in the log once it is not needed any more, and nothing shared is in the pool.
fn space_comes_back(raw: &mut Raw, log: &Path) {
    let started = Instant::now();
    let files = || {
        let entries = std::fs::read_dir(log).expect("the log");
        let links = entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.nlink());
        links.fold((0, 0), |(count, shared), links| (count + 1, shared + usize::from(links > 1)))
    };
    while files().1 > 0 || files().0 > FILES_MAX {
        // A little traffic, so that there is something to do for checkpoints.
        raw.publish(1, ("", topology::QUEUES[1]), 0, PERSISTENT, &[b'.'; 100_000]);
        raw.expect(1, id::BASIC_ACK);
        assert!(raw.get(1, topology::QUEUES[1], true).is_some());
        assert!(started.elapsed() < DEADLINE, "{:?} files and shared ones in the log", files());
    }
}

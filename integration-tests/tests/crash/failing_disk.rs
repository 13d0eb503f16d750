//! A disk whose fdatasync fails: the broker says so and stops, and what it had confirmed is there.
//!
//! A small library loaded before the C library makes the call fail as soon as a file appears.

use crate::open;
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::Launch;
use integration_tests::wire::{PERSISTENT, Reader};
use std::path::{Path, PathBuf};
use std::process::Command;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    const char *flag = getenv("FAILING_DISK");
    if (flag && access(flag, F_OK) == 0) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}
"#;
const QUEUE: &str = "promised";
const CONFIRMED: u64 = 100;

/// Built with the compiler that has built the broker's allocator.
fn shim(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
    std::fs::write(&source, SHIM).expect("it can be written");
    let compiler = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(compiler.expect("there is a C compiler").success());
    library
}

#[test]
fn a_failed_fdatasync_stops_the_broker_and_takes_nothing_back() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it breaks the broker's disk");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let flag = directory.path().join("fails");
    let whole = Launch::new(env!("CARGO_BIN_EXE_warren-under-test"));
    let library = shim(directory.path());
    let broken =
        whole.clone().env("LD_PRELOAD", &library.to_string_lossy()).env("FAILING_DISK", &flag.to_string_lossy());
    let broker = broken.start();
    let mut raw = open(broker.address());
    raw.declare(1, QUEUE, 2);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    (1..=CONFIRMED).for_each(|number| raw.publish(1, ("", QUEUE), 0, PERSISTENT, number.to_string().as_bytes()));
    while Reader::new(&raw.expect(1, id::BASIC_ACK)).longlong() < CONFIRMED {}
    std::fs::write(&flag, "").expect("it can be written");
    raw.publish(1, ("", QUEUE), 0, PERSISTENT, b"never confirmed");
    while let Some(frame) = raw.any_frame() {
        assert_ne!(frame.id(), Some(id::BASIC_ACK), "it was confirmed");
    }
    let finished = broker.wait();
    assert!(!finished.status.success());
    let said = "the store has failed, nothing more can be made durable: syncing segment";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);

    let broker = whole.start();
    let mut raw = open(broker.address());
    for number in 1..=CONFIRMED {
        assert_eq!(raw.get(1, QUEUE, true).expect("a message that was confirmed").text(), number.to_string());
    }
}

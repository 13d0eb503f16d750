//! A broker that runs out of file descriptors refuses connections, keeps those it has, and recovers by itself.

use crate::support::*;
use integration_tests::DEADLINE;
use integration_tests::id;
use integration_tests::process::Broker;
use integration_tests::raw::{PROTOCOL_HEADER, Raw};
use integration_tests::wire::PERSISTENT;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::time::Instant;

/// Enough for some dozens of connections.
const LIMIT: u64 = 120;

fn lower_limit(broker: &Broker) {
    let pid = Pid::from_raw(i32::try_from(broker.id()).expect("a process id"));
    let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) });
    before.expect("the limit of a child can be lowered");
}

/// A new connection if the broker takes it.
fn try_connect(broker: &Broker) -> Option<Raw> {
    let mut raw = Raw::connect(broker.address());
    // Nothing comes of it when the broker has closed already.
    raw.try_send(PROTOCOL_HEADER);
    raw.next_frame().map(|_| raw)
}

#[test]
fn connections_are_refused_before_descriptors_run_out() {
    if peer_is_set("it changes the limits of a process") {
        return;
    }
    // Small segments, so that the store opens files all the time.
    let broker = launch().config("[storage]\nsegment_bytes = 65536\ncheckpoint_interval_ms = 50\n").start();
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.declare(1, "kept", 2);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let publish = |raw: &mut Raw, count| {
        for _ in 0..count {
            raw.publish(1, ("", "kept"), 0, PERSISTENT, &[b'x'; 20_000]);
            raw.expect(1, id::BASIC_ACK);
        }
    };
    lower_limit(&broker);
    for round in 0..2 {
        let mut taken = Vec::new();
        while let Some(connection) = try_connect(&broker) {
            taken.push(connection);
            assert!((taken.len() as u64) < LIMIT, "it takes more than it may have");
        }
        // In the second round some of the first may still be on their way out.
        assert!(round == 1 || taken.len() > 30, "only {}", taken.len());
        // Those that come now are refused as well, and what there is goes on.
        for _ in 0..20 {
            assert!(try_connect(&broker).is_none());
        }
        publish(&mut raw, 20);
        drop(taken);
        let started = Instant::now();
        while try_connect(&broker).is_none() {
            assert!(started.elapsed() < DEADLINE, "it does not recover");
        }
    }
    assert_eq!(raw.declare(1, "kept", 2).1, 40);
    let finished = broker.terminate();
    assert!(finished.status.success());
    let times = |text| finished.stderr.matches(text).count();
    let said = times("file descriptors run out: new connections are refused");
    assert!((2..10).contains(&said), "once for each time, not for each client: {}", finished.stderr);
    assert_eq!(times("there are enough file descriptors again"), said, "{}", finished.stderr);
}

#[test]
fn the_start_says_how_many_files_may_be_open() {
    if peer_is_set("it reads the log of a process") {
        return;
    }
    let finished = launch().start().terminate();
    assert!(finished.stderr.contains("file descriptors: limit "), "{}", finished.stderr);
}

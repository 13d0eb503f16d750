//! What `config/examples/dead-letter.toml` promises: the way of a message that fails again and again.

use crate::deaths::*;
use crate::support::*;
use integration_tests::server::Server;
use lapin::options::{BasicConsumeOptions, BasicRejectOptions};
use std::path::Path;

const FAILURES: i64 = 3;
const PARKED_MAX: usize = 1000;

/// The broker of the example, unless a peer is set: the file is Warren's own.
fn with_example(test: impl AsyncFnOnce(&Server)) {
    if peer_is_set("it is about Warren's own configuration") {
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples/dead-letter.toml");
    let text = std::fs::read_to_string(file).expect("the example");
    let server = Server::own(launch().config(&text));
    block_on(test(&server));
}

#[test]
fn failed_work_comes_back_after_a_pause_until_it_is_parked() {
    with_example(async |server| {
        let channel = confirming(server).await;
        let mut worker = consume(&channel, "jobs", BasicConsumeOptions::default()).await;
        send_with(&channel, "", "jobs", "doomed", persistent()).await;
        send_with(&channel, "", "jobs", "fine", persistent()).await;

        let mut doomed = next(&mut worker).await;
        assert_eq!((body(&doomed).as_str(), doomed.properties.headers()), ("doomed", &None));
        let fine = next(&mut worker).await;
        assert_eq!(body(&fine), "fine");
        ack(&fine).await;
        for failures in 1..=FAILURES {
            assert!(doomed.reject(BasicRejectOptions { requeue: false }).await.expect("basic.reject"));
            doomed = next(&mut worker).await;
            assert_eq!(body(&doomed), "doomed");
            assert_eq!((doomed.exchange.as_str(), doomed.routing_key.as_str()), ("", "jobs"));
            assert_eq!(
                deaths(&doomed),
                [
                    death("jobs.waiting", "expired", failures, "jobs.failed", &["jobs"]),
                    death("jobs", "rejected", failures, "", &["jobs"]),
                ]
            );
            assert_first_and_last(&doomed, ["rejected", "jobs", ""], ["expired", "jobs.waiting", "jobs.failed"]);
        }

        let history = deaths(&doomed);
        send_with(&channel, "", "jobs.parked", "doomed", doomed.properties.clone()).await;
        ack(&doomed).await;
        let parked = got(&channel, "jobs.parked").await;
        assert_eq!(body(&parked), "doomed");
        assert_eq!(deaths(&parked), history, "parked with its history");
        assert_eq!(parked.properties.delivery_mode(), &Some(2));
        assert_no_delivery(&channel, &mut worker).await;
        for queue in ["jobs", "jobs.waiting"] {
            assert_eq!(counts(&channel, queue).await.0, 0, "{queue}");
        }
    });
}

#[test]
fn the_oldest_of_too_many_parked_messages_are_dropped() {
    with_example(async |server| {
        let channel = confirming(server).await;
        let all = numbers(PARKED_MAX + 2);
        for number in &all {
            publish_with(&channel, "", "jobs.parked", number, persistent()).await;
        }
        channel.wait_for_confirms().await.expect("confirms");
        assert_eq!(counts(&channel, "jobs.parked").await.0 as usize, PARKED_MAX);
        assert_eq!(drain(&channel, "jobs.parked").await, all[2..]);
    });
}

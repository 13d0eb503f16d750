//! Counts and rates: right within a second.

use crate::client::start;
use integration_tests::raw::Raw;
use integration_tests::{DEADLINE, id};
use serde_json::Value;
use std::time::Instant;

const MESSAGES: u64 = 500;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

#[test]
fn what_was_published_is_counted_and_becomes_a_rate() {
    let server = start();
    let mut raw = Raw::connect(server.broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.declare(1, "q", 0);
    for _ in 0..MESSAGES {
        raw.publish(1, ("", "q"), 0, &[0, 0], b"hello");
    }
    raw.fence(1);
    // Counts are those of the moment.
    let queue = server.expect(200, "GET", "/api/queues/%2F/q", "");
    assert_eq!((number(&queue["messages"]), number(&queue["message_stats"]["publish"])), (MESSAGES, MESSAGES));
    let overview = server.expect(200, "GET", "/api/overview", "");
    assert_eq!(number(&overview["queue_totals"]["messages_ready"]), MESSAGES);
    assert_eq!(number(&overview["message_stats"]["publish"]), MESSAGES);
    // The rate is that of the last whole second: all of it in one, or in two of them.
    let give_up = Instant::now() + DEADLINE;
    let mut published = 0.0;
    while published < MESSAGES as f64 && Instant::now() < give_up {
        let queue = server.expect(200, "GET", "/api/queues/%2F/q", "");
        let rate = queue["message_stats"]["publish_details"]["rate"].as_f64().expect("a rate");
        if rate > 0.0 {
            published = rate.max(published);
            // Two seconds have shared it.
            if published < MESSAGES as f64 {
                break;
            }
        }
    }
    assert!(published > 0.0 && published <= MESSAGES as f64, "{published} per second");
    while raw.get(1, "q", true).is_some() {}
    let queue = server.expect(200, "GET", "/api/queues/%2F/q", "");
    assert_eq!((number(&queue["messages"]), number(&queue["message_stats"]["get_no_ack"])), (0, MESSAGES));
    assert_eq!(number(&queue["message_stats"]["get_empty"]), 1);
    assert_eq!(number(&queue["message_stats"]["deliver_get"]), MESSAGES);
    raw.call(1, id::CHANNEL_CLOSE, [0; 7], id::CHANNEL_CLOSE_OK);
    let overview = server.expect(200, "GET", "/api/overview", "");
    assert_eq!(number(&overview["churn_rates"]["channel_closed"]), 1);
    assert!(server.broker.terminate().status.success());
}

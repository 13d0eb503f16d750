//! The Prometheus endpoint: what RabbitMQ's dashboard asks for is there, and the numbers are right.

use super::scrape;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::wire::Bytes;

/// What the public dashboard RabbitMQ-Overview asks for, with the labels that its queries need beside those of the scrape.
/// All of it joins on `rabbitmq_identity_info`.
const OVERVIEW: &[(&str, &[&str])] = &[
    ("rabbitmq_build_info", &["rabbitmq_version", "erlang_version"]),
    ("rabbitmq_channels", &[]),
    ("rabbitmq_channels_closed_total", &[]),
    ("rabbitmq_channels_opened_total", &[]),
    ("rabbitmq_connections", &[]),
    ("rabbitmq_connections_closed_total", &[]),
    ("rabbitmq_connections_opened_total", &[]),
    ("rabbitmq_disk_space_available_bytes", &[]),
    ("rabbitmq_disk_space_available_limit_bytes", &[]),
    ("rabbitmq_erlang_uptime_seconds", &[]),
    ("rabbitmq_global_consumers", &["protocol"]),
    ("rabbitmq_global_messages_acknowledged_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_confirmed_total", &["protocol"]),
    ("rabbitmq_global_messages_delivered_consume_auto_ack_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_delivered_consume_manual_ack_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_delivered_get_auto_ack_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_delivered_get_manual_ack_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_delivered_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_get_empty_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_received_confirm_total", &["protocol"]),
    ("rabbitmq_global_messages_received_total", &["protocol"]),
    ("rabbitmq_global_messages_redelivered_total", &["protocol", "queue_type"]),
    ("rabbitmq_global_messages_routed_total", &["protocol"]),
    ("rabbitmq_global_messages_unroutable_dropped_total", &["protocol"]),
    ("rabbitmq_global_messages_unroutable_returned_total", &["protocol"]),
    ("rabbitmq_global_publishers", &["protocol"]),
    (
        "rabbitmq_identity_info",
        &["rabbitmq_node", "rabbitmq_cluster", "rabbitmq_cluster_permanent_id", "rabbitmq_endpoint"],
    ),
    ("rabbitmq_message_size_bytes_bucket", &["protocol", "le"]),
    ("rabbitmq_message_size_bytes_count", &["protocol"]),
    ("rabbitmq_message_size_bytes_sum", &["protocol"]),
    ("rabbitmq_process_max_fds", &[]),
    ("rabbitmq_process_open_fds", &[]),
    ("rabbitmq_process_resident_memory_bytes", &[]),
    ("rabbitmq_queue_messages_ready", &[]),
    ("rabbitmq_queue_messages_unacked", &[]),
    ("rabbitmq_queues", &[]),
    ("rabbitmq_queues_created_total", &[]),
    ("rabbitmq_queues_declared_total", &[]),
    ("rabbitmq_queues_deleted_total", &[]),
    ("rabbitmq_resident_memory_limit_bytes", &[]),
];

/// The bounds of sizes that its pie chart names. Prometheus writes them another way once it has read them.
const SIZES: [&str; 9] = ["100", "1000", "10000", "100000", "1000000", "10000000", "50000000", "100000000", "+Inf"];

#[test]
fn the_overview_dashboard_finds_every_metric_with_its_labels() {
    let scraped = scrape::start();
    // On the page with single objects too: the dashboard has a choice between the two.
    let mut raw = client(&scraped);
    raw.declare(1, "q", 2);
    for (path, endpoint) in [("/metrics", "aggregated"), ("/metrics/per-object", "per-object")] {
        let page = scraped.page(path);
        for (name, labels) in OVERVIEW {
            let samples = page.samples.get(*name).unwrap_or_else(|| panic!("{path} has no {name}"));
            for sample in samples {
                assert!(labels.iter().all(|label| sample.labels.contains_key(*label)), "{name}: {sample:?}");
            }
        }
        assert_eq!(page.value("rabbitmq_identity_info", &[("rabbitmq_endpoint", endpoint)]), 1.0);
        for bound in SIZES {
            page.value("rabbitmq_message_size_bytes_bucket", &[("le", bound)]);
        }
        let counters = page.kinds.iter().filter(|(name, _)| name.ends_with("_total"));
        for (name, kind) in counters {
            assert_eq!(kind, "counter", "{name}");
        }
    }
    drop(raw);
}

fn client(scraped: &scrape::Scraped) -> Raw {
    let mut raw = Raw::connect(scraped.broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw
}

#[test]
fn what_clients_do_is_counted() {
    let scraped = scrape::start();
    let mut raw = client(&scraped);
    raw.declare(1, "classic \"q\"", 2);
    raw.send_declare(1, "quorum", 2, &Bytes::new().shortstr("x-queue-type").octet(b'S').longstr("quorum").done());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    // Persistent, of 3 octets and of 2000; one that goes nowhere.
    let persistent = Bytes::new().short(0x1000).octet(2).done();
    for (queue, body) in [("classic \"q\"", vec![0; 3]), ("quorum", vec![0; 2000]), ("nowhere", Vec::new())] {
        raw.publish(1, ("", queue), 0, &persistent, &body);
        raw.expect(1, id::BASIC_ACK);
    }
    let delivery = raw.get(1, "quorum", false).expect("a message");
    raw.get(1, "classic \"q\"", true).expect("a message");
    assert!(raw.get(1, "quorum", true).is_none());
    raw.method(1, id::BASIC_ACK, Bytes::new().longlong(delivery.tag).octet(0).done());
    raw.fence(1);
    let page = scraped.page("/metrics");
    let classic = ("queue_type", "rabbit_classic_queue");
    let quorum = ("queue_type", "rabbit_quorum_queue");
    for (name, labels, value) in [
        ("received_total", &[][..], 3.0),
        ("received_confirm_total", &[], 3.0),
        ("confirmed_total", &[], 3.0),
        ("routed_total", &[], 2.0),
        ("unroutable_dropped_total", &[], 1.0),
        ("delivered_get_manual_ack_total", &[quorum], 1.0),
        ("delivered_get_manual_ack_total", &[classic], 0.0),
        ("delivered_get_auto_ack_total", &[classic], 1.0),
        ("delivered_total", &[], 2.0),
        ("get_empty_total", &[quorum], 1.0),
        ("acknowledged_total", &[quorum], 1.0),
    ] {
        assert_eq!(page.value(&format!("rabbitmq_global_messages_{name}"), labels), value, "{name} {labels:?}");
    }
    for (name, labels, value) in [
        ("rabbitmq_message_size_bytes_bucket", &[("le", "100")][..], 2.0),
        ("rabbitmq_message_size_bytes_bucket", &[("le", "10000")], 3.0),
        ("rabbitmq_message_size_bytes_sum", &[], 2003.0),
        ("rabbitmq_auth_attempts_succeeded_total", &[("protocol", "amqp091")], 1.0),
        ("rabbitmq_auth_attempts_total", &[], 1.0),
        ("rabbitmq_global_publishers", &[], 1.0),
        ("rabbitmq_connections", &[], 1.0),
        ("rabbitmq_channels", &[], 1.0),
        ("rabbitmq_queues", &[], 2.0),
        ("rabbitmq_queue_messages", &[], 0.0),
    ] {
        assert_eq!(page.value(name, labels), value, "{name} {labels:?}");
    }
    // The log has had at least the declarations and the publishes.
    assert!(page.value("warren_fdatasyncs_total", &[]) >= 1.0);
    let commits = page.value("warren_commit_latency_seconds_count", &[]);
    assert!(commits >= 1.0 && commits <= page.value("warren_commit_groups_total", &[]));
    assert_eq!(
        page.value("warren_fdatasync_seconds_bucket", &[("le", "+Inf")]),
        page.value("warren_fdatasync_seconds_count", &[])
    );
    assert!(page.value("warren_segments", &[]) >= 1.0);
    let each = scraped.page("/metrics/per-object");
    let labels = [("vhost", "/"), ("queue", "classic \"q\"")];
    assert_eq!(each.value("rabbitmq_queue_get_total", &labels), 1.0);
    assert_eq!(each.value("rabbitmq_queue_info", &[labels[1], classic, ("membership", "leader")]), 1.0);
    assert_eq!(each.value("rabbitmq_channel_messages_published_total", &[]), 3.0);
    assert_eq!(each.value("rabbitmq_exchange_messages_published_total", &[("exchange", ""), ("vhost", "/")]), 3.0);
    // Totals outlive what they are about.
    raw.call(1, id::QUEUE_DELETE, Bytes::new().short(0).shortstr("quorum").octet(0).done(), id::QUEUE_DELETE_OK);
    raw.close();
    let page = scraped.until("/metrics", |page| page.value("rabbitmq_connections_closed_total", &[]) == 1.0);
    assert_eq!(page.value("rabbitmq_global_messages_acknowledged_total", &[quorum]), 1.0);
    assert_eq!(page.value("rabbitmq_global_messages_received_total", &[]), 3.0);
    assert_eq!((page.value("rabbitmq_connections", &[]), page.value("rabbitmq_queues", &[])), (0.0, 1.0));
}

#[test]
fn details_are_chosen() {
    let scraped = scrape::start();
    let mut raw = client(&scraped);
    for queue in ["a1", "a2", "b1"] {
        raw.declare(1, queue, 2);
    }
    let page = scraped.page("/metrics/detailed?family=queue_coarse_metrics&queue=%5Ea&vhost=%2F");
    let names: Vec<_> = page.samples["rabbitmq_detailed_queue_messages"]
        .iter()
        .map(|sample| (sample.labels["vhost"].as_str(), sample.labels["queue"].as_str()))
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&("/", "a1")) && names.contains(&("/", "a2")));
    assert!(!page.samples.contains_key("rabbitmq_detailed_queue_consumers"));
    assert_eq!(page.value("rabbitmq_identity_info", &[("rabbitmq_endpoint", "detailed")]), 1.0);
    let page = scraped.page("/metrics/detailed?family=queue_consumer_count&vhost=nowhere");
    assert!(!page.samples.contains_key("rabbitmq_detailed_queue_consumers"));
    let page = scraped.page("/metrics/detailed?family=vhost_status&family=exchange_bindings&family=exchange_names");
    assert_eq!(page.value("rabbitmq_cluster_vhost_status", &[("vhost", "/")]), 1.0);
    let labels = [("vhost", "/"), ("exchange", "amq.topic"), ("type", "topic")];
    assert_eq!(page.value("rabbitmq_cluster_exchange_bindings", &labels), 0.0);
    assert_eq!(page.value("rabbitmq_cluster_exchange_name", &labels), 1.0);
    let page = scraped.page("/metrics/memory-breakdown");
    assert!(page.value("rabbitmq_memory_other_system_bytes", &[]) > 0.0);
}

#[test]
fn other_requests_are_refused() {
    let scraped = scrape::start();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics/nothing", 404),
        ("POST", "/metrics", 405),
        ("HEAD", "/metrics", 200),
        ("GET", "/metrics/detailed?queue=%28", 400),
        ("GET", "/metrics/detailed?queue=a&queue=b", 400),
    ] {
        assert_eq!(scraped.ask(method, path).0, status, "{method} {path}");
    }
}

#[test]
fn many_queues_come_in_pieces() {
    const QUEUES: usize = 3_000;
    let scraped = scrape::start();
    let mut raw = client(&scraped);
    for number in 0..QUEUES {
        // Neither durable nor answered, so that this is quick.
        raw.send_declare(1, &format!("queue-with-a-name-{number}"), 16, &[]);
    }
    raw.fence(1);
    let page = scraped.page("/metrics/per-object");
    assert_eq!(page.samples["rabbitmq_queue_messages_ready"].len(), QUEUES);
    assert_eq!(page.samples["rabbitmq_queue_info"].len(), QUEUES);
    assert_eq!(page.value("rabbitmq_queues", &[]), QUEUES as f64);
}

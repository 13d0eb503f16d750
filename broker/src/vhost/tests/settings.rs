//! Limits, the default queue type, and the end of a virtual host.

use serde_json::{Map, Value, json};
use storage::TopologyChange;

use super::*;
use crate::model::operation::OperationError;
use crate::vhost::{Metadata, MetadataChange, NodeQueues, recover};

fn limits(vhost: &Vhost, json: &Value) {
    let map: Map<String, Value> = json.as_object().unwrap().clone();
    vhost.set_limits(&map).unwrap();
}

#[test]
fn a_queue_too_many_is_refused_and_an_existing_one_is_not() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    fixture.with_queue("a");
    limits(vhost, &json!({"max-queues": 2}));
    fixture.with_queue("b");
    let text = "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in vhost '/' (2) is reached";
    assert_eq!(refusal(fixture.declare_queue(queue("c"))), refused(406, text, 50, 10));
    fixture.with_queue("a");
    fixture.delete_queue("a").unwrap();
    fixture.with_queue("c");
    limits(vhost, &json!({"max-queues": -1}));
    fixture.with_queue("d");
    limits(vhost, &json!({"max-queues": 0}));
    let text = "PRECONDITION_FAILED - cannot declare queue 'e': queue limit in vhost '/' (0) is reached";
    assert_eq!(refusal(fixture.declare_queue(queue("e"))), refused(406, text, 50, 10));
    vhost.clear_limits(None).unwrap();
    fixture.with_queue("e");
    assert_eq!(vhost.clear_limits(None), Err(OperationError::NoSuchParameter));
}

#[test]
fn the_node_counts_the_queues_of_all_virtual_hosts() {
    let fixture = Fixture::new();
    let (other, _) = Vhost::create("other", services(&fixture.store));
    fixture.with_queue("a");
    let node = Arc::<NodeQueues>::default();
    fixture.vhost.count_queues_in(&node);
    other.count_queues_in(&node);
    node.set_limit(Some(2));
    other.declare_queue(&Unrestricted, queue("b")).map(|_| ()).unwrap();
    let text = "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in cluster (2) is reached";
    assert_eq!(refusal(fixture.declare_queue(queue("c"))), refused(406, text, 50, 10));
    fixture.delete_queue("a").unwrap();
    fixture.with_queue("c");
    assert_eq!(node.count(), 2);
    other.take_for_delete().unwrap();
    assert_eq!(node.count(), 1);
}

#[test]
fn one_limit_can_be_set_beside_the_other() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    vhost.set_limit("max-queues", &json!(3)).unwrap();
    vhost.set_limit("max-connections", &json!(0)).unwrap();
    let now = vhost.limits();
    assert_eq!((now.max_connections, now.max_queues), (Some(0), Some(3)));
    let error = vhost.set_limit("max-foo", &json!(5)).unwrap_err();
    assert_eq!(error.to_string(), "Validation failed\n\nUnrecognised terms [{<<\"max-foo\">>,5}] in limits\n");
    vhost.clear_limits(Some("max-queues")).unwrap();
    assert_eq!(vhost.limits().max_queues, None);
    limits(vhost, &json!({}));
    assert_eq!(vhost.limits().max_connections, None);
}

#[test]
fn the_default_queue_type_is_for_durable_shared_queues() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let change = |kind: &str| MetadataChange { default_queue_type: Some(kind.to_owned()), ..MetadataChange::default() };
    let error = vhost.update_metadata(change("nope")).unwrap_err();
    assert_eq!((error.to_string(), error.http_status()), ("nope is not a valid queue type".to_owned(), 400));
    vhost.update_metadata(change("quorum")).unwrap();
    let durable = |name| QueueRequest { durable: true, ..queue(name) };
    let kind_of = |request| {
        let declared = fixture.declare_queue(request).unwrap();
        declared.queue.spec().arguments.get("x-queue-type").cloned()
    };
    assert_eq!(kind_of(durable("quorum")), Some(text_value("quorum")));
    let (code, text, ..) = refusal(fixture.declare_queue(durable(""))).unwrap();
    let expected = "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue";
    assert_eq!((code, text.as_str()), (406, expected));
    assert_eq!(kind_of(queue("transient")), Some(text_value("classic")));
    assert_eq!(kind_of(QueueRequest { exclusive: true, ..durable("exclusive") }), Some(text_value("classic")));
    assert_eq!(kind_of(QueueRequest { auto_delete: true, ..durable("auto") }), Some(text_value("classic")));
    vhost.update_metadata(change("undefined")).unwrap();
    assert_eq!(kind_of(durable("q")), Some(text_value("classic")));
    assert_eq!(vhost.metadata(), Metadata::default());
}

fn text_value(value: &str) -> AMQPValue {
    text(value)
}

/// The log entry of this deletion is larger than a segment of the log.
#[test]
fn a_large_one_is_deleted_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let options = || {
        let mut options = Options::new(directory.path());
        options.segment_bytes = 64 * 1024;
        options
    };
    let (store, _) = Store::open(options()).unwrap();
    let (vhost, _) = Vhost::create("v", services(&store));
    for i in 0..2_000 {
        let name = format!("queue-with-a-name-of-its-own-{i}");
        vhost.declare_queue(&Unrestricted, QueueRequest { durable: true, ..queue(&name) }).map(|_| ()).unwrap();
    }
    let changes = vhost.take_for_delete().unwrap();
    store.change_topology(changes);
    drop(vhost);
    store.close(Vec::new()).unwrap();
    drop(store);
    let (store, found) = Store::open(options()).unwrap();
    assert_eq!((found.topology.len(), found.damage.len()), (0, 0));
    store.close(Vec::new()).unwrap();
}

#[test]
fn deleting_takes_everything_and_refuses_what_comes_later() {
    let fixture = Fixture::new();
    let vhost = fixture.vhost.clone();
    let shared = fixture.declare_queue(QueueRequest { durable: true, ..queue("durable") }).unwrap().queue;
    fixture.declare_queue(QueueRequest { exclusive: true, ..queue("mine") }).map(|_| ()).unwrap();
    fixture.declare_exchange(ExchangeRequest { durable: true, ..exchange("x", "topic") }).unwrap();
    fixture.bind("x", "durable", "k").unwrap();
    fixture.bind("amq.direct", "durable", "k").unwrap();
    fixture.bind_exchange("x", "amq.fanout", "k").unwrap();
    vhost.set_parameter("c", "n", json!(1)).unwrap();
    let protect = |protected| MetadataChange { protected_from_deletion: Some(protected), ..MetadataChange::default() };
    vhost.update_metadata(protect(true)).unwrap();
    let error = vhost.take_for_delete().unwrap_err();
    assert_eq!(error, OperationError::ProtectedVhost("/".into()));
    vhost.update_metadata(protect(false)).unwrap();

    let changes = vhost.take_for_delete().unwrap();
    assert!(changes.contains(&TopologyChange::DropQueue(shared.id())));
    fixture.store.change_topology(changes);
    assert!(vhost.is_deleted() && shared.is_closed());
    assert_eq!((vhost.queue_count(), vhost.exchanges().len()), (0, 0));
    assert_eq!(vhost.take_for_delete(), Err(OperationError::NoSuchVhost("/".into())));
    let gone = "CONNECTION_FORCED - vhost '/' is deleted";
    assert_eq!(refusal(fixture.declare_queue(queue("late"))), refused(320, gone, 50, 10));
    assert_eq!(refusal(fixture.declare_exchange(exchange("late", "fanout"))), refused(320, gone, 40, 10));
    assert!(fixture.bind("amq.direct", "durable", "k").is_err());
    assert!(vhost.set_parameter("c", "n", json!(1)).is_err() && vhost.set_limit("max-queues", &json!(1)).is_err());
    vhost.delete_exclusive(ME);

    let Fixture { vhost, store, directory } = fixture;
    drop(vhost);
    store.close(Vec::new()).unwrap();
    drop(store);
    let (store, found) = Store::open(Options::new(directory.path())).unwrap();
    assert_eq!(found.topology, Vec::new());
    assert!(recover(&services(&store), found.topology, found.queues).vhosts.is_empty());
    store.close(Vec::new()).unwrap();
}

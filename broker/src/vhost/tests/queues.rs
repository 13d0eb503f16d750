//! queue.declare and queue.delete.

use super::*;

const LOCKED: &str = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost \
                      '/'. It could be originally declared on another connection or the exclusive \
                      property value does not match that of the original declaration.";

fn exclusive(name: &str) -> QueueRequest<'_> {
    QueueRequest { exclusive: true, ..queue(name) }
}

#[test]
fn an_empty_name_is_filled_in() {
    let fixture = Fixture::new();
    let first = fixture.with_queue("");
    let second = fixture.with_queue("\r\n");
    for queue in [&first, &second] {
        let name = &queue.spec().name;
        let random = name.strip_prefix("amq.gen-").expect("prefix");
        assert_eq!(random.len(), 22);
        assert!(random.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        assert!(fixture.vhost.queue(name).is_some());
    }
    assert_ne!(first.spec().name, second.spec().name);
}

#[test]
fn reserved_names_are_refused_even_when_they_exist() {
    let fixture = Fixture::new();
    let generated = fixture.with_queue("");
    let name = &generated.spec().name;
    let text = format!("ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'");
    assert_eq!(refusal(fixture.declare_queue(queue(name))), refused(403, &text, 50, 10));
    let passive = fixture.vhost.declare_queue_passive(&Unrestricted, name, OTHER);
    assert_eq!(refusal(passive), None);
}

#[test]
fn line_breaks_are_removed_from_names() {
    let fixture = Fixture::new();
    assert_eq!(&*fixture.with_queue("p4.x\r\ny").spec().name, "p4.xy");
    assert!(fixture.vhost.queue_for("p4.x\r\ny", ME).is_err());
    assert_eq!(refusal(fixture.delete_queue("p4.xy\n")), None);
    assert!(fixture.vhost.queue("p4.xy").is_none());
}

#[test]
fn passive_declare_of_a_missing_queue() {
    let fixture = Fixture::new();
    let passive = |name| refusal(fixture.vhost.declare_queue_passive(&Unrestricted, name, ME));
    assert_eq!(passive("q"), refused(404, "NOT_FOUND - no queue 'q' in vhost '/'", 50, 10));
    assert_eq!(passive(""), refused(404, "NOT_FOUND - no queue '' in vhost '/'", 50, 10));
    assert_eq!(refusal(fixture.vhost.queue_for("q", ME)), refused(404, "NOT_FOUND - no queue 'q' in vhost '/'", 0, 0));
}

#[test]
fn a_redeclare_gives_the_same_queue() {
    let fixture = Fixture::new();
    let first = fixture.declare_queue(queue("q")).expect("declare");
    let again = fixture
        .declare_queue(QueueRequest {
            connection: OTHER,
            arguments: arguments(&[("x-queue-type", text("classic")), ("nonsense", text(""))]),
            ..queue("q")
        })
        .expect("redeclare");
    assert!(first.created && !again.created);
    assert!(Arc::ptr_eq(&first.queue, &again.queue));
    assert_eq!((again.message_count, again.consumer_count), (0, 0));
    assert_eq!(fixture.vhost.queue_count(), 1);
}

#[test]
fn a_redeclare_must_be_equivalent() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    let mismatch = |request| {
        let (code, text, class, method) = refusal(fixture.declare_queue(request))?;
        assert_eq!((code, class, method), (406, 50, 10));
        let rest = text.strip_prefix("PRECONDITION_FAILED - inequivalent arg ")?;
        Some(rest.to_owned())
    };
    let with = |name: &str, value| QueueRequest { arguments: arguments(&[(name, value)]), ..queue("q") };
    for (request, text) in [
        (
            QueueRequest { durable: true, auto_delete: true, ..queue("q") },
            "'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            QueueRequest { auto_delete: true, ..with("x-queue-type", text("quorum")) },
            "'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            with("x-queue-type", text("quorum")),
            "'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but current is \
             'classic'",
        ),
        (
            with("x-message-ttl", AMQPValue::LongInt(1000)),
            "'x-message-ttl' for queue 'q' in vhost '/': received the value '1000' of type \
             'signedint' but current is none",
        ),
    ] {
        assert_eq!(mismatch(request).as_deref(), Some(text));
    }
}

#[test]
fn exclusive_queues_belong_to_their_connection() {
    let fixture = Fixture::new();
    let durable = QueueRequest { durable: true, ..exclusive("q") };
    let declared = fixture.declare_queue(durable.clone()).expect("declare");
    assert!(!declared.queue.spec().durable, "stored as not durable");
    assert_eq!(declared.lsn, Lsn(0));
    assert_eq!(refusal(fixture.declare_queue(durable)), None);
    assert_eq!(refusal(fixture.declare_queue(exclusive("q"))), None);
    let locked = |class, method| refused(405, LOCKED, class, method);
    // The owner drops the property; somebody else asks for it, or only looks.
    assert_eq!(refusal(fixture.declare_queue(queue("q"))), locked(50, 10));
    let vhost = &fixture.vhost;
    assert_eq!(refusal(fixture.declare_queue(QueueRequest { connection: OTHER, ..exclusive("q") })), locked(50, 10));
    assert_eq!(refusal(vhost.declare_queue_passive(&Unrestricted, "q", OTHER)), locked(50, 10));
    assert_eq!(refusal(vhost.queue_for("q", OTHER)), locked(0, 0));
    assert_eq!(refusal(vhost.delete_queue(&Unrestricted, "q", false, false, OTHER)), locked(50, 40));
    assert_eq!(refusal(vhost.queue_for("q", ME)), None);
}

#[test]
fn a_shared_queue_cannot_become_exclusive() {
    let fixture = Fixture::new();
    fixture.with_queue("q");
    assert_eq!(refusal(fixture.declare_queue(exclusive("q"))), refused(405, LOCKED, 50, 10));
}

#[test]
fn exclusive_queues_go_with_their_connection() {
    let fixture = Fixture::new();
    let gone = fixture.declare_queue(exclusive("q")).expect("declare").queue;
    fixture.declare_queue(exclusive("q2")).expect("declare");
    fixture.declare_queue(QueueRequest { connection: OTHER, ..exclusive("others") }).expect("declare");
    fixture.with_queue("shared");
    fixture.bind("amq.topic", "q", "#").expect("bind");
    fixture.vhost.delete_exclusive(ME);
    fixture.vhost.delete_exclusive(ME);
    assert!(gone.is_closed());
    let mut left: Vec<String> = fixture.vhost.queues().iter().map(|queue| queue.spec().name.to_string()).collect();
    left.sort();
    assert_eq!(left, ["others", "shared"]);
    assert!(fixture.routed("amq.topic", &["any"]).is_empty());
}

#[test]
fn validation_is_for_new_queues() {
    let fixture = Fixture::new();
    let declare = |name, value| {
        refusal(fixture.declare_queue(QueueRequest { arguments: arguments(&[(name, value)]), ..queue("q") }))
    };
    assert_eq!(
        declare("x-queue-type", text("foo")),
        refused(
            406,
            "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': \
             \"unsupported queue type 'foo'\"",
            50,
            10
        )
    );
    assert_eq!(
        declare("x-max-priority", AMQPValue::LongInt(256)),
        refused(
            406,
            "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/': \
             {max_value_exceeded,256}",
            50,
            10
        )
    );
    assert!(fixture.vhost.queue("q").is_none());
    assert_eq!(declare("x-queue-version", AMQPValue::LongInt(2)), None);
    assert_eq!(
        declare("x-queue-version", AMQPValue::LongInt(1)),
        refused(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-version' for queue 'q' in vhost \
             '/': received '1' but current is '2'",
            50,
            10
        )
    );
}

#[test]
fn delete_is_idempotent() {
    let fixture = Fixture::new();
    let queue = fixture.with_queue("q");
    assert_eq!(fixture.delete_queue("q").map(|(count, _)| count), Ok(0));
    assert!(queue.is_closed());
    assert_eq!(fixture.delete_queue("q").map(|(count, _)| count), Ok(0));
    assert_eq!(fixture.vhost.delete_queue_object(&queue, false), Lsn(0));
}

#[test]
fn deleting_an_object_leaves_its_successor_alone() {
    let fixture = Fixture::new();
    let old = fixture.with_queue("q");
    fixture.delete_queue("q").expect("delete");
    let new = fixture.with_queue("q");
    fixture.vhost.delete_queue_object(&old, true);
    assert!(fixture.vhost.queue("q").is_some_and(|q| Arc::ptr_eq(&q, &new)));
    fixture.vhost.delete_queue_object(&new, true);
    assert!(fixture.vhost.queue("q").is_none());
}

#[test]
fn a_queue_that_ended_by_itself_is_as_good_as_gone() {
    let fixture = Fixture::new();
    let old = fixture.with_queue("q");
    fixture.bind("amq.fanout", "q", "").expect("bind");
    assert!(old.close(false, false).is_ok());
    assert!(refusal(fixture.vhost.queue_for("q", ME)).is_some_and(|r| r.0 == 404));
    let new = fixture.declare_queue(queue("q")).expect("declare");
    assert!(new.created);
    assert!(fixture.routed("amq.fanout", &[""]).is_empty());
}

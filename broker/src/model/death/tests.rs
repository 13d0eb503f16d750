use proptest::prelude::*;
use protocol::{TableIter, encode_properties};

use super::*;

const PERSISTENT: &[u8] = &[0x10, 0x00, 2];

fn text(name: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, name, value.as_bytes());
    out
}

fn keys(name: &str, keys: &[&str]) -> Vec<u8> {
    let mut array = Vec::new();
    for key in keys {
        array.push(b'S');
        put_long(&mut array, key.as_bytes());
    }
    let mut out = Vec::new();
    put_name(&mut out, name);
    out.push(b'A');
    put_long(&mut out, &array);
    out
}

fn message(headers: &[u8], expiration: Option<&[u8]>, hidden: &[&str]) -> Arc<Message> {
    let mut properties = replace_headers(PERSISTENT, headers);
    if let Some(expiration) = expiration {
        let value = [&[expiration.len() as u8], expiration].concat();
        properties = replace_property(&properties, Property::Expiration, Some(&value));
    }
    let hidden = hidden_keys(hidden.iter().copied());
    let traits = Traits { hidden_keys: &hidden, ..Traits::default() };
    Arc::new(Message::with_traits(traits, &address("in", "rk"), &properties, Cow::Borrowed(b"body"), true))
}

fn death<'a>(queue: &'a str, reason: Reason, time_s: u64, routing_key: Option<&'a str>) -> Death<'a> {
    Death { queue, reason, time_s, exchange: "dlx", routing_key }
}

fn headers(message: &Message) -> Vec<u8> {
    let properties = Properties::parse(message.content().properties).unwrap();
    properties.headers().unwrap_or_default().to_vec()
}

fn names(headers: &[u8]) -> Vec<String> {
    TableIter::new(headers).map(|field| String::from_utf8(field.unwrap().0.to_vec()).unwrap()).collect()
}

fn header(message: &Message, name: &str) -> String {
    let headers = headers(message);
    let value = lookup(&headers, name.as_bytes()).and_then(|value| value.as_bytes()).unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

#[test]
fn a_death_is_written_down_field_by_field() {
    let before = message(&[text("a", "1"), keys("CC", &["k1"])].concat(), Some(b"0060000"), &["k2"]);
    let after = after(&before, &death("source", Reason::Expired, 1_700_000_000, None));
    let mut entry = text("original-expiration", "60000");
    entry.extend(b"\x05countl\0\0\0\0\0\0\0\x01");
    entry.extend([text("reason", "expired"), text("queue", "source")].concat());
    entry.extend(b"\x04timeT\0\0\0\0\x65\x53\xf1\0");
    entry.extend([text("exchange", "in"), keys("routing-keys", &["rk", "k1"])].concat());
    let mut array = vec![b'F'];
    put_long(&mut array, &entry);
    let mut expected = [text("a", "1"), keys("CC", &["k1"])].concat();
    expected.extend(b"\x07x-deathA");
    put_long(&mut expected, &array);
    for [exchange, queue, reason] in [FIRST, LAST] {
        expected.extend([text(exchange, "in"), text(queue, "source"), text(reason, "expired")].concat());
    }
    assert_eq!(headers(&after), expected);
    let properties = Properties::parse(after.content().properties).unwrap();
    assert_eq!(properties.expiration(), None);
    assert_eq!(properties.delivery_mode(), Some(2));
    assert_eq!(after.content().body, b"body");
    assert_eq!(shortstrs(after.content().address), ("dlx".into(), "rk".into()));
}

#[test]
fn keys_of_cc_and_bcc_go_on_until_another_key_is_given() {
    let before = message(&keys("CC", &["k1"]), None, &["k2"]);
    let texts = |message: &Message| routing_keys(message).iter().map(|key| key.text.to_string()).collect::<Vec<_>>();
    assert_eq!(texts(&before), ["rk", "k1", "k2"]);
    let first = Arc::new(after(&before, &death("a", Reason::Rejected, 1, None)));
    assert_eq!(texts(&first), ["rk", "k1", "k2"]);
    let second = Arc::new(after(&first, &death("b", Reason::Rejected, 1, Some("new"))));
    assert_eq!(texts(&second), ["new"]);
    assert_eq!(names(&headers(&second))[0], "CC", "the header itself stays");
    let third = after(&second, &death("c", Reason::Rejected, 1, None));
    assert_eq!(texts(&third), ["new"]);
    let headers = headers(&third);
    let keys: Vec<_> = records(&third, &headers)
        .iter()
        .map(|record| ArrayIter::new(&record.routing_keys).map_while(Result::ok).count())
        .collect();
    assert_eq!(keys, [1, 2, 2]);
}

#[test]
fn what_a_client_wrote_is_no_history() {
    let mut forged = text("x-first-death-queue", "client");
    forged.extend(text("x-death", "mine"));
    forged.extend(text("x-foo", "kept"));
    let before = message(&forged, None, &[]);
    let died = Arc::new(after(&before, &death("q", Reason::MaxLen, 5, None)));
    assert_eq!(header(&died, "x-first-death-queue"), "q");
    let expected = ["x-foo", "x-death", FIRST[0], FIRST[1], FIRST[2], LAST[0], LAST[1], LAST[2]];
    assert_eq!(names(&headers(&died)), expected);
    // A consumer publishes it again, headers and all.
    let again = message(&headers(&died), None, &[]);
    let died = after(&again, &death("q", Reason::MaxLen, 9, None));
    let headers = headers(&died);
    let records = records(&died, &headers);
    assert_eq!((records.len(), records[0].count, records[0].time_s), (1, 1, 9));
}

#[test]
fn other_properties_stay() {
    let properties = protocol::amqp::BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_priority(3)
        .with_expiration("10".into())
        .with_message_id("m".into());
    let before = Message::new(&address("", "q"), &encode_properties(&properties), Cow::Borrowed(b""), false);
    let died = after(&Arc::new(before), &death("q", Reason::DeliveryLimit, 5, None));
    let now = Properties::parse(died.content().properties).unwrap();
    assert_eq!((now.content_type(), now.priority()), (Some(&b"text/plain"[..]), Some(3)));
    assert_eq!((now.message_id(), now.expiration()), (Some(&b"m"[..]), None));
}

const REASONS: [Reason; 4] = [Reason::Rejected, Reason::Expired, Reason::MaxLen, Reason::DeliveryLimit];

proptest! {
    /// Against a list of pairs that says the same in a few lines.
    #[test]
    fn the_account_is_that_of_the_model(deaths in prop::collection::vec((0..4_usize, 0..4_usize), 1..40)) {
        let queues = ["a", "b", "c", "d"];
        let mut model: Vec<(usize, usize, i64, u64)> = Vec::new();
        let mut message = message(b"", None, &[]);
        for (time, (queue, reason)) in deaths.iter().copied().enumerate() {
            let time = time as u64;
            let at = model.iter().position(|known| (known.0, known.1) == (queue, reason));
            let known = at.map_or((queue, reason, 0, time), |at| model.remove(at));
            model.insert(0, (known.0, known.1, known.2 + 1, known.3));
            message = Arc::new(after(&message, &death(queues[queue], REASONS[reason], time, None)));
            for (target, name) in queues.iter().enumerate() {
                let upto = model.iter().position(|known| known.0 == target);
                let cycle = upto.is_some_and(|at| model[..=at].iter().all(|known| known.1 != 0));
                prop_assert_eq!(is_cycle(&message, name), cycle);
            }
        }
        let headers = headers(&message);
        let found: Vec<_> = records(&message, &headers)
            .iter()
            .map(|record| {
                let queue = queues.iter().position(|name| name.as_bytes() == record.queue).unwrap();
                let reason = REASONS.iter().position(|reason| reason.as_str().as_bytes() == record.reason).unwrap();
                (queue, reason, record.count, record.time_s)
            })
            .collect();
        prop_assert_eq!(found, model);
        prop_assert_eq!(header(&message, "x-first-death-queue"), queues[deaths[0].0]);
        let last = deaths[deaths.len() - 1];
        prop_assert_eq!(header(&message, "x-last-death-reason"), REASONS[last.1].as_str());
        prop_assert_eq!(message.content().body, b"body");
    }
}

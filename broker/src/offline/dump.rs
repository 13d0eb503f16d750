//! `warren log dump`

use std::io::Write;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde_json::{Map, Value};
use storage::inspect::{Dumped, Inspector, Item, Payload};
use storage::{Meta, Place, QueueId, SeqRange, TopologyChange};

use super::DumpOptions;
use super::names::Names;
use crate::auth;
use crate::model::message::Message;
use crate::policy;
use crate::queue::tally::Tally;
use crate::vhost::describe;

/// Octets of a body that are shown.
const BODY_SHOWN: usize = 200;

/// Prints the log.
pub(super) fn run(inspector: &Inspector, options: &DumpOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let mut names = Names::new(&inspector.topology());
    let mut outcome = Ok(());
    inspector.dump(options.segment, |dumped| {
        if let Item::Topology(changes) = &dumped.item {
            changes.iter().for_each(|change| names.change(change));
        }
        if !is_wanted(&dumped.item, options, &names) {
            return ControlFlow::Continue(());
        }
        outcome = print(&dumped, options, &names, out);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(outcome?)
}

fn is_wanted(item: &Item<'_>, options: &DumpOptions, names: &Names) -> bool {
    let Some(wanted) = &options.queue else {
        return true;
    };
    let has_name = |id: QueueId| names.get(id).is_some_and(|(_, name)| name == wanted);
    match item {
        Item::Enqueue { queue, .. }
        | Item::Settle { queue, .. }
        | Item::Requeue { queue, .. }
        | Item::Purge { queue, .. } => has_name(*queue),
        Item::Topology(changes) => changes.iter().any(|change| match change {
            TopologyChange::Put { key, value } => {
                matches!(describe(key, value), Some(Ok(crate::vhost::Described::Queue { name, .. })) if name == *wanted)
            }
            TopologyChange::DropQueue(id) => has_name(*id),
            TopologyChange::Delete { .. } => false,
        }),
        // What can't be read may be about any queue.
        Item::Damaged(_) => true,
        _ => false,
    }
}

/// What a line says, in order.
struct Line {
    kind: &'static str,
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    fn new(kind: &'static str) -> Self {
        Self { kind, fields: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn with_queue(self, id: QueueId, names: &Names) -> Self {
        match names.get(id) {
            Some((vhost, name)) => self.with("vhost", vhost).with("queue", name),
            None => self.with("queue_id", format!("{id:x}")),
        }
    }

    fn with_ranges(self, name: &'static str, ranges: &[SeqRange]) -> Self {
        let texts: Vec<String> = ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect();
        self.with(name, texts.join(","))
    }

    /// Only what is not as usual is worth a word.
    fn with_if(self, is_unusual: bool, name: &'static str, value: impl Into<Value>) -> Self {
        if is_unusual { self.with(name, value) } else { self }
    }

    /// What is known of the deliveries of messages.
    fn with_tally(self, stored: u32) -> Self {
        let (handed_out, in_vain, is_out) = Tally::of_stored(stored);
        self.with_if(handed_out != 0, "handed_out", handed_out)
            .with_if(in_vain != 0, "in_vain", in_vain)
            .with_if(is_out, "out", true)
    }
}

fn print(dumped: &Dumped<'_>, options: &DumpOptions, names: &Names, out: &mut impl Write) -> std::io::Result<()> {
    let Dumped { segment, offset, lsn, item, .. } = dumped;
    let line = line(item, options, names);
    if options.json {
        let mut object = Map::new();
        object.insert("segment".to_owned(), format!("{segment:016x}").into());
        object.insert("offset".to_owned(), (*offset).into());
        object.insert("lsn".to_owned(), (*lsn).into());
        object.insert("type".to_owned(), line.kind.into());
        object.extend(line.fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        return writeln!(out, "{}", Value::Object(object));
    }
    write!(out, "{segment:016x}/{offset} lsn={lsn} {}", line.kind)?;
    for (name, value) in &line.fields {
        // A JSON text has no line breaks and no control characters.
        write!(out, " {name}={value}")?;
    }
    writeln!(out)
}

fn line(item: &Item<'_>, options: &DumpOptions, names: &Names) -> Line {
    match item {
        Item::Group { count, bytes, epoch, synced_upto } => Line::new("group")
            .with("entries", *count)
            .with("bytes", *bytes)
            .with("epoch", *epoch)
            .with("synced_upto", *synced_upto),
        Item::Enqueue { queue, seq, meta, len, payload, tx, moved } => {
            let Meta { deadline_ms, priority, delivery_count } = *meta;
            let line = Line::new(if *moved { "relocate" } else { "enqueue" })
                .with_queue(*queue, names)
                .with("seq", *seq)
                .with("bytes", *len)
                .with_if(deadline_ms.is_some(), "deadline_ms", deadline_ms.unwrap_or_default())
                .with_if(priority != 0, "priority", priority)
                .with_tally(delivery_count)
                .with_if(*tx, "tx", true);
            with_payload(line, payload, options.bodies)
        }
        Item::Settle { queue, range, tx } => {
            Line::new("settle").with_queue(*queue, names).with_ranges("seqs", &[*range]).with_if(*tx, "tx", true)
        }
        Item::Requeue { queue, delivery_count, ranges } => {
            Line::new("requeue").with_queue(*queue, names).with_ranges("seqs", ranges).with_tally(*delivery_count)
        }
        Item::Purge { queue, below, except } => {
            Line::new("purge").with_queue(*queue, names).with("below", *below).with_ranges("except", except)
        }
        Item::Topology(changes) => {
            let changes: Vec<Value> = changes.iter().map(|change| describe_change(change, names).into()).collect();
            Line::new("topology").with("changes", changes)
        }
        Item::TxEnd(count) => Line::new("tx-end").with("entries", *count),
        Item::CheckpointDone { lsn, clean } => {
            Line::new("checkpoint").with("sled_lsn", *lsn).with_if(*clean, "clean_stop", true)
        }
        Item::Damaged(count) => Line::new("DAMAGED").with("entries", *count),
        _ => Line::new("unknown"),
    }
}

fn with_payload(line: Line, payload: &Payload<'_>, with_body: bool) -> Line {
    match payload {
        Payload::Here(bytes) => {
            let Some(message) = Message::from_stored(Bytes::copy_from_slice(bytes), Place::default(), None) else {
                return line.with("malformed", true);
            };
            let content = message.content();
            let (exchange, rest) = short_text(content.address);
            let (key, _) = short_text(rest);
            let line = line.with("exchange", exchange).with("routing_key", key);
            if !with_body {
                return line;
            }
            let shown = content.body.get(..BODY_SHOWN).unwrap_or(content.body);
            line.with("body_bytes", content.body.len()).with("body", shown.escape_ascii().to_string())
        }
        Payload::Segment { segment, offset } => line.with("body_at", format!("{segment:016x}/{offset}")),
        Payload::File(file) => line.with("body_at", format!("large/{file:016x}.body")),
        _ => line,
    }
}

/// A short string and what is behind it.
fn short_text(bytes: &[u8]) -> (String, &[u8]) {
    let Some((&len, rest)) = bytes.split_first() else {
        return (String::new(), bytes);
    };
    let (text, rest) = rest.split_at(usize::from(len).min(rest.len()));
    (String::from_utf8_lossy(text).into_owned(), rest)
}

fn describe_change(change: &TopologyChange, names: &Names) -> String {
    match change {
        TopologyChange::Put { key, value } => {
            let described = describe(key, value).map(|described| described.map(|described| described.to_string()));
            match described.or_else(|| auth::describe(key, value)).or_else(|| policy::describe(key, value)) {
                Some(Ok(text)) => format!("put {text}"),
                Some(Err(problem)) => format!("put {}: {problem}", key.escape_ascii()),
                None => format!("put {} ({} bytes)", key.escape_ascii(), value.len()),
            }
        }
        TopologyChange::Delete { key } => format!("delete {}", key.escape_ascii()),
        TopologyChange::DropQueue(id) => format!("drop the messages of {}", names.text(*id)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let queue = br#"{"v":1,"vhost":"/","name":"a\nb","id":7,"auto_delete":false}"#;
        let exchange = br#"{"v":1,"vhost":"/","name":"e","type":"x-message-deduplication","auto_delete":false,"internal":false,"window":8}"#;
        let names = Names::new(&[(b"queue/x".to_vec(), queue.to_vec()), (b"exchange/x".to_vec(), exchange.to_vec())]);
        assert_eq!(
            [7, 8, 9].map(|id| names.text(id)),
            [r#"queue "a\nb" in vhost "/""#, r#"exchange "e" in vhost "/""#, "queue id 9"]
        );
        let meta = Meta { priority: 3, ..Meta::default() };
        let payload = [&[5, 0, 0, 0, 0, 0][..], b"\x02ex\x01k", b"line\n\xff"].concat();
        let payload = Payload::Here(&payload);
        let item = Item::Enqueue { queue: 7, seq: 5, meta, len: 17, payload, tx: false, moved: false };
        let mut options =
            DumpOptions { directory: "d".into(), queue: None, segment: None, bodies: true, json: false, force: false };
        let said = |options: &DumpOptions| {
            let fields = line(&item, options, &names).fields;
            fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let expected = r#"vhost="/" queue="a\nb" seq=5 bytes=17 priority=3 exchange="ex" routing_key="k" "#;
        assert_eq!(said(&options), format!(r#"{expected}body_bytes=6 body="line\\n\\xff""#));
        assert!(is_wanted(&item, &options, &names));
        options.queue = Some("other".to_owned());
        assert!(!is_wanted(&item, &options, &names));
        let unknown = line(&Item::Settle { queue: 255, range: SeqRange::one(4), tx: true }, &options, &names);
        assert_eq!(json!(unknown.fields), json!([["queue_id", "ff"], ["seqs", "4-4"], ["tx", true]]));
    }
}

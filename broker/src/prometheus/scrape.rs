//! Which page is asked for, and what is on it.

use std::time::Instant;

use regex::Regex;

use super::text::{Page, Send};
use super::{node, objects, own};
use crate::broker::Broker;

/// Octets of a regular expression for names of queues, as RabbitMQ has it, and of what it may become.
const PATTERN_MAX: usize = 1024;
const COMPILED_MAX: usize = 1 << 20;

/// A page.
#[derive(Debug)]
pub(super) enum View {
    /// `/metrics`: sums.
    Aggregated,
    /// `/metrics/per-object`
    PerObject,
    /// `/metrics/detailed`
    Detailed(Selection),
    /// `/metrics/memory-breakdown`
    Memory,
}

/// What of the details is wanted.
#[derive(Debug, Default)]
pub(super) struct Selection {
    everything: bool,
    families: Vec<String>,
    vhosts: Option<Vec<String>>,
    queues: Option<Regex>,
}

impl Selection {
    fn all() -> Self {
        Self { everything: true, ..Self::default() }
    }

    pub(super) fn wants(&self, group: &str) -> bool {
        self.everything || self.families.iter().any(|family| family == group)
    }

    pub(super) fn wants_any<'g>(&self, groups: impl IntoIterator<Item = &'g str>) -> bool {
        groups.into_iter().any(|group| self.wants(group))
    }

    pub(super) fn has_vhost(&self, name: &str) -> bool {
        self.vhosts.as_ref().is_none_or(|vhosts| vhosts.iter().any(|vhost| vhost == name))
    }

    pub(super) fn has_queue(&self, name: &str) -> bool {
        self.queues.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }
}

impl View {
    /// The page at a path; `None` when there is none.
    ///
    /// # Errors
    ///
    /// What is wrong with the query.
    pub(super) fn find(path: &str, query: &str) -> Result<Option<Self>, String> {
        Ok(Some(match path.trim_end_matches('/') {
            "/metrics" | "/metrics/default" => Self::Aggregated,
            "/metrics/per-object" => Self::PerObject,
            "/metrics/memory-breakdown" => Self::Memory,
            "/metrics/detailed" => Self::Detailed(parse(query)?),
            _ => return Ok(None),
        }))
    }
}

fn parse(query: &str) -> Result<Selection, String> {
    let mut selection = Selection::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or("a query that is not UTF-8")?;
        match name {
            "family" => selection.families.push(value),
            "vhost" => selection.vhosts.get_or_insert_default().push(value),
            "queue" if value.is_empty() => {}
            "queue" if value.len() > PATTERN_MAX => return Err("'queue' regex too long".to_owned()),
            "queue" if selection.queues.is_some() => {
                return Err("Only one 'queue' query parameter is allowed".to_owned());
            }
            "queue" => {
                let pattern = regex::RegexBuilder::new(&value).size_limit(COMPILED_MAX).build();
                selection.queues = Some(pattern.map_err(|error| format!("Invalid 'queue' regex: {error}"))?);
            }
            _ => {}
        }
    }
    Ok(selection)
}

/// Takes escapes apart; `None` when what they stand for is no text.
fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(octets).ok()
}

/// Writes a page; true when all of it was sent. `started` is when the process did.
pub(super) fn write(broker: &Broker, started: Instant, view: &View, send: &mut Send<'_>) -> bool {
    let mut page = Page::new(send);
    match view {
        View::Aggregated => write_all(&mut page, broker, started, None),
        View::PerObject => write_all(&mut page, broker, started, Some(&Selection::all())),
        View::Detailed(selection) => {
            page.prefix = "rabbitmq_detailed_";
            node::put_node(&mut page, broker, started, selection);
            objects::put_each(&mut page, broker, &broker.connections(), selection);
            page.prefix = "rabbitmq_cluster_";
            objects::put_cluster(&mut page, broker, selection);
            page.prefix = "rabbitmq_";
            node::put_identity(&mut page, broker, "detailed");
        }
        View::Memory => {
            own::put_breakdown(&mut page, broker);
            node::put_identity(&mut page, broker, "memory-breakdown");
        }
    }
    page.end()
}

/// Everything about the node, and about the rest as sums or, where there is a selection, each thing on its own.
fn write_all(page: &mut Page<'_>, broker: &Broker, started: Instant, each: Option<&Selection>) {
    let connections = broker.connections();
    let clients = broker.message_statistics(None);
    let sums = objects::Sums::of(broker, &connections);
    node::put_node(page, broker, started, &Selection::all());
    match each {
        None => sums.put(page, &clients),
        Some(selection) => objects::put_each(page, broker, &connections, selection),
    }
    node::put_totals(page, &sums, connections.len());
    node::put_identity(page, broker, if each.is_some() { "per-object" } else { "aggregated" });
    node::put_global(page, broker, &sums, &clients);
    node::put_alarms(page, broker);
    own::put(page, broker, &connections);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(query: &str) -> Result<Selection, String> {
        match View::find("/metrics/detailed", query)? {
            Some(View::Detailed(selection)) => Ok(selection),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn details_are_chosen_by_family_vhost_and_queue() {
        let chosen =
            selection("family=queue_metrics&family=vhost_status&vhost=%2F&vhost=a+b&queue=%5Eq&other=1").unwrap();
        assert!(chosen.wants("queue_metrics") && chosen.wants("vhost_status") && !chosen.wants("node_metrics"));
        assert!(chosen.has_vhost("/") && chosen.has_vhost("a b") && !chosen.has_vhost("c"));
        assert!(chosen.has_queue("q1") && !chosen.has_queue("1q"));
        let nothing = selection("").unwrap();
        assert!(!nothing.wants("queue_metrics") && nothing.has_vhost("c") && nothing.has_queue("1q"));
    }

    #[test]
    fn bad_queries_are_refused() {
        let long = format!("queue={}", "a".repeat(PATTERN_MAX + 1));
        for query in [
            "queue=%28",
            "queue=a&queue=b",
            "vhost=%ff",
            "vhost=%",
            "vhost=%zz",
            "queue=%28.%7B1000%7D%29%7B1000%7D",
            &long,
        ] {
            assert!(selection(query).is_err(), "{query}");
        }
    }

    #[test]
    fn pages_have_their_paths() {
        for path in ["/metrics", "/metrics/", "/metrics/per-object", "/metrics/memory-breakdown"] {
            assert!(View::find(path, "").unwrap().is_some(), "{path}");
        }
        for path in ["", "/", "/metric", "/metrics/other", "/metrics/../metrics"] {
            assert!(View::find(path, "").unwrap().is_none(), "{path}");
        }
    }
}

//! Figures for people, and as JSON.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::options::{ExchangeType, Options};
use super::run::{Counts, Load};
use super::shared::Latencies;

/// One line per second while it runs.
pub(super) fn print_second(second: u32, took: Duration, counts: Counts) -> io::Result<()> {
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    let rate = |count: u64| grouped((count as f64 / seconds) as u64);
    writeln!(
        io::stdout(),
        "{second:>4} s  published {:>11}/s  confirmed {:>11}/s  consumed {:>11}/s",
        rate(counts.published),
        rate(counts.confirmed),
        rate(counts.consumed)
    )
}

/// Some figures of a run that belong together.
pub(super) struct Section {
    /// For people.
    pub(super) lines: Vec<String>,
    /// The member of the JSON object.
    pub(super) name: &'static str,
    /// For machines.
    pub(super) json: Value,
}

/// The end: text, or one JSON object as the last line.
pub(super) fn print(options: &Options, load: Option<&Load>, sections: Vec<Section>) -> io::Result<()> {
    let mut out = io::stdout();
    if options.json {
        return writeln!(out, "{}", to_json(options, load, sections));
    }
    for line in sections.iter().flat_map(|section| &section.lines) {
        writeln!(out, "{line}")?;
    }
    for line in load.map(load_lines).unwrap_or_default() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn load_lines(load: &Load) -> Vec<String> {
    let counts = load.counts;
    let flow = |name: &str, count: u64| {
        format!(
            "{name}  {} msg/s  ({} in {:.1} s)",
            grouped((count as f64 / load.seconds) as u64),
            grouped(count),
            load.seconds
        )
    };
    let mut lines = vec![flow("published", counts.published)];
    if counts.confirmed > 0 {
        lines.push(flow("confirmed", counts.confirmed));
    }
    if counts.nacked > 0 {
        lines.push(flow("nacked   ", counts.nacked));
    }
    lines.push(flow("consumed ", counts.consumed));
    for (name, latencies) in [("confirm latency   ", &load.confirm_us), ("end-to-end latency", &load.latency_us)] {
        if !latencies.0.is_empty() {
            lines.push(format!("{name}  {}", percentiles_text(latencies)));
        }
    }
    if let Some(broker) = &load.broker {
        lines.push(format!(
            "broker     {:.2} s CPU, {} messages per CPU second, {:.1} MiB peak memory",
            broker.cpu_seconds,
            grouped(per_cpu_second(load).unwrap_or_default() as u64),
            broker.rss_peak_bytes as f64 / (1024.0 * 1024.0)
        ));
    }
    lines.push(format!(
        "generator  {:.2} s CPU, {:.2} cores{}",
        load.generator_cpu_seconds,
        load.generator_cpu_seconds / load.seconds,
        if is_generator_bound(load) == Some(true) { "; the broker was not busy" } else { "" }
    ));
    lines
}

/// Messages through the broker for each second of its CPU time.
pub(super) fn per_cpu_second(load: &Load) -> Option<f64> {
    let messages = load.counts.published.max(load.counts.consumed);
    let cpu = load.broker.as_ref()?.cpu_seconds;
    (cpu > 0.0).then(|| messages as f64 / cpu)
}

/// Cores that the broker used.
fn broker_share(load: &Load) -> Option<f64> {
    load.broker.as_ref().map(|broker| broker.cpu_seconds / load.seconds)
}

/// Whether the broker had time to spare, so that the throughput may be the generator's limit and not the broker's.
fn is_generator_bound(load: &Load) -> Option<bool> {
    const BUSY: f64 = 0.8;
    broker_share(load).map(|share| share < BUSY)
}

fn to_json(options: &Options, load: Option<&Load>, sections: Vec<Section>) -> Value {
    let mut object = match load {
        Some(load) => load_json(options, load),
        None => json!({}),
    };
    for section in sections {
        object[section.name] = section.json;
    }
    object
}

fn load_json(options: &Options, load: &Load) -> Value {
    let counts = load.counts;
    let broker = load.broker.as_ref();
    json!({
        "producers": options.producers,
        "consumers": options.consumers,
        "queues": options.queues,
        "size": options.size,
        "persistent": options.persistent,
        "exchange_type": options.exchange_type.map(ExchangeType::name),
        "bindings": options.bindings,
        "confirm": options.confirm,
        "auto_ack": options.auto_ack,
        "seconds": load.seconds,
        "published": counts.published,
        "confirmed": counts.confirmed,
        "nacked": counts.nacked,
        "consumed": counts.consumed,
        "published_rate": counts.published as f64 / load.seconds,
        "confirmed_rate": counts.confirmed as f64 / load.seconds,
        "consumed_rate": counts.consumed as f64 / load.seconds,
        "confirm_latency_us": percentiles_json(&load.confirm_us),
        "latency_us": percentiles_json(&load.latency_us),
        "broker_cpu_seconds": broker.map(|broker| broker.cpu_seconds),
        "broker_rss_peak_bytes": broker.map(|broker| broker.rss_peak_bytes),
        "messages_per_broker_cpu_second": per_cpu_second(load),
        "generator_cpu_seconds": load.generator_cpu_seconds,
        "generator_cpu_share": load.generator_cpu_seconds / load.seconds,
        "broker_cpu_share": broker_share(load),
        "generator_bound": is_generator_bound(load),
    })
}

fn percentiles(latencies: &Latencies) -> [(&'static str, u64); 4] {
    let histogram = &latencies.0;
    [
        ("p50", histogram.value_at_quantile(0.50)),
        ("p95", histogram.value_at_quantile(0.95)),
        ("p99", histogram.value_at_quantile(0.99)),
        ("max", histogram.max()),
    ]
}

pub(super) fn percentiles_text(latencies: &Latencies) -> String {
    percentiles(latencies).map(|(name, us)| format!("{name} {} µs", grouped(us))).join("  ")
}

/// `null` when nothing was measured: a latency of 0 would look like a result.
pub(super) fn percentiles_json(latencies: &Latencies) -> Value {
    if latencies.0.is_empty() {
        return Value::Null;
    }
    percentiles(latencies).into_iter().map(|(name, us)| (name.to_owned(), Value::from(us))).collect()
}

/// 1234567 as 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::options::tests::parse;
    use crate::bench::run::BrokerUse;

    fn load() -> Load {
        let mut latency_us = Latencies::new().unwrap();
        (1..=100).for_each(|us| latency_us.record(0, us * 1000, 1));
        Load {
            seconds: 2.0,
            counts: Counts { published: 3000, confirmed: 0, nacked: 0, consumed: 2000 },
            confirm_us: Latencies::new().unwrap(),
            latency_us,
            generator_cpu_seconds: 1.0,
            broker: Some(BrokerUse { cpu_seconds: 0.5, rss_peak_bytes: 1024 * 1024 }),
        }
    }

    #[test]
    fn json_has_the_promised_fields() {
        let object = to_json(&parse(&[]), Some(&load()), Vec::new());
        assert_eq!(object["published"], 3000);
        assert_eq!(object["consumed"], 2000);
        assert_eq!(object["seconds"], 2.0);
        assert_eq!(object["published_rate"], 1500.0);
        assert_eq!(object["consumed_rate"], 1000.0);
        assert_eq!(object["confirm_latency_us"], Value::Null);
        assert_eq!(object["latency_us"]["p50"], 50);
        assert_eq!(object["latency_us"]["p95"], 95);
        assert_eq!(object["latency_us"]["p99"], 99);
        assert_eq!(object["latency_us"]["max"], 100);
        assert_eq!(object["broker_cpu_seconds"], 0.5);
        assert_eq!(object["broker_rss_peak_bytes"], 1024 * 1024);
        assert_eq!(object["messages_per_broker_cpu_second"], 6000.0);
        assert_eq!(object["generator_cpu_share"], 0.5);
        assert_eq!(object["broker_cpu_share"], 0.25);
        assert_eq!(object["generator_bound"], true);
    }

    #[test]
    fn text_leaves_out_what_was_not_measured() {
        let lines = load_lines(&load());
        assert_eq!(lines[0], "published  1,500 msg/s  (3,000 in 2.0 s)");
        assert!(!lines.iter().any(|line| line.starts_with("confirm")));
        assert!(lines.iter().any(|line| line.contains("6,000 messages per CPU second")));
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}

//! `warren log verify`

use std::io::Write;

use serde_json::{Value, json};
use storage::inspect::{Counts, Finding, Inspector, Report};

use super::VerifyOptions;
use super::names::Names;

/// Prints what was found; returns whether there is no damage.
pub(super) fn run(inspector: &Inspector, options: &VerifyOptions, out: &mut impl Write) -> anyhow::Result<bool> {
    let report = inspector.verify()?;
    let names = Names::new(&inspector.topology());
    if options.json {
        writeln!(out, "{:#}", as_json(&report, &names))?;
    } else {
        print(&report, &names, out)?;
    }
    Ok(report.damage.is_empty())
}

fn print(report: &Report, names: &Names, out: &mut impl Write) -> anyhow::Result<()> {
    let Counts { segments, groups, entries, log_bytes, free_files, large_files, quarantined, queues, messages, .. } =
        report.counts;
    writeln!(out, "{segments} segments, {groups} groups, {entries} entries, {log_bytes} bytes of log")?;
    writeln!(out, "{messages} messages in {queues} queues, {large_files} of them in files of their own")?;
    writeln!(out, "{free_files} free files, {quarantined} in quarantine")?;
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    for finding in &report.damage {
        writeln!(out, "damage: {}", sentence(finding, names))?;
    }
    match report.damage.len() {
        0 => writeln!(out, "no damage")?,
        count => writeln!(out, "{count} times damage")?,
    }
    Ok(())
}

fn sentence(finding: &Finding, names: &Names) -> String {
    let mut text = finding.path.display().to_string();
    if let Some(offset) = finding.offset {
        text += &format!(", offset {offset}");
    }
    if let Some((first, last)) = finding.lsns {
        text += &format!(", LSN {first} to {last}");
    }
    if let Some((queue, first, last)) = finding.messages {
        text += &format!(", {}, messages {first} to {last}", names.text(queue));
    }
    format!("{text}: {}", finding.what)
}

fn as_json(report: &Report, names: &Names) -> Value {
    let Counts { segments, groups, entries, log_bytes, free_files, large_files, quarantined, queues, messages, .. } =
        report.counts;
    let damage: Vec<Value> = report
        .damage
        .iter()
        .map(|finding| {
            let named = finding.messages.and_then(|(queue, ..)| names.get(queue));
            json!({
                "file": finding.path.display().to_string(),
                "offset": finding.offset,
                "first_lsn": finding.lsns.map(|(first, _)| first),
                "last_lsn": finding.lsns.map(|(_, last)| last),
                "queue_id": finding.messages.map(|(queue, ..)| queue),
                "vhost": named.map(|(vhost, _)| vhost),
                "queue": named.map(|(_, name)| name),
                "first_message": finding.messages.map(|(_, first, _)| first),
                "last_message": finding.messages.map(|(.., last)| last),
                "what": finding.what,
            })
        })
        .collect();
    json!({
        "segments": segments,
        "groups": groups,
        "entries": entries,
        "log_bytes": log_bytes,
        "free_files": free_files,
        "large_files": large_files,
        "quarantined": quarantined,
        "queues": queues,
        "messages": messages,
        "notes": report.notes,
        "damage": damage,
    })
}

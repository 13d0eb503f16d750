//! What is known of the broker, as text.

use serde_json::{Value, json};

use super::checks::listeners;
use super::{Command, Outcome, command, exactly};
use crate::ctl::client::segment;
use crate::ctl::failure::Failure;
use crate::ctl::{Session, completions, overview, pretty, print, report, status};

pub(super) const COMMANDS: &[Command] = &[
    command("overview", "", "What goes on, on one page; `warren ctl` alone shows the same", overview::run),
    command("status", "", "How the broker is", show_status),
    command("cluster_status", "", "Nodes, alarms, listeners, features", cluster),
    command("environment", "", "Every setting with its value and where that comes from", environment),
    command("report", "[FILE]", "All there is to know, without secrets, for whoever is asked for help", report::run),
    command("listeners", "", "What is listened on", show_listeners),
    command("alarms", "", "Which alarms there are", alarms),
    command("memory_breakdown", "[--unit bytes|mb|gb]", "Who holds how much memory", memory),
    command("server_version", "", "The version of RabbitMQ that this is compatible with", server_version),
    command("log_location", "", "Where the log goes", log_location),
    command("list_hashes", "", "How passwords can be hashed", hashes),
    command("completions", "bash|zsh|fish", "A script for the shell, that completes commands", completions::run),
];

/// JSON, if that is wanted.
fn as_json(session: &Session) -> bool {
    session.words.has("json") || session.words.get("formatter") == Some("json")
}

fn show_status(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    // Over HTTP there is less to know.
    let answer = if session.host().is_some() { remote_status(session)? } else { session.get("/api/warren/status")? };
    print(&if as_json(session) { pretty(&answer) } else { status::text(&answer) })
}

fn remote_status(session: &Session) -> Result<Value, Failure> {
    let overview = session.get("/api/overview")?;
    let node = first_node(session)?;
    let alarms = [("mem_alarm", "memory"), ("disk_free_alarm", "disk")];
    let on: Vec<_> = alarms.iter().filter(|(field, _)| node[*field] == true).map(|(_, name)| *name).collect();
    let on = if on.is_empty() { String::new() } else { format!("low on {}", on.join(" and ")) };
    Ok(json!({
        "version": overview["warren_version"],
        "node": node["name"],
        "pid": node["os_pid"].as_str().and_then(|pid| pid.parse::<u64>().ok()),
        "uptime_s": node["uptime"].as_u64().map(|ms| ms / 1000),
        "data_dir": node["db_dir"],
        "connections": overview["object_totals"]["connections"],
        "queues": overview["object_totals"]["queues"],
        "vhosts": session.get("/api/vhosts?columns=name")?.as_array().map(Vec::len),
        "alarms": on,
    }))
}

pub(in crate::ctl) fn first_node(session: &Session) -> Result<Value, Failure> {
    Ok(session.get("/api/nodes")?.get(0).cloned().unwrap_or_default())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn cluster(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let node = first_node(session)?;
    let (name, overview) = (text(&node, "name"), session.get("/api/overview")?);
    let flags = session.get("/api/feature-flags")?;
    let flags = flags.as_array().cloned().unwrap_or_default();
    let listeners = listeners(session)?;
    let alarms = alarms_of(&node);
    if as_json(session) {
        let of_node = |value: Value| json!({name: value});
        return print(&pretty(&json!({
            "cluster_name": overview["cluster_name"],
            "disk_nodes": [name],
            "ram_nodes": [],
            "running_nodes": [name],
            "versions": of_node(json!({"rabbitmq_version": overview["rabbitmq_version"], "warren_version": overview["warren_version"]})),
            "maintenance_status": of_node("not under maintenance".into()),
            "alarms": alarms,
            "partitions": {},
            "listeners": of_node(listeners.into()),
            "cpu_cores": of_node(node["processors"].clone()),
            "feature_flags": flags,
        })));
    }
    session.say(&format!("Cluster status of node {name} ..."))?;
    let none_or = |lines: Vec<String>| if lines.is_empty() { "(none)".to_owned() } else { lines.join("\n") };
    let sections = [
        (
            "Basics",
            format!(
                "Cluster name: {}\nTotal CPU cores available cluster-wide: {}",
                text(&overview, "cluster_name"),
                node["processors"]
            ),
        ),
        ("Disk Nodes", name.to_owned()),
        ("Running Nodes", name.to_owned()),
        (
            "Versions",
            format!(
                "{name}: Warren {}, as RabbitMQ {}",
                text(&overview, "warren_version"),
                text(&overview, "rabbitmq_version")
            ),
        ),
        ("CPU Cores", format!("Node: {name}, available CPU cores: {}", node["processors"])),
        ("Maintenance status", format!("Node: {name}, status: not under maintenance")),
        ("Alarms", none_or(alarms)),
        ("Network Partitions", "(none)".to_owned()),
        (
            "Listeners",
            none_or(listeners.iter().map(|listener| format!("Node: {name}, {}", described(listener))).collect()),
        ),
        (
            "Feature flags",
            none_or(
                flags
                    .iter()
                    .map(|flag| format!("Flag: {}, state: {}", text(flag, "name"), text(flag, "state")))
                    .collect(),
            ),
        ),
    ];
    let shown: Vec<_> = sections.iter().map(|(title, body)| format!("{title}\n\n{body}\n")).collect();
    print(&shown.join("\n"))
}

fn alarms_of(node: &Value) -> Vec<String> {
    let name = text(node, "name");
    let named = [("mem_alarm", "Memory"), ("disk_free_alarm", "Free disk space")];
    let on = named.iter().filter(|(field, _)| node[*field] == true);
    on.map(|(_, what)| format!("{what} alarm on node {name}")).collect()
}

/// A listener in words.
fn described(listener: &Value) -> String {
    let protocol = text(listener, "protocol");
    let purpose = match protocol {
        "amqp" => "AMQP 0-9-1",
        "amqp/ssl" => "AMQP 0-9-1 over TLS",
        "http" => "HTTP API",
        "https" => "HTTP API over TLS (HTTPS)",
        "http/prometheus" => "Prometheus exporter API over HTTP",
        _ => protocol,
    };
    let (address, port) = (text(listener, "ip_address"), &listener["port"]);
    let interface = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("interface: {interface}, port: {port}, protocol: {protocol}, purpose: {purpose}")
}

fn show_listeners(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let all = listeners(session)?;
    if as_json(session) {
        return print(&pretty(&json!({"listeners": all})));
    }
    session.say("Asking the node to report its protocol listeners ...")?;
    let lines: Vec<_> = all.iter().map(described).collect();
    print(&lines.iter().map(|line| format!("I{}\n", &line[1..])).collect::<String>())
}

fn alarms(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let node = first_node(session)?;
    let on = alarms_of(&node);
    if on.is_empty() {
        return print(&format!("Node {} reported no alarms, local or clusterwide\n", text(&node, "name")));
    }
    print(&(on.join("\n") + "\n"))
}

fn environment(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let settings = session.get("/api/warren/environment")?;
    if as_json(session) {
        return print(&pretty(&settings));
    }
    let lines = settings.as_object().into_iter().flatten().filter_map(|(_, described)| described.as_str());
    print(&lines.map(|line| format!("{line}\n")).collect::<String>())
}

fn memory(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let (unit, divisor) = match session.words.get("unit").unwrap_or("gb") {
        "bytes" => ("bytes", 1.0),
        "mb" => ("mb", 1e6),
        "gb" => ("gb", 1e9),
        other => return Err(Failure::usage(format!("--unit is bytes, mb or gb, not {other}"))),
    };
    let name = text(&first_node(session)?, "name").to_owned();
    let answer = session.get(&format!("/api/nodes/{}/memory", segment(&name)))?;
    let parts = answer["memory"].as_object().cloned().unwrap_or_default();
    if as_json(session) {
        return print(&pretty(&answer["memory"]));
    }
    let mut parts: Vec<_> = parts.iter().filter_map(|(name, bytes)| Some((name, bytes.as_f64()?))).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let total: f64 = parts.iter().map(|(_, bytes)| bytes).sum::<f64>().max(1.0);
    session.say(&format!("Reporting memory breakdown on node {name}..."))?;
    let line = |(name, bytes): &(&String, f64)| {
        let share = bytes / total * 100.0;
        let amount = if unit == "bytes" { bytes.to_string() } else { format!("{:.4}", bytes / divisor) };
        format!("{name}: {amount} {unit} ({share:.2}%)\n")
    };
    print(&parts.iter().map(line).collect::<String>())
}

fn server_version(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let version = session.get("/api/version")?;
    session.say("Asking the node for its RabbitMQ version...")?;
    print(&format!("{}\n", version.as_str().unwrap_or_default()))
}

fn log_location(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let node = first_node(session)?;
    let files = node["log_files"].as_array().cloned().unwrap_or_default();
    print(&files.iter().filter_map(Value::as_str).map(|file| format!("{file}\n")).collect::<String>())
}

/// Those that definitions can have.
fn hashes(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    session.say("Listing supported hash algorithms ...")?;
    print("[sha512,sha256,md5]\n")
}

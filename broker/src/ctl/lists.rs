//! The commands that list something.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::client::segment;
use super::failure::{DATA, Failure};
use super::terminal::Style;
use super::{Session, print, table};

/// One of them.
pub(super) struct List {
    pub(super) command: &'static str,
    pub(super) about: &'static str,
    banner: &'static str,
    /// `{v}` is the virtual host of `--vhost`, `{0}` the first argument.
    path: &'static str,
    pub(super) columns: &'static [&'static str],
    default: &'static [&'static str],
    /// Arguments and options before the columns.
    takes: &'static str,
    /// What `rabbitmqctl` does with a virtual host that is not there.
    missing_vhost: MissingVhost,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MissingVhost {
    /// Nothing is in it.
    IsEmpty,
    /// It is a mistake.
    IsWrong,
}

const QUEUES: &[&str] = &[
    "name",
    "durable",
    "auto_delete",
    "exclusive",
    "arguments",
    "type",
    "policy",
    "operator_policy",
    "effective_policy_definition",
    "pid",
    "owner_pid",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "messages_ready_ram",
    "messages_unacknowledged_ram",
    "messages_ram",
    "messages_persistent",
    "message_bytes",
    "message_bytes_ready",
    "message_bytes_unacknowledged",
    "message_bytes_ram",
    "message_bytes_persistent",
    "head_message_timestamp",
    "consumers",
    "consumer_capacity",
    "consumer_utilisation",
    "exclusive_consumer_pid",
    "exclusive_consumer_tag",
    "disk_reads",
    "disk_writes",
    "memory",
    "leader",
    "members",
    "online",
    "state",
];
const EXCHANGES: &[&str] = &["name", "type", "durable", "auto_delete", "internal", "arguments", "policy"];
const CONNECTIONS: &[&str] = &[
    "pid",
    "name",
    "port",
    "host",
    "peer_port",
    "peer_host",
    "ssl",
    "ssl_protocol",
    "ssl_key_exchange",
    "ssl_cipher",
    "ssl_hash",
    "peer_cert_subject",
    "peer_cert_issuer",
    "peer_cert_validity",
    "peer_cert_serial_number",
    "protocol",
    "auth_mechanism",
    "user",
    "vhost",
    "timeout",
    "frame_max",
    "channel_max",
    "channels",
    "client_properties",
    "connected_at",
    "container_id",
    "recv_oct",
    "recv_cnt",
    "send_oct",
    "send_cnt",
    "send_pend",
    "state",
    "type",
    "node",
    "user_provided_name",
];
const CHANNELS: &[&str] = &[
    "pid",
    "connection",
    "name",
    "number",
    "user",
    "vhost",
    "transactional",
    "confirm",
    "consumer_count",
    "messages_unacknowledged",
    "messages_uncommitted",
    "acks_uncommitted",
    "messages_unconfirmed",
    "prefetch_count",
    "global_prefetch_count",
    "state",
];
const CONSUMERS: &[&str] = &[
    "queue_name",
    "channel_pid",
    "consumer_tag",
    "ack_required",
    "prefetch_count",
    "active",
    "activity_status",
    "arguments",
];
const BINDINGS: &[&str] =
    &["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"];
const POLICIES: &[&str] = &["vhost", "name", "pattern", "apply-to", "definition", "priority"];
const VHOSTS: &[&str] = &[
    "name",
    "description",
    "tags",
    "default_queue_type",
    "protected_from_deletion",
    "metadata",
    "tracing",
    "cluster_state",
];

use MissingVhost::{IsEmpty, IsWrong};

pub(super) const LISTS: [List; 21] = [
    List {
        default: &["name", "messages"],
        takes: "[-p VHOST] [--online] [--offline] [--local]",
        ..list("list_queues", "Queues", "Listing queues for vhost {v} ...", "/api/queues/{v}", QUEUES, IsEmpty)
    },
    List {
        default: &["name"],
        takes: "[-p VHOST] [--local] [--queue-timeout MS]",
        ..list(
            "list_unresponsive_queues",
            "Queues that do not answer",
            "Listing unresponsive queues for vhost {v} ...",
            "/api/queues/{v}",
            &["name", "durable", "auto_delete", "arguments", "pid"],
            IsEmpty,
        )
    },
    List {
        default: &["name", "type"],
        ..list(
            "list_exchanges",
            "Exchanges",
            "Listing exchanges for vhost {v} ...",
            "/api/exchanges/{v}",
            EXCHANGES,
            IsEmpty,
        )
    },
    list("list_bindings", "Bindings", "Listing bindings for vhost {v}...", "/api/bindings/{v}", BINDINGS, IsEmpty),
    List {
        default: &["user", "peer_host", "peer_port", "state"],
        ..list("list_connections", "Connections", "Listing connections ...", "/api/connections", CONNECTIONS, IsEmpty)
    },
    List {
        default: &["pid", "user", "consumer_count", "messages_unacknowledged"],
        ..list("list_channels", "Channels", "Listing channels ...", "/api/channels", CHANNELS, IsEmpty)
    },
    list("list_consumers", "Consumers", "Listing consumers in vhost {v} ...", "/api/consumers/{v}", CONSUMERS, IsEmpty),
    list("list_users", "Users", "Listing users ...", "/api/users", &["user", "tags"], IsEmpty),
    List {
        default: &["name"],
        ..list("list_vhosts", "Virtual hosts", "Listing vhosts ...", "/api/vhosts", VHOSTS, IsEmpty)
    },
    list(
        "list_permissions",
        "What users may do in a virtual host",
        "Listing permissions for vhost \"{v}\" ...",
        "/api/vhosts/{v}/permissions",
        &["user", "configure", "write", "read"],
        IsWrong,
    ),
    list(
        "list_topic_permissions",
        "Which topics users may use in a virtual host",
        "Listing topic permissions for vhost \"{v}\" ...",
        "/api/vhosts/{v}/topic-permissions",
        &["user", "exchange", "write", "read"],
        IsWrong,
    ),
    List {
        takes: "USER",
        ..list(
            "list_user_permissions",
            "What a user may do",
            "Listing permissions for user \"{0}\" ...",
            "/api/users/{0}/permissions",
            &["vhost", "configure", "write", "read"],
            IsEmpty,
        )
    },
    List {
        takes: "USER",
        ..list(
            "list_user_topic_permissions",
            "Which topics a user may use",
            "Listing topic permissions for user \"{0}\" ...",
            "/api/users/{0}/topic-permissions",
            &["vhost", "exchange", "write", "read"],
            IsEmpty,
        )
    },
    list("list_policies", "Policies", "Listing policies for vhost \"{v}\" ...", "/api/policies/{v}", POLICIES, IsWrong),
    list(
        "list_operator_policies",
        "Policies that limit those of users",
        "Listing operator policy overrides for vhost \"{v}\" ...",
        "/api/operator-policies/{v}",
        POLICIES,
        IsWrong,
    ),
    list(
        "list_parameters",
        "Parameters of a virtual host",
        "Listing runtime parameters for vhost \"{v}\" ...",
        "/api/parameters",
        &["component", "name", "value"],
        IsWrong,
    ),
    list(
        "list_global_parameters",
        "Parameters of the whole broker",
        "Listing global runtime parameters ...",
        "/api/global-parameters",
        &["name", "value"],
        IsEmpty,
    ),
    List {
        takes: "[-p VHOST | --global]",
        ..list(
            "list_vhost_limits",
            "Limits of virtual hosts",
            "Listing limits for vhost \"{v}\" ...",
            "/api/vhost-limits/{v}",
            &["vhost", "limits"],
            IsWrong,
        )
    },
    List {
        takes: "[--user USER | --global]",
        ..list(
            "list_user_limits",
            "Limits of users",
            "Listing limits for users ...",
            "/api/user-limits",
            &["user", "limits"],
            IsEmpty,
        )
    },
    list(
        "list_feature_flags",
        "What this version can do",
        "Listing feature flags ...",
        "/api/feature-flags",
        &["name", "state"],
        IsEmpty,
    ),
    List {
        default: &["name", "deprecation_phase"],
        ..list(
            "list_deprecated_features",
            "What RabbitMQ will drop",
            "Listing deprecated features ...",
            "/api/deprecated-features",
            &["name", "deprecation_phase", "provided_by", "desc", "doc_url"],
            IsEmpty,
        )
    },
];

/// Shows all columns unless it is told which.
const fn list(
    command: &'static str,
    about: &'static str,
    banner: &'static str,
    path: &'static str,
    columns: &'static [&'static str],
    missing_vhost: MissingVhost,
) -> List {
    List { command, about, banner, path, columns, default: columns, takes: "", missing_vhost }
}

impl List {
    pub(super) fn usage(&self) -> String {
        let vhost = if self.takes.is_empty() && self.banner.contains("{v}") { "[-p VHOST]" } else { self.takes };
        format!("{vhost} [COLUMN...]").trim_start().to_owned()
    }
}

pub(super) fn run(session: &Session, list: &List) -> Result<(), Failure> {
    let mut arguments = session.words.words.iter().skip(1);
    let fill = |text: &str, name: &dyn Fn(&str) -> String, first: Option<&String>| {
        text.replace("{v}", &name(session.words.vhost())).replace("{0}", &name(first.map_or("", String::as_str)))
    };
    let first = if list.path.contains("{0}") {
        Some(arguments.next().ok_or_else(|| Failure::usage("not enough arguments."))?)
    } else {
        None
    };
    let columns = columns(list, arguments)?;
    let formatter = session.words.get("formatter");
    let style = Style::of_output(session.words.get("color"));
    let headers = !session.words.has("no-table-headers") && !session.words.has("silent");
    let items = items(session, list, &fill(list.path, &segment, first))?;
    let as_json = formatter.is_some_and(|name| name.starts_with("json")) || session.words.has("json");
    let rows: Vec<Vec<Value>> = items
        .iter()
        .map(|item| {
            let cell = |column: &String| match value(list, item, column) {
                Value::Object(object) if as_json && TABLES.contains(&column.as_str()) => typed(&object),
                value => value,
            };
            columns.iter().map(cell).collect()
        })
        .collect();
    if formatter.is_none_or(|name| name == "table" || name == "pretty_table") && !as_json {
        session.say(&fill(list.banner, &str::to_owned, first))?;
    }
    let formatter = if as_json { Some("json") } else { formatter };
    print(&table::format(formatter, &columns, &rows, headers, style)?)
}

/// What is listed.
fn items(session: &Session, list: &List, path: &str) -> Result<Vec<Value>, Failure> {
    let vhost = session.words.vhost();
    let words = &session.words;
    let path = match list.command {
        "list_vhost_limits" if words.has("global") => "/api/vhost-limits".to_owned(),
        "list_user_limits" if words.has("user") => {
            format!("/api/user-limits/{}", segment(words.get("user").unwrap_or_default()))
        }
        _ => path.to_owned(),
    };
    let wrong = || Failure::new(DATA, format!("Virtual host '{vhost}' does not exist"));
    if list.command == "list_parameters" {
        session
            .get(&format!("/api/vhosts/{}", segment(vhost)))
            .map_err(|failure| if failure.is_missing() { wrong() } else { failure })?;
    }
    let found = match session.get(&path) {
        Err(failure) if failure.is_missing() && list.banner.contains("{v}") => {
            if list.missing_vhost == IsWrong {
                return Err(wrong());
            }
            Value::Null
        }
        found => found?,
    };
    let mut items = match found {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    match list.command {
        // Parameters of all virtual hosts come at one path.
        "list_parameters" => items.retain(|item| item["vhost"] == *vhost),
        // Each was asked for what the answer tells of it, under its lock: all have answered.
        "list_unresponsive_queues" => items.clear(),
        // There is one node, and it is up.
        "list_queues" if words.has("offline") => items.clear(),
        "list_channels" => add_pids(session, &mut items)?,
        _ => {}
    }
    Ok(items)
}

/// What a process is in RabbitMQ has a number in its connection's place here, which `close_connection` takes.
fn add_pids(session: &Session, channels: &mut [Value]) -> Result<(), Failure> {
    let connections = session.get("/api/connections?columns=name,pid")?;
    let connections = connections.as_array().cloned().unwrap_or_default();
    let pids: HashMap<&str, &str> =
        connections.iter().filter_map(|item| Some((item["name"].as_str()?, item["pid"].as_str()?))).collect();
    for channel in channels {
        let Some(pid) = channel["connection_details"]["name"].as_str().and_then(|name| pids.get(name)) else {
            continue;
        };
        channel["pid"] = format!("{}.{}>", pid.trim_end_matches(".0>"), channel["number"]).into();
        channel["connection"] = (*pid).into();
    }
    Ok(())
}

/// Columns that are tables of arguments.
const TABLES: [&str; 2] = ["arguments", "client_properties"];

/// A table as `rabbitmqctl` writes it in JSON: names, types and values.
fn typed(object: &Map<String, Value>) -> Value {
    object
        .iter()
        .map(|(name, value)| [Value::from(name.as_str()), type_of(value).into(), inner(value)])
        .map(Value::from)
        .collect()
}

fn inner(value: &Value) -> Value {
    match value {
        Value::Object(object) => typed(object),
        Value::Array(items) => {
            items.iter().map(|item| Value::from([Value::from(type_of(item)), inner(item)])).collect()
        }
        other => other.clone(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "void",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "double",
        Value::Number(_) => "long",
        Value::String(_) => "longstr",
        Value::Array(_) => "array",
        Value::Object(_) => "table",
    }
}

fn columns<'a>(list: &List, given: impl Iterator<Item = &'a String>) -> Result<Vec<String>, Failure> {
    let given: Vec<String> = given.flat_map(|word| word.split(',')).map(str::to_owned).collect();
    if given.is_empty() {
        return Ok(list.default.iter().map(|name| (*name).to_owned()).collect());
    }
    let unknown: Vec<_> = given.iter().filter(|name| !list.columns.contains(&name.as_str())).cloned().collect();
    if unknown.is_empty() {
        return Ok(given);
    }
    Err(Failure::usage(format!("Info key(s) {} are not supported", unknown.join(","))))
}

/// Where a column is, when it is not called the same in the API.
fn value(list: &List, item: &Value, column: &str) -> Value {
    let name = match (list.command, column) {
        ("list_users", "user") => "name",
        ("list_vhost_limits" | "list_user_limits", "limits") => "value",
        ("list_consumers", "queue_name") => return item["queue"]["name"].clone(),
        ("list_consumers", "channel_pid") => return item["channel_details"]["name"].clone(),
        ("list_bindings", "source_name") => "source",
        ("list_bindings", "source_kind") => return "exchange".into(),
        ("list_bindings", "destination_name") => "destination",
        ("list_bindings", "destination_kind") => "destination_type",
        _ => column,
    };
    match item.get(name) {
        // JSON as it stands: RabbitMQ shows these so.
        Some(value @ Value::Object(_)) if matches!(name, "definition" | "value") => value.to_string().into(),
        Some(value) => value.clone(),
        None => Value::Null,
    }
}

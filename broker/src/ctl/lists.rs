//! The commands that list something.

use serde_json::Value;

use super::client::segment;
use super::failure::Failure;
use super::{Session, print, table};

/// One of them.
pub(super) struct List {
    pub(super) command: &'static str,
    banner: &'static str,
    /// `{v}` is the virtual host of `--vhost`, `{0}` the first argument.
    path: &'static str,
    columns: &'static [&'static str],
    default: &'static [&'static str],
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
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "consumers",
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
    "protocol",
    "auth_mechanism",
    "user",
    "vhost",
    "client_properties",
    "connected_at",
    "state",
    "type",
    "node",
    "user_provided_name",
];
const BINDINGS: &[&str] =
    &["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"];
const POLICIES: &[&str] = &["vhost", "name", "pattern", "apply-to", "definition", "priority"];
const VHOSTS: &[&str] =
    &["name", "description", "tags", "default_queue_type", "protected_from_deletion", "metadata", "tracing"];

pub(super) const LISTS: [List; 17] = [
    list("list_queues", "Listing queues for vhost {v} ...", "/api/queues/{v}", QUEUES, &["name", "messages"]),
    list("list_exchanges", "Listing exchanges for vhost {v} ...", "/api/exchanges/{v}", EXCHANGES, &["name", "type"]),
    list("list_bindings", "Listing bindings for vhost {v}...", "/api/bindings/{v}", BINDINGS, BINDINGS),
    list(
        "list_connections",
        "Listing connections ...",
        "/api/connections",
        CONNECTIONS,
        &["user", "peer_host", "peer_port", "state"],
    ),
    list("list_users", "Listing users ...", "/api/users", &["user", "tags"], &["user", "tags"]),
    list("list_vhosts", "Listing vhosts ...", "/api/vhosts", VHOSTS, &["name"]),
    plain(
        "list_permissions",
        "Listing permissions for vhost \"{v}\" ...",
        "/api/vhosts/{v}/permissions",
        &["user", "configure", "write", "read"],
    ),
    plain(
        "list_topic_permissions",
        "Listing topic permissions for vhost \"{v}\" ...",
        "/api/vhosts/{v}/topic-permissions",
        &["user", "exchange", "write", "read"],
    ),
    plain(
        "list_user_permissions",
        "Listing permissions for user \"{0}\" ...",
        "/api/users/{0}/permissions",
        &["vhost", "configure", "write", "read"],
    ),
    plain(
        "list_user_topic_permissions",
        "Listing topic permissions for user \"{0}\" ...",
        "/api/users/{0}/topic-permissions",
        &["vhost", "exchange", "write", "read"],
    ),
    plain("list_policies", "Listing policies for vhost \"{v}\" ...", "/api/policies/{v}", POLICIES),
    plain(
        "list_operator_policies",
        "Listing operator policy overrides for vhost \"{v}\" ...",
        "/api/operator-policies/{v}",
        POLICIES,
    ),
    plain(
        "list_parameters",
        "Listing runtime parameters for vhost \"{v}\" ...",
        "/api/parameters?vhost={v}",
        &["component", "name", "value"],
    ),
    plain(
        "list_global_parameters",
        "Listing global runtime parameters ...",
        "/api/global-parameters",
        &["name", "value"],
    ),
    plain("list_vhost_limits", "Listing limits for vhost \"{v}\" ...", "/api/vhost-limits/{v}", &["vhost", "limits"]),
    plain("list_user_limits", "Listing limits for users ...", "/api/user-limits", &["user", "limits"]),
    plain("cluster_status", "Cluster status ...", "/api/nodes", &["name", "type", "running"]),
];

const fn list(
    command: &'static str,
    banner: &'static str,
    path: &'static str,
    columns: &'static [&'static str],
    default: &'static [&'static str],
) -> List {
    List { command, banner, path, columns, default }
}

/// All columns, always.
const fn plain(
    command: &'static str,
    banner: &'static str,
    path: &'static str,
    columns: &'static [&'static str],
) -> List {
    List { command, banner, path, columns, default: columns }
}

pub(super) fn find(command: &str) -> Option<&'static List> {
    LISTS.iter().find(|list| list.command == command)
}

pub(super) fn run(session: &Session, list: &List) -> Result<(), Failure> {
    let mut arguments = session.words.words.iter().skip(1);
    let fill = |text: &str, name: &dyn Fn(&str) -> String, first: Option<&String>| {
        text.replace("{v}", &name(session.words.vhost())).replace("{0}", &name(first.map_or("", String::as_str)))
    };
    let first = if list.path.contains("{0}") {
        Some(arguments.next().ok_or_else(|| Failure::usage("not enough arguments"))?)
    } else {
        None
    };
    let path = fill(list.path, &segment, first);
    let banner = fill(list.banner, &str::to_owned, first);
    let columns = columns(list, arguments)?;
    let found = session.get(&path)?;
    let items = found.as_array().cloned().unwrap_or_default();
    let items = items.iter().filter(|item| {
        // Parameters of all virtual hosts come at one path.
        list.command != "list_parameters" || item["vhost"] == *session.words.vhost()
    });
    let rows: Vec<Vec<Value>> =
        items.map(|item| columns.iter().map(|column| value(list, item, column)).collect()).collect();
    let formatter = session.words.get("formatter");
    if formatter.is_none_or(|name| name == "table" || name == "pretty_table") {
        session.say(&banner)?;
    }
    let headers = !session.words.has("no-table-headers") && !session.words.has("silent");
    print(&table::format(formatter, &columns, &rows, headers)?)
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

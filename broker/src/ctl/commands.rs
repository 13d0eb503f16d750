//! The commands that change something, and `help`.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::segment;
use super::failure::{DATA, Failure};
use super::{Session, eval, lists, print};

/// Each with the arguments it takes.
const COMMANDS: [(&str, &str); 51] = [
    ("status", ""),
    ("version", ""),
    ("ping", ""),
    ("await_startup", ""),
    ("eval", "EXPRESSION"),
    ("stop_app", ""),
    ("start_app", ""),
    ("add_user", "USER PASSWORD"),
    ("delete_user", "USER"),
    ("change_password", "USER PASSWORD"),
    ("clear_password", "USER"),
    ("authenticate_user", "USER PASSWORD"),
    ("set_user_tags", "USER [TAG...]"),
    ("set_user_limits", "USER DEFINITION"),
    ("clear_user_limits", "USER LIMIT|all"),
    ("set_permissions", "[-p VHOST] USER CONFIGURE WRITE READ"),
    ("clear_permissions", "[-p VHOST] USER"),
    ("set_topic_permissions", "[-p VHOST] USER EXCHANGE WRITE READ"),
    ("clear_topic_permissions", "[-p VHOST] USER [EXCHANGE]"),
    ("add_vhost", "VHOST [--description TEXT] [--tags TAGS] [--default-queue-type TYPE]"),
    ("delete_vhost", "VHOST"),
    ("trace_on", "[-p VHOST]"),
    ("trace_off", "[-p VHOST]"),
    ("set_vhost_limits", "[-p VHOST] DEFINITION"),
    ("clear_vhost_limits", "[-p VHOST]"),
    ("enable_vhost_deletion_protection", "VHOST"),
    ("disable_vhost_deletion_protection", "VHOST"),
    ("set_policy", "[-p VHOST] [--priority N] [--apply-to WHAT] NAME PATTERN DEFINITION"),
    ("clear_policy", "[-p VHOST] NAME"),
    ("set_operator_policy", "[-p VHOST] [--priority N] [--apply-to WHAT] NAME PATTERN DEFINITION"),
    ("clear_operator_policy", "[-p VHOST] NAME"),
    ("set_parameter", "[-p VHOST] COMPONENT NAME VALUE"),
    ("clear_parameter", "[-p VHOST] COMPONENT NAME"),
    ("set_global_parameter", "NAME VALUE"),
    ("clear_global_parameter", "NAME"),
    ("delete_queue", "[-p VHOST] QUEUE [--if-empty] [--if-unused]"),
    ("purge_queue", "[-p VHOST] QUEUE"),
    ("close_connection", "PID REASON"),
    ("close_all_connections", "[-p VHOST] REASON"),
    ("close_all_user_connections", "USER REASON"),
    ("export_definitions", "FILE|-"),
    ("import_definitions", "FILE|-"),
    ("set_vm_memory_high_watermark", "FRACTION | absolute BYTES"),
    ("set_disk_free_limit", "BYTES | mem_relative FRACTION"),
    ("set_log_level", "LEVEL"),
    ("set_alarm", "memory|disk"),
    ("clear_alarm", "memory|disk"),
    ("check_running", ""),
    ("check_local_alarms", ""),
    ("check_port_connectivity", ""),
    ("help", "[COMMAND]"),
];

pub(super) fn is_known(name: &str) -> bool {
    COMMANDS.iter().any(|(command, _)| *command == name) || lists::find(name).is_some()
}

/// What there is, or how one command is used.
pub(super) fn help(command: Option<&str>) -> Result<(), Failure> {
    let all = || COMMANDS.iter().copied().chain(lists::LISTS.iter().map(|list| (list.command, "[COLUMN...]")));
    let Some(name) = command else {
        let mut text = String::from(
            "Usage: warren ctl [--data-dir DIR] [--config FILE] [-q] [--formatter FORMAT] COMMAND [ARGUMENTS]\n\nCommands:\n",
        );
        for (name, arguments) in all() {
            text.push_str(format!("  {name} {arguments}").trim_end());
            text.push('\n');
        }
        return print(&text);
    };
    match all().find(|(known, _)| *known == name) {
        Some((name, arguments)) => print(&format!("Usage: warren ctl {}\n", format!("{name} {arguments}").trim_end())),
        None => Err(Failure::usage(format!("Command '{name}' not found; `help` lists the commands"))),
    }
}

/// Exactly as many arguments as wanted.
fn exactly<const N: usize>(given: &[String]) -> Result<[&str; N], Failure> {
    let texts: Vec<&str> = given.iter().map(String::as_str).collect();
    let count = texts.len();
    texts
        .try_into()
        .map_err(|_| Failure::usage(if count < N { "not enough arguments." } else { "too many arguments." }))
}

fn parsed(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::new(DATA, format!("{text} is not JSON: {error}")))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::usage(format!("{text} is not a number")))
}

pub(super) fn run(session: &Session, command: &str) -> Result<(), Failure> {
    let arguments = session.words.words.get(1..).unwrap_or_default();
    let at_vhost = |kind: &str| format!("/api/{kind}/{}", segment(session.words.vhost()));
    match command {
        "ping"
        | "await_startup"
        | "check_running"
        | "stop_app"
        | "start_app"
        | "check_local_alarms"
        | "check_port_connectivity"
        | "eval"
        | "set_log_level"
        | "set_alarm"
        | "clear_alarm"
        | "set_vm_memory_high_watermark"
        | "set_disk_free_limit"
        | "close_connection"
        | "close_all_connections"
        | "close_all_user_connections"
        | "export_definitions"
        | "import_definitions" => node(session, command, arguments),
        "set_policy" | "set_operator_policy" => set_policy(session, command, exactly(arguments)?),
        "clear_policy" | "clear_operator_policy" => {
            let [name] = exactly(arguments)?;
            let kind = if command == "clear_policy" { "policies" } else { "operator-policies" };
            session.say(&format!("Clearing policy \"{name}\" on vhost \"{}\" ...", session.words.vhost()))?;
            done(session.delete(&format!("{}/{}", at_vhost(kind), segment(name))))
        }
        "set_parameter" => {
            let [component, name, value] = exactly(arguments)?;
            let vhost = session.words.vhost();
            session.say(&format!("Setting runtime parameter \"{name}\" for component \"{component}\" ..."))?;
            let path = format!("/api/parameters/{}/{}/{}", segment(component), segment(vhost), segment(name));
            put(session, &path, &json!({"value": parsed(value)?}))
        }
        "clear_parameter" => {
            let [component, name] = exactly(arguments)?;
            let vhost = session.words.vhost();
            session.say(&format!("Clearing runtime parameter \"{name}\" for component \"{component}\" ..."))?;
            let path = format!("/api/parameters/{}/{}/{}", segment(component), segment(vhost), segment(name));
            done(session.delete(&path))
        }
        "set_global_parameter" => {
            let [name, value] = exactly(arguments)?;
            session.say(&format!("Setting global runtime parameter \"{name}\" to \"{value}\" ..."))?;
            put(session, &format!("/api/global-parameters/{}", segment(name)), &json!({"value": parsed(value)?}))
        }
        "clear_global_parameter" => {
            let [name] = exactly(arguments)?;
            session.say(&format!("Clearing global runtime parameter \"{name}\" ..."))?;
            done(session.delete(&format!("/api/global-parameters/{}", segment(name))))
        }
        "delete_queue" => {
            let [name] = exactly(arguments)?;
            let conditions = ["if-unused", "if-empty"].map(|name| format!("{name}={}", session.words.has(name)));
            session.say(&format!("Deleting queue '{name}' on vhost '{}' ...", session.words.vhost()))?;
            done(missing(
                session.delete(&format!("{}/{}?{}", at_vhost("queues"), segment(name), conditions.join("&"))),
                "queue",
            ))
        }
        "purge_queue" => {
            let [name] = exactly(arguments)?;
            session.say(&format!("Purging queue '{name}' in vhost '{}' ...", session.words.vhost()))?;
            done(missing(session.delete(&format!("{}/{}/contents", at_vhost("queues"), segment(name))), "queue"))
        }
        "add_vhost" => {
            let [name] = exactly(arguments)?;
            let mut body = Map::new();
            let options =
                [("description", "description"), ("tags", "tags"), ("default-queue-type", "default_queue_type")];
            for (option, field) in options {
                if let Some(value) = session.words.get(option) {
                    body.insert(field.to_owned(), value.into());
                }
            }
            session.say(&format!("Adding vhost \"{name}\" ..."))?;
            put(session, &format!("/api/vhosts/{}", segment(name)), &Value::Object(body))
        }
        "delete_vhost" => {
            let [name] = exactly(arguments)?;
            session.say(&format!("Deleting vhost \"{name}\" ..."))?;
            done(session.delete(&format!("/api/vhosts/{}", segment(name))))
        }
        "enable_vhost_deletion_protection" | "disable_vhost_deletion_protection" => {
            let [name] = exactly(arguments)?;
            let path = format!("/api/vhosts/{}/deletion/protection", segment(name));
            done(if command.starts_with("enable") {
                session.send(Method::POST, &path, &json!({}))
            } else {
                session.delete(&path)
            })
        }
        "trace_on" | "trace_off" => {
            let [] = exactly(arguments)?;
            let vhost = session.words.vhost();
            let path = format!("/api/warren/tracing/{}", segment(vhost));
            let (beginning, end) =
                if command == "trace_on" { ("Starting", "enabled") } else { ("Stopping", "disabled") };
            session.say(&format!("{beginning} tracing for vhost \"{vhost}\" ..."))?;
            done(if command == "trace_on" {
                session.send(Method::PUT, &path, &json!({}))
            } else {
                session.delete(&path)
            })?;
            print(&format!("Trace {end} for vhost {vhost}\n"))
        }
        "set_vhost_limits" => {
            let [definition] = exactly(arguments)?;
            let vhost = session.words.vhost();
            session.say(&format!("Setting vhost limits to \"{definition}\" for vhost \"{vhost}\" ..."))?;
            put(session, &at_vhost("vhost-limits"), &parsed(definition)?)
        }
        "clear_vhost_limits" => {
            let [] = exactly(arguments)?;
            session.say(&format!("Clearing vhost \"{}\" limits ...", session.words.vhost()))?;
            done(session.delete(&at_vhost("vhost-limits")))
        }
        _ => user(session, command, arguments),
    }
}

fn done(outcome: Result<Value, Failure>) -> Result<(), Failure> {
    outcome.map(|_| ())
}

/// `rabbitmqctl` counts something that is not there as a mistake of the command line.
fn missing(outcome: Result<Value, Failure>, what: &str) -> Result<Value, Failure> {
    outcome.map_err(|failure| {
        if failure.text == "Not Found" { Failure::usage(format!("No such {what} was found")) } else { failure }
    })
}

fn put(session: &Session, path: &str, body: &Value) -> Result<(), Failure> {
    done(session.send(Method::PUT, path, body))
}

fn set_policy(session: &Session, command: &str, [name, pattern, definition]: [&str; 3]) -> Result<(), Failure> {
    let words = &session.words;
    let (kind, named) = match command {
        "set_policy" => ("policies", "policy"),
        _ => ("operator-policies", "operator policy override"),
    };
    let priority = words.get("priority").unwrap_or("0");
    let vhost = words.vhost();
    session.say(&format!(
        "Setting {named} \"{name}\" for pattern \"{pattern}\" to \"{definition}\" with priority \"{priority}\" for \
         vhost \"{vhost}\" ..."
    ))?;
    let body = json!({
        "pattern": pattern,
        "definition": parsed(definition)?,
        "priority": number::<i64>(priority)?,
        "apply-to": words.get("apply-to").unwrap_or("all"),
    });
    put(session, &format!("/api/{kind}/{}/{}", segment(vhost), segment(name)), &body)
}

fn user(session: &Session, command: &str, arguments: &[String]) -> Result<(), Failure> {
    let vhost = session.words.vhost();
    let permission = |kind: &str, user: &str| format!("/api/{kind}/{}/{}", segment(vhost), segment(user));
    match command {
        "add_user" => {
            let [user, password] = exactly(arguments)?;
            session.say(&format!("Adding user \"{user}\" ..."))?;
            let field = if session.words.has("pre-hashed-password") { "password_hash" } else { "password" };
            let body = json!({field: password, "tags": []});
            done(session.send(Method::POST, &format!("/api/warren/users/{}/add", segment(user)), &body))?;
            session.say(
                "Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help \
                 set_permissions' to learn more.",
            )
        }
        "delete_user" => {
            let [user] = exactly(arguments)?;
            session.say(&format!("Deleting user \"{user}\" ..."))?;
            match session.delete(&format!("/api/users/{}", segment(user))) {
                // One that is not there is gone already.
                Err(failure) if failure.text.ends_with("does not exist") => Ok(()),
                outcome => done(outcome),
            }
        }
        "change_password" | "clear_password" => {
            let (user, body) = if command == "change_password" {
                let [user, password] = exactly(arguments)?;
                (user, json!({"password": password}))
            } else {
                let [user] = exactly(arguments)?;
                (user, json!({}))
            };
            session.say(&format!("Changing password for user \"{user}\" ..."))?;
            put(session, &format!("/api/warren/users/{}/credentials", segment(user)), &body)
        }
        "authenticate_user" => {
            let [user, password] = exactly(arguments)?;
            session.say(&format!("Authenticating user \"{user}\" ..."))?;
            let body = json!({"user": user, "password": password});
            match session.send(Method::POST, "/api/warren/authenticate", &body) {
                Ok(_) => session.say("Success"),
                Err(failure) if failure.text == "Not_Authorized" => {
                    Err(Failure::new(DATA, format!("failed to authenticate user \"{user}\"")))
                }
                Err(failure) => Err(failure),
            }
        }
        "set_user_tags" => {
            let (user, tags) = arguments.split_first().ok_or_else(|| Failure::usage("not enough arguments."))?;
            session.say(&format!("Setting tags for user \"{user}\" to [{}] ...", tags.join(", ")))?;
            put(session, &format!("/api/warren/users/{}/tags", segment(user)), &json!({"tags": tags}))
        }
        "set_user_limits" => {
            let [user, definition] = exactly(arguments)?;
            session.say(&format!("Setting user limits to \"{definition}\" for user \"{user}\" ..."))?;
            put(session, &format!("/api/user-limits/{}", segment(user)), &parsed(definition)?)
        }
        "clear_user_limits" => {
            let [user, limit] = exactly(arguments)?;
            let below = if limit == "all" { String::new() } else { format!("/{}", segment(limit)) };
            done(session.delete(&format!("/api/user-limits/{}{below}", segment(user))))
        }
        "set_permissions" => {
            let [user, configure, write, read] = exactly(arguments)?;
            session.say(&format!("Setting permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
            let body = json!({"configure": configure, "write": write, "read": read});
            put(session, &permission("permissions", user), &body)
        }
        "clear_permissions" => {
            let [user] = exactly(arguments)?;
            session.say(&format!("Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
            gone(session.delete(&permission("permissions", user)))
        }
        "set_topic_permissions" => {
            let [user, exchange, write, read] = exactly(arguments)?;
            session.say(&format!(
                "Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."
            ))?;
            let body = json!({"exchange": exchange, "write": write, "read": read});
            put(session, &permission("topic-permissions", user), &body)
        }
        "clear_topic_permissions" => {
            let (user, exchange) = match arguments {
                [user] => (user, String::new()),
                [user, exchange] => (user, format!("?exchange={}", segment(exchange))),
                _ => return Err(Failure::usage("a user and perhaps an exchange are needed")),
            };
            session.say(&format!("Clearing topic permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
            gone(session.delete(&format!("{}{exchange}", permission("topic-permissions", user))))
        }
        _ => Err(Failure::usage(format!("Command '{command}' not found; `help` lists the commands"))),
    }
}

/// What is not there any more is as it was to be.
fn gone(outcome: Result<Value, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.text == "Not Found" => Ok(()),
        outcome => done(outcome),
    }
}

fn node(session: &Session, command: &str, arguments: &[String]) -> Result<(), Failure> {
    let setting = |name: &str, value: Value| put(session, &format!("/api/warren/settings/{name}"), &value);
    match command {
        "ping" => {
            session.get("/api/warren/application")?;
            session.say("Ping succeeded")
        }
        "check_running" | "await_startup" => done(session.get("/api/health/checks/is-in-service")),
        "check_port_connectivity" => done(session.get("/api/health/checks/protocol-listener/amqp")),
        "check_local_alarms" => done(session.get("/api/health/checks/local-alarms")),
        "stop_app" => {
            session.say("Stopping rabbit application on node ...")?;
            done(session.delete("/api/warren/application"))
        }
        "start_app" => {
            session.say("Starting node ...")?;
            put(session, "/api/warren/application", &Value::Null)
        }
        "eval" => eval::run(session, exactly::<1>(arguments)?[0]),
        "set_log_level" => {
            let [level] = exactly(arguments)?;
            session.say(&format!("Setting log level to \"{level}\" ..."))?;
            put(session, "/api/warren/log-level", &json!({"level": level}))
        }
        "set_alarm" | "clear_alarm" => {
            let [name] = exactly(arguments)?;
            let path = format!("/api/warren/alarms/{}", segment(name));
            if command == "set_alarm" { put(session, &path, &Value::Null) } else { done(session.delete(&path)) }
        }
        "set_vm_memory_high_watermark" => match arguments {
            [absolute, bytes] if absolute == "absolute" => {
                setting("memory_watermark_absolute", number::<u64>(bytes)?.into())
            }
            [fraction] => setting("memory_watermark", number::<f64>(fraction)?.into()),
            _ => Err(Failure::usage("a fraction, or `absolute` and a number of bytes, is needed")),
        },
        "set_disk_free_limit" => match arguments {
            [relative, fraction] if relative == "mem_relative" => {
                setting("disk_free_limit_relative", number::<f64>(fraction)?.into())
            }
            [bytes] => setting("disk_free_limit", number::<u64>(bytes)?.into()),
            _ => Err(Failure::usage("a number of bytes, or `mem_relative` and a fraction, is needed")),
        },
        "close_connection" => {
            let [pid, reason] = exactly(arguments)?;
            let id = connection_id(pid)?;
            session.say(&format!("Closing connection {pid}, reason: {reason}..."))?;
            done(close(session, &json!({"id": id, "reason": reason})))
        }
        "close_all_connections" => {
            let [reason] = exactly(arguments)?;
            let mut body = json!({"reason": reason});
            if let Some(vhost) = session.words.get("vhost") {
                body["vhost"] = vhost.into();
            }
            let closed = close(session, &body)?;
            session.say(&format!("Closed {} connections", closed["closed"]))
        }
        "close_all_user_connections" => {
            let [user, reason] = exactly(arguments)?;
            let closed = close(session, &json!({"user": user, "reason": reason}))?;
            session.say(&format!("Closed {} connections", closed["closed"]))
        }
        "export_definitions" => {
            let [file] = exactly(arguments)?;
            let text = session.get("/api/definitions")?.to_string();
            if file == "-" {
                return print(&format!("{text}\n"));
            }
            session.say(&format!("Exporting definitions in JSON to a file at \"{file}\" ..."))?;
            std::fs::write(file, text).map_err(|error| Failure::new(DATA, format!("{file}: {error}")))
        }
        _ => {
            let [file] = exactly(arguments)?;
            let text =
                if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
            let text = text.map_err(|error| Failure::new(DATA, format!("{file}: {error}")))?;
            session.say(&format!("Importing definitions in JSON from a file at \"{file}\" ..."))?;
            let outcome = session.send(Method::POST, "/api/definitions", &parsed(&text)?);
            outcome.map(|_| ()).map_err(|failure| Failure::new(DATA.max(failure.code), failure.text))
        }
    }
}

fn close(session: &Session, body: &Value) -> Result<Value, Failure> {
    session.send(Method::POST, "/api/warren/connections/close", body)
}

/// The number in `<node.number.0>`.
fn connection_id(pid: &str) -> Result<u64, Failure> {
    let number = || {
        let inside = pid.strip_prefix('<')?.strip_suffix('>')?;
        inside.rsplit('.').nth(1)?.parse().ok()
    };
    number().ok_or_else(|| Failure::new(super::failure::UNAVAILABLE, format!("{pid} is not a process id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_named_by_its_pid() {
        assert_eq!(connection_id("<warren@host.example.17.0>").unwrap(), 17);
        for wrong in ["", "17", "<17>", "<a.b.0>", "<a.-1.0>"] {
            assert_eq!(connection_id(wrong).unwrap_err().code, 69, "{wrong}");
        }
    }

    #[test]
    fn commands_have_one_place() {
        for (name, _) in COMMANDS {
            assert!(lists::find(name).is_none(), "{name}");
        }
        assert!(is_known("list_queues") && !is_known("nosuch_command"));
    }
}

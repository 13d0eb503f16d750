//! The broker as a whole: starting, stopping, alarms, settings, connections.

use hyper::Method;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use super::{Command, Outcome, command, done, exactly, number, put};
use crate::ctl::client::segment;
use crate::ctl::failure::{DATA, Failure, TEMPORARY, UNAVAILABLE};
use crate::ctl::{Session, eval, print};

pub(super) const COMMANDS: &[Command] = &[
    command("await_startup", "", "Waits until clients are served", await_startup),
    command("await_online_nodes", "COUNT", "Waits for so many nodes; there is one", await_nodes),
    command("stop_app", "", "Serves no clients until start_app; the process stays", stop_app),
    command("start_app", "", "Serves clients again", start_app),
    command("stop", "", "Stops the broker and waits until it has ended", stop),
    command("shutdown", "", "The same", stop),
    command("set_alarm", "memory|disk", "Blocks publishers as if that were low", set_alarm),
    command("clear_alarm", "memory|disk", "Ends that", clear_alarm),
    command("set_vm_memory_high_watermark", "FRACTION | absolute BYTES", "Until the broker restarts", set_watermark),
    command("set_disk_free_limit", "BYTES | mem_relative FRACTION", "Until the broker restarts", set_disk_limit),
    command("set_log_level", "LEVEL", "Until the broker restarts", set_log_level),
    command("reload", "", "Reads the configuration file and the certificates again, as SIGHUP does", reload),
    command("set_cluster_name", "NAME", "What the management API calls this broker", set_cluster_name),
    command("close_connection", "PID REASON", "Closes a connection", close_connection),
    command(
        "close_all_connections",
        "[-p VHOST | --global] REASON [--limit N]",
        "Closes the connections of a virtual host, or all",
        close_all,
    ),
    command("close_all_user_connections", "USER REASON", "Closes the connections of a user", close_all_of_user),
    command("enable_feature_flag", "FLAG|all", "Nothing to do: whatever a version can do is on", enable_flag),
    command("eval", "EXPRESSION", "The few Erlang expressions that client suites send", |session, given| {
        eval::run(session, exactly::<1>(given)?[0])
    }),
];

fn await_startup(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    done(session.get("/api/health/checks/is-in-service"))
}

fn await_nodes(session: &Session, given: &[String]) -> Outcome {
    let [count] = exactly(given)?;
    if number::<u64>(count)? > 1 {
        return Err(Failure::new(TEMPORARY, "this broker is a cluster of one node; no other will join it"));
    }
    done(session.get("/api/health/checks/is-in-service"))
}

fn stop_app(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    session.say("Stopping rabbit application on node ...")?;
    done(session.delete("/api/warren/application"))
}

fn start_app(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    session.say("Starting node ...")?;
    put(session, "/api/warren/application", &Value::Null)
}

/// As SIGTERM does it: the process is on this machine, since its socket is.
fn stop(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let status = session.get("/api/warren/status")?;
    let pid = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::new(UNAVAILABLE, "the broker does not say its process id"))?;
    session.say(&format!("Stopping and halting node {} ...", status["node"].as_str().unwrap_or_default()))?;
    let failed = |error| Failure::new(UNAVAILABLE, format!("process {}: {error}", pid.as_raw_nonzero()));
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    pidfd_send_signal(&process, Signal::TERM).map_err(failed)?;
    // Readable once it has ended.
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).map_err(failed)?;
    Ok(())
}

fn alarm(name: &str) -> String {
    format!("/api/warren/alarms/{}", segment(name))
}

fn set_alarm(session: &Session, given: &[String]) -> Outcome {
    put(session, &alarm(exactly::<1>(given)?[0]), &Value::Null)
}

fn clear_alarm(session: &Session, given: &[String]) -> Outcome {
    done(session.delete(&alarm(exactly::<1>(given)?[0])))
}

fn setting(session: &Session, name: &str, value: impl Into<Value>) -> Outcome {
    put(session, &format!("/api/warren/settings/{name}"), &value.into())
}

fn set_log_level(session: &Session, given: &[String]) -> Outcome {
    let [level] = exactly(given)?;
    session.say(&format!("Setting log level to \"{level}\" ..."))?;
    put(session, "/api/warren/log-level", &json!({"level": level}))
}

fn reload(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    session.say("Reading the configuration again ...")?;
    let answer = session.send(Method::POST, "/api/warren/reload", &Value::Null)?;
    for line in answer["waiting"].as_array().into_iter().flatten() {
        print(&format!("{}\n", line.as_str().unwrap_or_default()))?;
    }
    Ok(())
}

fn fraction(text: &str) -> Result<f64, Failure> {
    text.parse().map_err(|_| Failure::new(DATA, format!("Bad argument: {text} is not a fraction")))
}

/// `50MB`, `2GiB`, or plain bytes, as RabbitMQ has them.
fn bytes(text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::new(DATA, format!("Bad argument: {text} is not a number of bytes"));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "kb" => 1000,
        "m" | "mi" | "mib" => 1 << 20,
        "mb" => 1_000_000,
        "g" | "gi" | "gib" => 1 << 30,
        "gb" => 1_000_000_000,
        "t" | "ti" | "tib" => 1 << 40,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    count.parse::<u64>().ok().and_then(|count| count.checked_mul(scale)).ok_or_else(wrong)
}

fn set_watermark(session: &Session, given: &[String]) -> Outcome {
    match given {
        [absolute, amount] if absolute == "absolute" => setting(session, "memory_watermark_absolute", bytes(amount)?),
        [share] => setting(session, "memory_watermark", fraction(share)?),
        _ => Err(Failure::usage("a fraction, or `absolute` and a number of bytes, is needed")),
    }
}

fn set_disk_limit(session: &Session, given: &[String]) -> Outcome {
    match given {
        [relative, share] if relative == "mem_relative" => {
            setting(session, "disk_free_limit_relative", fraction(share)?)
        }
        [amount] => setting(session, "disk_free_limit", bytes(amount)?),
        _ => Err(Failure::usage("a number of bytes, or `mem_relative` and a fraction, is needed")),
    }
}

fn set_cluster_name(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    session.say(&format!("Setting cluster name to {name} ..."))?;
    put(session, "/api/cluster-name", &json!({"name": name}))
}

fn close_connection(session: &Session, given: &[String]) -> Outcome {
    let [pid, reason] = exactly(given)?;
    let id = connection_id(pid)?;
    session.say(&format!("Closing connection {pid}, reason: {reason}..."))?;
    done(close(session, &json!({"id": id, "reason": reason})))
}

fn close_all(session: &Session, given: &[String]) -> Outcome {
    let [reason] = exactly(given)?;
    let mut body = json!({"reason": reason});
    if let Some(vhost) = session.words.get("vhost") {
        body["vhost"] = vhost.into();
    }
    if let Some(limit) = session.words.get("limit") {
        body["limit"] = number::<u64>(limit)?.into();
    }
    let closed = close(session, &body)?;
    session.say(&format!("Closed {} connections", closed["closed"]))
}

fn close_all_of_user(session: &Session, given: &[String]) -> Outcome {
    let [user, reason] = exactly(given)?;
    let closed = close(session, &json!({"user": user, "reason": reason}))?;
    session.say(&format!("Closed {} connections", closed["closed"]))
}

fn close(session: &Session, body: &Value) -> Result<Value, Failure> {
    session.send(Method::POST, "/api/warren/connections/close", body)
}

fn enable_flag(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    let flags = session.get("/api/feature-flags")?;
    let known = flags.as_array().is_some_and(|flags| flags.iter().any(|flag| flag["name"] == name));
    if name != "all" && !known {
        return Err(Failure::usage(format!("This feature flag is not supported: {name}")));
    }
    print(&format!("Enabling feature flag \"{name}\" ...\n"))
}

/// The number in `<node.number.0>`.
fn connection_id(pid: &str) -> Result<u64, Failure> {
    let number = || {
        let inside = pid.strip_prefix('<')?.strip_suffix('>')?;
        inside.rsplit('.').nth(1)?.parse().ok()
    };
    number().ok_or_else(|| Failure::new(UNAVAILABLE, format!("{pid} is not a process id")))
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
    fn bytes_have_rabbitmqs_units() {
        let given = ["0", "50MB", "50MiB", "2gib", "1 kB", "7"];
        let read: Vec<_> = given.iter().map(|text| bytes(text).unwrap()).collect();
        assert_eq!(read, [0, 50_000_000, 50 << 20, 2 << 30, 1000, 7]);
        for wrong in ["", "MB", "-1", "1.5GB", "5XB", "99999999999TB"] {
            assert_eq!(bytes(wrong).unwrap_err().code, DATA, "{wrong}");
        }
    }
}

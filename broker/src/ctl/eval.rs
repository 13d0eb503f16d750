//! `eval`: not Erlang, but the few expressions that public client suites send, by their text.

use hyper::Method;
use serde_json::{Value, json};

use super::failure::{Failure, UNAVAILABLE};
use super::{Session, print};

/// Does what the expression would do, or says that nobody here can.
pub(super) fn run(session: &Session, expression: &str) -> Result<(), Failure> {
    match parse(expression) {
        Some(Meaning::Alarm { name, on }) => {
            let path = format!("/api/warren/alarms/{name}");
            if on {
                session.send(Method::PUT, &path, &Value::Null)?;
            } else {
                session.delete(&path)?;
            }
            print("ok\n")
        }
        Some(Meaning::SetLoopbackUsers(users)) => {
            session.send(Method::PUT, "/api/warren/settings/loopback_users", &json!(users))?;
            print("ok\n")
        }
        Some(Meaning::SetChannelMax(channels)) => {
            session.send(Method::PUT, "/api/warren/settings/channel_max", &json!(channels))?;
            print("ok\n")
        }
        Some(Meaning::LoopbackUsers) => {
            let users = session.get("/api/warren/settings/loopback_users")?;
            let users = users.as_array().cloned().unwrap_or_default();
            let shown: Vec<_> = users.iter().filter_map(Value::as_str).map(|name| format!("<<{name:?}>>")).collect();
            print(&format!("[{}]\n", shown.join(",")))
        }
        None => Err(Failure::new(UNAVAILABLE, format!("this is no Erlang node: it cannot evaluate {expression}"))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Alarm { name: &'static str, on: bool },
    SetLoopbackUsers(Vec<String>),
    LoopbackUsers,
    SetChannelMax(u16),
}

fn parse(expression: &str) -> Option<Meaning> {
    let text: String = expression.chars().filter(|c| !c.is_whitespace()).collect();
    let text = text.trim_end_matches('.');
    for name in ["memory", "disk"] {
        let resource = format!("{{resource_limit,{name},node()}}");
        if text == format!("rabbit_alarm:set_alarm({{{resource},[]}})") {
            return Some(Meaning::Alarm { name, on: true });
        }
        if text == format!("rabbit_alarm:clear_alarm({resource})") {
            return Some(Meaning::Alarm { name, on: false });
        }
    }
    if text == "{ok,V}=application:get_env(rabbit,loopback_users),V" {
        return Some(Meaning::LoopbackUsers);
    }
    if let Some(number) = text.strip_prefix("application:set_env(rabbit,channel_max,") {
        return number.strip_suffix(')')?.parse().ok().map(Meaning::SetChannelMax);
    }
    let list = text.strip_prefix("application:set_env(rabbit,loopback_users,[")?.strip_suffix("])")?;
    let mut users = Vec::new();
    for item in list.split(',').filter(|item| !item.is_empty()) {
        users.push(item.strip_prefix("<<\"")?.strip_suffix("\">>")?.to_owned());
    }
    Some(Meaning::SetLoopbackUsers(users))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expressions_of_the_suites_are_known_and_no_others() {
        let alarm = |name, on| Some(Meaning::Alarm { name, on });
        assert_eq!(parse("rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []})."), alarm("disk", true));
        assert_eq!(parse("rabbit_alarm:clear_alarm({resource_limit, memory, node()})."), alarm("memory", false));
        let set =
            |users: &[&str]| Some(Meaning::SetLoopbackUsers(users.iter().map(|user| (*user).to_owned()).collect()));
        assert_eq!(parse("application:set_env(rabbit, loopback_users, [])."), set(&[]));
        assert_eq!(parse("application:set_env(rabbit, loopback_users, [<<\"guest\">>])."), set(&["guest"]));
        let get = "{ok, V} = application:get_env(rabbit, loopback_users), V.";
        assert_eq!(parse(get), Some(Meaning::LoopbackUsers));
        assert_eq!(parse("application:set_env(rabbit, channel_max, 2048)."), Some(Meaning::SetChannelMax(2048)));
        assert_eq!(parse("application:set_env(rabbit, channel_max, 65536)."), None);
        for other in ["", "ok.", "os:cmd(\"id\").", "application:set_env(rabbit, loopback_users, [guest])."] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}

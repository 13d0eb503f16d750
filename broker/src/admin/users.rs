//! `/api/users`, `/api/user-limits`, `/api/whoami`.

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::list;
use super::request::{Ask, Operator, need_keys, text};
use crate::auth::{Credentials, PasswordHash, UserDefinition};

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    ask.need_administrator()?;
    let auth = &ask.broker().auth;
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, auth.users().iter().map(definition).collect()),
        (["without-permissions"], &Method::GET) => {
            let mut users = auth.users();
            users.retain(|user| auth.permissions(Some(&user.name)).is_empty());
            list::answer(ask, users.iter().map(definition).collect())
        }
        (["bulk-delete"], &Method::POST) => {
            let body = ask.object()?;
            need_keys(&body, &["users"])?;
            let names = body["users"].as_array().ok_or_else(|| Refusal::bad_request("users is not a list"))?;
            for name in names.iter().filter_map(Value::as_str) {
                // One that is not there is gone already.
                if let Ok(lsn) = auth.delete_user(name) {
                    ask.wait(lsn);
                }
            }
            Ok(Reply::Done)
        }
        ([name], &Method::GET) => list::one(ask, definition(&auth.definition(name).ok_or_else(Refusal::not_found)?)),
        ([name], &Method::PUT) => put(ask, name),
        ([name], &Method::DELETE) => ask.done(auth.delete_user(name)?),
        ([] | [_], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// A user as definitions have it.
pub(super) fn definition(user: &UserDefinition) -> Value {
    let mut object = json!({"name": user.name, "tags": user.tags, "limits": user.limits});
    let hash = user.hash.as_ref();
    object["password_hash"] = hash.map(PasswordHash::to_base64).unwrap_or_default().into();
    object["hashing_algorithm"] = hash.map_or("rabbit_password_hashing_sha256", |hash| hash.algorithm().name()).into();
    object
}

fn put(ask: &Ask, name: &str) -> Answer {
    let body = ask.object()?;
    if !body.contains_key("tags") {
        return Err(Refusal::bad_request("tags_not_present"));
    }
    if body.contains_key("password") && body.contains_key("password_hash") {
        return Err(Refusal::bad_request("both_password_and_password_hash_are_provided"));
    }
    if let Some(hash) = body.get("password_hash")
        && hash.as_str().is_none_or(|hash| STANDARD.decode(hash).is_err())
    {
        return Err(Refusal::wrong("not_base64", hash));
    }
    let auth = &ask.broker().auth;
    let is_new = auth.user(name).is_none();
    ask.put(is_new, auth.put_user(name, credentials(&body)?, &tags(body.get("tags"))?)?)
}

/// How a user of a request or of definitions logs in: the hash counts more than the password.
pub(super) fn credentials(object: &Map<String, Value>) -> Result<Credentials<'_>, Refusal> {
    let field = |name: &str| object.get(name).and_then(Value::as_str);
    Ok(match (field("password_hash"), field("password")) {
        (Some(""), _) | (None, None) => Credentials::None,
        (Some(hash), _) => Credentials::Hash(PasswordHash::from_definition(field("hashing_algorithm"), hash)?),
        (None, Some(password)) => Credentials::Password(password),
    })
}

/// Tags as a list, or as text with commas.
pub(super) fn tags(value: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::bad_request("tags must be a list of texts, or a text with commas");
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => {
            Ok(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
        }
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// `/api/auth`: how often somebody tried to log in, and what a password comes to.
pub(super) fn logins(ask: &Ask, rest: &[&str]) -> Answer {
    let all = &ask.broker().services.statistics.attempts;
    let protocols = [("amqp091", &all.amqp), ("http", &all.http)];
    match (rest, &ask.method) {
        (["hash_password", password], &Method::GET) => {
            Ok(Reply::Value(json!({"ok": PasswordHash::new(password).to_base64()})))
        }
        (["attempts", node], method) | (["attempts", node, "source"], method) => {
            ask.need_monitoring()?;
            if *node != ask.broker().node_name {
                return Err(Refusal::not_found());
            }
            match *method {
                // Sources are not counted one by one: there is no end of them.
                Method::GET if rest.len() == 3 => Ok(Reply::Value(json!([]))),
                Method::GET => Ok(Reply::Value(
                    protocols
                        .iter()
                        .map(|(protocol, attempts)| {
                            let (succeeded, failed) = attempts.counts();
                            json!({
                                "protocol": protocol,
                                "auth_attempts": succeeded + failed,
                                "auth_attempts_failed": failed,
                                "auth_attempts_succeeded": succeeded,
                            })
                        })
                        .collect(),
                )),
                Method::DELETE => {
                    ask.need_administrator()?;
                    protocols.iter().for_each(|(_, attempts)| attempts.reset());
                    Ok(Reply::Done)
                }
                _ => Err(Refusal::method_not_allowed()),
            }
        }
        (["hash_password", _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// `/api/user-limits`
pub(super) fn limits(ask: &Ask, rest: &[&str]) -> Answer {
    if ask.method != Method::GET || rest.is_empty() {
        ask.need_administrator()?;
    }
    let auth = &ask.broker().auth;
    match (rest, &ask.method) {
        ([] | [_], &Method::GET) => {
            let mut users = auth.users();
            // Those of others are not for everybody; whose name there is not, neither.
            if !ask.sees_all() {
                if rest.first().is_some_and(|name| *name != ask.operator.name()) {
                    return Err(Refusal::not_authorised("User not authorised to access object"));
                }
                users.retain(|user| user.name == ask.operator.name());
            }
            if let Some(name) = rest.first() {
                users.retain(|user| user.name == *name);
                if users.is_empty() {
                    return Err(Refusal::not_found());
                }
            }
            users.retain(|user| !user.limits.is_empty());
            let shown = users.iter().map(|user| json!({"user": user.name, "value": user.limits}));
            Ok(Reply::Value(shown.collect()))
        }
        ([user, name], &Method::PUT) => {
            let body = ask.object()?;
            need_keys(&body, &["value"])?;
            if auth.user(user).is_none() {
                return Err(Refusal::wrong("no_such_user", &(*user).into()));
            }
            let given = Map::from_iter([((*name).to_owned(), body["value"].clone())]);
            ask.done(auth.set_limits(user, &given)?)
        }
        ([user], &Method::PUT) => ask.done(auth.set_limits(user, &ask.object()?)?),
        ([user, name], &Method::DELETE) => ask.done(auth.clear_limits(user, Some(name))?),
        ([user], &Method::DELETE) => ask.done(auth.clear_limits(user, None)?),
        ([] | [_, _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

pub(super) fn whoami(ask: &Ask) -> Answer {
    let tags = match &ask.operator {
        Operator::Local => json!(["administrator"]),
        Operator::User(user) => json!(user.tags.to_vec()),
    };
    Ok(Reply::Value(json!({"name": ask.operator.name(), "tags": tags, "is_internal_user": true})))
}

/// A password alone, for `change_password`: tags stay. An empty body takes the password away.
pub(super) fn change_credentials(ask: &Ask, name: &str) -> Answer {
    ask.need_administrator()?;
    let body = ask.object()?;
    ask.done(ask.broker().auth.set_credentials(name, credentials(&body)?)?)
}

/// A user who must not be there yet, for `add_user`.
pub(super) fn add(ask: &Ask, name: &str) -> Answer {
    ask.need_administrator()?;
    let body = ask.object()?;
    let tags = tags(body.get("tags"))?;
    ask.put(true, ask.broker().auth.add_user(name, credentials(&body)?, &tags)?)
}

/// The tags alone, for `set_user_tags`.
pub(super) fn set_tags(ask: &Ask, name: &str) -> Answer {
    ask.need_administrator()?;
    let body = ask.object()?;
    ask.done(ask.broker().auth.set_tags(name, &tags(body.get("tags"))?)?)
}

/// The name of a vhost as text, for requests that must have one.
pub(super) fn required<'a>(object: &'a Map<String, Value>, name: &str) -> Result<std::borrow::Cow<'a, str>, Refusal> {
    text(object, name).ok_or_else(|| Refusal::bad_request(format!("[{{key_missing,{name}}}]")))
}

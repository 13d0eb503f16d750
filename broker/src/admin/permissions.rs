//! `/api/permissions`, `/api/topic-permissions`, and the same below a user or a virtual host.

use axum::http::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::list;
use super::request::{Ask, need_keys};
use super::users::required;
use crate::auth::{PermissionDefinition, TopicPermissionDefinition};
use crate::model::access::Permission;

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    ask.need_administrator()?;
    let broker = ask.broker();
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, broker.auth.permissions(None).iter().map(shown).collect()),
        ([vhost, user], &Method::GET) => {
            let all = broker.auth.permissions(Some(user));
            let found = all.iter().find(|permission| permission.vhost == *vhost);
            list::one(ask, shown(found.ok_or_else(Refusal::not_found)?))
        }
        ([vhost, user], &Method::PUT) => {
            let body = ask.object()?;
            need_keys(&body, &["configure", "write", "read"])?;
            let [configure, write, read] = ["configure", "write", "read"].map(|name| required(&body, name));
            let is_new = broker.auth.permission(user, vhost).is_none();
            let lsn = broker.set_permissions(user, vhost, [&configure?, &write?, &read?]);
            ask.put(is_new, lsn.map_err(unknown)?)
        }
        ([vhost, user], &Method::DELETE) => {
            ask.done(broker.auth.delete_permission(user, vhost).ok_or_else(Refusal::not_found)?)
        }
        ([] | [_, _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// The body names what there is not, or the path does: for RabbitMQ both are a bad request.
fn unknown(error: crate::model::operation::OperationError) -> Refusal {
    match error.http_status() {
        404 => Refusal::from(error).with_reason("vhost_or_user_not_found"),
        _ => error.into(),
    }
}

/// A permission as definitions have it.
pub(super) fn shown(permission: &PermissionDefinition) -> Value {
    json!({
        "user": permission.user,
        "vhost": permission.vhost,
        "configure": permission.patterns.text(Permission::Configure),
        "write": permission.patterns.text(Permission::Write),
        "read": permission.patterns.text(Permission::Read),
    })
}

pub(super) fn of_user(ask: &Ask, user: &str) -> Answer {
    only_get(ask)?;
    ask.broker().auth.user(user).ok_or_else(Refusal::not_found)?;
    list::answer(ask, ask.broker().auth.permissions(Some(user)).iter().map(shown).collect())
}

pub(super) fn of_vhost(ask: &Ask, vhost: &str) -> Answer {
    only_get(ask)?;
    ask.broker().find_vhost(vhost)?;
    let all = ask.broker().auth.permissions(None);
    list::answer(ask, all.iter().filter(|permission| permission.vhost == vhost).map(shown).collect())
}

fn only_get(ask: &Ask) -> Result<(), Refusal> {
    ask.need_administrator()?;
    if ask.method == Method::GET { Ok(()) } else { Err(Refusal::method_not_allowed()) }
}

/// `/api/topic-permissions`
pub(super) fn topics(ask: &Ask, rest: &[&str]) -> Answer {
    ask.need_administrator()?;
    let broker = ask.broker();
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, broker.auth.topic_permissions(None).iter().map(topic).collect()),
        ([vhost, user], &Method::GET) => {
            let mut all = broker.auth.topic_permissions(Some(user));
            all.retain(|permission| permission.vhost == *vhost);
            if all.is_empty() {
                return Err(Refusal::not_found());
            }
            list::answer(ask, all.iter().map(topic).collect())
        }
        ([vhost, user], &Method::PUT) => {
            let body = ask.object()?;
            need_keys(&body, &["exchange", "write", "read"])?;
            let [exchange, write, read] = ["exchange", "write", "read"].map(|name| required(&body, name));
            let exchange = exchange?;
            let all = broker.auth.topic_permissions(Some(user));
            let is_new = !all.iter().any(|known| known.vhost == *vhost && known.exchange == exchange);
            let lsn = broker.set_topic_permissions(user, vhost, &exchange, [&write?, &read?]);
            ask.put(is_new, lsn.map_err(unknown)?)
        }
        ([vhost, user], &Method::DELETE) => {
            let exchange = ask.query("exchange");
            ask.done(broker.auth.delete_topic_permission(user, vhost, exchange).ok_or_else(Refusal::not_found)?)
        }
        ([] | [_, _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// A topic permission as definitions have it.
pub(super) fn topic(definition: &TopicPermissionDefinition) -> Value {
    json!({
        "user": definition.user,
        "vhost": definition.vhost,
        "exchange": definition.exchange,
        "write": definition.permission.text(Permission::Write),
        "read": definition.permission.text(Permission::Read),
    })
}

pub(super) fn topics_of_user(ask: &Ask, user: &str) -> Answer {
    only_get(ask)?;
    ask.broker().auth.user(user).ok_or_else(Refusal::not_found)?;
    list::answer(ask, ask.broker().auth.topic_permissions(Some(user)).iter().map(topic).collect())
}

pub(super) fn topics_of_vhost(ask: &Ask, vhost: &str) -> Answer {
    only_get(ask)?;
    ask.broker().find_vhost(vhost)?;
    let all = ask.broker().auth.topic_permissions(None);
    list::answer(ask, all.iter().filter(|permission| permission.vhost == vhost).map(topic).collect())
}

//! `/api/definitions`: all that operators and clients have set up, as one document.

use axum::http::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::request::Ask;
use super::{bindings, exchanges, import, permissions, policies, queues, users, vhosts};
use crate::policy::PolicyKind;
use crate::vhost::{Vhost, predeclared_kind};

/// Limits of a virtual host, as a parameter of theirs.
const VHOST_LIMITS: &str = "vhost-limits";

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    ask.need_administrator()?;
    match (rest, &ask.method) {
        ([], &Method::GET) => Ok(Reply::Value(export(ask))),
        ([vhost], &Method::GET) => Ok(Reply::Value(export_vhost(ask, &*ask.known_vhost(vhost)?))),
        ([], &Method::POST) => import::import(ask, None),
        ([vhost], &Method::POST) => {
            ask.known_vhost(vhost)?;
            import::import(ask, Some(vhost))
        }
        ([] | [_], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

fn export(ask: &Ask) -> Value {
    let broker = ask.broker();
    let mut all = json!({
        "rabbitmq_definition_format": "cluster",
        "original_cluster_name": broker.cluster_name(),
        "explanation": format!("Definitions of cluster '{}'", broker.cluster_name()),
        "users": broker.auth.users().iter().map(users::definition).collect::<Value>(),
        "permissions": broker.auth.permissions(None).iter().map(permissions::shown).collect::<Value>(),
        "topic_permissions": broker.auth.topic_permissions(None).iter().map(permissions::topic).collect::<Value>(),
        "global_parameters": broker
            .global_parameters()
            .iter()
            .map(|(name, value)| json!({"name": name, "value": **value}))
            .collect::<Value>(),
    });
    add_versions(ask, &mut all);
    let vhosts = ask.known_vhosts();
    let described = vhosts.iter().map(|vhost| {
        let metadata = vhosts::definition(&vhost.metadata());
        let limits = serde_json::to_value(vhost.limits()).unwrap_or_default();
        json!({"name": &**vhost.name(), "metadata": metadata, "limits": limits})
    });
    all["vhosts"] = described.collect();
    for part in ["parameters", "policies", "queues", "exchanges", "bindings"] {
        let of_all = vhosts.iter().flat_map(|vhost| part_of(vhost, part));
        all[part] = of_all.collect();
    }
    all
}

/// Who has written it.
fn add_versions(ask: &Ask, all: &mut Value) {
    let compatibility = &ask.broker().settings.compatibility;
    all["product_name"] = compatibility.product.clone().into();
    for name in ["rabbit_version", "rabbitmq_version", "product_version"] {
        all[name] = compatibility.version.clone().into();
    }
}

/// One virtual host alone: what is in it does not name it.
fn export_vhost(ask: &Ask, vhost: &Vhost) -> Value {
    let metadata = vhost.metadata();
    let mut all = json!({
        "rabbitmq_definition_format": "single_virtual_host",
        "original_vhost_name": &**vhost.name(),
        "explanation": format!("Definitions of virtual host '{}'", vhost.name()),
        "description": metadata.description,
        "metadata": vhosts::definition(&metadata),
        "limits": serde_json::to_value(vhost.limits()).unwrap_or_default(),
    });
    add_versions(ask, &mut all);
    for part in ["parameters", "policies", "queues", "exchanges", "bindings"] {
        let items = part_of(vhost, part).into_iter().map(|mut item| {
            if let Value::Object(object) = &mut item {
                object.remove("vhost");
            }
            item
        });
        all[part] = items.collect();
    }
    all
}

fn part_of(vhost: &Vhost, part: &str) -> Vec<Value> {
    let name = vhost.name();
    match part {
        "policies" => vhost.policies().list(PolicyKind::Policy).map(|policy| policies::shown(name, policy)).collect(),
        "queues" => {
            let kept = queues::sorted(vhost);
            let kept = kept.iter().filter(|queue| queue.spec().exclusive.is_none());
            kept.map(|queue| queues::definition(name, queue)).collect()
        }
        "exchanges" => {
            let kept = exchanges::sorted(vhost);
            let kept = kept.iter().filter(|exchange| predeclared_kind(name, exchange.name()).is_none());
            kept.map(|exchange| exchanges::definition(name, exchange)).collect()
        }
        "bindings" => bindings::definitions(vhost),
        _ => {
            let mut all = policies::all_parameters(name, &vhost.parameters());
            for policy in vhost.policies().list(PolicyKind::OperatorPolicy) {
                let mut value = policies::shown(name, policy);
                if let Value::Object(object) = &mut value {
                    object.remove("vhost");
                    object.remove("name");
                }
                let name_of_policy = &**policy.name();
                all.push(json!({
                    "vhost": &**name, "component": "operator_policy", "name": name_of_policy, "value": value
                }));
            }
            let limits = serde_json::to_value(vhost.limits()).unwrap_or_default();
            if limits.as_object().is_some_and(|limits| !limits.is_empty()) {
                all.push(json!({"vhost": &**name, "component": VHOST_LIMITS, "name": "limits", "value": limits}));
            }
            all
        }
    }
}

//! `/api/policies`, `/api/operator-policies`, `/api/parameters`, `/api/global-parameters`.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal};
use super::list;
use super::request::{Ask, need_keys};
use crate::policy::{Policy, PolicyKind, PolicyRequest};
use crate::vhost::Vhost;

pub(super) fn policies(ask: &Ask, rest: &[&str]) -> Answer {
    of_kind(ask, PolicyKind::Policy, rest)
}

pub(super) fn operator_policies(ask: &Ask, rest: &[&str]) -> Answer {
    of_kind(ask, PolicyKind::OperatorPolicy, rest)
}

fn of_kind(ask: &Ask, kind: PolicyKind, rest: &[&str]) -> Answer {
    let may_change = || match kind {
        PolicyKind::Policy => ask.need_policymaker(),
        PolicyKind::OperatorPolicy => ask.need_administrator(),
    };
    match (rest, &ask.method) {
        ([] | [_], &Method::GET) => {
            let mut all = Vec::new();
            for vhost in ask.vhosts_at(rest.first().copied())? {
                all.extend(vhost.policies().list(kind).map(|policy| shown(vhost.name(), policy)));
            }
            list::answer(ask, all)
        }
        ([vhost, name], &Method::GET) => {
            let vhost = ask.vhost(vhost)?;
            let policies = vhost.policies();
            let policy = policies.get(kind, name).ok_or_else(Refusal::not_found)?;
            list::one(ask, shown(vhost.name(), policy))
        }
        ([vhost, name], &Method::PUT) => {
            may_change()?;
            let vhost = ask.vhost(vhost)?;
            let body = ask.object()?;
            need_keys(&body, &["pattern", "definition"])?;
            let policy = read(kind, name, &body)?;
            let is_new = vhost.policies().get(kind, name).is_none();
            ask.put(is_new, vhost.set_policy(kind, policy)?)
        }
        ([vhost, name], &Method::DELETE) => {
            may_change()?;
            ask.done(ask.vhost(vhost)?.clear_policy(kind, name)?)
        }
        ([] | [_] | [_, _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// Checks a policy of a request or of definitions.
pub(super) fn read(kind: PolicyKind, name: &str, object: &Map<String, Value>) -> Result<Policy, Refusal> {
    let empty = Map::new();
    Ok(Policy::new(
        kind,
        &PolicyRequest {
            name,
            pattern: object.get("pattern").and_then(Value::as_str).unwrap_or_default(),
            definition: object.get("definition").and_then(Value::as_object).unwrap_or(&empty),
            priority: object.get("priority"),
            apply_to: object.get("apply-to").and_then(Value::as_str),
        },
    )?)
}

/// A policy as definitions have it.
pub(super) fn shown(vhost: &str, policy: &Policy) -> Value {
    json!({
        "vhost": vhost,
        "name": &**policy.name(),
        "pattern": policy.pattern(),
        "apply-to": policy.apply_to().name(),
        "definition": policy.definition().to_json(),
        "priority": policy.priority(),
    })
}

/// `/api/parameters`
pub(super) fn parameters(ask: &Ask, rest: &[&str]) -> Answer {
    ask.need_policymaker()?;
    match (rest, &ask.method) {
        ([] | [_] | [_, _], &Method::GET) => {
            let mut all = Vec::new();
            for vhost in ask.vhosts_at(rest.get(1).copied())? {
                all.extend(all_parameters(vhost.name(), &vhost.parameters()));
                all.extend(limits_parameter(&vhost));
            }
            all.retain(|parameter| rest.first().is_none_or(|component| parameter["component"] == **component));
            list::answer(ask, all)
        }
        ([component, vhost, name], &Method::GET) => {
            let vhost = ask.vhost(vhost)?;
            if (*component, *name) == (LIMITS, LIMITS_NAME) {
                return list::one(ask, limits_parameter(&vhost).ok_or_else(Refusal::not_found)?);
            }
            let parameters = vhost.parameters();
            let value = parameters.get(component, name).ok_or_else(Refusal::not_found)?;
            list::one(ask, parameter(vhost.name(), component, name, value))
        }
        ([component, vhost, name], &Method::PUT) => {
            let body = ask.object()?;
            need_keys(&body, &["value"])?;
            let known = ask.vhost(vhost)?;
            if *component == LIMITS {
                let limits = body["value"].as_object().ok_or_else(|| Refusal::bad_request("value is no object"))?;
                ask.need_administrator()?;
                return ask.put(limits_parameter(&known).is_none(), known.set_limits(limits)?);
            }
            let is_new = known.parameters().get(component, name).is_none();
            ask.put(is_new, ask.broker().set_parameter(vhost, component, name, &body["value"])?)
        }
        ([component, vhost, name], &Method::DELETE) => {
            let known = ask.vhost(vhost)?;
            if *component == LIMITS {
                ask.need_administrator()?;
                return ask.done(known.clear_limits(None)?);
            }
            ask.done(ask.broker().clear_parameter(vhost, component, name)?)
        }
        ([] | [_] | [_, _] | [_, _, _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// A virtual host's limits are a parameter, too.
const LIMITS: &str = "vhost-limits";
const LIMITS_NAME: &str = "limits";

fn limits_parameter(vhost: &Vhost) -> Option<Value> {
    let value = serde_json::to_value(vhost.limits()).ok()?;
    let is_set = value.as_object().is_some_and(|limits| !limits.is_empty());
    is_set.then(|| parameter(vhost.name(), LIMITS, LIMITS_NAME, &value))
}

/// The parameters of a virtual host, as definitions have them.
pub(super) fn all_parameters(vhost: &str, parameters: &crate::policy::Parameters) -> Vec<Value> {
    parameters.iter().map(|(component, name, value)| parameter(vhost, component, name, value)).collect()
}

fn parameter(vhost: &str, component: &str, name: &str, value: &Value) -> Value {
    json!({"vhost": vhost, "component": component, "name": name, "value": value})
}

/// `/api/global-parameters`
pub(super) fn global_parameters(ask: &Ask, rest: &[&str]) -> Answer {
    ask.need_policymaker()?;
    let broker = ask.broker();
    let parameters = broker.global_parameters();
    let shown = |name: &str, value: &Value| json!({"name": name, "value": value});
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, parameters.iter().map(|(name, value)| shown(name, value)).collect()),
        ([name], &Method::GET) => list::one(ask, shown(name, parameters.get(name).ok_or_else(Refusal::not_found)?)),
        ([name], &Method::PUT) => {
            ask.need_administrator()?;
            let body = ask.object()?;
            need_keys(&body, &["value"])?;
            let is_new = parameters.get(name).is_none();
            ask.put(is_new, broker.set_global_parameter(name, &body["value"])?)
        }
        ([name], &Method::DELETE) => {
            ask.need_administrator()?;
            ask.done(broker.clear_global_parameter(name)?)
        }
        ([] | [_], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

//! Policies and parameters as they are stored: keys, and JSON values with a version.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage::TopologyChange;

use super::matching::{Policy, PolicyKind, PolicyRequest};

const VERSION: u32 = 1;

const POLICY_PREFIX: &[u8] = b"policy/";
const OPERATOR_PREFIX: &[u8] = b"operator_policy/";
/// Keys of parameters begin so.
pub const PARAMETER_PREFIX: &[u8] = b"parameter/";
/// Keys of global parameters begin so.
pub const GLOBAL_PREFIX: &[u8] = b"global_parameter/";

#[derive(Serialize, Deserialize)]
struct PolicyRecord {
    v: u32,
    vhost: String,
    name: String,
    pattern: String,
    #[serde(rename = "apply-to")]
    apply_to: String,
    priority: Value,
    definition: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct ParameterRecord {
    v: u32,
    /// Absent for a global one, as is the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vhost: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    name: String,
    value: Value,
}

/// What a record says.
pub enum Stored {
    /// A policy of a virtual host.
    Policy {
        /// Where.
        vhost: String,
        /// Whose.
        kind: PolicyKind,
        /// The policy.
        policy: Policy,
    },
    /// A parameter of a virtual host.
    Parameter {
        /// Where.
        vhost: String,
        /// Its component.
        component: String,
        /// Its name.
        name: String,
        /// Its value.
        value: Value,
    },
    /// A global parameter.
    Global {
        /// Its name.
        name: String,
        /// Its value.
        value: Value,
    },
}

/// Whether a key is that of a policy or a parameter.
pub fn is_policy_record(key: &[u8]) -> bool {
    [POLICY_PREFIX, OPERATOR_PREFIX, PARAMETER_PREFIX, GLOBAL_PREFIX].iter().any(|prefix| key.starts_with(prefix))
}

/// The record of a policy.
pub fn put_policy(vhost: &str, kind: PolicyKind, policy: &Policy) -> TopologyChange {
    put(
        policy_key(vhost, kind, policy.name()),
        &PolicyRecord {
            v: VERSION,
            vhost: vhost.to_owned(),
            name: policy.name().to_string(),
            pattern: policy.pattern().to_owned(),
            apply_to: policy.apply_to().name().to_owned(),
            priority: Value::Number(policy.priority().clone()),
            definition: policy.definition().to_json(),
        },
    )
}

/// A policy is gone.
pub fn delete_policy(vhost: &str, kind: PolicyKind, name: &str) -> TopologyChange {
    TopologyChange::Delete { key: policy_key(vhost, kind, name) }
}

/// The record of a parameter.
pub fn put_parameter(vhost: &str, component: &str, name: &str, value: &Value) -> TopologyChange {
    put(
        parameter_key(vhost, component, name),
        &ParameterRecord {
            v: VERSION,
            vhost: Some(vhost.to_owned()),
            component: Some(component.to_owned()),
            name: name.to_owned(),
            value: value.clone(),
        },
    )
}

/// A parameter is gone.
pub fn delete_parameter(vhost: &str, component: &str, name: &str) -> TopologyChange {
    TopologyChange::Delete { key: parameter_key(vhost, component, name) }
}

/// The record of a global parameter.
pub fn put_global(name: &str, value: &Value) -> TopologyChange {
    put(
        [GLOBAL_PREFIX, name.as_bytes()].concat(),
        &ParameterRecord { v: VERSION, vhost: None, component: None, name: name.to_owned(), value: value.clone() },
    )
}

/// A global parameter is gone.
pub fn delete_global(name: &str) -> TopologyChange {
    TopologyChange::Delete { key: [GLOBAL_PREFIX, name.as_bytes()].concat() }
}

/// Reads a record back.
///
/// # Errors
///
/// What is wrong with it.
pub fn read(key: &[u8], value: &[u8]) -> Result<Stored, String> {
    let kind = if key.starts_with(POLICY_PREFIX) {
        PolicyKind::Policy
    } else if key.starts_with(OPERATOR_PREFIX) {
        PolicyKind::OperatorPolicy
    } else {
        return read_parameter(value);
    };
    let record: PolicyRecord = parse(value)?;
    let request = PolicyRequest {
        name: &record.name,
        pattern: &record.pattern,
        definition: &record.definition,
        priority: Some(&record.priority),
        apply_to: Some(&record.apply_to),
    };
    let policy = Policy::new(kind, &request).map_err(|error| error.to_string().trim_end().replace("\n\n", ": "))?;
    Ok(Stored::Policy { vhost: record.vhost, kind, policy })
}

/// A stored pair in words, for tools of operators; `None` when it is about something else. Values are not shown: those of
/// parameters may have passwords in them.
///
/// # Errors
///
/// What is wrong with the value.
pub fn describe(key: &[u8], value: &[u8]) -> Option<Result<String, String>> {
    if !is_policy_record(key) {
        return None;
    }
    Some(read(key, value).map(|stored| match stored {
        Stored::Policy { vhost, kind, policy } => {
            let kind = if kind == PolicyKind::Policy { "policy" } else { "operator policy" };
            format!("{kind} {:?} in vhost {vhost:?} for {:?}", policy.name(), policy.pattern())
        }
        Stored::Parameter { vhost, component, name, .. } => {
            format!("parameter {name:?} of {component:?} in vhost {vhost:?}")
        }
        Stored::Global { name, .. } => format!("global parameter {name:?}"),
    }))
}

fn read_parameter(value: &[u8]) -> Result<Stored, String> {
    let ParameterRecord { vhost, component, name, value, .. } = parse(value)?;
    match (vhost, component) {
        (Some(vhost), Some(component)) => Ok(Stored::Parameter { vhost, component, name, value }),
        (None, None) => Ok(Stored::Global { name, value }),
        _ => Err("a virtual host without a component, or the other way round".to_owned()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let versioned: Versioned = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if versioned.v != VERSION {
        return Err(format!("version {} is not known to this broker", versioned.v));
    }
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn put(key: Vec<u8>, record: &impl Serialize) -> TopologyChange {
    // Maps with text keys, strings and numbers: writing them to memory does not fail.
    let value = serde_json::to_vec(record).unwrap_or_default();
    TopologyChange::Put { key, value }
}

fn policy_key(vhost: &str, kind: PolicyKind, name: &str) -> Vec<u8> {
    let prefix = match kind {
        PolicyKind::Policy => POLICY_PREFIX,
        PolicyKind::OperatorPolicy => OPERATOR_PREFIX,
    };
    [prefix, vhost.as_bytes(), b"\0", name.as_bytes()].concat()
}

fn parameter_key(vhost: &str, component: &str, name: &str) -> Vec<u8> {
    [PARAMETER_PREFIX, vhost.as_bytes(), b"\0", component.as_bytes(), b"\0", name.as_bytes()].concat()
}

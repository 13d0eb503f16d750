//! Settings from the environment: `WARREN__SECTION__KEY`, and variables of RabbitMQ.

use std::ffi::OsString;

use super::error::{ConfigError, quoted};
use super::keys;
use super::layer::Layer;

const PREFIX: &str = "WARREN__";

/// RabbitMQ's names for the first user and the node. An empty one counts as unset, as there.
const RABBITMQ: [(&str, &str); 4] = [
    ("RABBITMQ_NODENAME", "node.name"),
    ("RABBITMQ_DEFAULT_USER", "default_user.name"),
    ("RABBITMQ_DEFAULT_PASS", "default_user.password"),
    ("RABBITMQ_DEFAULT_VHOST", "default_user.vhost"),
];

/// The layers of the environment, the weaker first.
pub(crate) fn layers(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<[Layer; 2], ConfigError> {
    let mut rabbitmq = Layer::default();
    let mut warren = Layer::default();
    let mut variables: Vec<(String, OsString)> =
        variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    // Which of two mistakes is reported must not depend on the order of the environment.
    variables.sort();
    for (name, value) in variables {
        let compatible = RABBITMQ.iter().find(|(variable, _)| *variable == name);
        if !name.starts_with(PREFIX) && compatible.is_none() {
            continue;
        }
        let origin = format!("environment variable {name}");
        let Ok(value) = value.into_string() else {
            return Err(ConfigError::new(format_args!("{origin}: the value is not valid UTF-8")));
        };
        match compatible.and_then(|(_, key)| keys::find(key)) {
            Some(_) if value.is_empty() => {}
            Some(key) => rabbitmq.set_text(key, value, &origin)?,
            None => set(&mut warren, &name, value, &origin)?,
        }
    }
    Ok([rabbitmq, warren])
}

fn set(layer: &mut Layer, name: &str, value: String, origin: &str) -> Result<(), ConfigError> {
    let dotted = name.get(PREFIX.len()..).unwrap_or_default().to_lowercase().replace("__", ".");
    if let Some(key) = keys::find(&dotted) {
        return layer.set_text(key, value, origin);
    }
    if super::topology::is_topology_section(keys::section(&dotted)) {
        return Err(ConfigError::new(format_args!(
            "{origin}: [[{}]] can be given in the configuration file only",
            keys::section(&dotted)
        )));
    }
    let nearest = keys::nearest_key(&dotted);
    Err(ConfigError::new(format_args!(
        "unknown key {} ({origin}); did you mean {PREFIX}{} (key {nearest})?",
        quoted(&dotted),
        nearest.to_uppercase().replace('.', "__"),
    )))
}

//! How much a user, a virtual host or the whole node may have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::erlang_term::{Pairs, Term};

/// A limit that somebody set: how many there may be. Negative is no limit, 0 allows none.
pub type Limit = Option<i64>;

/// The limit, when `used` has reached it.
pub fn reached(limit: Limit, used: usize) -> Option<i64> {
    let limit = limit.filter(|limit| *limit >= 0)?;
    (used as u64 >= limit as u64).then_some(limit)
}

/// Limits of one user, over the whole node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserLimits {
    /// Open connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Limit,
    /// Open channels, of all connections together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_channels: Limit,
}

/// Limits of one virtual host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VhostLimits {
    /// Open connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Limit,
    /// Queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queues: Limit,
}

/// Limits of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLimits {
    /// Open connections.
    pub max_connections: Limit,
    /// Open channels.
    pub max_channels: Limit,
    /// Queues of all virtual hosts.
    pub max_queues: Limit,
}

/// Name of the limit of open connections.
pub const MAX_CONNECTIONS: &str = "max-connections";
/// Name of the limit of open channels.
pub const MAX_CHANNELS: &str = "max-channels";
/// Name of the limit of queues.
pub const MAX_QUEUES: &str = "max-queues";

impl UserLimits {
    /// Takes the limits that are given and keeps the others, as RabbitMQ does.
    ///
    /// # Errors
    ///
    /// RabbitMQ's text for what is unknown or no number.
    pub fn with(mut self, given: &Map<String, Value>) -> Result<Self, String> {
        let found = read(given, [MAX_CONNECTIONS, MAX_CHANNELS], "user-limits")?;
        let [connections, channels] = found;
        self.max_connections = connections.or(self.max_connections);
        self.max_channels = channels.or(self.max_channels);
        Ok(self)
    }

    /// Without the limit of that name, or without any. An unknown name changes nothing.
    #[must_use]
    pub fn without(mut self, name: Option<&str>) -> Self {
        if name.is_none_or(|name| name == MAX_CONNECTIONS) {
            self.max_connections = None;
        }
        if name.is_none_or(|name| name == MAX_CHANNELS) {
            self.max_channels = None;
        }
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl VhostLimits {
    /// Reads limits that replace all former ones.
    ///
    /// # Errors
    ///
    /// RabbitMQ's text for what is unknown or no number.
    pub fn read(given: &Map<String, Value>) -> Result<Self, String> {
        let [max_connections, max_queues] = read(given, [MAX_CONNECTIONS, MAX_QUEUES], "limits")?;
        Ok(Self { max_connections, max_queues })
    }

    /// Without the limit of that name. An unknown name changes nothing.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        match name {
            MAX_CONNECTIONS => self.max_connections = None,
            MAX_QUEUES => self.max_queues = None,
            _ => {}
        }
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Every mistake is told, in RabbitMQ's order: first what is unknown, then what is no number, the last first.
fn read(given: &Map<String, Value>, names: [&str; 2], what: &str) -> Result<[Limit; 2], String> {
    let unknown: Vec<(&str, &Value)> =
        given.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| !names.contains(name)).collect();
    let mut problems = Vec::new();
    if !unknown.is_empty() {
        problems.push(format!("Unrecognised terms {} in {what}", Pairs(&unknown)));
    }
    let found = names.map(|name| given.get(name));
    for (name, value) in names.into_iter().zip(found).rev() {
        if let Some(value) = value.filter(|value| value.as_i64().is_none()) {
            problems.push(format!("{name} should be a number, actually was {}", Term(value)));
        }
    }
    if problems.is_empty() { Ok(found.map(|value| value?.as_i64())) } else { Err(problems.join("\n")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn zero_allows_none_and_negative_any_number() {
        assert_eq!(reached(None, 1_000_000), None);
        assert_eq!(reached(Some(-1), 1_000_000), None);
        assert_eq!(reached(Some(0), 0), Some(0));
        assert_eq!((reached(Some(2), 1), reached(Some(2), 2), reached(Some(2), 3)), (None, Some(2), Some(2)));
    }

    #[test]
    fn a_users_limits_are_added_to_and_a_vhosts_are_replaced() {
        let limits = UserLimits::default().with(&map(json!({"max-connections": 2}))).unwrap();
        let limits = limits.with(&map(json!({"max-channels": 1}))).unwrap();
        assert_eq!(limits, UserLimits { max_connections: Some(2), max_channels: Some(1) });
        assert_eq!(limits.without(Some("max-channels")).max_channels, None);
        assert_eq!(limits.without(Some("max-queues")), limits);
        assert!(limits.without(None).is_empty());
        let limits = VhostLimits::read(&map(json!({"max-queues": -1}))).unwrap();
        assert_eq!(limits, VhostLimits { max_connections: None, max_queues: Some(-1) });
        assert!(limits.without("max-queues").is_empty() && !limits.without("max-foo").is_empty());
    }

    #[test]
    fn mistakes_have_rabbitmqs_words() {
        let user = |value| UserLimits::default().with(&map(value)).unwrap_err();
        let vhost = |value| VhostLimits::read(&map(value)).unwrap_err();
        assert_eq!(user(json!({"max-foo": 5})), "Unrecognised terms [{<<\"max-foo\">>,5}] in user-limits");
        assert_eq!(user(json!({"max-channels": "a"})), "max-channels should be a number, actually was <<\"a\">>");
        assert_eq!(user(json!({"max-channels": 1.5})), "max-channels should be a number, actually was 1.5");
        assert_eq!(vhost(json!({"max-foo": 5})), "Unrecognised terms [{<<\"max-foo\">>,5}] in limits");
        assert_eq!(
            vhost(json!({"max-connections": null, "max-queues": "a"})),
            "max-queues should be a number, actually was <<\"a\">>\n\
             max-connections should be a number, actually was null"
        );
    }

    #[test]
    fn they_are_stored_by_rabbitmqs_names() {
        let limits = UserLimits { max_connections: Some(2), max_channels: None };
        assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"max-connections":2}"#);
        assert_eq!(serde_json::from_str::<UserLimits>("{}").unwrap(), UserLimits::default());
    }
}

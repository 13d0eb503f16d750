//! The settings of one policy.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::keys::{self, KEYS};
use super::matching::{ObjectKind, PolicyKind};
use crate::model::erlang_term::{Pairs, Term};

/// Settings by name, each checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition(BTreeMap<Box<str>, Value>);

impl Definition {
    /// Checks settings.
    ///
    /// # Errors
    ///
    /// RabbitMQ's text for the first value that is wrong, or for the settings that there are not.
    pub fn new(kind: PolicyKind, settings: &Map<String, Value>) -> Result<Self, String> {
        if settings.is_empty() {
            return Err("no policy provided".to_owned());
        }
        let mut unknown: Vec<(&str, &Value)> = Vec::new();
        for (name, value) in settings {
            match keys::find(name).filter(|key| kind == PolicyKind::Policy || key.merge.is_some()) {
                Some(key) => {
                    if let Some(what) = key.refuses(value) {
                        return Err(format!("{} is not a valid {what}", Term(value)));
                    }
                }
                None if name == "queue-master-locator" => {
                    return Err("use of deprecated queue-master-locator argument is not permitted".to_owned());
                }
                None => unknown.push((name, value)),
            }
        }
        check_retry(settings)?;
        if !unknown.is_empty() {
            return Err(format!("{} are not recognised policy settings", Pairs(&unknown)));
        }
        Ok(Self(settings.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect()))
    }

    /// One setting.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A setting that is a whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_i64()
    }

    /// A setting that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// All settings, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As JSON.
    pub fn to_json(&self) -> Map<String, Value> {
        self.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    /// Whether an object of that kind can have all of it.
    pub(super) fn suits(&self, kind: ObjectKind) -> bool {
        KEYS.iter().all(|key| !key.not_for.contains(&kind) || !self.0.contains_key(key.name))
    }

    /// These settings of a policy under those of an operator policy.
    pub(super) fn under(&self, operator: &Self) -> Self {
        let mut merged = self.clone();
        for key in KEYS {
            let (Some(merge), Some(theirs)) = (key.merge, operator.0.get(key.name)) else {
                continue;
            };
            let value = match self.0.get(key.name) {
                Some(own) => merge.apply(own, theirs),
                None => theirs.clone(),
            };
            merged.0.insert(key.name.into(), value);
        }
        merged
    }
}

/// What the settings of delayed retries ask of one another.
fn check_retry(settings: &Map<String, Value>) -> Result<(), String> {
    let number = |name| settings.get(name).and_then(Value::as_i64);
    let min = number("delayed-retry-min");
    if let Some(kind) = settings.get("delayed-retry-type").and_then(Value::as_str)
        && kind != "disabled"
        && min.is_none()
    {
        return Err(format!("delayed-retry-min is required when delayed-retry-type is {kind}"));
    }
    match (min, number("delayed-retry-max")) {
        (Some(min), Some(max)) if max < min => {
            Err(format!("delayed-retry-max ({max}) must not be smaller than delayed-retry-min ({min})"))
        }
        _ => Ok(()),
    }
}

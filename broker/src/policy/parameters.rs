//! Parameters: named JSON values that belong to a component of the broker, or to nobody in particular.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// Values of components in one virtual host.
#[derive(Clone, Debug, Default)]
pub struct Parameters(BTreeMap<(Box<str>, Box<str>), Arc<Value>>);

impl Parameters {
    /// Sets a value.
    pub fn set(&mut self, component: &str, name: &str, value: Value) {
        self.0.insert((component.into(), name.into()), Arc::new(value));
    }

    /// Takes a value out.
    pub fn remove(&mut self, component: &str, name: &str) -> Option<Arc<Value>> {
        self.0.remove(&(component.into(), name.into()))
    }

    /// A value.
    pub fn get(&self, component: &str, name: &str) -> Option<&Arc<Value>> {
        self.0.get(&(component.into(), name.into()))
    }

    /// Component, name and value of each, in this order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Arc<Value>)> {
        self.0.iter().map(|((component, name), value)| (&**component, &**name, value))
    }
}

/// Values of the whole broker.
#[derive(Clone, Debug, Default)]
pub struct GlobalParameters(BTreeMap<Box<str>, Arc<Value>>);

impl GlobalParameters {
    /// Sets a value.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.into(), Arc::new(value));
    }

    /// Takes a value out.
    pub fn remove(&mut self, name: &str) -> Option<Arc<Value>> {
        self.0.remove(name)
    }

    /// A value.
    pub fn get(&self, name: &str) -> Option<&Arc<Value>> {
        self.0.get(name)
    }

    /// Name and value of each, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Value>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

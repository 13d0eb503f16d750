//! Policies: settings that an operator gives to queues and exchanges by the pattern of their names.
//!
//! # Layout
//! - `keys`: which settings there are, what each may be, where it can apply and how an operator's value is merged
//! - `definition`: the settings of one policy, checked
//! - `matching`: one policy, and all of a virtual host: which one an object gets, and what comes of it
//! - `parameters`: named JSON values of other components, kept for definitions
//! - `records`: policies and parameters as stored
//!
//! Values only: the virtual host holds them, makes them durable and tells whom a change concerns.

mod definition;
mod keys;
mod matching;
mod parameters;
mod records;
#[cfg(test)]
mod tests;

pub use definition::Definition;
pub use keys::is_setting;
pub use matching::{ApplyTo, Effective, ObjectKind, Policies, Policy, PolicyKind, PolicyRequest};
pub use parameters::{GlobalParameters, Parameters};
pub use records::{
    GLOBAL_PREFIX, PARAMETER_PREFIX, Stored, delete_global, delete_parameter, delete_policy, describe,
    is_policy_record, put_global, put_parameter, put_policy, read,
};

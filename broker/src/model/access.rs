//! What the topology asks about rights, without knowing who answers.

use protocol::error::AmqpError;

use super::events::OPERATOR;

/// The three rights a user can have on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Create, delete and change.
    Configure,
    /// Put messages in.
    Write,
    /// Take messages out.
    Read,
}

/// What a right is asked for. The default exchange is `Exchange("")`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// An exchange by name.
    Exchange(&'a str),
    /// A queue by name.
    Queue(&'a str),
}

/// The rights of the user on whose behalf something is done, in one vhost.
pub trait Access {
    /// Refuses with 403 and the full text when the right is missing.
    fn check(&self, permission: Permission, resource: Resource<'_>) -> Result<(), AmqpError>;

    /// Refuses with 403 what a topic permission does not cover: a routing key to be published to a topic exchange (write), a
    /// key to be bound to one (read). Without such a permission for the exchange everything is allowed.
    fn check_topic(&self, _permission: Permission, _exchange: &str, _key: &str) -> Result<(), AmqpError> {
        Ok(())
    }

    /// Name of the user.
    fn user(&self) -> &str;

    /// For passive declares any right is enough; the refusal is the one for configure.
    fn check_any(&self, resource: Resource<'_>) -> Result<(), AmqpError> {
        if self.check(Permission::Read, resource).is_ok() || self.check(Permission::Write, resource).is_ok() {
            return Ok(());
        }
        self.check(Permission::Configure, resource)
    }
}

/// The broker itself: everything is allowed. Used for topology from the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unrestricted;

impl Access for Unrestricted {
    fn check(&self, _: Permission, _: Resource<'_>) -> Result<(), AmqpError> {
        Ok(())
    }

    fn user(&self) -> &str {
        OPERATOR
    }
}

//! Which policies an object gets, and what comes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::definition::Definition;
use crate::model::erlang_term::Term;
use crate::model::operation::{OperationError, check_name};
use crate::model::pattern::Pattern;

/// Who set a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// A user, within what operators leave.
    Policy,
    /// An operator.
    OperatorPolicy,
}

/// What a policy can apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// An exchange.
    Exchange,
    /// A classic queue.
    ClassicQueue,
    /// A quorum queue.
    QuorumQueue,
    /// A stream.
    Stream,
}

impl ObjectKind {
    /// The kind of a queue by its `x-queue-type`.
    pub fn of_queue(queue_type: Option<&str>) -> Self {
        match queue_type {
            Some("quorum") => Self::QuorumQueue,
            Some("stream") => Self::Stream,
            _ => Self::ClassicQueue,
        }
    }
}

/// What a policy is meant for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTo {
    /// Everything.
    #[default]
    All,
    /// Exchanges.
    Exchanges,
    /// Queues of every kind.
    Queues,
    /// Classic queues.
    ClassicQueues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams.
    Streams,
}

impl ApplyTo {
    const ALL: [Self; 6] =
        [Self::All, Self::Exchanges, Self::Queues, Self::ClassicQueues, Self::QuorumQueues, Self::Streams];

    /// Its name in definitions.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exchanges => "exchanges",
            Self::Queues => "queues",
            Self::ClassicQueues => "classic_queues",
            Self::QuorumQueues => "quorum_queues",
            Self::Streams => "streams",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    fn covers(self, kind: ObjectKind) -> bool {
        match self {
            Self::All => true,
            Self::Exchanges => kind == ObjectKind::Exchange,
            Self::Queues => kind != ObjectKind::Exchange,
            Self::ClassicQueues => kind == ObjectKind::ClassicQueue,
            Self::QuorumQueues => kind == ObjectKind::QuorumQueue,
            Self::Streams => kind == ObjectKind::Stream,
        }
    }
}

/// A policy as somebody asks for it.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    /// Its name.
    pub name: &'a str,
    /// The expression that names must match, anywhere.
    pub pattern: &'a str,
    /// Its settings.
    pub definition: &'a Map<String, Value>,
    /// A number; 0 without.
    pub priority: Option<&'a Value>,
    /// What it is meant for; all without.
    pub apply_to: Option<&'a str>,
}

/// One policy.
#[derive(Clone)]
pub struct Policy {
    name: Arc<str>,
    pattern: Box<str>,
    expression: Pattern,
    priority: Number,
    apply_to: ApplyTo,
    definition: Definition,
}

impl Policy {
    /// Checks what is asked for.
    ///
    /// # Errors
    ///
    /// RabbitMQ's text for everything that is wrong with it, and ours for a pattern.
    pub fn new(kind: PolicyKind, request: &PolicyRequest<'_>) -> Result<Self, OperationError> {
        check_name("policy", request.name)?;
        let definition = Definition::new(kind, request.definition);
        let apply_to = match request.apply_to {
            None => Ok(ApplyTo::All),
            Some(name) => ApplyTo::from_name(name).ok_or_else(|| {
                format!(
                    "apply-to '{name}' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', \
                     'streams', 'exchanges', or 'all'"
                )
            }),
        };
        let expression = Pattern::new(request.pattern)
            .map_err(|problem| format!("pattern should be regular expression but is invalid: {problem}"));
        let priority = match request.priority {
            None => Ok(Number::from(0)),
            Some(Value::Number(number)) => Ok(number.clone()),
            Some(other) => Err(format!("priority should be a number, actually was {}", Term(other))),
        };
        match (definition, apply_to, expression, priority) {
            (Ok(definition), Ok(apply_to), Ok(expression), Ok(priority)) => Ok(Self {
                name: request.name.into(),
                pattern: request.pattern.into(),
                expression,
                priority,
                apply_to,
                definition,
            }),
            (definition, apply_to, expression, priority) => {
                let problems = [definition.err(), apply_to.err(), expression.err(), priority.err()];
                let problems: Vec<String> = problems.into_iter().flatten().collect();
                Err(OperationError::NotValidated(problems.join("\n")))
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The expression that names must match.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The policy of the highest priority is the one that holds.
    pub fn priority(&self) -> &Number {
        &self.priority
    }

    /// What it is meant for.
    pub fn apply_to(&self) -> ApplyTo {
        self.apply_to
    }

    /// Its settings.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Whether it may hold for an object.
    pub fn matches(&self, kind: ObjectKind, name: &str) -> bool {
        self.apply_to.covers(kind) && self.definition.suits(kind) && self.expression.is_match(name)
    }

    fn rank(&self) -> f64 {
        self.priority.as_f64().unwrap_or_default()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name)
            .field("pattern", &self.pattern)
            .field("priority", &self.priority)
            .field("apply_to", &self.apply_to)
            .field("definition", &self.definition)
            .finish()
    }
}

/// What holds for one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// The policy, by name.
    pub policy: Option<Arc<str>>,
    /// The operator policy, by name.
    pub operator_policy: Option<Arc<str>>,
    /// The settings of both together.
    pub definition: Definition,
}

/// The policies of one virtual host.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: BTreeMap<Arc<str>, Arc<Policy>>,
    operator_policies: BTreeMap<Arc<str>, Arc<Policy>>,
}

impl Policies {
    /// Sets a policy; gives the one of that name that was there.
    pub fn insert(&mut self, kind: PolicyKind, policy: Arc<Policy>) -> Option<Arc<Policy>> {
        self.of_mut(kind).insert(Arc::clone(&policy.name), policy)
    }

    /// Takes a policy out.
    pub fn remove(&mut self, kind: PolicyKind, name: &str) -> Option<Arc<Policy>> {
        self.of_mut(kind).remove(name)
    }

    /// One policy.
    pub fn get(&self, kind: PolicyKind, name: &str) -> Option<&Arc<Policy>> {
        self.of(kind).get(name)
    }

    /// All policies of a kind, by name.
    pub fn list(&self, kind: PolicyKind) -> impl Iterator<Item = &Arc<Policy>> {
        self.of(kind).values()
    }

    /// What holds for an object: of each kind the policy with the highest priority, and among equals the one whose name comes
    /// first.
    pub fn effective(&self, kind: ObjectKind, name: &str) -> Effective {
        let best = |of: PolicyKind| {
            let matching = self.of(of).values().filter(|policy| policy.matches(kind, name));
            matching.reduce(|best, policy| if policy.rank() > best.rank() { policy } else { best })
        };
        let (policy, operator) = (best(PolicyKind::Policy), best(PolicyKind::OperatorPolicy));
        let own = policy.map(|policy| policy.definition.clone()).unwrap_or_default();
        Effective {
            policy: policy.map(|policy| Arc::clone(&policy.name)),
            operator_policy: operator.map(|policy| Arc::clone(&policy.name)),
            definition: match operator {
                Some(operator) => own.under(&operator.definition),
                None => own,
            },
        }
    }

    fn of(&self, kind: PolicyKind) -> &BTreeMap<Arc<str>, Arc<Policy>> {
        match kind {
            PolicyKind::Policy => &self.policies,
            PolicyKind::OperatorPolicy => &self.operator_policies,
        }
    }

    fn of_mut(&mut self, kind: PolicyKind) -> &mut BTreeMap<Arc<str>, Arc<Policy>> {
        match kind {
            PolicyKind::Policy => &mut self.policies,
            PolicyKind::OperatorPolicy => &mut self.operator_policies,
        }
    }
}

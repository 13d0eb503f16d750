//! The rules of topology operations, with a real store behind them.

mod access;
mod auto_delete;
mod bindings;
mod dead_letters;
mod exchanges;
mod limits;
mod picking;
mod policies;
mod queues;
mod recovery;
mod routing;
mod settings;

use std::sync::Arc;

use amq_protocol::types::AMQPValue;
use protocol::amqp::BasicProperties;
use protocol::error::AmqpError;
use protocol::{Properties, encode_properties};
use storage::{Lsn, Options, Store};
use tempfile::TempDir;

use super::{Declared, ExchangeBinding, ExchangeRequest, QueueBinding, QueueRequest, Targets, Vhost};
use crate::model::ConnectionId;
use crate::model::access::Unrestricted;
use crate::model::arguments::Arguments;
use crate::model::clock::Clock;
use crate::queue::{Queue, Services};

const ME: ConnectionId = ConnectionId(1);
const OTHER: ConnectionId = ConnectionId(2);

/// A vhost `/` in a store of its own.
struct Fixture {
    vhost: Arc<Vhost>,
    store: Arc<Store>,
    directory: TempDir,
}

fn services(store: &Arc<Store>) -> Services {
    Services::new(store.clone(), Clock::system())
}

/// What the tests read of an error.
type Refusal = (u16, String, u16, u16);

fn refusal<T>(result: Result<T, AmqpError>) -> Option<Refusal> {
    let error = result.err()?;
    Some((error.code.as_u16(), error.text, error.class_id, error.method_id))
}

fn refused(code: u16, text: &str, class_id: u16, method_id: u16) -> Option<Refusal> {
    Some((code, text.to_owned(), class_id, method_id))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn arguments(pairs: &[(&str, AMQPValue)]) -> Arguments {
    let mut arguments = Arguments::default();
    for (name, value) in pairs {
        arguments.insert(name, value.clone());
    }
    arguments
}

fn exchange<'a>(name: &'a str, kind: &'a str) -> ExchangeRequest<'a> {
    ExchangeRequest { name, kind, durable: false, auto_delete: false, internal: false, arguments: Arguments::default() }
}

fn queue(name: &str) -> QueueRequest<'_> {
    QueueRequest {
        name,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::default(),
        connection: ME,
    }
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (store, _) = Store::open(Options::new(directory.path())).expect("store");
        let (vhost, _) = Vhost::create("/", services(&store));
        Self { vhost, store, directory }
    }

    fn declare_exchange(&self, request: ExchangeRequest<'_>) -> Result<Lsn, AmqpError> {
        self.vhost.declare_exchange(&Unrestricted, request)
    }

    fn declare_queue(&self, request: QueueRequest<'_>) -> Result<Declared, AmqpError> {
        self.vhost.declare_queue(&Unrestricted, request)
    }

    fn delete_queue(&self, name: &str) -> Result<(u32, Lsn), AmqpError> {
        self.vhost.delete_queue(&Unrestricted, name, false, false, ME)
    }

    fn has_exchange(&self, name: &str) -> bool {
        self.vhost.exchange(name).is_some()
    }

    /// Declares an exchange with defaults.
    fn with_exchange(&self, name: &str, kind: &str) {
        self.declare_exchange(exchange(name, kind)).expect("exchange");
    }

    /// Declares a queue with defaults.
    fn with_queue(&self, name: &str) -> Arc<Queue> {
        self.declare_queue(queue(name)).expect("queue").queue
    }

    fn bind(&self, exchange: &str, queue: &str, key: &str) -> Result<Lsn, AmqpError> {
        self.bind_with(exchange, queue, key, &Arguments::default())
    }

    fn bind_with(&self, exchange: &str, queue: &str, key: &str, arguments: &Arguments) -> Result<Lsn, AmqpError> {
        self.vhost.bind_queue(&Unrestricted, QueueBinding { queue, exchange, key, arguments, connection: ME })
    }

    fn unbind(&self, exchange: &str, queue: &str, key: &str) -> Result<Lsn, AmqpError> {
        self.vhost.unbind_queue(
            &Unrestricted,
            QueueBinding { queue, exchange, key, arguments: &Arguments::default(), connection: ME },
        )
    }

    fn bind_exchange(&self, source: &str, destination: &str, key: &str) -> Result<Lsn, AmqpError> {
        self.vhost.bind_exchange(
            &Unrestricted,
            ExchangeBinding { destination, source, key, arguments: &Arguments::default() },
        )
    }

    fn unbind_exchange(&self, source: &str, destination: &str, key: &str) -> Result<Lsn, AmqpError> {
        self.vhost.unbind_exchange(
            &Unrestricted,
            ExchangeBinding { destination, source, key, arguments: &Arguments::default() },
        )
    }

    /// Names of the queues a message would reach, sorted.
    fn routed(&self, exchange: &str, keys: &[&str]) -> Vec<String> {
        self.routed_with(exchange, keys, &Arguments::default())
    }

    fn routed_with(&self, exchange: &str, keys: &[&str], headers: &Arguments) -> Vec<String> {
        let properties = BasicProperties::default().with_headers(headers.table().clone());
        self.routed_by(exchange, keys, properties)
    }

    fn routed_by(&self, exchange: &str, keys: &[&str], properties: BasicProperties) -> Vec<String> {
        let exchange = self.vhost.exchange(exchange).expect("exchange");
        let raw = encode_properties(&properties);
        let properties = Properties::parse(&raw).expect("properties");
        let mut targets = Targets::default();
        self.vhost.route_to(&exchange, keys, Some(&properties), &mut targets);
        let mut names: Vec<String> = targets.queues.iter().map(|queue| queue.spec().name.to_string()).collect();
        names.sort();
        names
    }
}

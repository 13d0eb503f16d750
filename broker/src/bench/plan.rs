//! Which queues there are, how they are bound, and which of them a producer or consumer uses.

use anyhow::bail;
use protocol::AMQPClass;
use protocol::amqp::{AMQPValue, BasicProperties, FieldTable, LongString, exchange, queue};

use super::options::{ExchangeType, Options};
use crate::client::{CHANNEL, Connection, short};

/// The header a headers exchange routes by.
const HEADER: &str = "queue";

/// The queues the `index`th of `count` connections uses: with fewer connections than queues each takes its share, with
/// more they share one queue each.
pub(super) fn share(index: usize, count: usize, queues: usize) -> Vec<usize> {
    if count >= queues { vec![index % queues] } else { (index..queues).step_by(count).collect() }
}

/// Names have the same length, so that all messages of a producer have.
pub(super) fn queue_name(options: &Options, index: usize) -> String {
    format!("{}-{index:06}", options.name)
}

/// What to publish with to reach a queue: exchange, routing key and properties.
pub(super) struct Route {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
}

/// How a queue is reached, in turn if there are several ways.
pub(super) fn routes(options: &Options, index: usize) -> anyhow::Result<Vec<Route>> {
    let route = route(options, index)?;
    if options.bindings == 0 {
        return Ok(vec![route]);
    }
    let with_key = |binding| Route {
        exchange: route.exchange.clone(),
        routing_key: binding_key(options, index, binding, "any"),
        properties: route.properties.clone(),
    };
    Ok((0..options.bindings).map(with_key).collect())
}

/// The key of one of a queue's many bindings; no two queues have one in common, and all have the same length.
fn binding_key(options: &Options, index: usize, binding: usize, word: &str) -> String {
    format!("dev.{:010}.{word}.status", index * options.bindings + binding)
}

/// The keys that a queue is bound with.
fn binding_keys(options: &Options, kind: ExchangeType, index: usize) -> Vec<String> {
    match (kind, options.bindings) {
        (ExchangeType::Topic, 0) => vec![format!("*.{index:06}")],
        (_, 0) => vec![queue_name(options, index)],
        (kind, bindings) => {
            let word = if kind == ExchangeType::Topic { "*" } else { "any" };
            (0..bindings).map(|binding| binding_key(options, index, binding, word)).collect()
        }
    }
}

/// The arguments of all queues, each `NAME=VALUE`.
fn queue_arguments(options: &Options) -> anyhow::Result<FieldTable> {
    let mut table = FieldTable::default();
    for argument in &options.arguments {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        let value = match (value.parse::<i64>(), value.parse::<bool>()) {
            (Ok(number), _) => AMQPValue::LongLongInt(number),
            (_, Ok(flag)) => AMQPValue::Boolean(flag),
            _ => AMQPValue::LongString(LongString::from(value.as_bytes())),
        };
        table.insert(short(name)?, value);
    }
    Ok(table)
}

fn route(options: &Options, index: usize) -> anyhow::Result<Route> {
    let mut properties = BasicProperties::default().with_delivery_mode(if options.persistent { 2 } else { 1 });
    if let Some(ms) = options.expiration {
        properties = properties.with_expiration(short(&ms.to_string())?);
    }
    let queue = queue_name(options, index);
    Ok(match options.exchange_type {
        None => Route { exchange: String::new(), routing_key: queue, properties },
        Some(kind) => Route {
            exchange: options.name.clone(),
            routing_key: match kind {
                ExchangeType::Topic => format!("bench.{index:06}"),
                _ => queue.clone(),
            },
            properties: match kind {
                ExchangeType::Headers => properties.with_headers(header_table(&queue)?),
                _ => properties,
            },
        },
    })
}

fn header_table(queue: &str) -> anyhow::Result<FieldTable> {
    let mut table = FieldTable::default();
    let value = AMQPValue::LongString(LongString::from(queue.as_bytes()));
    table.insert(short(HEADER)?, value);
    Ok(table)
}

/// Declares everything.
pub(super) fn set_up(connection: &mut Connection, options: &Options) -> anyhow::Result<()> {
    if let Some(kind) = options.exchange_type {
        let declare = exchange::Declare {
            exchange: short(&options.name)?,
            kind: short(kind.name())?,
            passive: false,
            durable: options.durable,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        let method = AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare));
        connection.call(CHANNEL, method)?;
    }
    for index in 0..options.queues {
        let name = short(&queue_name(options, index))?;
        let declare = queue::Declare {
            queue: name.clone(),
            passive: false,
            durable: options.durable,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: queue_arguments(options)?,
        };
        queue_call(connection, queue::AMQPMethod::Declare(declare))?;
        if !options.keep_queues {
            let purge = queue::Purge { queue: name.clone(), nowait: false };
            queue_call(connection, queue::AMQPMethod::Purge(purge))?;
        }
        let Some(kind) = options.exchange_type else { continue };
        for routing_key in binding_keys(options, kind, index) {
            let bind = queue::Bind {
                queue: name.clone(),
                exchange: short(&options.name)?,
                routing_key: short(&routing_key)?,
                nowait: false,
                arguments: match kind {
                    ExchangeType::Headers => header_table(&queue_name(options, index))?,
                    _ => FieldTable::default(),
                },
            };
            queue_call(connection, queue::AMQPMethod::Bind(bind))?;
        }
    }
    Ok(())
}

/// Deletes what was declared.
pub(super) fn tear_down(connection: &mut Connection, options: &Options) -> anyhow::Result<()> {
    if options.keep_queues {
        return Ok(());
    }
    for index in 0..options.queues {
        let delete = queue::Delete {
            queue: short(&queue_name(options, index))?,
            if_unused: false,
            if_empty: false,
            nowait: false,
        };
        queue_call(connection, queue::AMQPMethod::Delete(delete))?;
    }
    if options.exchange_type.is_some() {
        let delete = exchange::Delete { exchange: short(&options.name)?, if_unused: false, nowait: false };
        let method = AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete));
        connection.call(CHANNEL, method)?;
    }
    Ok(())
}

fn queue_call(connection: &mut Connection, method: queue::AMQPMethod) -> anyhow::Result<()> {
    match connection.call(CHANNEL, AMQPClass::Queue(method))? {
        AMQPClass::Queue(_) => Ok(()),
        other => bail!("expected the answer to a queue method, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::options::tests::parse;

    #[test]
    fn every_queue_is_used_and_nobody_is_idle() {
        assert_eq!(share(0, 1, 3), [0, 1, 2]);
        assert_eq!(share(0, 2, 3), [0, 2]);
        assert_eq!(share(1, 2, 3), [1]);
        assert_eq!(share(0, 3, 3), [0]);
        assert_eq!(share(4, 5, 3), [1]);
    }

    #[test]
    fn every_way_to_a_queue_is_bound_and_no_other_queue_s() {
        let options = parse(&["--exchange-type", "topic", "--bindings", "2", "--queues", "2"]);
        let keys = |index| binding_keys(&options, ExchangeType::Topic, index);
        assert_eq!(keys(1), ["dev.0000000002.*.status", "dev.0000000003.*.status"]);
        let published: Vec<_> = routes(&options, 1).unwrap().into_iter().map(|route| route.routing_key).collect();
        assert_eq!(published, ["dev.0000000002.any.status", "dev.0000000003.any.status"]);
        assert_eq!(binding_keys(&options, ExchangeType::Direct, 1), published);
    }

    #[test]
    fn arguments_have_the_type_that_they_look_like() {
        let options = parse(&["--argument", "x-queue-type=quorum", "--argument", "x-max-length=10"]);
        let table = queue_arguments(&options).unwrap();
        assert_eq!(table.inner().get("x-max-length"), Some(&AMQPValue::LongLongInt(10)));
        assert_eq!(table.inner().get("x-queue-type"), Some(&AMQPValue::LongString("quorum".into())));
    }
}

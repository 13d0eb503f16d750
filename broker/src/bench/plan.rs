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

pub(super) fn route(options: &Options, index: usize) -> anyhow::Result<Route> {
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
            arguments: FieldTable::default(),
        };
        queue_call(connection, queue::AMQPMethod::Declare(declare))?;
        if !options.keep_queues {
            let purge = queue::Purge { queue: name.clone(), nowait: false };
            queue_call(connection, queue::AMQPMethod::Purge(purge))?;
        }
        if let Some(kind) = options.exchange_type {
            let route = route(options, index)?;
            let bind = queue::Bind {
                queue: name,
                exchange: short(&options.name)?,
                routing_key: short(&match kind {
                    ExchangeType::Topic => format!("*.{index:06}"),
                    _ => route.routing_key,
                })?,
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

    #[test]
    fn every_queue_is_used_and_nobody_is_idle() {
        assert_eq!(share(0, 1, 3), [0, 1, 2]);
        assert_eq!(share(0, 2, 3), [0, 2]);
        assert_eq!(share(1, 2, 3), [1]);
        assert_eq!(share(0, 3, 3), [0]);
        assert_eq!(share(4, 5, 3), [1]);
    }
}

//! Methods of the exchange and queue classes: arguments in, topology changed, an answer once it is durable.

use std::sync::Arc;

use protocol::amqp::{AMQPClass, exchange, queue};
use protocol::names::short_cut;
use protocol::{AmqpError, ReplyCode};
use storage::Lsn;

use super::Session;
use super::channel::Channel;
use super::dispatch::unimplemented;
use crate::model::access::{Access, Permission, Resource};
use crate::model::arguments::Arguments;
use crate::model::statistics::churn;
use crate::vhost::{DIRECT_REPLY, ExchangeBinding, ExchangeRequest, QueueBinding, QueueRequest};

impl Session {
    pub(super) fn on_exchange(&mut self, channel: &mut Channel, method: exchange::AMQPMethod) -> Result<(), AmqpError> {
        use exchange::AMQPMethod as M;
        let vhost = Arc::clone(self.vhost()?);
        let grants = self.grants()?;
        let (lsn, nowait, reply) = match method {
            M::Declare(m) => {
                let lsn = if m.passive {
                    vhost.declare_exchange_passive(grants, m.exchange.as_str())?
                } else {
                    let request = ExchangeRequest {
                        name: m.exchange.as_str(),
                        kind: m.kind.as_str(),
                        durable: m.durable,
                        auto_delete: m.auto_delete,
                        internal: m.internal,
                        arguments: m.arguments.into(),
                    };
                    vhost.declare_exchange(grants, request)?
                };
                (lsn, m.nowait, M::DeclareOk(exchange::DeclareOk {}))
            }
            M::Delete(m) => {
                let lsn = vhost.delete_exchange(grants, m.exchange.as_str(), m.if_unused)?;
                (lsn, m.nowait, M::DeleteOk(exchange::DeleteOk {}))
            }
            M::Bind(m) => {
                let arguments = Arguments::from(m.arguments);
                let binding = ExchangeBinding {
                    destination: m.destination.as_str(),
                    source: m.source.as_str(),
                    key: m.routing_key.as_str(),
                    arguments: &arguments,
                };
                let lsn = vhost.bind_exchange(grants, binding)?;
                (lsn, m.nowait, M::BindOk(exchange::BindOk {}))
            }
            M::Unbind(m) => {
                let arguments = Arguments::from(m.arguments);
                let binding = ExchangeBinding {
                    destination: m.destination.as_str(),
                    source: m.source.as_str(),
                    key: m.routing_key.as_str(),
                    arguments: &arguments,
                };
                let lsn = vhost.unbind_exchange(grants, binding)?;
                (lsn, m.nowait, M::UnbindOk(exchange::UnbindOk {}))
            }
            other => return Err(unimplemented(&AMQPClass::Exchange(other))),
        };
        if !nowait {
            self.reply_at(channel.number, lsn, &AMQPClass::Exchange(reply));
        }
        Ok(())
    }

    pub(super) fn on_queue(&mut self, channel: &mut Channel, method: queue::AMQPMethod) -> Result<(), AmqpError> {
        use queue::AMQPMethod as M;
        let (lsn, nowait, reply) = match method {
            M::Declare(m) => {
                let nowait = m.nowait;
                let (lsn, ok) = self.declare_queue(channel, m)?;
                (lsn, nowait, M::DeclareOk(ok))
            }
            M::Bind(m) => {
                let (queue, key) = self.binding_names(channel, m.queue.as_str(), m.routing_key.as_str())?;
                let arguments = Arguments::from(m.arguments);
                let binding = QueueBinding {
                    queue: &queue,
                    exchange: m.exchange.as_str(),
                    key: &key,
                    arguments: &arguments,
                    connection: self.id,
                };
                let lsn = self.vhost()?.bind_queue(self.grants()?, binding)?;
                (lsn, m.nowait, M::BindOk(queue::BindOk {}))
            }
            M::Unbind(m) => {
                let (queue, key) = self.binding_names(channel, m.queue.as_str(), m.routing_key.as_str())?;
                let arguments = Arguments::from(m.arguments);
                let binding = QueueBinding {
                    queue: &queue,
                    exchange: m.exchange.as_str(),
                    key: &key,
                    arguments: &arguments,
                    connection: self.id,
                };
                let lsn = self.vhost()?.unbind_queue(self.grants()?, binding)?;
                (lsn, false, M::UnbindOk(queue::UnbindOk {}))
            }
            M::Purge(m) => {
                let (message_count, lsn) = self.purge(channel, m.queue.as_str())?;
                (lsn, m.nowait, M::PurgeOk(queue::PurgeOk { message_count }))
            }
            M::Delete(m) => {
                let name = self.queue_name(channel, m.queue.as_str())?;
                let (message_count, lsn) = if name.starts_with(DIRECT_REPLY) {
                    (0, Lsn(0))
                } else {
                    self.vhost()?.delete_queue(self.grants()?, &name, m.if_unused, m.if_empty, self.id)?
                };
                (lsn, m.nowait, M::DeleteOk(queue::DeleteOk { message_count }))
            }
            other => return Err(unimplemented(&AMQPClass::Queue(other))),
        };
        if !nowait {
            self.reply_at(channel.number, lsn, &AMQPClass::Queue(reply));
        }
        Ok(())
    }

    fn declare_queue(
        &mut self,
        channel: &mut Channel,
        m: queue::Declare,
    ) -> Result<(Lsn, queue::DeclareOk), AmqpError> {
        if let Some(answer) = self.declare_replies(m.queue.as_str()) {
            let ok = answer?;
            channel.last_queue = Some(ok.queue.as_str().into());
            return Ok((Lsn(0), ok));
        }
        let (vhost, grants) = (self.vhost()?, self.grants()?);
        let declared = if m.passive {
            vhost.declare_queue_passive(grants, m.queue.as_str(), self.id)?
        } else {
            let request = QueueRequest {
                name: m.queue.as_str(),
                durable: m.durable,
                exclusive: m.exclusive,
                auto_delete: m.auto_delete,
                arguments: Arguments::from(m.arguments),
                connection: self.id,
            };
            vhost.declare_queue(grants, request)?
        };
        self.broker.services.statistics.count_churn(churn::QUEUE_DECLARED);
        let name = &declared.queue.spec().name;
        channel.last_queue = Some(Arc::clone(name));
        Ok((
            declared.lsn,
            queue::DeclareOk {
                queue: short_cut(name),
                message_count: declared.message_count,
                consumer_count: declared.consumer_count,
            },
        ))
    }

    /// Empty names of a binding: the last queue, and with it also the routing key.
    fn binding_names(&self, channel: &Channel, queue: &str, key: &str) -> Result<(Arc<str>, Arc<str>), AmqpError> {
        let name = self.queue_name(channel, queue)?;
        let key = if queue.is_empty() && key.is_empty() { Arc::clone(&name) } else { key.into() };
        Ok((name, key))
    }

    fn purge(&self, channel: &Channel, queue: &str) -> Result<(u32, Lsn), AmqpError> {
        let name = self.queue_name(channel, queue)?;
        self.grants()?.check(Permission::Read, Resource::Queue(&name))?;
        Ok(self.vhost()?.queue_for(&name, self.id)?.purge())
    }
}

/// 530 for a session that has no virtual host yet; the state machine lets no method get that far.
pub(super) fn not_open() -> AmqpError {
    AmqpError::new(ReplyCode::ChannelError, "connection is not open")
}

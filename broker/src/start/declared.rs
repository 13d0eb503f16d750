//! Topology that the configuration file declares: created when missing, compared when there.

use std::sync::Arc;

use protocol::AmqpError;
use storage::Lsn;

use crate::broker::Broker;
use crate::config::{DestinationType, Topology};
use crate::model::ConnectionId;
use crate::model::access::Unrestricted;
use crate::model::arguments::Arguments;
use crate::vhost::{ExchangeBinding, ExchangeRequest, QueueBinding, QueueRequest, Vhost};

/// The broker itself, as the owner of what it declares.
const NOBODY: ConnectionId = ConnectionId(0);

/// Declares everything; the first entry that conflicts with what is stored is the error.
pub(super) fn declare(broker: &Broker, topology: &Topology) -> anyhow::Result<Lsn> {
    let mut last = Lsn(0);
    let mut done = |context: &str, result: Result<Lsn, AmqpError>| match result {
        Ok(lsn) => {
            last = last.max(lsn);
            Ok(())
        }
        Err(error) => Err(anyhow::anyhow!("{context}: {}", error.text)),
    };
    for entry in &topology.exchanges {
        let vhost = find(broker, &entry.context, &entry.vhost)?;
        let request = ExchangeRequest {
            name: &entry.name,
            kind: &entry.kind,
            durable: entry.durable,
            auto_delete: entry.auto_delete,
            internal: entry.internal,
            arguments: Arguments::from(entry.arguments.clone()),
        };
        done(&entry.context, vhost.declare_exchange(&Unrestricted, request))?;
    }
    for entry in &topology.queues {
        let vhost = find(broker, &entry.context, &entry.vhost)?;
        let request = QueueRequest {
            name: &entry.name,
            durable: entry.durable,
            exclusive: false,
            auto_delete: entry.auto_delete,
            arguments: Arguments::from(entry.arguments.clone()),
            connection: NOBODY,
        };
        let declared = vhost.declare_queue(&Unrestricted, request);
        done(&entry.context, declared.map(|declared| declared.lsn))?;
    }
    for entry in &topology.bindings {
        let vhost = find(broker, &entry.context, &entry.vhost)?;
        let arguments = Arguments::from(entry.arguments.clone());
        let bound = match entry.destination_type {
            DestinationType::Queue => vhost.bind_queue(
                &Unrestricted,
                QueueBinding {
                    queue: &entry.destination,
                    exchange: &entry.source,
                    key: &entry.routing_key,
                    arguments: &arguments,
                    connection: NOBODY,
                },
            ),
            DestinationType::Exchange => vhost.bind_exchange(
                &Unrestricted,
                ExchangeBinding {
                    destination: &entry.destination,
                    source: &entry.source,
                    key: &entry.routing_key,
                    arguments: &arguments,
                },
            ),
        };
        done(&entry.context, bound)?;
    }
    Ok(last)
}

fn find(broker: &Broker, context: &str, vhost: &str) -> anyhow::Result<Arc<Vhost>> {
    broker.vhost(vhost).ok_or_else(|| anyhow::anyhow!("{context}: there is no vhost {vhost:?}"))
}

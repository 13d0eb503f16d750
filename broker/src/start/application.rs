//! Serving clients, or not: operators can stop that without ending the broker, and begin again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::STOP_TIMEOUT;
use crate::broker::{Broker, Order};
use crate::config::ListenAddress;
use crate::model::access::Unrestricted;
use crate::net::listener;

/// The listeners for AMQP and what operators want of them.
pub(super) struct Serving {
    broker: Arc<Broker>,
    orders: UnboundedReceiver<Order>,
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<std::io::Result<()>>,
}

impl Serving {
    /// Binds the configured addresses and accepts.
    pub(super) fn start(broker: Arc<Broker>) -> anyhow::Result<Self> {
        let orders = broker.application.orders();
        let mut serving = Self { broker, orders, addresses: Vec::new(), tasks: JoinSet::new() };
        let configured = serving.broker.settings.listeners.amqp.clone();
        serving.listen(&configured).map_err(|(address, error)| {
            let key = serving.broker.settings.describe("listeners.amqp");
            anyhow::anyhow!("cannot listen on {address}: {error} ({key})")
        })?;
        for address in &serving.addresses {
            serving.broker.application.add_listener("amqp", *address);
        }
        Ok(serving)
    }

    /// What is listened on while clients are served.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn listen(&mut self, addresses: &[ListenAddress]) -> Result<(), (String, std::io::Error)> {
        let mut bound = Vec::new();
        for listener in listener::bind(addresses)? {
            bound.push(listener.local_addr().map_err(|error| ("a listener".to_owned(), error))?);
            self.tasks.spawn(listener::accept(Arc::clone(&self.broker), listener));
        }
        self.addresses = bound;
        self.broker.application.set_running(true);
        Ok(())
    }

    /// Does what operators want, until it is dropped.
    pub(super) async fn run(&mut self) -> Infallible {
        loop {
            let Some(Order { serve, done }) = self.orders.recv().await else {
                return std::future::pending().await;
            };
            let outcome = match (serve, self.broker.application.is_running()) {
                (true, false) => self.begin(),
                (false, true) => {
                    self.stop().await;
                    Ok(())
                }
                _ => Ok(()),
            };
            // Whoever asked may have gone.
            let _ = done.send(outcome);
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        tracing::info!("serving clients again");
        self.broker.admit_connections();
        let same: Result<Vec<_>, _> =
            self.addresses.iter().map(|address| ListenAddress::parse(&address.to_string(), false)).collect();
        let same = same.map_err(str::to_owned)?;
        self.listen(&same).map_err(|(address, error)| format!("cannot listen on {address}: {error}"))
    }

    /// Clients are gone when this returns, and what a restart does not keep: queues and exchanges that are not durable.
    async fn stop(&mut self) {
        tracing::info!("serving no clients until an operator wants it again");
        self.tasks.shutdown().await;
        self.broker.application.set_running(false);
        if tokio::time::timeout(STOP_TIMEOUT, self.broker.close_connections()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        for vhost in self.broker.vhosts() {
            for queue in vhost.queues().iter().filter(|queue| !queue.spec().durable) {
                vhost.delete_queue_object(queue, false);
            }
            for exchange in vhost.exchanges().iter().filter(|exchange| !exchange.durable()) {
                if let Err(error) = vhost.delete_exchange(&Unrestricted, exchange.name(), false) {
                    tracing::warn!(exchange = %exchange.name(), %error, "could not be deleted");
                }
            }
        }
        self.broker.store.kick();
    }

    /// Accepts no more.
    pub(super) fn close(&mut self) {
        self.tasks.abort_all();
    }
}

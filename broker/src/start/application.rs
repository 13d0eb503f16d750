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
use crate::net::door::Door;
use crate::net::{listener, unix};

/// What AMQP goes over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Tcp,
    Tls,
}

impl Over {
    /// As RabbitMQ names it.
    fn protocol(self) -> &'static str {
        match self {
            Self::Tcp => "amqp",
            Self::Tls => "amqp/ssl",
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "amqp",
            Self::Tls => "amqps",
        }
    }
}

/// The listeners for AMQP and what operators want of them.
pub(super) struct Serving {
    broker: Arc<Broker>,
    orders: UnboundedReceiver<Order>,
    bound: Vec<(Over, SocketAddr)>,
    tasks: JoinSet<std::io::Result<()>>,
}

impl Serving {
    /// Binds the configured addresses and accepts.
    pub(super) fn start(broker: Arc<Broker>) -> anyhow::Result<Self> {
        let orders = broker.application.orders();
        let mut serving = Self { broker, orders, bound: Vec::new(), tasks: JoinSet::new() };
        let configured = serving.broker.settings.listeners.clone();
        for (over, key, addresses) in
            [(Over::Tcp, "listeners.amqp", &configured.amqp), (Over::Tls, "listeners.tls", &configured.tls)]
        {
            serving.listen(over, addresses).map_err(|(address, error)| {
                let key = serving.broker.settings.describe(key);
                anyhow::anyhow!("cannot listen on {address}: {error} ({key})")
            })?;
        }
        serving.listen_locally().map_err(|error| {
            let key = serving.broker.settings.describe("listeners.unix");
            anyhow::anyhow!("cannot listen there: {error} ({key})")
        })?;
        serving.broker.application.set_running(true);
        for (over, address) in &serving.bound {
            serving.broker.application.add_listener(over.protocol(), *address);
        }
        Ok(serving)
    }

    /// What is listened on while clients are served, for people.
    pub(super) fn addresses(&self) -> Vec<String> {
        let unix = self.broker.settings.listeners.unix.iter().map(|path| format!("unix:{}", path.display()));
        self.bound.iter().map(|(over, address)| format!("{}://{address}", over.scheme())).chain(unix).collect()
    }

    fn listen(&mut self, over: Over, addresses: &[ListenAddress]) -> Result<(), (String, std::io::Error)> {
        let door = match (over, &self.broker.tls) {
            (Over::Tls, Some(tls)) => Door::Tls(Arc::clone(tls)),
            // The configuration lets nobody listen for TLS without certificates.
            _ => Door::Plain,
        };
        for listener in listener::bind(addresses)? {
            let address = listener.local_addr().map_err(|error| ("a listener".to_owned(), error))?;
            self.bound.push((over, address));
            self.tasks.spawn(listener::accept(Arc::clone(&self.broker), listener, door.clone()));
        }
        Ok(())
    }

    fn listen_locally(&mut self) -> std::io::Result<()> {
        let settings = &self.broker.settings.listeners;
        if let Some(path) = &settings.unix {
            let listener = unix::bind(path, settings.unix_mode)?;
            self.tasks.spawn(unix::accept(Arc::clone(&self.broker), listener, path.clone()));
        }
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
        for (over, address) in std::mem::take(&mut self.bound) {
            let same = ListenAddress::parse(&address.to_string(), false).map_err(str::to_owned)?;
            let listening = self.listen(over, &[same]);
            listening.map_err(|(address, error)| format!("cannot listen on {address}: {error}"))?;
        }
        self.listen_locally().map_err(|error| format!("cannot listen on the Unix socket: {error}"))?;
        self.broker.application.set_running(true);
        Ok(())
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

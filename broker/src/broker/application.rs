//! Whether the broker serves clients: it can stop to without ending, and begin again.

use std::sync::OnceLock;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

/// What whoever owns the listeners is to do, and whom to tell when it is done.
#[derive(Debug)]
pub struct Order {
    /// Serve clients, or stop to.
    pub serve: bool,
    /// Gets what came of it.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// The way from operators to the listeners.
#[derive(Default)]
pub struct Application {
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
    reload: OnceLock<Reload>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    ports: Vec<(&'static str, std::net::SocketAddr)>,
}

/// Reads the configuration again; gives a line for each setting that waits for a restart.
pub(crate) type Reload = Box<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

impl Application {
    /// Says how the configuration is read again. The first one counts.
    pub fn on_reload(&self, reload: Reload) {
        let _ = self.reload.set(reload);
    }

    /// Reads the configuration again. Waits for the disk.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn reload(&self) -> Result<Vec<String>, String> {
        self.reload.get().ok_or("there is no configuration to read again")?()
    }

    /// Where orders come out. Whoever asks last gets them.
    pub fn orders(&self) -> mpsc::UnboundedReceiver<Order> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.orders.lock() = Some(sender);
        receiver
    }

    /// Has clients served or not, and waits until it is so.
    ///
    /// # Errors
    ///
    /// Why it cannot be: an address is taken, the broker is ending.
    pub async fn order(&self, serve: bool) -> Result<(), String> {
        const ENDING: &str = "the broker is ending";
        let (done, answer) = oneshot::channel();
        let sender = self.orders.lock().clone();
        sender.and_then(|sender| sender.send(Order { serve, done }).ok()).ok_or(ENDING)?;
        answer.await.map_err(|_| ENDING.to_owned())?
    }

    /// Says whether clients are served from now on.
    pub fn set_running(&self, running: bool) {
        self.state.write().running = running;
    }

    /// Whether clients are served.
    pub fn is_running(&self) -> bool {
        self.state.read().running
    }

    /// Adds what is listened on: the protocol as RabbitMQ names it, and the address.
    pub fn add_listener(&self, protocol: &'static str, address: std::net::SocketAddr) {
        self.state.write().ports.push((protocol, address));
    }

    /// What is listened on. The listeners for AMQP only while clients are served.
    pub fn listeners(&self) -> Vec<(&'static str, std::net::SocketAddr)> {
        let state = self.state.read();
        state.ports.iter().filter(|(protocol, _)| state.running || !protocol.starts_with("amqp")).copied().collect()
    }
}

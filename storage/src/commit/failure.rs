//! The end of a store by an error: said once, to everybody, and final.

use parking_lot::Mutex;

type Handler = Box<dyn Fn(&str) + Send + Sync>;

/// Whether and why the store has stopped.
#[derive(Default)]
pub(crate) struct Failure {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reason: Option<String>,
    handlers: Vec<Handler>,
}

impl Failure {
    pub(crate) fn reason(&self) -> Option<String> {
        self.state.lock().reason.clone()
    }

    /// Stops the store; only the first reason counts. Returns whether this was it.
    pub(crate) fn set(&self, reason: String) -> bool {
        let handlers = {
            let mut state = self.state.lock();
            if state.reason.is_some() {
                return false;
            }
            state.reason = Some(reason.clone());
            std::mem::take(&mut state.handlers)
        };
        tracing::error!(reason = %reason, "the store has stopped: nothing more becomes durable");
        for handler in handlers {
            handler(&reason);
        }
        true
    }

    /// Calls the handler when the store stops, at once if it has.
    pub(crate) fn add(&self, handler: Handler) {
        let reason = {
            let mut state = self.state.lock();
            match &state.reason {
                None => {
                    state.handlers.push(handler);
                    return;
                }
                Some(reason) => reason.clone(),
            }
        };
        handler(&reason);
    }
}

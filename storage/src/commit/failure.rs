//! The end of a store by an error: said once, to everybody, and final.

use parking_lot::Mutex;

/// Is told why the store has stopped.
pub(crate) type Handler = Box<dyn Fn(&str) + Send + Sync>;

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

    /// Notes the reason; only the first counts. Returns who is to be told, once the store has stopped.
    pub(crate) fn set(&self, reason: &str) -> Option<Vec<Handler>> {
        let mut state = self.state.lock();
        if state.reason.is_some() {
            return None;
        }
        state.reason = Some(reason.to_owned());
        Some(std::mem::take(&mut state.handlers))
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

//! The log: lines of text or of JSON on standard error, where systemd and containers take it from.

use tracing_subscriber::{EnvFilter, reload};

use crate::config::{self, LogFormat, Settings};
use crate::model::log_control::LogControl;

/// Starts the log of the process, and gives the way to change what is in it.
pub(super) fn start(settings: &Settings) -> anyhow::Result<LogControl> {
    let level = &settings.log.level;
    let filter =
        EnvFilter::try_new(level).map_err(|error| anyhow::anyhow!("{}: {error}", settings.describe("log.level")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let (started, control) = match settings.log.format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let log = log.with_ansi(ansi).with_filter_reloading();
            let handle = log.reload_handle();
            (log.try_init(), control(level, handle))
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            (log.try_init(), control(level, handle))
        }
    };
    started.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(control)
}

fn control<S: 'static>(level: &str, handle: reload::Handle<EnvFilter, S>) -> LogControl {
    let apply = move |filter: &str| {
        config::check_log_filter(filter)?;
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    LogControl::new(level.to_owned(), Box::new(apply))
}

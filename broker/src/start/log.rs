//! The log: lines of text or of JSON on standard error, where systemd and containers take it from.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry, reload};

use crate::config::{self, LogFormat, Settings};
use crate::model::log_control::LogControl;

/// Starts the log of the process, and gives the way to change what is in it.
pub(super) fn start(settings: &Settings) -> anyhow::Result<LogControl> {
    let level = &settings.log.level;
    let filter: Targets =
        level.parse().map_err(|error| anyhow::anyhow!("{}: {error}", settings.describe("log.level")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match settings.log.format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry().with(filter).with(lines.with_ansi(ansi)).try_init()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            registry().with(filter).with(lines).try_init()
        }
    };
    started?;
    Ok(control(level, handle))
}

fn control<S: 'static>(level: &str, handle: reload::Handle<Targets, S>) -> LogControl {
    let apply = move |filter: &str| {
        config::check_log_filter(filter)?;
        let filter: Targets = filter.parse().map_err(|error| format!("{error}"))?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    LogControl::new(level.to_owned(), Box::new(apply))
}

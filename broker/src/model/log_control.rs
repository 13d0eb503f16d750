//! What is logged, while the broker runs.

use parking_lot::Mutex;

use super::log_limit::LogLimit;

type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The way to change the log's filter. There is one for each log; whoever embeds a broker and logs by other means has one that
/// refuses.
pub struct LogControl {
    filter: Mutex<String>,
    apply: Apply,
    /// Lines about connections that end before anybody has logged in: others can bring these about as often as they like.
    pub strangers: LogLimit,
}

impl Default for LogControl {
    fn default() -> Self {
        Self::new(String::new(), Box::new(|_| Err("this broker does not own its log".to_owned())))
    }
}

impl LogControl {
    /// `apply` puts a filter in force, or says what is wrong with it; `filter` is the one that is.
    pub fn new(filter: String, apply: Apply) -> Self {
        Self { filter: Mutex::new(filter), apply, strangers: LogLimit::default() }
    }

    /// The filter that is in force: a level, or several by module.
    pub fn filter(&self) -> String {
        self.filter.lock().clone()
    }

    /// Sets another filter.
    ///
    /// # Errors
    ///
    /// What is wrong with it; then the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let mut now = self.filter.lock();
        if *now != filter {
            (self.apply)(filter)?;
            filter.clone_into(&mut now);
        }
        Ok(())
    }
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogControl").field("filter", &*self.filter.lock()).finish_non_exhaustive()
    }
}

/// The filter for a level as RabbitMQ names it: it has more of them.
pub fn filter_for(level: &str) -> Option<&'static str> {
    Some(match level {
        "trace" => "trace",
        "debug" => "debug",
        "info" | "notice" => "info",
        "warning" | "warn" => "warn",
        "error" | "critical" | "alert" | "emergency" => "error",
        "none" | "off" => "off",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_refused_changes_nothing() {
        let control = LogControl::new(
            "info".to_owned(),
            Box::new(|filter| if filter == "bad" { Err("no".to_owned()) } else { Ok(()) }),
        );
        assert_eq!(control.set("bad"), Err("no".to_owned()));
        assert_eq!(control.filter(), "info");
        control.set("debug").unwrap();
        assert_eq!(control.filter(), "debug");
        assert!(LogControl::default().set("info").is_err());
    }

    #[test]
    fn levels_of_rabbitmq_are_known() {
        for (level, filter) in [("warning", "warn"), ("critical", "error"), ("none", "off"), ("debug", "debug")] {
            assert_eq!(filter_for(level), Some(filter));
        }
        assert_eq!(filter_for("loud"), None);
    }
}

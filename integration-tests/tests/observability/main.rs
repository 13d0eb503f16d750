//! What operators see of a broker from outside: metrics, the log, and what its supervisor is told.

mod logs;
mod package;
mod prometheus;
mod scrape;
mod systemd;

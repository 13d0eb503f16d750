//! What this machine allows: round trips of a plain TCP echo server, which any broker's request and answer cost at least.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::report::{Section, grouped, percentiles_json, percentiles_text};
use super::shared::Latencies;

/// About the size of a small method frame with its answer.
const BYTES: usize = 32;
/// Round trips of an AMQP connection with a channel: start, tune, open-ok, channel.open-ok, close-ok.
const TRIPS_PER_CONNECTION: usize = 5;

/// The figures of the echo server.
pub(super) struct Echo {
    round_trip_us: Latencies,
    round_trips_per_second: f64,
    connections_per_second: f64,
    /// CPU time of the server for a round trip.
    server_cpu_us: f64,
}

/// Measures for about this long: half of the time round trips on one connection, half connections of some round trips each.
pub(super) fn measure(time: Duration) -> anyhow::Result<Echo> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::Builder::new().name("echo".to_owned()).spawn(move || serve(&listener))?;
    let echo = measure_against(address, time / 2);
    // A connection that ends before it says anything is the sign to stop.
    drop(TcpStream::connect(address)?);
    let served = server.join();
    let mut echo = echo?;
    let cpu = served.map_err(|_| anyhow::anyhow!("the echo server panicked"))??;
    echo.server_cpu_us = cpu.as_secs_f64() * 1e6 / echo.round_trip_us.0.len() as f64;
    Ok(echo)
}

/// Answers one connection after the other, until one ends without a word. Returns the CPU time that the first has taken.
fn serve(listener: &TcpListener) -> io::Result<Duration> {
    let mut first = None;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut buffer = [0; BYTES];
        let mut silent = true;
        while stream.read_exact(&mut buffer).is_ok() {
            silent = false;
            stream.write_all(&buffer)?;
        }
        first.get_or_insert_with(cpu_time);
        if silent {
            return Ok(first.unwrap_or_default());
        }
    }
}

/// CPU time of this thread so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn measure_against(address: SocketAddr, time: Duration) -> anyhow::Result<Echo> {
    let mut round_trip_us = Latencies::new()?;
    let mut stream = connect(address)?;
    let start = Instant::now();
    while start.elapsed() < time || round_trip_us.0.is_empty() {
        let before = Instant::now();
        round_trip(&mut stream)?;
        round_trip_us.0.saturating_record(u64::try_from(before.elapsed().as_micros())?);
    }
    let round_trips_per_second = round_trip_us.0.len() as f64 / start.elapsed().as_secs_f64();
    drop(stream);
    let mut connections = 0_u64;
    let start = Instant::now();
    while start.elapsed() < time || connections == 0 {
        let mut stream = connect(address)?;
        for _ in 0..TRIPS_PER_CONNECTION {
            round_trip(&mut stream)?;
        }
        connections += 1;
    }
    let connections_per_second = connections as f64 / start.elapsed().as_secs_f64();
    Ok(Echo { round_trip_us, round_trips_per_second, connections_per_second, server_cpu_us: 0.0 })
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn round_trip(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0x5a; BYTES];
    stream.write_all(&buffer)?;
    stream.read_exact(&mut buffer)
}

impl Echo {
    /// The figures to print.
    pub(super) fn section(&self) -> Section {
        Section {
            lines: vec![
                format!(
                    "echo server  {} round trips/s  {}  {:.1} µs of its CPU each",
                    grouped(self.round_trips_per_second as u64),
                    percentiles_text(&self.round_trip_us),
                    self.server_cpu_us
                ),
                format!(
                    "echo server  {} connections/s, of {TRIPS_PER_CONNECTION} round trips each",
                    grouped(self.connections_per_second as u64)
                ),
            ],
            name: "echo",
            json: json!({
                "round_trip_us": percentiles_json(&self.round_trip_us),
                "round_trips_per_second": self.round_trips_per_second,
                "connections_per_second": self.connections_per_second,
                "server_cpu_us": self.server_cpu_us,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures_and_ends() {
        let echo = measure(Duration::ZERO).unwrap();
        assert_eq!(echo.round_trip_us.0.len(), 1);
        assert!(echo.round_trips_per_second > 0.0 && echo.connections_per_second > 0.0);
    }
}

//! What happens when file descriptors run out: new connections are refused before the store has none left, and accepting
//! neither spins nor dies.

use std::fs::File;
use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::task::Poll;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};

/// Kept for the rest of the broker: segments and large messages that are read and written, the control socket, sled.
const KEPT: u64 = 96;
/// A low limit is shared: this part of it is kept, if that is less.
const KEPT_PART: u64 = 4;

/// The descriptors of the process, as one listener sees them.
pub(super) struct Descriptors {
    /// Given up when there is no other, to accept a connection and close it.
    spare: Option<File>,
    is_short: bool,
}

impl Descriptors {
    pub(super) fn new() -> Self {
        Self { spare: spare(), is_short: false }
    }

    /// Whether a connection may stay. The system gives out the lowest free number, so a high one means that all below it
    /// are in use. The limit is asked for each time: it can be changed from outside.
    pub(super) fn admit(&mut self, socket: &TcpStream) -> bool {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let is_free = has_room(u64::try_from(socket.as_raw_fd()).unwrap_or_default(), limit);
        if is_free {
            self.end_of_shortage();
        } else {
            self.shortage(limit);
        }
        is_free
    }

    /// Deals with a failed accept that the lack of descriptors is the reason of: accepts one connection in the place of the
    /// spare and closes it, so that its client knows. False when that was not possible either.
    pub(super) async fn refuse_one(&mut self, listener: &TcpListener) -> bool {
        self.shortage(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
        let had_spare = self.spare.take().is_some();
        let accepted = poll_fn(|context| Poll::Ready(listener.poll_accept(context))).await;
        // It may be the client that has given up.
        let is_done = had_spare && !matches!(accepted, Poll::Ready(Err(_)));
        drop(accepted);
        self.spare = spare();
        is_done
    }

    /// Says so once, until there are enough again.
    fn shortage(&mut self, limit: u64) {
        if !std::mem::replace(&mut self.is_short, true) {
            tracing::warn!(limit, "file descriptors run out: new connections are refused until others are closed");
        }
    }

    fn end_of_shortage(&mut self) {
        if std::mem::replace(&mut self.is_short, false) {
            tracing::info!("there are enough file descriptors again: connections are accepted");
        }
    }
}

/// Whether an error says that the process or the machine has no descriptor left.
pub(super) fn is_shortage(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn has_room(number: u64, limit: u64) -> bool {
    number < limit - KEPT.min(limit / KEPT_PART)
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_cannot_be_accepted_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut descriptors = Descriptors::new();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        listener.accept().await.unwrap();
        // Nobody is there, which is no reason to pause.
        assert!(descriptors.refuse_one(&listener).await && descriptors.is_short && descriptors.spare.is_some());
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).await.unwrap(), 0);
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        while client.try_read(&mut byte).is_err() {
            assert!(descriptors.refuse_one(&listener).await);
            tokio::task::yield_now().await;
        }
        descriptors.spare = None;
        assert!(!descriptors.refuse_one(&listener).await);
    }

    #[test]
    fn some_are_kept_whatever_the_limit() {
        assert!(has_room(927, 1024) && !has_room(928, 1024));
        assert!(has_room(74, 100) && !has_room(75, 100));
        assert!(!has_room(0, 0));
        assert!(has_room(1 << 30, u64::MAX));
    }
}

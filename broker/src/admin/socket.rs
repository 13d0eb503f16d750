//! The control socket: a Unix socket in the data directory that only the broker's own user may open.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::config::control;

const BACKLOG: i32 = 64;

/// The socket while it is served.
pub struct ControlSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl ControlSocket {
    /// Begins to serve. Whoever calls this holds the lock of the data directory: a socket that is there is a dead broker's,
    /// and is replaced. `started` is when the process did.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made, as on a file system that has none.
    pub fn serve(broker: Arc<Broker>, started: Instant) -> io::Result<Self> {
        let path = broker.settings.storage.data_dir.join(control::NAME);
        let listener = tokio::net::UnixListener::from_std(listen(&path)?)?;
        let router = super::local_router(broker, started);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the control socket is not served any more");
            }
        });
        Ok(Self { path, task })
    }

    /// Removes the socket and stops to answer. What is still being answered is cut off.
    pub async fn close(self) {
        // Before the lock of the directory goes: later, it could be the next broker's.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
        self.task.abort();
        // Ends with an error that says that it was aborted.
        let _ = self.task.await;
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode that the socket has when it is bound: so nobody else can open it at any moment.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let reachable = control::reachable(path)?;
    socket.bind(&SockAddr::unix(&reachable.path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_the_owner_may_open_it_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(control::NAME);
        let first = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        assert!(UnixStream::connect(&path).is_err());
        let _second = listen(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_long_path_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join(control::NAME);
        let _listener = listen(&path).unwrap();
        let reachable = control::reachable(&path).unwrap();
        assert!(UnixStream::connect(&reachable.path).is_ok());
    }

    #[test]
    fn a_directory_in_its_place_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(control::NAME);
        std::fs::create_dir(&path).unwrap();
        assert!(listen(&path).is_err());
    }
}

//! AMQP on a Unix socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use super::door;
use crate::broker::Broker;

/// Pause after a failed accept: trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The socket's file, which goes with the listener.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already, or somebody else's problem by now.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds the socket. One that was left behind, on which nobody listens, is taken away first.
///
/// # Errors
///
/// When somebody listens there, or something else than a socket has that name.
pub fn bind(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of that name which is no socket",
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts and serves until the task is dropped.
///
/// # Errors
///
/// When the listener cannot be given to the runtime.
pub async fn accept(broker: Arc<Broker>, listener: std::os::unix::net::UnixListener, path: PathBuf) -> io::Result<()> {
    let _file = SocketFile(path);
    let listener = UnixListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(door::serve_local(Arc::clone(&broker), socket));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection on the Unix socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

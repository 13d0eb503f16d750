//! What a test speaks to: a broker of its own, or a virtual host of its own on the peer.

use crate::peer::Peer;
use crate::process::{Broker, Launch};
use crate::raw::Raw;
use crate::unique;
use std::net::SocketAddr;

/// A user to be created before the test starts.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name; use [`unique`], the peer's users are shared.
    pub name: String,
    /// Its password.
    pub password: String,
    /// Its tags, separated by commas.
    pub tags: &'static str,
    /// Configure, write and read in the test's virtual host; `None` is no access at all.
    pub permission: Option<[String; 3]>,
}

/// A server ready for a test.
pub struct Server {
    address: SocketAddr,
    vhost: String,
    broker: Option<Broker>,
    peer: Option<(Peer, Vec<String>)>,
}

impl Server {
    /// A fresh broker, or a fresh virtual host on the peer.
    #[track_caller]
    pub fn start(launch: Launch) -> Self {
        Self::with_users(launch, &[])
    }

    /// As [`Server::start`], with these users.
    #[track_caller]
    pub fn with_users(launch: Launch, users: &[User]) -> Self {
        match Peer::from_env() {
            Some(peer) => Self::on_peer(peer, users),
            None => Self::own(launch.config(&users_as_toml(users))),
        }
    }

    /// A broker of the test's own even when a peer is set.
    #[track_caller]
    pub fn own(launch: Launch) -> Self {
        let broker = launch.start();
        Self { address: broker.address(), vhost: "/".to_owned(), broker: Some(broker), peer: None }
    }

    #[track_caller]
    fn on_peer(peer: Peer, users: &[User]) -> Self {
        let vhost = unique("vhost");
        peer.add_vhost(&vhost);
        let mut names = Vec::new();
        for user in users {
            peer.add_user(&user.name, &user.password, user.tags);
            names.push(user.name.clone());
            if let Some([configure, write, read]) = &user.permission {
                peer.set_permission(&user.name, &vhost, [configure, write, read]);
            }
        }
        Self { address: peer.address(), vhost, broker: None, peer: Some((peer, names)) }
    }

    /// Where it speaks AMQP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The virtual host this test has for itself.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Whether this is the peer and not Warren.
    pub fn is_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// The process, unless this is the peer.
    pub fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// The address as a URI for guest.
    pub fn uri(&self) -> String {
        self.uri_for("guest", "guest")
    }

    /// The address as a URI for another user.
    pub fn uri_for(&self, user: &str, password: &str) -> String {
        let vhost = self.vhost.replace('/', "%2f");
        format!("amqp://{user}:{password}@{}/{vhost}", self.address)
    }

    /// A raw connection on which nothing has been sent.
    #[track_caller]
    pub fn connect(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// A raw connection opened as guest.
    #[track_caller]
    pub fn open(&self) -> Raw {
        let mut raw = self.connect();
        raw.login("guest", "guest");
        raw.open(&self.vhost);
        raw
    }

    /// A raw connection opened as guest, with channel 1 open on it.
    #[track_caller]
    pub fn channel(&self) -> Raw {
        let mut raw = self.open();
        raw.open_channel(1);
        raw
    }

    /// As [`Server::channel`], for another user.
    #[track_caller]
    pub fn channel_as(&self, user: &User) -> Raw {
        let mut raw = self.connect();
        raw.login(&user.name, &user.password);
        raw.open(&self.vhost);
        raw.open_channel(1);
        raw
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((peer, users)) = &self.peer {
            if std::thread::panicking() {
                // A second panic would end the whole run; what stays behind has a name nobody else uses.
                let _ = std::panic::catch_unwind(|| clean_up(peer, &self.vhost, users));
            } else {
                clean_up(peer, &self.vhost, users);
            }
        }
    }
}

fn clean_up(peer: &Peer, vhost: &str, users: &[String]) {
    for user in users {
        peer.delete_user(user);
    }
    peer.delete_vhost(vhost);
}

fn users_as_toml(users: &[User]) -> String {
    let mut toml = String::new();
    for user in users {
        let tags: Vec<_> = user.tags.split(',').filter(|tag| !tag.is_empty()).map(|tag| format!("'{tag}'")).collect();
        toml.push_str(&format!(
            "[[user]]\nname = '{}'\npassword = '{}'\ntags = [{}]\n",
            user.name,
            user.password,
            tags.join(", ")
        ));
        if let Some([configure, write, read]) = &user.permission {
            toml.push_str(&format!(
                "[[permission]]\nuser = '{}'\nvhost = '/'\nconfigure = '{configure}'\nwrite = '{write}'\nread = '{read}'\n",
                user.name
            ));
        }
    }
    toml
}

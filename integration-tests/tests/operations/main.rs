//! What operators do to a running broker, as clients see it. The broker runs inside the test, because the operations have no
//! other way in yet; its clients come over a socket as always.

mod limits;
mod logins;
mod node;
mod permissions;
mod policies;
mod vhosts;

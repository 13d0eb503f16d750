//! Rules of the source tree that no compiler checks. Each test reads the tree as it is and lists everything it finds.

mod dependencies;
mod documents;
mod layers;
mod manifests;
mod sources;
mod tree;

//! Tests of the vhost.

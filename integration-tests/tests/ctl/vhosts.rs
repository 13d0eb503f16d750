//! What describes a virtual host, and what comes of it.

use crate::{Rabbitmqctl, connect, start};

#[test]
fn metadata_is_set_shown_and_kept() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    let described = ["--description", "the shop", "--tags", "production,eu", "--default-queue-type", "quorum"];
    ctl.done(&[&["add_vhost", "shop"], described.as_slice()].concat());
    ctl.fails(65, &["add_vhost", "w", "--default-queue-type", "nosuch"]);
    ctl.fails(65, &["update_vhost_metadata", "nosuch", "--description", "x"]);
    ctl.fails(65, &["update_vhost_metadata", "shop", "--default-queue-type", "nosuch"]);
    ctl.fails(64, &["update_vhost_metadata", "shop"]);
    // One that is there stays as it is.
    ctl.done(&["add_vhost", "shop", "--description", "other"]);
    let columns = ["name", "description", "tags", "default_queue_type", "protected_from_deletion"];
    let shown = |ctl: &Rabbitmqctl<'_>| ctl.done(&[&["list_vhosts", "--silent"], columns.as_slice()].concat());
    let expected = "/\tDefault virtual host\t[]\tclassic\tfalse\nshop\tthe shop\t[production, eu]\tquorum\tfalse\n";
    assert_eq!(shown(&ctl), expected);

    ctl.done(&["update_vhost_metadata", "shop", "--description", "new", "--protected-from-deletion", "true"]);
    ctl.done(&["set_vhost_tags", "shop", "a", "b"]);
    ctl.fails(65, &["delete_vhost", "shop"]);
    let expected = "shop\tnew\t[a, b]\tquorum\ttrue\n";
    assert!(shown(&ctl).ends_with(expected), "{}", shown(&ctl));
    let broker = broker.kill9().start();
    std::fs::remove_file(broker.launch().home().join("rabbitmqctl")).expect("removed");
    let ctl = Rabbitmqctl::of(&broker);
    assert!(shown(&ctl).ends_with(expected), "{}", shown(&ctl));
    ctl.done(&["disable_vhost_deletion_protection", "shop"]);
    ctl.done(&["delete_vhost", "shop"]);
}

#[test]
fn the_default_type_is_what_a_queue_is_that_does_not_say_it() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    ctl.done(&["update_vhost_metadata", "/", "--default-queue-type", "quorum"]);
    let mut raw = connect(&broker);
    raw.open_channel(1);
    // Durable; then one that goes with its connection, which is always classic.
    raw.declare(1, "kept", 2);
    raw.declare(1, "mine", 4);
    let shown = ctl.done(&["list_queues", "--silent", "name", "type"]);
    assert_eq!(shown, "kept\tquorum\nmine\tclassic\n");
}

//! Rights: which are asked for, in which order, and before what.

use std::cell::RefCell;

use protocol::error::ReplyCode;

use super::*;
use crate::model::access::{Access, Permission, Resource};

/// Notes what is asked for; refuses what it was told to.
#[derive(Default)]
struct Guard {
    asked: RefCell<Vec<String>>,
    denied: Vec<&'static str>,
}

impl Access for Guard {
    fn check(&self, permission: Permission, resource: Resource<'_>) -> Result<(), AmqpError> {
        let right = match permission {
            Permission::Configure => "configure",
            Permission::Write => "write",
            Permission::Read => "read",
        };
        let asked = match resource {
            Resource::Exchange(name) => format!("{right} exchange {name}"),
            Resource::Queue(name) => format!("{right} queue {name}"),
        };
        let denied = self.denied.contains(&asked.as_str());
        self.asked.borrow_mut().push(asked);
        if denied {
            return Err(AmqpError::new(ReplyCode::AccessRefused, "denied"));
        }
        Ok(())
    }

    fn user(&self) -> &str {
        "tester"
    }
}

fn guard(denied: &[&'static str]) -> Guard {
    Guard { asked: RefCell::default(), denied: denied.to_vec() }
}

#[track_caller]
fn asks(guard: &Guard, expected: &[&str]) {
    assert_eq!(guard.asked.take(), expected);
}

#[test]
fn exchange_declare() {
    let fixture = Fixture::new();
    let all = guard(&[]);
    let request =
        || ExchangeRequest { arguments: arguments(&[("alternate-exchange", text("ae"))]), ..exchange("x", "direct") };
    let vhost = &fixture.vhost;
    vhost.declare_exchange(&all, request()).expect("declare");
    asks(&all, &["configure exchange x", "read exchange x", "write exchange ae"]);
    vhost.declare_exchange(&all, request()).expect("redeclare");
    asks(&all, &["configure exchange x"]);
    let reserved = guard(&["configure exchange amq.y"]);
    assert_eq!(
        refusal(vhost.declare_exchange(&reserved, exchange("amq.y", "direct"))),
        refused(403, "ACCESS_REFUSED - denied", 40, 10),
        "the right comes before the reserved name"
    );
}

#[test]
fn passive_declare_needs_any_right() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let rights = ["read", "write", "configure"];
    for granted in rights {
        let names: Vec<&'static str> =
            ["read", "write", "configure"].into_iter().filter(|right| *right != granted).collect();
        let denied: Vec<&'static str> = names
            .iter()
            .map(|right| match *right {
                "read" => "read exchange amq.topic",
                "write" => "write exchange amq.topic",
                _ => "configure exchange amq.topic",
            })
            .collect();
        let some = guard(&denied);
        assert_eq!(refusal(vhost.declare_exchange_passive(&some, "amq.topic")), None);
    }
    let none = guard(&["read queue q", "write queue q", "configure queue q"]);
    assert_eq!(
        refusal(vhost.declare_queue_passive(&none, "q", ME)),
        refused(403, "ACCESS_REFUSED - denied", 50, 10),
        "the right hides that the queue is missing"
    );
    asks(&none, &["read queue q", "write queue q", "configure queue q"]);
}

#[test]
fn queue_declare() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let all = guard(&[]);
    vhost.declare_queue(&all, queue("q")).expect("declare");
    asks(&all, &["configure queue q"]);
    let generated = vhost.declare_queue(&all, queue("")).expect("declare");
    let asked = format!("configure queue {}", generated.queue.spec().name);
    asks(&all, &[&asked]);
    assert!(vhost.declare_queue(&all, queue("amq.q")).is_err());
    asks(&all, &[]);
}

#[test]
fn deletes() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let none = guard(&["configure queue q", "configure exchange x"]);
    assert_eq!(
        refusal(vhost.delete_queue(&none, "q", false, false, ME)),
        refused(403, "ACCESS_REFUSED - denied", 50, 40)
    );
    assert_eq!(refusal(vhost.delete_exchange(&none, "x", false)), refused(403, "ACCESS_REFUSED - denied", 40, 20));
    none.asked.take();
    assert!(vhost.delete_exchange(&none, "amq.topic", false).is_err());
    asks(&none, &[]);
}

#[test]
fn bindings() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let all = guard(&[]);
    let none = Arguments::default();
    let to_queue = |exchange| QueueBinding { queue: "q", exchange, key: "", arguments: &none, connection: ME };
    let to_exchange = |source| ExchangeBinding { destination: "d", source, key: "", arguments: &none };
    assert!(vhost.bind_queue(&all, to_queue("x")).is_err());
    asks(&all, &["write queue q", "read exchange x"]);
    assert!(vhost.unbind_queue(&all, to_queue("x")).is_ok());
    asks(&all, &["write queue q", "read exchange x"]);
    assert!(vhost.bind_queue(&all, to_queue("")).is_err());
    asks(&all, &["write queue q"]);
    assert!(vhost.bind_exchange(&all, to_exchange("s")).is_err());
    asks(&all, &["write exchange d", "read exchange s"]);
    assert!(vhost.unbind_exchange(&all, to_exchange("s")).is_ok());
    asks(&all, &["write exchange d", "read exchange s"]);
    assert!(vhost.bind_exchange(&all, to_exchange("")).is_err());
    asks(&all, &["write exchange d"]);
    let denied = guard(&["read exchange x"]);
    assert_eq!(
        refusal(vhost.bind_queue(&denied, to_queue("x"))),
        refused(403, "ACCESS_REFUSED - denied", 50, 20),
        "the right hides that the exchange is missing"
    );
}

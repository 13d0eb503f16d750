//! Users, what they may do, and their limits.

use hyper::Method;
use serde_json::{Value, json};

use super::{Command, Outcome, command, done, exactly, gone, parsed, put, recoded};
use crate::ctl::Session;
use crate::ctl::client::segment;
use crate::ctl::failure::{DATA, Failure, NO_USER, UNAVAILABLE};
use crate::ctl::print;

pub(super) const COMMANDS: &[Command] = &[
    command("add_user", "USER PASSWORD [--pre-hashed-password]", "Creates a user", add),
    command("delete_user", "USER", "Deletes a user", delete),
    command("change_password", "USER PASSWORD [--pre-hashed-password]", "Changes a password", change_password),
    command("clear_password", "USER", "Takes a password away, so that nobody can log in with one", clear_password),
    command("authenticate_user", "USER PASSWORD", "Tells whether that is the password", authenticate),
    command("hash_password", "PASSWORD", "Shows a password as the broker stores it", hash),
    command("set_user_tags", "USER [TAG...]", "Replaces the tags of a user", set_tags),
    command("set_user_limits", "USER DEFINITION", "Sets limits of a user, as JSON", set_limits),
    command("clear_user_limits", "USER LIMIT|all", "Takes limits of a user away", clear_limits),
    command("set_permissions", "[-p VHOST] USER CONFIGURE WRITE READ", "Sets what a user may do", set_permissions),
    command("set_permissions_globally", "USER CONFIGURE WRITE READ", "The same in all virtual hosts", set_globally),
    command("clear_permissions", "[-p VHOST] USER", "Takes all of that away", clear_permissions),
    command(
        "set_topic_permissions",
        "[-p VHOST] USER EXCHANGE WRITE READ",
        "Sets which topics a user may publish and bind",
        set_topics,
    ),
    command("clear_topic_permissions", "[-p VHOST] USER [EXCHANGE]", "Takes that away", clear_topics),
];

/// RabbitMQ's own commands differ in what they call a user who is not there.
const REFUSED: u8 = UNAVAILABLE;

fn add(session: &Session, given: &[String]) -> Outcome {
    let [user, password] = exactly(given)?;
    session.say(&format!("Adding user \"{user}\" ..."))?;
    let mut body = credentials(session, password);
    body["tags"] = json!([]);
    done(session.send(Method::POST, &format!("/api/warren/users/{}/add", segment(user)), &body))?;
    session.say(
        "Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' \
         to learn more.",
    )
}

fn credentials(session: &Session, password: &str) -> Value {
    json!({if session.words.has("pre-hashed-password") { "password_hash" } else { "password" }: password})
}

fn delete(session: &Session, given: &[String]) -> Outcome {
    let [user] = exactly(given)?;
    session.say(&format!("Deleting user \"{user}\" ..."))?;
    match session.delete(&format!("/api/users/{}", segment(user))) {
        // One that is not there is gone already.
        Err(failure) if failure.code == NO_USER || failure.is_missing() => Ok(()),
        outcome => done(outcome),
    }
}

fn change_password(session: &Session, given: &[String]) -> Outcome {
    let [user, password] = exactly(given)?;
    session.say(&format!("Changing password for user \"{user}\" ..."))?;
    let path = format!("/api/warren/users/{}/credentials", segment(user));
    put(session, &path, &credentials(session, password))
}

fn clear_password(session: &Session, given: &[String]) -> Outcome {
    let [user] = exactly(given)?;
    session.say(&format!("Clearing password for user \"{user}\" ..."))?;
    let outcome = put(session, &format!("/api/warren/users/{}/credentials", segment(user)), &json!({}));
    recoded(outcome, NO_USER, REFUSED)
}

fn authenticate(session: &Session, given: &[String]) -> Outcome {
    let [user, password] = exactly(given)?;
    session.say(&format!("Authenticating user \"{user}\" ..."))?;
    let body = json!({"user": user, "password": password});
    match session.send(Method::POST, "/api/warren/authenticate", &body) {
        Ok(_) => session.say("Success"),
        Err(failure) if failure.text == "Not_Authorized" => {
            Err(Failure::new(DATA, format!("failed to authenticate user \"{user}\"")))
        }
        Err(failure) => Err(failure),
    }
}

fn hash(session: &Session, given: &[String]) -> Outcome {
    let [password] = exactly(given)?;
    let hashed = session.get(&format!("/api/auth/hash_password/{}", segment(password)))?;
    print(&format!("{}\n", hashed["ok"].as_str().unwrap_or_default()))
}

fn set_tags(session: &Session, given: &[String]) -> Outcome {
    let (user, tags) = given.split_first().ok_or_else(|| Failure::usage("not enough arguments."))?;
    session.say(&format!("Setting tags for user \"{user}\" to [{}] ...", tags.join(", ")))?;
    put(session, &format!("/api/warren/users/{}/tags", segment(user)), &json!({"tags": tags}))
}

fn set_limits(session: &Session, given: &[String]) -> Outcome {
    let [user, definition] = exactly(given)?;
    session.say(&format!("Setting user limits to \"{definition}\" for user \"{user}\" ..."))?;
    recoded(put(session, &format!("/api/user-limits/{}", segment(user)), &parsed(definition)?), NO_USER, REFUSED)
}

fn clear_limits(session: &Session, given: &[String]) -> Outcome {
    let [user, limit] = exactly(given)?;
    session.say(&format!("Clearing \"{limit}\" limit for user \"{user}\" ..."))?;
    let below = if limit == "all" { String::new() } else { format!("/{}", segment(limit)) };
    recoded(done(session.delete(&format!("/api/user-limits/{}{below}", segment(user)))), NO_USER, REFUSED)
}

fn at_vhost(kind: &str, vhost: &str, user: &str) -> String {
    format!("/api/{kind}/{}/{}", segment(vhost), segment(user))
}

fn set_permissions(session: &Session, given: &[String]) -> Outcome {
    let [user, configure, write, read] = exactly(given)?;
    let vhost = session.words.vhost();
    session.say(&format!("Setting permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
    let body = json!({"configure": configure, "write": write, "read": read});
    // Of a virtual host that is not there RabbitMQ says that it is refused, not that the argument is wrong.
    recoded(put(session, &at_vhost("permissions", vhost, user), &body), DATA, REFUSED)
}

fn set_globally(session: &Session, given: &[String]) -> Outcome {
    let [user, configure, write, read] = exactly(given)?;
    session.say(&format!("Setting permissions for user \"{user}\" in all virtual hosts ..."))?;
    let body = json!({"configure": configure, "write": write, "read": read});
    let vhosts = session.get("/api/vhosts?columns=name")?;
    for vhost in vhosts.as_array().into_iter().flatten().filter_map(|vhost| vhost["name"].as_str()) {
        put(session, &at_vhost("permissions", vhost, user), &body)?;
    }
    Ok(())
}

fn clear_permissions(session: &Session, given: &[String]) -> Outcome {
    let [user] = exactly(given)?;
    let vhost = session.words.vhost();
    session.say(&format!("Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
    gone(session.delete(&at_vhost("permissions", vhost, user)))
}

fn set_topics(session: &Session, given: &[String]) -> Outcome {
    let [user, exchange, write, read] = exactly(given)?;
    let vhost = session.words.vhost();
    session
        .say(&format!("Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."))?;
    let body = json!({"exchange": exchange, "write": write, "read": read});
    recoded(put(session, &at_vhost("topic-permissions", vhost, user), &body), DATA, REFUSED)
}

fn clear_topics(session: &Session, given: &[String]) -> Outcome {
    let (user, exchange) = match given {
        [user] => (user, String::new()),
        [user, exchange] => (user, format!("?exchange={}", segment(exchange))),
        _ => return Err(Failure::usage("a user and perhaps an exchange are needed")),
    };
    let vhost = session.words.vhost();
    session.say(&format!("Clearing topic permissions for user \"{user}\" in vhost \"{vhost}\" ..."))?;
    gone(session.delete(&format!("{}{exchange}", at_vhost("topic-permissions", vhost, user))))
}

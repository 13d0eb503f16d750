//! Random operations.

use std::sync::LazyLock;

use broker::model::limit_arguments::Overflow;
use broker::queue::credit::Terms;
use broker::queue::settings::QueueSettings;
use proptest::prelude::*;

use crate::support::Disk;
use crate::world::{Features, START_MS, Settle, World};

/// One disk for the cases of a test: opening a store takes longer than a case.
static MEMORY: LazyLock<Disk> = LazyLock::new(Disk::new);

#[derive(Clone, Debug)]
enum Op {
    Publish { persistent: bool, len: usize, ttl_ms: Option<u64> },
    Reserve { persistent: bool, ttl_ms: Option<u64> },
    LogReserved,
    PublishReserved(usize),
    Sync,
    Attach { connection: usize, channel: usize, terms: Terms, exclusive: bool, priority: i64 },
    Detach(usize),
    LimitChannel { connection: usize, channel: usize, prefetch: u32 },
    Write(usize),
    Settle { connection: usize, channel: usize, pick: usize, multiple: bool, how: Settle },
    Get { connection: usize, channel: usize, no_ack: bool },
    Purge,
    Delete { if_unused: bool, if_empty: bool },
    CloseChannel { connection: usize, channel: usize },
    CloseConnection(usize),
    Advance { held: bool },
    Pass { ms: u64, store_first: bool },
    Declare,
    Limit(QueueSettings),
    SetWall(u64),
}

fn ttl() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => Just(None), 1 => Just(Some(0)), 3 => (1..500u64).prop_map(Some)]
}

fn terms() -> impl Strategy<Value = Terms> {
    let timeout_ms = prop_oneof![4 => Just(None), 1 => Just(Some(0)), 2 => (1..300u64).prop_map(Some)];
    (0..4u32, prop::bool::weighted(0.2), timeout_ms).prop_map(|(prefetch, no_ack, timeout_ms)| Terms {
        prefetch,
        no_ack,
        timeout_ms,
    })
}

fn settings() -> impl Strategy<Value = QueueSettings> {
    let overflow = prop_oneof![
        3 => Just(Overflow::DropHead), 1 => Just(Overflow::RejectPublish), 1 => Just(Overflow::RejectPublishDlx)
    ];
    let time = || prop::option::weighted(0.3, 1..400u64);
    let (length, bytes) = (prop::option::weighted(0.7, 0..12u64), prop::option::weighted(0.3, 0..900u64));
    (time(), time(), length, bytes, overflow).prop_map(
        |(message_ttl_ms, expires_ms, max_length, max_length_bytes, overflow)| QueueSettings {
            message_ttl_ms,
            expires_at_head: false,
            expires_ms,
            max_length,
            max_length_bytes,
            overflow,
        },
    )
}

fn features() -> impl Strategy<Value = Features> {
    let max_priority = prop_oneof![3 => Just(0u8), 2 => Just(3), 1 => Just(255)];
    let delivery_limit = prop_oneof![2 => Just(None), 1 => (-1..4i8).prop_map(Some)];
    (max_priority, prop::bool::weighted(0.3), delivery_limit).prop_map(
        |(max_priority, single_active, delivery_limit)| Features { max_priority, single_active, delivery_limit },
    )
}

fn settle() -> impl Strategy<Value = Settle> {
    prop_oneof![Just(Settle::Ack), Just(Settle::Requeue), Just(Settle::Reject)]
}

fn op() -> impl Strategy<Value = Op> {
    let connection = 0..3usize;
    let at = (connection.clone(), 0..2usize);
    prop_oneof![
        20 => (any::<bool>(), prop_oneof![Just(8usize), Just(300)], ttl())
            .prop_map(|(persistent, len, ttl_ms)| Op::Publish { persistent, len, ttl_ms }),
        3 => (any::<bool>(), ttl()).prop_map(|(persistent, ttl_ms)| Op::Reserve { persistent, ttl_ms }),
        2 => Just(Op::LogReserved),
        4 => any::<usize>().prop_map(Op::PublishReserved),
        2 => Just(Op::Sync),
        5 => (at.clone(), terms(), prop::bool::weighted(0.05), prop_oneof![3 => Just(0), 1 => -2..2i64]).prop_map(
            |((connection, channel), terms, exclusive, priority)| Op::Attach {
                connection,
                channel,
                terms,
                exclusive,
                priority
            }
        ),
        2 => any::<usize>().prop_map(Op::Detach),
        2 => (at.clone(), 0..4u32)
            .prop_map(|((connection, channel), prefetch)| Op::LimitChannel { connection, channel, prefetch }),
        12 => connection.clone().prop_map(Op::Write),
        12 => (at.clone(), any::<usize>(), any::<bool>(), settle())
            .prop_map(|((connection, channel), pick, multiple, how)| Op::Settle {
                connection,
                channel,
                pick,
                multiple,
                how
            }),
        5 => (at.clone(), any::<bool>())
            .prop_map(|((connection, channel), no_ack)| Op::Get { connection, channel, no_ack }),
        1 => Just(Op::Purge),
        1 => at.prop_map(|(connection, channel)| Op::CloseChannel { connection, channel }),
        1 => connection.prop_map(Op::CloseConnection),
        8 => any::<bool>().prop_map(|held| Op::Advance { held }),
        8 => (1..200u64, any::<bool>()).prop_map(|(ms, store_first)| Op::Pass { ms, store_first }),
        2 => Just(Op::Declare),
        1 => prop_oneof![Just(START_MS - 10_000_000), Just(START_MS + 10_000_000)].prop_map(Op::SetWall),
    ]
}

/// A deletion ends most of what can happen, so it is rare.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let delete = (any::<bool>(), any::<bool>()).prop_map(|(if_unused, if_empty)| Op::Delete { if_unused, if_empty });
    (prop::collection::vec(op(), 1..120), prop::option::weighted(0.2, (any::<prop::sample::Index>(), delete))).prop_map(
        |(mut ops, delete)| {
            if let Some((at, delete)) = delete {
                ops.insert(at.index(ops.len()), delete);
            }
            ops
        },
    )
}

fn apply(world: &mut World<'_>, op: Op, cold: bool) {
    match op {
        // Whether a consumer could have taken it cannot be told of one that the log holds as well.
        Op::Publish { persistent: true, len, ttl_ms: Some(0) } => world.publish_for(true, len, Some(1)),
        Op::Publish { persistent, len, ttl_ms } => world.publish_for(persistent, len, ttl_ms),
        Op::Reserve { persistent, ttl_ms } => world.reserve(persistent, ttl_ms),
        Op::LogReserved => world.log_reserved(),
        Op::Sync => world.sync(),
        Op::PublishReserved(pick) => world.publish_reserved(pick),
        Op::Attach { connection, channel, terms, exclusive, priority } => {
            world.attach_with(connection, channel, terms, exclusive, priority);
        }
        Op::Detach(pick) => world.detach(pick),
        Op::LimitChannel { connection, channel, prefetch } => world.limit_channel(connection, channel, prefetch),
        Op::Write(connection) => world.write(connection),
        Op::Settle { connection, channel, pick, multiple, how } => {
            world.settle(connection, channel, pick, multiple, how);
        }
        Op::Get { connection, channel, no_ack } => world.get(connection, channel, no_ack),
        Op::Purge => world.purge(),
        Op::Delete { if_unused, if_empty } => world.delete(if_unused, if_empty),
        Op::CloseChannel { connection, channel } => world.close_channel(connection, channel),
        Op::CloseConnection(connection) => world.close_connection(connection),
        Op::Pass { ms, store_first } => world.pass(ms, store_first),
        Op::Declare => world.declare(),
        // What is not read yet is not counted yet either.
        Op::Limit(settings) if cold && settings.overflow != Overflow::DropHead => {
            world.limit(QueueSettings { max_length_bytes: None, ..settings });
        }
        Op::Limit(settings) => world.limit(settings),
        Op::SetWall(wall_ms) => world.time.set_wall(wall_ms),
        Op::Advance { held } => {
            if cold {
                world.advance(held);
            }
        }
    }
    if !cold {
        world.check_rest();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn in_memory_every_message_is_in_one_place(
        ops in ops(),
        durable in any::<bool>(),
        high_water in prop_oneof![Just(usize::MAX), Just(2_000usize)],
        features in features(),
    ) {
        let durable = durable || features.delivery_limit.is_some();
        let mut world = World::with(&MEMORY, durable, high_water, features);
        for op in ops {
            apply(&mut world, op, false);
        }
        world.drain();
        world.check_leaks();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn with_a_cold_backlog_every_message_is_in_one_place(
        ops in ops(),
        messages in prop_oneof![4 => 1..30u64, 1 => 2_040..2_060u64],
        high_water in prop_oneof![Just(usize::MAX), Just(2_000usize)],
        features in features(),
    ) {
        static COLD: LazyLock<Disk> = LazyLock::new(Disk::new);
        let mut world = World::cold_with(&COLD, messages, high_water, features);
        world.stop_reader();
        for op in ops {
            apply(&mut world, op, true);
        }
        world.drain();
        world.check_leaks();
    }
}

/// Operations on a queue with limits that change. Nothing is given back for want of time: it is not known then what was
/// first.
/// `small`: all bodies are of one size, as what leaves the disk unread is counted for.
fn limited(small: bool) -> impl Strategy<Value = Vec<Op>> {
    let patient = op().prop_map(move |op| match op {
        Op::Publish { persistent, ttl_ms, .. } if small => {
            Op::Publish { persistent, len: 8, ttl_ms: ttl_ms.map(|ttl_ms| ttl_ms.max(1)) }
        }
        Op::Attach { connection, channel, terms, exclusive, priority } => {
            Op::Attach { connection, channel, terms: Terms { timeout_ms: None, ..terms }, exclusive, priority }
        }
        // Where it went cannot be told without looking, and dead letters are looked at later.
        Op::Publish { persistent, len, ttl_ms: Some(0) } => Op::Publish { persistent, len, ttl_ms: Some(1) },
        other => other,
    });
    let ops = prop::collection::vec(prop_oneof![15 => patient, 1 => settings().prop_map(Op::Limit)], 1..120);
    (settings(), ops).prop_map(|(settings, ops)| [Op::Limit(settings)].into_iter().chain(ops).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn within_limits_every_message_is_in_one_place(
        ops in limited(false),
        durable in any::<bool>(),
        high_water in prop_oneof![Just(usize::MAX), Just(2_000usize)],
        features in features(),
        dead_letters in any::<bool>(),
    ) {
        let durable = durable || features.delivery_limit.is_some();
        let mut world = World::with(&MEMORY, durable, high_water, features);
        if dead_letters {
            world.look_at_dead_letters();
        }
        for op in ops {
            apply(&mut world, op, false);
        }
        world.drain();
        world.check_leaks();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn within_limits_a_cold_backlog_is_in_one_place(
        ops in limited(true),
        messages in prop_oneof![4 => 1..30u64, 1 => 2_040..2_060u64],
        high_water in prop_oneof![Just(usize::MAX), Just(2_000usize)],
        features in features(),
        dead_letters in any::<bool>(),
    ) {
        static COLD: LazyLock<Disk> = LazyLock::new(Disk::new);
        let mut world = World::cold_with(&COLD, messages, high_water, features);
        if dead_letters {
            world.look_at_dead_letters();
        }
        world.stop_reader();
        for op in ops {
            apply(&mut world, op, true);
        }
        world.drain();
        world.check_leaks();
    }
}

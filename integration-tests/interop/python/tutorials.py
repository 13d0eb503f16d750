"""The six programs of the RabbitMQ tutorials, each with its outcome checked."""

import pika

from support import Mailbox, Mismatch, drain, equal, holds, pump, ready, refusal

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def hello_world(session):
    sender, receiver = session.channel(), session.channel()
    queue = session.queue(sender)
    inbox = Mailbox(receiver, queue)
    sender.basic_publish("", queue, b"hello, burrow")
    inbox.wait_for(1)
    method, _, body = inbox.deliveries[0]
    equal("body", body, b"hello, burrow")
    equal("exchange", method.exchange, "")
    equal("routing key", method.routing_key, queue)
    equal("redelivered", method.redelivered, False)
    equal("messages left", ready(sender, queue), 0)


def work_queue(session):
    jobs = [f"job {number}" for number in range(20)]
    boss = session.channel()
    queue = session.queue(boss)
    slow_channel, fast_channel = session.channel(), session.channel()
    for channel in (slow_channel, fast_channel):
        channel.basic_qos(prefetch_count=1)

    slow = Mailbox(slow_channel, queue, auto_ack=False)
    boss.basic_publish("", queue, jobs[0].encode(), PERSISTENT)
    slow.wait_for(1)

    # The slow worker sits on its one job, so fair dispatch leaves all the others to its colleague.
    done = []

    def work(channel, method, properties, body):
        done.append((body.decode(), method.redelivered, properties.delivery_mode))
        channel.basic_ack(method.delivery_tag)

    fast_channel.basic_consume(queue, work)
    for job in jobs[1:]:
        boss.basic_publish("", queue, job.encode(), PERSISTENT)
    pump(lambda: len(done) == len(jobs) - 1, "the fast worker's jobs", fast_channel.connection, slow_channel.connection)
    equal("fast worker's jobs", done, [(job, False, 2) for job in jobs[1:]])
    equal("slow worker's jobs", slow.bodies(), jobs[:1])

    # A worker that dies without acknowledging gives its job back.
    slow_channel.connection.close()
    pump(lambda: len(done) == len(jobs), "the job given back", fast_channel.connection)
    equal("job given back", done[-1], (jobs[0], True, 2))


def publish_subscribe(session):
    publisher = session.channel()
    exchange = session.exchange(publisher, "fanout")
    listeners = []
    for _ in range(3):
        channel = session.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange)
        listeners.append((queue, Mailbox(channel, queue)))
    names = {queue for queue, _ in listeners}
    equal("distinct server-made names", len(names), 3)
    holds(f"server-made names {names} begin with amq.gen-", all(name.startswith("amq.gen-") for name in names))

    news = [f"news {number}" for number in range(5)]
    for item in news:
        publisher.basic_publish(exchange, "ignored", item.encode())
    for _, inbox in listeners:
        inbox.wait_for(len(news))
        equal("received", inbox.bodies(), news)

    queue, inbox = listeners[0]
    with refusal(pika.exceptions.ChannelClosedByBroker, 405, "RESOURCE_LOCKED - cannot obtain exclusive access"):
        publisher.queue_declare(queue, passive=True)
    inbox.channel.connection.close()

    def gone():
        try:
            session.channel().queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker as closed:
            return closed.reply_code == 404
        return False

    pump(gone, "the exclusive queue to go with its connection")


def routing(session):
    channel = session.channel()
    exchange = session.exchange(channel, "direct")
    urgent, everything = session.queue(channel, "urgent"), session.queue(channel, "everything")
    channel.queue_bind(urgent, exchange, "error")
    for severity in ("info", "warning", "error"):
        channel.queue_bind(everything, exchange, severity)

    def publish_all():
        for severity in ("info", "debug", "error", "warning", "errors"):
            channel.basic_publish(exchange, severity, severity.encode())

    publish_all()
    equal("urgent", drain(channel, urgent), ["error"])
    equal("everything", drain(channel, everything), ["info", "error", "warning"])
    channel.queue_unbind(everything, exchange, "info")
    publish_all()
    equal("everything after unbind", drain(channel, everything), ["error", "warning"])
    equal("urgent after unbind", drain(channel, urgent), ["error"])


def topics(session):
    channel = session.channel()
    exchange = session.exchange(channel, "topic")
    bindings = {
        "kernel": ["kern.*"],
        "critical": ["*.critical", "kern.critical"],
        "audit": ["audit.#"],
        "middle": ["#.door.#"],
        "all": ["#"],
    }
    queues = {}
    for name, patterns in bindings.items():
        queues[name] = session.queue(channel, name)
        for pattern in patterns:
            channel.queue_bind(queues[name], exchange, pattern)
    keys = ["kern.critical", "kern", "kern.info.late", "cron.critical", "audit", "audit.door.front", "door", ""]
    for key in keys:
        channel.basic_publish(exchange, key, key.encode())
    expected = {
        "kernel": ["kern.critical"],
        "critical": ["kern.critical", "cron.critical"],
        "audit": ["audit", "audit.door.front"],
        "middle": ["audit.door.front", "door"],
        "all": keys,
    }
    for name, wanted in expected.items():
        equal(name, drain(channel, queues[name]), wanted)


def rpc(session):
    server, client = session.channel(), session.channel()
    requests = session.name("requests")
    server.queue_declare(requests, exclusive=True)
    waiting = []

    # Answering two requests at a time, the later one first, makes the correlation id matter.
    def serve(channel, method, properties, body):
        waiting.append((properties, body))
        channel.basic_ack(method.delivery_tag)
        if len(waiting) == 2:
            for asked, number in reversed(waiting):
                reply = pika.BasicProperties(correlation_id=asked.correlation_id)
                channel.basic_publish("", asked.reply_to, str(int(number) ** 2).encode(), reply)
            waiting.clear()

    server.basic_consume(requests, serve)
    callback = client.queue_declare("", exclusive=True).method.queue
    replies = Mailbox(client, callback)
    for number in range(2, 8):
        properties = pika.BasicProperties(reply_to=callback, correlation_id=f"call-{number}")
        client.basic_publish("", requests, str(number).encode(), properties)
    replies.wait_for(6, server.connection)
    answers = {properties.correlation_id: int(body) for _, properties, body in replies.deliveries}
    equal("answers", answers, {f"call-{number}": number**2 for number in range(2, 8)})
    order = [properties.correlation_id for _, properties, _ in replies.deliveries]
    if order[:2] != ["call-3", "call-2"]:
        raise Mismatch(f"replies came in the order {order}")

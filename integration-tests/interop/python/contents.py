"""Settling and fetching single messages, and what a message carries."""

import datetime
import decimal

import pika

from support import Mailbox, drain, equal, ready


def requeue(session):
    channel = session.channel()
    queue = session.queue(channel)
    for body in ("a", "b", "c"):
        channel.basic_publish("", queue, body.encode())
    taken = [channel.basic_get(queue)[0].delivery_tag for _ in range(3)]
    channel.basic_nack(taken[1], requeue=True)
    channel.basic_reject(taken[2], requeue=False)
    channel.basic_nack(taken[0], requeue=True)
    inbox = Mailbox(channel, queue, auto_ack=False)
    inbox.wait_for(2)
    seen = [(body.decode(), method.redelivered) for method, _, body in inbox.deliveries]
    equal("requeued", seen, [("a", True), ("b", True)])
    channel.basic_recover(requeue=True)
    inbox.wait_for(4)
    equal("recovered", inbox.bodies(), ["a", "b", "a", "b"])
    channel.basic_ack(0, multiple=True)
    equal("messages left", ready(channel, queue), 0)


def basic_get(session):
    channel = session.channel()
    queue = session.queue(channel)
    equal("empty queue", channel.basic_get(queue), (None, None, None))
    for body in ("one", "two", "three"):
        channel.basic_publish("", queue, body.encode())
    method, _, body = channel.basic_get(queue, auto_ack=True)
    equal("first", (body, method.message_count, method.routing_key), (b"one", 2, queue))
    method, _, body = channel.basic_get(queue)
    equal("second", (body, method.message_count), (b"two", 1))
    equal("purged", channel.queue_purge(queue).method.message_count, 1)
    channel.basic_nack(method.delivery_tag)
    method, _, body = channel.basic_get(queue, auto_ack=True)
    equal("second again", (body, method.redelivered), (b"two", True))
    equal("deleted with", channel.queue_delete(queue).method.message_count, 0)


def properties(session):
    channel = session.channel()
    queue = session.queue(channel)
    headers = {
        "text": "čeština 🐇",
        "empty": "",
        "flag": True,
        "small": -7,
        "large": 2**40,
        "price": decimal.Decimal("12.34"),
        "when": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
        "raw": b"\x00\xff",
        "nothing": None,
        "list": [1, "two", [3, False], {"four": 4}],
        "table": {"inner": {"deep": "yes"}, "": "empty name"},
    }
    sent = pika.BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers,
        delivery_mode=2,
        priority=9,
        correlation_id="correlation",
        reply_to="reply.queue",
        expiration="600000",
        message_id="id-1",
        timestamp=1_700_000_000,
        type="kind",
        user_id=session.user(),
        app_id="interop",
        cluster_id="cluster",
    )
    channel.basic_publish("", queue, b"{}", sent)
    _, received, body = channel.basic_get(queue, auto_ack=True)
    equal("body", body, b"{}")
    for name, value in vars(sent).items():
        equal(name, getattr(received, name), value)
    channel.basic_publish("", queue, b"bare")
    _, received, _ = channel.basic_get(queue, auto_ack=True)
    equal("no properties", {value for value in vars(received).values()}, {None})


def large_message(session):
    body = bytes(range(256)) * 4096 + b"end"
    for frame_max in (8192, 131072):
        channel = session.connect(frame_max=frame_max).channel()
        queue = session.queue(channel)
        inbox = Mailbox(channel, queue)
        for content in (body, b"", body[:frame_max - 8], body[:frame_max - 7]):
            channel.basic_publish("", queue, content)
        inbox.wait_for(4)
        sizes = [len(content) for _, _, content in inbox.deliveries]
        equal(f"sizes at frame_max {frame_max}", sizes, [len(body), 0, frame_max - 8, frame_max - 7])
        equal(f"content at frame_max {frame_max}", inbox.deliveries[0][2] == body, True)

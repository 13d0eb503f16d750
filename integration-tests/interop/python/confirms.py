"""Publisher confirms: one at a time, in batches and asynchronously; and what mandatory adds to them."""

import time

import pika

from support import WAIT_SECONDS, Mismatch, drain, equal, holds, ready

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def confirms_individual(session):
    channel = session.channel()
    queue = session.queue(channel)
    channel.confirm_delivery()
    for number in range(20):
        # Returns only once the broker has acknowledged; raises when it refuses or returns the message.
        channel.basic_publish("", queue, str(number).encode(), PERSISTENT, mandatory=True)
        equal("messages ready", ready(channel, queue), number + 1)
    equal("stored", drain(channel, queue), [str(number) for number in range(20)])


class AsyncPublisher:
    """A publisher on pika's own event loop that lets at most `window` messages wait for their confirm."""

    def __init__(self, session, queue, total, window):
        self.queue, self.total, self.window = queue, total, window
        self.published = 0
        self.outstanding = set()
        self.confirmed = []
        self.rounds = 0
        self.failure = None
        self.connection = pika.SelectConnection(
            session.parameters(),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._failed,
            on_close_callback=lambda connection, _reason: connection.ioloop.stop(),
        )

    def run(self):
        self.connection.ioloop.call_later(WAIT_SECONDS, lambda: self._failed(None, TimeoutError("confirms missing")))
        self.connection.ioloop.start()
        if self.failure:
            raise self.failure
        return self

    def _failed(self, _connection, why):
        self.failure = why
        self.connection.ioloop.stop()

    def _opened(self, channel):
        self.channel = channel
        channel.confirm_delivery(self._answered, callback=lambda _ok: self._fill())

    def _fill(self):
        self.rounds += 1
        while self.published < self.total and len(self.outstanding) < self.window:
            self.channel.basic_publish("", self.queue, str(self.published).encode(), PERSISTENT)
            self.published += 1
            self.outstanding.add(self.published)

    def _answered(self, frame):
        answer = frame.method
        if isinstance(answer, pika.spec.Basic.Nack):
            return self._failed(None, Mismatch(f"message {answer.delivery_tag} was refused"))
        if answer.multiple:
            settled = {tag for tag in self.outstanding if tag <= answer.delivery_tag}
        else:
            settled = {answer.delivery_tag} & self.outstanding
        if not settled:
            return self._failed(None, Mismatch(f"tag {answer.delivery_tag} was confirmed twice or never published"))
        self.outstanding -= settled
        self.confirmed += sorted(settled)
        if len(self.confirmed) == self.total:
            self.connection.close()
        elif not self.outstanding:
            self._fill()
        return None


def confirms_batch(session):
    channel = session.channel()
    queue = session.queue(channel)
    publisher = AsyncPublisher(session, queue, total=200, window=50).run()
    equal("batches", publisher.rounds, 4)
    equal("confirmed", sorted(publisher.confirmed), list(range(1, 201)))
    equal("stored", drain(channel, queue), [str(number) for number in range(200)])


def confirms_async(session):
    channel = session.channel()
    queue = session.queue(channel)
    started = time.monotonic()
    publisher = AsyncPublisher(session, queue, total=500, window=500).run()
    holds("confirms came in time", time.monotonic() - started < WAIT_SECONDS)
    equal("confirmed", sorted(publisher.confirmed), list(range(1, 501)))
    equal("stored", drain(channel, queue), [str(number) for number in range(500)])


def mandatory_return(session):
    channel = session.channel()
    queue = session.queue(channel)
    exchange = session.exchange(channel, "direct")
    channel.queue_bind(queue, exchange, "known")
    channel.confirm_delivery()
    channel.basic_publish(exchange, "known", b"arrives", mandatory=True)
    channel.basic_publish(exchange, "unknown", b"vanishes", mandatory=False)
    try:
        channel.basic_publish(exchange, "unknown", b"comes back", pika.BasicProperties(type="post"), mandatory=True)
    except pika.exceptions.UnroutableError as unroutable:
        (returned,) = unroutable.messages
    else:
        raise Mismatch("an unroutable mandatory message was not returned")
    equal("reply code", returned.method.reply_code, 312)
    equal("reply text", returned.method.reply_text, "NO_ROUTE")
    equal("exchange", returned.method.exchange, exchange)
    equal("routing key", returned.method.routing_key, "unknown")
    equal("type", returned.properties.type, "post")
    equal("body", returned.body, b"comes back")
    equal("routed", drain(channel, queue), ["arrives"])

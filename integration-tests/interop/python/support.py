"""What every scenario needs: connections to the broker under test, deadlines, comparisons and tidying up."""

import os
import signal
import socket
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pika

WAIT_SECONDS = 15
SCENARIO_SECONDS = 40


class Mismatch(Exception):
    """The broker answered, but not with what was expected."""


def equal(what, got, expected):
    if got != expected:
        raise Mismatch(f"{what}: expected {expected!r}, got {got!r}")


def holds(what, condition):
    if not condition:
        raise Mismatch(what)


@contextmanager
def time_limit(seconds):
    """Interrupts even a call that blocks inside the client library."""

    def expired(_signal, _frame):
        raise TimeoutError(f"nothing came of it within {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def pump(condition, what, *connections):
    """Lets the connections read and dispatch until `condition()` is true."""
    give_up = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {WAIT_SECONDS} s for {what}")
        for connection in connections:
            connection.process_data_events(time_limit=0.02 if len(connections) > 1 else 0.2)


@contextmanager
def refusal(kind, code, text):
    """Expects the block to fail with the client's exception `kind` that carries this reply code and text."""
    try:
        yield
    except kind as closed:
        equal("reply code", closed.reply_code, code)
        holds(f"reply text {closed.reply_text!r} lacks {text!r}", text in closed.reply_text)
    else:
        raise Mismatch(f"expected {code} {text}, but the broker accepted it")


class Session:
    """One scenario's connections and names; leaving it closes the former and deletes the latter."""

    def __init__(self, uri, scenario):
        self.uri = uri
        self._scenario = scenario
        self._connections = []
        self._queues = []
        self._exchanges = []
        self._extra = []

    def parameters(self, **changes):
        parameters = pika.URLParameters(self.uri)
        parameters.socket_timeout = WAIT_SECONDS
        parameters.blocked_connection_timeout = WAIT_SECONDS
        for name, value in changes.items():
            setattr(parameters, name, value)
        return parameters

    def connect(self, **changes):
        connection = pika.BlockingConnection(self.parameters(**changes))
        self._connections.append(connection)
        return connection

    def channel(self):
        return self.connect().channel()

    def user(self):
        return self.parameters().credentials.username

    def on_exit(self, action):
        self._extra.append(action)

    def _name(self, what):
        return f"interop.python.{self._scenario}.{what}.{uuid.uuid4().hex[:12]}"

    def name(self, what="queue"):
        """A fresh name of a queue that the session deletes at its end."""
        self._queues.append(self._name(what))
        return self._queues[-1]

    def queue(self, channel, what="queue"):
        name = self.name(what)
        equal("declared name", channel.queue_declare(name, durable=True).method.queue, name)
        return name

    def exchange(self, channel, kind):
        name = self._name(kind)
        self._exchanges.append(name)
        channel.exchange_declare(name, exchange_type=kind, durable=True)
        return name

    def close(self):
        for connection in self._connections:
            # A scenario that failed may leave a connection that no longer closes in good order.
            with suppress(pika.exceptions.AMQPError):
                if connection.is_open:
                    connection.close()
        for action in self._extra:
            action()
        if not (self._queues or self._exchanges):
            return
        tidy = pika.BlockingConnection(self.parameters())
        channel = tidy.channel()
        for queue in self._queues:
            channel.queue_delete(queue)
        for exchange in self._exchanges:
            channel.exchange_delete(exchange)
        tidy.close()


class Mailbox:
    """A consumer that keeps what it is given."""

    def __init__(self, channel, queue, auto_ack=True, **options):
        self.channel = channel
        self.deliveries = []
        self.tag = channel.basic_consume(queue, self._store, auto_ack=auto_ack, **options)

    def _store(self, _channel, method, properties, body):
        self.deliveries.append((method, properties, body))

    def bodies(self):
        return [body.decode() for _, _, body in self.deliveries]

    def wait_for(self, count, *others):
        pump(lambda: len(self.deliveries) >= count, f"{count} deliveries", self.channel.connection, *others)


def drain(channel, queue):
    """Takes everything that is ready and returns the bodies in order."""
    bodies = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body.decode())


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


class Wire:
    """A forwarder between client and broker whose connection can be cut without a word of AMQP."""

    def __init__(self, uri):
        target = urlsplit(uri)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target = (target.hostname, target.port or 5672)
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target, WAIT_SECONDS)
            far.settimeout(None)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def cut(self):
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._sockets.clear()

    def close(self):
        self._listener.close()
        self.cut()


def broker_uri():
    uri = os.environ.get("WARREN_AMQP_URI")
    if not uri:
        raise SystemExit("WARREN_AMQP_URI is not set")
    return uri

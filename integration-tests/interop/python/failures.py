"""What the broker says when something goes wrong, and how a client carries on."""

import pika

from support import Mailbox, Mismatch, Wire, drain, equal, holds, pump, ready, refusal

CHANNEL_CLOSED = pika.exceptions.ChannelClosedByBroker
CONNECTION_CLOSED = pika.exceptions.ConnectionClosedByBroker


def consumer_cancel(session):
    channel, other = session.channel(), session.channel()
    queue = session.queue(other)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    inbox = Mailbox(channel, queue)
    other.basic_publish("", queue, b"last words")
    inbox.wait_for(1)
    other.queue_delete(queue)
    pump(lambda: cancelled, "the cancel notification", channel.connection)
    equal("cancelled consumer", cancelled, [inbox.tag])
    # The channel survives it.
    next_queue = session.queue(channel, "next")
    channel.basic_publish("", next_queue, b"still here")
    equal("after the cancel", drain(channel, next_queue), ["still here"])


def channel_error(session):
    connection = session.connect()
    queue = session.queue(connection.channel())
    with refusal(CHANNEL_CLOSED, 404, "NOT_FOUND - no queue 'interop.missing' in vhost '/'"):
        connection.channel().queue_declare("interop.missing", passive=True)
    inequivalent = (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': "
        "received 'false' but current is 'true'"
    )
    with refusal(CHANNEL_CLOSED, 406, inequivalent):
        connection.channel().queue_declare(queue, durable=False)
    with refusal(CHANNEL_CLOSED, 406, "PRECONDITION_FAILED - unknown delivery tag 7"):
        channel = connection.channel()
        channel.basic_ack(7)
        channel.queue_declare(queue, passive=True)
    with refusal(CHANNEL_CLOSED, 404, "NOT_FOUND - no exchange 'interop.missing' in vhost '/'"):
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("interop.missing", "", b"")
    holds("the connection outlives its channels", connection.is_open)
    channel = connection.channel()
    channel.basic_publish("", queue, b"after errors")
    equal("after the errors", drain(channel, queue), ["after errors"])


def connection_error(session):
    connection = session.connect()
    bystander = session.channel()
    with refusal(CONNECTION_CLOSED, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)"):
        connection.channel().basic_qos(prefetch_size=1)
    holds("the connection is closed", connection.is_closed)
    queue = session.queue(bystander)
    bystander.basic_publish("", queue, b"undisturbed")
    equal("another connection", drain(bystander, queue), ["undisturbed"])

    refused_login(session, "(530) 'NOT_ALLOWED - vhost interop.nowhere not found'", virtual_host="interop.nowhere")
    wrong = pika.PlainCredentials(session.user(), "not the password")
    refused_login(session, "(403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN", credentials=wrong)


def refused_login(session, reason, **changes):
    # pika wraps the broker's close during the handshake and keeps only its text.
    try:
        session.connect(**changes)
    except pika.exceptions.AMQPConnectionError as refused:
        holds(f"{refused} gives the reason {reason}", reason in str(refused))
    else:
        raise Mismatch(f"the broker let in what it should refuse with {reason}")


def reconnect(session):
    wire = Wire(session.uri)
    session.on_exit(wire.close)
    first = session.connect(host="127.0.0.1", port=wire.port)
    channel = first.channel()
    queue = session.queue(channel)
    channel.confirm_delivery()
    for number in range(5):
        channel.basic_publish("", queue, str(number).encode(), pika.BasicProperties(delivery_mode=2))
    channel.basic_qos(prefetch_count=2)
    before = Mailbox(channel, queue, auto_ack=False)
    before.wait_for(2)
    channel.basic_ack(before.deliveries[0][0].delivery_tag)
    before.wait_for(3)

    wire.cut()
    lost = []

    def noticed():
        try:
            first.process_data_events(time_limit=0.2)
        except pika.exceptions.AMQPConnectionError as why:
            lost.append(why)
        return lost

    pump(noticed, "the loss of the connection")
    channel = session.connect(host="127.0.0.1", port=wire.port).channel()
    pump(lambda: ready(channel, queue) == 4, "the broker to put back what the lost connection held")
    after = Mailbox(channel, queue, auto_ack=False)
    after.wait_for(4)
    # What was delivered and not acknowledged comes again, marked, at its old place.
    seen = [(body.decode(), method.redelivered) for method, _, body in after.deliveries]
    equal("after reconnecting", seen, [("1", True), ("2", True), ("3", False), ("4", False)])
    channel.basic_ack(after.deliveries[-1][0].delivery_tag, multiple=True)
    channel.close()

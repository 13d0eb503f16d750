"""The same over TLS: at WARREN_TLS_PORT, with the certificates in WARREN_TLS_FILES."""

import os
import ssl

import pika
from pika.credentials import ExternalCredentials
from support import Mailbox, Mismatch, equal

# Larger than a record of TLS and than a frame of AMQP.
BODY = bytes(range(256)) * 2000


def file(name):
    return os.path.join(os.environ["WARREN_TLS_FILES"], name)


def connect(session, authority="ca.pem", certificate=None, **changes):
    context = ssl.create_default_context(cafile=file(authority))
    if certificate:
        context.load_cert_chain(file(f"{certificate}.pem"), file(f"{certificate}.key"))
    return session.connect(
        host="localhost",
        port=int(os.environ["WARREN_TLS_PORT"]),
        ssl_options=pika.SSLOptions(context, "localhost"),
        **changes,
    )


def there_and_back(session, connection):
    channel = connection.channel()
    queue = session.queue(channel)
    inbox = Mailbox(channel, queue)
    channel.basic_publish("", queue, BODY)
    inbox.wait_for(1)
    equal("body", inbox.deliveries[0][2] == BODY, True)


def tls(session):
    there_and_back(session, connect(session))
    try:
        connect(session, authority="stranger.pem")
    except ssl.SSLCertVerificationError:
        pass
    else:
        raise Mismatch("a broker was trusted that nobody vouches for")
    there_and_back(session, session.connect())


def tls_certificate(session):
    external = ExternalCredentials()
    there_and_back(session, connect(session, certificate="client", credentials=external))
    try:
        connect(session, credentials=external)
    except pika.exceptions.ProbableAuthenticationError:
        pass
    else:
        raise Mismatch("somebody without a certificate was let in by it")

'use strict';
// The same over TLS: at WARREN_TLS_PORT, with the certificates in WARREN_TLS_FILES.

const { readFileSync } = require('node:fs');
const path = require('node:path');
const amqp = require('amqplib');
const { Mailbox, equal, refused } = require('./support');

const file = (name) => readFileSync(path.join(process.env.WARREN_TLS_FILES, name));
// Larger than a record of TLS and than a frame of AMQP.
const body = Buffer.alloc(500_000, Uint8Array.from({ length: 251 }, (_, index) => index));

function address(session) {
  const uri = new URL(session.uri);
  return `amqps://${uri.username}:${uri.password}@localhost:${process.env.WARREN_TLS_PORT}${uri.pathname}`;
}

async function thereAndBack(session, connection) {
  const channel = await session.channel(connection);
  const queue = await session.queue(channel);
  const inbox = await Mailbox.open(channel, queue);
  channel.sendToQueue(queue, body);
  await inbox.arrivals(1);
  equal('body', inbox.deliveries[0].content.equals(body), true);
}

async function tls(session) {
  await thereAndBack(session, await session.connect(address(session), { ca: [file('ca.pem')] }));
  await refused('a broker that nobody vouches for', session.connect(address(session), { ca: [file('stranger.pem')] }));
  await thereAndBack(session, await session.connect());
}

async function tls_certificate(session) {
  const external = { ca: [file('ca.pem')], credentials: amqp.credentials.external() };
  const certificate = { cert: file('client.pem'), key: file('client.key') };
  await thereAndBack(session, await session.connect(address(session), { ...external, ...certificate }));
  await refused('somebody without a certificate', session.connect(address(session), external));
}

module.exports = { tls, tls_certificate };

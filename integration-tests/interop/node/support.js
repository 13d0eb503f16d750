'use strict';
// What every scenario needs: connections to the broker under test, deadlines, comparisons and tidying up.

const { isDeepStrictEqual, inspect } = require('node:util');
const { randomUUID } = require('node:crypto');
const net = require('node:net');
const amqp = require('amqplib');

const WAIT_MS = 15_000;

function equal(what, got, expected) {
  if (!isDeepStrictEqual(got, expected)) {
    throw new Error(`${what}: expected ${inspect(expected)}, got ${inspect(got)}`);
  }
}

function holds(what, condition) {
  if (!condition) throw new Error(what);
}

/** Gives up on `promise` when nothing has come of it in time. */
async function within(what, promise, ms = WAIT_MS) {
  let timer;
  const expired = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}

/** The first value of an event, within the deadline. Listen before causing it. */
const event = (emitter, name) => within(`the event ${name}`, new Promise((resolve) => emitter.once(name, resolve)));

function equalError(error, code, text) {
  equal('reply code', error.code, code);
  holds(`"${error.message}" lacks "${text}"`, error.message.includes(text));
}

async function refused(what, promise) {
  const outcome = await within(what, promise.then(() => null, (error) => error));
  holds(`${what} should have been refused`, outcome);
  return outcome;
}

/** A consumer that keeps what it is given; `arrivals(n)` waits for the n-th delivery. */
class Mailbox {
  constructor(channel) {
    this.channel = channel;
    this.deliveries = [];
    this.cancelled = false;
    this.wake = () => {};
  }

  static async open(channel, queue, options = { noAck: true }) {
    const mailbox = new Mailbox(channel);
    const ok = await channel.consume(queue, (message) => mailbox.put(message), options);
    mailbox.tag = ok.consumerTag;
    return mailbox;
  }

  put(message) {
    if (message === null) this.cancelled = true;
    else this.deliveries.push(message);
    this.wake();
  }

  until(what, condition) {
    const met = new Promise((resolve) => {
      this.wake = () => condition() && resolve();
      this.wake();
    });
    return within(what, met);
  }

  arrivals(count) {
    return this.until(`${count} deliveries`, () => this.deliveries.length >= count);
  }

  bodies() {
    return this.deliveries.map((message) => message.content.toString());
  }
}

/** A forwarder between client and broker whose connections can be cut without a word of AMQP. */
class Wire {
  static async open(uri) {
    const wire = new Wire();
    const target = new URL(uri);
    wire.sockets = [];
    wire.server = net.createServer((near) => {
      const far = net.connect(Number(target.port || 5672), target.hostname);
      for (const socket of [near, far]) {
        wire.sockets.push(socket);
        socket.on('error', () => {});
      }
      near.pipe(far);
      far.pipe(near);
    });
    wire.server.listen(0, '127.0.0.1');
    await event(wire.server, 'listening');
    const through = new URL(uri);
    through.hostname = '127.0.0.1';
    through.port = String(wire.server.address().port);
    wire.uri = through.href;
    return wire;
  }

  cut() {
    for (const socket of this.sockets.splice(0)) socket.destroy();
  }

  close() {
    this.server.close();
    this.cut();
  }
}

/** One scenario's connections and names; leaving it closes the former and deletes the latter. */
class Session {
  constructor(uri, scenario) {
    Object.assign(this, { uri, scenario, connections: [], queues: [], exchanges: [], extra: [] });
  }

  async connect(uri = this.uri, options = {}) {
    const connection = await within('a connection', amqp.connect(uri, { timeout: WAIT_MS, ...options }));
    // Unhandled, an error event would end the process; what a scenario expects it listens for itself.
    connection.on('error', () => {});
    connection.on('close', () => this.connections.splice(this.connections.indexOf(connection), 1));
    this.connections.push(connection);
    return connection;
  }

  async channel(connection) {
    const channel = await (connection ?? (await this.connect())).createChannel();
    channel.on('error', () => {});
    return channel;
  }

  async confirmChannel() {
    const channel = await (await this.connect()).createConfirmChannel();
    channel.on('error', () => {});
    return channel;
  }

  user() {
    return decodeURIComponent(new URL(this.uri).username);
  }

  name(what) {
    return `interop.node.${this.scenario}.${what}.${randomUUID().slice(0, 13)}`;
  }

  async queue(channel, what = 'queue') {
    const name = this.name(what);
    this.queues.push(name);
    equal('declared name', (await channel.assertQueue(name, { durable: true })).queue, name);
    return name;
  }

  async exchange(channel, kind) {
    const name = this.name(kind);
    this.exchanges.push(name);
    await channel.assertExchange(name, kind, { durable: true });
    return name;
  }

  async close() {
    for (const connection of [...this.connections]) await within('a close', connection.close().catch(() => {}));
    for (const action of this.extra) action();
    const tidy = await amqp.connect(this.uri);
    const channel = await tidy.createChannel();
    for (const queue of this.queues) await channel.deleteQueue(queue);
    for (const exchange of this.exchanges) await channel.deleteExchange(exchange);
    await tidy.close();
  }
}

/** Takes everything that is ready and returns the bodies in order. */
async function drain(channel, queue) {
  const bodies = [];
  for (;;) {
    const message = await within('a get', channel.get(queue, { noAck: true }));
    if (!message) return bodies;
    bodies.push(message.content.toString());
  }
}

module.exports = { Mailbox, Session, Wire, drain, equal, equalError, event, holds, refused, within };

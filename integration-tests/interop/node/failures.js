'use strict';
// What the broker says when something goes wrong, and how a client carries on.

const { Mailbox, Wire, drain, equal, equalError, event, holds, refused } = require('./support');

async function consumer_cancel(session) {
  const channel = await session.channel();
  const other = await session.channel();
  const queue = await session.queue(other);
  const inbox = await Mailbox.open(channel, queue);
  const cancelling = event(channel, 'cancel');
  other.sendToQueue(queue, Buffer.from('last words'));
  await inbox.arrivals(1);
  await other.deleteQueue(queue);
  equal('cancelled consumer', (await cancelling).consumerTag, inbox.tag);
  await inbox.until('the consumer to be told', () => inbox.cancelled);
  // The channel survives it.
  const next = await session.queue(channel, 'next');
  channel.sendToQueue(next, Buffer.from('still here'));
  equal('after the cancel', await drain(channel, next), ['still here']);
}

async function channel_error(session) {
  const connection = await session.connect();
  const queue = await session.queue(await session.channel(connection));

  const passive = (await session.channel(connection)).checkQueue('interop.missing');
  equalError(await refused('a missing queue', passive), 404, "NOT_FOUND - no queue 'interop.missing' in vhost '/'");

  const redeclared = (await session.channel(connection)).assertQueue(queue, { durable: false });
  const text = `PRECONDITION_FAILED - inequivalent arg 'durable' for queue '${queue}' in vhost '/': received 'false' but current is 'true'`;
  equalError(await refused('another durability', redeclared), 406, text);

  const acking = await session.channel(connection);
  const unknownTag = event(acking, 'error');
  acking.ack({ fields: { deliveryTag: 7 } });
  equalError(await unknownTag, 406, 'PRECONDITION_FAILED - unknown delivery tag 7');

  const publishing = await session.channel(connection);
  const noExchange = event(publishing, 'error');
  publishing.publish('interop.missing', '', Buffer.alloc(0));
  equalError(await noExchange, 404, "NOT_FOUND - no exchange 'interop.missing' in vhost '/'");

  // The connection outlives its channels.
  const channel = await session.channel(connection);
  channel.sendToQueue(queue, Buffer.from('after errors'));
  equal('after the errors', await drain(channel, queue), ['after errors']);
}

async function connection_error(session) {
  const connection = await session.connect();
  const bystander = await session.channel();
  const queue = await session.queue(bystander);
  const channel = await session.channel(connection);
  const failing = event(connection, 'error');
  const closing = event(connection, 'close');
  await channel.consume(queue, () => {}, { consumerTag: 'twin' });
  channel.consume(queue, () => {}, { consumerTag: 'twin' }).catch(() => {});
  equalError(await failing, 530, "NOT_ALLOWED - attempt to reuse consumer tag 'twin'");
  await closing;
  bystander.sendToQueue(queue, Buffer.from('undisturbed'));
  equal('another connection', await drain(bystander, queue), ['undisturbed']);

  const nowhere = new URL(session.uri);
  nowhere.pathname = '/interop.nowhere';
  const vhost = await refused('a missing vhost', session.connect(nowhere.href));
  // amqplib does not pass on the code and text of a close that answers connection.open.
  holds(vhost.message, vhost.message.includes('ConnectionClose'));
  const wrong = new URL(session.uri);
  wrong.password = 'not the password';
  const password = await refused('a wrong password', session.connect(wrong.href));
  const reason = 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN';
  holds(password.message, password.message.includes(reason));
}

async function reconnect(session) {
  const wire = await Wire.open(session.uri);
  session.extra.push(() => wire.close());
  // amqplib's own recovery dials again and calls the setup function on each new connection.
  const inboxes = [];
  let ready;
  const next = () => new Promise((resolve) => (ready = resolve));
  let setUp = next();
  const home = await session.channel();
  const queue = await session.queue(home);
  const setup = async (connection) => {
    const channel = await session.channel(connection);
    if (inboxes.length === 0) await channel.prefetch(2);
    // The second time, the broker has first to put back what the lost connection held.
    else while ((await home.checkQueue(queue)).messageCount !== 4);
    inboxes.push(await Mailbox.open(channel, queue, {}));
    ready(channel);
  };
  for (let number = 0; number < 5; number += 1) {
    home.sendToQueue(queue, Buffer.from(String(number)), { persistent: true });
  }
  await session.connect(wire.uri, { recovery: { initialDelay: 1, maxDelay: 50, setup } });
  const channel = await setUp;
  const [before] = inboxes;
  await before.arrivals(2);
  channel.ack(before.deliveries[0]);
  await before.arrivals(3);

  setUp = next();
  wire.cut();
  const again = await setUp;
  const [, after] = inboxes;
  await after.arrivals(4);
  // What was delivered and not acknowledged comes again, marked, at its old place.
  const seen = after.deliveries.map(({ content, fields }) => [content.toString(), fields.redelivered]);
  equal('after reconnecting', seen, [['1', true], ['2', true], ['3', false], ['4', false]]);
  again.ack(after.deliveries.at(-1), true);
  await again.close();
}

module.exports = { consumer_cancel, channel_error, connection_error, reconnect };

'use strict';
// Settling and fetching single messages, and what a message carries.

const { Mailbox, equal } = require('./support');

async function requeue(session) {
  const channel = await session.channel();
  const queue = await session.queue(channel);
  for (const body of ['a', 'b', 'c']) channel.sendToQueue(queue, Buffer.from(body));
  const taken = [await channel.get(queue), await channel.get(queue), await channel.get(queue)];
  channel.nack(taken[1], false, true);
  channel.reject(taken[2], false);
  channel.nack(taken[0], false, true);
  const inbox = await Mailbox.open(channel, queue, {});
  await inbox.arrivals(2);
  const seen = inbox.deliveries.map(({ content, fields }) => [content.toString(), fields.redelivered]);
  equal('requeued', seen, [['a', true], ['b', true]]);
  await channel.recover();
  await inbox.arrivals(4);
  equal('recovered', inbox.bodies(), ['a', 'b', 'a', 'b']);
  channel.ackAll();
  equal('messages left', (await channel.checkQueue(queue)).messageCount, 0);
}

async function basic_get(session) {
  const channel = await session.channel();
  const queue = await session.queue(channel);
  equal('empty queue', await channel.get(queue), false);
  for (const body of ['one', 'two', 'three']) channel.sendToQueue(queue, Buffer.from(body));
  const first = await channel.get(queue, { noAck: true });
  const { messageCount, routingKey } = first.fields;
  equal('first', [first.content.toString(), messageCount, routingKey], ['one', 2, queue]);
  const second = await channel.get(queue);
  equal('second', [second.content.toString(), second.fields.messageCount], ['two', 1]);
  equal('purged', (await channel.purgeQueue(queue)).messageCount, 1);
  channel.nack(second);
  const again = await channel.get(queue, { noAck: true });
  equal('second again', [again.content.toString(), again.fields.redelivered], ['two', true]);
  equal('deleted with', (await channel.deleteQueue(queue)).messageCount, 0);
}

async function properties(session) {
  const channel = await session.channel();
  const queue = await session.queue(channel);
  const sent = {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    headers: {
      text: 'čeština 🐇',
      empty: '',
      flag: true,
      small: -7,
      medium: 40_000,
      large: 2 ** 40,
      float: 3.25,
      raw: Buffer.from([0, 255]),
      nothing: null,
      list: [1, 'two', [3.5, false], { four: 4 }],
      table: { inner: { deep: 'yes' }, '': 'empty name' },
    },
    deliveryMode: 2,
    priority: 9,
    correlationId: 'correlation',
    replyTo: 'reply.queue',
    expiration: '600000',
    messageId: 'id-1',
    timestamp: 1_700_000_000,
    type: 'kind',
    userId: session.user(),
    appId: 'interop',
  };
  channel.sendToQueue(queue, Buffer.from('{}'), sent);
  const received = await channel.get(queue, { noAck: true });
  equal('body', received.content.toString(), '{}');
  for (const [name, value] of Object.entries(sent)) equal(name, received.properties[name], value);
  channel.sendToQueue(queue, Buffer.from('bare'));
  const bare = await channel.get(queue, { noAck: true });
  const { headers, ...others } = bare.properties;
  // amqplib always sends a headers table, if only an empty one.
  equal('no properties', [headers, new Set(Object.values(others))], [{}, new Set([undefined])]);
}

async function large_message(session) {
  const body = Buffer.alloc(1 << 20, Uint8Array.from({ length: 251 }, (_, index) => index));
  for (const frameMax of [8192, 131072]) {
    const uri = new URL(session.uri);
    uri.searchParams.set('frameMax', String(frameMax));
    const channel = await session.channel(await session.connect(uri.href));
    const queue = await session.queue(channel);
    const inbox = await Mailbox.open(channel, queue);
    const contents = [body, Buffer.alloc(0), body.subarray(0, frameMax - 8), body.subarray(0, frameMax - 7)];
    for (const content of contents) channel.sendToQueue(queue, content);
    await inbox.arrivals(contents.length);
    contents.forEach((content, index) => {
      const got = inbox.deliveries[index].content;
      equal(`size ${index} at frameMax ${frameMax}`, got.length, content.length);
      equal(`content ${index} at frameMax ${frameMax}`, got.equals(content), true);
    });
  }
}

module.exports = { requeue, basic_get, properties, large_message };

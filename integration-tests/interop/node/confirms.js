'use strict';
// Publisher confirms: one at a time, in batches and asynchronously; and what mandatory adds to them.

const { drain, equal, event, within } = require('./support');

const range = (count) => Array.from({ length: count }, (_, number) => String(number));

async function confirms_individual(session) {
  const channel = await session.confirmChannel();
  const queue = await session.queue(channel);
  for (const body of range(20)) {
    const confirmed = new Promise((resolve, reject) => {
      channel.sendToQueue(queue, Buffer.from(body), { persistent: true }, (error) => (error ? reject(error) : resolve()));
    });
    await within('a confirm', confirmed);
    equal('messages ready', (await channel.checkQueue(queue)).messageCount, Number(body) + 1);
  }
  equal('stored', await drain(channel, queue), range(20));
}

async function confirms_batch(session) {
  const channel = await session.confirmChannel();
  const queue = await session.queue(channel);
  const bodies = range(200);
  for (let start = 0; start < bodies.length; start += 50) {
    for (const body of bodies.slice(start, start + 50)) {
      channel.sendToQueue(queue, Buffer.from(body), { persistent: true });
    }
    await within('the confirms of a batch', channel.waitForConfirms());
    equal('messages ready', (await channel.checkQueue(queue)).messageCount, start + 50);
  }
  equal('stored', await drain(channel, queue), bodies);
}

async function confirms_async(session) {
  const channel = await session.confirmChannel();
  const queue = await session.queue(channel);
  const bodies = range(500);
  const settled = new Map();
  await within('all confirms', new Promise((resolve) => {
    for (const body of bodies) {
      channel.sendToQueue(queue, Buffer.from(body), { persistent: true }, (error) => {
        settled.set(body, [...(settled.get(body) ?? []), error === null ? 'ack' : 'nack']);
        if (settled.size === bodies.length) resolve();
      });
    }
  }));
  equal('confirmed', [...settled.values()].filter((answers) => answers.join() !== 'ack'), []);
  equal('stored', await drain(channel, queue), bodies);
}

async function mandatory_return(session) {
  const channel = await session.confirmChannel();
  const queue = await session.queue(channel);
  const exchange = await session.exchange(channel, 'direct');
  await channel.bindQueue(queue, exchange, 'known');
  const order = [];
  channel.on('return', () => order.push('return'));
  const returning = event(channel, 'return');
  const publish = (key, body, mandatory) =>
    new Promise((resolve, reject) => {
      const options = { mandatory, type: 'post' };
      channel.publish(exchange, key, Buffer.from(body), options, (error) => {
        order.push(body);
        if (error) reject(error);
        else resolve();
      });
    });
  await within('a confirm', publish('known', 'arrives', true));
  await within('a confirm', publish('unknown', 'vanishes', false));
  await within('a confirm', publish('unknown', 'comes back', true));
  const { fields, properties, content } = await returning;
  const { replyCode, replyText, exchange: from, routingKey } = fields;
  equal('return', [replyCode, replyText, from, routingKey], [312, 'NO_ROUTE', exchange, 'unknown']);
  equal('type', properties.type, 'post');
  equal('body', content.toString(), 'comes back');
  equal('order', order, ['arrives', 'vanishes', 'return', 'comes back']);
  equal('routed', await drain(channel, queue), ['arrives']);
}

module.exports = { confirms_individual, confirms_batch, confirms_async, mandatory_return };

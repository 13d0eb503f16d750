'use strict';
// The six programs of the RabbitMQ tutorials, each with its outcome checked.

const { Mailbox, drain, equal, equalError, holds, refused, within } = require('./support');

const numbered = (word, count) => Array.from({ length: count }, (_, number) => `${word} ${number}`);

async function hello_world(session) {
  const sender = await session.channel();
  const receiver = await session.channel();
  const queue = await session.queue(sender);
  const inbox = await Mailbox.open(receiver, queue);
  sender.sendToQueue(queue, Buffer.from('hello, burrow'));
  await inbox.arrivals(1);
  const { fields, content } = inbox.deliveries[0];
  equal('body', content.toString(), 'hello, burrow');
  equal('exchange', fields.exchange, '');
  equal('routing key', fields.routingKey, queue);
  equal('redelivered', fields.redelivered, false);
  equal('messages left', (await sender.checkQueue(queue)).messageCount, 0);
}

async function work_queue(session) {
  const jobs = numbered('job', 20);
  const boss = await session.channel();
  const queue = await session.queue(boss);
  const slowConnection = await session.connect();
  const slowChannel = await session.channel(slowConnection);
  const fastChannel = await session.channel();
  await slowChannel.prefetch(1);
  await fastChannel.prefetch(1);

  const slow = await Mailbox.open(slowChannel, queue, {});
  boss.sendToQueue(queue, Buffer.from(jobs[0]), { persistent: true });
  await slow.arrivals(1);

  // The slow worker sits on its one job, so fair dispatch leaves all the others to its colleague.
  const fast = new Mailbox(fastChannel);
  const work = (message) => {
    fast.put(message);
    fastChannel.ack(message);
  };
  await fastChannel.consume(queue, work);
  for (const job of jobs.slice(1)) boss.sendToQueue(queue, Buffer.from(job), { persistent: true });
  await fast.arrivals(jobs.length - 1);
  equal('fast worker', fast.bodies(), jobs.slice(1));
  equal('slow worker', slow.bodies(), jobs.slice(0, 1));
  holds('all are persistent', fast.deliveries.every(({ properties }) => properties.deliveryMode === 2));
  holds('none was delivered before', fast.deliveries.every(({ fields }) => !fields.redelivered));

  // A worker that dies without acknowledging gives its job back.
  await slowConnection.close();
  await fast.arrivals(jobs.length);
  const back = fast.deliveries.at(-1);
  equal('job given back', [back.content.toString(), back.fields.redelivered], [jobs[0], true]);
}

async function publish_subscribe(session) {
  const publisher = await session.channel();
  const exchange = await session.exchange(publisher, 'fanout');
  const listeners = [];
  for (let count = 0; count < 3; count += 1) {
    const connection = await session.connect();
    const channel = await session.channel(connection);
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, exchange, '');
    listeners.push({ connection, queue, inbox: await Mailbox.open(channel, queue) });
  }
  const names = listeners.map(({ queue }) => queue);
  equal('distinct server-made names', new Set(names).size, 3);
  holds(`server-made names ${names} begin with amq.gen-`, names.every((name) => name.startsWith('amq.gen-')));

  const news = numbered('news', 5);
  for (const item of news) publisher.publish(exchange, 'ignored', Buffer.from(item));
  for (const { inbox } of listeners) {
    await inbox.arrivals(news.length);
    equal('received', inbox.bodies(), news);
  }

  const locked = await refused('use of a foreign exclusive queue', publisher.checkQueue(names[0]));
  equalError(locked, 405, 'RESOURCE_LOCKED - cannot obtain exclusive access');
  await listeners[0].connection.close();
  const connection = await session.connect();
  const gone = async () => {
    for (;;) {
      const channel = await session.channel(connection);
      const code = await channel.checkQueue(names[0]).then(() => 200, (error) => error.code);
      if (code === 404) return;
    }
  };
  await within('the exclusive queue to go with its connection', gone());
}

async function routing(session) {
  const channel = await session.channel();
  const exchange = await session.exchange(channel, 'direct');
  const urgent = await session.queue(channel, 'urgent');
  const everything = await session.queue(channel, 'everything');
  await channel.bindQueue(urgent, exchange, 'error');
  for (const severity of ['info', 'warning', 'error']) await channel.bindQueue(everything, exchange, severity);

  const publishAll = () => {
    for (const severity of ['info', 'debug', 'error', 'warning', 'errors']) {
      channel.publish(exchange, severity, Buffer.from(severity));
    }
  };
  publishAll();
  equal('urgent', await drain(channel, urgent), ['error']);
  equal('everything', await drain(channel, everything), ['info', 'error', 'warning']);
  await channel.unbindQueue(everything, exchange, 'info');
  publishAll();
  equal('everything after unbind', await drain(channel, everything), ['error', 'warning']);
  equal('urgent after unbind', await drain(channel, urgent), ['error']);
}

async function topics(session) {
  const channel = await session.channel();
  const exchange = await session.exchange(channel, 'topic');
  const keys = ['kern.critical', 'kern', 'kern.info.late', 'cron.critical', 'audit', 'audit.door.front', 'door', ''];
  const table = [
    ['kernel', ['kern.*'], ['kern.critical']],
    ['critical', ['*.critical', 'kern.critical'], ['kern.critical', 'cron.critical']],
    ['audit', ['audit.#'], ['audit', 'audit.door.front']],
    ['middle', ['#.door.#'], ['audit.door.front', 'door']],
    ['all', ['#'], keys],
  ];
  const queues = new Map();
  for (const [name, patterns] of table) {
    queues.set(name, await session.queue(channel, name));
    for (const pattern of patterns) await channel.bindQueue(queues.get(name), exchange, pattern);
  }
  for (const key of keys) channel.publish(exchange, key, Buffer.from(key));
  for (const [name, , expected] of table) equal(name, await drain(channel, queues.get(name)), expected);
}

async function rpc(session) {
  const server = await session.channel();
  const client = await session.channel();
  const requests = session.name('requests');
  await server.assertQueue(requests, { exclusive: true });
  const waiting = [];

  // Answering two requests at a time, the later one first, makes the correlation id matter.
  const serve = (message) => {
    waiting.unshift(message);
    server.ack(message);
    if (waiting.length < 2) return;
    for (const { properties, content } of waiting.splice(0)) {
      const answer = Buffer.from(String(Number(content) ** 2));
      server.sendToQueue(properties.replyTo, answer, { correlationId: properties.correlationId });
    }
  };
  await server.consume(requests, serve);

  const { queue: callback } = await client.assertQueue('', { exclusive: true });
  const replies = await Mailbox.open(client, callback);
  const expected = {};
  for (let number = 2; number < 8; number += 1) {
    const correlationId = `call-${number}`;
    expected[correlationId] = number ** 2;
    client.sendToQueue(requests, Buffer.from(String(number)), { replyTo: callback, correlationId });
  }
  await replies.arrivals(6);
  const answers = replies.deliveries.map(({ properties, content }) => [properties.correlationId, Number(content)]);
  equal('answers', Object.fromEntries([...answers].sort()), expected);
  equal('first replies', answers.slice(0, 2).map(([id]) => id), ['call-3', 'call-2']);
}

module.exports = { hello_world, work_queue, publish_subscribe, routing, topics, rpc };

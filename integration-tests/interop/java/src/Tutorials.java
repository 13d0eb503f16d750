import static java.util.stream.Collectors.toList;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Delivery;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/** The six programs of the RabbitMQ tutorials, each with its outcome checked. */
final class Tutorials {
    private Tutorials() {}

    static List<String> numbered(String word, int count) {
        return IntStream.range(0, count).mapToObj(number -> word + number).collect(toList());
    }

    static void helloWorld(Session session) throws Exception {
        Channel sender = session.channel();
        String queue = session.queue(sender, "queue");
        Inbox inbox = new Inbox(session.channel(), queue, true);
        sender.basicPublish("", queue, null, "hello, burrow".getBytes());
        Delivery got = inbox.next();
        Expect.equal("body", new String(got.getBody()), "hello, burrow");
        Expect.equal("exchange", got.getEnvelope().getExchange(), "");
        Expect.equal("routing key", got.getEnvelope().getRoutingKey(), queue);
        Expect.equal("redelivered", got.getEnvelope().isRedeliver(), false);
        Expect.equal("messages left", sender.messageCount(queue), 0L);
    }

    static void workQueue(Session session) throws Exception {
        List<String> jobs = numbered("job ", 20);
        Channel boss = session.channel();
        String queue = session.queue(boss, "queue");
        Connection slowConnection = session.connect();
        Channel slow = slowConnection.createChannel();
        Channel fast = session.channel();
        slow.basicQos(1);
        fast.basicQos(1);

        Inbox slowInbox = new Inbox(slow, queue, false);
        boss.basicPublish("", queue, Session.PERSISTENT, jobs.get(0).getBytes());
        Expect.equal("slow worker", slowInbox.next(1), jobs.subList(0, 1));

        // The slow worker sits on its one job, so fair dispatch leaves all the others to its colleague.
        Inbox fastInbox = new Inbox(fast, queue, false);
        for (String job : jobs.subList(1, jobs.size())) {
            boss.basicPublish("", queue, Session.PERSISTENT, job.getBytes());
        }
        for (String job : jobs.subList(1, jobs.size())) {
            Delivery got = fastInbox.next();
            Expect.equal("fast worker", Inbox.describe(got), job);
            Expect.equal("delivery mode", got.getProperties().getDeliveryMode(), 2);
            fast.basicAck(got.getEnvelope().getDeliveryTag(), false);
        }

        // A worker that dies without acknowledging gives its job back.
        slowConnection.close();
        Expect.equal("job given back", fastInbox.next(1), List.of(jobs.get(0) + "*"));
    }

    static void publishSubscribe(Session session) throws Exception {
        Channel publisher = session.channel();
        String exchange = session.exchange(publisher, "fanout");
        List<Connection> connections = new ArrayList<>();
        Map<String, Inbox> inboxes = new LinkedHashMap<>();
        for (int count = 0; count < 3; count++) {
            Connection connection = session.connect();
            Channel channel = connection.createChannel();
            String queue = channel.queueDeclare().getQueue();
            channel.queueBind(queue, exchange, "");
            Expect.holds("server-made name " + queue + " begins with amq.gen-", queue.startsWith("amq.gen-"));
            inboxes.put(queue, new Inbox(channel, queue, true));
            connections.add(connection);
        }
        Expect.equal("distinct server-made names", inboxes.size(), 3);

        List<String> news = numbered("news ", 5);
        for (String item : news) {
            publisher.basicPublish(exchange, "ignored", null, item.getBytes());
        }
        for (Inbox inbox : inboxes.values()) {
            Expect.equal("received", inbox.next(news.size()), news);
        }

        String queue = inboxes.keySet().iterator().next();
        Expect.refused("a foreign exclusive queue", 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '"
            + queue + "' in vhost '/'. It could be originally declared on another connection or the exclusive property value"
            + " does not match that of the original declaration.", () -> publisher.queueDeclarePassive(queue));
        connections.get(0).close();
        Connection looking = session.connect();
        long giveUp = System.nanoTime() + Expect.WAIT_SECONDS * 1_000_000_000L;
        while (exists(looking, queue)) {
            Expect.holds("the exclusive queue goes with its connection", System.nanoTime() < giveUp);
        }
    }

    private static boolean exists(Connection connection, String queue) throws Exception {
        try {
            Expect.refused("the queue", 404, "NOT_FOUND - no queue '" + queue + "' in vhost '/'",
                () -> connection.createChannel().queueDeclarePassive(queue));
            return false;
        } catch (Expect.Mismatch still) {
            return true;
        }
    }

    static void routing(Session session) throws Exception {
        Channel channel = session.channel();
        String exchange = session.exchange(channel, "direct");
        String urgent = session.queue(channel, "urgent");
        String everything = session.queue(channel, "everything");
        channel.queueBind(urgent, exchange, "error");
        for (String severity : List.of("info", "warning", "error")) {
            channel.queueBind(everything, exchange, severity);
        }
        publishSeverities(channel, exchange);
        Expect.equal("urgent", Expect.drain(channel, urgent), List.of("error"));
        Expect.equal("everything", Expect.drain(channel, everything), List.of("info", "error", "warning"));
        channel.queueUnbind(everything, exchange, "info");
        publishSeverities(channel, exchange);
        Expect.equal("everything after unbind", Expect.drain(channel, everything), List.of("error", "warning"));
        Expect.equal("urgent after unbind", Expect.drain(channel, urgent), List.of("error"));
    }

    private static void publishSeverities(Channel channel, String exchange) throws Exception {
        for (String severity : List.of("info", "debug", "error", "warning", "errors")) {
            channel.basicPublish(exchange, severity, null, severity.getBytes());
        }
    }

    private record Topic(String name, List<String> patterns, List<String> expected) {}

    static void topics(Session session) throws Exception {
        Channel channel = session.channel();
        String exchange = session.exchange(channel, "topic");
        List<String> keys = List.of(
            "kern.critical", "kern", "kern.info.late", "cron.critical", "audit", "audit.door.front", "door", "");
        List<Topic> table = List.of(
            new Topic("kernel", List.of("kern.*"), List.of("kern.critical")),
            new Topic("critical", List.of("*.critical", "kern.critical"), List.of("kern.critical", "cron.critical")),
            new Topic("audit", List.of("audit.#"), List.of("audit", "audit.door.front")),
            new Topic("middle", List.of("#.door.#"), List.of("audit.door.front", "door")),
            new Topic("all", List.of("#"), keys));
        Map<String, String> queues = new LinkedHashMap<>();
        for (Topic topic : table) {
            queues.put(topic.name(), session.queue(channel, topic.name()));
            for (String pattern : topic.patterns()) {
                channel.queueBind(queues.get(topic.name()), exchange, pattern);
            }
        }
        for (String key : keys) {
            channel.basicPublish(exchange, key, null, key.getBytes());
        }
        for (Topic topic : table) {
            Expect.equal(topic.name(), Expect.drain(channel, queues.get(topic.name())), topic.expected());
        }
    }

    static void rpc(Session session) throws Exception {
        Channel server = session.channel();
        Channel client = session.channel();
        String requests = session.name("requests");
        server.queueDeclare(requests, false, true, true, null);
        List<Delivery> waiting = new ArrayList<>();
        // Answering two requests at a time, the later one first, makes the correlation id matter.
        server.basicConsume(requests, true, (tag, request) -> {
            waiting.add(0, request);
            if (waiting.size() == 2) {
                for (Delivery asked : waiting) {
                    int number = Integer.parseInt(new String(asked.getBody()));
                    AMQP.BasicProperties reply = new AMQP.BasicProperties.Builder()
                        .correlationId(asked.getProperties().getCorrelationId()).build();
                    server.basicPublish("", asked.getProperties().getReplyTo(), reply, ("" + number * number).getBytes());
                }
                waiting.clear();
            }
        }, tag -> { });

        String callback = client.queueDeclare().getQueue();
        Inbox replies = new Inbox(client, callback, true);
        List<String> expected = new ArrayList<>();
        for (int number = 2; number < 8; number++) {
            AMQP.BasicProperties call = new AMQP.BasicProperties.Builder()
                .correlationId("call-" + number).replyTo(callback).build();
            client.basicPublish("", requests, call, ("" + number).getBytes());
            expected.add("call-" + number + " = " + number * number);
        }
        List<String> answers = new ArrayList<>();
        while (answers.size() < expected.size()) {
            Delivery reply = replies.next();
            answers.add(reply.getProperties().getCorrelationId() + " = " + new String(reply.getBody()));
        }
        Expect.equal("answers", new HashSet<>(answers), new HashSet<>(expected));
        Expect.equal("first replies", answers.subList(0, 2), List.of(expected.get(1), expected.get(0)));
    }
}

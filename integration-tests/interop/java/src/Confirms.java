import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Return;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Publisher confirms: one at a time, in batches and asynchronously; and what mandatory adds to them. */
final class Confirms {
    private static final long WAIT_MS = Expect.WAIT_SECONDS * 1000L;

    private Confirms() {}

    static void individual(Session session) throws Exception {
        Channel channel = session.channel();
        String queue = session.queue(channel, "queue");
        channel.confirmSelect();
        for (int number = 0; number < 20; number++) {
            channel.basicPublish("", queue, Session.PERSISTENT, ("" + number).getBytes());
            channel.waitForConfirmsOrDie(WAIT_MS);
            Expect.equal("messages ready", channel.messageCount(queue), number + 1L);
        }
        Expect.equal("stored", Expect.drain(channel, queue), Tutorials.numbered("", 20));
    }

    static void batch(Session session) throws Exception {
        Channel channel = session.channel();
        String queue = session.queue(channel, "queue");
        channel.confirmSelect();
        List<String> bodies = Tutorials.numbered("", 200);
        for (int end = 50; end <= 200; end += 50) {
            for (String body : bodies.subList(end - 50, end)) {
                channel.basicPublish("", queue, Session.PERSISTENT, body.getBytes());
            }
            channel.waitForConfirmsOrDie(WAIT_MS);
            Expect.equal("messages ready", channel.messageCount(queue), (long) end);
        }
        Expect.equal("stored", Expect.drain(channel, queue), bodies);
    }

    static void async(Session session) throws Exception {
        Channel channel = session.channel();
        String queue = session.queue(channel, "queue");
        channel.confirmSelect();
        ConcurrentSkipListSet<Long> outstanding = new ConcurrentSkipListSet<>();
        List<String> bodies = Tutorials.numbered("", 500);
        CountDownLatch settled = new CountDownLatch(bodies.size());
        BlockingQueue<String> wrong = new LinkedBlockingQueue<>();
        channel.addConfirmListener((tag, multiple) -> {
            var covered = multiple ? outstanding.headSet(tag, true) : outstanding.subSet(tag, true, tag, true);
            if (covered.isEmpty()) {
                wrong.add("nothing outstanding up to " + tag);
            }
            while (covered.pollFirst() != null) {
                settled.countDown();
            }
        }, (tag, multiple) -> wrong.add("refused " + tag));
        for (String body : bodies) {
            outstanding.add(channel.getNextPublishSeqNo());
            channel.basicPublish("", queue, Session.PERSISTENT, body.getBytes());
        }
        boolean all = settled.await(Expect.WAIT_SECONDS, TimeUnit.SECONDS);
        Expect.equal("wrong confirms", List.copyOf(wrong), List.of());
        Expect.holds(settled.getCount() + " confirms are missing", all);
        Expect.equal("stored", Expect.drain(channel, queue), bodies);
    }

    static void mandatoryReturn(Session session) throws Exception {
        Channel channel = session.channel();
        String queue = session.queue(channel, "queue");
        String exchange = session.exchange(channel, "direct");
        channel.queueBind(queue, exchange, "known");
        channel.confirmSelect();
        BlockingQueue<Return> returns = new LinkedBlockingQueue<>();
        channel.addReturnListener(returns::add);
        AMQP.BasicProperties post = new AMQP.BasicProperties.Builder().type("post").build();
        channel.basicPublish(exchange, "known", true, post, "arrives".getBytes());
        channel.basicPublish(exchange, "unknown", false, post, "vanishes".getBytes());
        channel.waitForConfirmsOrDie(WAIT_MS);
        Expect.equal("returns so far", returns.size(), 0);
        channel.basicPublish(exchange, "unknown", true, post, "comes back".getBytes());
        channel.waitForConfirmsOrDie(WAIT_MS);
        // The return comes before the confirm, so it must be here already.
        Expect.equal("returns", returns.size(), 1);
        Return back = Expect.next("the return", returns);
        Expect.equal("reply", back.getReplyCode() + " " + back.getReplyText(), "312 NO_ROUTE");
        Expect.equal("address", back.getExchange() + " " + back.getRoutingKey(), exchange + " unknown");
        Expect.equal("type", back.getProperties().getType(), "post");
        Expect.equal("body", new String(back.getBody()), "comes back");
        Expect.equal("routed", Expect.drain(channel, queue), List.of("arrives"));
    }
}

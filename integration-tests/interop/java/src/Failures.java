import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.ShutdownSignalException;
import java.net.Socket;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** What the broker says when something goes wrong, and how a client carries on. */
final class Failures {
    private Failures() {}

    static void consumerCancel(Session session) throws Exception {
        Channel channel = session.channel();
        Channel other = session.channel();
        String queue = session.queue(other, "queue");
        Inbox inbox = new Inbox(channel, queue, true);
        other.basicPublish("", queue, null, "last words".getBytes());
        inbox.next();
        other.queueDelete(queue);
        Expect.equal("cancelled consumer", Expect.next("the cancel notification", inbox.cancels), inbox.tag);
        // The channel survives it.
        String next = session.queue(channel, "next");
        channel.basicPublish("", next, null, "still here".getBytes());
        Expect.equal("after the cancel", Expect.drain(channel, next), List.of("still here"));
    }

    private static BlockingQueue<ShutdownSignalException> closing(Channel channel) {
        BlockingQueue<ShutdownSignalException> reasons = new LinkedBlockingQueue<>();
        channel.addShutdownListener(reasons::add);
        return reasons;
    }

    static void channelError(Session session) throws Exception {
        Connection connection = session.connect();
        String queue = session.queue(connection.createChannel(), "queue");
        Expect.refused("a missing queue", 404, "NOT_FOUND - no queue 'interop.missing' in vhost '/'",
            () -> connection.createChannel().queueDeclarePassive("interop.missing"));
        Expect.refused("another durability", 406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '" + queue
            + "' in vhost '/': received 'false' but current is 'true'",
            () -> connection.createChannel().queueDeclare(queue, false, false, false, null));

        Channel acking = connection.createChannel();
        var unknownTag = closing(acking);
        acking.basicAck(7, false);
        Expect.closedWith("an unknown tag", 406, "PRECONDITION_FAILED - unknown delivery tag 7",
            Expect.next("the close", unknownTag));

        Channel publishing = connection.createChannel();
        var noExchange = closing(publishing);
        publishing.basicPublish("interop.missing", "", null, new byte[0]);
        Expect.closedWith("no exchange", 404, "NOT_FOUND - no exchange 'interop.missing' in vhost '/'",
            Expect.next("the close", noExchange));

        // The connection outlives its channels.
        Channel channel = connection.createChannel();
        channel.basicPublish("", queue, null, "after errors".getBytes());
        Expect.equal("after the errors", Expect.drain(channel, queue), List.of("after errors"));
    }

    static void connectionError(Session session) throws Exception {
        Connection connection = session.connect();
        Channel bystander = session.channel();
        String queue = session.queue(bystander, "queue");
        Channel channel = connection.createChannel();
        Expect.refused("a prefetch size", 540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", () -> channel.basicQos(1, 1, false));
        Expect.equal("open", connection.isOpen(), false);
        bystander.basicPublish("", queue, null, "undisturbed".getBytes());
        Expect.equal("another connection", Expect.drain(bystander, queue), List.of("undisturbed"));

        ConnectionFactory nowhere = session.factory();
        nowhere.setVirtualHost("interop.nowhere");
        Expect.refused("a missing vhost", 530, "NOT_ALLOWED - vhost interop.nowhere not found", () -> session.connect(nowhere));
        ConnectionFactory wrong = session.factory();
        wrong.setPassword("not the password");
        try {
            session.connect(wrong);
        } catch (com.rabbitmq.client.AuthenticationFailureException refused) {
            Expect.equal("a wrong password", refused.getMessage(),
                "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.");
            return;
        }
        throw new Expect.Mismatch("a wrong password was accepted");
    }

    /** The client's automatic recovery: it dials again, and restores channel, prefetch, exclusive queue and consumers. */
    static void reconnect(Session session) throws Exception {
        BlockingQueue<Socket> sockets = new LinkedBlockingQueue<>();
        BlockingQueue<String> recoveries = new LinkedBlockingQueue<>();
        ConnectionFactory factory = session.factory();
        factory.setAutomaticRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(20);
        factory.setSocketConfigurator(sockets::add);
        Connection connection = session.connect(factory);
        ((Recoverable) connection).addRecoveryListener(new RecoveryListener() {
            @Override
            public void handleRecovery(Recoverable recovered) {
                recoveries.add("recovered");
            }

            @Override
            public void handleRecoveryStarted(Recoverable recovered) {}
        });
        Channel channel = connection.createChannel();
        String queue = session.queue(channel, "queue");
        String exchange = session.exchange(channel, "fanout");
        String exclusive = channel.queueDeclare().getQueue();
        channel.queueBind(exclusive, exchange, "");
        Inbox news = new Inbox(channel, exclusive, true);
        channel.confirmSelect();
        for (String body : Tutorials.numbered("", 4)) {
            channel.basicPublish("", queue, Session.PERSISTENT, body.getBytes());
        }
        channel.waitForConfirmsOrDie(Expect.WAIT_SECONDS * 1000L);
        channel.basicQos(3);
        Inbox inbox = new Inbox(channel, queue, false);
        Delivery first = inbox.next();
        Expect.equal("before the cut", inbox.next(2), List.of("1", "2"));
        channel.basicAck(first.getEnvelope().getDeliveryTag(), false);
        Expect.equal("before the cut", inbox.next(1), List.of("3"));

        Expect.next("the socket", sockets).close();
        Expect.next("the recovery", recoveries);
        // What was delivered and not acknowledged comes again, marked; the restored prefetch holds back "4".
        Expect.equal("after recovery", inbox.next(2), List.of("1*", "2*"));
        Delivery third = inbox.next();
        Expect.equal("after recovery", Inbox.describe(third), "3*");
        channel.basicPublish("", queue, Session.PERSISTENT, "4".getBytes());
        channel.waitForConfirmsOrDie(Expect.WAIT_SECONDS * 1000L);
        Expect.equal("beyond the prefetch", inbox.deliveries.size(), 0);
        channel.basicAck(third.getEnvelope().getDeliveryTag(), true);
        Expect.equal("after recovery", inbox.next(1), List.of("4"));
        channel.basicPublish(exchange, "", null, "again".getBytes());
        Expect.equal("the restored exclusive queue", news.next(1), List.of("again"));
    }
}

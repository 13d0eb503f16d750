import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Delivery;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** A consumer that keeps what it is given until the scenario asks for it. */
final class Inbox {
    final String tag;
    final BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
    final BlockingQueue<String> cancels = new LinkedBlockingQueue<>();

    Inbox(Channel channel, String queue, boolean autoAck) throws Exception {
        tag = channel.basicConsume(queue, autoAck, (consumer, delivery) -> deliveries.add(delivery), cancels::add);
    }

    Delivery next() throws InterruptedException {
        return Expect.next("a delivery", deliveries);
    }

    /** The next bodies, each with a `*` behind it when it was delivered before. */
    List<String> next(int count) throws InterruptedException {
        List<String> bodies = new ArrayList<>();
        while (bodies.size() < count) {
            bodies.add(describe(next()));
        }
        return bodies;
    }

    static String describe(Delivery delivery) {
        return new String(delivery.getBody()) + (delivery.getEnvelope().isRedeliver() ? "*" : "");
    }
}

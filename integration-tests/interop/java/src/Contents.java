import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import java.math.BigDecimal;
import java.util.Arrays;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Settling and fetching single messages, and what a message carries. */
final class Contents {
    private Contents() {}

    static void requeue(Session session) throws Exception {
        Channel channel = session.channel();
        String queue = session.queue(channel, "queue");
        long[] taken = new long[3];
        for (int index = 0; index < taken.length; index++) {
            channel.basicPublish("", queue, null, List.of("a", "b", "c").get(index).getBytes());
            taken[index] = channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
        }
        channel.basicNack(taken[1], false, true);
        channel.basicReject(taken[2], false);
        channel.basicNack(taken[0], false, true);
        Inbox inbox = new Inbox(channel, queue, false);
        Expect.equal("requeued", inbox.next(2), List.of("a*", "b*"));
        channel.basicRecover(true);
        Expect.equal("recovered", inbox.next(1), List.of("a*"));
        Delivery last = inbox.next();
        Expect.equal("recovered", Inbox.describe(last), "b*");
        channel.basicAck(last.getEnvelope().getDeliveryTag(), true);
        Expect.equal("messages left", channel.messageCount(queue), 0L);
    }

    static void basicGet(Session session) throws Exception {
        Channel channel = session.channel();
        String queue = session.queue(channel, "queue");
        Expect.equal("empty queue", channel.basicGet(queue, true), null);
        for (String body : List.of("one", "two", "three")) {
            channel.basicPublish("", queue, null, body.getBytes());
        }
        Expect.equal("first", describe(channel.basicGet(queue, true)), "one false 2");
        GetResponse second = channel.basicGet(queue, false);
        Expect.equal("second", describe(second), "two false 1");
        Expect.equal("purged", channel.queuePurge(queue).getMessageCount(), 1);
        channel.basicNack(second.getEnvelope().getDeliveryTag(), false, true);
        Expect.equal("second again", describe(channel.basicGet(queue, true)), "two true 0");
        Expect.equal("deleted with", channel.queueDelete(queue).getMessageCount(), 0);
    }

    private static String describe(GetResponse got) {
        return new String(got.getBody()) + " " + got.getEnvelope().isRedeliver() + " " + got.getMessageCount();
    }

    static void properties(Session session) throws Exception {
        Channel channel = session.channel();
        String queue = session.queue(channel, "queue");
        Map<String, Object> headers = new LinkedHashMap<>();
        headers.put("text", "čeština 🐇");
        headers.put("empty", "");
        headers.put("flag", true);
        headers.put("byte", (byte) -7);
        headers.put("short", (short) -700);
        headers.put("int", -70_000);
        headers.put("long", 1L << 40);
        headers.put("float", 1.5f);
        headers.put("double", 3.25);
        headers.put("price", new BigDecimal("12.34"));
        headers.put("when", new Date(1_709_208_000_000L));
        headers.put("raw", new byte[] {0, -1});
        headers.put("nothing", null);
        headers.put("list", Arrays.asList(1, "two", List.of(3.5, false), Map.of("four", 4)));
        headers.put("table", Map.of("inner", Map.of("deep", "yes"), "", "empty name"));
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder()
            .contentType("application/json").contentEncoding("utf-8").headers(headers).deliveryMode(2).priority(9)
            .correlationId("correlation").replyTo("reply.queue").expiration("600000").messageId("id-1")
            .timestamp(new Date(1_700_000_000_000L)).type("kind").userId(session.factory().getUsername())
            .appId("interop").clusterId("cluster").build();
        channel.basicPublish("", queue, sent, "{}".getBytes());
        GetResponse received = channel.basicGet(queue, true);
        Expect.equal("body", new String(received.getBody()), "{}");
        AMQP.BasicProperties got = received.getProps();
        for (String name : headers.keySet()) {
            Expect.equal("header " + name, plain(got.getHeaders().get(name)), headers.get(name));
        }
        Expect.equal("number of headers", got.getHeaders().size(), headers.size());
        Expect.equal("properties", got.builder().headers(null).build(), sent.builder().headers(null).build());
        channel.basicPublish("", queue, null, "bare".getBytes());
        AMQP.BasicProperties bare = channel.basicGet(queue, true).getProps();
        Expect.equal("no properties", bare, new AMQP.BasicProperties());
    }

    /** The client hands long strings out as a type of its own. */
    private static Object plain(Object value) {
        if (value instanceof LongString text) {
            return text.toString();
        } else if (value instanceof List<?> list) {
            return list.stream().map(Contents::plain).toList();
        } else if (value instanceof Map<?, ?> map) {
            Map<Object, Object> copy = new LinkedHashMap<>();
            map.forEach((key, inner) -> copy.put(key, plain(inner)));
            return copy;
        }
        return value;
    }

    static void largeMessage(Session session) throws Exception {
        for (int frameMax : new int[] {8192, 131072}) {
            ConnectionFactory factory = session.factory();
            factory.setRequestedFrameMax(frameMax);
            Channel channel = session.connect(factory).createChannel();
            String queue = session.queue(channel, "queue");
            Inbox inbox = new Inbox(channel, queue, true);
            int[] sizes = {1 << 20, 0, frameMax - 8, frameMax - 7};
            for (int size : sizes) {
                channel.basicPublish("", queue, null, pattern(size));
            }
            for (int size : sizes) {
                byte[] body = inbox.next().getBody();
                Expect.equal("size at frame_max " + frameMax, body.length, size);
                Expect.holds("content of " + size + " bytes at frame_max " + frameMax, Arrays.equals(body, pattern(size)));
            }
        }
    }

    static byte[] pattern(int size) {
        byte[] bytes = new byte[size];
        for (int index = 0; index < size; index++) {
            bytes[index] = (byte) (index % 251);
        }
        return bytes;
    }
}

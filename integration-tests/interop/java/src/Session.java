import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;

/** One scenario's connections and names; closing it closes the former and deletes the latter. */
final class Session implements AutoCloseable {
    static final AMQP.BasicProperties PERSISTENT = new AMQP.BasicProperties.Builder().deliveryMode(2).build();

    private final String uri;
    private final String scenario;
    private final List<Connection> connections = new ArrayList<>();
    private final List<String> queues = new ArrayList<>();
    private final List<String> exchanges = new ArrayList<>();

    Session(String uri, String scenario) {
        this.uri = uri;
        this.scenario = scenario;
    }

    ConnectionFactory factory() throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(uri);
        factory.setAutomaticRecoveryEnabled(false);
        factory.setConnectionTimeout(Expect.WAIT_SECONDS * 1000);
        factory.setHandshakeTimeout(Expect.WAIT_SECONDS * 1000);
        factory.setChannelRpcTimeout(Expect.WAIT_SECONDS * 1000);
        return factory;
    }

    Connection connect(ConnectionFactory factory) throws Exception {
        Connection connection = factory.newConnection();
        connections.add(connection);
        return connection;
    }

    Connection connect() throws Exception {
        return connect(factory());
    }

    Channel channel() throws Exception {
        return connect().createChannel();
    }

    String name(String what) {
        return "interop.java." + scenario + "." + what + "." + UUID.randomUUID().toString().substring(0, 13);
    }

    String queue(Channel channel, String what) throws Exception {
        String name = name(what);
        queues.add(name);
        Expect.equal("declared name", channel.queueDeclare(name, true, false, false, null).getQueue(), name);
        return name;
    }

    String exchange(Channel channel, String kind) throws Exception {
        String name = name(kind);
        exchanges.add(name);
        channel.exchangeDeclare(name, kind, true);
        return name;
    }

    @Override
    public void close() throws Exception {
        for (Connection connection : connections) {
            connection.abort(Expect.WAIT_SECONDS * 1000);
        }
        try (Connection tidy = factory().newConnection(); Channel channel = tidy.createChannel()) {
            for (String queue : queues) {
                channel.queueDelete(queue);
            }
            for (String exchange : exchanges) {
                channel.exchangeDelete(exchange);
            }
        }
    }
}

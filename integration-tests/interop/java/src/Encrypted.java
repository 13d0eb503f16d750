import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultSaslConfig;
import com.rabbitmq.client.PossibleAuthenticationFailureException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.TrustManagerFactory;

/** The same over TLS: at WARREN_TLS_PORT, with the certificates in WARREN_TLS_FILES. */
final class Encrypted {
    private static final char[] PASSWORD = "interop".toCharArray();

    private Encrypted() {}

    private static Path file(String name) {
        return Path.of(System.getenv("WARREN_TLS_FILES"), name);
    }

    private static Certificate certificateIn(String name) throws Exception {
        try (InputStream pem = Files.newInputStream(file(name))) {
            return CertificateFactory.getInstance("X.509").generateCertificate(pem);
        }
    }

    private static PrivateKey keyIn(String name) throws Exception {
        String pem = Files.readString(file(name)).replaceAll("-----[A-Z ]+-----|\\s", "");
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
    }

    private static KeyStore store() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, PASSWORD);
        return store;
    }

    /** A factory that trusts this authority and shows this certificate, if it has one. */
    private static ConnectionFactory factory(Session session, String authority, String shown) throws Exception {
        KeyStore trusted = store();
        trusted.setCertificateEntry("authority", certificateIn(authority));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        KeyStore own = store();
        if (shown != null) {
            own.setKeyEntry("own", keyIn(shown + ".key"), PASSWORD, new Certificate[] {certificateIn(shown + ".pem")});
        }
        keys.init(own, PASSWORD);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        ConnectionFactory factory = session.factory();
        factory.setHost("localhost");
        factory.setPort(Integer.parseInt(System.getenv("WARREN_TLS_PORT")));
        factory.useSslProtocol(context);
        factory.enableHostnameVerification();
        return factory;
    }

    private static void thereAndBack(Session session, Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        String queue = session.queue(channel, "queue");
        Inbox inbox = new Inbox(channel, queue, true);
        // Larger than a record of TLS and than a frame of AMQP.
        byte[] body = Contents.pattern(500_000);
        channel.basicPublish("", queue, null, body);
        Expect.equal("body", inbox.next().getBody(), body);
    }

    static void tls(Session session) throws Exception {
        thereAndBack(session, session.connect(factory(session, "ca.pem", null)));
        try {
            session.connect(factory(session, "stranger.pem", null));
        } catch (SSLException refused) {
            thereAndBack(session, session.connect());
            return;
        }
        throw new Expect.Mismatch("a broker was trusted that nobody vouches for");
    }

    static void certificate(Session session) throws Exception {
        ConnectionFactory known = factory(session, "ca.pem", "client");
        known.setSaslConfig(DefaultSaslConfig.EXTERNAL);
        thereAndBack(session, session.connect(known));
        ConnectionFactory unknown = factory(session, "ca.pem", null);
        unknown.setSaslConfig(DefaultSaslConfig.EXTERNAL);
        try {
            session.connect(unknown);
        } catch (PossibleAuthenticationFailureException refused) {
            return;
        }
        throw new Expect.Mismatch("somebody without a certificate was let in by it");
    }
}

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.Method;
import com.rabbitmq.client.ShutdownSignalException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

/** Comparisons that name what differs, and waits that end. */
final class Expect {
    static final int WAIT_SECONDS = 15;

    private Expect() {}

    /** The broker answered, but not with what was expected. */
    static final class Mismatch extends RuntimeException {
        Mismatch(String reason) {
            super(reason);
        }
    }

    interface Action {
        void run() throws Exception;
    }

    static void equal(String what, Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            throw new Mismatch(what + ": expected " + show(expected) + ", got " + show(got));
        }
    }

    private static String show(Object value) {
        return value instanceof byte[] bytes ? Arrays.toString(bytes) : String.valueOf(value);
    }

    static void holds(String what, boolean condition) {
        if (!condition) {
            throw new Mismatch(what);
        }
    }

    /** The next element of a queue that the client's own threads fill. */
    static <T> T next(String what, BlockingQueue<T> from) throws InterruptedException {
        T got = from.poll(WAIT_SECONDS, TimeUnit.SECONDS);
        if (got == null) {
            throw new Mismatch("waited " + WAIT_SECONDS + " s for " + what);
        }
        return got;
    }

    /** Expects the broker to close the channel or the connection over this action. */
    static void refused(String what, int code, String text, Action action) throws Exception {
        try {
            action.run();
        } catch (Exception thrown) {
            for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
                if (cause instanceof ShutdownSignalException closed) {
                    closedWith(what, code, text, closed);
                    return;
                }
            }
            throw thrown;
        }
        throw new Mismatch(what + ": expected " + code + " " + text + ", but the broker accepted it");
    }

    static void closedWith(String what, int code, String text, ShutdownSignalException closed) {
        Method reason = closed.getReason();
        if (reason instanceof AMQP.Channel.Close close) {
            equal(what, close.getReplyCode() + " " + close.getReplyText(), code + " " + text);
        } else if (reason instanceof AMQP.Connection.Close close) {
            equal(what, close.getReplyCode() + " " + close.getReplyText(), code + " " + text);
        } else {
            throw new Mismatch(what + ": closed without a reason: " + closed);
        }
    }

    /** Takes everything that is ready and returns the bodies in order. */
    static List<String> drain(Channel channel, String queue) throws Exception {
        List<String> bodies = new ArrayList<>();
        for (GetResponse got = channel.basicGet(queue, true); got != null; got = channel.basicGet(queue, true)) {
            bodies.add(new String(got.getBody()));
        }
        return bodies;
    }
}

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs the scenarios named as arguments against the broker at WARREN_AMQP_URI and prints one line for each. */
public final class Interop {
    private static final int SCENARIO_SECONDS = 40;
    private static final Map<String, Scenario> SCENARIOS = new LinkedHashMap<>();

    private interface Scenario {
        void run(Session session) throws Exception;
    }

    static {
        SCENARIOS.put("hello_world", Tutorials::helloWorld);
        SCENARIOS.put("work_queue", Tutorials::workQueue);
        SCENARIOS.put("publish_subscribe", Tutorials::publishSubscribe);
        SCENARIOS.put("routing", Tutorials::routing);
        SCENARIOS.put("topics", Tutorials::topics);
        SCENARIOS.put("rpc", Tutorials::rpc);
        SCENARIOS.put("confirms_individual", Confirms::individual);
        SCENARIOS.put("confirms_batch", Confirms::batch);
        SCENARIOS.put("confirms_async", Confirms::async);
        SCENARIOS.put("mandatory_return", Confirms::mandatoryReturn);
        SCENARIOS.put("consumer_cancel", Failures::consumerCancel);
        SCENARIOS.put("channel_error", Failures::channelError);
        SCENARIOS.put("connection_error", Failures::connectionError);
        SCENARIOS.put("reconnect", Failures::reconnect);
        SCENARIOS.put("requeue", Contents::requeue);
        SCENARIOS.put("basic_get", Contents::basicGet);
        SCENARIOS.put("properties", Contents::properties);
        SCENARIOS.put("large_message", Contents::largeMessage);
        SCENARIOS.put("tls", Encrypted::tls);
        SCENARIOS.put("tls_certificate", Encrypted::certificate);
    }

    private Interop() {}

    public static void main(String[] names) {
        int status = 0;
        for (String name : names) {
            String reason = attempt(System.getenv("WARREN_AMQP_URI"), name);
            if (reason == null) {
                System.out.println("ok " + name);
            } else {
                System.out.println("FAIL " + name + ": " + reason.replace('\n', ' '));
                status = 1;
            }
        }
        // Not a plain return: a scenario that missed its deadline may still hold a thread.
        System.exit(status);
    }

    /** The reason why the scenario failed, or null. */
    private static String attempt(String uri, String name) {
        Scenario scenario = SCENARIOS.get(name);
        if (scenario == null) {
            return "no such scenario here";
        }
        CompletableFuture<Void> outcome = CompletableFuture.runAsync(() -> {
            try (Session session = new Session(uri, name)) {
                scenario.run(session);
            } catch (RuntimeException wrong) {
                throw wrong;
            } catch (Exception wrong) {
                throw new IllegalStateException(wrong.getClass().getSimpleName() + ": " + causes(wrong), wrong);
            }
        });
        try {
            outcome.get(SCENARIO_SECONDS, TimeUnit.SECONDS);
            return null;
        } catch (ExecutionException failed) {
            return failed.getCause().getMessage() == null ? failed.getCause().toString() : failed.getCause().getMessage();
        } catch (TimeoutException late) {
            return "did not end within " + SCENARIO_SECONDS + " s";
        } catch (InterruptedException interrupted) {
            return "interrupted";
        }
    }

    private static String causes(Throwable thrown) {
        StringBuilder text = new StringBuilder();
        for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
            text.append(text.isEmpty() ? "" : ", because ").append(cause.getMessage());
        }
        return text.toString();
    }
}

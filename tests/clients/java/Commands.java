import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;

/** What a suite writes to standard input, a command a line, each answered with one line: "= ANSWER" or "! ERROR". */
final class Commands {
    interface Command {
        String run(String[] words) throws Exception;
    }

    private final Map<String, Command> known = new HashMap<>();

    void add(String name, Command command) {
        known.put(name, command);
    }

    void serve() throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            String answer;
            try {
                answer = "= " + known.get(words[0]).run(words);
            } catch (Exception error) {
                Throwable cause = error instanceof ExecutionException && error.getCause() != null ? error.getCause() : error;
                answer = "! " + cause.getClass().getSimpleName() + ": " + String.valueOf(cause.getMessage()).replace('\n', ' ');
            }
            System.out.println(answer);
            System.out.flush();
        }
    }

    /** Settings are words of the form KEY=VALUE, from the given place on. */
    static Properties settings(String bootstrap, String[] words, int from) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        settings.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        settings.put("reconnect.backoff.max.ms", "100");
        settings.put("enable.metrics.push", "false");
        for (int at = from; at < words.length; at++) {
            String[] parts = words[at].split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        return settings;
    }
}

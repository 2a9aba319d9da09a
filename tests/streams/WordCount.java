import java.time.Duration;
import java.util.Arrays;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;

/**
 * Counts words, in all and by the minute, and joins each count with the word's length; exactly once, every update told. Its
 * arguments: the broker, a directory for its state, the group protocol, how many threads. It says which tasks it has when these change.
 */
public class WordCount {
    private static Properties config(String bootstrap, String state, String protocol, int threads) {
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, "word-count");
        config.put(StreamsConfig.STATE_DIR_CONFIG, state);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.GROUP_PROTOCOL_CONFIG, protocol);
        config.put("producer.transaction.timeout.ms", 10000);
        if (protocol.equals("classic")) {
            // With the other one it is the broker that tells these.
            config.put("session.timeout.ms", 6000);
            config.put("heartbeat.interval.ms", 1000);
        }
        config.put("reconnect.backoff.max.ms", 100);
        config.put("auto.offset.reset", "earliest");
        return config;
    }

    private static StreamsBuilder topology() {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, String> lines = builder.stream("lines");
        KGroupedStream<String, String> words = lines
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("words"));
        KTable<String, String> lengths = builder.table("lengths", Materialized.as("lengths"));
        words.count(Materialized.as("counts"))
            .toStream()
            .mapValues(count -> count.toString())
            .to("counts");
        words.count(Materialized.as("joined"))
            .toStream()
            .mapValues(count -> count.toString())
            .join(lengths, (count, length) -> count + ":" + length)
            .to("joined");
        // Lines are minutes apart and come by several ways: whoever is late is waited for.
        words.windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofDays(1)))
            .count(Materialized.as("windowed"))
            .toStream()
            .map((window, count) -> new KeyValue<>(window.key(), count + "@" + window.window().start()))
            .to("windowed");
        return builder;
    }

    private static String tasks(KafkaStreams streams) {
        return streams.metadataForLocalThreads().stream()
            .flatMap(thread -> thread.activeTasks().stream())
            .map(task -> task.taskId().toString())
            .sorted().collect(Collectors.joining(" "));
    }

    public static void main(String[] args) throws Exception {
        KafkaStreams streams = new KafkaStreams(topology().build(), config(args[0], args[1], args[2], Integer.parseInt(args[3])));
        // A thread that a broker's end has broken is replaced, as people run it.
        streams.setUncaughtExceptionHandler(error -> {
            System.out.println("replaced after " + error);
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.setStateListener((now, before) -> System.out.println("state " + now));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
        for (String told = "";; Thread.sleep(100)) {
            String now = streams.state().isRunningOrRebalancing() ? tasks(streams) : told;
            if (!now.equals(told)) {
                System.out.println("tasks " + now);
                told = now;
            }
        }
    }
}
